//! The whole service without its sockets: connections, their sessions, control
//! events and whom they are for. Pure: facts with a time in, orders out.

use std::{collections::BTreeMap, time::Duration};

use sts_protocol::{
    ControlAck, ControlMessage, ControlStatus, Direction, ErrorCode, ErrorEvent, JournalEntry,
    Refusal, StreamInit, StsMessage, WorkerMessage,
};

use crate::{
    journal,
    session::{At, Effect, Session, State},
    simulation::{Scope, Setting, Simulation},
};

mod facts;
mod shots;

pub use facts::{Fact, Limits, LinkId, Order};
use shots::{Act, Pending, Shot};

#[derive(Debug, Default)]
struct Link {
    stream_header: Option<String>,
    worker_header: Option<String>,
    refusal: Option<Refusal>,
    session: Option<Session>,
    closing: bool,
}

/// Every connection and everything they share.
#[derive(Debug)]
pub struct Service {
    limits: Limits,
    sim: Simulation,
    links: BTreeMap<LinkId, Link>,
    sessions: u64,
    /// One-time events whose session has not appeared yet.
    shots: Vec<Shot>,
    /// One-time events that wait for their time.
    pending: Vec<Pending>,
    /// Whose connections are refused, until when.
    refusals: Vec<(Scope, At)>,
}

impl Service {
    /// A service with these limits and initial settings.
    pub fn new(limits: Limits, sim: Simulation) -> Self {
        Self {
            limits,
            sim,
            links: BTreeMap::new(),
            sessions: 0,
            shots: Vec::new(),
            pending: Vec::new(),
            refusals: Vec::new(),
        }
    }

    /// Whether a connection request with this `X-Stream-ID` is let in.
    pub fn admits(&mut self, at: At, stream_header: Option<&str>, out: &mut Vec<Order>) -> bool {
        if !self.refused(at, stream_header) {
            return true;
        }
        let mut entry = local(at, "refused");
        entry.stream_id = stream_header.map(str::to_owned);
        entry.detail = Some("simulate:disconnect refuses connections".to_owned());
        out.push(Order::Record(entry));
        false
    }

    fn refused(&mut self, at: At, stream: Option<&str>) -> bool {
        self.refusals.retain(|(_, until)| at < *until);
        self.refusals.iter().any(|(scope, _)| match scope {
            Scope::Everyone => true,
            Scope::Stream(id) => stream == Some(id),
        })
    }

    /// Takes a fact in and says what is to be done about it.
    pub fn handle(&mut self, at: At, fact: Fact, out: &mut Vec<Order>) {
        match fact {
            Fact::Connected {
                link,
                stream_header,
                worker_header,
                refusal,
            } => {
                let mut entry = local(at, "connect");
                entry.stream_id.clone_from(&stream_header);
                entry.detail = worker_header
                    .as_ref()
                    .map(|worker| format!("worker {worker}"));
                out.push(Order::Record(entry));
                let link_state = Link {
                    stream_header,
                    worker_header,
                    refusal,
                    ..Link::default()
                };
                self.links.insert(link, link_state);
            }
            Fact::Opened { link } => self.opened(at, link, out),
            Fact::Worker { link, message } => self.worker(at, link, message, out),
            Fact::Malformed {
                link,
                event,
                refusal,
                sequence,
                fragment_id,
            } => {
                let mut entry = self.entry(at, link, &event, Direction::In);
                entry.sequence = sequence;
                entry.fragment_id.clone_from(&fragment_id);
                entry.detail = Some(refusal.message.clone());
                out.push(Order::Record(entry));
                if !self.listens(link) {
                    return;
                }
                let known = self.session(at, link, out, |session, _, effects| {
                    session.unreadable(refusal.clone(), sequence, fragment_id.clone(), effects);
                });
                if !known {
                    // Before a session is there, nothing but an init is looked at closely.
                    let refusal = if event == sts_protocol::event::STREAM_INIT {
                        refusal
                    } else {
                        no_session(&event)
                    };
                    self.refuse(at, link, refusal, fragment_id, out);
                }
            }
            Fact::Control {
                link,
                event,
                message,
            } => self.control(at, link, event, message, out),
            Fact::Unknown { link, event } => {
                let mut entry = self.entry(at, link, &event, Direction::In);
                entry.detail = Some("unknown event".to_owned());
                out.push(Order::Record(entry));
            }
            Fact::Rendered {
                link,
                session: number,
                sequence,
                result,
            } => {
                self.session(at, link, out, |session, sim, effects| {
                    if session.number() == number {
                        session.rendered(at, sequence, result, sim, effects);
                    }
                });
            }
            Fact::Disconnected { link, reason } => {
                let mut entry = self.entry(at, link, "disconnect", Direction::Local);
                entry.detail = Some(reason);
                out.push(Order::Record(entry));
                self.links.remove(&link);
            }
        }
        self.advance(at, out);
    }

