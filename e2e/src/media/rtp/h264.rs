//! H.264 in RTP (RFC 6184), packetization mode 1: single NAL units and FU-A fragments.

use super::Payload;

/// NAL unit type of a fragment.
const FU_A: u8 = 28;

/// The payloads of one access unit, each at most `max` bytes; the last carries the marker.
pub fn payloads<'a>(nals: impl IntoIterator<Item = &'a [u8]>, max: usize) -> Vec<Payload> {
    let mut payloads = Vec::new();
    for nal in nals {
        if nal.len() <= max {
            payloads.push(Payload {
                bytes: nal.to_vec(),
                marker: false,
            });
        } else {
            fragment(nal, max, &mut payloads);
        }
    }
    if let Some(last) = payloads.last_mut() {
        last.marker = true;
    }
    payloads
}

fn fragment(nal: &[u8], max: usize, payloads: &mut Vec<Payload>) {
    let (header, body) = (nal[0], &nal[1..]);
    let indicator = (header & 0xe0) | FU_A;
    let pieces = body.chunks(max.saturating_sub(2).max(1));
    let last = pieces.len() - 1;
    for (index, piece) in pieces.enumerate() {
        let start = u8::from(index == 0) << 7;
        let end = u8::from(index == last) << 6;
        let mut bytes = vec![indicator, start | end | (header & 0x1f)];
        bytes.extend(piece);
        payloads.push(Payload {
            bytes,
            marker: false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_units_go_alone_and_large_ones_in_pieces() {
        let large: Vec<u8> = std::iter::once(0x65).chain(0..25).collect();
        let payloads = payloads([&[0x06, 1][..], &large], 12);
        let bytes: Vec<_> = payloads
            .iter()
            .map(|payload| payload.bytes.clone())
            .collect();
        assert_eq!(bytes[0], [0x06, 1]);
        assert_eq!(bytes[1][..3], [0x7c, 0x85, 0]);
        assert_eq!(bytes[2][..3], [0x7c, 0x05, 10]);
        assert_eq!(bytes[3], [0x7c, 0x45, 20, 21, 22, 23, 24]);
        assert_eq!(
            payloads.iter().map(|p| p.marker).collect::<Vec<_>>(),
            [false, false, false, true]
        );
        assert!(bytes.iter().all(|bytes| bytes.len() <= 12));
    }

    #[test]
    fn a_unit_of_exactly_the_limit_is_not_cut() {
        assert_eq!(payloads([&[0x41; 12][..]], 12).len(), 1);
        assert_eq!(payloads([&[0x41; 13][..]], 12).len(), 2);
    }
}
