//! The output side: mixing in order, pacing, publishing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use dub_engine::{At, AvSyncConfig, Event, Pair, Playout, PlayoutConfig, Pts};
use tokio::sync::mpsc;

use super::input::AUDIO_GAP;
use crate::config::Config;
use crate::error::WorkerError;
use crate::observe::{Fact, Observer, Track};
use dub_media::aac::{AacFormat, FRAME_SAMPLES};
use dub_media::audio::Pcm;
use dub_media::egress::{Egress, EgressFact};
use dub_media::mixer::{MixJob, MixTrouble, Mixed, Mixer};
use dub_media::{AacFrame, AccessUnit};

/// The output may hold this much media that the server does not take.
const LARGEST_BACKLOG: Duration = Duration::from_secs(5);
/// How long the stream stays open behind its last unit; see [`Egress::drain`].
const LINGER: Duration = Duration::from_millis(300);
/// How long the server may take to accept the last bytes.
const LAST_BYTES: Duration = Duration::from_secs(10);

/// The head room of the first pair, least and most: on an idle machine the next ones are a few
/// milliseconds later, on a busy one several times as late as it took long.
const HEAD_ROOM: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// Players buffer more than this, so a pair that is so little late stalls nobody.
const STALL_TOLERANCE: Duration = Duration::from_millis(200);
/// `MediaMTX` looks at two seconds of media before its readers get anything.
const LEAD: Duration = Duration::from_millis(2_300);

/// A segment on its way out.
pub(super) struct Outgoing {
    /// Number of the segment.
    pub batch: u64,
    /// Media time of the segment.
    pub start: Pts,
    /// End of the segment.
    pub end: Pts,
    /// When its first unit arrived.
    pub captured: At,
    /// Access units with PTS and DTS, in decoding order.
    pub video: Vec<(AccessUnit, Pts, Pts)>,
    /// Media time of the first audio frame.
    pub audio_start: Option<Pts>,
    /// The segment's own audio.
    pub frames: Vec<AacFrame>,
    /// The frame before, if the segment continues another.
    pub preroll: Option<AacFrame>,
}

/// A resolved segment that the mixer works on.
struct Mixing {
    start: Pts,
    end: Pts,
    captured: At,
    decided: At,
    video: Vec<(AccessUnit, Pts, Pts)>,
    dubbed: bool,
}

/// A pair that waits for its turn.
struct OnAir {
    batch: u64,
    start: Pts,
    delta: i64,
    dubbed: bool,
}

/// Where the end of the stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// The mixer has been asked for its last frames.
    Flushing,
    /// Those are queued.
    Flushed,
    /// Everything is handed over; the server gets a moment to take it in.
    Lingering {
        until: At,
    },
    /// The muxer has been told that nothing follows.
    Closing {
        until: At,
    },
    Finished,
}

/// Mixes, paces and publishes.
pub(super) struct Output {
    config: Config,
    format: Option<AacFormat>,
    mixer: Option<Mixer>,
    results: mpsc::Sender<Mixed>,
    /// What the mixer made.
    pub mixed: mpsc::Receiver<Mixed>,
    mixing: BTreeMap<u64, Mixing>,
    playout: Playout,
    pairs: VecDeque<OnAir>,
    video: VecDeque<(AccessUnit, Pts, Pts)>,
    audio: VecDeque<(i64, AacFrame)>,
    egress: Option<Egress>,
    egress_sender: mpsc::Sender<EgressFact>,
    /// What the RTMP sink tells.
    pub facts: mpsc::Receiver<EgressFact>,
    phase: Phase,
    bytes: u64,
}

impl Output {
    /// An output that connects when the first pair is ready.
    pub(super) fn new(config: &Config) -> Self {
        let (results, mixed) = mpsc::channel(4);
        let (egress_sender, facts) = mpsc::channel(16);
        Self {
            config: config.clone(),
            format: None,
            mixer: None,
            results,
            mixed,
            mixing: BTreeMap::new(),
            playout: Playout::new(PlayoutConfig {
                head_room: HEAD_ROOM,
                stall_tolerance: STALL_TOLERANCE,
                lead: LEAD,
                ..PlayoutConfig::default()
            }),
            pairs: VecDeque::new(),
            video: VecDeque::new(),
            audio: VecDeque::new(),
            egress: None,
            egress_sender,
            facts,
            phase: Phase::Running,
            bytes: 0,
        }
    }

    /// The input's format is known.
    pub(super) fn start(&mut self, format: &AacFormat) -> Result<(), WorkerError> {
        if self.config.sts.enabled {
            let sync = AvSyncConfig {
                rate: format.rate,
                threshold: self.config.av_sync_threshold,
                gap: AUDIO_GAP,
                ..AvSyncConfig::default()
            };
            let mixer = Mixer::start(
                format.clone(),
                sync,
                self.config.fit_rules(format.rate),
                self.config.duck_db,
                self.results.clone(),
            );
            self.mixer = Some(mixer.map_err(WorkerError::Unexpected)?);
        }
        self.format = Some(format.clone());
        Ok(())
    }

