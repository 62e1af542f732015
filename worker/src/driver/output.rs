//! The output side: mixing in order, pacing, publishing. What to do when is the engine's
//! ([`Playout`], [`OutputLife`]); this carries it out.

use std::collections::VecDeque;
use std::time::Duration;

use dub_engine::timeline::DropReason;
use dub_engine::{
    Admission, At, AvSyncConfig, CopyGrid, DubFitConfig, DubLoudness, Event, HandedOver, Leaving,
    OutputLife, OutputOrder, Pair, Playout, PlayoutConfig, Pts, Segment, Track,
};
use tokio::sync::mpsc;

use super::input::{AUDIO_GAP, VideoPayload};
use super::on_air::OnAir;
use crate::config::Config;
use crate::error::WorkerError;
use crate::observe::{Fact, Observer};
use dub_media::aac::AacFormat;
use dub_media::audio::Pcm;
use dub_media::egress::{Egress, EgressError, EgressFact};
use dub_media::mixer::{MixTrouble, Mixed, Mixer, Part};
use dub_media::{AacFrame, AccessUnit, RtmpTarget};

/// The head room of the first pair, least and most: on an idle machine the next ones are a few
/// milliseconds later, on a busy one several times as late as it took long. A calm start says little of
/// what else the machine will do: an answer was 160 ms later than the first, its mixing 120.
const HEAD_ROOM: (Duration, Duration) = (Duration::from_millis(110), Duration::from_millis(500));
/// Players buffer more than this, so a pair that is so little late stalls nobody.
const STALL_TOLERANCE: Duration = Duration::from_millis(200);
/// `MediaMTX` looks at two seconds of media before its readers get anything.
const LEAD: Duration = Duration::from_millis(2_300);
/// What leaves in one go is seen half way: no server is slow for that.
const ON_THE_WAY: Duration = Duration::from_millis(300);
/// Units leave up to this much before they are due, several at once: players buffer more, and each
/// time costs more than a unit.
const EARLY: Duration = Duration::from_millis(80);
/// Seconds between two looks at what the server's machine has not taken, while all is well: the kernel
/// goes through all connections of the machine for it, some milliseconds long.
const LOOK_EVERY: u32 = 4;
/// Between two looks whether the server has accepted.
const ACCEPT_LOOK: Duration = Duration::from_millis(20);

/// A unit with its place on the output's timeline, in nanoseconds.
enum Unit {
    Video {
        unit: AccessUnit,
        pts: i64,
        dts: i64,
    },
    Audio {
        frame: AacFrame,
        pts: i64,
    },
}

fn push(egress: Option<&mut Egress>, unit: &Unit) {
    match (egress, unit) {
        (Some(egress), Unit::Video { unit, pts, dts }) => egress.video(unit, *pts, *dts),
        (Some(egress), Unit::Audio { frame, pts }) => egress.audio(frame, *pts),
        (None, _) => {}
    }
}

/// What the mixer goes by: how both tracks meet, how dubs are fitted and levelled, and how loud the
/// original stays under them.
fn mixer_config(
    config: &Config,
    rate: u32,
) -> (AvSyncConfig, DubFitConfig, DubLoudness, Option<f64>) {
    let sync = AvSyncConfig {
        rate,
        threshold: config.av_sync_threshold,
        gap: AUDIO_GAP,
        ..AvSyncConfig::default()
    };
    let fit = config.fit_rules(rate);
    (sync, fit, config.dub_loudness, config.duck_db)
}

/// Mixes, paces and publishes.
pub(super) struct Publisher {
    config: Config,
    target: RtmpTarget,
    format: Option<AacFormat>,
    mixer: Option<Mixer>,
    results: mpsc::Sender<Mixed>,
    /// What the mixer made.
    pub mixed: mpsc::Receiver<Mixed>,
    copy_grid: CopyGrid,
    segments: OnAir<VideoPayload>,
    /// The output's audio that has not left.
    audio: VecDeque<(i64, AacFrame)>,
    /// The rest of the newest segment's audio is being encoded.
    encoding: bool,
    playout: Playout,
    life: OutputLife,
    /// Told when the server has accepted.
    start: Option<Event>,
    egress: Option<Egress>,
    /// What has left and is not accepted.
    kept: Vec<Unit>,
    handed_over: HandedOver,
    /// How much media the server has not taken.
    waiting: Duration,
    /// Seconds since that was looked at.
    unseen: u32,
    sender: mpsc::Sender<(u32, EgressFact)>,
    /// What the RTMP sink tells, with the connection's number.
    pub facts: mpsc::Receiver<(u32, EgressFact)>,
}

