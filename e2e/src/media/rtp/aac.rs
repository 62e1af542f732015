//! AAC in RTP (RFC 3640), mode AAC-hbr: a list of 16-bit headers, then the frames.

use super::Payload;

/// Largest frame the 13-bit size field can say.
pub const MAX_FRAME: usize = 0x1fff;

/// The payloads of consecutive frames, each at most `max` bytes.
///
/// Frames that fit go into one packet together; a frame that alone is larger than a packet is cut,
/// every piece with the size of the whole. Markers are on packets that end a frame.
pub fn payloads(frames: &[&[u8]], max: usize) -> Vec<Payload> {
    let total: usize = 2 + frames.iter().map(|frame| 2 + frame.len()).sum::<usize>();
    if total <= max {
        return vec![packet(
            frames.iter().map(|frame| frame.len()),
            &frames.concat(),
            true,
        )];
    }
    let mut payloads = Vec::new();
    for frame in frames {
        let pieces = frame.chunks(max.saturating_sub(4).max(1));
        let last = pieces.len().saturating_sub(1);
        for (index, piece) in pieces.enumerate() {
            payloads.push(packet(std::iter::once(frame.len()), piece, index == last));
        }
    }
    payloads
}

fn packet(sizes: impl ExactSizeIterator<Item = usize>, data: &[u8], marker: bool) -> Payload {
    let mut bytes = Vec::with_capacity(2 + 2 * sizes.len() + data.len());
    bytes.extend((sizes.len() as u16 * 16).to_be_bytes());
    for size in sizes {
        // 13 bits of size, 3 bits of index (delta), always 0: frames are not interleaved.
        bytes.extend(((size as u16) << 3).to_be_bytes());
    }
    bytes.extend(data);
    Payload { bytes, marker }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_frame_has_one_header() {
        let payloads = payloads(&[&[1, 2, 3]], 100);
        assert_eq!(
            payloads,
            [Payload {
                bytes: vec![0, 16, 0, 24, 1, 2, 3],
                marker: true
            }]
        );
    }

    #[test]
    fn several_frames_share_a_packet() {
        let payloads = payloads(&[&[1, 2], &[3]], 100);
        assert_eq!(
            payloads,
            [Payload {
                bytes: vec![0, 32, 0, 16, 0, 8, 1, 2, 3],
                marker: true
            }]
        );
    }

    #[test]
    fn a_frame_larger_than_a_packet_is_cut() {
        let frame: Vec<u8> = (0..20).collect();
        let payloads = payloads(&[&frame], 12);
        assert_eq!(payloads.len(), 3);
        assert!(
            payloads
                .iter()
                .all(|p| p.bytes.len() <= 12 && p.bytes[..4] == [0, 16, 0, 160])
        );
        assert_eq!(
            payloads.iter().map(|p| p.marker).collect::<Vec<_>>(),
            [false, false, true]
        );
    }
}
