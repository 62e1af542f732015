//! How coded media goes into RTP packets: H.264 (RFC 6184), AAC (RFC 3640), MPEG audio (RFC 2250).

use crate::manner::Markers;

/// Bytes of an RTP header without contributing sources and extension.
pub(crate) const HEADER: usize = 12;

/// NAL unit types of several units in a packet, and of a fragment of one.
const STAP_A: u8 = 24;
const FU_A: u8 = 28;
/// What a delimiter says nothing with, and filler data.
pub(crate) const DELIMITER: [u8; 2] = [9, 0xf0];
pub(crate) const FILLER: [u8; 6] = [12, 0xff, 0xff, 0xff, 0xff, 0x80];
/// NAL unit type of supplemental information, and its kind that decoders skip.
const SEI: [u8; 2] = [6, 5];

/// What one packet carries, before its header is put on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Payload {
    pub(crate) bytes: Vec<u8>,
    /// Marker bit: the last packet of an access unit, as a rule.
    pub(crate) marker: bool,
}

/// Whether a NAL unit is coded picture data.
pub(crate) fn is_slice(nal: &[u8]) -> bool {
    nal.first()
        .is_some_and(|header| (1..=5).contains(&(header & 0x1f)))
}

/// Whether a payload is one parameter set.
pub(crate) fn is_parameter_set(payload: &[u8]) -> bool {
    payload
        .first()
        .is_some_and(|header| matches!(header & 0x1f, 7 | 8))
}

/// The payloads of one access unit, each at most `max` bytes. Small units share one if they are
/// `aggregated`.
pub(crate) fn h264<'a>(
    nals: impl IntoIterator<Item = &'a [u8]>,
    max: usize,
    markers: Markers,
    aggregated: bool,
) -> Vec<Payload> {
    let mut payloads: Vec<Payload> = Vec::new();
    // Where a packet stands that has room for more units.
    let mut shared: Option<usize> = None;
    for nal in nals.into_iter().filter(|nal| !nal.is_empty()) {
        let with_size = [&(nal.len() as u16).to_be_bytes()[..], nal].concat();
        if aggregated && with_size.len() < max {
            let room = |at: &usize| payloads[*at].bytes.len() + with_size.len() <= max;
            let at = shared.filter(room).unwrap_or_else(|| {
                payloads.push(Payload {
                    bytes: vec![(nal[0] & 0x60) | STAP_A],
                    marker: false,
                });
                payloads.len() - 1
            });
            payloads[at].bytes.extend(with_size);
            shared = Some(at);
        } else if nal.len() <= max {
            payloads.push(Payload {
                bytes: nal.to_vec(),
                marker: false,
            });
        } else {
            shared = None;
            let (indicator, kind) = ((nal[0] & 0xe0) | FU_A, nal[0] & 0x1f);
            let mut pieces = nal[1..].chunks(max - 2).peekable();
            let mut start = 0x80;
            while let Some(piece) = pieces.next() {
                let end = if pieces.peek().is_none() { 0x40 } else { 0 };
                payloads.push(Payload {
                    bytes: [&[indicator, start | end | kind], piece].concat(),
                    marker: false,
                });
                start = 0;
            }
        }
        if let Some(last) = payloads
            .last_mut()
            .filter(|_| markers == Markers::Slices && is_slice(nal))
        {
            last.marker = true;
        }
    }
    if markers == Markers::Packets {
        for payload in &mut payloads {
            payload.marker = true;
        }
    }
    if let Some(last) = payloads.last_mut() {
        last.marker = markers != Markers::Never;
    }
    payloads
}

/// Supplemental information of about `bytes` bytes that says nothing.
pub(crate) fn padding(bytes: usize) -> Vec<u8> {
    let mut nal = SEI.to_vec();
    nal.extend(vec![0xff; bytes / 255]);
    nal.push((bytes % 255) as u8);
    nal.extend(vec![0x55; bytes]);
    nal.push(0x80);
    nal
}

/// Bytes of one packet with AAC frames of these sizes.
pub(crate) fn aac_size(sizes: impl Iterator<Item = usize>) -> usize {
    2 + sizes.map(|size| 2 + size).sum::<usize>()
}

/// The payloads of consecutive AAC frames, each at most `max` bytes: one for all of them if they fit;
/// frames that alone are too large are cut, every piece with the size of the whole.
pub(crate) fn aac(frames: &[&[u8]], max: usize) -> Vec<Payload> {
    let packet = |sizes: &[usize], data: &[u8], marker| {
        let mut bytes = (sizes.len() as u16 * 16).to_be_bytes().to_vec();
        // 13 bits of size, 3 bits of index, always 0: frames are not interleaved.
        bytes.extend(
            sizes
                .iter()
                .flat_map(|size| ((*size as u16) << 3).to_be_bytes()),
        );
        bytes.extend(data);
        Payload { bytes, marker }
    };
    let sizes: Vec<_> = frames.iter().map(|frame| frame.len()).collect();
    if aac_size(sizes.iter().copied()) <= max {
        return vec![packet(&sizes, &frames.concat(), true)];
    }
    let pieces = frames.iter().flat_map(|frame| {
        let count = frame.len().div_ceil(max - 4);
        let pieces = frame.chunks(max - 4).zip(1..);
        pieces.map(move |(piece, n)| packet(&[frame.len()], piece, n == count))
    });
    pieces.collect()
}

