//! Control events that do one thing once: a load report, a disconnect, a lost
//! session. They act on sessions that are there or, when none is, on the next
//! one that appears; their delay starts then.

use std::time::Duration;

use sts_protocol::{
    Direction, Refusal, SimulateBackpressure, SimulateDisconnect, SimulateSessionLoss,
};

use super::{LinkId, Order, Service};
use crate::{
    session::At,
    simulation::{Scope, severity_of},
};

/// Most one-time events that can wait at once.
const MAX_WAITING: usize = 1_024;

/// What is done once.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Load(SimulateBackpressure),
    Disconnect(SimulateDisconnect),
    Lose(SimulateSessionLoss),
}

impl Act {
    fn delay(&self) -> Duration {
        Duration::from_millis(match self {
            Self::Load(_) => 0,
            Self::Disconnect(event) => event.delay_ms,
            Self::Lose(event) => event.delay_ms,
        })
    }
}

/// Waits for a session to appear.
#[derive(Debug)]
pub(super) struct Shot {
    scope: Scope,
    act: Act,
}

/// Waits for its time.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) at: At,
    link: LinkId,
    session: u64,
    scope: Scope,
    act: Act,
}

impl Service {
    /// Aims an event at the sessions of its scope; says what comes of it.
    pub(super) fn shoot(
        &mut self,
        at: At,
        scope: Scope,
        act: Act,
        out: &mut Vec<Order>,
    ) -> Result<String, Refusal> {
        if self.shots.len() + self.pending.len() >= MAX_WAITING {
            return Err(Refusal::invalid(format!(
                "more than {MAX_WAITING} events are waiting"
            )));
        }
        let targets: Vec<(LinkId, u64)> = self
            .links
            .iter()
            .filter(|(_, link)| !link.closing)
            .filter_map(|(id, link)| Some((*id, link.session.as_ref()?)))
            .filter(|(_, session)| match &scope {
                Scope::Everyone => true,
                Scope::Stream(stream) => session.stream_id() == stream,
            })
            .map(|(id, session)| (id, session.number()))
            .collect();
        if targets.is_empty() {
            let waits_for = match &scope {
                Scope::Everyone => "waits for a session".to_owned(),
                Scope::Stream(id) => format!("waits for stream {id}"),
            };
            self.shots.push(Shot { scope, act });
            return Ok(waits_for);
        }
        for (link, session) in &targets {
            let at = at.saturating_add(act.delay());
            let (scope, act) = (scope.clone(), act.clone());
            self.pending.push(Pending {
                at,
                link: *link,
                session: *session,
                scope,
                act,
            });
        }
        self.fire_pending(at, out);
        Ok(match targets.len() {
            1 => "1 session".to_owned(),
            n => format!("{n} sessions"),
        })
    }

    /// A session has appeared on `link`: what waited for it is set going.
    pub(super) fn appeared(&mut self, at: At, link: LinkId, out: &mut Vec<Order>) {
        let (Some(stream), Some(session)) = (self.stream_of(link), self.session_number(link))
        else {
            return;
        };
        for Shot { scope, act } in std::mem::take(&mut self.shots) {
            let meant = match &scope {
                Scope::Everyone => true,
                Scope::Stream(id) => *id == stream,
            };
            if meant {
                let at = at.saturating_add(act.delay());
                self.pending.push(Pending {
                    at,
                    link,
                    session,
                    scope,
                    act,
                });
            } else {
                self.shots.push(Shot { scope, act });
            }
        }
        self.fire_pending(at, out);
    }

    /// Carries out what is due.
    pub(super) fn fire_pending(&mut self, at: At, out: &mut Vec<Order>) {
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|pending| pending.at <= at);
        self.pending = later;
        for Pending {
            link,
            session,
            scope,
            act,
            ..
        } in due
        {
            // The session may be gone by now, or another one in its place.
            if self.session_number(link) == Some(session) {
                self.fire(at, link, scope, &act, out);
            }
        }
    }

    fn fire(&mut self, at: At, link: LinkId, scope: Scope, act: &Act, out: &mut Vec<Order>) {
        let mut entry = self.entry(at, link, "", Direction::Local);
        match act {
            Act::Load(event) => {
                let severity = event.severity.unwrap_or(severity_of(event.action));
                let session = self
                    .links
                    .get(&link)
                    .and_then(|state| state.session.as_ref());
                if let Some(session) = session {
                    let (action, delay) = (event.action, event.recommended_delay_ms);
                    let message = session.load_report(at, severity, action, delay);
                    self.emit(at, link, message, out);
                }
            }
            Act::Lose(_) => {
                "simulated_session_loss".clone_into(&mut entry.event);
                out.push(Order::Record(entry));
                if let Some(state) = self.links.get_mut(&link) {
                    state.session = None;
                }
            }
            Act::Disconnect(event) => {
                "simulated_disconnect".clone_into(&mut entry.event);
                if let Some(ms) = event.refuse_for_ms {
                    entry.detail = Some(format!("refuses connections for {ms} ms"));
                    let until = at.saturating_add(Duration::from_millis(ms));
                    self.refusals.push((scope, until));
                }
                out.push(Order::Record(entry));
                self.close(link, out);
            }
        }
    }
}
