//! The session's dealings with the connection: making, losing, refusing and ending it.

use super::Session;
use super::codes::{self, Consequence};
use super::facts::{End, SessionOrder};
use super::link::{LinkFact, Phase};
use crate::backpressure::Backpressure;
use crate::breaker::Verdict;
use crate::event::{Event, shorten};
use crate::in_flight::FragmentFact;
use crate::words::{BackpressureAction, Fatal, LinkId, OriginalReason, ProtocolErrorKind};
use std::time::Duration;

/// The largest `max_inflight` the protocol knows.
const PROTOCOL_MAX_INFLIGHT: i64 = 10;

/// The body of an `error` event.
pub(super) struct StsError {
    pub(super) code: String,
    pub(super) retryable: bool,
    pub(super) fatal: bool,
    pub(super) message: String,
}

impl Session {
    pub(super) fn on_start(&mut self) {
        if self.step(LinkFact::Start) {
            self.connect();
        }
    }

    pub(super) fn on_connected(&mut self, link: LinkId) {
        if !self.is_current(link) {
            return;
        }
        if self.step(LinkFact::Connected) {
            self.event(Event::StsConnected { link });
            self.unproven = false;
            self.init();
        } else {
            self.complain(ProtocolErrorKind::Unexpected, "connected twice");
        }
    }

    pub(super) fn on_connect_failed(&mut self, link: LinkId, reason: &str, fatal: Option<Fatal>) {
        if !self.is_open(link) {
            return;
        }
        match fatal {
            Some(fatal) => self.refuse(&fatal.code, &fatal.message, false),
            None => self.lose_link(reason, false),
        }
    }

    /// A link we gave up answers with this too, which is no news.
    pub(super) fn on_disconnected(&mut self, link: LinkId, reason: &str) {
        if self.is_open(link) {
            self.lose_link(reason, false);
        }
    }

    pub(super) fn on_ready(&mut self, link: LinkId, confirmed: Option<i64>) {
        if !self.is_current(link) {
            return;
        }
        if !self.step(LinkFact::Ready) {
            let kind = match self.phase {
                Phase::Active | Phase::Ending => ProtocolErrorKind::Duplicate,
                _ => ProtocolErrorKind::Unexpected,
            };
            return self.complain(kind, "stream:ready");
        }
        self.was_ready = true;
        self.limit = self.confirmed_limit(confirmed);
        self.event(Event::StsReady {
            link,
            max_inflight: self.limit,
        });
        self.tell_attempt(true);
        // A handshake proves nothing: services are known to answer it and drop the link, for ever.
        self.proof_due = Some(self.now + self.config.quiet_life);
        if let Some(since) = self.away_since.take() {
            self.event(Event::Reconnected {
                link,
                away: self.now.since(since),
            });
        }
    }

    pub(super) fn on_backpressure(
        &mut self,
        link: LinkId,
        action: BackpressureAction,
        delay: Option<Duration>,
    ) {
        if !self.is_current(link) {
            return;
        }
        if !self.phase.is_connected() {
            return self.complain(ProtocolErrorKind::Unexpected, "backpressure");
        }
        let changed = self.pressure.on(self.now, action, delay);
        self.event(Event::Backpressure {
            action,
            delay,
            changed,
        });
    }

    pub(super) fn on_sts_error(&mut self, link: LinkId, error: &StsError, id: Option<&str>) {
        if !self.is_current(link) {
            return;
        }
        if codes::classify(&error.code, error.retryable) == Consequence::Refusal {
            return self.refuse(&error.code, &error.message, true);
        }
        // The answer to an init is about the init, whatever id the service puts into it.
        let initializing = self.phase == Phase::Initializing;
        match id {
            Some(id) if !initializing || self.is_known(id) => self.on_fragment_error(id, error),
            _ => self.on_stream_error(error),
        }
        // A fatal error of a kind we do not know: the session is no more, whatever it was.
        if error.fatal && !codes::is_known(&error.code) && self.is_open(link) {
            self.lose_link(&format!("fatal error {}", shorten(&error.code)), true);
        }
    }

