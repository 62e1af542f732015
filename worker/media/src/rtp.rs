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
}

impl RtpHeader {
    /// Reads a packet's header.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let field = |at: usize| Some(u32::from_be_bytes(packet.get(at..at + 4)?.try_into().ok()?));
        (packet.first()? >> 6 == 2).then_some(())?;
        Some(Self {
            sequence: field(0)? as u16,
            timestamp: field(4)?,
            ssrc: field(8)?,
            marker: packet.get(1)? >> 7 == 1,
        })
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
        };
        assert_eq!(RtpHeader::parse(&packet), Some(header));
        let marked = [0x80, 0xe0, 1, 2, 0, 0, 0, 9, 0, 0, 0, 7];
        assert_eq!(RtpHeader::parse(&marked).map(|it| it.marker), Some(true));
        assert_eq!(RtpHeader::parse(&packet[..11]), None);
        assert_eq!(RtpHeader::parse(&[0; 12]), None);
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
