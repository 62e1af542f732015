//! What nearly every scenario does: send a clip through a worker, disturb something on the way, and
//! collect the evidence.
//!
//! The camera's clip begins when the worker reads, so counts are exact. What is
//! examined afterwards comes from outside the worker: the recording made by the media server,
//! the journal of `echo-sts`, `/metrics` and the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use camera::{Manner, Sent};

use crate::environment::{Builder, Environment, Scene, Way, unix_ms};
use crate::failure::{Failure, Place};
use crate::probe::audio::{self, Sound};
use crate::probe::clock::Clock;
use crate::probe::format::require_one_format;
use crate::probe::frames::{self, CodedFrames, Comparison};
use crate::probe::journal::Journal;
use crate::probe::logs::{Level, Log};
use crate::probe::metrics::{Scrape, ScrapeSample};
use crate::probe::rules;
use crate::services::echo_sts::EchoStsOptions;
use crate::services::media_server::Kind;
use crate::services::python_sts::PythonStsOptions;
use crate::services::recorder::{LateReader, LateReport};
use crate::services::worker::{Worker, WorkerOptions};
use crate::threads::quietly;

/// How soon the worker must read its input.
const READING_PATIENCE: Duration = Duration::from_secs(5);
/// How long the recording may take to be complete once the worker has ended.
const RECORDING_PATIENCE: Duration = Duration::from_secs(10);

/// Says what a run is doing; called from its thread.
pub type Tell = Arc<dyn Fn(&str) + Send + Sync>;

type Change = Box<dyn FnOnce(&mut WorkerOptions)>;

/// A run to be made.
pub struct Pipeline {
    environment: Builder,
    clip: PathBuf,
    clip_length: Duration,
    way: Way,
    manner: Manner,
    worker: Vec<Change>,
    exit: i32,
    abrupt: bool,
    extra_time: Duration,
    late_reader: bool,
    tell: Tell,
}

impl Pipeline {
    /// Publishes `clip`, which lasts `length`, in an environment that has an `echo-sts` unless told otherwise.
    pub fn new(environment: Builder, clip: impl Into<PathBuf>, length: Duration) -> Self {
        Self {
            environment: environment.echo_sts(EchoStsOptions::default()),
            clip: clip.into(),
            clip_length: length,
            way: Way::default(),
            manner: Manner::default(),
            worker: Vec::new(),
            exit: 0,
            abrupt: false,
            extra_time: Duration::ZERO,
            late_reader: false,
            tell: Arc::new(|_| ()),
        }
    }

    /// How the clip comes to the worker.
    #[must_use]
    pub fn way(mut self, way: Way) -> Self {
        self.way = way;
        self
    }

    /// How the camera behaves.
    #[must_use]
    pub fn manner(mut self, manner: Manner) -> Self {
        self.manner = manner;
        self
    }

    /// Starts `echo-sts` with these options.
    #[must_use]
    pub fn sts(mut self, options: EchoStsOptions) -> Self {
        self.environment = self.environment.echo_sts(options);
        self
    }

    /// Starts an STS service written in Python instead of `echo-sts`.
    #[must_use]
    pub fn python_sts(mut self, options: PythonStsOptions) -> Self {
        self.environment = self.environment.python_sts(options);
        self
    }

    #[must_use]
    pub fn worker(mut self, change: impl FnOnce(&mut WorkerOptions) + 'static) -> Self {
        self.worker.push(Box::new(change));
        self
    }

    /// Expects this exit code instead of 0.
    #[must_use]
    pub fn exit(mut self, code: i32) -> Self {
        self.exit = code;
        self
    }

    /// The worker ends before its last numbers can be read: they are not asked for. Always so with
    /// another exit code than 0.
    #[must_use]
    pub fn abrupt(mut self) -> Self {
        self.abrupt = true;
        self
    }

    /// Allows this much more than the clip, its latency and the input's retries take.
    #[must_use]
    pub fn extra_time(mut self, time: Duration) -> Self {
        self.extra_time = time;
        self
    }

    /// Lets a second reader join the output once it runs.
    #[must_use]
    pub fn late_reader(mut self) -> Self {
        self.late_reader = true;
        self
    }

    /// Puts a TCP proxy between worker and `echo-sts` that can cut their connections.
    #[must_use]
    pub fn tcp_proxy(mut self) -> Self {
        self.environment = self.environment.tcp_proxy();
        self
    }

    /// Reports progress.
    #[must_use]
    pub fn tell(mut self, tell: Tell) -> Self {
        self.tell = tell;
        self
    }

