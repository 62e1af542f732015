//! The session's dealings with segments and fragments: sending, answers, deadlines.

use super::codes::{self, Consequence};
use super::connection::StsError;
use super::facts::{Resolution, SessionOrder};
use super::link::Phase;
use super::{Session, Waiting};
use crate::breaker::{BreakerState, Verdict};
use crate::event::{Event, shorten};
use crate::fragment_id::FragmentId;
use crate::in_flight::{Fragment, FragmentFact, FragmentState};
use crate::time::At;
use crate::words::{AckStatus, BadAudio, LinkId, OriginalReason, Outcome, ProtocolErrorKind};

impl Session {
    pub(super) fn on_segment_ready(
        &mut self,
        batch: u64,
        unfit: Option<OriginalReason>,
        bytes: usize,
    ) {
        if !self.resolver.open(batch) {
            return;
        }
        if !self.config.enabled {
            return self.keep_original(batch, OriginalReason::Passthrough);
        }
        if let Some(reason) = unfit {
            return self.keep_original(batch, reason);
        }
        let waits = match self.phase {
            Phase::Active => true,
            Phase::Idle | Phase::Connecting | Phase::Initializing => self.hold,
            Phase::Away | Phase::Ending | Phase::Closed => false,
        };
        if waits {
            self.waiting.push_back(Waiting {
                batch,
                ready: self.now,
                bytes,
            });
        } else {
            self.keep_original(batch, OriginalReason::Disconnected);
        }
    }

