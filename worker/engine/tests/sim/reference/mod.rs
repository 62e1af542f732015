//! The rules of the session told a second time, simply, from the outside.
//!
//! Sees the facts and orders that cross the border and nothing else, keeps its own books with plain
//! variables instead of state machines, and panics when the session breaks a rule.

mod breaker;
mod fragments;

use breaker::{Era, ReferenceBreaker};
use dub_engine::{
    At, BackpressureAction, End, Event, FragmentId, Gone, LinkId, OriginalReason, Outcome,
    Resolution, Session, SessionConfig, SessionFact, SessionOrder,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum Stage {
    Idle,
    Connecting,
    Init,
    Up,
    Down,
    Ending,
    Over,
}

#[derive(Clone, Debug)]
struct Sent {
    batch: u64,
    sequence: u64,
    /// When its answer is overdue; once returned, when its check is.
    deadline: At,
    era: Era,
    init: u32,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "plain variables instead of state machines"
)]
pub(crate) struct Reference {
    config: SessionConfig,
    stage: Stage,
    link: LinkId,
    /// When the stage must be over.
    stage_limit: Option<At>,
    next_connect: Option<At>,
    losses: usize,
    inits: u32,
    sequence: u64,
    limit: usize,
    hold: bool,
    unproven: bool,
    /// Fragments in a row that were out of sequence.
    gaps: u32,
    /// This connection's session was ready.
    ready: bool,
    /// A session before this one was ready, or a fragment was dubbed.
    worked: bool,
    /// When the session counts as proof that the service is there.
    proof: Option<At>,
    must_init: bool,
    must_disconnect: bool,

    paused: bool,
    slowed: Option<(Duration, At)>,
    last_sent: At,

    newest: Option<u64>,
    waiting: BTreeMap<u64, At>,
    out: BTreeMap<FragmentId, Sent>,
    checking: BTreeMap<FragmentId, Sent>,
    every_id: BTreeSet<FragmentId>,
    decided: BTreeMap<u64, Resolution>,
    unresolved: VecDeque<u64>,
    payloads: BTreeSet<FragmentId>,
    must_apply: BTreeSet<FragmentId>,

    pub(crate) breaker: ReferenceBreaker,

    input_ended: bool,
    gone: bool,
    refused: bool,
    drained: bool,

    pub(crate) sends: usize,
    pub(crate) resolved: Vec<(u64, Resolution)>,
    pub(crate) most_out: usize,
    pub(crate) reinits: u32,
}

impl Reference {
    pub(crate) fn new(config: SessionConfig) -> Self {
        Self {
            stage: if config.enabled {
                Stage::Idle
            } else {
                Stage::Over
            },
            link: 0,
            stage_limit: None,
            next_connect: None,
            losses: 0,
            inits: 0,
            sequence: 0,
            limit: config.max_inflight as usize,
            hold: true,
            unproven: false,
            gaps: 0,
            ready: false,
            worked: false,
            proof: None,
            must_init: false,
            must_disconnect: false,
            paused: false,
            slowed: None,
            last_sent: At::ZERO,
            newest: None,
            waiting: BTreeMap::new(),
            out: BTreeMap::new(),
            checking: BTreeMap::new(),
            every_id: BTreeSet::new(),
            decided: BTreeMap::new(),
            unresolved: VecDeque::new(),
            payloads: BTreeSet::new(),
            must_apply: BTreeSet::new(),
            breaker: ReferenceBreaker::new(&config),
            input_ended: false,
            gone: false,
            refused: false,
            drained: false,
            sends: 0,
            resolved: Vec::new(),
            most_out: 0,
            reinits: 0,
            config,
        }
    }

    /// Lets time pass: deadlines of fragments and the breaker's cooldown, in order.
    pub(crate) fn advance(&mut self, at: At) {
        loop {
            let out = self
                .out
                .iter()
                .map(|(id, sent)| (sent.deadline, sent.batch, *id))
                .min();
            let check = self
                .checking
                .iter()
                .map(|(id, s)| (s.deadline, s.batch, *id))
                .min();
            let first = out.into_iter().chain(check).min();
            let Some((_, _, id)) = first.filter(|(deadline, ..)| *deadline <= at) else {
                break;
            };
            if let Some(sent) = self.out.remove(&id) {
                assert_eq!(sent.deadline, at, "woken late for a timeout");
                self.fall_back(sent.batch, OriginalReason::Timeout);
                self.breaker.failure(at, sent.era);
            } else if let Some(sent) = self.checking.remove(&id) {
                self.fall_back(sent.batch, OriginalReason::BadAudio);
                self.breaker.neutral(sent.era);
            }
        }
        self.breaker.advance(at, !self.drained);
        assert!(
            self.next_connect.is_none_or(|next| next >= at),
            "missed a reconnect"
        );
        assert!(
            self.stage_limit.is_none_or(|limit| limit >= at),
            "{:?} for too long",
            self.stage
        );
    }