    /// A segment is resolved; segments come in order.
    pub(super) fn publish(
        &mut self,
        at: At,
        segment: Outgoing,
        dubbed: Option<Pcm>,
        observer: &Observer,
    ) -> Result<(), WorkerError> {
        let Outgoing {
            batch,
            start,
            end,
            captured,
            video,
            audio_start,
            frames,
            preroll,
        } = segment;
        let mixing = Mixing {
            start,
            end,
            captured,
            decided: at,
            video,
            dubbed: dubbed.is_some(),
        };
        let Some(mixer) = &self.mixer else {
            let origin = audio_start.unwrap_or(start).nanos();
            let frames = self.timed(origin, frames);
            self.mixing.insert(batch, mixing);
            let mixed = Mixed {
                batch: Some(batch),
                frames,
                delta: 0,
                events: Vec::new(),
                dubbed_m4a: None,
                trouble: None,
            };
            return self.take(at, mixed, observer).map(|_| ());
        };
        let keep = self.config.segment_root.is_some();
        mixer
            .mix(MixJob {
                batch,
                start,
                end,
                audio_start,
                frames,
                preroll,
                dubbed,
                keep,
            })
            .map_err(WorkerError::Unexpected)?;
        self.mixing.insert(batch, mixing);
        Ok(())
    }

    fn timed(&self, origin: i64, frames: Vec<AacFrame>) -> Vec<(i64, AacFrame)> {
        let Some(format) = &self.format else {
            return Vec::new();
        };
        let place = |i: usize| origin + format.nanos(i as u64 * u64::from(FRAME_SAMPLES));
        frames
            .into_iter()
            .enumerate()
            .map(|(i, frame)| (place(i), frame))
            .collect()
    }

    /// Takes in what the mixer made; returns the dubbed audio's file, if one is wanted.
    pub(super) fn take(
        &mut self,
        at: At,
        mixed: Mixed,
        observer: &Observer,
    ) -> Result<Option<(u64, Vec<u8>)>, WorkerError> {
        for event in &mixed.events {
            observer.event(event);
        }
        match mixed.trouble {
            Some(MixTrouble::Original(reason)) => {
                observer.fact(&Fact::OriginalUndecodable {
                    batch: mixed.batch,
                    reason: &reason,
                });
            }
            Some(MixTrouble::Dub(reason)) => {
                observer.fact(&Fact::DubUnusable {
                    batch: mixed.batch,
                    reason: &reason,
                });
            }
            Some(MixTrouble::Encoder(reason)) => return Err(WorkerError::Unexpected(reason)),
            None => {}
        }
        self.audio.extend(mixed.frames);
        let Some(batch) = mixed.batch else {
            self.phase = Phase::Flushed;
            return Ok(None);
        };
        let Some(pair) = self.mixing.remove(&batch) else {
            return Ok(None);
        };
        self.connect()?;
        self.playout.pair_ready(
            at,
            Pair {
                batch,
                start: pair.start,
                end: pair.end,
                captured: pair.captured,
                worked: at.since(pair.decided),
            },
        );
        self.pairs.push_back(OnAir {
            batch,
            start: pair.start,
            delta: mixed.delta,
            dubbed: pair.dubbed,
        });
        self.video.extend(pair.video);
        Ok(mixed.dubbed_m4a.map(|m4a| (batch, m4a)))
    }

    fn connect(&mut self) -> Result<(), WorkerError> {
        let (None, Some(format)) = (&self.egress, &self.format) else {
            return Ok(());
        };
        let egress = Egress::start(&self.config.output_url, format, self.egress_sender.clone());
        self.egress = Some(egress.map_err(WorkerError::Unexpected)?);
        Ok(())
    }

    /// The driver was this much late for what it had to do.
    pub(super) fn machine_was_late(&mut self, by: Duration) {
        self.playout.machine_was_late(by);
    }

