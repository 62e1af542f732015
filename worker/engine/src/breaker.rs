//! The circuit breaker: stops calling a service that keeps failing, and probes it gently.
//!
//! Words: *closed* = calls flow, *open* = calls are refused, *half-open* = exactly one probe.
//!
//! ```text
//!            failures reach the limit                cooldown over
//!  Closed ─────────────────────────────▶ Open ─────────────────────▶ HalfOpen
//!    ▲                                    ▲                            │   │
//!    └──────────── probe succeeds ────────┼────────────────────────────┘   │
//!                                         └───────── probe fails ──────────┘
//! ```
//!
//! Every call carries the [`Permit`] it was admitted with. A permit of an earlier state counts for
//! nothing: the answer of a fragment sent before the breaker opened neither closes it nor
//! lengthens its cooldown.

use crate::machine::Transition;
use crate::time::At;
use std::fmt;
use std::time::Duration;

/// Whether calls flow.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub enum BreakerState {
    /// Calls flow.
    Closed,
    /// One probe may be out, everything else is refused.
    HalfOpen,
    /// Calls are refused.
    Open,
}

impl BreakerState {
    /// The value of the `worker_sts_breaker_state` gauge.
    pub const fn gauge(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }

    /// The word used in logs and snapshots.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// How a call ended, as far as the breaker cares.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Usable audio came back.
    Success,
    /// A retryable error or a local timeout.
    Failure,
    /// Says nothing about the health of the service: non-retryable error, bad audio, disconnect.
    Neutral,
}

/// The whole state of the breaker.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Circuit {
    /// Calls flow; `failures` in a row so far.
    Closed {
        /// Consecutive failures.
        failures: u32,
    },
    /// Calls are refused until `until`.
    Open {
        /// End of the cooldown.
        until: At,
    },
    /// Testing the service; `probing` while the one probe is out.
    HalfOpen {
        /// Whether the probe is out.
        probing: bool,
    },
}

/// What the breaker is told.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum BreakerFact {
    /// A call was sent.
    Called,
    /// A call admitted in the present state ended.
    Ended(Verdict),
    /// The cooldown is over.
    CooledDown,
}

/// The two numbers of the breaker.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct BreakerConfig {
    /// Consecutive failures that open it (at least 1).
    pub failures: u32,
    /// How long it stays open, counted from the opening.
    pub cooldown: Duration,
}

impl Circuit {
    /// The next state at `at`.
    pub fn on(self, at: At, fact: BreakerFact, config: &BreakerConfig) -> Transition<Self> {
        use BreakerFact::{Called, CooledDown, Ended};
        let open = Self::Open {
            until: at + config.cooldown,
        };
        match (self, fact) {
            (Self::Closed { failures }, Ended(Verdict::Failure)) => {
                let failures = failures + 1;
                if failures >= config.failures {
                    Transition::To(open)
                } else {
                    Transition::To(Self::Closed { failures })
                }
            }
            (Self::Closed { failures: 1.. }, Ended(Verdict::Success)) => {
                Transition::To(Self::Closed { failures: 0 })
            }
            (Self::Open { .. }, CooledDown) => Transition::To(Self::HalfOpen { probing: false }),
            (Self::HalfOpen { probing: false }, Called) => {
                Transition::To(Self::HalfOpen { probing: true })
            }
            (Self::HalfOpen { probing: true }, Ended(verdict)) => Transition::To(match verdict {
                Verdict::Success => Self::Closed { failures: 0 },
                Verdict::Failure => open,
                Verdict::Neutral => Self::HalfOpen { probing: false },
            }),
            (Self::Closed { .. }, Called | Ended(Verdict::Success | Verdict::Neutral)) => {
                Transition::NoOp
            }
            (Self::Closed { .. } | Self::HalfOpen { .. }, CooledDown)
            | (Self::Open { .. }, Called | Ended(_))
            | (Self::HalfOpen { probing: false }, Ended(_))
            | (Self::HalfOpen { probing: true }, Called) => Transition::Invalid,
        }
    }