    /// An error about no fragment.
    fn on_stream_error(&mut self, error: &StsError) {
        let severity = codes::classify(&error.code, error.retryable);
        // Before the first fragment of a session this is about the one before.
        let ours = self.phase == Phase::Active && self.next_sequence > 0;
        match severity {
            Consequence::BadConfig if self.phase == Phase::Initializing => {
                self.refuse(&error.code, &error.message, true);
            }
            Consequence::SessionLost if ours => self.lose_session(),
            _ => {
                let detail = format!("{}: {}", error.code, error.message);
                self.complain(ProtocolErrorKind::SessionError, &detail);
                if severity == Consequence::OutOfStep && ours {
                    self.fall_out_of_step();
                }
            }
        }
    }

    pub(super) fn on_stream_complete(&mut self, link: LinkId) {
        if !self.is_current(link) {
            return;
        }
        if self.phase == Phase::Ending {
            self.finish_stream(true, true);
        } else {
            self.complain(ProtocolErrorKind::Unexpected, "stream:complete");
        }
    }

    pub(super) fn on_phase_deadline(&mut self) {
        match self.phase {
            Phase::Connecting => self.lose_link("no answer to the connection attempt", true),
            Phase::Initializing => self.lose_link("no stream:ready in time", true),
            Phase::Away => {
                self.step(LinkFact::RetryDue);
                self.retrying = true;
                self.connect();
            }
            Phase::Ending => self.finish_stream(false, true),
            Phase::Idle | Phase::Active | Phase::Closed => self.phase_deadline = None,
        }
    }

    /// The server does not know our session: initialise again, once, on the same connection.
    pub(super) fn lose_session(&mut self) {
        let link = self.link;
        if self.unproven {
            // Initialising again did not help. The backoff keeps this from turning in circles.
            return self.lose_link("session lost again right after its init", true);
        }
        if self.step(LinkFact::SessionLost) {
            self.event(Event::SessionLost { link });
            self.has_worked = true;
            self.give_up_out(OriginalReason::Error);
            self.unproven = true;
            self.hold = true;
            self.init();
        }
    }

    /// One fragment out of sequence may be that fragment's trouble; where the next is too, all will
    /// be until both sides count from 0 again. A fragment without an answer in between says nothing.
    pub(super) fn fall_out_of_step(&mut self) {
        self.out_of_step += 1;
        if self.out_of_step == 2 {
            self.lose_session();
        }
    }

    /// Leaves the connection. `ours`: it is still open and we close it.
    pub(super) fn lose_link(&mut self, reason: &str, ours: bool) {
        let (link, was) = (self.link, self.phase);
        if was == Phase::Ending {
            return self.finish_stream(false, ours);
        }
        if ours {
            self.orders.push_back(SessionOrder::Disconnect { link });
        }
        let in_flight = self.fragments.out();
        if !self.step(LinkFact::Lost) {
            return;
        }
        let reason = shorten(reason);
        if was == Phase::Connecting {
            self.event(Event::StsConnectFailed { link, reason });
        } else {
            self.event(Event::StsDisconnected {
                link,
                reason,
                in_flight,
            });
        }
        if was == Phase::Active || self.unproven {
            self.away_since.get_or_insert(self.now);
        }
        self.unproven = false;
        self.has_worked |= std::mem::take(&mut self.was_ready);
        self.proof_due = None;
        self.tell_attempt(false);
        self.hold = false;
        self.give_up_out(OriginalReason::Disconnected);
        self.give_up_waiting(OriginalReason::Disconnected);
        if self.input_ended {
            return self.close(End::Complete);
        }
        let attempts = self.backoff.attempt();
        if let Some(retry) = self.backoff.failed() {
            if retry.first_beyond {
                let stays = true;
                self.event(Event::StsGone { attempts, stays });
            }
            self.phase_deadline = Some(self.now + retry.delay);
            self.event(Event::ReconnectScheduled {
                attempt: retry.attempt,
                delay: retry.delay,
            });
        } else {
            let stays = false;
            self.event(Event::StsGone { attempts, stays });
            self.close(End::Gone);
        }
    }

    /// Tells how a retry ended, once.
    fn tell_attempt(&mut self, success: bool) {
        if std::mem::take(&mut self.retrying) {
            let attempt = self.backoff.attempt();
            self.event(Event::ReconnectAttempt { attempt, success });
        }
    }

    /// The service is there and does its work: the next loss starts the schedule anew.
    pub(super) fn prove(&mut self) {
        self.proof_due = None;
        self.backoff.succeeded();
    }

    pub(super) fn on_message_cut(&mut self, link: LinkId, bytes: usize, certain: bool) {
        if self.is_open(link) && self.message_limit.cut(self.now, bytes, certain) {
            self.event(Event::MessageLimit { bytes });
        }
    }

