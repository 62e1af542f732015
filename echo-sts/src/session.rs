//! One stream's session: what the protocol's server side does between
//! `stream:init` and the end. Pure: facts with a time in, [`Effect`]s out.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use sts_protocol::{
    Audio, Backpressure, BackpressureAction, BackpressureSeverity, Capabilities, ErrorCode,
    ErrorEvent, FragmentData, FragmentError, FragmentProcessed, ProcessedStatus, Refusal,
    StageTimings, StreamInit, StreamReady, StreamSignal, StsAck, StsAckStatus, StsMessage,
};

use crate::{
    audio,
    simulation::{Fate, Level, Plan, Simulation, Subject},
    tally::Tally,
    words::{self, TRANSCRIPT, TRANSLATED_TEXT},
};

mod parts;

pub use parts::{Allowance, Effect, State};
use parts::{Fragment, Work};

/// Time since the server started.
pub type At = Duration;

/// How many fragment ids a session remembers in order to notice duplicates.
const REMEMBERED_IDS: usize = 4_096;
/// How many fragments may wait whatever their age; bounds memory under latencies
/// beyond the worker's timeout.
const MAX_WAITING: usize = 64;
/// A fragment stops counting against `max_inflight` this much before the worker's
/// timeout: its clock starts before ours, and its next fragment must not meet a
/// full queue because of one it has just given up.
const PATIENCE_SLACK: Duration = Duration::from_millis(500);

/// One stream on one connection.
#[derive(Debug)]
pub struct Session {
    stream_id: String,
    number: u64,
    state: State,
    max_inflight: u32,
    patience: Duration,
    close_after: Duration,
    next_sequence: u64,
    ids: HashSet<String>,
    id_order: VecDeque<String>,
    /// Fragments to be answered, in sequence order.
    queue: VecDeque<Fragment>,
    /// When fragments came in that will never be answered.
    held: Vec<At>,
    level: Level,
    tally: Tally,
    close_at: Option<At>,
    errors: u64,
}

impl Session {
    /// Opens session `number` for an init, which must be within the rules.
    ///
    /// # Errors
    /// `INVALID_CONFIG` naming what was refused.
    pub fn open(init: &StreamInit, number: u64, allowance: Allowance) -> Result<Self, Refusal> {
        init.validate()?;
        let chunk = init.config.chunk_duration_ms;
        if chunk > allowance.max_chunk_ms {
            return Err(Refusal::invalid(format!(
                "config.chunk_duration_ms: {chunk} is over this server's limit of {}",
                allowance.max_chunk_ms
            )));
        }
        let timeout = Duration::from_millis(u64::from(init.timeout_ms));
        Ok(Self {
            stream_id: init.stream_id.clone(),
            number,
            state: State::Active,
            max_inflight: init.max_inflight.min(allowance.max_inflight),
            patience: timeout.saturating_sub(PATIENCE_SLACK.min(timeout / 4)),
            close_after: allowance.close_after,
            next_sequence: 0,
            ids: HashSet::new(),
            id_order: VecDeque::new(),
            queue: VecDeque::new(),
            held: Vec::new(),
            level: Level::default(),
            tally: Tally::default(),
            close_at: None,
            errors: 0,
        })
    }

    pub fn stream_id(&self) -> &str {
        &self.stream_id
    }

    /// Which session of the server this is, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Where it is in its life.
    pub fn state(&self) -> State {
        self.state
    }

    /// The answer to `stream:init`.
    pub fn ready(&self) -> StreamReady {
        StreamReady {
            stream_id: self.stream_id.clone(),
            session_id: format!("session-{}", self.number),
            max_inflight: self.max_inflight,
            capabilities: Capabilities {
                batch_processing: false,
                async_delivery: true,
            },
        }
    }

    /// A `fragment:data` arrived.
    pub fn data(
        &mut self,
        at: At,
        data: FragmentData,
        sim: &mut Simulation,
        out: &mut Vec<Effect>,
    ) {
        match self.admit(at, &data) {
            Err(refusal) => {
                let fragment = Some(data.fragment_id);
                self.refuse(refusal, fragment, out);
            }
            Ok(()) => self.take(at, data, sim, out),
        }
        self.progress(at, sim, out);
    }

