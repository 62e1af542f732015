//! The driver: waits for facts from media, STS, signals and the engine's deadlines, hands
//! them on, and carries out what is decided. It decides nothing itself.

mod dubbing;
mod input;
mod lateness;
mod on_air;
mod output;
mod signals;

use std::time::{Duration, Instant};

use dub_engine::{At, CutAt, DtsAssigner, End, Pts, Segment, SegmentKind, Track, VideoUnit};

use self::dubbing::{Dubbing, DubbingOrder, FragmentAudio};
use self::input::{Input, VideoPayload};
use self::lateness::{Behind, Lateness};
use self::output::Publisher;
pub use self::signals::Signals;
use crate::captions::Captions;
use crate::config::Config;
use crate::error::WorkerError;
use crate::observe::{Fact, Observer};
use crate::telemetry::systemd;
use dub_media::ingest::{CHANNEL_CAPACITY, IngestFact};
use dub_media::mixer::{Mixed, Part};
use dub_media::segment_files::{Place, SegmentFile, SegmentFiles};
use dub_media::{AacFrame, RtmpTarget, egress, m4a};

/// What comes in is taken in at most this often: behind a segment of seconds nobody sees it, and a turn
/// of the loop costs more than a unit.
const TURN: Duration = Duration::from_millis(80);
/// The same when so little is [missing](LAST_OF_SEGMENT) of a segment that what comes may complete it:
/// that is when lateness is latency.
const LAST_TURN: Duration = Duration::from_millis(20);
/// More than comes at once: ffmpeg sends 107 ms of audio in a packet.
const LAST_OF_SEGMENT: Duration = Duration::from_millis(250);
/// Patience with the output's TCP connection at the start.
const REACH_OUTPUT: Duration = Duration::from_secs(5);

/// How long to let come what comes, when so much is missing of a segment.
fn turn(missing: Option<Duration>) -> Duration {
    if missing.is_some_and(|missing| missing < LAST_OF_SEGMENT) {
        LAST_TURN
    } else {
        TURN
    }
}

/// Where segment files go, if any are wanted.
fn place(config: &Config) -> Option<Place> {
    let root = config.segment_root.as_ref()?;
    Some(Place {
        root: root.dir.clone(),
        private: root.private,
        stream_id: config.stream_id.clone(),
        retention: config.segment_retention,
    })
}

/// Runs one stream until it ends.
pub async fn run(
    config: Config,
    observer: Observer,
    mut signals: Signals,
    captions: Captions,
) -> Result<(), WorkerError> {
    let output_url = config.output_url.to_string();
    let target = RtmpTarget::parse(config.output_url.secret())
        .ok_or_else(|| WorkerError::Usage(format!("--output-url {output_url}: no RTMP stream")))?;
    tokio::select! {
        reached = egress::reachable(&target, REACH_OUTPUT) => {
            reached.map_err(|error| WorkerError::Output {
                url: output_url,
                reason: config.output_url.redact(&error.to_string()),
            })?;
        }
        signal = signals.next() => {
            observer.fact(&Fact::StopRequested { signal });
            return Ok(());
        }
    }
    let mut driver = Driver::new(config, target, observer, captions)?;
    systemd::notify("READY=1");
    let result = driver.run(&mut signals).await;
    driver.input.stop(driver.now(), &driver.observer);
    driver.dubbing.close().await;
    driver.observer.summary();
    result
}

struct Driver {
    config: Config,
    observer: Observer,
    clock: Instant,
    input: Input,
    dubbing: Dubbing,
    output: Publisher,
    files: Option<SegmentFiles>,
    dts: DtsAssigner,
    captions: Captions,
    /// Where the output begins.
    origin: Option<Pts>,
    last_frame: Option<AacFrame>,
    started: bool,
    /// A signal has asked to stop.
    stopping: bool,
    /// The dubbing side has been told that no segment follows.
    ending: bool,
    drained: bool,
    /// What to return once everything buffered is out.
    failure: Option<WorkerError>,
}

impl Driver {
    fn new(
        config: Config,
        target: RtmpTarget,
        observer: Observer,
        captions: Captions,
    ) -> Result<Self, WorkerError> {
        let files = place(&config)
            .map(SegmentFiles::start)
            .transpose()
            .map_err(|error| WorkerError::Unexpected(format!("segment files: {error}")))?;
        let clock = Instant::now();
        Ok(Self {
            input: Input::new(&config, clock),
            dubbing: Dubbing::new(&config)?,
            output: Publisher::new(&config, target),
            files,
            dts: DtsAssigner::new(),
            captions,
            origin: None,
            last_frame: None,
            started: false,
            stopping: false,
            ending: false,
            drained: false,
            failure: None,
            clock,
            config,
            observer,
        })
    }

    fn now(&self) -> At {
        At::new(self.clock.elapsed())
    }