    /// Takes in what the session is about to be told.
    pub(crate) fn input(&mut self, at: At, input: &SessionFact) {
        match input {
            SessionFact::SegmentReady {
                batch, sendable, ..
            } => {
                self.segment(at, *batch, (!sendable).then_some(OriginalReason::NotSent));
            }
            SessionFact::SegmentSilent { batch } => {
                self.segment(at, *batch, Some(OriginalReason::NoAudio));
            }
            SessionFact::ConnectFailed { link, fatal, .. } if self.has(*link) => match fatal {
                Some(_) if !self.worked => self.refuse(),
                _ => self.lost(at),
            },
            SessionFact::Disconnected { link, .. } if self.has(*link) => self.lost(at),
            SessionFact::Ready { link, max_inflight }
                if self.has(*link) && self.stage == Stage::Init =>
            {
                self.enter(Stage::Up, None);
                self.ready = true;
                self.prove(at);
                self.proof = Some(at + self.config.quiet_life);
                let configured = i64::from(self.config.max_inflight);
                self.limit = max_inflight.unwrap_or(configured).clamp(1, configured) as usize;
            }
            SessionFact::Processed {
                link, id, outcome, ..
            } => {
                let parsed = FragmentId::parse(id);
                if *outcome == Outcome::Audio {
                    self.payloads.extend(parsed);
                }
                if self.has(*link) {
                    match outcome {
                        Outcome::Audio => self.audio(at, parsed),
                        Outcome::Failed {
                            code, retryable, ..
                        } => {
                            self.failed(at, code, *retryable, false, Some(id));
                        }
                    }
                }
            }
            SessionFact::StsError {
                link,
                code,
                retryable,
                fatal,
                id,
                ..
            } if self.has(*link) => {
                self.failed(at, code, *retryable, *fatal, id.as_deref());
            }
            SessionFact::AudioChecked { batch, ok } => self.checked(*batch, ok.is_ok()),
            SessionFact::Backpressure {
                link,
                action,
                delay,
            } if self.has(*link) && self.stage != Stage::Connecting => {
                self.paused = *action == BackpressureAction::Pause;
                self.slowed = (*action == BackpressureAction::SlowDown).then(|| {
                    let delay = delay.unwrap_or(Duration::from_millis(500));
                    (delay, self.slowed.map_or(at, |(_, since)| since))
                });
            }
            SessionFact::StreamComplete { link }
                if self.has(*link) && self.stage == Stage::Ending =>
            {
                self.enter(Stage::Over, None);
            }
            SessionFact::InputEnded => {
                self.input_ended = true;
                self.next_connect = None;
                if matches!(self.stage, Stage::Idle | Stage::Down) {
                    self.enter(Stage::Over, None);
                }
            }
            _ => {}
        }
    }