    /// Sends what may be sent now; gives up what the breaker refuses.
    pub(super) fn send_waiting(&mut self) {
        while let Some(head) = self.waiting.front().copied() {
            if self.phase == Phase::Active && !self.fits(head.bytes) {
                self.waiting.pop_front();
                self.event(Event::TooLarge {
                    batch: head.batch,
                    bytes: head.bytes,
                });
                self.keep_original(head.batch, OriginalReason::Error);
                continue;
            }
            if !self.breaker.admits() {
                return self.give_up_waiting(OriginalReason::BreakerOpen);
            }
            if self.breaker.state() == BreakerState::HalfOpen {
                // The head will be the probe; the others have nothing to wait for.
                for other in self.waiting.split_off(1) {
                    self.keep_original(other.batch, OriginalReason::BreakerOpen);
                }
            }
            if !self.has_room() || self.is_held_back(head) {
                return;
            }
            self.waiting.pop_front();
            self.send(head);
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.phase == Phase::Active && self.fragments.out() < self.limit as usize
    }

    /// Whether the service wants the segment to be sent later.
    fn is_held_back(&self, segment: Waiting) -> bool {
        let gate = self.pressure.may_send_at(segment.ready);
        gate.is_none_or(|gate| gate > self.now)
    }

    fn fits(&self, bytes: usize) -> bool {
        bytes <= self.config.max_message && self.message_limit.allows(self.now, bytes)
    }

    /// Gives up segments that waited in vain.
    pub(super) fn expire_waiting(&mut self, is_due: fn(At, At) -> bool) {
        while let Some(head) = self.waiting.front().copied() {
            if !is_due(head.ready + self.config.fragment_timeout, self.now) {
                return;
            }
            self.waiting.pop_front();
            let reason = match self.phase {
                Phase::Active if self.is_held_back(head) => OriginalReason::Backpressure,
                Phase::Active => OriginalReason::Timeout,
                _ => OriginalReason::Disconnected,
            };
            self.keep_original(head.batch, reason);
        }
    }

    pub(super) fn give_up_waiting(&mut self, reason: OriginalReason) {
        for waiting in std::mem::take(&mut self.waiting) {
            self.keep_original(waiting.batch, reason);
        }
    }

    pub(super) fn on_acked(&mut self, link: LinkId, id: &str, status: AckStatus) {
        if !self.is_current(link) {
            return;
        }
        let Some(id) = self.known(id) else { return };
        let fact = match status {
            AckStatus::Queued => FragmentFact::AckQueued,
            AckStatus::Processing => FragmentFact::AckProcessing,
        };
        if self.fragments.advance(id, fact, None)
            && let Some(Fragment {
                batch,
                sequence,
                bytes,
                ..
            }) = self.fragments.get(id)
        {
            let (batch, sequence) = (*batch, *sequence);
            self.message_limit.answered(*bytes);
            self.event(Event::FragmentAcked {
                batch,
                sequence,
                fragment_id: id,
                status,
            });
        }
    }

    pub(super) fn on_processed(
        &mut self,
        link: LinkId,
        id: &str,
        sequence: Option<u64>,
        outcome: Outcome,
    ) {
        if !self.is_current(link) {
            return self.forget(id);
        }
        match outcome {
            Outcome::Failed {
                code,
                retryable,
                message,
            } => {
                let error = StsError {
                    code,
                    retryable,
                    fatal: false,
                    message,
                };
                if codes::classify(&error.code, retryable) == Consequence::Refusal {
                    self.refuse(&error.code, &error.message, true);
                } else {
                    self.on_fragment_error(id, &error);
                }
            }
            Outcome::Audio => self.on_audio(link, id, sequence),
        }
    }

    fn on_audio(&mut self, link: LinkId, text: &str, sequence: Option<u64>) {
        let Some(id) = self.known(text) else {
            return self.forget(text);
        };
        let overdue = self.now + self.config.fragment_timeout;
        if !self
            .fragments
            .advance(id, FragmentFact::Audio, Some(overdue))
        {
            self.complain_misfit(id);
            return self.forget(text);
        }
        let Some(fragment) = self.fragments.get(id) else {
            return;
        };
        let (batch, sent) = (fragment.batch, fragment.sequence);
        let rtt = self.now.since(fragment.sent_at);
        self.message_limit.answered(fragment.bytes);
        self.out_of_step = 0;
        // The id is what counts; a sequence that disagrees is only worth a note.
        if sequence.is_some_and(|told| told != sent) {
            self.complain(
                ProtocolErrorKind::BadValue,
                &format!("sequence_number of {id}"),
            );
        }
        // It is used all the same: segments are held until their turn.
        match self.answered {
            Some(last) if sent < last => self.complain(
                ProtocolErrorKind::OutOfOrder,
                &format!("fragment {sent} after {last}"),
            ),
            _ => self.answered = Some(sent),
        }
        self.event(Event::FragmentProcessed {
            batch,
            sequence: sent,
            fragment_id: id,
            rtt,
        });
        self.orders
            .push_back(SessionOrder::Decode { batch, id, link });
    }

    /// `error` about a fragment, or `fragment:processed` with status failed.
    pub(super) fn on_fragment_error(&mut self, text: &str, error: &StsError) {
        let Some(id) = self.known(text) else { return };
        let severity = codes::classify(&error.code, error.retryable);
        let Some(fragment) = self.fragments.get(id).filter(|f| f.state.is_out()) else {
            let told = self.fragments.settled(id).map(|settled| settled.state);
            let trailing = match told {
                Some(FragmentState::Failed) => true,
                Some(FragmentState::Forgotten) => {
                    matches!(severity, Consequence::SessionLost | Consequence::OutOfStep)
                }
                _ => false,
            };
            if !trailing {
                self.complain_misfit(id);
            }
            return;
        };
        let (batch, sequence) = (fragment.batch, fragment.sequence);
        let retryable = severity == Consequence::Retryable;
        self.event(Event::FragmentFailed {
            batch,
            sequence,
            fragment_id: id,
            code: shorten(&error.code),
            retryable,
            message: shorten(&error.message),
        });
        let verdict = if retryable {
            Verdict::Failure
        } else {
            Verdict::Neutral
        };
        self.settle(
            id,
            FragmentFact::Failure,
            verdict,
            Some(OriginalReason::Error),
        );
        match severity {
            Consequence::SessionLost => self.lose_session(),
            Consequence::OutOfStep => self.fall_out_of_step(),
            _ => self.out_of_step = 0,
        }
    }

    pub(super) fn on_audio_checked(&mut self, batch: u64, ok: Result<(), BadAudio>) {
        // No such fragment: its check was overdue and it has fallen back already.
        let Some(id) = self.fragments.returned(batch) else {
            return;
        };
        match ok {
            Ok(()) => {
                let fact = FragmentFact::CheckedGood;
                let Some(fragment) = self.settle(id, fact, Verdict::Success, None) else {
                    return;
                };
                self.has_worked = true;
                if fragment.session == self.inits && self.phase == Phase::Active {
                    self.unproven = false;
                    self.prove();
                    self.orders.push_back(SessionOrder::Applied {
                        link: self.link,
                        id,
                    });
                }
                if self.resolver.decide(batch, Resolution::Dubbed { id }) {
                    self.event(Event::SegmentDubbed { batch });
                }
            }
            Err(BadAudio { reason }) => self.reject_audio(id, batch, &reason),
        }
    }

    /// A fragment's deadline has come: no answer, or no word about its audio.
    pub(super) fn on_overdue(&mut self, id: FragmentId) {
        let Some(fragment) = self.fragments.get(id) else {
            return;
        };
        let (batch, sequence) = (fragment.batch, fragment.sequence);
        if !fragment.state.is_out() {
            return self.reject_audio(id, batch, "not checked in time");
        }
        let after = self.now.since(fragment.sent_at);
        self.event(Event::FragmentTimeout {
            batch,
            sequence,
            fragment_id: id,
            after,
        });
        self.settle(
            id,
            FragmentFact::Timeout,
            Verdict::Failure,
            Some(OriginalReason::Timeout),
        );
    }

    /// Settles a fragment, tells the breaker, and falls back if there is a reason to.
    pub(super) fn settle(
        &mut self,
        id: FragmentId,
        fact: FragmentFact,
        verdict: Verdict,
        reason: Option<OriginalReason>,
    ) -> Option<Fragment> {
        let fragment = self.fragments.settle(id, fact)?;
        if let Some(reason) = reason {
            self.keep_original(fragment.batch, reason);
        }
        let change = self.breaker.ended(self.now, fragment.permit, verdict);
        self.on_breaker(change);
        Some(fragment)
    }

    fn reject_audio(&mut self, id: FragmentId, batch: u64, reason: &str) {
        self.event(Event::BadAudio {
            batch,
            fragment_id: id,
            reason: shorten(reason),
        });
        let why = Some(OriginalReason::BadAudio);
        self.settle(id, FragmentFact::CheckedBad, Verdict::Neutral, why);
        self.orders.push_back(SessionOrder::Forget { id });
    }

    fn send(&mut self, segment: Waiting) {
        let Some(permit) = self.breaker.call(self.now) else {
            return;
        };
        let (link, batch) = (self.link, segment.batch);
        let (id, sequence) = (self.ids.next(), self.next_sequence);
        self.next_sequence += 1;
        self.pressure.sent(self.now);
        self.fragments.sent(
            id,
            Fragment {
                batch,
                sequence,
                session: self.inits,
                bytes: segment.bytes,
                sent_at: self.now,
                deadline: self.now + self.config.fragment_timeout,
                state: FragmentState::Sent,
                permit,
            },
        );
        let in_flight = self.fragments.out();
        self.orders.push_back(SessionOrder::Send {
            link,
            batch,
            id,
            sequence,
        });
        self.event(Event::FragmentSent {
            batch,
            sequence,
            fragment_id: id,
            in_flight,
        });
    }

    fn keep_original(&mut self, batch: u64, reason: OriginalReason) {
        if !self.resolver.decide(batch, Resolution::Original(reason)) {
            return;
        }
        self.event(if reason.is_fallback() {
            Event::Fallback { batch, reason }
        } else {
            Event::SegmentOriginal { batch, reason }
        });
    }

    /// The fragment an id of the service is about; counts ids we never sent.
    fn known(&mut self, text: &str) -> Option<FragmentId> {
        let known = self.find(text);
        if known.is_none() {
            self.complain(ProtocolErrorKind::UnknownFragment, text);
        }
        known
    }

    pub(super) fn is_known(&self, text: &str) -> bool {
        self.find(text).is_some()
    }

    fn find(&self, text: &str) -> Option<FragmentId> {
        FragmentId::parse(text)
            .filter(|id| self.fragments.get(*id).is_some() || self.fragments.settled(*id).is_some())
    }

    fn complain_misfit(&mut self, id: FragmentId) {
        let settled = self.fragments.settled(id).map(|settled| settled.state);
        let state = settled.unwrap_or(FragmentState::Returned);
        self.complain(state.misfit(), &id.to_string());
    }

    /// Lets the driver drop a payload nobody wants, unless one under the same id is in use.
    fn forget(&mut self, text: &str) {
        let Some(id) = FragmentId::parse(text) else {
            return;
        };
        let in_use = match self.fragments.settled(id) {
            Some(settled) => {
                settled.state == FragmentState::Dubbed && self.resolver.is_open(settled.batch)
            }
            None => self
                .fragments
                .get(id)
                .is_some_and(|f| f.state == FragmentState::Returned),
        };
        if !in_use {
            self.orders.push_back(SessionOrder::Forget { id });
        }
    }
}
