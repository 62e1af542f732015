//! The input side: connections and their retries, one timeline, segments.

use std::time::Duration;

use dub_engine::backoff::Backoff;
use dub_engine::{At, AudioFrame, Pts, Segment, Segmenter, SegmenterConfig, VideoUnit};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::error::WorkerError;
use crate::observe::{Fact, Observer};
use dub_media::aac::{AacFormat, FRAME_SAMPLES};
use dub_media::ingest::{CHANNEL_CAPACITY, Ingest, IngestError, IngestFact};
use dub_media::timeline::{Alignment, Placed, Timeline, TimelineConfig};
use dub_media::{AacFrame, AccessUnit, encoder};

/// Waits before the retries of a lost or absent input.
const RETRIES: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];
/// Silence after which a connection that had media is given up: RTSP over TCP has no
/// other way to notice a peer that stops without closing.
const SILENCE: Duration = Duration::from_secs(5);
/// Patience with a server that has accepted PLAY but sends nothing yet: the stream may
/// be announced long before its first frame.
const FIRST_MEDIA: Duration = Duration::from_mins(1);
/// Patience with the RTSP handshake as a whole.
const HANDSHAKE: Duration = Duration::from_secs(15);
/// Sender reports come every five seconds at the latest from the usual senders; waiting
/// costs nothing as long as the first segment is not complete.
const REPORT_WAIT: Duration = Duration::from_millis(5500);
/// How far video may run ahead of audio before a segment goes out without audio.
const AUDIO_WAIT: Duration = Duration::from_secs(20);
/// Audio holes longer than this are filled with silence; shorter ones are slewed over.
pub(super) const AUDIO_GAP: Duration = Duration::from_millis(500);

/// A video unit with the time it arrived.
pub(super) type VideoPayload = (AccessUnit, At);

/// The input of one stream, over as many connections as it takes.
pub(super) struct Input {
    config: Config,
    sender: mpsc::Sender<(u32, IngestFact)>,
    /// Facts of all connections, tagged.
    pub facts: mpsc::Receiver<(u32, IngestFact)>,
    connection: u32,
    phase: Phase,
    backoff: Backoff,
    timeline: Option<Timeline<VideoPayload, AacFrame>>,
    aligned: bool,
    segmenter: Segmenter<VideoPayload, AacFrame>,
    format: Option<AacFormat>,
    silent_frame: Option<AacFrame>,
    /// Last video unit: media time and arrival.
    last: Option<(Pts, At)>,
    /// Since the stream was lost, the server has only ever said that there is none.
    absent_only: bool,
    last_error: String,
    /// A connection began, so the next segment does not follow the last one.
    broken: bool,
}

enum Phase {
    Connecting {
        ingest: Ingest,
        until: At,
    },
    /// PLAY is accepted; `until` moves on with every unit.
    Receiving {
        ingest: Ingest,
        until: At,
    },
    Waiting {
        until: At,
    },
    Ended,
}

impl Input {
    /// An input that does nothing until [`Input::connect`].
    pub(super) fn new(config: &Config) -> Self {
        let (sender, facts) = mpsc::channel(CHANNEL_CAPACITY);
        let segmenter = Segmenter::new(SegmenterConfig {
            duration: config.segment_duration,
            min_remainder: Duration::from_secs(1),
            max_wait: AUDIO_WAIT,
        });
        Self {
            config: config.clone(),
            sender,
            facts,
            connection: 0,
            phase: Phase::Ended,
            backoff: Backoff::new(RETRIES.to_vec()),
            timeline: None,
            aligned: false,
            segmenter,
            format: None,
            silent_frame: None,
            last: None,
            absent_only: true,
            last_error: String::new(),
            broken: true,
        }
    }

    /// Opens the next connection.
    pub(super) fn connect(&mut self, at: At) -> Result<(), WorkerError> {
        self.connection += 1;
        self.timeline = None;
        self.aligned = false;
        let ingest = Ingest::start(
            &self.config.input_url,
            self.config.rtsp_latency,
            self.connection,
            self.sender.clone(),
        )
        .map_err(WorkerError::Unexpected)?;
        self.phase = Phase::Connecting {
            ingest,
            until: at + HANDSHAKE,
        };
        Ok(())
    }

    /// The audio format, as soon as the input has told it.
    pub(super) fn format(&self) -> Option<&AacFormat> {
        self.format.as_ref()
    }

