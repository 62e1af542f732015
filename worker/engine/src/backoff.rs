//! When to try again: a fixed schedule, used up one delay at a time, whose last delay may be repeated.

use crate::machine::Transition;
use std::time::Duration;

/// Where the schedule stands.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum BackoffState {
    /// Nothing has failed since the last success.
    Fresh,
    /// Retry number `attempt` (1-based) is scheduled or under way.
    Retrying {
        /// Number of the retry, 1-based.
        attempt: u32,
    },
    /// The last retry failed too; there is no next one.
    Exhausted,
}

/// What the schedule is told.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum BackoffFact {
    /// The connection, or an attempt to make one, was lost.
    Failed,
    /// The session is usable again.
    Succeeded,
}

impl BackoffState {
    /// The next state of a schedule with `retries` delays.
    pub fn on(self, fact: BackoffFact, retries: u32) -> Transition<Self> {
        match (self, fact) {
            (Self::Fresh, BackoffFact::Failed) if retries == 0 => Transition::To(Self::Exhausted),
            (Self::Fresh, BackoffFact::Failed) => Transition::To(Self::Retrying { attempt: 1 }),
            (Self::Retrying { attempt }, BackoffFact::Failed) if attempt >= retries => {
                Transition::To(Self::Exhausted)
            }
            (Self::Retrying { attempt }, BackoffFact::Failed) => Transition::To(Self::Retrying {
                attempt: attempt + 1,
            }),
            (Self::Retrying { .. }, BackoffFact::Succeeded) => Transition::To(Self::Fresh),
            (Self::Fresh, BackoffFact::Succeeded) | (Self::Exhausted, BackoffFact::Failed) => {
                Transition::NoOp
            }
            (Self::Exhausted, BackoffFact::Succeeded) => Transition::Invalid,
        }
    }
}

/// A retry that is due after a delay.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct Retry {
    /// Number of the retry since the last success, 1-based.
    pub attempt: u32,
    /// How long to wait before it, counted from the failure.
    pub delay: Duration,
    /// The schedule is used up just now; this one and all that follow repeat its last delay.
    pub first_beyond: bool,
}

/// A schedule of delays and the place reached in it.
#[derive(Clone, Debug)]
pub struct Backoff {
    delays: Vec<Duration>,
    /// The last delay is repeated for ever.
    endless: bool,
    state: BackoffState,
}

impl Backoff {
    /// A fresh schedule; `delays.len()` retries in all.
    pub fn new(delays: Vec<Duration>) -> Self {
        Self {
            delays,
            endless: false,
            state: BackoffState::Fresh,
        }
    }

    /// The same schedule; with `endless`, its last delay is repeated for ever.
    #[must_use]
    pub fn endless(self, endless: bool) -> Self {
        Self { endless, ..self }
    }

    /// Records a failure; `None` when the schedule is used up.
    pub fn failed(&mut self) -> Option<Retry> {
        self.apply(BackoffFact::Failed);
        let BackoffState::Retrying { attempt } = self.state else {
            return None;
        };
        let scheduled = self.delays.get(attempt as usize - 1);
        let delay = *scheduled.or(self.delays.last())?;
        Some(Retry {
            attempt,
            delay,
            first_beyond: attempt as usize == self.delays.len() + 1,
        })
    }

    /// Records that the session is usable: the next failure starts from the first delay.
    pub fn succeeded(&mut self) {
        self.apply(BackoffFact::Succeeded);
    }

    /// Number of the retry scheduled or under way; 0 when nothing has failed.
    pub fn attempt(&self) -> u32 {
        match self.state {
            BackoffState::Fresh => 0,
            BackoffState::Retrying { attempt } => attempt,
            BackoffState::Exhausted => self.retries(),
        }
    }

    /// Where the schedule stands.
    pub fn state(&self) -> BackoffState {
        self.state
    }

    fn retries(&self) -> u32 {
        match u32::try_from(self.delays.len()) {
            Ok(retries) if !self.endless || retries == 0 => retries,
            _ => u32::MAX,
        }
    }

    fn apply(&mut self, fact: BackoffFact) {
        if let Transition::To(next) = self.state.on(fact, self.retries()) {
            self.state = next;
        }
    }
}
