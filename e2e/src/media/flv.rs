//! Reads FLV files tag by tag: what an RTMP server wrote down, with the timestamps it received.
//!
//! ffmpeg and GStreamer both rewrite FLV timestamps when they jump; a recording that is evidence
//! must be read as it is.

use std::ops::Range;

use super::aac::AacConfig;
use super::bytes::{Reader, Short};
use super::clip::{AudioFormat, FormatError, Sample, Track, VideoFormat};
use super::nal::AvcConfig;

/// The tracks of an FLV file, in milliseconds; sample ranges are byte offsets into it.
#[derive(Debug)]
pub struct Flv {
    /// The video track.
    pub video: Option<Track<VideoFormat>>,
    /// The audio track.
    pub audio: Option<Track<AudioFormat>>,
    /// The file ends in the middle of a tag.
    pub truncated: bool,
}

/// Whether this looks like an FLV file.
pub fn recognises(bytes: &[u8]) -> bool {
    bytes.starts_with(b"FLV\x01")
}

/// What has been gathered of one track so far.
struct Gathered<F> {
    format: Option<F>,
    samples: Vec<Sample>,
}

impl<F> Gathered<F> {
    fn finish(self, kind: &str) -> Result<Option<Track<F>>, FormatError> {
        if self.samples.is_empty() {
            return Ok(None);
        }
        let format = self.format.ok_or_else(|| {
            FormatError(format!(
                "its {kind} has no codec configuration before the first frame"
            ))
        })?;
        let mut samples = self.samples;
        super::clip::fill_durations(&mut samples);
        Ok(Some(Track {
            format,
            timescale: 1000,
            samples,
        }))
    }
}

/// Reads a whole file.
pub fn read(file: &[u8]) -> Result<Flv, FormatError> {
    let mut reader = Reader::new(file);
    reader.skip(5)?;
    let header = reader.u32()? as usize;
    reader.skip(header.saturating_sub(9))?;
    let mut video = Gathered {
        format: None,
        samples: Vec::new(),
    };
    let mut audio = Gathered {
        format: None,
        samples: Vec::new(),
    };
    let mut truncated = false;
    while reader.left() > 4 {
        let Ok(tag) = tag(&mut reader) else {
            truncated = true;
            break;
        };
        match tag.kind {
            8 => audio_tag(file, &tag, &mut audio)?,
            9 => video_tag(file, &tag, &mut video)?,
            _ => {}
        }
    }
    let (video, audio) = (video.finish("video")?, audio.finish("audio")?);
    if video.is_none() && audio.is_none() {
        return Err(FormatError("it has no frames".into()));
    }
    Ok(Flv {
        video,
        audio,
        truncated,
    })
}

struct Tag {
    kind: u8,
    timestamp: i64,
    body: Range<usize>,
}

fn tag(reader: &mut Reader<'_>) -> Result<Tag, Short> {
    let _previous_size = reader.u32()?;
    let kind = reader.u8()? & 0x1f;
    let size = reader.u24()? as usize;
    let low = reader.u24()?;
    let timestamp = ((u32::from(reader.u8()?) << 24) | low) as i32;
    reader.skip(3)?;
    let begin = reader.position();
    reader.skip(size)?;
    Ok(Tag {
        kind,
        timestamp: i64::from(timestamp),
        body: begin..begin + size,
    })
}

fn video_tag(file: &[u8], tag: &Tag, track: &mut Gathered<VideoFormat>) -> Result<(), FormatError> {
    let Some(&[first, packet, c0, c1, c2]) = file[tag.body.clone()].first_chunk() else {
        return Ok(());
    };
    let (frame, codec) = (first >> 4, first & 0x0f);
    // Frame type 5 is a command to the player, no picture.
    if frame == 5 {
        return Ok(());
    }
    if first & 0x80 != 0 || codec != 7 {
        let name = if first & 0x80 == 0 {
            format!("FLV video codec {codec}")
        } else {
            String::from_utf8_lossy(&[packet, c0, c1, c2]).into_owned()
        };
        track.format.get_or_insert(VideoFormat::Other(name));
        track.samples.push(sample(tag, 0, frame & 7 == 1, 1));
        return Ok(());
    }
    match packet {
        0 if track.format.is_none() => {
            track.format = Some(VideoFormat::H264(AvcConfig::parse(
                &file[tag.body.start + 5..tag.body.end],
            )?));
        }
        1 => {
            // Signed 24 bits.
            let composition = i64::from(i32::from_be_bytes([c0, c1, c2, 0]) >> 8);
            track.samples.push(sample(tag, composition, frame == 1, 5));
        }
        _ => {}
    }
    Ok(())
}