impl Publisher {
    /// An output that connects when the first pair is ready.
    pub(super) fn new(config: &Config, target: RtmpTarget) -> Self {
        let (results, mixed) = mpsc::channel(4);
        let (sender, facts) = mpsc::channel(16);
        Self {
            config: config.clone(),
            target,
            format: None,
            mixer: None,
            results,
            mixed,
            copy_grid: CopyGrid::default(),
            segments: OnAir::new(),
            audio: VecDeque::new(),
            encoding: false,
            playout: Playout::new(PlayoutConfig {
                head_room: HEAD_ROOM,
                stall_tolerance: STALL_TOLERANCE,
                lead: LEAD,
                ..PlayoutConfig::default()
            }),
            life: OutputLife::new(config.output_retry),
            start: None,
            egress: None,
            kept: Vec::new(),
            handed_over: HandedOver::default(),
            waiting: Duration::ZERO,
            unseen: 0,
            sender,
            facts,
        }
    }

    /// The input's format is known.
    pub(super) fn start(&mut self, format: &AacFormat) -> Result<(), WorkerError> {
        if self.config.sts.enabled {
            let (sync, fit, loudness, duck_db) = mixer_config(&self.config, format.rate);
            let results = self.results.clone();
            let mixer = Mixer::start(format.clone(), sync, fit, loudness, duck_db, results)?;
            self.mixer = Some(mixer);
        }
        self.format = Some(format.clone());
        Ok(())
    }

    /// A segment has been cut.
    pub(super) fn cut(
        &mut self,
        segment: Segment<VideoPayload, AacFrame>,
        captured: At,
        dts: Vec<Pts>,
        preroll: Option<AacFrame>,
    ) {
        self.segments.cut(segment, captured, dts, preroll);
    }

    /// Where a segment lies that has not left.
    pub(super) fn span(&self, batch: u64) -> Option<(Pts, Pts)> {
        self.segments.span(batch)
    }

    /// Whether a segment waits for its audio to be decided.
    pub(super) fn has_undecided(&self) -> bool {
        self.segments.has_undecided()
    }

    /// What a segment sounds like is decided; segments come in order.
    pub(super) fn publish(
        &mut self,
        at: At,
        batch: u64,
        dubbed: Option<Pcm>,
        observer: &Observer,
    ) -> Result<(), WorkerError> {
        if let Some(mixer) = &mut self.mixer {
            let keep = self.config.segment_root.is_some();
            if let Some(job) = self.segments.decided(at, batch, dubbed, keep) {
                mixer.mix(job)?;
            }
            return Ok(());
        }
        let mut delta = 0_i64;
        for frame in self.segments.copied(at, batch).unwrap_or_default() {
            let Some(place) = self.copy_grid.place(frame.pts, frame.duration) else {
                observer.dropped(DropReason::Late, 1);
                continue;
            };
            let off = place.offset_from(frame.pts);
            if off.abs() > delta.abs() {
                delta = off;
            }
            self.audio.push_back((place.nanos(), frame.payload));
        }
        self.pair_ready(at, batch, (delta, false), observer);
        Ok(())
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
        if let Some(mixer) = &mut self.mixer {
            mixer.go_on()?;
        }
        let dubbed = mixed.is_dubbed();
        let batch = match mixed.part {
            Part::Begin(batch) | Part::End(batch) => Some(batch),
            Part::Last => None,
        };
        match mixed.trouble {
            Some(MixTrouble::Original(error)) => {
                observer.fact(&Fact::OriginalUndecodable {
                    batch,
                    reason: &error.to_string(),
                });
            }
            Some(MixTrouble::Dub(error)) => {
                observer.fact(&Fact::DubUnusable {
                    batch,
                    reason: &error.to_string(),
                });
            }
            Some(MixTrouble::Encoder(error)) => return Err(error.into()),
            None => {}
        }
        self.audio.extend(mixed.frames);
        self.encoding = matches!(mixed.part, Part::Begin(_));
        match mixed.part {
            Part::Begin(batch) => self.pair_ready(at, batch, (mixed.delta, dubbed), observer),
            Part::End(_) => {}
            Part::Last => self.life.flushed(),
        }
        Ok(batch.zip(mixed.dubbed_m4a))
    }

