//! One STS stream: connect, initialise, send, hold, give up, fall back, reconnect, end.
//!
//! [`Session`] composes the small machines ([`link`], [`breaker`](crate::breaker),
//! [`backoff`](crate::backoff), [`backpressure`](crate::backpressure),
//! [`in_flight`](crate::in_flight)) and owns the rules between them:
//!
//! - every segment told is resolved exactly once, in batch order;
//! - never more fragments out than the limit in force;
//! - sequence numbers count from 0 after every init, without a hole;
//! - every wait has a deadline, so [`SessionOrder::Drained`] always comes after [`SessionFact::InputEnded`].
//!
//! # Driving it
//!
//! Tell facts with [`Session::handle`], then take [`Session::poll_order`] until `None`, then
//! sleep until [`Session::poll_timeout`] and call [`Session::handle_timeout`]. Whatever is due is done
//! before a fact is taken in, so a race between a timer and a fact at the same moment has one
//! outcome: an answer that arrives at its deadline is late.
//!
//! # Choices where the product page leaves room
//!
//! - The link decides first: without a session the reason is `disconnected`, even if the breaker is
//!   open.
//! - During the very first handshake, and while a lost session is initialised again on the same
//!   connection, segments wait (until their deadline); in any other time without a session they fall
//!   back at once.
//! - When the breaker opens, segments that wait fall back at once. Half-open, the first one that is
//!   ready is the probe; it is subject to backpressure like any other.
//! - A segment that waits in vain falls back as `disconnected` without a session, as `backpressure`
//!   while paused or slowed down, and as `timeout` when the in-flight limit held it.
//! - Sent fragments whose session is lost (`STREAM_NOT_FOUND`, or `INVALID_SEQUENCE` twice in a row)
//!   fall back as `error`.
//! - A new init starts with a free pace and with the limit the server then confirms.
//! - Returned audio must be checked within `fragment_timeout`, else it counts as bad.

mod codes;
mod connection;
mod facts;
mod fragments;
pub mod link;
mod resolver;

pub use codes::{Consequence, classify};
pub use facts::{End, Gone, Resolution, SessionConfig, SessionFact, SessionOrder};

use crate::backoff::Backoff;
use crate::backpressure::Backpressure;
use crate::breaker::{Breaker, BreakerConfig, BreakerState, Change};
use crate::event::{Event, shorten};
use crate::fragment_id::FragmentIds;
use crate::in_flight::InFlight;
use crate::machine::Transition;
use crate::message_limit::MessageLimit;
use crate::time::At;
use crate::words::{LinkId, OriginalReason, ProtocolErrorKind};
use link::{LinkFact, Phase};
use resolver::Resolver;
use std::collections::{BTreeSet, VecDeque};

/// A segment that is ready and not sent.
#[derive(Copy, Clone, Debug)]
struct Waiting {
    batch: u64,
    ready: At,
    bytes: usize,
}

/// How much the session holds; for bounds and gauges.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub struct Load {
    /// Segments ready and not sent.
    pub waiting: usize,
    /// Fragments out.
    pub out: usize,
    /// Fragments whose audio is being checked.
    pub checking: usize,
    /// Segments not resolved.
    pub unresolved: usize,
    /// Settled fragments remembered.
    pub remembered: usize,
}

/// The machine of one STS stream. See the [module](self).
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, each named"
)]
pub struct Session {
    config: SessionConfig,
    now: At,
    orders: VecDeque<SessionOrder>,

    phase: Phase,
    link: LinkId,
    /// Deadline of the phase: connect, ready, retry or complete.
    phase_deadline: Option<At>,
    /// Segments wait for the handshake under way instead of falling back.
    hold: bool,
    backoff: Backoff,
    /// A retry is under way and its outcome was not told yet.
    retrying: bool,
    /// When the session counts as proof that the service is there, unless it has proven itself.
    proof_due: Option<At>,
    /// A session before this one was ready, or a fragment was dubbed: refusals are not final.
    has_worked: bool,
    /// This connection's session was ready.
    was_ready: bool,
    message_limit: MessageLimit,
    /// Since when a session that was usable is not.
    away_since: Option<At>,