    /// A `fragment:data` arrived that could not be read, with as much as is known
    /// of it. A number that was due is used up, so that one bad message is not
    /// followed by a gap.
    pub fn unreadable(
        &mut self,
        refusal: Refusal,
        sequence: Option<u64>,
        fragment_id: Option<String>,
        out: &mut Vec<Effect>,
    ) {
        if sequence == Some(self.next_sequence) {
            self.next_sequence += 1;
        }
        self.refuse(refusal, fragment_id, out);
    }

    fn admit(&mut self, at: At, data: &FragmentData) -> Result<(), Refusal> {
        self.expect_stream(&data.stream_id)?;
        if !matches!(self.state, State::Active | State::Paused) {
            return Err(Refusal::new(
                ErrorCode::StreamNotFound,
                format!("stream {} has ended", self.stream_id),
            ));
        }
        if self.ids.contains(&data.fragment_id) {
            return Err(Refusal::new(
                ErrorCode::InvalidSequence,
                format!("fragment_id {} was used before", data.fragment_id),
            ));
        }
        if data.sequence_number != self.next_sequence {
            let kind = if data.sequence_number < self.next_sequence {
                "duplicate"
            } else {
                "gap"
            };
            return Err(Refusal::new(
                ErrorCode::InvalidSequence,
                format!(
                    "{kind}: expected {}, got {}",
                    self.next_sequence, data.sequence_number
                ),
            ));
        }
        // From here on the message was well placed: its number is used up even if
        // its content is refused.
        self.next_sequence += 1;
        data.validate()?;
        let inflight = self.inflight(at);
        if inflight >= self.max_inflight as usize || self.queue.len() >= MAX_WAITING {
            return Err(Refusal::new(
                ErrorCode::QueueFull,
                format!(
                    "{inflight} fragments in flight, {} allowed",
                    self.max_inflight
                ),
            ));
        }
        Ok(())
    }

    fn take(&mut self, at: At, data: FragmentData, sim: &mut Simulation, out: &mut Vec<Effect>) {
        self.remember(&data.fragment_id);
        let nth = self.tally.taken(data.audio.duration_ms);
        let mut fragment = Fragment {
            id: data.fragment_id,
            sequence: data.sequence_number,
            nth,
            received: at,
            from_ms: data.metadata.and_then(|m| m.pts_ns).unwrap_or(0) / 1_000_000,
            length_ms: data.audio.duration_ms,
            speaks: false,
            work: Work::Waiting(Box::new(data.audio)),
        };
        let mut ack = StsAck {
            fragment_id: fragment.id.clone(),
            status: StsAckStatus::Queued,
            queue_position: Some(self.queue.len() as u64),
            estimated_completion_ms: None,
        };
        if self.state == State::Paused {
            out.push(Effect::Emit(StsMessage::Ack(ack)));
            self.queue.push_back(fragment);
            return;
        }
        let plan = plan(&fragment, &self.stream_id, sim);
        ack.estimated_completion_ms = Some(plan.delay.as_millis() as u64);
        out.push(Effect::Emit(StsMessage::Ack(ack)));
        if begin(&mut fragment, at, plan, out) {
            self.queue.push_back(fragment);
        } else {
            self.held.push(at);
        }
    }

    /// The answer to fragment `sequence` has been made, or could not be.
    pub fn rendered(
        &mut self,
        at: At,
        sequence: u64,
        result: Result<Audio, String>,
        sim: &mut Simulation,
        out: &mut Vec<Effect>,
    ) {
        let Some(fragment) = self.queue.iter_mut().find(|f| f.sequence == sequence) else {
            return;
        };
        if let Work::Rendering { started, due } = fragment.work {
            let outcome = result.map(Box::new).map_err(|message| FragmentError {
                code: ErrorCode::ModelError,
                message,
                stage: Some("asr".to_owned()),
                retryable: true,
            });
            fragment.work = Work::Done {
                started,
                due: due.max(at),
                outcome,
            };
        }
        self.progress(at, sim, out);
    }

    /// `stream:pause`
    pub fn pause(&mut self, signal: &StreamSignal, out: &mut Vec<Effect>) {
        self.change(
            signal,
            "stream:pause",
            &[State::Active, State::Paused],
            State::Paused,
            out,
        );
    }

    /// `stream:resume`
    pub fn resume(
        &mut self,
        at: At,
        signal: &StreamSignal,
        sim: &mut Simulation,
        out: &mut Vec<Effect>,
    ) {
        let from = [State::Active, State::Paused];
        if self.change(signal, "stream:resume", &from, State::Active, out) {
            self.begin_waiting(at, sim, out);
        }
        self.progress(at, sim, out);
    }