    async fn run(&mut self, signals: &mut Signals) -> Result<(), WorkerError> {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut lateness = Lateness::default();
        self.input.start(self.now(), &self.observer)?;
        let mut woke = self.now();
        loop {
            self.settle()?;
            self.observer.turned();
            if self.output.is_finished() {
                return self.failure.take().map_or(Ok(()), Err);
            }
            if let Some(Behind { count, late, turn }) = lateness.done(woke, self.now()) {
                self.observer.fact(&Fact::Behind { count, late, turn });
            }
            let wake = self.poll_timeout();
            let sleep = async {
                match wake {
                    Some(at) => {
                        tokio::time::sleep_until((self.clock + at.as_duration()).into()).await;
                    }
                    None => std::future::pending().await,
                }
            };
            let next_turn = self.clock + (woke + turn(self.input.missing())).as_duration();
            let input = async {
                // Nobody is woken before, however much comes.
                tokio::time::sleep_until(next_turn.into()).await;
                self.input.facts.recv().await
            };
            tokio::select! {
                Some((connection, fact)) = input => self.hear(connection, fact)?,
                Some(fact) = self.dubbing.facts.recv() => self.dubbing.handle(At::new(self.clock.elapsed()), fact),
                Some(decoded) = self.dubbing.decoded.recv() => {
                    self.dubbing.checked(At::new(self.clock.elapsed()), decoded);
                }
                Some(mixed) = self.output.mixed.recv() => self.mixed(mixed)?,
                Some((connection, fact)) = self.output.facts.recv() => {
                    self.output.handle(At::new(self.clock.elapsed()), connection, fact, &self.observer);
                }
                signal = signals.next() => self.stop_requested(signal)?,
                scheduled = tick.tick() => {
                    self.input.check(&self.observer);
                    self.output.machine_was_late(scheduled.elapsed());
                    self.output.check(At::new(self.clock.elapsed()), &self.observer);
                    self.observer.check_log();
                    systemd::notify("WATCHDOG=1");
                    while let Some(fact) = self.files.as_ref().and_then(SegmentFiles::poll) {
                        self.observer.file(&fact);
                    }
                }
                () = sleep => {}
            }
            woke = self.now();
            lateness.woke(wake, woke);
            self.take_in()?;
        }
    }

    /// A signal came: what has come in goes out.
    fn stop_requested(&mut self, signal: &str) -> Result<(), WorkerError> {
        if std::mem::replace(&mut self.stopping, true) {
            let reason = "stopped at once by a second signal".to_owned();
            return Err(WorkerError::Unexpected(reason));
        }
        self.observer.fact(&Fact::StopRequested { signal });
        self.take_in()?;
        self.input.stop(self.now(), &self.observer);
        Ok(())
    }

    /// The mixer is done with a part of a segment.
    fn mixed(&mut self, mixed: Mixed) -> Result<(), WorkerError> {
        let (part, dubbed) = (mixed.part, mixed.is_dubbed());
        let file = self.output.take(self.now(), mixed, &self.observer)?;
        if let Part::Begin(batch) = part {
            self.dubbing.mixed(batch, dubbed);
            self.captions.mixed(batch, dubbed);
        }
        if let Some((batch, m4a)) = file {
            self.write(SegmentFile::Dubbed { batch, m4a });
        }
        Ok(())
    }

    /// Takes in what the input has told since the last time.
    fn take_in(&mut self) -> Result<(), WorkerError> {
        for _ in 0..CHANNEL_CAPACITY {
            let Ok((connection, fact)) = self.input.facts.try_recv() else {
                break;
            };
            self.hear(connection, fact)?;
        }
        Ok(())
    }

    fn hear(&mut self, connection: u32, fact: IngestFact) -> Result<(), WorkerError> {
        match &fact {
            IngestFact::Video { unit, .. } => self.observer.received(Track::Video, unit.size()),
            IngestFact::Audio { frame, .. } => self.observer.received(Track::Audio, frame.len()),
            _ => {}
        }
        let result = self
            .input
            .handle(self.now(), connection, fact, &self.observer);
        self.input_result(result)
    }