    /// Inits so far; tells fragments of an earlier session apart.
    inits: u64,
    next_sequence: u64,
    /// The highest sequence number that audio came back for since the last init.
    answered: Option<u64>,
    /// Answers in a row since the last init that a fragment is out of sequence.
    out_of_step: u32,
    limit: u32,
    /// The session stems from one that was lost, and no fragment has come back on it yet.
    unproven: bool,

    waiting: VecDeque<Waiting>,
    fragments: InFlight,
    breaker: Breaker,
    pressure: Backpressure,
    resolver: Resolver,
    ids: FragmentIds,

    input_ended: bool,
    end: Option<End>,
    drained: bool,
    complaints: BTreeSet<ProtocolErrorKind>,
}

impl Session {
    /// A session that waits for [`SessionFact::Start`]; in passthrough it never does anything but resolve.
    pub fn new(config: SessionConfig) -> Self {
        let limit = config.max_inflight.max(1);
        let breaker = Breaker::new(BreakerConfig {
            failures: config.breaker_failures,
            cooldown: config.breaker_cooldown,
        });
        Self {
            now: At::ZERO,
            orders: VecDeque::new(),
            phase: if config.enabled {
                Phase::Idle
            } else {
                Phase::Closed
            },
            link: 0,
            phase_deadline: None,
            hold: true,
            backoff: Backoff::new(config.backoff.clone()).endless(config.gone == Gone::Original),
            retrying: false,
            proof_due: None,
            has_worked: false,
            was_ready: false,
            message_limit: MessageLimit::default(),
            away_since: None,
            inits: 0,
            next_sequence: 0,
            answered: None,
            out_of_step: 0,
            limit,
            unproven: false,
            waiting: VecDeque::new(),
            fragments: InFlight::default(),
            breaker,
            pressure: Backpressure::default(),
            resolver: Resolver::default(),
            ids: FragmentIds::new(config.id_seed),
            input_ended: false,
            end: None,
            drained: false,
            complaints: BTreeSet::new(),
            config,
        }
    }

    /// Takes in a fact that happened at `at`. An `at` before the last one is taken as that one.
    pub fn handle(&mut self, at: At, input: SessionFact) {
        self.run_timers(at);
        self.take_in(input);
        self.settle_down();
    }

    /// Does what is due at `at`.
    pub fn handle_timeout(&mut self, at: At) {
        self.run_timers(at);
        self.settle_down();
    }

