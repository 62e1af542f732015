//! RTP headers and RTCP sender reports.

/// What the header of an RTP packet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtpHeader {
    /// Number of the packet.
    pub sequence: u16,
    /// When its content belongs, in ticks of the track's clock.
    pub timestamp: u32,
    /// Who sends it.
    pub ssrc: u32,
    /// For H.264: the end of a picture, or so it should be.
    pub marker: bool,
    /// Bytes of payload: neither header nor padding.
    pub payload: usize,
    /// Where the payload begins.
    pub start: usize,
}

impl RtpHeader {
    /// Reads a packet's header.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let field = |at: usize| Some(u32::from_be_bytes(packet.get(at..at + 4)?.try_into().ok()?));
        let flags = *packet.first()?;
        (flags >> 6 == 2).then_some(())?;
        let mut other = 12 + 4 * usize::from(flags & 15);
        if flags & 0x10 != 0 {
            other += 4 + 4 * usize::from(field(other)? as u16);
        }
        let start = other;
        if flags & 0x20 != 0 {
            other += usize::from(*packet.last()?);
        }
        Some(Self {
            sequence: field(0)? as u16,
            timestamp: field(4)?,
            ssrc: field(8)?,
            marker: packet.get(1)? >> 7 == 1,
            payload: packet.len().saturating_sub(other),
            start,
        })
    }

    /// What a packet holds behind its header.
    pub fn payload_of<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        packet
            .get(self.start..self.start + self.payload)
            .unwrap_or_default()
    }
}

/// What a packet of H.264 begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum H264Part {
    /// Coded picture data.
    Picture,
    /// What stands in front of a picture: delimiter, parameter sets, information.
    Front,
    /// A type without a meaning (RFC 6184, table 1), in which cameras put data of their own.
    Private,
    /// MTAP, the interleaved mode's, at which GStreamer ends the stream.
    Interleaved,
    /// None of these.
    Other,
}

/// What `payload` begins with, also where it is a piece or a collection of units.
pub fn h264_part(payload: &[u8]) -> H264Part {
    let kind = |at: usize| payload.get(at).map(|header| header & 0x1f);
    let unit = match kind(0) {
        // STAP-A: behind a size; FU-A: in the second byte.
        Some(24) => kind(3),
        Some(28) => kind(1),
        other => other,
    };
    match unit {
        Some(1..=5) => H264Part::Picture,
        Some(6..=9) => H264Part::Front,
        Some(0 | 30 | 31) => H264Part::Private,
        Some(26 | 27) => H264Part::Interleaved,
        _ => H264Part::Other,
    }
}

/// Whether a packet of AAC (RFC 3640, the usual mode AAC-hbr) holds whole frames, by the sizes it says.
pub fn is_whole_aac(payload: &[u8]) -> bool {
    let Some((bits, rest)) = payload.split_first_chunk::<2>() else {
        return false;
    };
    let length = usize::from(u16::from_be_bytes(*bits)) / 8;
    let Some((headers, frames)) = rest.split_at_checked(length) else {
        return false;
    };
    let sizes = headers
        .chunks_exact(2)
        .map(|it| usize::from(u16::from_be_bytes([it[0], it[1]]) >> 3));
    !headers.is_empty() && sizes.sum::<usize>() <= frames.len()
}

/// Where the first RTCP BYE begins in a compound.
pub fn bye_at(compound: &[u8]) -> Option<usize> {
    const BYE: u8 = 203;
    let mut at = 0;
    while let Some([_, kind, high, low]) = compound.get(at..at + 4) {
        if *kind == BYE {
            return Some(at);
        }
        at += 4 * (usize::from(u16::from_be_bytes([*high, *low])) + 1);
    }
    None
}

/// The sequence numbers of a source over a transport that keeps order.
///
/// Numbers that go back further than packets are ever exchanged are another count, not packets that are
/// late: they go on where they were. Packets without payload leave no gap: depayloaders of GStreamer 1.22
/// crash on them.
#[derive(Debug, Default)]
pub struct Numbers {
    /// The highest so far, as it was sent.
    last: Option<u16>,
    /// What is added to numbers by now.
    shift: u16,
}

