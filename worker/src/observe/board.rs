//! What the worker knows of itself right now, for the HTTP server: written by the observer,
//! read by whoever asks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dub_engine::health::{Health, Unwell};
use dub_engine::{At, BreakerState};
use serde::Serialize;

/// Segments that `/status` remembers.
const SEGMENTS: usize = 10;

/// The state behind `/livez`, `/readyz` and `/status`. Nobody holds its lock for longer than it
/// takes to change or copy a few numbers.
#[derive(Debug)]
pub struct Board {
    started: Instant,
    state: Mutex<BoardState>,
}

#[derive(Debug, Default)]
struct BoardState {
    health: Health,
    status: Status,
}

/// What `/status` says. Times are in seconds, sizes in bytes.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// Version of the program.
    pub version: &'static str,
    /// Commit it was built from.
    pub commit: &'static str,
    /// Name of the stream.
    pub stream_id: String,
    /// Id of this run, as in the log.
    pub run_id: String,
    /// Since the start.
    pub uptime_seconds: f64,
    /// As `/livez` says it.
    pub live: bool,
    /// As `/readyz` says it.
    pub ready: bool,
    /// Why it is not ready.
    pub reasons: Vec<String>,
    /// Effective options by the name of their flag; secrets are hidden.
    pub options: BTreeMap<String, String>,
    pub input: InputStatus,
    /// The STS service.
    pub sts: StsStatus,
    pub output: OutputStatus,
    /// The last segments, newest first.
    pub segments: VecDeque<SegmentStatus>,
    /// Why segments that are not on air yet have fallen back.
    #[serde(skip)]
    pub fallbacks: BTreeMap<u64, &'static str>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct InputStatus {
    /// Whether there is a connection that was accepted.
    pub connected: bool,
    /// Connections so far.
    pub connections: u32,
    /// Bytes of media so far.
    pub bytes: u64,
    /// Why the last connection ended or failed.
    pub last_error: Option<String>,
}

/// The STS side of the status.
#[derive(Debug, Clone, Serialize)]
pub struct StsStatus {
    /// Whether there is a connection.
    pub connected: bool,
    /// Whether there is a session that takes fragments.
    pub ready: bool,
    /// `closed` (calls flow), `half_open` or `open`.
    pub breaker: &'static str,
    /// Fragments sent and not settled.
    pub in_flight: usize,
    /// Why the last connection ended or failed.
    pub last_error: Option<String>,
}

impl Default for StsStatus {
    fn default() -> Self {
        Self {
            connected: false,
            ready: false,
            breaker: BreakerState::Closed.label(),
            in_flight: 0,
            last_error: None,
        }
    }
}

/// The output's side of the status.
#[derive(Debug, Clone, Default, Serialize)]
pub struct OutputStatus {
    /// Whether the server takes the stream.
    pub connected: bool,
    /// Bytes sent so far.
    pub bytes: u64,
    /// Age of what is on air.
    pub latency_seconds: f64,
    /// What the output last failed with.
    pub last_error: Option<String>,
}

/// A segment that is or was on air.
#[derive(Debug, Clone, Serialize)]
pub struct SegmentStatus {
    /// Its number since the start.
    pub batch: u64,
    /// `dubbed` or `original`.
    pub audio: &'static str,
    /// Why it fell back to its original audio.
    pub fallback: Option<&'static str>,
    /// Audio minus video, in seconds.
    pub av_delta_seconds: f64,
    /// From coming in to going out.
    pub latency_seconds: f64,
}

impl Board {
    /// A board for one run.
    pub fn new(status: Status) -> Self {
        Self {
            started: Instant::now(),
            state: Mutex::new(BoardState {
                health: Health::default(),
                status,
            }),
        }
    }

    fn lock(&self) -> (At, MutexGuard<'_, BoardState>) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (At::new(self.started.elapsed()), state)
    }

    /// Changes what is known of health.
    pub(super) fn health(&self, change: impl FnOnce(&mut Health, At)) {
        let (at, mut state) = self.lock();
        change(&mut state.health, at);
    }

    /// Changes what is told.
    pub(super) fn status<T>(&self, change: impl FnOnce(&mut Status) -> T) -> T {
        change(&mut self.lock().1.status)
    }

    pub(super) fn on_air(&self, segment: SegmentStatus) {
        self.status(|status| {
            let later = status.fallbacks.split_off(&(segment.batch + 1));
            let fallback = std::mem::replace(&mut status.fallbacks, later).remove(&segment.batch);
            let segment = SegmentStatus {
                fallback,
                ..segment
            };
            status.segments.push_front(segment);
            status.segments.truncate(SEGMENTS);
        });
    }

    /// Why the process is not alive, if so.
    pub fn stuck(&self) -> Option<Unwell> {
        let (at, state) = self.lock();
        state.health.stuck(at)
    }

    /// Why the stream does not flow, if so.
    pub fn unready(&self) -> Vec<Unwell> {
        let (at, state) = self.lock();
        state.health.unready(at)
    }

    /// Everything, as it is now.
    pub fn snapshot(&self) -> Status {
        let (at, state) = self.lock();
        let unready = state.health.unready(at);
        Status {
            uptime_seconds: seconds(at.as_duration()),
            live: state.health.stuck(at).is_none(),
            ready: unready.is_empty(),
            reasons: unready.iter().map(ToString::to_string).collect(),
            ..state.status.clone()
        }
    }
}

/// Seconds with milliseconds, which is all a reader wants.
pub(super) fn seconds(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dub_engine::Track;

    use super::*;
    use crate::observe::Observer;

    /// A worker that started a while ago and has told nothing since.
    fn started(ago: Duration) -> Observer {
        let mut observer = Observer::new(Status::default(), None);
        let started = Instant::now().checked_sub(ago).unwrap();
        let state = Mutex::default();
        observer.board = Arc::new(Board { started, state });
        observer
    }

    #[test]
    fn a_turn_of_the_loop_is_life() {
        let observer = started(Duration::from_secs(20));
        assert!(observer.board().stuck().is_some());
        observer.turned();
        assert!(observer.board().stuck().is_none());
    }

    #[test]
    fn media_that_comes_is_no_silence() {
        let observer = started(Duration::from_secs(20));
        let silent = |observer: &Observer| {
            let reasons = observer.board().snapshot().reasons;
            reasons.iter().any(|reason| reason.contains("no media"))
        };
        observer
            .board()
            .health(|health, _| health.input_connected(At::ZERO, true));
        assert!(
            silent(&observer),
            "{:?}",
            observer.board().snapshot().reasons
        );
        observer.received(Track::Video, 1);
        assert!(!silent(&observer));
    }
}