    /// The next order, oldest first.
    pub fn poll_order(&mut self) -> Option<SessionOrder> {
        self.orders.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    pub fn poll_timeout(&self) -> Option<At> {
        let head = self.waiting.front();
        let unsent = head.map(|head| head.ready + self.config.fragment_timeout);
        let next = head.filter(|_| self.has_room());
        let slowed = next.and_then(|head| self.pressure.may_send_at(head.ready));
        // A drained session has nothing left to wake for, not even a breaker.
        let breaker = self.breaker.poll_timeout().filter(|_| !self.drained);
        [
            self.phase_deadline,
            self.fragments.next_deadline(),
            unsent,
            slowed,
            breaker,
            self.proof_due,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Fragments the service owes an answer for.
    pub fn in_flight(&self) -> usize {
        self.fragments.out()
    }

    /// Whether calls flow.
    pub fn breaker_state(&self) -> BreakerState {
        self.breaker.state()
    }

    /// The in-flight limit in force.
    pub fn max_inflight(&self) -> u32 {
        self.limit
    }

    /// How much is held.
    pub fn load(&self) -> Load {
        let out = self.fragments.out();
        Load {
            waiting: self.waiting.len(),
            out,
            checking: self.fragments.live() - out,
            unresolved: self.resolver.len(),
            remembered: self.fragments.remembered(),
        }
    }

    fn take_in(&mut self, input: SessionFact) {
        match input {
            SessionFact::Start => self.on_start(),
            SessionFact::SegmentReady {
                batch,
                sendable,
                bytes,
            } => {
                let unfit = (!sendable).then_some(OriginalReason::NotSent);
                self.on_segment_ready(batch, unfit, bytes);
            }
            SessionFact::SegmentSilent { batch } => {
                self.on_segment_ready(batch, Some(OriginalReason::NoAudio), 0);
            }
            SessionFact::Connected { link } => self.on_connected(link),
            SessionFact::ConnectFailed {
                link,
                reason,
                fatal,
            } => {
                self.on_connect_failed(link, &reason, fatal);
            }
            SessionFact::Disconnected { link, reason } => self.on_disconnected(link, &reason),
            SessionFact::MessageCut {
                link,
                bytes,
                certain,
            } => self.on_message_cut(link, bytes, certain),
            SessionFact::Ready { link, max_inflight } => self.on_ready(link, max_inflight),
            SessionFact::Acked { link, id, status } => self.on_acked(link, &id, status),
            SessionFact::Processed {
                link,
                id,
                sequence,
                outcome,
            } => {
                self.on_processed(link, &id, sequence, outcome);
            }
            SessionFact::AudioChecked { batch, ok } => self.on_audio_checked(batch, ok),
            SessionFact::Backpressure {
                link,
                action,
                delay,
            } => {
                self.on_backpressure(link, action, delay);
            }
            SessionFact::StsError {
                link,
                code,
                retryable,
                fatal,
                id,
                message,
            } => {
                let error = connection::StsError {
                    code,
                    retryable,
                    fatal,
                    message,
                };
                self.on_sts_error(link, &error, id.as_deref());
            }
            SessionFact::StreamComplete { link } => self.on_stream_complete(link),
            SessionFact::Malformed {
                link,
                kind,
                count,
                detail,
            } => self.complain_of(kind, count, &format!("link {link}: {detail}")),
            SessionFact::InputEnded => self.input_ended = true,
        }
    }

    /// Does everything whose deadline has come.
    fn run_timers(&mut self, at: At) {
        self.now = self.now.max(at);
        for id in self.fragments.overdue(self.now) {
            self.on_overdue(id);
        }
        if self.proof_due.is_some_and(|due| due <= self.now) {
            self.prove();
        }
        let change = self.breaker.handle_timeout(self.now);
        self.on_breaker(change);
        if self
            .phase_deadline
            .is_some_and(|deadline| deadline <= self.now)
        {
            self.on_phase_deadline();
        }
        // Only what is past its deadline: a segment may still go out at the very moment.
        self.expire_waiting(|deadline, now| deadline < now);
    }

    /// Sends what may be sent, then ends what is over.
    fn settle_down(&mut self) {
        self.send_waiting();
        self.expire_waiting(|deadline, now| deadline <= now);
        self.resolve();
        self.drain();
        self.resolve();
        if self.resolver.len() == 0
            && !self.drained
            && let Some(end) = self.end.clone()
        {
            self.drained = true;
            self.event(Event::Drained { end: end.clone() });
            self.orders.push_back(SessionOrder::Drained(end));
        }
    }

    /// Hands out results whose turn it is.
    fn resolve(&mut self) {
        while let Some((batch, with)) = self.resolver.next() {
            self.orders.push_back(SessionOrder::Resolve { batch, with });
        }
    }

    fn step(&mut self, fact: LinkFact) -> bool {
        match self.phase.on(fact) {
            Transition::To(next) => {
                self.phase = next;
                self.phase_deadline = None;
                true
            }
            Transition::NoOp | Transition::Invalid => false,
        }
    }

    fn on_breaker(&mut self, change: Change) {
        if let Some((from, to)) = change {
            self.event(Event::Breaker { from, to });
        }
    }

    /// Counts something wrong the service said.
    fn complain(&mut self, kind: ProtocolErrorKind, detail: &str) {
        self.complain_of(kind, 1, detail);
    }

    /// Counts `count` things wrong in the same way at once.
    fn complain_of(&mut self, kind: ProtocolErrorKind, count: u64, detail: &str) {
        let first = self.complaints.insert(kind);
        self.event(Event::ProtocolError {
            kind,
            first,
            count,
            detail: shorten(detail),
        });
    }

    fn event(&mut self, event: Event) {
        self.orders.push_back(SessionOrder::Event(event));
    }
}
