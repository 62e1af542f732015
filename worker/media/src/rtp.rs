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
}

impl SenderReport {
    /// Reads a report at the start of an RTCP packet.
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
        })
    }
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
        };
        assert_eq!(RtpHeader::parse(&packet), Some(header));
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
        };
        assert_eq!(SenderReport::parse(&packet), Some(report));
        packet[8..16].fill(0);
        assert_eq!(SenderReport::parse(&packet), None);
        assert_eq!(SenderReport::parse(&packet[..10]), None);
    }
}
