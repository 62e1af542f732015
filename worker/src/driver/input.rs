//! The input side: carries out what the input's life orders, and brings what comes in over the timeline
//! to the segmenter.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dub_engine::input::{InputEnd, InputLife, InputOrder, Loss};
use dub_engine::pause::{FrameLevel, SILENCE};
use dub_engine::timeline::{AlignedBy, DropReason, Note, Timeline};
use dub_engine::{
    At, AudioFrame, DroppedBeforeStart, Placed, Pts, Segment, SegmentCut, Segmenter,
    SegmenterConfig, TimelineConfig, Track, VideoUnit,
};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::error::WorkerError;
use crate::observe::{Fact, Observer};
use dub_media::aac::{AacFormat, FRAME_SAMPLES};
use dub_media::ingest::{CHANNEL_CAPACITY, Ingest, IngestError, IngestFact};
use dub_media::{AacFrame, AccessUnit, MediaUrl, encoder};

/// Sender reports come every five seconds at the latest from the usual senders; waiting
/// costs nothing as long as the first segment is not complete.
const REPORT_WAIT: Duration = Duration::from_millis(5500);
/// How far video may run ahead of audio on the timeline before a segment goes out without audio. The
/// timeline puts silence long before.
const AUDIO_WAIT: Duration = Duration::from_secs(20);
/// Audio is always waited for so long: it comes in bundles.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);
/// A hole this long between segments is filled with silence at once; shorter ones are slewed over.
pub(super) const AUDIO_GAP: Duration = Duration::from_millis(500);

/// A video unit with the time it arrived.
pub(super) type VideoPayload = (AccessUnit, At);

/// An audio frame with its level.
type AudioPayload = (AacFrame, Option<FrameLevel>);

/// How segments are cut.
fn segmenter_config(config: &Config) -> SegmenterConfig {
    SegmenterConfig {
        duration: config.segment_duration,
        cut: config.segment_cut,
        min_remainder: Duration::from_secs(1),
        max_wait: AUDIO_WAIT,
    }
}

/// How both tracks of a connection come onto one timeline.
fn timeline_config(config: &Config, frame: Duration, bundled: Option<Duration>) -> TimelineConfig {
    TimelineConfig {
        report_wait: REPORT_WAIT.min(config.segment_duration * 9 / 10),
        patience: config.av_offset.max(LEAST_PATIENCE),
        frame,
        bundled,
    }
}

/// What a connection is opened with: where to, how much is buffered, and whether audio is listened to.
fn source(config: &Config) -> (&MediaUrl, Duration, bool) {
    let listen = config.segment_cut != SegmentCut::Grid;
    (&config.input_url, config.rtsp_latency, listen)
}

/// The input of one stream, over as many connections as it takes.
pub(super) struct Input {
    config: Config,
    /// Moment 0 of [`At`].
    clock: Instant,
    sender: mpsc::Sender<(u32, IngestFact)>,
    /// Facts of all connections, tagged.
    pub facts: mpsc::Receiver<(u32, IngestFact)>,
    life: InputLife,
    ingest: Option<Ingest>,
    /// How the last connection ended, as the media side said it.
    error: Option<IngestError>,
    timeline: Option<Timeline<VideoPayload, AudioPayload>>,
    segmenter: Segmenter<VideoPayload, AacFrame>,
    format: Option<AacFormat>,
    bundled: Option<Duration>,
    silent_frame: Option<AacFrame>,
    /// Last video unit: media time and arrival.
    last: Option<(Pts, At)>,
    /// A connection began, so the next segment does not follow the last one.
    broken: bool,
    /// What was dropped and is not logged yet.
    dropped: BTreeMap<(Track, DropReason), u64>,
    cut_off: DroppedBeforeStart,
}

impl Input {
    /// An input that does nothing until [`Input::start`].
    pub(super) fn new(config: &Config, clock: Instant) -> Self {
        let (sender, facts) = mpsc::channel(CHANNEL_CAPACITY);
        let segmenter = Segmenter::new(segmenter_config(config));
        Self {
            config: config.clone(),
            clock,
            sender,
            facts,
            life: InputLife::new(),
            ingest: None,
            error: None,
            timeline: None,
            segmenter,
            format: None,
            bundled: None,
            silent_frame: None,
            last: None,
            broken: true,
            dropped: BTreeMap::new(),
            cut_off: DroppedBeforeStart::default(),
        }
    }

    /// Opens the first connection.
    pub(super) fn start(&mut self, at: At, observer: &Observer) -> Result<(), WorkerError> {
        self.life.start(at);
        self.obey(at, observer)
    }

    /// The audio format, as soon as the input has told it.
    pub(super) fn format(&self) -> Option<&AacFormat> {
        self.format.as_ref()
    }

    /// Whether nothing more will come.
    pub(super) fn has_ended(&self) -> bool {
        self.life.has_ended()
    }

    /// A complete segment, and whether its audio follows that of the segment before.
    pub(super) fn poll_segment(&mut self) -> Option<(Segment<VideoPayload, AacFrame>, bool)> {
        let segment = self.segmenter.poll()?;
        Some((segment, !std::mem::replace(&mut self.broken, false)))
    }

