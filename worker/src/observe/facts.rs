//! What the driver has to tell, as log lines and metrics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use dub_engine::input::InputNews;
use dub_engine::timeline::{DropReason, Note};
use dub_engine::{Event, OriginalReason, Track};
use dub_media::segment_files::FileFact;
use metrics::{counter, gauge, histogram};

use super::board::{SegmentStatus, seconds};
use super::{Observer, line, ms, round};
use crate::telemetry::{names, systemd};

/// What the driver itself has to tell, beside the engine's events.
#[derive(Debug)]
pub enum Fact<'a> {
    /// The options are understood.
    Started {
        version: &'a str,
        commit: &'a str,
        options: &'a BTreeMap<String, String>,
    },
    /// The HTTP server has its port.
    MetricsListening { addr: SocketAddr },
    /// The HTTP server does not get its port; it goes on trying.
    MetricsUnavailable { addr: SocketAddr, error: &'a str },
    /// The log was not read for a while.
    LogLinesDropped { lines: u64 },
    /// The input's life goes on.
    Input { news: &'a InputNews },
    /// Both tracks are on one timeline.
    InputAligned {
        by: &'a str,
        rate: u32,
        channels: u32,
    },
    /// The input's clocks or tracks are not what they should be.
    Anomaly { note: Note },
    /// RTP packets are missing.
    PacketsLost { track: Track, packets: u16 },
    /// Units that came in and do not go out, since the last such line.
    MediaDropped {
        track: Track,
        reason: DropReason,
        units: u64,
    },
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
        cut: &'a str,
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
    /// The file of captions cannot be written; told once until it can.
    CaptionsFailed { path: &'a Path, error: &'a str },
    /// The dub could not be fitted after all.
    DubUnusable { batch: Option<u64>, reason: &'a str },
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
    /// The worker ends before its stream did.
    Failed { error: &'a str },
    /// The last word.
    Exiting { code: u8 },
}

impl Observer {
    /// Nothing more is read; what is buffered goes out.
    pub fn draining(&self) {
        self.input(false, None);
        self.board.health(|health, _| health.draining());
    }

    /// Logs and counts what the driver tells.
    pub fn fact(&self, fact: &Fact<'_>) {
        match *fact {
            Fact::Started {
                version,
                commit,
                options,
            } => {
                gauge!(names::BUILD_INFO, "version" => version.to_owned(), "commit" => commit.to_owned())
                    .set(1.0);
                let options: Vec<_> = options.iter().map(|(k, v)| format!("{k}={v}")).collect();
                line! {
                    self, info, "started", "the worker starts", version, commit,
                    options = options.join(" ")
                }
            }
            Fact::MetricsListening { addr } => line! {
                self, info, "metrics_listening", "metrics are served", addr = addr.to_string()
            },
            Fact::MetricsUnavailable { addr, error } => line! {
                self, warn, "metrics_unavailable", "metrics cannot be served, trying again every second",
                addr = addr.to_string(), error
            },
            Fact::LogLinesDropped { lines } => line! {
                self, warn, "log_lines_dropped", "log lines were lost because nobody read them", lines
            },
            Fact::Input { news } => self.input_news(news),
            Fact::InputAligned { by, rate, channels } => line! {
                self, info, "input_aligned", "both tracks are on one timeline", by, sample_rate = rate,
                channels
            },
            Fact::Anomaly { note } => self.anomaly(note),
            Fact::PacketsLost { track, packets } => {
                counter!(names::INPUT_ANOMALIES, "kind" => "packets_lost")
                    .increment(packets.into());
                let track = track.label();
                line! { self, warn, "packets_lost", "RTP packets are missing", track, packets }
            }
            Fact::MediaDropped {
                track,
                reason,
                units,
            } => {
                let track = track.label();
                let expected = reason == DropReason::BeforeKeyframe;
                let reason = reason.label();
                if expected {
                    line! { self, info, "media_dropped", "media units dropped", track, reason, units }
                } else {
                    line! { self, warn, "media_dropped", "media units dropped", track, reason, units }
                }
            }
            Fact::InputEnded { reason } => {
                self.draining();
                line! { self, info, "input_ended", "input has ended", reason }
            }
            Fact::MediaWarning { text } => {
                let told = self.warned.lock().ok();
                if let Some(more) = told.and_then(|mut it| it.told(text, Instant::now())) {
                    line! { self, warn, "media_warning", "GStreamer warning", text, more }
                } else {
                    line! { self, debug, "media_warning", "GStreamer warning", text }
                }
            }
            Fact::BusError { kind, text } => {
                counter!(names::GST_BUS_ERRORS, "error_type" => kind).increment(1);
                gauge!(names::OUTPUT_CONNECTED).set(0.0);
                self.board.status(|status| {
                    status.output.connected = false;
                    status.output.last_error = Some(text.to_owned());
                });
                line! { self, warn, "bus_error", "a pipeline failed", error_type = kind, error = text }
            }
            Fact::SegmentReady {
                batch,
                kind,
                cut,
                duration,
                video,
                audio,
            } => {
                self.heard().segment(batch, duration);
                for (kind, units) in [("video", video), ("audio", audio)] {
                    counter!(names::SEGMENTS, "kind" => kind).increment(u64::from(units > 0));
                }
                line! {
                    self, info, "segment_ready", "segment is complete", batch, kind, cut,
                    duration_ms = ms(duration), video_units = video, audio_frames = audio
                }
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
                self.latency(latency);
                self.board.on_air(SegmentStatus {
                    batch,
                    audio,
                    fallback: None,
                    av_delta_seconds: round(delta_ms) / 1e3,
                    latency_seconds: seconds(latency),
                });
                line! {
                    self, info, "pair_started", "pair is on air", batch, av_delta_ms = round(delta_ms),
                    latency_ms = ms(latency), dubbed
                }
            }
            Fact::OriginalUndecodable { batch, reason } => line! {
                self, warn, "original_undecodable",
                "the input's own audio is damaged, the segment is silent", batch, error = reason
            },
            Fact::CaptionsFailed { path, error } => {
                let path = path.display().to_string();
                line! {
                    self, warn, "captions_failed",
                    "captions are not written, GET /captions still has them", path, error
                }
            }
            Fact::DubUnusable { batch, reason } => {
                if let Some(batch) = batch {
                    let reason = OriginalReason::BadAudio;
                    self.event(&Event::Fallback { batch, reason });
                }
                line! {
                    self, warn, "dub_unusable", "the dub cannot be fitted, the original is heard", batch, error = reason
                }
            }
            Fact::StopRequested { signal } => {
                self.draining();
                systemd::notify("STOPPING=1");
                line! {
                    self, info, "stop_requested", "finishing, a second signal stops at once", signal
                }
            }
            Fact::Behind { count, late, turn } => line! {
                self, info, "behind", "this machine is too busy, or something blocks", count,
                late_ms = ms(late), turn_ms = ms(turn)
            },
            Fact::OutputFinished { bytes } => {
                gauge!(names::OUTPUT_CONNECTED).set(0.0);
                self.board.status(|status| status.output.connected = false);
                line! { self, info, "output_finished", "everything is published", bytes }
            }
            Fact::Failed { error } => {
                line! { self, error, "failed", "the worker stops", error }
            }
            Fact::Exiting { code } => line! { self, info, "exiting", "the worker exits", code },
        }
    }

    /// Logs and counts what became of segment files; only the first failure in a row is logged.
    pub fn file(&self, fact: &FileFact) {
        match fact {
            FileFact::Failed {
                batch,
                count,
                reason,
                first,
            } => {
                counter!(names::SEGMENT_FILE_ERRORS).increment(*count);
                if *first {
                    line! {
                        self, warn, "segment_file_failed",
                        "could not write segment file, further ones are only counted", batch,
                        error = reason
                    }
                }
            }
            FileFact::Back { missed } => line! {
                self, info, "segment_files_back", "segment files can be written again", missed
            },
            FileFact::DirBusy { dir } => line! {
                self, info, "segment_dir_busy",
                "another run writes this stream's segment files, this one has its own directory", dir
            },
        }
    }

    pub(super) fn input(&self, connected: bool, error: Option<&str>) {
        gauge!(names::INPUT_CONNECTED).set(f64::from(u8::from(connected)));
        self.board
            .health(|health, at| health.input_connected(at, connected));
        self.board.status(|status| {
            status.input.connected = connected;
            if let Some(error) = error {
                status.input.last_error = Some(error.to_owned());
            }
        });
    }
}