fn audio_tag(file: &[u8], tag: &Tag, track: &mut Gathered<AudioFormat>) -> Result<(), FormatError> {
    let Some(&[first, packet]) = file[tag.body.clone()].first_chunk() else {
        return Ok(());
    };
    if first >> 4 != 10 {
        track.format.get_or_insert(AudioFormat::Other(format!(
            "FLV audio codec {}",
            first >> 4
        )));
        track.samples.push(sample(tag, 0, true, 1));
    } else if packet == 1 {
        track.samples.push(sample(tag, 0, true, 2));
    } else if track.format.is_none() {
        track.format = Some(AudioFormat::Aac(AacConfig::parse(
            &file[tag.body.start + 2..tag.body.end],
        )?));
    }
    Ok(())
}

fn sample(tag: &Tag, composition: i64, keyframe: bool, header: usize) -> Sample {
    Sample {
        pts: tag.timestamp + composition,
        dts: tag.timestamp,
        duration: 0,
        keyframe,
        range: tag.body.start + header..tag.body.end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(file: &mut Vec<u8>, kind: u8, timestamp: u32, body: &[u8]) {
        let time = timestamp.to_be_bytes();
        file.push(kind);
        file.extend(&(body.len() as u32).to_be_bytes()[1..]);
        file.extend([time[1], time[2], time[3], time[0], 0, 0, 0]);
        file.extend(body);
        file.extend((body.len() as u32 + 11).to_be_bytes());
    }

    fn file() -> Vec<u8> {
        let mut file = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
        let config = [
            0x17, 0, 0, 0, 0, 1, 0x64, 0, 0x1f, 0xff, 0xe1, 0, 1, 0x67, 1, 0, 1, 0x68,
        ];
        push(&mut file, 18, 0, b"onMetaData");
        push(&mut file, 9, 0, &config);
        push(&mut file, 8, 0, &[0xaf, 0, 0x11, 0x90]);
        push(&mut file, 9, 5000, &[0x17, 1, 0, 0, 67, 0, 0, 0, 1, 0x65]);
        push(&mut file, 8, 5001, &[0xaf, 1, 0x21]);
        push(
            &mut file,
            9,
            5033,
            &[0x27, 1, 0xff, 0xff, 0xfe, 0, 0, 0, 1, 0x41],
        );
        push(
            &mut file,
            9,
            0x0102_0304,
            &[0x27, 1, 0, 0, 0, 0, 0, 0, 1, 0x41],
        );
        file
    }

    #[test]
    fn tags_become_samples_with_their_own_times() {
        let bytes = file();
        let flv = read(&bytes).unwrap();
        let video = flv.video.unwrap();
        let times: Vec<_> = video
            .samples
            .iter()
            .map(|s| (s.pts, s.dts, s.keyframe))
            .collect();
        assert_eq!(
            times,
            [
                (5067, 5000, true),
                (5031, 5033, false),
                (0x0102_0304, 0x0102_0304, false)
            ]
        );
        assert_eq!(&bytes[video.samples[0].range.clone()], [0, 0, 0, 1, 0x65]);
        assert_eq!(video.samples[0].duration, 33);
        assert_eq!(flv.audio.unwrap().samples[0].pts, 5001);
        assert!(!flv.truncated);
    }

    #[test]
    fn a_file_cut_off_keeps_what_is_whole_and_says_so() {
        let bytes = file();
        let flv = read(&bytes[..bytes.len() - 6]).unwrap();
        assert!(flv.truncated);
        assert_eq!(flv.video.unwrap().samples.len(), 2);
    }

    #[test]
    fn a_header_alone_has_no_frames() {
        assert!(read(b"FLV\x01\x05\0\0\0\x09\0\0\0\0").is_err());
    }
}
