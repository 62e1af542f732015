//! Events become log lines and metrics here, and nowhere else.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dub_engine::Heard;
use metrics::gauge;

use crate::telemetry::names;

mod events;
mod facts;

pub use self::facts::Fact;

/// Logs and counts with the run's identity.
#[derive(Debug, Clone)]
pub struct Observer {
    stream_id: String,
    run_id: String,
    heard: Arc<Mutex<Heard>>,
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
    /// An observer for one run of one stream.
    pub fn new(stream_id: &str, run_id: &str) -> Self {
        Self {
            stream_id: stream_id.to_owned(),
            run_id: run_id.to_owned(),
            heard: Arc::default(),
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

    /// Sets the gauge that moves between pairs.
    pub fn latency(&self, latency: Duration) {
        gauge!(names::OUTPUT_LATENCY).set(latency.as_secs_f64());
    }

    /// Sets the number of fragments on their way.
    pub fn in_flight(&self, fragments: usize) {
        gauge!(names::INFLIGHT).set(fragments as f64);
    }
}

fn ms(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

/// A thousandth of a millisecond is enough for a log.
fn round(ms: f64) -> f64 {
    (ms * 1e3).round() / 1e3
}