    /// Whether all of a segment's sound is silence that was put where nothing came.
    pub(super) fn is_filled(&self, segment: &Segment<VideoPayload, AacFrame>) -> bool {
        let silent = |frame: &AudioFrame<AacFrame>| {
            let silent = self.silent_frame.as_ref();
            silent.is_some_and(|silent| AacFrame::ptr_eq(silent, &frame.payload))
        };
        segment.audio.iter().all(silent)
    }

    /// When [`Input::wake`] is due.
    pub(super) fn poll_timeout(&self) -> Option<At> {
        self.life.poll_timeout()
    }

    /// How much media must still come before the next segment can be cut.
    pub(super) fn missing(&self) -> Option<Duration> {
        self.segmenter.missing()
    }

    /// A deadline has passed.
    pub(super) fn wake(&mut self, at: At, observer: &Observer) -> Result<(), WorkerError> {
        self.life.wake(at);
        self.obey(at, observer)
    }

    /// Takes in what a connection tells.
    pub(super) fn handle(
        &mut self,
        at: At,
        connection: u32,
        fact: IngestFact,
        observer: &Observer,
    ) -> Result<(), WorkerError> {
        if self.life.connection() != Some(connection) {
            return Ok(()); // A connection that was given up has last words.
        }
        match fact {
            IngestFact::Connected => {
                // Not when the last connection was lost: what it left behind still follows.
                self.broken = true;
                self.life.connected(at);
            }
            IngestFact::AudioFormat { format, bundled } => {
                self.bundled = bundled;
                if let Err(error) = self.take_format(format) {
                    self.stop(at, observer);
                    return Err(error);
                }
            }
            IngestFact::Video {
                time,
                arrived,
                picture,
                unit,
            } => {
                observer.video_unit("received");
                self.life.unit(at, Track::Video);
                let arrived = self.at(arrived);
                let base = self.resume_at(arrived);
                let timeline = self.timeline();
                timeline.set_base(base);
                timeline.video(arrived, time, picture, (unit, arrived));
            }
            IngestFact::Packet { time, arrived } => {
                let arrived = self.at(arrived);
                self.timeline().packet(arrived, time);
            }
            IngestFact::Audio {
                time,
                arrived,
                frame,
                level,
            } => {
                self.life.unit(at, Track::Audio);
                let arrived = self.at(arrived);
                self.timeline().audio(arrived, time, (frame, level));
            }
            IngestFact::Report {
                track,
                time,
                ntp,
                named,
                arrived,
            } => {
                let arrived = self.at(arrived);
                self.timeline().report(arrived, track, time, ntp, named);
            }
            IngestFact::Lost { track, packets } => {
                observer.fact(&Fact::PacketsLost { track, packets });
            }
            IngestFact::Ended { reason } => self.life.lost(at, Loss::Passing, reason),
            IngestFact::Failed { error } => {
                let loss = match error {
                    IngestError::NotFound(_) => Loss::Absent,
                    _ if error.may_pass() => Loss::Passing,
                    _ => Loss::Final,
                };
                if let IngestError::Overrun { dropped } = &error {
                    observer.dropped(DropReason::Overrun, *dropped);
                }
                let reason = error.to_string();
                self.error = Some(error);
                self.life.lost(at, loss, reason);
            }
            IngestFact::Warning { text } => observer.fact(&Fact::MediaWarning { text: &text }),
        }
        self.advance(observer);
        self.obey(at, observer)
    }

    /// Stops reading; what has come in becomes segments.
    pub(super) fn stop(&mut self, at: At, observer: &Observer) {
        self.life.stop();
        // Stopping opens no connection and is no failure.
        let _ = self.obey(at, observer);
        self.segmenter.finish();
    }

    /// Logs what was dropped since the last time; to be called about once a second.
    pub(super) fn check(&mut self, observer: &Observer) {
        let cut_off = self.segmenter.dropped();
        for (track, now, before) in [
            (Track::Video, cut_off.video, self.cut_off.video),
            (Track::Audio, cut_off.audio, self.cut_off.audio),
        ] {
            if now > before {
                let reason = DropReason::BeforeKeyframe;
                observer.dropped(reason, now - before);
                *self.dropped.entry((track, reason)).or_default() += now - before;
            }
        }
        self.cut_off = cut_off;
        for ((track, reason), units) in std::mem::take(&mut self.dropped) {
            observer.fact(&Fact::MediaDropped {
                track,
                reason,
                units,
            });
        }
    }

