//! Notices a driver that is late.
//!
//! Every deadline of the worker is kept by one loop. When it wakes long after a deadline, the
//! machine did not give it the processor; when one of its turns takes long, something in it blocks.
//! Both look alike from outside, so the log tells them apart.

use std::time::Duration;

use dub_engine::At;

/// A deadline may be missed by this much, and a turn may take this long.
const TOLERATED: Duration = Duration::from_millis(50);
/// At most one line in this time.
const PERIOD: Duration = Duration::from_secs(1);

/// What came too late since the last report.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Behind {
    /// How often.
    pub count: u32,
    /// Longest time from a deadline to waking up.
    pub late: Duration,
    /// Longest turn.
    pub turn: Duration,
}

/// Watches the loop's lateness.
#[derive(Debug, Default)]
pub(super) struct Lateness {
    /// When the last report was made.
    reported: Option<At>,
    behind: Behind,
}

impl Lateness {
    /// The loop slept until `due` at the latest and has the processor again at `woke`.
    pub(super) fn woke(&mut self, due: Option<At>, woke: At) {
        let late = due.map_or(Duration::ZERO, |due| woke.since(due));
        if late > TOLERATED {
            self.behind.count += 1;
            self.behind.late = self.behind.late.max(late);
        }
    }

    /// The loop woke at `woke` and has done its work at `done`. Returns what is to be reported.
    pub(super) fn done(&mut self, woke: At, done: At) -> Option<Behind> {
        let turn = done.since(woke);
        if turn > TOLERATED {
            self.behind.count += 1;
            self.behind.turn = self.behind.turn.max(turn);
        }
        let soon = self.reported.is_some_and(|at| done.since(at) < PERIOD);
        if self.behind.count == 0 || soon {
            return None;
        }
        self.reported = Some(done);
        Some(std::mem::take(&mut self.behind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> At {
        At::from_millis(ms)
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn in_time_is_no_news() {
        let mut lateness = Lateness::default();
        lateness.woke(Some(at(100)), at(149));
        assert_eq!(lateness.done(at(149), at(190)), None);
        lateness.woke(None, at(9_000));
        lateness.woke(Some(at(9_500)), at(9_100));
        assert_eq!(lateness.done(at(9_100), at(9_101)), None);
    }

    #[test]
    fn late_and_long_are_told_apart_and_at_most_once_a_second() {
        let mut lateness = Lateness::default();
        lateness.woke(Some(at(100)), at(300));
        let late = Behind {
            count: 1,
            late: ms(200),
            turn: ms(0),
        };
        assert_eq!(lateness.done(at(300), at(301)), Some(late));
        lateness.woke(None, at(400));
        assert_eq!(
            lateness.done(at(400), at(480)),
            None,
            "soon after the last line"
        );
        lateness.woke(Some(at(500)), at(560));
        assert_eq!(lateness.done(at(560), at(561)), None);
        lateness.woke(None, at(1_301));
        let both = Behind {
            count: 2,
            late: ms(60),
            turn: ms(80),
        };
        assert_eq!(
            lateness.done(at(1_301), at(1_302)),
            Some(both),
            "nothing is forgotten"
        );
    }
}
