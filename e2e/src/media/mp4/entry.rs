//! Sample entries: which codec a track holds and with what parameters.

use super::child;
use crate::media::aac::AacConfig;
use crate::media::bytes::Reader;
use crate::media::clip::{AudioFormat, FormatError, VideoFormat};
use crate::media::nal::AvcConfig;

fn name(kind: [u8; 4]) -> String {
    String::from_utf8_lossy(&kind).trim().to_owned()
}

/// Reads a visual sample entry.
pub(super) fn video(kind: [u8; 4], payload: &[u8]) -> Result<VideoFormat, FormatError> {
    if kind != *b"avc1" && kind != *b"avc3" {
        return Ok(VideoFormat::Other(name(kind)));
    }
    // 8 bytes common to all sample entries, 70 of the visual one, then boxes.
    let record = payload
        .get(78..)
        .and_then(|boxes| child(boxes, *b"avcC"))
        .ok_or_else(|| FormatError("its H.264 track has no configuration ('avcC')".into()))?;
    AvcConfig::parse(record).map(VideoFormat::H264)
}

/// Reads an audio sample entry.
pub(super) fn audio(kind: [u8; 4], payload: &[u8]) -> Result<AudioFormat, FormatError> {
    let mut reader = Reader::new(payload);
    reader.skip(8)?;
    let version = reader.u16()?;
    reader.skip(6)?;
    let channels = reader.u16()? as u8;
    // QuickTime's versions 1 and 2 put more fields before the boxes.
    let boxes = payload
        .get(28 + [0, 16, 36][usize::from(version.min(2))]..)
        .unwrap_or_default();
    match &kind {
        b"mp4a" => {
            let wave = child(boxes, *b"wave").unwrap_or(boxes);
            match child(wave, *b"esds") {
                Some(descriptor) => elementary_stream(descriptor),
                None => Err(FormatError(
                    "its AAC track has no configuration ('esds')".into(),
                )),
            }
        }
        b"Opus" => Ok(AudioFormat::Opus { channels }),
        _ => Ok(AudioFormat::Other(name(kind))),
    }
}

/// One descriptor of ISO/IEC 14496-1: tag and body.
fn descriptor<'a>(reader: &mut Reader<'a>) -> Result<(u8, &'a [u8]), FormatError> {
    let tag = reader.u8()?;
    let mut length = 0_usize;
    for _ in 0..4 {
        let byte = reader.u8()?;
        length = (length << 7) | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    // Some writers claim more than there is; what is there counts.
    let length = length.min(reader.left());
    Ok((tag, reader.take(length)?))
}

fn elementary_stream(payload: &[u8]) -> Result<AudioFormat, FormatError> {
    let mut reader = Reader::new(payload);
    reader.skip(4)?;
    let (_, stream) = descriptor(&mut reader)?;
    let mut reader = Reader::new(stream);
    reader.skip(2)?;
    let flags = reader.u8()?;
    if flags & 0x80 != 0 {
        reader.skip(2)?;
    }
    if flags & 0x40 != 0 {
        let length = usize::from(reader.u8()?);
        reader.skip(length)?;
    }
    if flags & 0x20 != 0 {
        reader.skip(2)?;
    }
    let (_, decoder) = descriptor(&mut reader)?;
    let mut reader = Reader::new(decoder);
    let object_type = reader.u8()?;
    if object_type != 0x40 {
        return Ok(AudioFormat::Other(format!(
            "mp4a object type {object_type:#04x}"
        )));
    }
    reader.skip(12)?;
    let (_, config) = descriptor(&mut reader)?;
    AacConfig::parse(config).map(AudioFormat::Aac)
}

#[cfg(test)]
mod tests {
    use super::super::atoms;
    use super::*;

    #[test]
    fn unknown_codecs_are_named() {
        assert_eq!(video(*b"hvc1", &[]), Ok(VideoFormat::Other("hvc1".into())));
        assert_eq!(
            audio(*b"ac-3", &[0; 28]),
            Ok(AudioFormat::Other("ac-3".into()))
        );
    }

    #[test]
    fn an_aac_descriptor_with_long_lengths_is_read() {
        let config = [5, 0x80, 0x80, 0x80, 2, 0x11, 0x90];
        let decoder = [
            &[4, 0x80, 0x80, 0x80, 13 + config.len() as u8, 0x40, 0x15][..],
            &[0; 11],
            &config,
        ]
        .concat();
        let stream = [
            &[
                0,
                0,
                0,
                0,
                3,
                0x80,
                0x80,
                0x80,
                3 + decoder.len() as u8,
                0,
                1,
                0,
            ][..],
            &decoder,
        ]
        .concat();
        let Ok(AudioFormat::Aac(aac)) = elementary_stream(&stream) else {
            panic!("not AAC")
        };
        assert_eq!(aac.rate, 48_000);
    }

    #[test]
    fn boxes_are_found_behind_others() {
        let bytes = [
            &[0, 0, 0, 9][..],
            b"free",
            &[1],
            &[0, 0, 0, 10],
            b"esds",
            &[7, 8],
        ]
        .concat();
        assert_eq!(child(&bytes, *b"esds"), Some(&[7, 8][..]));
        assert_eq!(
            atoms(&bytes, 100)
                .map(|atom| atom.begin)
                .collect::<Vec<_>>(),
            [100, 109]
        );
    }
}