    /// Checks what the session ordered.
    pub(crate) fn output(&mut self, at: At, output: &SessionOrder) {
        match output {
            SessionOrder::Connect { link } => {
                assert_eq!(*link, self.link + 1, "links are numbered");
                if self.stage == Stage::Idle {
                    assert_eq!(self.link, 0);
                } else {
                    assert_eq!(self.next_connect, Some(at), "backoff is exact");
                    self.hold = false;
                }
                self.next_connect = None;
                self.link = *link;
                self.enter(Stage::Connecting, Some(at + self.config.ready_timeout * 2));
            }
            SessionOrder::Init { link } => {
                assert_eq!(*link, self.link);
                if self.stage == Stage::Up {
                    assert!(self.must_init, "an init out of the blue");
                    self.must_init = false;
                    self.unproven = true;
                    self.hold = true;
                    self.reinits += 1;
                } else {
                    assert_eq!(self.stage, Stage::Connecting);
                    self.unproven = false;
                }
                self.inits += 1;
                (self.sequence, self.gaps) = (0, 0);
                (self.paused, self.slowed, self.last_sent) = (false, None, At::ZERO);
                self.enter(Stage::Init, Some(at + self.config.ready_timeout));
            }
            SessionOrder::Send {
                link,
                batch,
                id,
                sequence,
            } => {
                self.sent(at, *link, *batch, *id, *sequence);
            }
            SessionOrder::Applied { link, id } => {
                assert_eq!(*link, self.link);
                assert!(self.must_apply.remove(id), "applied without good audio");
            }
            SessionOrder::Decode { batch, id, .. } => {
                assert_eq!(self.checking.get(id).map(|sent| sent.batch), Some(*batch));
                assert!(self.payloads.contains(id), "nothing to decode");
            }
            SessionOrder::Forget { id } => {
                assert!(
                    !self.checking.contains_key(id),
                    "forgets what is being checked"
                );
                let dubbed = Resolution::Dubbed { id: *id };
                assert!(
                    !self.decided.values().any(|with| *with == dubbed),
                    "forgets good audio"
                );
                self.payloads.remove(id);
            }
            SessionOrder::Resolve { batch, with } => {
                assert_eq!(
                    self.unresolved.pop_front(),
                    Some(*batch),
                    "resolves in batch order"
                );
                assert_eq!(
                    self.decided.remove(batch),
                    Some(*with),
                    "resolution of {batch}"
                );
                if let Resolution::Dubbed { id } = with {
                    assert!(
                        self.payloads.remove(id),
                        "dubbed with a payload that is gone"
                    );
                }
                self.resolved.push((*batch, *with));
            }
            SessionOrder::End { link } => {
                assert!(self.input_ended && *link == self.link && self.stage == Stage::Up);
                assert!(self.waiting.is_empty() && self.out.is_empty() && self.checking.is_empty());
                self.enter(Stage::Ending, Some(at + self.config.complete_timeout));
            }
            SessionOrder::Disconnect { link } => {
                assert_eq!(*link, self.link);
                self.must_disconnect = false;
                if matches!(self.stage, Stage::Ending | Stage::Over) {
                    self.enter(Stage::Over, None);
                } else {
                    self.lost(at);
                }
            }
            SessionOrder::Drained(end) => {
                assert!(!self.drained, "drained twice");
                assert!(self.unresolved.is_empty() && self.out.is_empty());
                assert_eq!(self.stage, Stage::Over);
                let fits = match end {
                    End::Complete => self.input_ended && !self.gone && !self.refused,
                    End::Gone => self.gone,
                    End::Refused { .. } => self.refused,
                };
                assert!(fits, "drained as {end:?}");
                self.drained = true;
            }
            SessionOrder::Event(Event::Fallback { batch, reason }) => {
                self.fallback(at, *batch, *reason);
            }
            SessionOrder::Event(Event::Breaker { to, .. }) => assert_eq!(*to, self.breaker.state()),
            SessionOrder::Event(_) => {}
        }
    }

    /// Compares books with the session after every step.
    pub(crate) fn compare(&mut self, at: At, session: &Session) {
        assert!(
            !self.must_init && !self.must_disconnect,
            "no reaction to a lost session"
        );
        assert!(self.must_apply.is_empty(), "good audio was not confirmed");
        // A drained session asks for no more wake-ups.
        if !self.drained {
            assert_eq!(session.breaker_state(), self.breaker.state(), "breaker");
        }
        assert_eq!(session.in_flight(), self.out.len(), "in flight");
        let load = session.load();
        assert_eq!(load.checking, self.checking.len(), "being checked");
        assert_eq!(load.waiting, self.waiting.len(), "waiting");
        assert_eq!(load.unresolved, self.unresolved.len(), "unresolved");
        assert!(load.remembered <= dub_engine::in_flight::REMEMBERED);
        let Some((_, ready)) = self.waiting.first_key_value() else {
            return;
        };
        let ready = *ready;
        assert!(
            at < ready + self.config.fragment_timeout,
            "waits beyond its deadline"
        );
        assert!(
            self.stage == Stage::Up || self.hold,
            "waits without a session"
        );
        let held = self.stage != Stage::Up
            || self.out.len() >= self.limit
            || self.gate(ready).is_none_or(|gate| gate > at);
        assert!(held, "a segment waits although it could be sent");
        assert!(!self.breaker.refuses(), "waits for an open breaker");
        assert!(
            self.breaker.is_closed() || self.waiting.len() == 1,
            "two candidates for one probe"
        );
    }

    /// After the run: nothing may be left over.
    pub(crate) fn finish(&self) {
        assert!(self.drained, "never drained");
        assert!(
            self.payloads.is_empty(),
            "payloads left behind: {:?}",
            self.payloads
        );
        assert!(self.decided.is_empty() && self.waiting.is_empty() && self.checking.is_empty());
        let known = self.newest.map_or(0, |newest| newest + 1);
        assert!(self.resolved.len() as u64 <= known);
    }

