//! H.264 NAL units of a bare stream: where each begins, and what it is.

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

/// Whether a NAL unit is coded picture data: a slice or a data partition.
pub fn is_slice(nal: &[u8]) -> bool {
    (1..=5).contains(&kind(nal))
}

fn trim_zeros(nal: &[u8]) -> &[u8] {
    let end = nal
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1);
    &nal[..end]
}