    fn poll_timeout(&self) -> Option<At> {
        [
            self.input.poll_timeout(),
            self.dubbing.poll_timeout(),
            self.output.poll_timeout(self.now()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Carries everything forward that can go forward now.
    fn settle(&mut self) -> Result<(), WorkerError> {
        let at = self.now();
        let result = self.input.wake(at, &self.observer);
        self.input_result(result)?;
        if !self.started
            && let Some(format) = self.input.format().cloned()
        {
            self.started = true;
            self.output.start(&format)?;
            self.dubbing.start(at, &format);
        }
        self.dubbing.wake(at);
        while let Some((segment, follows)) = self.input.poll_segment() {
            self.segment_ready(at, segment, follows);
        }
        if self.input.has_ended() && !std::mem::replace(&mut self.ending, true) {
            self.dubbing.input_ended(at);
        }
        while let Some(order) = self.dubbing.poll_order(at) {
            self.carry_out(at, order)?;
        }
        self.observer.in_flight(self.dubbing.in_flight());
        if self.drained && self.input.has_ended() && !self.output.has_undecided() {
            self.output.finish();
        }
        self.output.wake(at, &self.observer)?;
        Ok(())
    }

    /// What came in before the input was lost for good is published first.
    fn input_result(&mut self, result: Result<(), WorkerError>) -> Result<(), WorkerError> {
        match result {
            Err(error @ (WorkerError::Input { .. } | WorkerError::InputChanged { .. }))
                if self.started =>
            {
                self.failure.get_or_insert(error);
                self.observer.draining();
                Ok(())
            }
            other => other,
        }
    }

    fn carry_out(&mut self, at: At, order: DubbingOrder) -> Result<(), WorkerError> {
        match order {
            DubbingOrder::Event(event) => self.observer.event(&event),
            DubbingOrder::Publish {
                batch,
                dubbed,
                words,
            } => {
                if let Some((start, end)) = self.output.span(batch) {
                    let origin = *self.origin.get_or_insert(start);
                    let (start, end) = (start.since(origin), end.since(origin));
                    self.captions.promise(batch, start, end, &words);
                }
                self.output.publish(at, batch, dubbed, &self.observer)?;
            }
            DubbingOrder::Drained(end) => {
                self.drained = true;
                let url = self.config.sts.url.to_string();
                let failure = match end {
                    End::Complete => None,
                    End::Gone => Some(WorkerError::StsGone { url }),
                    End::Refused { code, message } => {
                        Some(WorkerError::StsRefused { url, code, message })
                    }
                };
                if let Some(failure) = failure {
                    self.failure.get_or_insert(failure);
                    self.observer.draining();
                    // What is buffered becomes segments and goes out.
                    self.input
                        .stop(At::new(self.clock.elapsed()), &self.observer);
                    while let Some((segment, follows)) = self.input.poll_segment() {
                        self.segment_ready(at, segment, follows);
                    }
                }
            }
        }
        Ok(())
    }

    fn segment_ready(&mut self, at: At, segment: Segment<VideoPayload, AacFrame>, follows: bool) {
        let silent = segment.kind != SegmentKind::Tail && self.input.is_filled(&segment);
        let (batch, start, kind) = (segment.batch, segment.start, segment.kind);
        self.observer.fact(&Fact::SegmentReady {
            batch,
            kind: match kind {
                SegmentKind::Full => "full",
                SegmentKind::Remainder => "remainder",
                SegmentKind::Tail => "tail",
            },
            cut: match segment.cut {
                CutAt::Grid => "grid",
                CutAt::Pause => "pause",
                CutAt::End => "end",
            },
            duration: segment.end.since(start),
            video: segment.video.len(),
            audio: segment.audio.len(),
        });
        let captured = segment.video.front().map_or(at, |unit| unit.payload.1);
        let pts: Vec<_> = segment.video.iter().map(|unit| unit.pts).collect();
        let dts = self.dts.assign(&pts);
        let preroll = self.last_frame.take().filter(|_| follows);
        self.last_frame = segment.audio.last().map(|frame| frame.payload.clone());

        let frames: Vec<&[u8]> = segment.audio.iter().map(|f| &f.payload[..]).collect();
        let format = self.input.format().filter(|_| !frames.is_empty());
        let file = format.map(|format| m4a::write(format, preroll.as_deref(), &frames));
        if self.files.is_some() {
            let place = |(unit, dts): (&VideoUnit<VideoPayload>, &Pts)| {
                (unit.payload.0.clone(), unit.pts.nanos(), dts.nanos())
            };
            if !segment.video.is_empty() {
                let units = segment.video.iter().zip(&dts).map(place).collect();
                self.write(SegmentFile::Video { batch, units });
            }
            if let Some(m4a) = file.clone() {
                self.write(SegmentFile::Audio { batch, m4a });
            }
        }
        let fragment = file
            .filter(|_| kind != SegmentKind::Tail)
            .map(|m4a| FragmentAudio {
                pts: segment
                    .audio
                    .first()
                    .map_or(start, |frame| frame.pts)
                    .nanos(),
                frames: segment.audio.len(),
                m4a,
            });
        self.output.cut(segment, captured, dts, preroll);
        if silent {
            self.dubbing.segment_silent(at, batch);
        } else {
            self.dubbing.segment_ready(at, batch, fragment);
        }
    }

    fn write(&self, file: SegmentFile) {
        if let Some(files) = &self.files {
            files.write(file);
        }
    }
}

#[cfg(test)]
mod tests;
