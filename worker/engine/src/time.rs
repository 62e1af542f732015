//! Two of the three clocks of the worker, as types that cannot be mixed.
//!
//! [`At`] is monotonic time since the worker started: deadlines, pacing, latency.
//! [`Pts`] is a position on the media timeline. The third clock, wall time, belongs to
//! logs and to the wire and never enters this crate.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment of the monotonic clock, counted from the start of the worker.
///
/// Prints as seconds with milliseconds (`12.345s`), so that timelines are readable and stable.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Default)]
pub struct At(Duration);

impl At {
    /// The start of the worker.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// The moment `since_start` after the start.
    pub const fn new(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// The moment `millis` milliseconds after the start.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// Time since the start of the worker.
    pub const fn as_duration(self) -> Duration {
        self.0
    }

    /// Time from `earlier` to here; zero if `earlier` is later than this.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Saturates: a hostile delay of centuries must not overflow into a panic.
impl Add<Duration> for At {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(rhs))
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0.as_secs(), self.0.subsec_millis())
    }
}

/// A position on the media timeline, in nanoseconds. May be negative (encoder priming).
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Default)]
pub struct Pts(i64);

impl Pts {
    /// The origin of the timeline.
    pub const ZERO: Self = Self(0);

    /// A position `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// A position `millis` milliseconds after the origin.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds after the origin.
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// Signed distance from `other` to here, in nanoseconds.
    pub const fn offset_from(self, other: Self) -> i64 {
        self.0.saturating_sub(other.0)
    }

    /// Distance from `earlier` to here; zero if `earlier` is later than this.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.offset_from(earlier)).unwrap_or(0))
    }

    /// The position `nanos` (signed) away from here.
    #[must_use]
    pub const fn shifted(self, nanos: i64) -> Self {
        Self(self.0.saturating_add(nanos))
    }
}

impl Add<Duration> for Pts {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        self.shifted(nanos_of(rhs))
    }
}

impl Sub<Duration> for Pts {
    type Output = Self;

    fn sub(self, rhs: Duration) -> Self {
        self.shifted(-nanos_of(rhs))
    }
}

impl fmt::Display for Pts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let micros = self.0.unsigned_abs() / 1_000;
        write!(f, "{sign}{}.{:06}", micros / 1_000_000, micros % 1_000_000)
    }
}

/// A duration in signed nanoseconds; saturates at 292 years.
pub(crate) fn nanos_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_print_as_seconds_and_saturate() {
        assert_eq!(At::from_millis(12_345).to_string(), "12.345s");
        assert_eq!(
            At::from_millis(5) + Duration::MAX,
            At::new(Duration::MAX),
            "a delay of centuries saturates"
        );
        assert_eq!(At::ZERO.since(At::from_millis(3)), Duration::ZERO);
    }

    #[test]
    fn positions_are_signed() {
        let before = Pts::from_millis(10) - Duration::from_millis(31);
        assert_eq!(before.nanos(), -21_000_000);
        assert_eq!(before.to_string(), "-0.021000");
        assert_eq!(before.offset_from(Pts::from_millis(-20)), -1_000_000);
        assert_eq!(before.since(Pts::ZERO), Duration::ZERO);
    }
}