    /// `stream:end`
    pub fn end(
        &mut self,
        at: At,
        signal: &StreamSignal,
        sim: &mut Simulation,
        out: &mut Vec<Effect>,
    ) {
        let from = [State::Active, State::Paused];
        if self.change(signal, "stream:end", &from, State::Ending, out) {
            self.begin_waiting(at, sim, out);
        }
        self.progress(at, sim, out);
    }

    /// Time has passed, or settings have changed: deliver what is due, in order.
    pub fn progress(&mut self, at: At, sim: &mut Simulation, out: &mut Vec<Effect>) {
        while let Some(fragment) = self.queue.front_mut() {
            match &fragment.work {
                Work::Done { due, .. } if *due <= at => {
                    if let Some(fragment) = self.queue.pop_front() {
                        self.answer(fragment, out);
                        // After each: what a worker hears must not depend on how
                        // many answers happen to be due at once.
                        self.report_load(at, sim, out);
                    }
                }
                _ => break,
            }
        }
        let patience = self.patience;
        self.held.retain(|received| at < *received + patience);
        self.report_load(at, sim, out);
        if self.state == State::Ending && self.queue.is_empty() {
            self.state = State::Completed;
            self.close_at = Some(at + self.close_after);
            out.push(Effect::Emit(StsMessage::Complete(
                self.tally.summary(&self.stream_id),
            )));
        }
        if self.close_at.is_some_and(|close_at| close_at <= at) {
            self.close_at = None;
            out.push(Effect::Close);
        }
    }

    /// When [`Session::progress`] is needed next, if nothing else happens.
    pub fn due(&self, at: At) -> Option<At> {
        let answer = self.queue.front().and_then(|fragment| match fragment.work {
            Work::Done { due, .. } => Some(due),
            _ => None,
        });
        // In-flight fragments that get too old to count change the load.
        let received = self
            .queue
            .iter()
            .map(|f| f.received)
            .chain(self.held.iter().copied());
        let aged = received
            .map(|r| r + self.patience)
            .filter(|t| *t > at)
            .min();
        [answer, aged, self.close_at].into_iter().flatten().min()
    }

    /// A load report as a control event asked for it.
    pub fn load_report(
        &self,
        at: At,
        severity: BackpressureSeverity,
        action: BackpressureAction,
        recommended_delay_ms: Option<u64>,
    ) -> StsMessage {
        let inflight = self.inflight(at) as u64;
        StsMessage::Backpressure(Backpressure {
            stream_id: self.stream_id.clone(),
            severity,
            current_inflight: inflight,
            // One is being worked on, the others wait for it.
            queue_depth: inflight.saturating_sub(1),
            action,
            recommended_delay_ms,
        })
    }

    /// Sends an `error` about this session.
    pub fn refuse(&mut self, refusal: Refusal, fragment: Option<String>, out: &mut Vec<Effect>) {
        self.errors += 1;
        let mut error = ErrorEvent::from(refusal);
        error.error_id = Some(format!("session-{}-error-{}", self.number, self.errors));
        error.stream_id = Some(self.stream_id.clone());
        error.fragment_id = fragment;
        out.push(Effect::Emit(StsMessage::Error(error)));
    }

    /// Fragments taken and not answered that the worker still waits for.
    fn inflight(&self, at: At) -> usize {
        let received = self.queue.iter().map(|f| &f.received).chain(&self.held);
        received
            .filter(|received| at < **received + self.patience)
            .count()
    }

    fn expect_stream(&self, stream_id: &str) -> Result<(), Refusal> {
        if stream_id == self.stream_id {
            return Ok(());
        }
        Err(Refusal::new(
            ErrorCode::StreamNotFound,
            format!(
                "no stream {stream_id:?} on this connection, which carries {:?}",
                self.stream_id
            ),
        ))
    }

    fn change(
        &mut self,
        signal: &StreamSignal,
        event: &str,
        from: &[State],
        to: State,
        out: &mut Vec<Effect>,
    ) -> bool {
        let refusal = match self.expect_stream(&signal.stream_id) {
            Ok(()) if from.contains(&self.state) => {
                self.state = to;
                return true;
            }
            Ok(()) => Refusal::new(
                ErrorCode::StreamNotFound,
                format!("{event}: stream {} has ended", self.stream_id),
            ),
            Err(refusal) => refusal,
        };
        self.refuse(refusal, None, out);
        false
    }

