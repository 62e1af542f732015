//! RTP time: 32-bit timestamps that wrap, unwrapped to nanoseconds.

/// Turns the RTP timestamps of one track into nanoseconds since its first packet, whatever its source
/// calls itself: clocks belong to the track.
#[derive(Debug, Clone)]
pub struct RtpTime {
    rate: u32,
    first: Option<i64>,
    last: i64,
}

impl RtpTime {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_over_the_wrap() {
        let mut clock = RtpTime::new(90_000);
        assert_eq!(clock.packet(u32::MAX - 89_999), 0);
        assert_eq!(clock.packet(0), 1_000_000_000);
        assert_eq!(clock.packet(90_000), 2_000_000_000);
        assert_eq!(clock.other(u32::MAX - 89_999), Some(0));
    }

    #[test]
    fn reordered_timestamps_go_back_a_little() {
        let mut clock = RtpTime::new(90_000);
        clock.packet(9_000);
        assert_eq!(clock.packet(0), -100_000_000);
    }
}