    /// Runs it; `during` is called when the first packet is sent and disturbs whatever it likes.
    ///
    /// # Errors
    /// When anything does not start, does not end in time, or ends with another exit code.
    pub fn run(self, during: impl FnOnce(&mut Live) -> Result<()>) -> Result<Evidence> {
        let began = Instant::now();
        (self.tell)("starting services");
        let scene = Scene {
            clip: self.clip.clone(),
            manner: self.manner,
            way: self.way,
        };
        let environment = self.environment.scene(scene).start()?;
        let mut options = environment.worker_options();
        for change in self.worker {
            change(&mut options);
        }
        let starting = Instant::now();
        let worker = environment.start_worker(&options)?;
        let started = starting.elapsed();
        let (reading, first_packet_ms) = match environment.wait_playing(READING_PATIENCE) {
            // It may have ended before it read anything.
            Err(_) if self.exit != 0 && worker.process().exit().is_some() => {
                (starting.elapsed(), unix_ms(starting))
            }
            playing => playing?,
        };
        let reading_after = started + reading;
        let sent_at = Instant::now();
        (self.tell)("publishing");

        let mut live = Live {
            environment,
            worker,
            sent_at,
            peak_kib: 0,
            tell: self.tell,
        };
        let limit = self.clip_length + LATENCY + self.extra_time;
        let ran = during(&mut live)
            .and_then(|()| live.play(limit, self.late_reader))
            .and_then(|late| {
                live.worker
                    .expect_exit(self.exit, Duration::from_secs(10))?;
                Ok(late)
            });
        (live.tell)("collecting");
        let mut evidence = Evidence {
            kind: live.environment.media_server().kind(),
            directory: live.environment.artifacts().dir().to_owned(),
            clip: self.clip,
            recording: Err("the run did not come to its end".to_owned()),
            journal: live.environment.journal().unwrap_or_default(),
            log: live.worker.log(),
            // It may be gone within a scrape's interval of its start.
            metrics: live.worker.metrics().unwrap_or_default(),
            samples: live.worker.metrics_over_time().unwrap_or_default(),
            sent: live.environment.sent(),
            reading_after,
            first_packet_ms,
            late: None,
            peak_kib: live.peak_kib,
            took: began.elapsed(),
        };
        match ran {
            Ok(late) => evidence.late = late,
            Err(error) => {
                // Whoever looks for the reason gets what there is; what happened is said already.
                live.worker.process().kill();
                let environment = &mut live.environment;
                let _ = environment.keep_metrics(&live.worker);
                let _ = environment.keep_recording(Duration::from_secs(2));
                evidence.tell(environment);
                return Err(error);
            }
        }
        let Live {
            mut environment,
            worker,
            ..
        } = live;
        let recorded = environment.keep_recording(RECORDING_PATIENCE);
        evidence.recording = recorded.map_err(|error| format!("{error:#}"));
        evidence.journal = environment.journal()?;
        evidence.sent = environment.sent_at_last();
        evidence.log = worker.log();
        evidence.require_no_panic()?;
        if self.exit == 0 && !self.abrupt {
            evidence.metrics = worker.final_metrics()?;
        }
        evidence.samples = worker.metrics_over_time()?;
        evidence.took = began.elapsed();
        environment.keep_metrics(&worker)?;
        evidence.tell(&mut environment);
        drop(worker);
        environment.finish()?;
        Ok(evidence)
    }
}

/// What a run takes beside its clip: the first segment, an answer that times out, playing the
/// last segment, the input's retries, and time for a busy machine.
const LATENCY: Duration = Duration::from_secs(45);

/// A run under way.
pub struct Live {
    /// Its services.
    pub environment: Environment,
    /// What is tested.
    pub worker: Worker,
    /// When the first packet was sent.
    pub sent_at: Instant,
    /// The most memory the worker was seen to have at once.
    peak_kib: u64,
    tell: Tell,
}

impl Live {
    /// Says what is going on.
    pub fn tell(&self, what: &str) {
        (self.tell)(what);
    }

    /// Lets the run come to its end, and a player join it on the way if one is wanted.
    fn play(&mut self, limit: Duration, late_reader: bool) -> Result<Option<LateReport>> {
        let late = if late_reader {
            Some(self.read_late(limit)?)
        } else {
            None
        };
        self.watch(limit)?;
        Ok(late)
    }

    /// Waits for the output to run and plays some of it as a player that comes late does.
    fn read_late(&self, patience: Duration) -> Result<LateReport> {
        self.worker.wait_batch("pair_started", 1, patience)?;
        let url = self.environment.output_url();
        let reader = LateReader::start(
            self.environment.place(),
            "late-reader",
            &url,
            Duration::from_secs(8),
        )?;
        reader.finish()
    }