    fn remember(&mut self, id: &str) {
        if self.id_order.len() == REMEMBERED_IDS
            && let Some(oldest) = self.id_order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        self.ids.insert(id.to_owned());
        self.id_order.push_back(id.to_owned());
    }

    /// Starts what waited for the end of a pause.
    fn begin_waiting(&mut self, at: At, sim: &mut Simulation, out: &mut Vec<Effect>) {
        let (stream_id, held) = (&self.stream_id, &mut self.held);
        self.queue.retain_mut(|fragment| {
            if !matches!(fragment.work, Work::Waiting(_)) {
                return true;
            }
            let plan = plan(fragment, stream_id, sim);
            let answered = begin(fragment, at, plan, out);
            if !answered {
                held.push(fragment.received);
            }
            answered
        });
    }

    fn answer(&mut self, fragment: Fragment, out: &mut Vec<Effect>) {
        let Work::Done {
            started,
            due,
            outcome,
        } = fragment.work
        else {
            return;
        };
        let processing_time_ms = (due.saturating_sub(started)).as_millis() as u64;
        self.tally.answered(outcome.is_ok(), processing_time_ms);
        let mut message = FragmentProcessed {
            fragment_id: fragment.id,
            stream_id: self.stream_id.clone(),
            sequence_number: fragment.sequence,
            status: ProcessedStatus::Failed,
            processing_time_ms,
            dubbed_audio: None,
            transcript: None,
            translated_text: None,
            stage_timings: None,
            error: None,
            metadata: None,
        };
        match outcome {
            Ok(audio) => {
                let (asr_ms, translation_ms) =
                    (processing_time_ms * 4 / 10, processing_time_ms / 10);
                message.status = ProcessedStatus::Success;
                message.dubbed_audio = Some(*audio);
                let say = |word, plain: &str| {
                    if fragment.speaks {
                        words::seconds(word, fragment.from_ms, fragment.length_ms)
                    } else {
                        plain.to_owned()
                    }
                };
                message.transcript = Some(say("Second", TRANSCRIPT));
                message.translated_text = Some(say("Segundo", TRANSLATED_TEXT));
                message.stage_timings = Some(StageTimings {
                    asr_ms,
                    translation_ms,
                    tts_ms: processing_time_ms - asr_ms - translation_ms,
                });
            }
            Err(error) => message.error = Some(error),
        }
        out.push(Effect::Emit(StsMessage::Processed(Box::new(message))));
    }

    fn report_load(&mut self, at: At, sim: &mut Simulation, out: &mut Vec<Effect>) {
        if self.state == State::Completed {
            return;
        }
        let inflight = self.inflight(at);
        let level = sim
            .backpressure(&self.stream_id)
            .map_or(Level::Calm, |config| {
                Level::of(&config, inflight, self.max_inflight)
            });
        if level != self.level {
            self.level = level;
            let (severity, action, delay) = level.report();
            out.push(Effect::Emit(self.load_report(at, severity, action, delay)));
        }
    }
}

fn plan(fragment: &Fragment, stream_id: &str, sim: &mut Simulation) -> Plan {
    let (sequence, nth) = (fragment.sequence, fragment.nth);
    sim.plan(
        stream_id,
        Subject {
            fragment_id: &fragment.id,
            sequence,
            nth,
        },
    )
}

/// Starts processing; `false` if the fragment will never be answered.
fn begin(fragment: &mut Fragment, at: At, plan: Plan, out: &mut Vec<Effect>) -> bool {
    let started = at;
    let due = at.saturating_add(plan.delay);
    let pending = std::mem::replace(&mut fragment.work, Work::Rendering { started, due });
    let Work::Waiting(audio) = pending else {
        return true;
    };
    let mut note = |event, code| {
        out.push(Effect::Simulated {
            event,
            sequence: fragment.sequence,
            fragment_id: fragment.id.clone(),
            code,
        });
    };
    match plan.fate {
        Fate::Echo => {
            fragment.work = Work::Done {
                started,
                due,
                outcome: Ok(audio),
            }
        }
        Fate::Fail(error) => {
            note("simulated_error", Some(error.code.clone()));
            fragment.work = Work::Done {
                started,
                due,
                outcome: Err(error),
            };
        }
        Fate::Hold => {
            note("simulated_hold", None);
            return false;
        }
        Fate::Render(job) => {
            fragment.speaks = matches!(job.work, audio::Work::Speech { .. });
            out.push(Effect::Render {
                sequence: fragment.sequence,
                audio,
                job,
            });
        }
    }
    true
}

#[cfg(test)]
mod tests;
