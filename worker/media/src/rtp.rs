//! RTP time: 32-bit timestamps that wrap, unwrapped to nanoseconds.

/// Turns the RTP timestamps of one track into nanoseconds since its first packet.
#[derive(Debug, Clone)]
pub struct RtpClock {
    rate: u32,
    first: Option<i64>,
    last: i64,
}

impl RtpClock {
    /// `rate` is the track's RTP clock rate in ticks per second.
    pub fn new(rate: u32) -> Self {
        Self {
            rate: rate.max(1),
            first: None,
            last: 0,
        }
    }

    /// Time of a packet; the first one defines zero.
    pub fn packet(&mut self, timestamp: u32) -> i64 {
        let extended = self.extend(timestamp);
        let first = *self.first.get_or_insert(extended);
        self.last = extended;
        self.nanos(extended - first)
    }

    /// Time of a timestamp that is not a packet's, such as a sender report's; `None` before
    /// the first packet.
    pub fn other(&self, timestamp: u32) -> Option<i64> {
        let first = self.first?;
        Some(self.nanos(self.extend(timestamp) - first))
    }

    fn extend(&self, timestamp: u32) -> i64 {
        if self.first.is_none() {
            return i64::from(timestamp);
        }
        // The nearest value to the last one: half the range ahead or behind.
        let step = timestamp.wrapping_sub(self.last as u32) as i32;
        self.last + i64::from(step)
    }

    fn nanos(&self, ticks: i64) -> i64 {
        (i128::from(ticks) * 1_000_000_000 / i128::from(self.rate)) as i64
    }
}

/// Reads SSRC and timestamp of an RTP packet's header.
pub fn rtp_header(packet: &[u8]) -> Option<(u32, u32)> {
    let field = |at: usize| Some(u32::from_be_bytes(packet.get(at..at + 4)?.try_into().ok()?));
    (packet.first()? >> 6 == 2).then_some(())?;
    Some((field(8)?, field(4)?))
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
    fn time_goes_on_over_the_wrap() {
        let mut clock = RtpClock::new(90_000);
        assert_eq!(clock.packet(u32::MAX - 89_999), 0);
        assert_eq!(clock.packet(0), 1_000_000_000);
        assert_eq!(clock.packet(90_000), 2_000_000_000);
        assert_eq!(clock.other(u32::MAX - 89_999), Some(0));
    }

    #[test]
    fn reordered_timestamps_go_back_a_little() {
        let mut clock = RtpClock::new(90_000);
        clock.packet(9_000);
        assert_eq!(clock.packet(0), -100_000_000);
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