    /// Waits until the worker has ended, telling how far it is.
    fn watch(&mut self, patience: Duration) -> Result<()> {
        let end = self.sent_at + patience;
        let mut told = String::new();
        while self.worker.process().exit().is_none() {
            if Instant::now() > end {
                bail!(
                    "the worker still runs {} s after the first packet:\n  | {}",
                    patience.as_secs(),
                    self.worker.process().last_lines(8).join("\n  | ")
                );
            }
            let log = self.worker.log();
            let on_air = |dubbed: bool| {
                log.events("pair_started")
                    .filter(|record| record.flag("dubbed") == Some(dubbed))
                    .count()
            };
            let line = format!(
                "segments in {}, on air: {} dubbed, {} original",
                log.events("segment_ready").count(),
                on_air(true),
                on_air(false)
            );
            if line != told {
                (self.tell)(&line);
                told = line;
            }
            let peak = self.worker.process().peak_kib();
            self.peak_kib = self.peak_kib.max(peak.unwrap_or(0));
            // The exit of the process is the fact that is waited for; this wakes up for it.
            let _ = self.worker.process().wait_exit(Duration::from_millis(500));
        }
        Ok(())
    }
}

/// What a run left behind.
#[derive(Debug)]
pub struct Evidence {
    /// Which media server ran.
    pub kind: Kind,
    /// Where logs, journal, metrics and recording are.
    pub directory: PathBuf,
    /// What was published.
    pub clip: PathBuf,
    /// What the media server recorded of the output, or why there is nothing.
    pub recording: Result<PathBuf, String>,
    /// What `echo-sts`, or what ran in its place, saw.
    pub journal: Journal,
    /// What the worker logged.
    pub log: Log,
    /// The worker's last metrics.
    pub metrics: Arc<Scrape>,
    /// The worker's metrics over time.
    pub samples: Vec<ScrapeSample>,
    /// What the camera sent to sessions that are over.
    pub sent: Option<Sent>,
    /// From the worker's start until it was known to read.
    pub reading_after: Duration,
    /// Wall time of the first packet, milliseconds since the Unix epoch.
    pub first_packet_ms: f64,
    /// What a late reader saw.
    pub late: Option<LateReport>,
    /// The most memory the worker was seen to have at once, in KiB.
    pub peak_kib: u64,
    /// The whole run.
    pub took: Duration,
}

impl Evidence {
    /// Tells the report what only the harness knows.
    fn tell(&self, environment: &mut Environment) {
        let part = environment.part_mut();
        part.first_packet_ms = self.first_packet_ms;
        let gauge = |sample: &ScrapeSample| {
            let value = sample.scrape.value("worker_output_latency_seconds", &[]);
            Some((unix_ms(sample.asked), value.ok()?))
        };
        part.latency = self.samples.iter().filter_map(gauge).collect();
        let clip = self.clip.file_name().unwrap_or_default();
        let published = match &self.sent {
            Some(sent) => format!(
                "{} pictures, {} audio frames",
                sent.pictures(),
                sent.audio_frames()
            ),
            None => "not to the end".to_owned(),
        };
        let reading = format!("{:.2} s", self.reading_after.as_secs_f64());
        let mut fact = |name: &str, value: String| part.facts.push((name.to_owned(), value));
        fact("clip", clip.to_string_lossy().into_owned());
        fact("published", published);
        fact("worker reading after", reading);
        if let Some(heard) = self.summary() {
            fact("heard", heard.to_owned());
        }
        if let Err(reason) = &self.recording {
            fact("no recording", reason.clone());
        }
        if let Some(late) = &self.late {
            let first = late.first_picture_after.as_secs_f64();
            let keyframe = late.first_picture_is_key;
            let kind = if keyframe { "a" } else { "not a" };
            let errors = late.errors.len();
            let text =
                format!("first picture after {first:.2} s ({kind} keyframe), {errors} errors");
            fact("late player", text);
        }
    }

    /// The recording of the output.
    ///
    /// # Errors
    /// When nothing was recorded.
    pub fn recording(&self) -> Result<&Path> {
        match &self.recording {
            Ok(path) => Ok(path),
            Err(reason) => bail!("there is no recording of the output: {reason}"),
        }
    }

    /// Reads frame numbers, flashes and beeps out of the recording.
    pub fn clock(&self) -> Result<Clock> {
        let recording = self.recording()?.to_owned();
        quietly(move || Clock::read(&recording))
    }

    /// Decodes the sound of the recording.
    pub fn sound(&self) -> Result<Sound> {
        let recording = self.recording()?.to_owned();
        quietly(move || Sound::read(&recording))
    }