    fn pair_ready(&mut self, at: At, batch: u64, sound: (i64, bool), observer: &Observer) {
        let Some((one, decided)) = self.segments.mixed(batch, sound) else {
            return;
        };
        self.playout.pair_ready(
            at,
            Pair {
                batch,
                start: one.segment.start,
                end: one.segment.end,
                captured: one.captured,
                worked: at.since(decided),
            },
        );
        while let Some(event) = self.playout.poll_event() {
            match event {
                Event::OutputStarted { .. } => self.start = Some(event),
                event => observer.event(&event),
            }
        }
        self.life.pair_ready(at);
    }

    /// The driver was this much late for what it had to do.
    pub(super) fn machine_was_late(&mut self, by: Duration) {
        self.playout.machine_was_late(by);
    }

    /// When the next unit is due, or something else.
    pub(super) fn poll_timeout(&self, at: At) -> Option<At> {
        let video = self.next_video().and_then(|pts| self.playout.due(pts));
        let audio = self.audio.front();
        let audio = audio.and_then(|(pts, _)| self.playout.due(Pts::from_nanos(*pts)));
        let look = (self.egress.is_some() && self.life.is_connecting()).then(|| at + ACCEPT_LOOK);
        let all = [video, audio, look, self.life.poll_timeout()];
        all.into_iter().flatten().min()
    }

    /// Media time at which video leaves next; not before the sound beside it is encoded.
    fn next_video(&self) -> Option<Pts> {
        let silent = self.encoding && self.audio.is_empty();
        self.segments.next().filter(|_| !silent)
    }

    /// Hands over everything that is due.
    pub(super) fn wake(&mut self, at: At, observer: &Observer) -> Result<(), WorkerError> {
        if let Some(egress) = &self.egress
            && self.life.is_connecting()
            && egress.bytes_sent() > 0
        {
            self.life.accepted(at, self.life.connection());
            self.kept.clear();
            if let Some(start) = self.start.take() {
                observer.event(&start);
            }
            observer.output_connected(true);
        }
        self.life.handle_timeout(at);
        self.carry_out(observer)?;
        self.hand_over(at, observer);
        self.carry_out(observer)
    }

    /// What is due leaves in the order of its time: both tracks are one stream of messages.
    fn hand_over(&mut self, at: At, observer: &Observer) {
        let offset = self.config.av_offset.as_nanos() as i64;
        let until = at + EARLY;
        loop {
            // What the encoder gave at the very end may lie a frame behind the last pair.
            let rest = self.life.is_flushed() && self.segments.is_empty();
            let due = |pts: &Pts| self.playout.due(*pts).is_some_and(|due| due <= until);
            let video = self.next_video().filter(due);
            let audio = self.audio.front().map(|(pts, _)| Pts::from_nanos(*pts));
            let audio = audio.filter(|pts| rest || due(pts));
            if video.is_some_and(|video| audio.is_none_or(|audio| video <= audio)) {
                self.video_leaves(at, offset, observer);
            } else if audio.is_some()
                && let Some((pts, frame)) = self.audio.pop_front()
            {
                let leaving = Leaving::Audio {
                    pts: Pts::from_nanos(pts),
                };
                let pts = pts + offset;
                self.leave(at, leaving, Unit::Audio { frame, pts }, observer);
            } else {
                if rest {
                    self.life.emptied(at);
                }
                break;
            }
        }
        if let Some(Err(error)) = self.egress.as_mut().map(Egress::send) {
            self.failed(at, self.life.connection(), &error, observer);
        }
    }

    fn video_leaves(&mut self, at: At, offset: i64, observer: &Observer) {
        let (unit, begun) = self.segments.pop();
        if let Some(begun) = begun {
            let latency = self.playout.latency_of(begun.batch);
            observer.fact(&Fact::PairStarted {
                batch: begun.batch,
                delta: begun.delta,
                latency: latency.unwrap_or_else(|| self.playout.latency()) + self.waiting,
                dubbed: begun.dubbed,
            });
        }
        let Some((unit, dts)) = unit else { return };
        self.handed_over.push(dts, unit.payload.0.size());
        let leaving = Leaving::Video {
            keyframe: unit.keyframe,
            pts: unit.pts,
        };
        let (pts, dts) = (unit.pts.nanos() + offset, dts.nanos() + offset);
        let unit = unit.payload.0;
        self.leave(at, leaving, Unit::Video { unit, pts, dts }, observer);
    }

    fn leave(&mut self, at: At, leaving: Leaving, unit: Unit, observer: &Observer) {
        let admission = self.life.leaves(at, leaving);
        if admission == Admission::Skip {
            return;
        }
        observer.sent(match leaving {
            Leaving::Video { .. } => Track::Video,
            Leaving::Audio { .. } => Track::Audio,
        });
        push(self.egress.as_mut(), &unit);
        if admission == Admission::Keep {
            self.kept.push(unit);
        }
    }