    fn failed(&mut self, at: At, code: &str, flag: bool, fatal: bool, id: Option<&str>) {
        const COUNTED: [&str; 5] = [
            "TIMEOUT",
            "MODEL_ERROR",
            "GPU_OOM",
            "QUEUE_FULL",
            "RATE_LIMIT",
        ];
        const UNCOUNTED: [&str; 4] = [
            "STREAM_NOT_FOUND",
            "INVALID_CONFIG",
            "FRAGMENT_TOO_LARGE",
            "INVALID_SEQUENCE",
        ];
        if code == "AUTH_FAILED" {
            return self.refuse_or_leave();
        }
        let parsed = id.and_then(FragmentId::parse);
        let ours = parsed.is_some_and(|id| self.every_id.contains(&id));
        if code == "INVALID_CONFIG" && self.stage == Stage::Init && !ours {
            return self.refuse_or_leave();
        }
        let mut lost_session = code == "STREAM_NOT_FOUND" && self.stage == Stage::Up;
        let known = COUNTED.contains(&code) || UNCOUNTED.contains(&code);
        let counts = COUNTED.contains(&code) || (!known && flag);
        let sent = parsed.and_then(|id| self.out.remove(&id));
        if let Some(sent) = &sent {
            self.fall_back(sent.batch, OriginalReason::Error);
            if counts {
                self.breaker.failure(at, sent.era);
            } else {
                self.breaker.neutral(sent.era);
            }
        }
        let about_session = id.is_none() && self.sequence > 0 && self.stage == Stage::Up;
        if code == "INVALID_SEQUENCE" && (sent.is_some() || about_session) {
            self.gaps += 1;
            lost_session = self.gaps == 2;
        } else if sent.is_some() {
            self.gaps = 0;
        }
        if lost_session && (sent.is_some() || about_session) {
            if self.unproven {
                self.must_disconnect = true;
            } else {
                self.must_init = true;
                self.worked |= self.ready;
                self.give_up_out(OriginalReason::Error);
            }
        }
        self.must_disconnect |= fatal && !known;
    }

    /// After a session has worked no refusal is final.
    fn refuse_or_leave(&mut self) {
        if self.worked {
            self.must_disconnect = true;
        } else {
            self.refuse();
        }
    }

    /// Draws the conclusion of a minute that went by quietly.
    fn prove(&mut self, at: At) {
        if self.proof.take().is_some_and(|proof| proof <= at) {
            self.losses = 0;
        }
    }

    fn lost(&mut self, at: At) {
        self.prove(at);
        self.worked |= std::mem::take(&mut self.ready);
        self.give_up_out(OriginalReason::Disconnected);
        for batch in std::mem::take(&mut self.waiting).into_keys() {
            self.fall_back(batch, OriginalReason::Disconnected);
        }
        self.must_init = false;
        self.unproven = false;
        if self.input_ended || self.stage == Stage::Ending {
            return self.enter(Stage::Over, None);
        }
        let endless = (self.config.gone == Gone::Original).then(|| self.config.backoff.last());
        let endless = endless.flatten();
        if let Some(delay) = self.config.backoff.get(self.losses).or(endless).copied() {
            self.enter(Stage::Down, None);
            self.next_connect = Some(at + delay);
        } else {
            self.gone = true;
            self.enter(Stage::Over, None);
        }
        self.losses += 1;
    }

    fn refuse(&mut self) {
        self.refused = true;
        self.give_up_out(OriginalReason::Error);
        for batch in std::mem::take(&mut self.waiting).into_keys() {
            self.fall_back(batch, OriginalReason::Disconnected);
        }
        self.enter(Stage::Over, None);
    }

    fn give_up_out(&mut self, reason: OriginalReason) {
        for sent in std::mem::take(&mut self.out).into_values() {
            assert!(sent.sequence < self.sequence);
            self.fall_back(sent.batch, reason);
            self.breaker.neutral(sent.era);
        }
    }

    /// A fallback the session announced: one we know of, or one of a segment that was not sent.
    fn fallback(&mut self, at: At, batch: u64, reason: OriginalReason) {
        if let Some(ready) = self.waiting.remove(&batch) {
            let due = at == ready + self.config.fragment_timeout;
            let up = self.stage == Stage::Up;
            let gated = self.gate(ready).is_none_or(|gate| gate > at);
            let fits = match reason {
                OriginalReason::BreakerOpen => !self.breaker.is_closed(),
                OriginalReason::Backpressure => due && up && gated,
                OriginalReason::Timeout => due && up && !gated && self.out.len() >= self.limit,
                OriginalReason::Disconnected => due && !up,
                // Larger than the service takes.
                OriginalReason::Error => up,
                _ => false,
            };
            assert!(fits, "segment {batch} was not sent because of {reason}");
            self.fall_back(batch, reason);
        }
        let expected = Some(&Resolution::Original(reason));
        assert_eq!(self.decided.get(&batch), expected, "fallback of {batch}");
    }

    fn fall_back(&mut self, batch: u64, reason: OriginalReason) {
        let before = self.decided.insert(batch, Resolution::Original(reason));
        assert_eq!(before, None, "{batch} decided twice");
    }

    fn has(&self, link: LinkId) -> bool {
        let linked = matches!(
            self.stage,
            Stage::Connecting | Stage::Init | Stage::Up | Stage::Ending
        );
        linked && link == self.link
    }

    fn enter(&mut self, stage: Stage, limit: Option<At>) {
        self.stage = stage;
        self.stage_limit = limit;
    }
}
