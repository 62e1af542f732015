//! What the driver has to tell, as log lines and metrics.

use std::time::Duration;

use metrics::{counter, gauge, histogram};

use super::{Observer, line, ms, round};
use crate::telemetry::names;

/// What the driver itself has to tell, beside the engine's events.
#[expect(missing_docs, reason = "the fields say what they are")]
#[derive(Debug)]
pub enum Fact<'a> {
    /// The RTSP server accepted PLAY.
    InputConnected { connection: u32 },
    /// Both tracks are on one timeline.
    InputAligned {
        by: &'a str,
        rate: u32,
        channels: u32,
    },
    /// The input went away; it may come back.
    InputLost { error: &'a str },
    /// Another attempt is scheduled.
    InputRetry { attempt: u32, delay: Duration },
    /// The input is over.
    InputEnded { reason: &'a str },
    /// GStreamer said something odd.
    MediaWarning { text: &'a str },
    /// A pipeline failed.
    BusError { kind: &'static str, text: &'a str },
    /// A segment was cut.
    SegmentReady {
        batch: u64,
        kind: &'a str,
        duration: Duration,
        video: usize,
        audio: usize,
    },
    /// The first unit of a pair left.
    PairStarted {
        batch: u64,
        delta: i64,
        latency: Duration,
        dubbed: bool,
    },
    /// The segment's own audio is damaged.
    OriginalUndecodable { batch: Option<u64>, reason: &'a str },
    /// The dub could not be fitted after all.
    DubUnusable { batch: Option<u64>, reason: &'a str },
    /// A segment file is missing.
    SegmentFileFailed { batch: u64, reason: &'a str },
    /// A signal asks to stop.
    StopRequested { signal: &'a str },
    /// The driver did something later than it had to, or took long over it.
    Behind {
        count: u32,
        late: Duration,
        turn: Duration,
    },
    /// The output has everything.
    OutputFinished { bytes: u64 },
}

impl Observer {
    /// Logs and counts what the driver tells.
    pub fn fact(&self, fact: &Fact<'_>) {
        match *fact {
            Fact::InputConnected { connection } => line! {
                self, info, "input_connected", "input connected", connection
            },
            Fact::InputAligned { by, rate, channels } => line! {
                self, info, "input_aligned", "both tracks are on one timeline", by, sample_rate = rate,
                channels
            },
            Fact::InputLost { error } => line! { self, info, "input_lost", "input is gone", error },
            Fact::InputRetry { attempt, delay } => line! {
                self, info, "input_retry", "trying the input again", attempt,
                delay_ms = delay.as_millis() as u64
            },
            Fact::InputEnded { reason } => {
                line! { self, info, "input_ended", "input has ended", reason }
            }
            Fact::MediaWarning { text } => {
                line! { self, warn, "media_warning", "GStreamer warns", text }
            }
            Fact::BusError { kind, text } => {
                counter!(names::GST_BUS_ERRORS, "error_type" => kind).increment(1);
                line! { self, warn, "bus_error", "a pipeline failed", error_type = kind, error = text };
            }
            Fact::SegmentReady {
                batch,
                kind,
                duration,
                video,
                audio,
            } => {
                self.heard().segment(batch, duration);
                if video > 0 {
                    counter!(names::SEGMENTS, "kind" => "video").increment(1);
                }
                if audio > 0 {
                    counter!(names::SEGMENTS, "kind" => "audio").increment(1);
                }
                line! {
                self, info, "segment_ready", "segment is complete", batch, kind,
                duration_ms = duration.as_millis() as u64, video_units = video, audio_frames = audio };
            }
            Fact::PairStarted {
                batch,
                delta,
                latency,
                dubbed,
            } => {
                let delta_ms = delta as f64 / 1e6;
                self.heard().on_air(batch, dubbed);
                let audio = if dubbed { "dubbed" } else { "original" };
                counter!(names::ON_AIR, "audio" => audio).increment(1);
                gauge!(names::AV_SYNC_DELTA).set(delta_ms);
                histogram!(names::AV_SYNC_ABS_DELTA).record(delta_ms.abs());
                gauge!(names::OUTPUT_LATENCY).set(latency.as_secs_f64());
                line! {
                self, info, "pair_started", "pair is on air", batch, av_delta_ms = round(delta_ms),
                latency_ms = latency.as_millis() as u64, dubbed = dubbed };
            }
            Fact::OriginalUndecodable { batch, reason } => line! {
                self, warn, "original_undecodable",
                "the input's own audio is damaged, the segment is silent", batch, error = reason
            },
            Fact::DubUnusable { batch, reason } => line! {
                self, warn, "dub_unusable", "the dub cannot be fitted, the original is heard", batch, error = reason
            },
            Fact::SegmentFileFailed { batch, reason } => {
                counter!(names::SEGMENT_FILE_ERRORS).increment(1);
                line! {
                self, warn, "segment_file_failed", "segment file is missing", batch, error = reason };
            }
            Fact::StopRequested { signal } => line! {
                self, info, "stop_requested", "finishing, a second signal stops at once", signal
            },
            Fact::Behind { count, late, turn } => line! {
                self, info, "behind", "this machine is too busy, or something blocks", count,
                late_ms = ms(late), turn_ms = ms(turn)
            },
            Fact::OutputFinished { bytes } => line! {
                self, info, "output_finished", "everything is published", bytes
            },
        }
    }
}
