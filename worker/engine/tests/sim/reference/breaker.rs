//! The circuit breaker told a second time: three numbers and a name.

use dub_engine::{At, BreakerState, FragmentId, SessionConfig};
use std::time::Duration;

/// What a call was sent in; an answer that comes in another era counts for nothing.
pub(crate) type Era = u32;

pub(crate) struct ReferenceBreaker {
    limit: u32,
    cooldown: Duration,
    failures: u32,
    open_until: Option<At>,
    half_open: bool,
    probe: Option<FragmentId>,
    era: Era,
    pub(crate) openings: u32,
    pub(crate) probes: u32,
}

impl ReferenceBreaker {
    pub(crate) fn new(config: &SessionConfig) -> Self {
        Self {
            limit: config.breaker_failures.max(1),
            cooldown: config.breaker_cooldown,
            failures: 0,
            open_until: None,
            half_open: false,
            probe: None,
            era: 0,
            openings: 0,
            probes: 0,
        }
    }

    pub(crate) fn state(&self) -> BreakerState {
        match (self.open_until, self.half_open) {
            (Some(_), _) => BreakerState::Open,
            (None, true) => BreakerState::HalfOpen,
            (None, false) => BreakerState::Closed,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state() == BreakerState::Closed
    }

    /// Whether a segment has anything to wait for.
    pub(crate) fn refuses(&self) -> bool {
        self.open_until.is_some() || self.probe.is_some()
    }

    /// Ends the cooldown at its very moment.
    pub(crate) fn advance(&mut self, at: At, awake: bool) {
        if self.open_until.is_some_and(|until| until <= at) {
            assert!(
                !awake || self.open_until == Some(at),
                "woken late for the cooldown"
            );
            self.open_until = None;
            self.half_open = true;
            self.era += 1;
        }
    }

    pub(crate) fn sent(&mut self, id: FragmentId) -> Era {
        assert!(self.open_until.is_none(), "sends while the breaker is open");
        if self.half_open {
            assert!(self.probe.is_none(), "a second probe");
            self.probe = Some(id);
            self.probes += 1;
        }
        self.era
    }

    pub(crate) fn success(&mut self, era: Era) {
        if era != self.era {
            return;
        }
        self.failures = 0;
        if self.half_open {
            self.half_open = false;
            self.probe = None;
            self.era += 1;
        }
    }

    pub(crate) fn failure(&mut self, at: At, era: Era) {
        if era != self.era {
            return;
        }
        self.failures += 1;
        if self.half_open || self.failures >= self.limit {
            self.open_until = Some(at + self.cooldown);
            self.half_open = false;
            self.probe = None;
            self.failures = 0;
            self.era += 1;
            self.openings += 1;
        }
    }

    pub(crate) fn neutral(&mut self, era: Era) {
        if era == self.era {
            self.probe = None;
        }
    }
}