    /// Does what is due by now.
    pub fn advance(&mut self, at: At, out: &mut Vec<Order>) {
        self.fire_pending(at, out);
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            self.session(at, link, out, |session, sim, effects| {
                session.progress(at, sim, effects);
            });
        }
    }

    /// When [`Service::advance`] is needed next, if nothing else happens.
    pub fn due(&self, at: At) -> Option<At> {
        let sessions = self.links.values().filter(|link| !link.closing);
        let sessions = sessions.filter_map(|link| link.session.as_ref()?.due(at));
        sessions
            .chain(self.pending.iter().map(|pending| pending.at))
            .min()
    }

    fn opened(&mut self, at: At, link: LinkId, out: &mut Vec<Order>) {
        let Some(refusal) = self
            .links
            .get(&link)
            .and_then(|state| state.refusal.clone())
        else {
            return;
        };
        let mut entry = self.entry(at, link, "refused", Direction::Local);
        entry.code = Some(refusal.code.to_string());
        entry.detail = Some(refusal.message.clone());
        out.push(Order::Record(entry));
        self.refuse(at, link, refusal, None, out);
        self.close(link, out);
    }

    fn worker(&mut self, at: At, link: LinkId, message: WorkerMessage, out: &mut Vec<Order>) {
        if let WorkerMessage::Init(init) = message {
            self.init(at, link, &init, out);
            return;
        }
        let mut entry = journal::received(&message);
        entry.at_ms = millis(at);
        entry.session = self.session_number(link);
        if entry.stream_id.is_none() {
            entry.stream_id = self.stream_of(link);
        }
        out.push(Order::Record(entry));
        if !self.listens(link) {
            return;
        }
        let event = message.event();
        let fragment = match &message {
            WorkerMessage::Data(data) => Some(data.fragment_id.clone()),
            _ => None,
        };
        let known = self.session(at, link, out, |session, sim, effects| match message {
            WorkerMessage::Data(data) => session.data(at, *data, sim, effects),
            WorkerMessage::Pause(signal) => session.pause(&signal, effects),
            WorkerMessage::Resume(signal) => session.resume(at, &signal, sim, effects),
            WorkerMessage::End(signal) => session.end(at, &signal, sim, effects),
            // Acknowledgements are for the journal only.
            WorkerMessage::Ack(_) | WorkerMessage::Init(_) => {}
        });
        if !known && event != sts_protocol::event::FRAGMENT_ACK {
            self.refuse(at, link, no_session(event), fragment, out);
        }
    }

    fn init(&mut self, at: At, link: LinkId, init: &StreamInit, out: &mut Vec<Order>) {
        let listens = self.listens(link);
        let opened = if listens {
            self.open(link, init)
        } else {
            Ok(None)
        };
        let mut entry = journal::received(&WorkerMessage::Init(init.clone()));
        entry.at_ms = millis(at);
        if let Ok(Some(session)) = &opened {
            entry.session = Some(session.number());
        }
        out.push(Order::Record(entry));
        match opened {
            Ok(None) => {}
            Err(refusal) => self.refuse_stream(at, link, refusal, &init.stream_id, out),
            // A client without X-Stream-ID shows only now which stream it is.
            Ok(Some(_)) if !self.admits(at, Some(&init.stream_id), out) => self.close(link, out),
            Ok(Some(session)) => {
                self.sessions = session.number();
                let ready = StsMessage::Ready(session.ready());
                if let Some(state) = self.links.get_mut(&link) {
                    state.session = Some(session);
                }
                self.emit(at, link, ready, out);
                self.appeared(at, link, out);
            }
        }
    }

    /// The session an init asks for, if it is allowed.
    fn open(&self, link: LinkId, init: &StreamInit) -> Result<Option<Session>, Refusal> {
        let Some(state) = self.links.get(&link) else {
            return Ok(None);
        };
        for (header, sent, field, said) in [
            (
                "X-Stream-ID",
                &state.stream_header,
                "stream_id",
                &init.stream_id,
            ),
            (
                "X-Worker-ID",
                &state.worker_header,
                "worker_id",
                &init.worker_id,
            ),
        ] {
            if let Some(sent) = sent.as_ref().filter(|sent| *sent != said) {
                return Err(Refusal::invalid(format!(
                    "{field}: {said:?} but {header}: {sent:?}"
                )));
            }
        }
        let live = |session: &Session| session.state() != State::Completed;
        if let Some(other) = state
            .session
            .as_ref()
            .filter(|s| live(s) && s.stream_id() != init.stream_id)
        {
            return Err(Refusal::invalid(format!(
                "stream_id: this connection carries stream {:?}",
                other.stream_id()
            )));
        }
        let others = self.links.iter().filter(|(id, _)| **id != link);
        let busy = others
            .filter(|(_, l)| l.session.as_ref().is_some_and(live))
            .count();
        if busy >= self.limits.max_sessions {
            return Err(Refusal::new(
                ErrorCode::RateLimit,
                format!(
                    "{busy} sessions are open, {} allowed",
                    self.limits.max_sessions
                ),
            ));
        }
        Session::open(init, self.sessions + 1, self.limits.session).map(Some)
    }

    fn control(
        &mut self,
        at: At,
        link: LinkId,
        event: String,
        message: Result<ControlMessage, Refusal>,
        out: &mut Vec<Order>,
    ) {
        let mut entry = self.entry(at, link, &event, Direction::In);
        entry.session = None;
        if let Ok(message) = &message {
            entry.stream_id = message.stream_id().map(str::to_owned);
            entry.detail = message.payload().ok().map(|payload| payload.to_string());
        }
        out.push(Order::Record(entry));
        if !self.listens(link) {
            return;
        }
        let result = message.and_then(|message| self.apply(at, link, message, out));
        let ack = match result {
            Ok(effect) => ControlAck {
                status: ControlStatus::Accepted,
                message: Some(effect),
            },
            Err(refusal) => ControlAck {
                status: ControlStatus::Rejected,
                message: Some(refusal.message),
            },
        };
        let mut entry = journal::answered(&event, &ack);
        entry.at_ms = millis(at);
        out.push(Order::Record(entry));
        out.push(Order::Answer { link, event, ack });
    }

    /// Puts a control event in force; says whom it is for.
    fn apply(
        &mut self,
        at: At,
        link: LinkId,
        message: ControlMessage,
        out: &mut Vec<Order>,
    ) -> Result<String, Refusal> {
        let scope = message
            .stream_id()
            .map(str::to_owned)
            .or_else(|| self.stream_of(link));
        let scope = scope.map_or(Scope::Everyone, Scope::Stream);
        let setting = match message {
            ControlMessage::Errors(config) => Setting::Errors(config),
            ControlMessage::Latency(config) => Setting::Latency(config),
            ControlMessage::Backpressure(config) => Setting::Backpressure(config),
            ControlMessage::Audio(config) => Setting::Audio(config),
            ControlMessage::SimulateBackpressure(event) => {
                return self.shoot(at, scope, Act::Load(event), out);
            }
            ControlMessage::Disconnect(event) => {
                return self.shoot(at, scope, Act::Disconnect(event), out);
            }
            ControlMessage::SessionLoss(event) => {
                return self.shoot(at, scope, Act::Lose(event), out);
            }
        };
        self.sim.set(&scope, &setting)?;
        Ok(match scope {
            Scope::Everyone => "every session".to_owned(),
            Scope::Stream(id) => format!("stream {id}"),
        })
    }

    /// Lets a connection's session do something and carries out what it asks for.
    /// `false` if there is none.
    fn session(
        &mut self,
        at: At,
        link: LinkId,
        out: &mut Vec<Order>,
        act: impl FnOnce(&mut Session, &mut Simulation, &mut Vec<Effect>),
    ) -> bool {
        let Some(state) = self.links.get_mut(&link).filter(|state| !state.closing) else {
            return false;
        };
        let Some(session) = &mut state.session else {
            return false;
        };
        let mut effects = Vec::new();
        act(session, &mut self.sim, &mut effects);
        let number = session.number();
        for effect in effects {
            match effect {
                Effect::Emit(message) => self.emit(at, link, message, out),
                Effect::Render {
                    sequence,
                    audio,
                    job,
                } => {
                    out.push(Order::Render {
                        link,
                        session: number,
                        sequence,
                        audio,
                        job,
                    });
                }
                Effect::Simulated {
                    event,
                    sequence,
                    fragment_id,
                    code,
                } => {
                    let mut entry = self.entry(at, link, event, Direction::Local);
                    entry.sequence = Some(sequence);
                    entry.fragment_id = Some(fragment_id);
                    entry.code = code.map(|code| code.to_string());
                    out.push(Order::Record(entry));
                }
                Effect::Close => self.close(link, out),
            }
        }
        true
    }

    fn emit(&self, at: At, link: LinkId, message: StsMessage, out: &mut Vec<Order>) {
        let mut entry = journal::sent(&message);
        entry.at_ms = millis(at);
        entry.session = self.session_number(link);
        if entry.stream_id.is_none() {
            entry.stream_id = self.stream_of(link);
        }
        out.push(Order::Record(entry));
        out.push(Order::Emit { link, message });
    }

    /// Sends an `error` on a connection without a session.
    fn refuse(
        &self,
        at: At,
        link: LinkId,
        refusal: Refusal,
        fragment_id: Option<String>,
        out: &mut Vec<Order>,
    ) {
        let error = ErrorEvent {
            fragment_id,
            ..ErrorEvent::from(refusal)
        };
        self.emit(at, link, StsMessage::Error(error), out);
    }

    fn refuse_stream(
        &self,
        at: At,
        link: LinkId,
        refusal: Refusal,
        stream_id: &str,
        out: &mut Vec<Order>,
    ) {
        let stream_id = Some(stream_id.to_owned());
        let error = ErrorEvent {
            stream_id,
            ..ErrorEvent::from(refusal)
        };
        self.emit(at, link, StsMessage::Error(error), out);
    }

    fn close(&mut self, link: LinkId, out: &mut Vec<Order>) {
        if let Some(state) = self.links.get_mut(&link).filter(|state| !state.closing) {
            state.closing = true;
            out.push(Order::Close { link });
        }
    }

    /// Whether what comes in on this connection is acted on.
    fn listens(&self, link: LinkId) -> bool {
        self.links
            .get(&link)
            .is_some_and(|state| !state.closing && state.refusal.is_none())
    }

    fn session_number(&self, link: LinkId) -> Option<u64> {
        self.links.get(&link)?.session.as_ref().map(Session::number)
    }

    fn stream_of(&self, link: LinkId) -> Option<String> {
        let session = self.links.get(&link)?.session.as_ref()?;
        Some(session.stream_id().to_owned())
    }

    fn entry(&self, at: At, link: LinkId, event: &str, direction: Direction) -> JournalEntry {
        let header = || {
            self.links
                .get(&link)
                .and_then(|state| state.stream_header.clone())
        };
        JournalEntry {
            at_ms: millis(at),
            direction,
            event: event.to_owned(),
            stream_id: self.stream_of(link).or_else(header),
            session: self.session_number(link),
            ..JournalEntry::default()
        }
    }
}

fn local(at: At, event: &str) -> JournalEntry {
    JournalEntry {
        at_ms: millis(at),
        event: event.to_owned(),
        ..JournalEntry::default()
    }
}

fn no_session(event: &str) -> Refusal {
    Refusal::new(
        ErrorCode::StreamNotFound,
        format!("{event}: no stream on this connection, stream:init comes first"),
    )
}

fn millis(at: Duration) -> f64 {
    at.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests;