/// The payload of an AAC frame the LATM way: its length, then the frame.
pub(crate) fn latm(frame: &[u8]) -> Payload {
    let mut bytes = vec![0xff; frame.len() / 255];
    bytes.push((frame.len() % 255) as u8);
    bytes.extend(frame);
    Payload {
        bytes,
        marker: true,
    }
}

/// An AAC frame behind an ADTS header that says what its configuration says.
pub(crate) fn adts(config: [u8; 2], frame: &[u8]) -> Vec<u8> {
    let config = u16::from_be_bytes(config);
    let (rate, channels) = (config >> 7 & 15, config >> 3 & 15);
    let length = (frame.len() + 7) as u64;
    // Of no known buffer, one frame.
    let header = 0xfff1 << 40
        | 1 << 38
        | u64::from(rate) << 34
        | u64::from(channels) << 30
        | length << 13
        | 0x7ff << 2;
    [&header.to_be_bytes()[1..], frame].concat()
}

/// The payloads of consecutive MPEG audio frames, each with the header that says where in a frame it
/// begins: one for all of them if they fit, else some for each.
pub(crate) fn mpeg(frames: &[&[u8]], max: usize) -> Vec<Payload> {
    let packet = |begin: usize, data: &[u8]| Payload {
        bytes: [&[0, 0][..], &(begin as u16).to_be_bytes(), data].concat(),
        marker: begin == 0,
    };
    let all = frames.concat();
    if all.len() + 4 <= max {
        return vec![packet(0, &all)];
    }
    let pieces = frames
        .iter()
        .flat_map(|frame| frame.chunks(max - 4).enumerate());
    pieces
        .map(|(n, piece)| packet(n * (max - 4), piece))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_units_go_alone_and_large_ones_in_pieces() {
        let large: Vec<u8> = std::iter::once(0x65).chain(0..25).collect();
        let payloads = h264([&[0x06, 1][..], &large], 12, Markers::Pictures, false);
        let bytes: Vec<_> = payloads
            .iter()
            .map(|payload| payload.bytes.clone())
            .collect();
        assert_eq!(bytes[0], [0x06, 1]);
        assert_eq!(bytes[1][..3], [0x7c, 0x85, 0]);
        assert_eq!(bytes[2][..3], [0x7c, 0x05, 10]);
        assert_eq!(bytes[3], [0x7c, 0x45, 20, 21, 22, 23, 24]);
        assert_eq!(markers(&payloads), [false, false, false, true]);
        assert!(bytes.iter().all(|bytes| bytes.len() <= 12));
    }

    #[test]
    fn slices_can_carry_a_marker_each() {
        let nals = [&[0x67, 1][..], &[0x65, 1], &[0x65, 2], &[0x65; 20]];
        for (kind, expected) in [
            (Markers::Pictures, [false, false, false, false, true]),
            (Markers::Slices, [false, true, true, false, true]),
            (Markers::Packets, [true; 5]),
            (Markers::Never, [false; 5]),
        ] {
            assert_eq!(markers(&h264(nals, 12, kind, false)), expected, "{kind:?}");
        }
    }

    #[test]
    fn small_units_can_share_a_packet() {
        let nals = [&[0x67, 1][..], &[0x68, 2, 3], &[0x65; 20], &[0x41, 4]];
        let payloads = h264(nals, 12, Markers::Pictures, true);
        assert_eq!(payloads[0].bytes, [0x78, 0, 2, 0x67, 1, 0, 3, 0x68, 2, 3]);
        assert_eq!(payloads[1].bytes[..2], [0x7c, 0x85]);
        assert_eq!(payloads[3].bytes, [0x58, 0, 2, 0x41, 4]);
    }

    #[test]
    fn aac_in_other_dresses() {
        let latm = latm(&[7; 300]);
        assert_eq!(latm.bytes[..3], [255, 45, 7]);
        // 48 kHz, stereo, 7 + 9 bytes.
        let header = adts([0x11, 0x90], &[1; 9]);
        assert_eq!(header[..8], [0xff, 0xf1, 0x4c, 0x80, 0x02, 0x1f, 0xfc, 1]);
    }

    #[test]
    fn frames_share_a_packet_if_they_fit_and_are_cut_if_not() {
        assert_eq!(
            aac(&[&[1, 2], &[3]], 100),
            [Payload {
                bytes: vec![0, 32, 0, 16, 0, 8, 1, 2, 3],
                marker: true
            }]
        );
        let frame: Vec<u8> = (0..20).collect();
        let payloads = aac(&[&frame], 12);
        assert!(
            payloads
                .iter()
                .all(|p| p.bytes.len() <= 12 && p.bytes[..4] == [0, 16, 0, 160])
        );
        assert_eq!(markers(&payloads), [false, false, true]);
    }

    #[test]
    fn padding_is_one_unit_of_the_size_it_says() {
        for bytes in [0, 254, 255, 100_000] {
            let nal = padding(bytes);
            let said: usize = nal[2..].iter().take_while(|byte| **byte == 0xff).count() * 255;
            let rest = nal[2 + said / 255];
            assert_eq!(said + usize::from(rest), bytes);
            assert_eq!(nal.len(), 2 + said / 255 + 1 + bytes + 1);
        }
    }

    fn markers(payloads: &[Payload]) -> Vec<bool> {
        payloads.iter().map(|payload| payload.marker).collect()
    }
}