    /// The service refuses us. At the first session trying again is pointless; a service that has
    /// worked before may come to its senses, or get its token renewed.
    pub(super) fn refuse(&mut self, code: &str, message: &str, disconnect: bool) {
        if self.has_worked {
            return self.lose_link(
                &format!("refused by the service: {code}: {message}"),
                disconnect,
            );
        }
        let (code, message) = (shorten(code), shorten(message));
        if disconnect {
            self.orders
                .push_back(SessionOrder::Disconnect { link: self.link });
        }
        self.event(Event::StsRefused {
            code: code.clone(),
            message: message.clone(),
        });
        self.give_up_out(OriginalReason::Error);
        self.give_up_waiting(OriginalReason::Disconnected);
        self.close(End::Refused { code, message });
    }

    /// After the end of input: ends the stream as soon as nothing is left to do on it.
    pub(super) fn drain(&mut self) {
        if !self.input_ended || self.end.is_some() {
            return;
        }
        let idle = self.waiting.is_empty();
        match self.phase {
            Phase::Active if idle && self.fragments.live() == 0 => {
                let link = self.link;
                self.step(LinkFact::EndSent);
                self.phase_deadline = Some(self.now + self.config.complete_timeout);
                self.orders.push_back(SessionOrder::End { link });
                self.event(Event::StreamEnding { link });
            }
            // Only a handshake that segments wait for is worth waiting for.
            Phase::Connecting | Phase::Initializing if idle => {
                self.orders
                    .push_back(SessionOrder::Disconnect { link: self.link });
                self.close(End::Complete);
            }
            Phase::Idle | Phase::Away | Phase::Closed => {
                self.give_up_waiting(OriginalReason::Disconnected);
                self.close(End::Complete);
            }
            Phase::Active | Phase::Connecting | Phase::Initializing | Phase::Ending => {}
        }
    }

    fn finish_stream(&mut self, confirmed: bool, disconnect: bool) {
        let link = self.link;
        self.event(Event::StreamComplete { link, confirmed });
        if disconnect {
            self.orders.push_back(SessionOrder::Disconnect { link });
        }
        self.close(End::Complete);
    }

    fn close(&mut self, end: End) {
        self.proof_due = None;
        self.step(LinkFact::Over);
        self.end.get_or_insert(end);
    }

    fn connect(&mut self) {
        self.link += 1;
        // The driver bounds the attempt; this only bounds a driver that never answers.
        self.phase_deadline = Some(self.now + self.config.ready_timeout * 2);
        self.event(Event::StsConnecting { link: self.link });
        self.orders
            .push_back(SessionOrder::Connect { link: self.link });
    }

    fn init(&mut self) {
        self.inits += 1;
        self.next_sequence = 0;
        self.answered = None;
        self.out_of_step = 0;
        self.pressure = Backpressure::default();
        self.phase_deadline = Some(self.now + self.config.ready_timeout);
        self.orders
            .push_back(SessionOrder::Init { link: self.link });
    }

    fn confirmed_limit(&mut self, confirmed: Option<i64>) -> u32 {
        let configured = self.config.max_inflight.max(1);
        let Some(confirmed) = confirmed else {
            return configured;
        };
        let sane = 1..=PROTOCOL_MAX_INFLIGHT.max(i64::from(configured));
        if !sane.contains(&confirmed) {
            self.complain(
                ProtocolErrorKind::BadValue,
                &format!("max_inflight {confirmed}"),
            );
        }
        confirmed.clamp(1, i64::from(configured)) as u32
    }

    /// Whether `link` is the connection we have; no complaint if not.
    pub(super) fn is_open(&self, link: LinkId) -> bool {
        link == self.link && self.phase.has_link()
    }

    /// Whether `link` is the connection we have; counts what comes over an older one.
    pub(super) fn is_current(&mut self, link: LinkId) -> bool {
        let current = self.is_open(link);
        if !current {
            self.complain(ProtocolErrorKind::StaleLink, &format!("link {link}"));
        }
        current
    }

    fn give_up_out(&mut self, reason: OriginalReason) {
        for id in self.fragments.ids_out() {
            self.settle(
                id,
                FragmentFact::SessionGone,
                Verdict::Neutral,
                Some(reason),
            );
        }
    }
}
