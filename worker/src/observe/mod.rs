//! Events become log lines, metrics and the status page here, and nowhere else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use dub_engine::timeline::DropReason;
use dub_engine::{Heard, Track};
use metrics::{Counter, counter, gauge};

use crate::telemetry::log_writer::LogWriter;
use crate::telemetry::names;

mod board;
#[cfg(test)]
mod counts;
mod events;
mod facts;
mod foreign;
mod input;
#[cfg(test)]
mod samples;

pub use self::board::{Board, Status};
pub use self::facts::Fact;
pub use self::foreign::{debug_output, hide, library_message, panicked, raw_output};

/// Logs and counts with the run's identity.
#[derive(Debug, Clone)]
pub struct Observer {
    stream_id: String,
    run_id: String,
    heard: Arc<Mutex<Heard>>,
    board: Arc<Board>,
    log: Option<LogWriter>,
    /// Dropped log lines that have been told.
    dropped: Arc<AtomicU64>,
    /// Of video and audio; looked up once, with the first unit, because every unit counts.
    flows: Arc<OnceLock<[Flow; 2]>>,
    /// Warnings of pipelines.
    warned: Arc<Mutex<foreign::Warned>>,
}

/// What comes and goes of a track.
#[derive(Debug)]
struct Flow {
    bytes: Counter,
    received: Counter,
    sent: Counter,
}

impl Flow {
    fn of(track: Track) -> Self {
        Self {
            bytes: counter!(names::INPUT_BYTES, "track" => track.label()),
            received: counter!(names::INPUT_FRAMES, "track" => track.label()),
            sent: counter!(names::OUTPUT_FRAMES, "track" => track.label()),
        }
    }
}

/// One log line with the fields every line has.
macro_rules! line {
    ($self:ident, $level:ident, $name:expr, $message:literal $(, $field:ident $(= $value:expr)?)* $(,)?) => {
        tracing::$level!(
            event = $name, stream_id = $self.stream_id, run_id = $self.run_id $(, $field $(= $value)?)*, $message
        )
    };
}

use line;

impl Observer {
    /// An observer for one run of one stream, whose log goes through `log`.
    pub fn new(status: Status, log: Option<LogWriter>) -> Self {
        Self {
            stream_id: status.stream_id.clone(),
            run_id: status.run_id.clone(),
            heard: Arc::default(),
            board: Arc::new(Board::new(status)),
            log,
            dropped: Arc::default(),
            flows: Arc::default(),
            warned: Arc::default(),
        }
    }

    /// Says what viewers have heard of the run.
    pub fn summary(&self) {
        let heard = self.heard();
        let switches = heard.switches_per_minute();
        let text = heard.to_string();
        line! {
            self, info, "summary", "what was heard", dubbed = heard.dubbed(), original = heard.original(),
            switches_per_minute = round(switches), summary = text
        }
    }

    /// Held for a few instructions at a time; a panic elsewhere leaves it whole.
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known right now.
    pub fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    /// The worker has understood its options and has metrics.
    pub fn started(&self) {
        let (version, commit, options) = self
            .board
            .status(|status| (status.version, status.commit, status.options.clone()));
        self.fact(&Fact::Started {
            version,
            commit,
            options: &options,
        });
    }

    /// The driver's loop turned over.
    pub fn turned(&self) {
        self.board.health(dub_engine::health::Health::turned);
    }

    /// Counts a picture that came so far.
    pub fn video_unit(&self, stage: &'static str) {
        counter!(names::VIDEO_UNITS, "stage" => stage).increment(1);
    }

    /// Counts what does not go out; it is logged once in a while, not one by one.
    pub fn dropped(&self, reason: DropReason, units: u64) {
        counter!(names::MEDIA_DROPPED, "reason" => reason.label()).increment(units);
    }

    /// Sets the gauge that moves between pairs.
    pub fn latency(&self, latency: Duration) {
        gauge!(names::OUTPUT_LATENCY).set(latency.as_secs_f64());
        self.board
            .status(|status| status.output.latency_seconds = board::seconds(latency));
    }

    /// Tells whether the output's server has accepted the stream and is there.
    pub fn output_connected(&self, connected: bool) {
        gauge!(names::OUTPUT_CONNECTED).set(f64::from(u8::from(connected)));
        self.board
            .status(|status| status.output.connected = connected);
    }

    /// Sets the number of fragments on their way.
    pub fn in_flight(&self, fragments: usize) {
        gauge!(names::INFLIGHT).set(fragments as f64);
        self.board.status(|status| status.sts.in_flight = fragments);
    }

    /// Counts a frame or access unit that came in.
    pub fn received(&self, track: Track, bytes: usize) {
        let flow = self.flow(track);
        flow.bytes.increment(bytes as u64);
        flow.received.increment(1);
        self.board.health(dub_engine::health::Health::media_came);
        self.board
            .status(|status| status.input.bytes += bytes as u64);
    }

    /// Counts a frame or access unit that was handed to the output.
    pub fn sent(&self, track: Track) {
        self.flow(track).sent.increment(1);
        if track == Track::Video {
            self.video_unit("published");
        }
    }

    fn flow(&self, track: Track) -> &Flow {
        let flows = || [Track::Video, Track::Audio].map(Flow::of);
        let [video, audio] = self.flows.get_or_init(flows);
        match track {
            Track::Video => video,
            Track::Audio => audio,
        }
    }

    /// The output has been sent `bytes` over its present connection.
    pub fn output_bytes(&self, bytes: u64) {
        self.board
            .health(|health, at| health.output_sent(at, bytes));
        let more = self.board.status(|status| {
            let before = std::mem::replace(&mut status.output.bytes, bytes);
            bytes.checked_sub(before).unwrap_or(bytes)
        });
        counter!(names::OUTPUT_BYTES).increment(more);
    }

    /// Counts what the log has lost and tells it once there is room again; to be called about once
    /// a second.
    pub fn check_log(&self) {
        let Some(log) = &self.log else { return };
        let dropped = log.dropped();
        counter!(names::LOG_LINES_DROPPED).absolute(dropped);
        let told = self.dropped.load(Ordering::Relaxed);
        if dropped > told && log.flows() {
            self.dropped.store(dropped, Ordering::Relaxed);
            self.fact(&Fact::LogLinesDropped {
                lines: dropped - told,
            });
        }
    }
}

fn ms(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

/// A thousandth of a millisecond is enough for a log.
fn round(ms: f64) -> f64 {
    (ms * 1e3).round() / 1e3
}
