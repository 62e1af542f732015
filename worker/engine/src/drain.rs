//! How long what a lost connection has left behind is waited for.

use crate::time::At;
use std::time::Duration;

/// Chains that give nothing for so long have nothing left.
const QUIET: Duration = Duration::from_millis(500);
/// The wait as a whole.
const LONGEST: Duration = Duration::from_secs(10);

/// A connection is gone; units it brought may still be on their way through some chains, a second's worth
/// on a busy machine. Its end is told behind them.
#[derive(Clone, Debug)]
pub struct Drain {
    told: u64,
    quiet: At,
    deadline: At,
}

impl Drain {
    /// The connection was lost at `at`; so many units had been told.
    pub fn new(at: At, told: u64) -> Self {
        Self {
            told,
            quiet: at + QUIET,
            deadline: at + LONGEST,
        }
    }

    /// Until when to wait, with `open` chains that the end has not come through and `told` units so far;
    /// `None` once the wait is over.
    pub fn until(&mut self, at: At, open: usize, told: u64) -> Option<At> {
        if told != self.told {
            self.told = told;
            self.quiet = at + QUIET;
        }
        let until = self.quiet.min(self.deadline);
        (open > 0 && at < until).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> At {
        At::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn it_ends_when_the_end_has_come_through_every_chain() {
        let mut drain = Drain::new(at(0), 7);
        assert_eq!(drain.until(at(1), 2, 7), Some(at(500)));
        assert_eq!(drain.until(at(2), 1, 7), Some(at(500)));
        assert_eq!(drain.until(at(3), 0, 7), None);
    }

    #[test]
    fn units_that_still_come_prolong_it_and_quiet_ends_it() {
        let mut drain = Drain::new(at(0), 7);
        assert_eq!(drain.until(at(400), 2, 8), Some(at(900)));
        assert_eq!(drain.until(at(899), 2, 8), Some(at(900)));
        assert_eq!(drain.until(at(900), 2, 8), None);
    }

    #[test]
    fn units_without_end_do_not_hold_it_for_ever() {
        let mut drain = Drain::new(at(0), 0);
        let waits = (1..).take_while(|n| drain.until(at(n * 100), 1, *n).is_some());
        assert_eq!(waits.count(), 99);
    }
}
