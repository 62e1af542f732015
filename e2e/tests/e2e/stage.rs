//! What scenarios share: how a run is made from the suite's settings, and what its snapshots hold.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use e2e::probe::metrics::Kind;
use e2e::report;
use e2e::runner::Context;
use e2e::story::{Evidence, Story};
use serde::Serialize;

/// Length of the committed fixture.
pub(crate) const MINUTE: Duration = Duration::from_mins(1);

/// What a scenario does with its context.
pub(crate) trait Stage {
    /// A run of this scenario.
    fn story(&self, clip: impl Into<PathBuf>, length: Duration) -> Story {
        self.part("", clip, length)
    }

    /// One of several runs of this scenario; `part` names its artifacts.
    fn part(&self, part: &str, clip: impl Into<PathBuf>, length: Duration) -> Story;

    /// Writes the HTML report of a run.
    fn report(&self, evidence: &Evidence) -> Result<PathBuf>;

    /// Compares with the snapshot of this name.
    fn snapshot<T: Serialize>(&self, name: &str, value: &T);
}

impl Stage for Context {
    fn part(&self, part: &str, clip: impl Into<PathBuf>, length: Duration) -> Story {
        let name = if part.is_empty() {
            self.name().to_owned()
        } else {
            format!("{}-{part}", self.name())
        };
        Story::new(name, clip, length)
            .media_server(Some(self.media_server()))
            .trace(self.trace())
            .tell(self.teller())
    }

    fn report(&self, evidence: &Evidence) -> Result<PathBuf> {
        report::write(evidence, self.name())
    }

    fn snapshot<T: Serialize>(&self, name: &str, value: &T) {
        self.snapshots()
            .bind(|| insta::assert_json_snapshot!(name, value));
    }
}

/// Every series with its value, where the value is the same on every run.
///
/// Times are not: gauges of latency and delta, sums and buckets of histograms. Nor are bytes and
/// frames of a whole run, what the process uses, and what it was built from.
pub(crate) fn metric_set(evidence: &Evidence) -> Vec<String> {
    let timed = ["worker_output_latency_seconds", "worker_av_sync_delta_ms"];
    let families = evidence.metrics.families();
    let mut lines = Vec::new();
    for (series, value) in evidence.metrics.series() {
        let name = series.split('{').next().unwrap_or_default();
        if name.starts_with("process_") || name == "worker_build_info" {
            continue;
        }
        let of_histogram = |suffix| {
            let family = name
                .strip_suffix(suffix)
                .and_then(|family| families.get(family));
            family.is_some_and(|family| family.kind == Kind::Histogram)
        };
        if timed.contains(&name) || of_histogram("_sum") {
            lines.push(format!("{series} [TIME]"));
        } else if name.ends_with("_bytes_total") || name.ends_with("_frames_total") {
            lines.push(format!("{series} [SIZE]"));
        } else if !of_histogram("_bucket") {
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
