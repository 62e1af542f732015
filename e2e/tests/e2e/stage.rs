//! What scenarios share: how a run is made from the suite's settings, and what its snapshots hold.

use std::path::PathBuf;
use std::time::Duration;

use e2e::pipeline::{Evidence, Pipeline};
use e2e::runner::{Context, MAIN};

/// Length of the committed fixture.
pub(crate) const MINUTE: Duration = Duration::from_mins(1);

/// What a scenario does with its context.
pub(crate) trait Stage {
    /// A run of this scenario.
    fn pipeline(&self, clip: impl Into<PathBuf>, length: Duration) -> Pipeline {
        self.part(MAIN, clip, length)
    }

    /// One of several runs of this scenario; `part` names its artifacts.
    fn part(&self, part: &str, clip: impl Into<PathBuf>, length: Duration) -> Pipeline;
}

impl Stage for Context {
    fn part(&self, part: &str, clip: impl Into<PathBuf>, length: Duration) -> Pipeline {
        let environment = self.named_environment(&self.artifacts_of(part));
        Pipeline::new(environment, clip, length).tell(self.teller())
    }
}

/// Every series with its value, where the value is the same on every run.
///
/// Times are not: gauges of latency and delta, sums and buckets of histograms. Nor are bytes and
/// frames of a whole run, what the process uses, and what it was built from.
pub(crate) fn metric_set(evidence: &Evidence) -> Vec<String> {
    let timed = ["worker_output_latency_seconds", "worker_av_sync_delta_ms"];
    let mut lines = Vec::new();
    for (series, value) in evidence.metrics.series() {
        let name = series.split('{').next().unwrap_or_default();
        if name.starts_with("process_") || name == "worker_build_info" {
            continue;
        }
        let sum = name.strip_suffix("_sum");
        if timed.contains(&name) || sum.is_some_and(|it| evidence.metrics.is_histogram(it)) {
            lines.push(format!("{series} [TIME]"));
        } else if name.ends_with("_bytes_total") || name.ends_with("_frames_total") {
            lines.push(format!("{series} [SIZE]"));
        } else if name == "worker_video_units_total" || series.contains("before_keyframe") {
            // As long as the run is, and as much sound as precedes its first picture.
            lines.push(format!("{series} [UNITS]"));
        } else if name.ends_with("_connected") {
            // Which of them the last scrape still saw is a matter of moments.
            lines.push(format!("{series} [STATE]"));
        } else {
            lines.push(format!("{series} {value}"));
        }
    }
    lines.sort();
    lines
}

/// What went over the wire to and from `echo-sts`, in order.
pub(crate) fn sts_events(evidence: &Evidence) -> Vec<String> {
    evidence.journal.of_stream("test").transcript()
}