    /// Carries out what the input's life orders.
    fn obey(&mut self, at: At, observer: &Observer) -> Result<(), WorkerError> {
        while let Some(order) = self.life.poll() {
            match order {
                InputOrder::Connect { connection } => {
                    self.error = None;
                    let (url, latency, listen) = source(&self.config);
                    let sender = self.sender.clone();
                    let ingest = Ingest::start(url, latency, listen, connection, sender);
                    self.ingest = Some(ingest?);
                }
                InputOrder::Close { had_media } => {
                    if let Some(timeline) = &mut self.timeline {
                        timeline.finish(at);
                    }
                    self.advance(observer);
                    self.timeline = None;
                    if had_media {
                        self.segmenter.finish();
                    }
                    if let Some(ingest) = self.ingest.take() {
                        tokio::task::spawn_blocking(move || ingest.stop());
                    }
                }
                InputOrder::KeepAlive => {
                    if let Some(ingest) = &self.ingest {
                        ingest.keep_alive();
                    }
                }
                InputOrder::Tell(news) => observer.fact(&Fact::Input { news: &news }),
                InputOrder::End(end) => self.ended(end, observer)?,
            }
        }
        Ok(())
    }

    fn ended(&mut self, end: InputEnd, observer: &Observer) -> Result<(), WorkerError> {
        let url = self.config.input_url.to_string();
        match end {
            InputEnd::Stopped => Ok(()),
            InputEnd::Over => {
                observer.fact(&Fact::InputEnded {
                    reason: "the publisher has ended the stream",
                });
                Ok(())
            }
            InputEnd::Lost { reason, attempts } => Err(WorkerError::Input {
                url,
                reason,
                attempts,
            }),
            InputEnd::Refused { reason } => Err(match self.error.take() {
                Some(error @ IngestError::Installation { .. }) => {
                    WorkerError::Unexpected(error.to_string())
                }
                Some(IngestError::Denied(reason)) => WorkerError::Input {
                    url,
                    reason,
                    attempts: 1,
                },
                _ => WorkerError::UnsuitableInput { url, reason },
            }),
        }
    }

    fn take_format(&mut self, format: AacFormat) -> Result<(), WorkerError> {
        match &self.format {
            None => {
                self.silent_frame = Some(encoder::silent_frame(format.channels));
                self.format = Some(format);
                Ok(())
            }
            Some(known) if (known.rate, known.channels) == (format.rate, format.channels) => Ok(()),
            Some(known) => Err(WorkerError::InputChanged {
                url: self.config.input_url.to_string(),
                reason: format!(
                    "audio changed from {} Hz, {} channels to {} Hz, {} channels mid-stream; restart the worker",
                    known.rate, known.channels, format.rate, format.channels
                ),
            }),
        }
    }

    fn at(&self, moment: Instant) -> At {
        At::new(moment.saturating_duration_since(self.clock))
    }

    /// Where the next connection's first keyframe goes: real time has gone on meanwhile.
    fn resume_at(&self, at: At) -> Pts {
        self.last
            .map_or(Pts::from_nanos(0), |(pts, arrived)| pts + at.since(arrived))
    }

    /// Length of an audio frame.
    fn frame(&self) -> Duration {
        let frame = self
            .format
            .as_ref()
            .map_or(21_333_333, |f| f.nanos(u64::from(FRAME_SAMPLES)));
        Duration::from_nanos(frame.unsigned_abs())
    }

    fn timeline(&mut self) -> &mut Timeline<VideoPayload, AudioPayload> {
        let config = timeline_config(&self.config, self.frame(), self.bundled);
        self.timeline
            .get_or_insert_with(|| Timeline::new(config, Pts::from_nanos(0)))
    }

    /// Moves what has its place from the timeline into the segmenter.
    fn advance(&mut self, observer: &Observer) {
        let duration = self.frame();
        let Some(timeline) = &mut self.timeline else {
            return;
        };
        let mut begun = false;
        while let Some(placed) = timeline.poll() {
            let (pts, payload) = match placed {
                Placed::Video {
                    pts,
                    keyframe,
                    payload,
                } => {
                    begun = true;
                    observer.video_unit("placed");
                    let arrived = payload.1;
                    if self.last.is_none_or(|(last, _)| pts > last) {
                        self.last = Some((pts, arrived));
                    }
                    self.segmenter.video(VideoUnit {
                        pts,
                        keyframe,
                        payload,
                    });
                    continue;
                }
                Placed::Audio { pts, payload } => (pts, Some(payload)),
                Placed::Silence { pts } => {
                    let silence = self.silent_frame.clone();
                    (pts, silence.map(|frame| (frame, Some(SILENCE))))
                }
            };
            if let Some((payload, level)) = payload {
                self.segmenter.audio(AudioFrame {
                    pts,
                    duration,
                    level,
                    payload,
                });
            }
        }
        if begun {
            self.life.placed();
        }
        while let Some(note) = timeline.poll_note() {
            match note {
                Note::Dropped { track, reason } => {
                    observer.dropped(reason, 1);
                    *self.dropped.entry((track, reason)).or_default() += 1;
                }
                Note::Aligned(by) => {
                    let by = match by {
                        AlignedBy::Reports => "sender_reports",
                        AlignedBy::Arrival => "arrival",
                    };
                    let (rate, channels) = self
                        .format
                        .as_ref()
                        .map_or((0, 0), |f| (f.rate, f.channels));
                    observer.fact(&Fact::InputAligned { by, rate, channels });
                }
                note => observer.fact(&Fact::Anomaly { note }),
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