    /// Whether nothing more will come.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// A complete segment, and whether its audio follows that of the segment before.
    pub(super) fn poll_segment(&mut self) -> Option<(Segment<VideoPayload, AacFrame>, bool)> {
        let segment = self.segmenter.poll()?;
        let follows = !std::mem::replace(&mut self.broken, false);
        Some((segment, follows))
    }

    /// When [`Input::wake`] is due.
    pub(super) fn poll_timeout(&self) -> Option<At> {
        match self.phase {
            Phase::Connecting { until, .. }
            | Phase::Receiving { until, .. }
            | Phase::Waiting { until } => Some(until),
            Phase::Ended => None,
        }
    }

    /// A deadline has passed.
    pub(super) fn wake(&mut self, at: At, observer: &Observer) -> Result<(), WorkerError> {
        match self.phase {
            Phase::Connecting { until, .. } if at >= until => self.lost(
                at,
                IngestError::Broken(format!("the server did not answer within {HANDSHAKE:?}")),
                observer,
            ),
            Phase::Receiving { until, .. } if at >= until => {
                let silence = if self.timeline.is_some() {
                    SILENCE
                } else {
                    FIRST_MEDIA
                };
                self.lost(
                    at,
                    IngestError::Broken(format!("no media for {silence:?}")),
                    observer,
                )
            }
            Phase::Waiting { until } if at >= until => self.connect(at),
            _ => Ok(()),
        }
    }

    /// Takes in what a connection tells.
    pub(super) fn handle(
        &mut self,
        at: At,
        connection: u32,
        fact: IngestFact,
        observer: &Observer,
    ) -> Result<(), WorkerError> {
        if connection != self.connection
            || matches!(self.phase, Phase::Waiting { .. } | Phase::Ended)
        {
            return Ok(()); // A connection that was given up has last words.
        }
        match fact {
            IngestFact::Connected => self.connected(at, observer),
            IngestFact::AudioFormat(format) => return self.take_format(format),
            IngestFact::Video {
                time,
                keyframe,
                unit,
            } => {
                self.receiving(at);
                let base = self.resume_at(at);
                let timeline = self.timeline();
                if keyframe {
                    timeline.set_base(base);
                }
                timeline.video(at, time, keyframe, (unit, at));
            }
            IngestFact::Audio { time, frame } => {
                self.receiving(at);
                self.timeline().audio(at, time, frame);
            }
            IngestFact::Report { track, time, ntp } => self.timeline().report(at, track, time, ntp),
            IngestFact::Ended { reason } => {
                return self.lost(at, IngestError::Broken(reason), observer);
            }
            IngestFact::Failed { error } => return self.lost(at, error, observer),
            IngestFact::Warning { text } => observer.fact(&Fact::MediaWarning { text: &text }),
        }
        self.advance(observer);
        Ok(())
    }

    /// Stops reading; what has come in becomes segments.
    pub(super) fn stop(&mut self, at: At, observer: &Observer) {
        self.flush(at, observer);
        self.close();
        self.segmenter.finish();
        self.phase = Phase::Ended;
    }

    /// Brings what waits for its place on the timeline to the segmenter.
    fn flush(&mut self, at: At, observer: &Observer) {
        if let Some(timeline) = &mut self.timeline {
            timeline.finish(at);
        }
        self.advance(observer);
    }

    fn connected(&mut self, at: At, observer: &Observer) {
        // Not when the last connection was lost: what it left behind still follows.
        self.broken = true;
        observer.fact(&Fact::InputConnected {
            connection: self.connection,
        });
        if let Phase::Connecting { ingest, .. } = std::mem::replace(&mut self.phase, Phase::Ended) {
            self.phase = Phase::Receiving {
                ingest,
                until: at + FIRST_MEDIA,
            };
        }
    }

