//! Every metric of the worker: its name, what it means, and the label values it can have.
//!
//! `docs/ref/metrics.md` lists the same; `cargo xtask tidy` compares the two.

use dub_engine::timeline::{DropReason, Note};
use dub_engine::{
    BackpressureAction, DubFitHow, LoudnessChange, OriginalReason, ProtocolErrorKind, Track,
};

use dub_media::bus::ERROR_KINDS;

/// Buckets of [`STS_RTT`]: up to the longest fragment timeout.
pub const STS_RTT_BUCKETS: [f64; 12] = [
    50.0, 100.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0, 15_000.0, 30_000.0, 60_000.0,
    120_000.0,
];
/// Buckets of [`AV_SYNC_ABS_DELTA`]: 40 ms is what a viewer begins to notice, 120 the
/// default threshold.
pub const AV_SYNC_BUCKETS: [f64; 9] = [1.0, 5.0, 10.0, 20.0, 40.0, 80.0, 120.0, 250.0, 500.0];

/// Buckets of [`DUB_SPEED`]: slower, as it is, and up to the highest allowed.
pub const DUB_SPEED_BUCKETS: [f64; 9] = [0.85, 0.95, 1.0, 1.05, 1.1, 1.2, 1.3, 1.4, 2.0];

/// What kind of series a metric has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
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
    pub kind: MetricKind,
    /// One sentence for `# HELP`.
    pub help: &'static str,
    /// Its label beside `stream_id`, with all the values it can have.
    pub label: Option<(&'static str, Vec<&'static str>)>,
}

/// `/// help` `NAME: Kind "name" { "label": values };` makes a constant and a line of [`all`].
macro_rules! metrics {
    ($(#[doc = $help:literal] $id:ident: $kind:ident $name:literal $({ $label:literal: $values:expr })?;)*) => {
        $(#[doc = $help] pub const $id: &str = $name;)*

        pub fn all() -> Vec<Metric> {
            vec![$(Metric {
                name: $id,
                kind: MetricKind::$kind,
                help: $help.trim_ascii(),
                label: None$(.or(Some(($label, $values))))?,
            }),*]
        }
    };
}

metrics! {
    /// Audio fragments by what became of them
    AUDIO_FRAGMENTS: Counter "worker_audio_fragments_total" { "status": vec!["sent", "processed", "failed", "fallback"] };
    /// Segments published with original audio instead of a dub
    FALLBACK: Counter "worker_fallback_total" { "reason": OriginalReason::FALLBACKS.map(OriginalReason::label).to_vec() };
    /// Fragments sent to the STS service and not settled
    INFLIGHT: Gauge "worker_inflight_fragments";
    /// Audio minus video of the last pair published, in milliseconds
    AV_SYNC_DELTA: Gauge "worker_av_sync_delta_ms";
    /// Magnitude of the A/V delta per pair, in milliseconds
    AV_SYNC_ABS_DELTA: Histogram "worker_av_sync_abs_delta_ms";
    /// Pairs whose audio was slewed to meet the video
    AV_SYNC_CORRECTIONS: Counter "worker_av_sync_corrections_total";
    /// Circuit breaker: 0 closed (calls flow), 1 half-open, 2 open
    BREAKER_STATE: Gauge "worker_sts_breaker_state";
    /// Backpressure events by action
    BACKPRESSURE_EVENTS: Counter "worker_backpressure_events_total" { "action": ACTIONS.map(BackpressureAction::label).to_vec() };
    /// STS sessions re-established after a loss
    RECONNECTION: Counter "worker_reconnection_total";
    /// Scheduled STS reconnection attempts by outcome
    RECONNECTION_ATTEMPTS: Counter "worker_reconnection_attempts_total" { "outcome": vec!["success", "failure"] };
    /// From sending a fragment to its dubbed audio, in milliseconds
    STS_RTT: Histogram "worker_sts_rtt_ms";
    /// Segments cut from the input
    SEGMENTS: Counter "worker_segments_total" { "kind": vec!["video", "audio"] };
    /// Times output waited for a late pair
    OUTPUT_STALLS: Counter "worker_output_stalls_total";
    /// Age of the media being published, in seconds
    OUTPUT_LATENCY: Gauge "worker_output_latency_seconds";
    /// Errors on a GStreamer bus
    GST_BUS_ERRORS: Counter "worker_gst_bus_errors_total" { "error_type": ERROR_KINDS.to_vec() };
    /// STS messages that broke the protocol
    PROTOCOL_ERRORS: Counter "worker_protocol_errors_total" { "kind": ProtocolErrorKind::ALL.map(ProtocolErrorKind::label).to_vec() };
    /// Segments by what was heard in them
    ON_AIR: Counter "worker_segments_on_air_total" { "audio": vec!["dubbed", "original"] };
    /// Dubs by how they were fitted to their segment's length
    DUB_FIT: Counter "worker_dub_fit_total" { "how": DubFitHow::ALL.map(DubFitHow::label).to_vec() };
    /// Speed of the dubs that were heard, against their own
    DUB_SPEED: Histogram "worker_dub_speed_ratio";
    /// Dubs that were far louder or quieter than the original, or over full scale, by what was done
    DUB_LOUDNESS: Counter "worker_dub_loudness_total" { "change": LoudnessChange::ALL.map(LoudnessChange::label).to_vec() };
    /// Pictures of the input by how far they came
    VIDEO_UNITS: Counter "worker_video_units_total" { "stage": vec!["received", "placed", "published"] };
    /// Access units and audio frames that came in and did not go out
    MEDIA_DROPPED: Counter "worker_media_dropped_total" { "reason": DropReason::ALL.map(DropReason::label).to_vec() };
    /// What was wrong with the input's clocks, tracks and packets
    INPUT_ANOMALIES: Counter "worker_input_anomalies_total" { "kind": Note::ANOMALIES.to_vec() };
    /// Segment files that could not be written
    SEGMENT_FILE_ERRORS: Counter "worker_segment_file_errors_total";
    /// Bytes of media that came in
    INPUT_BYTES: Counter "worker_input_bytes_total" { "track": TRACKS.map(Track::label).to_vec() };
    /// Access units and audio frames that came in
    INPUT_FRAMES: Counter "worker_input_frames_total" { "track": TRACKS.map(Track::label).to_vec() };
    /// Access units and audio frames that were handed to the output
    OUTPUT_FRAMES: Counter "worker_output_frames_total" { "track": TRACKS.map(Track::label).to_vec() };
    /// Bytes that were sent to the output
    OUTPUT_BYTES: Counter "worker_output_bytes_total";
    /// Whether the input is connected
    INPUT_CONNECTED: Gauge "worker_input_connected";
    /// Whether there is a connection to the STS service
    STS_CONNECTED: Gauge "worker_sts_connected";
    /// Whether the output takes the stream
    OUTPUT_CONNECTED: Gauge "worker_output_connected";
    /// Log lines that were lost because nobody read them
    LOG_LINES_DROPPED: Counter "worker_log_lines_dropped_total";
    /// Always 1; its labels say what runs
    BUILD_INFO: Gauge "worker_build_info" { "version": Vec::new() };
}

const TRACKS: [Track; 2] = [Track::Video, Track::Audio];
const ACTIONS: [BackpressureAction; 3] = [
    BackpressureAction::Pause,
    BackpressureAction::SlowDown,
    BackpressureAction::None,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        for metric in all() {
            assert!(metric.name.starts_with("worker_"), "{}", metric.name);
            assert_eq!(
                metric.kind == MetricKind::Counter,
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