    /// Does what the engine has ordered.
    fn carry_out(&mut self, observer: &Observer) -> Result<(), WorkerError> {
        while let Some(order) = self.life.poll_order() {
            match order {
                OutputOrder::Connect(connection) => self.connect(connection)?,
                OutputOrder::Disconnect { forget } => {
                    self.disconnect(observer);
                    if forget {
                        self.kept.clear();
                    }
                }
                OutputOrder::Flush => match &mut self.mixer {
                    Some(mixer) => mixer.finish()?,
                    None => self.life.flushed(),
                },
                OutputOrder::Finish => self.egress.iter_mut().for_each(Egress::finish),
                OutputOrder::Look => {
                    if self.egress.as_mut().is_none_or(Egress::is_quiet) {
                        let bytes = self.egress.as_ref().map_or(0, Egress::bytes_sent);
                        observer.fact(&Fact::OutputFinished { bytes });
                        self.disconnect(observer);
                        self.life.settled();
                    }
                }
                OutputOrder::Fail(reason) => {
                    self.disconnect(observer);
                    return Err(WorkerError::Output {
                        url: self.config.output_url.to_string(),
                        reason,
                    });
                }
                OutputOrder::Event(event) => observer.event(&event),
            }
        }
        Ok(())
    }

    fn connect(&mut self, connection: u32) -> Result<(), WorkerError> {
        let Some(format) = &self.format else {
            return Ok(());
        };
        self.egress = Some(Egress::start(
            &self.target,
            format,
            connection,
            self.sender.clone(),
        )?);
        for unit in &self.kept {
            push(self.egress.as_mut(), unit);
        }
        Ok(())
    }

    /// Takes the connection down without waiting for it.
    fn disconnect(&mut self, observer: &Observer) {
        observer.output_connected(false);
        self.waiting = Duration::ZERO;
        if let Some(egress) = self.egress.take() {
            tokio::task::spawn_blocking(move || drop(egress));
        }
    }

    fn failed(&mut self, at: At, connection: u32, error: &EgressError, observer: &Observer) {
        // The bus knows the cause, a push only that there is one.
        while let Ok((about, fact)) = self.facts.try_recv() {
            self.handle(at, about, fact, observer);
        }
        self.life
            .failed(at, connection, error.name_taken, &error.text);
    }

    /// Nothing more will be published: the mixer gives its last frames.
    pub(super) fn finish(&mut self) {
        self.life.input_over();
    }

    /// Whether everything is out.
    pub(super) fn is_finished(&self) -> bool {
        self.life.is_finished()
    }

    /// Takes in what the sink tells.
    pub(super) fn handle(
        &mut self,
        at: At,
        connection: u32,
        fact: EgressFact,
        observer: &Observer,
    ) {
        if connection != self.life.connection() {
            return; // A connection that was given up has last words.
        }
        match fact {
            EgressFact::Failed(_) if self.life.is_settling() => {}
            EgressFact::Failed(error) => {
                observer.fact(&Fact::BusError {
                    kind: error.kind,
                    text: &error.text,
                });
                let taken = error.name_taken;
                self.life.failed(at, connection, taken, &error.text);
            }
            EgressFact::Warning(text) => observer.fact(&Fact::MediaWarning { text: &text }),
            EgressFact::Waiting(_) if self.egress.is_none() => {}
            EgressFact::Waiting(bytes) => {
                let waiting = self.handed_over.behind(bytes);
                self.waiting = Some(waiting)
                    .filter(|waiting| *waiting > ON_THE_WAY)
                    .unwrap_or_default();
            }
            EgressFact::Finished => self.life.finished(at, connection),
        }
    }

    /// Tells the latency and looks for an output that takes no data; to be called about once a
    /// second.
    pub(super) fn check(&mut self, at: At, observer: &Observer) {
        // At the end nothing is late any more: the last value stays.
        let goes_on = self.life.is_running() || !self.segments.is_empty();
        if let Some(latency) = self.playout.latency_at(at).filter(|_| goes_on) {
            observer.latency(latency + self.waiting);
        }
        if let Some(egress) = &self.egress {
            observer.output_bytes(egress.bytes_sent());
        }
        if let Some(egress) = self.egress.as_ref().filter(|_| self.life.is_connected()) {
            self.life.backlog(at, egress.backlog());
            self.unseen += 1;
            if self.unseen >= LOOK_EVERY || !self.waiting.is_zero() {
                self.unseen = 0;
                egress.look();
            }
        }
    }
}

#[cfg(test)]
mod tests;