    /// What became of the clip's coded frames in the recording; `read` says of which track.
    ///
    /// # Errors
    /// When clip or recording cannot be read.
    pub fn coded_frames(&self, read: fn(&Path) -> Result<CodedFrames>) -> Result<Comparison> {
        let (clip, recording) = (self.clip.clone(), self.recording()?.to_owned());
        quietly(move || Ok(frames::compare(&read(&clip)?, &read(&recording)?)))
    }

    /// Fails unless every coded frame of the clip is in the recording, bit for bit, once, in
    /// order, with the clip's steps in time.
    ///
    /// # Errors
    /// With the first differences.
    pub fn require_every_coded_frame(&self) -> Result<()> {
        self.coded_frames(CodedFrames::video)?.require_exact()?;
        let recording = self.recording()?.to_owned();
        quietly(move || require_one_format(&recording))
    }

    /// Fails unless the recording shows every frame number from 0 to `frames` once and in order.
    ///
    /// # Errors
    /// With the numbers that are missing, doubled or out of order.
    pub fn require_every_picture(&self, frames: u32) -> Result<Clock> {
        let clock = self.clock()?;
        let sequence = clock.sequence(0..frames);
        if sequence.is_perfect() {
            return Ok(clock);
        }
        let seconds = |number| f64::from(number) / f64::from(clock.fps);
        let wrong = sequence.first_wrong().map(seconds).map(Place::Media);
        let failure = Failure::new("the pictures of the recording are not those of the clip");
        let expected = format!(
            "numbers 0 to {} once and in order",
            frames.saturating_sub(1)
        );
        Err(failure.expected(expected).actual(sequence).at(wrong).into())
    }

    /// Fails unless every second of the clip's sound that `belongs` is heard in its place, on both
    /// channels, dubbed or not: what `echo-sts` answers is the original, marked.
    ///
    /// # Errors
    /// With the first second that is another sound.
    pub fn require_identity(&self, belongs: impl Fn(f64) -> bool + Send + 'static) -> Result<()> {
        let (clip, recording) = (self.clip.clone(), self.recording()?.to_owned());
        quietly(move || {
            let (input, output) = (
                audio::Stereo::read(&clip)?,
                audio::Stereo::read(&recording)?,
            );
            audio::require_identity(&input, &output, belongs)
        })
    }

    /// Fails when any thread of the worker panicked, even if the worker lived on.
    ///
    /// # Errors
    /// With where it was.
    pub fn require_no_panic(&self) -> Result<()> {
        let panics: Vec<_> = self.log.events("panic").collect();
        ensure!(panics.is_empty(), "the worker panicked: {panics:?}");
        Ok(())
    }

    /// Fails when the worker logged a warning or an error.
    pub fn require_clean_log(&self) -> Result<()> {
        let problems = self.log.problems();
        if problems.is_empty() {
            return Ok(());
        }
        let loud = self.log.records.iter().find(|it| it.level >= Level::Warn);
        let at = loud
            .and_then(|record| record.unix_ms().ok())
            .map(Place::Wall);
        let failure = Failure::new("the worker logged trouble").expected("no warning, no error");
        Err(failure.actual(problems.join("\n")).at(at).into())
    }

    /// Fails unless the alert rules give these answers on this run.
    ///
    /// # Errors
    /// As [`rules::require`].
    pub fn require_rules(&self, answers: rules::Answers<'_>) -> Result<()> {
        rules::require(&self.samples, &self.directory, answers)
    }

    /// Which segments carry the marker of `echo-sts`' `mark` mode: read from the sound alone.
    ///
    /// # Errors
    /// When the recording cannot be read.
    pub fn heard(&self, segments: usize, length: Duration) -> Result<Vec<audio::Verdict>> {
        let sound = self.sound()?;
        let length = length.as_secs_f64();
        let begin = |n: usize| n as f64 * length;
        let stretch = |n| (begin(n), begin(n + 1).min(sound.end()));
        let stretches: Vec<_> = (0..segments).map(stretch).collect();
        let heard = audio::segments(&sound, &stretches, sts_protocol::mark::TONE_HZ);
        Ok(heard.into_iter().map(|segment| segment.verdict).collect())
    }

    /// What was heard of the run, in the worker's own last words.
    pub fn summary(&self) -> Option<&str> {
        self.log.events("summary").last()?.text("summary")
    }

    /// A counter or gauge of the worker.
    ///
    /// # Errors
    /// When there is no such series.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> Result<u64> {
        self.metrics.count(name, labels)
    }
}
