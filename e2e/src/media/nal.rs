//! H.264 NAL units: both framings, decoder configuration, and what of an access unit is coded picture.

use sha2::{Digest, Sha256};

use super::bytes::Reader;
use super::clip::FormatError;

/// NAL unit type of a slice of an IDR picture (ISO/IEC 14496-10, table 7-1).
pub const IDR: u8 = 5;
/// NAL unit type of a sequence parameter set.
pub const SPS: u8 = 7;
/// NAL unit type of a picture parameter set.
pub const PPS: u8 = 8;

/// Type of a NAL unit; 0 (unspecified) for an empty one.
pub fn kind(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |header| header & 0x1f)
}

/// Whether a NAL unit is coded picture data: a slice or a data partition.
pub fn is_slice(nal: &[u8]) -> bool {
    (1..=5).contains(&kind(nal))
}

/// AVCDecoderConfigurationRecord: parameter sets and framing of the samples of a track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AvcConfig {
    /// profile_idc, constraint flags, level_idc.
    pub profile_level: [u8; 3],
    /// Bytes of the length before each NAL unit: 1, 2 or 4.
    pub length_size: usize,
    /// Sequence parameter sets.
    pub sps: Vec<Vec<u8>>,
    /// Picture parameter sets.
    pub pps: Vec<Vec<u8>>,
}

impl AvcConfig {
    /// Reads an `avcC` payload.
    pub fn parse(record: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(record);
        if reader.u8()? != 1 {
            return Err(FormatError(
                "its H.264 configuration is of an unknown version".into(),
            ));
        }
        let profile_level = [reader.u8()?, reader.u8()?, reader.u8()?];
        let length_size = usize::from(reader.u8()? & 3) + 1;
        let sps_count = reader.u8()? & 0x1f;
        let sps = parameter_sets(&mut reader, sps_count)?;
        let pps_count = reader.u8()?;
        let pps = parameter_sets(&mut reader, pps_count)?;
        Ok(Self {
            profile_level,
            length_size,
            sps,
            pps,
        })
    }
}

fn parameter_sets(reader: &mut Reader<'_>, count: u8) -> Result<Vec<Vec<u8>>, FormatError> {
    (0..count)
        .map(|_| {
            let length = usize::from(reader.u16()?);
            Ok(reader.take(length)?.to_vec())
        })
        .collect()
}

/// The NAL units of a length-prefixed (AVCC) access unit.
pub fn split_avcc(unit: &[u8], length_size: usize) -> Result<Vec<&[u8]>, FormatError> {
    let mut reader = Reader::new(unit);
    let mut nals = Vec::new();
    while reader.left() > 0 {
        let length = reader
            .take(length_size)?
            .iter()
            .fold(0, |value, &byte| (value << 8) | usize::from(byte));
        nals.push(reader.take(length)?);
    }
    Ok(nals)
}

/// The NAL units of an Annex B byte stream; trailing zero bytes do not belong to a NAL unit.
pub fn split_annex_b(stream: &[u8]) -> Vec<&[u8]> {
    let mut nals = Vec::new();
    let mut begin = None;
    let mut at = 0;
    while at + 3 <= stream.len() {
        if stream[at..at + 3] == [0, 0, 1] {
            if let Some(begin) = begin {
                nals.push(trim_zeros(&stream[begin..at]));
            }
            at += 3;
            begin = Some(at);
        } else {
            at += 1;
        }
    }
    if let Some(begin) = begin {
        nals.push(trim_zeros(&stream[begin..]));
    }
    nals.retain(|nal| !nal.is_empty());
    nals
}

fn trim_zeros(nal: &[u8]) -> &[u8] {
    let end = nal
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1);
    &nal[..end]
}

/// SHA-256 over the slices of an access unit; `None` when there is no slice in it.
///
/// Parameter sets, delimiters and SEI do not count: a muxer may repeat or drop them. Each slice goes
/// in with its length, so that bytes moved from one slice to the next change the hash.
pub fn slice_hash<'a>(nals: impl IntoIterator<Item = &'a [u8]>) -> Option<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut any = false;
    for nal in nals.into_iter().filter(|nal| is_slice(nal)).map(trim_zeros) {
        any = true;
        hasher.update((nal.len() as u64).to_be_bytes());
        hasher.update(nal);
    }
    any.then(|| hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLICE: &[u8] = &[0x65, 1, 2, 3];
    const SEI: &[u8] = &[0x06, 9, 9];

    #[test]
    fn both_framings_give_the_same_units() {
        let avcc = [&[0, 0, 0, 3][..], SEI, &[0, 0, 0, 4], SLICE].concat();
        let annex_b = [&[0, 0, 0, 1][..], SEI, &[0, 0, 1], SLICE, &[0, 0]].concat();
        assert_eq!(split_avcc(&avcc, 4).unwrap(), [SEI, SLICE]);
        assert_eq!(split_annex_b(&annex_b), [SEI, SLICE]);
    }

    #[test]
    fn a_length_beyond_the_end_is_an_error() {
        assert!(split_avcc(&[0, 0, 0, 9, 0x65], 4).is_err());
        assert!(split_avcc(&[0, 0], 4).is_err());
    }

    #[test]
    fn the_hash_sees_slices_only_and_where_they_end() {
        let plain = slice_hash([SLICE]).unwrap();
        assert_eq!(
            slice_hash([SEI, SLICE, &[0x67, 1], &[0x68, 1], &[0x09, 0xf0]]),
            Some(plain)
        );
        assert_ne!(slice_hash([&[0x65, 1, 2, 4][..]]), Some(plain));
        // The same bytes, divided elsewhere.
        assert_ne!(
            slice_hash([&[0x65, 0x61][..], &[0x61, 3]]),
            slice_hash([&[0x65, 0x61, 0x61][..], &[3]])
        );
        assert_eq!(slice_hash([SEI]), None);
    }

    #[test]
    fn a_configuration_record_is_read() {
        let record = [
            1, 0x64, 0, 0x1f, 0xff, 0xe1, 0, 2, 0x67, 0x64, 1, 0, 3, 0x68, 1, 2,
        ];
        let config = AvcConfig::parse(&record).unwrap();
        assert_eq!(config.profile_level, [0x64, 0, 0x1f]);
        assert_eq!(config.length_size, 4);
        assert_eq!(
            (config.sps, config.pps),
            (vec![vec![0x67, 0x64]], vec![vec![0x68, 1, 2]])
        );
        assert!(AvcConfig::parse(&record[..10]).is_err());
    }
}
