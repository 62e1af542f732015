//! Every metric of the worker: its name, what it means, and the label values it can have.
//!
//! `docs/ref/metrics.md` lists the same; `cargo xtask tidy` compares the two.

use dub_engine::{BackpressureAction, OriginalReason, ProtocolErrorKind};

use dub_media::bus::ERROR_KINDS;

/// Fragments by what became of them.
pub const AUDIO_FRAGMENTS: &str = "worker_audio_fragments_total";
/// Segments that kept their original audio although dubbing was wanted.
pub const FALLBACK: &str = "worker_fallback_total";
/// Fragments sent and not settled.
pub const INFLIGHT: &str = "worker_inflight_fragments";
/// Audio minus video of the last pair.
pub const AV_SYNC_DELTA: &str = "worker_av_sync_delta_ms";
/// Distribution of the delta's magnitude, one observation per pair.
pub const AV_SYNC_ABS_DELTA: &str = "worker_av_sync_abs_delta_ms";
/// Pairs whose audio was slewed.
pub const AV_SYNC_CORRECTIONS: &str = "worker_av_sync_corrections_total";
/// 0 closed, 1 half-open, 2 open.
pub const BREAKER_STATE: &str = "worker_sts_breaker_state";
/// Backpressure events by what they asked for.
pub const BACKPRESSURE_EVENTS: &str = "worker_backpressure_events_total";
/// Sessions re-established after a loss.
pub const RECONNECTION: &str = "worker_reconnection_total";
/// Scheduled reconnection attempts by outcome.
pub const RECONNECTION_ATTEMPTS: &str = "worker_reconnection_attempts_total";
/// Milliseconds from sending a fragment to its dubbed audio.
pub const STS_RTT: &str = "worker_sts_rtt_ms";
/// Segments cut.
pub const SEGMENTS: &str = "worker_segments_total";
/// Pairs that were late, so that output waited.
pub const OUTPUT_STALLS: &str = "worker_output_stalls_total";
/// Age of what is being published.
pub const OUTPUT_LATENCY: &str = "worker_output_latency_seconds";
/// Errors on a pipeline's bus.
pub const GST_BUS_ERRORS: &str = "worker_gst_bus_errors_total";
/// Things the STS service said that the protocol does not allow.
pub const PROTOCOL_ERRORS: &str = "worker_protocol_errors_total";
/// Segment files that could not be written.
pub const SEGMENT_FILE_ERRORS: &str = "worker_segment_file_errors_total";

/// Buckets of [`STS_RTT`]: up to the default fragment timeout.
pub const STS_RTT_BUCKETS: [f64; 8] = [50.0, 100.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0];
/// Buckets of [`AV_SYNC_ABS_DELTA`]: 40 ms is what a viewer begins to notice, 120 the
/// default threshold.
pub const AV_SYNC_BUCKETS: [f64; 9] = [1.0, 5.0, 10.0, 20.0, 40.0, 80.0, 120.0, 250.0, 500.0];

/// What kind of series a metric has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets.
    Histogram,
}

/// A metric with everything needed to describe and pre-create it.
#[derive(Debug, Clone)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What kind of series it has.
    pub kind: Kind,
    /// One sentence for `# HELP`.
    pub help: &'static str,
    /// Its label beside `stream_id`, with all the values it can have.
    pub label: Option<(&'static str, Vec<&'static str>)>,
}

/// All metrics.
pub fn all() -> Vec<Metric> {
    use Kind::{Counter, Gauge, Histogram};
    let plain = |name, kind, help| Metric {
        name,
        kind,
        help,
        label: None,
    };
    let labelled = |name, help, label, values| Metric {
        name,
        kind: Counter,
        help,
        label: Some((label, values)),
    };
    let reasons = OriginalReason::FALLBACKS
        .iter()
        .map(|reason| reason.label())
        .collect();
    let actions = [
        BackpressureAction::Pause,
        BackpressureAction::SlowDown,
        BackpressureAction::None,
    ];
    let actions = actions.iter().map(|action| action.label()).collect();
    let kinds = ProtocolErrorKind::ALL
        .iter()
        .map(|kind| kind.label())
        .collect();
    vec![
        labelled(
            AUDIO_FRAGMENTS,
            "Audio fragments by what became of them",
            "status",
            vec!["sent", "processed", "failed", "fallback"],
        ),
        labelled(
            FALLBACK,
            "Segments published with original audio instead of a dub",
            "reason",
            reasons,
        ),
        plain(
            INFLIGHT,
            Gauge,
            "Fragments sent to the STS service and not settled",
        ),
        plain(
            AV_SYNC_DELTA,
            Gauge,
            "Audio minus video of the last pair published, in milliseconds",
        ),
        plain(
            AV_SYNC_ABS_DELTA,
            Histogram,
            "Magnitude of the A/V delta per pair, in milliseconds",
        ),
        plain(
            AV_SYNC_CORRECTIONS,
            Counter,
            "Pairs whose audio was slewed to meet the video",
        ),
        plain(
            BREAKER_STATE,
            Gauge,
            "Circuit breaker: 0 closed (calls flow), 1 half-open, 2 open",
        ),
        labelled(
            BACKPRESSURE_EVENTS,
            "Backpressure events by action",
            "action",
            actions,
        ),
        plain(
            RECONNECTION,
            Counter,
            "STS sessions re-established after a loss",
        ),
        labelled(
            RECONNECTION_ATTEMPTS,
            "Scheduled STS reconnection attempts by outcome",
            "outcome",
            vec!["success", "failure"],
        ),
        plain(
            STS_RTT,
            Histogram,
            "From sending a fragment to its dubbed audio, in milliseconds",
        ),
        labelled(
            SEGMENTS,
            "Segments cut from the input",
            "kind",
            vec!["video", "audio"],
        ),
        plain(
            OUTPUT_STALLS,
            Counter,
            "Times output waited for a late pair",
        ),
        plain(
            OUTPUT_LATENCY,
            Gauge,
            "Age of the media being published, in seconds",
        ),
        labelled(
            GST_BUS_ERRORS,
            "Errors on a GStreamer bus",
            "error_type",
            ERROR_KINDS.to_vec(),
        ),
        labelled(
            PROTOCOL_ERRORS,
            "STS messages that broke the protocol",
            "kind",
            kinds,
        ),
        plain(
            SEGMENT_FILE_ERRORS,
            Counter,
            "Segment files that could not be written",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        for metric in all() {
            assert!(metric.name.starts_with("worker_"), "{}", metric.name);
            assert_eq!(
                metric.kind == Kind::Counter,
                metric.name.ends_with("_total"),
                "{}",
                metric.name
            );
            assert!(!metric.help.ends_with('.'), "{}", metric.name);
        }
    }

    #[test]
    fn no_name_twice() {
        let mut names: Vec<_> = all().iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().len());
    }
}
