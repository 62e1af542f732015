//! What the STS service asked of our sending pace.

use crate::machine::Transition;
use crate::time::At;
use crate::words::BackpressureAction;
use std::time::Duration;

/// Used when the service says `slow_down` without a delay.
pub const DEFAULT_SLOW_DOWN: Duration = Duration::from_millis(500);

/// How the session may send just now.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Pace {
    /// As fast as the in-flight limit allows.
    Free,
    /// Each fragment waits `delay`; in force since `since`.
    Slowed {
        /// Wait before each fragment.
        delay: Duration,
        /// When this pace came into force.
        since: At,
    },
    /// Nothing may be sent.
    Paused,
}

impl Pace {
    /// The pace after a `backpressure` event at `at`.
    ///
    /// A repeated `slow_down` with the same delay does not restart the wait, else a service that
    /// repeats itself every 100 ms would hold us for ever.
    pub fn on(
        self,
        at: At,
        action: BackpressureAction,
        delay: Option<Duration>,
    ) -> Transition<Self> {
        let next = match action {
            BackpressureAction::None => Self::Free,
            BackpressureAction::Pause => Self::Paused,
            BackpressureAction::SlowDown => {
                let delay = delay.unwrap_or(DEFAULT_SLOW_DOWN);
                let since = match self {
                    Self::Slowed { since, .. } => since,
                    Self::Free | Self::Paused => at,
                };
                Self::Slowed { delay, since }
            }
        };
        if next == self {
            Transition::NoOp
        } else {
            Transition::To(next)
        }
    }
}

/// The gate every fragment passes before it is sent.
#[derive(Clone, Debug)]
pub struct Backpressure {
    pace: Pace,
    last_sent: Option<At>,
}

impl Default for Backpressure {
    fn default() -> Self {
        Self {
            pace: Pace::Free,
            last_sent: None,
        }
    }
}

impl Backpressure {
    /// Records a `backpressure` event; returns whether it changes the pace.
    pub fn on(&mut self, at: At, action: BackpressureAction, delay: Option<Duration>) -> bool {
        let Transition::To(next) = self.pace.on(at, action, delay) else {
            return false;
        };
        self.pace = next;
        true
    }

    /// Records that a fragment was sent.
    pub fn sent(&mut self, at: At) {
        self.last_sent = Some(at);
    }

    /// The earliest moment a fragment that is ready since `ready` may be sent; `None` while paused.
    ///
    /// The wait starts when the fragment has its turn: when it became ready, when the one before it
    /// was sent, or when the pace came into force, whichever is last.
    pub fn may_send_at(&self, ready: At) -> Option<At> {
        match self.pace {
            Pace::Free => Some(ready),
            Pace::Paused => None,
            Pace::Slowed { delay, since } => {
                let turn = ready.max(since).max(self.last_sent.unwrap_or(At::ZERO));
                Some(turn + delay)
            }
        }
    }
}
