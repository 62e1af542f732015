//! When to try again: a fixed schedule, used up one delay at a time.

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
}

/// A schedule of delays and the place reached in it.
#[derive(Clone, Debug)]
pub struct Backoff {
    delays: Vec<Duration>,
    state: BackoffState,
}

impl Backoff {
    /// A fresh schedule; `delays.len()` retries in all.
    pub fn new(delays: Vec<Duration>) -> Self {
        Self {
            delays,
            state: BackoffState::Fresh,
        }
    }

    /// Records a failure; `None` when the schedule is used up.
    pub fn failed(&mut self) -> Option<Retry> {
        self.apply(BackoffFact::Failed);
        let BackoffState::Retrying { attempt } = self.state else {
            return None;
        };
        let delay = *self.delays.get(attempt as usize - 1)?;
        Some(Retry { attempt, delay })
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
        u32::try_from(self.delays.len()).unwrap_or(u32::MAX)
    }

    fn apply(&mut self, fact: BackoffFact) {
        if let Transition::To(next) = self.state.on(fact, self.retries()) {
            self.state = next;
        }
    }
}