    /// The state without its numbers.
    pub fn state(self) -> BreakerState {
        match self {
            Self::Closed { .. } => BreakerState::Closed,
            Self::Open { .. } => BreakerState::Open,
            Self::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }
}

/// What a call was admitted under. Give it back with the verdict.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct Permit {
    epoch: u64,
}

/// The change of state a fact caused.
pub type Change = Option<(BreakerState, BreakerState)>;

/// The circuit with its configuration, admitting calls by permit.
#[derive(Clone, Debug)]
pub struct Breaker {
    config: BreakerConfig,
    circuit: Circuit,
    epoch: u64,
}

impl Breaker {
    /// A closed breaker. A limit of 0 failures is taken as 1.
    pub fn new(config: BreakerConfig) -> Self {
        let config = BreakerConfig {
            failures: config.failures.max(1),
            ..config
        };
        Self {
            config,
            circuit: Circuit::Closed { failures: 0 },
            epoch: 0,
        }
    }

    /// Whether a call may be made now.
    pub fn admits(&self) -> bool {
        matches!(
            self.circuit,
            Circuit::Closed { .. } | Circuit::HalfOpen { probing: false }
        )
    }

    /// Records a call; `None` if it was not allowed.
    pub fn call(&mut self, at: At) -> Option<Permit> {
        if !self.admits() {
            return None;
        }
        self.apply(at, BreakerFact::Called);
        Some(Permit { epoch: self.epoch })
    }

    /// Records how the call of `permit` ended; returns the change it caused.
    pub fn ended(&mut self, at: At, permit: Permit, verdict: Verdict) -> Change {
        if permit.epoch != self.epoch {
            return None;
        }
        self.apply(at, BreakerFact::Ended(verdict))
    }

    /// Lets time pass; returns the change it caused.
    pub fn handle_timeout(&mut self, at: At) -> Change {
        match self.circuit {
            Circuit::Open { until } if until <= at => self.apply(at, BreakerFact::CooledDown),
            _ => None,
        }
    }

    /// When the cooldown ends, while open.
    pub fn poll_timeout(&self) -> Option<At> {
        match self.circuit {
            Circuit::Open { until } => Some(until),
            _ => None,
        }
    }

    /// Whether calls flow.
    pub fn state(&self) -> BreakerState {
        self.circuit.state()
    }

    fn apply(&mut self, at: At, fact: BreakerFact) -> Change {
        let Transition::To(next) = self.circuit.on(at, fact, &self.config) else {
            return None;
        };
        let (from, to) = (self.circuit.state(), next.state());
        self.circuit = next;
        if from == to {
            return None;
        }
        self.epoch += 1;
        Some((from, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_of_an_earlier_state_counts_for_nothing() {
        use BreakerState::{Closed, HalfOpen, Open};
        let at = At::from_millis;
        let mut breaker = Breaker::new(BreakerConfig {
            failures: 1,
            cooldown: Duration::from_secs(30),
        });
        let early = breaker.call(at(0)).unwrap();
        assert_eq!(
            breaker.ended(at(0), early, Verdict::Failure),
            Some((Closed, Open))
        );
        assert_eq!(breaker.handle_timeout(at(30_000)), Some((Open, HalfOpen)));
        let probe = breaker.call(at(30_000)).unwrap();
        for verdict in [Verdict::Success, Verdict::Failure, Verdict::Neutral] {
            assert_eq!(breaker.ended(at(30_001), early, verdict), None);
            assert!(!breaker.admits(), "the probe is still out");
        }
        assert_eq!(
            breaker.ended(at(30_002), probe, Verdict::Success),
            Some((HalfOpen, Closed))
        );
        for late in [early, probe] {
            assert_eq!(breaker.ended(at(30_003), late, Verdict::Failure), None);
        }
    }

    #[test]
    fn the_gauge_tells_closed_half_open_and_open_apart() {
        use BreakerState::{Closed, HalfOpen, Open};
        assert_eq!([Closed, HalfOpen, Open].map(BreakerState::gauge), [0, 1, 2]);
    }
}