impl Numbers {
    /// The number that a packet goes on with; `None` if it does not.
    pub fn number(&mut self, sequence: u16, empty: bool) -> Option<u16> {
        /// Packets that are exchanged are this close.
        const EXCHANGED: i16 = 16;
        let last = self.last.unwrap_or(sequence.wrapping_sub(1));
        let step = sequence.wrapping_sub(last) as i16;
        if step < -EXCHANGED {
            self.shift = self
                .shift
                .wrapping_add(last.wrapping_add(1).wrapping_sub(sequence));
        }
        // Else it is late, or has been here before.
        let is_new = !(-EXCHANGED..=0).contains(&step);
        if is_new {
            self.last = Some(sequence);
        }
        if empty {
            self.shift = self.shift.wrapping_sub(u16::from(is_new));
            return None;
        }
        Some(sequence.wrapping_add(self.shift))
    }
}

/// An RTCP sender report: the same instant on the sender's wall clock and in RTP time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderReport {
    /// Whose report it is.
    pub ssrc: u32,
    /// Sender's clock in nanoseconds; only differences mean anything.
    pub ntp: i64,
    /// RTP timestamp of that instant.
    pub rtp: u32,
    /// A source description comes with it, as RFC 3550 demands.
    pub named: bool,
}

impl SenderReport {
    /// Reads a report at the start of a compound RTCP packet.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let field = |at: usize| Some(u32::from_be_bytes(packet.get(at..at + 4)?.try_into().ok()?));
        if packet.first()? >> 6 != 2 || packet.get(1) != Some(&200) {
            return None;
        }
        let (seconds, fraction) = (field(8)?, field(12)?);
        // All zero means that the sender has no clock (RFC 3550, 6.4.1).
        if seconds == 0 && fraction == 0 {
            return None;
        }
        let nanos = i64::from(seconds) * 1_000_000_000
            + ((u64::from(fraction) * 1_000_000_000) >> 32) as i64;
        Some(Self {
            ssrc: field(4)?,
            ntp: nanos,
            rtp: field(16)?,
            named: has_description(packet),
        })
    }
}