    /// An event of the pacing.
    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.playout.poll_event()
    }

    /// When the next unit is due, or the end must have come.
    pub(super) fn poll_timeout(&self) -> Option<At> {
        if let Phase::Closing { until } | Phase::Lingering { until } = self.phase {
            return Some(until);
        }
        let video = self
            .video
            .front()
            .and_then(|(_, _, dts)| self.playout.due(*dts));
        let audio = self
            .audio
            .front()
            .and_then(|(pts, _)| self.playout.due(Pts::from_nanos(*pts)));
        [video, audio].into_iter().flatten().min()
    }

    /// Hands over everything that is due.
    pub(super) fn wake(&mut self, at: At, observer: &Observer) -> Result<(), WorkerError> {
        if let Phase::Closing { until } = self.phase
            && at >= until
        {
            return Err(self.failure(format!(
                "the server did not take the last bytes within {LAST_BYTES:?}"
            )));
        }
        if let Phase::Lingering { until } = self.phase
            && at >= until
        {
            if let Some(egress) = &self.egress {
                egress.finish();
            }
            self.phase = Phase::Closing {
                until: at + LAST_BYTES,
            };
        }
        let offset = self.config.av_offset.as_nanos() as i64;
        let frame = self
            .format
            .as_ref()
            .map_or(0, |f| f.nanos(u64::from(FRAME_SAMPLES)));
        let due = |playout: &Playout, pts: Pts| playout.due(pts).is_some_and(|due| due <= at);
        while let Some((unit, pts, dts)) = self
            .video
            .pop_front_if(|(_, _, dts)| due(&self.playout, *dts))
        {
            self.begin_pairs(pts, observer);
            if let Some(egress) = &mut self.egress {
                observer.sent(Track::Video);
                egress.video(unit, pts.nanos() + offset, dts.nanos() + offset);
            }
        }
        // What the encoder gave at the very end may lie a frame behind the last pair.
        let rest = self.phase == Phase::Flushed && self.video.is_empty();
        while let Some((pts, data)) = self
            .audio
            .pop_front_if(|(pts, _)| rest_or_due(rest, &self.playout, *pts, at))
        {
            if let Some(egress) = &mut self.egress {
                observer.sent(Track::Audio);
                egress.audio(data, pts + offset, frame);
            }
        }
        if rest && self.audio.is_empty() {
            match &self.egress {
                Some(egress) => {
                    egress.drain();
                    self.phase = Phase::Lingering { until: at + LINGER };
                }
                None => self.phase = Phase::Finished,
            }
        }
        Ok(())
    }

    fn begin_pairs(&mut self, pts: Pts, observer: &Observer) {
        while let Some(pair) = self.pairs.pop_front_if(|pair| pair.start <= pts) {
            observer.fact(&Fact::PairStarted {
                batch: pair.batch,
                delta: pair.delta,
                latency: self
                    .playout
                    .latency_of(pair.batch)
                    .unwrap_or_else(|| self.playout.latency()),
                dubbed: pair.dubbed,
            });
        }
    }

    /// Nothing more will be published: the mixer gives its last frames.
    pub(super) fn finish(&mut self) -> Result<(), WorkerError> {
        if self.phase != Phase::Running {
            return Ok(());
        }
        match &self.mixer {
            Some(mixer) => {
                mixer.finish().map_err(WorkerError::Unexpected)?;
                self.phase = Phase::Flushing;
            }
            None => self.phase = Phase::Flushed,
        }
        Ok(())
    }

    /// Whether everything is out.
    pub(super) fn is_finished(&self) -> bool {
        self.phase == Phase::Finished
    }

    /// Takes in what the sink tells.
    pub(super) fn handle(
        &mut self,
        fact: EgressFact,
        observer: &Observer,
    ) -> Result<(), WorkerError> {
        match fact {
            EgressFact::Failed { kind, reason } => {
                observer.fact(&Fact::BusError {
                    kind,
                    text: &reason,
                });
                Err(self.failure(reason))
            }
            EgressFact::Warning(text) => {
                observer.fact(&Fact::MediaWarning { text: &text });
                Ok(())
            }
            EgressFact::Finished => {
                self.bytes = self.egress.as_ref().map_or(0, Egress::bytes_sent);
                observer.fact(&Fact::OutputFinished { bytes: self.bytes });
                self.phase = Phase::Finished;
                Ok(())
            }
        }
    }

    /// Tells the latency and looks for an output that takes no data; to be called about once a
    /// second.
    pub(super) fn check(&self, at: At, observer: &Observer) -> Result<(), WorkerError> {
        // At the end nothing is late any more: the last value stays.
        let goes_on = self.phase == Phase::Running || !self.video.is_empty();
        if let Some(latency) = self.playout.latency_at(at).filter(|_| goes_on) {
            observer.latency(latency);
        }
        if let Some(egress) = &self.egress {
            observer.output_bytes(egress.bytes_sent());
        }
        let backlog = self.egress.as_ref().map_or(Duration::ZERO, Egress::backlog);
        // While it waits for a late pair's audio, the muxer holds a little video back.
        if backlog > LARGEST_BACKLOG {
            return Err(self.failure(format!("the server takes no data, {backlog:?} are waiting")));
        }
        Ok(())
    }

    fn failure(&self, reason: String) -> WorkerError {
        WorkerError::Output {
            url: self.config.output_url.to_string(),
            reason,
        }
    }
}

fn rest_or_due(rest: bool, playout: &Playout, pts: i64, at: At) -> bool {
    rest || playout
        .due(Pts::from_nanos(pts))
        .is_some_and(|due| due <= at)
}
