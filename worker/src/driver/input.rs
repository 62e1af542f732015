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
use dub_media::{AacFrame, AccessUnit, encoder};

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
        let segmenter = Segmenter::new(SegmenterConfig {
            duration: config.segment_duration,
            cut: config.segment_cut,
            min_remainder: Duration::from_secs(1),
            max_wait: AUDIO_WAIT,
        });
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
                    let ingest = Ingest::start(
                        &self.config.input_url,
                        self.config.rtsp_latency,
                        self.config.segment_cut != SegmentCut::Grid,
                        connection,
                        self.sender.clone(),
                    );
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
        let config = TimelineConfig {
            report_wait: REPORT_WAIT.min(self.config.segment_duration * 9 / 10),
            patience: self.config.av_offset.max(LEAST_PATIENCE),
            frame: self.frame(),
            bundled: self.bundled,
        };
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
mod tests {
    use clap::Parser as _;
    use dub_media::MediaError;

    use super::*;
    use crate::cli::Cli;
    use crate::observe::Status;

    fn input() -> (Input, Observer) {
        let cli = ["worker", "--input-url", "rtsp://u:geheim@127.0.0.1:1/cam"];
        let config = Config::from(&Cli::try_parse_from(cli).unwrap());
        let input = Input::new(&config, Instant::now());
        (input, Observer::new(Status::default(), None))
    }

    /// Exit code and words.
    fn told(result: Result<(), WorkerError>) -> Option<(u8, String)> {
        result
            .err()
            .map(|error| (error.exit_code(), error.to_string()))
    }

    fn no() -> String {
        "no".to_owned()
    }

    fn installation() -> IngestError {
        IngestError::Installation {
            media: "audio".to_owned(),
            encoding: "MPEG4-GENERIC".to_owned(),
            error: MediaError::MissingElements(vec!["aacparse".to_owned()]),
        }
    }

    #[test]
    fn each_end_of_the_input_has_its_exit_code_and_its_words() {
        let refused = || InputEnd::Refused { reason: no() };
        let lost = InputEnd::Lost {
            reason: no(),
            attempts: 4,
        };
        let place = "input rtsp://***@127.0.0.1:1/cam: no";
        for (end, error, expected) in [
            (InputEnd::Stopped, None, None),
            (InputEnd::Over, None, None),
            (
                lost,
                Some(IngestError::Broken(no())),
                Some((10, "gave up after 4 attempts")),
            ),
            (
                refused(),
                Some(IngestError::Unsuitable(no())),
                Some((11, place)),
            ),
            (refused(), None, Some((11, place))),
            (
                refused(),
                Some(IngestError::Denied(no())),
                Some((10, place)),
            ),
            (refused(), Some(installation()), Some((1, "aacparse"))),
        ] {
            let (mut input, observer) = input();
            let what = format!("{end:?}, {error:?}");
            input.error = error;
            let told = told(input.ended(end, &observer));
            let code = told.as_ref().map(|(code, _)| *code);
            assert_eq!(code, expected.map(|(code, _)| code), "{what}");
            if let (Some((_, said)), Some((_, words))) = (told, expected) {
                assert!(
                    said.contains(words) && !said.contains("geheim"),
                    "{what}: {said}"
                );
            }
        }
    }

    /// Opens no connection: the order is taken away, and what it would have told is told by hand.
    fn connection(input: &mut Input) -> u32 {
        while let Some(order) = input.life.poll() {
            if let InputOrder::Connect { connection } = order {
                return connection;
            }
        }
        panic!("no connection is ordered");
    }

    /// A stream that was there and then ends so, however often it is tried: how often, and its exit code.
    fn tried(error: &IngestError) -> (u32, Option<u8>) {
        let (mut input, observer) = input();
        input.life.start(At::ZERO);
        let first = connection(&mut input);
        input.life.connected(At::ZERO);
        input.life.unit(At::ZERO, Track::Video);
        input.life.placed();
        let ended = IngestFact::Ended { reason: no() };
        input.handle(At::ZERO, first, ended, &observer).unwrap();
        for attempts in 1.. {
            let at = input.poll_timeout().expect("another attempt");
            input.life.wake(at);
            let next = connection(&mut input);
            let stale = IngestFact::Failed {
                error: IngestError::Unsuitable(no()),
            };
            input
                .handle(at, first, stale, &observer)
                .expect("last words of the first");
            let error = error.clone();
            let result = input.handle(at, next, IngestFact::Failed { error }, &observer);
            if input.has_ended() {
                return (attempts, told(result).map(|(code, _)| code));
            }
            result.unwrap();
        }
        unreachable!()
    }

    #[test]
    fn each_failure_is_tried_again_or_not_and_ends_with_its_exit_code() {
        for (error, expected) in [
            // Its publisher has ended the stream.
            (IngestError::NotFound(no()), (3, None)),
            (IngestError::Broken(no()), (3, Some(10))),
            (IngestError::Overrun { dropped: 7 }, (3, Some(10))),
            (IngestError::Denied(no()), (1, Some(10))),
            (IngestError::Unsuitable(no()), (1, Some(11))),
            (installation(), (1, Some(1))),
        ] {
            assert_eq!(tried(&error), expected, "{error:?}");
        }
    }

    /// What came before is still cut and published.
    #[test]
    fn another_audio_format_on_the_way_ends_the_input_with_both_in_its_words() {
        dub_media::init().unwrap();
        for (rate, channels) in [(24_000, 2), (48_000, 1)] {
            let (mut input, observer) = input();
            input.life.start(At::ZERO);
            let connection = connection(&mut input);
            let mut tell = |rate, channels| {
                let (format, bundled) = (AacFormat::lc(rate, channels), None);
                let fact = IngestFact::AudioFormat { format, bundled };
                told(input.handle(At::ZERO, connection, fact, &observer))
            };
            assert_eq!(tell(48_000, 2), None);
            assert_eq!(tell(48_000, 2), None);
            let (code, said) = tell(rate, channels).expect("refused");
            let words = format!("48000 Hz, 2 channels to {rate} Hz, {channels} channels");
            assert!(code == 10 && said.contains(&words), "{said}");
            assert!(input.has_ended());
        }
    }
}