/// Whether one of the packets of a compound is a source description.
fn has_description(mut compound: &[u8]) -> bool {
    const SDES: u8 = 202;
    while let [_, kind, high, low, ..] = *compound {
        if kind == SDES {
            return true;
        }
        let words = usize::from(u16::from_be_bytes([high, low])) + 1;
        compound = compound.get(4 * words..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read() {
        let packet = [0x80, 0x60, 1, 2, 0, 0, 0, 9, 0, 0, 0, 7];
        let header = RtpHeader {
            sequence: 258,
            timestamp: 9,
            ssrc: 7,
            marker: false,
            payload: 0,
            start: 12,
        };
        assert_eq!(RtpHeader::parse(&packet), Some(header));
        let marked = [0x80, 0xe0, 1, 2, 0, 0, 0, 9, 0, 0, 0, 7];
        assert_eq!(RtpHeader::parse(&marked).map(|it| it.marker), Some(true));
        assert_eq!(RtpHeader::parse(&packet[..11]), None);
        // A contributing source, an extension of a word, three bytes, and two of padding.
        let mut dressed = [&packet[..], &[0; 4], &[0xbe, 0xde, 0, 1, 0x10, 7, 0, 0]].concat();
        dressed[0] = 0xb1;
        for payload in [3, 0] {
            let packet = [&dressed[..], &[1; 3][..payload], &[0, 2]].concat();
            assert_eq!(
                RtpHeader::parse(&packet).map(|it| it.payload),
                Some(payload)
            );
        }
        assert_eq!(RtpHeader::parse(&[0; 12]), None);
    }

    #[test]
    fn numbers_that_go_back_go_on_and_empty_packets_leave_no_gap() {
        let run = |numbers: &[u16]| -> Vec<_> {
            let mut running = Numbers::default();
            let numbers = numbers.iter();
            numbers.map(|it| running.number(*it, false)).collect()
        };
        let some = |numbers: &[u16]| numbers.iter().copied().map(Some).collect::<Vec<_>>();
        // In order, over the end, with a gap, exchanged, doubled: as they are.
        for numbers in [&[7, 8, 9][..], &[65_535, 0, 1], &[1, 5_000], &[4, 3, 5, 5]] {
            assert_eq!(run(numbers), some(numbers));
        }
        assert_eq!(run(&[100, 50, 51, 53]), some(&[100, 101, 102, 104]));
        assert_eq!(run(&[3, 65_500, 65_501]), some(&[3, 4, 5]));
        // Another count twice, and one that begins far back.
        assert_eq!(run(&[100, 50, 20, 21]), some(&[100, 101, 102, 103]));
        assert_eq!(
            run(&[20_000, 18_500, 18_501]),
            some(&[20_000, 20_001, 20_002])
        );
        assert_eq!(run(&[20_000, 5, 6]), some(&[20_000, 20_001, 20_002]));
        let mut running = Numbers::default();
        // The last empty one comes twice.
        let empty = [10, 12];
        let numbers = [9, 10, 11, 12, 12, 13, 13].map(|it| running.number(it, empty.contains(&it)));
        assert_eq!(
            numbers,
            [Some(9), None, Some(10), None, None, Some(11), Some(11)]
        );
    }

    #[test]
    fn whole_frames_of_aac_are_told_by_the_sizes() {
        // One header of 16 bits: three bytes at index 0; then five, of which three are here.
        assert!(is_whole_aac(&[0, 16, 0, 24, 7, 7, 7]));
        assert!(!is_whole_aac(&[0, 16, 0, 40, 7, 7, 7]));
        assert!(is_whole_aac(&[0, 32, 0, 8, 0, 16, 7, 7, 7]));
        assert!(!is_whole_aac(&[0, 16, 0]));
    }

    #[test]
    fn a_part_is_told_in_pieces_and_collections() {
        for (payload, part) in [
            (&[0x65, 1][..], H264Part::Picture),
            (&[0x7c, 0x85, 1], H264Part::Picture),
            (&[0x78, 0, 2, 0x41, 1], H264Part::Picture),
            (&[0x78, 0, 2, 0x67, 1], H264Part::Front),
            (&[0x67, 1], H264Part::Front),
            (&[0x06, 1], H264Part::Front),
            (&[0x0c, 1], H264Part::Other),
            (&[0x1f, 1], H264Part::Private),
            (&[0x1e, 1], H264Part::Private),
            (&[0, 1], H264Part::Private),
            (&[0x1a, 1], H264Part::Interleaved),
            (&[0x1b, 1], H264Part::Interleaved),
            (&[0x78], H264Part::Other),
            (&[], H264Part::Other),
        ] {
            assert_eq!(h264_part(payload), part, "{payload:x?}");
        }
    }

    #[test]
    fn a_bye_is_found_behind_other_packets() {
        let report = [0x80, 201, 0, 1, 0, 0, 0, 7];
        let bye = [0x81, 203, 0, 1, 0, 0, 0, 7];
        assert_eq!(bye_at(&bye), Some(0));
        assert_eq!(bye_at(&[report, bye].concat()), Some(8));
        assert_eq!(bye_at(&report), None);
        assert_eq!(bye_at(&[0x81, 203]), None);
    }

    #[test]
    fn a_report_is_read_and_an_empty_one_is_not() {
        let mut packet = vec![0x80, 200, 0, 6];
        for value in [7_u32, 1, 1 << 31, 4_800, 0, 0] {
            packet.extend(value.to_be_bytes());
        }
        let report = SenderReport {
            ssrc: 7,
            ntp: 1_500_000_000,
            rtp: 4_800,
            named: false,
        };
        assert_eq!(SenderReport::parse(&packet), Some(report));
        let mut compound = packet.clone();
        compound.extend([0x81, 202, 0, 1, 0, 0, 0, 7]);
        let named = SenderReport {
            named: true,
            ..report
        };
        assert_eq!(SenderReport::parse(&compound), Some(named));
        packet[8..16].fill(0);
        assert_eq!(SenderReport::parse(&packet), None);
        assert_eq!(SenderReport::parse(&packet[..10]), None);
    }
}