    fn receiving(&mut self, at: At) {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Connecting { ingest, .. } | Phase::Receiving { ingest, .. } => {
                Phase::Receiving {
                    ingest,
                    until: at + SILENCE,
                }
            }
            other => other,
        };
    }

    fn take_format(&mut self, format: AacFormat) -> Result<(), WorkerError> {
        match &self.format {
            None => {
                self.silent_frame = Some(encoder::silent_frame(&format)?);
                self.format = Some(format);
                Ok(())
            }
            Some(known) if (known.rate, known.channels) == (format.rate, format.channels) => Ok(()),
            Some(known) => Err(WorkerError::UnsuitableInput {
                url: self.config.input_url.to_string(),
                reason: format!(
                    "audio changed from {} Hz, {} channels to {} Hz, {} channels mid-stream; restart the worker",
                    known.rate, known.channels, format.rate, format.channels
                ),
            }),
        }
    }

    /// Where the next connection's first keyframe goes: real time has gone on meanwhile.
    fn resume_at(&self, at: At) -> Pts {
        self.last
            .map_or(Pts::from_nanos(0), |(pts, arrived)| pts + at.since(arrived))
    }

    fn timeline(&mut self) -> &mut Timeline<VideoPayload, AacFrame> {
        let base = Pts::from_nanos(0);
        let frame = self
            .format
            .as_ref()
            .map_or(21_333_333, |f| f.nanos(u64::from(FRAME_SAMPLES)));
        self.timeline.get_or_insert_with(|| {
            let config = TimelineConfig {
                report_wait: REPORT_WAIT.min(self.config.segment_duration * 9 / 10),
                frame: Duration::from_nanos(frame.unsigned_abs()),
                gap: AUDIO_GAP,
            };
            Timeline::new(config, base)
        })
    }

    /// Moves what has its place from the timeline into the segmenter.
    fn advance(&mut self, observer: &Observer) {
        let Some(timeline) = &mut self.timeline else {
            return;
        };
        let frame = self
            .format
            .as_ref()
            .map_or(21_333_333, |f| f.nanos(u64::from(FRAME_SAMPLES)));
        let duration = Duration::from_nanos(frame.unsigned_abs());
        while let Some(placed) = timeline.poll() {
            match placed {
                Placed::Video {
                    pts,
                    keyframe,
                    payload,
                } => {
                    let arrived = payload.1;
                    if self.last.is_none_or(|(last, _)| pts > last) {
                        self.last = Some((pts, arrived));
                    }
                    self.backoff.succeeded();
                    self.absent_only = true;
                    self.segmenter.video(VideoUnit {
                        pts,
                        keyframe,
                        payload,
                    });
                }
                Placed::Audio { pts, payload } => self.segmenter.audio(AudioFrame {
                    pts,
                    duration,
                    payload,
                }),
                Placed::Silence { pts } => {
                    if let Some(payload) = self.silent_frame.clone() {
                        self.segmenter.audio(AudioFrame {
                            pts,
                            duration,
                            payload,
                        });
                    }
                }
            }
        }
        if let Some(alignment) = timeline.alignment()
            && !std::mem::replace(&mut self.aligned, true)
        {
            let by = match alignment {
                Alignment::Reports => "sender_reports",
                Alignment::Arrival => "arrival",
            };
            let (rate, channels) = self
                .format
                .as_ref()
                .map_or((0, 0), |f| (f.rate, f.channels));
            observer.fact(&Fact::InputAligned { by, rate, channels });
        }
    }

    fn lost(&mut self, at: At, error: IngestError, observer: &Observer) -> Result<(), WorkerError> {
        let reason = error.to_string();
        match error {
            IngestError::Unsuitable(reason) => {
                self.close();
                let url = self.config.input_url.to_string();
                return Err(WorkerError::UnsuitableInput { url, reason });
            }
            IngestError::Installation(reason) => return Err(WorkerError::Unexpected(reason)),
            IngestError::NotFound(_) | IngestError::Broken(_) => {}
        }
        let had_media = self.timeline.is_some();
        self.flush(at, observer);
        self.close();
        if had_media {
            observer.fact(&Fact::InputLost { error: &reason });
            self.segmenter.finish();
        } else if !matches!(error, IngestError::NotFound(_)) {
            self.absent_only = false;
        }
        self.last_error = reason;
        if let Some(retry) = self.backoff.failed() {
            observer.fact(&Fact::InputRetry {
                attempt: retry.attempt,
                delay: retry.delay,
                reason: &self.last_error,
            });
            self.phase = Phase::Waiting {
                until: at + retry.delay,
            };
            return Ok(());
        }
        self.phase = Phase::Ended;
        // The server is well and has no such stream any more: its publisher has ended it.
        if self.last.is_some() && self.absent_only {
            observer.fact(&Fact::InputEnded {
                reason: "the publisher has ended the stream",
            });
            return Ok(());
        }
        Err(WorkerError::Input {
            url: self.config.input_url.to_string(),
            reason: std::mem::take(&mut self.last_error),
            attempts: RETRIES.len() as u32 + 1,
        })
    }

    /// Takes the connection down without waiting for it.
    fn close(&mut self) {
        self.timeline = None;
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Connecting { ingest, .. } | Phase::Receiving { ingest, .. } => {
                tokio::task::spawn_blocking(move || ingest.stop());
            }
            Phase::Waiting { .. } | Phase::Ended => {}
        }
    }
}
