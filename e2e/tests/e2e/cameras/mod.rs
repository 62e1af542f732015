//! Whatever a camera sends: every row of the table is a stream of its own, a few side by side.
//!
//! Each row is judged on what came out (every picture by its number and by its coded bytes, flash against
//! beep), on latency, memory and exit code, and against what the camera itself says it sent.

pub(crate) mod also;
mod rows;

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use camera::Manner;
use e2e::clock::{self, ClipSpec};
use e2e::environment::Way;
use e2e::pipeline::{Evidence, Live};
use e2e::probe::frames::CodedFrames;
use e2e::runner::{Context, Part};
use e2e::secrets::PASSWORD;
use e2e::services::echo_sts::EchoStsOptions;
use e2e::services::media_server::Kind;
use e2e::threads::quietly;

use crate::stage::Stage as _;

/// Segments of the rows: short, so that a few seconds of clip have several.
const SEGMENT: Duration = Duration::from_secs(2);
/// A camera's step is over within a segment; one may have begun just before.
const SETTLED: f64 = 4.0;
/// How far flash and beep may be apart: half of this is what the probe measures on a clean stream.
const IN_SYNC_MS: f64 = 10.0;

/// A camera and what must come of it.
pub(crate) struct Row {
    name: &'static str,
    clip: ClipSpec,
    /// The clip in another form.
    recode: Option<e2e_ffmpeg::Recode>,
    way: Way,
    manner: Manner,
    segment: Duration,
    exit: i32,
    /// What its last words hold if it is refused.
    says: &'static str,
    /// The password the worker is given in place of the usual one.
    password: Option<&'static str>,
    /// Seconds of the clip in which lips need not be in sync.
    unsettled: Vec<Range<f64>>,
    /// Seconds of the clip in which no beep is heard.
    silent: Range<u32>,
    /// Pictures that never reach the worker whole.
    lost: Vec<u32>,
    /// So many seconds, each a GOP, may be over when a published stream can be read.
    unread: u32,
    /// Whether pictures can be read: the probe knows one rate and one size.
    readable: bool,
    sync_ms: f64,
    /// How far a step from picture to picture may be from the clip's.
    step_ms: f64,
    corrections: u64,
    latency: f64,
    memory_mib: u64,
    during: fn(&mut Live) -> Result<()>,
    also: fn(&Evidence) -> Result<()>,
}

impl Row {
    /// A row of so many seconds whose camera behaves so, and of which nothing may be lost or moved.
    pub(crate) fn new(name: &'static str, seconds: u32, manner: Manner) -> Self {
        Self {
            name,
            clip: ClipSpec::clock(seconds).small(),
            recode: None,
            way: Way::Camera,
            manner,
            segment: SEGMENT,
            exit: 0,
            says: "",
            password: None,
            unsettled: Vec::new(),
            silent: 0..0,
            lost: Vec::new(),
            unread: 3,
            readable: true,
            sync_ms: IN_SYNC_MS,
            step_ms: 3.0,
            corrections: 0,
            latency: 5.0,
            memory_mib: 150,
            during: |_| Ok(()),
            also: |_| Ok(()),
        }
    }

    /// Changes what must come of it.
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn run(&self, context: &Context) -> Result<String> {
        let mut clip = clock::cached(&self.clip)?;
        let folder = tempfile::tempdir().context("no place for a clip")?;
        if let Some(recode) = self.recode {
            let to = folder.path().join("clip.mp4");
            e2e_ffmpeg::recode(&clip, recode, &to).run()?;
            clip = to;
        }
        if self.exit != 0 {
            return also::refused(self, context, clip);
        }
        let pipeline = context
            .part(
                self.name,
                clip,
                Duration::from_secs(self.clip.seconds.into()),
            )
            .sts(EchoStsOptions::default())
            .way(self.way)
            .manner(self.manner.clone())
            .worker({
                let (segment, password) = (self.segment, self.password);
                move |options| {
                    options.segment_duration = Some(segment);
                    options.input_url = with_login(&options.input_url, password);
                }
            });
        let pipeline = if self.name.ends_with("sigterm") {
            pipeline.abrupt()
        } else {
            pipeline
        };
        let evidence = pipeline.run(self.during)?;
        let judged = self.judge(&evidence)?;
        (self.also)(&evidence)?;
        Ok(judged)
    }

    /// Everything every row is judged on.
    pub(crate) fn judge(&self, evidence: &Evidence) -> Result<String> {
        let memory = evidence.peak_kib / 1024;
        ensure!(memory > 0, "the worker's memory could not be read");
        ensure!(
            memory <= self.memory_mib,
            "the worker had {memory} MiB at once"
        );
        if self.name.ends_with("sigterm") {
            return Ok(format!("{memory} MiB"));
        }
        // The gauge would grow on while the worker looks for more input.
        let on_air = evidence.log.events("pair_started");
        let latency = on_air
            .filter_map(|pair| pair.number("latency_ms"))
            .fold(0.0, f64::max)
            / 1e3;
        ensure!(
            latency > 0.0 && latency <= self.latency,
            "the output is {latency:.1} s behind"
        );
        let corrections = evidence.count("worker_av_sync_corrections_total", &[])?;
        ensure!(
            corrections <= self.corrections,
            "sound was corrected {corrections} times"
        );
        let first = self.coded(evidence)?;
        let mut said = format!("latency {latency:.1} s, {memory} MiB, {corrections} corrections");
        if self.readable {
            said = format!("{}, {said}", self.seen(evidence, first)?);
        }
        Ok(said)
    }

    /// Every picture that was sent is in the recording, bit for bit; returns the number of the first.
    fn coded(&self, evidence: &Evidence) -> Result<u32> {
        let recording = evidence.recording()?.to_owned();
        let recorded: Vec<String> = quietly(move || {
            let frames = CodedFrames::video(&recording)?.0;
            Ok(frames.iter().map(|frame| hex(&frame.hash)).collect())
        })?;
        if let Some(sent) = &evidence.sent {
            let sessions: Vec<_> = sent
                .sessions
                .iter()
                .map(|session| session.pictures.len())
                .collect();
            ensure!(
                sessions.len() == 1,
                "the camera played to {} sessions: {sessions:?}",
                sessions.len()
            );
            let sent = &sent.sessions[0].pictures;
            let whole = self.clip.frames() as usize - self.lost.len();
            ensure!(
                sent.len() == whole,
                "the camera sent {} pictures, not {whole}",
                sent.len()
            );
            let missing = sent
                .iter()
                .filter(|picture| !recorded.contains(&picture.slices))
                .count();
            let equal = recorded
                .iter()
                .eq(sent.iter().map(|picture| &picture.slices));
            ensure!(
                equal,
                "{} pictures were sent, {} came out, {missing} of those sent are missing or altered",
                sent.len(),
                recorded.len()
            );
            return Ok(0);
        }
        ensure!(
            matches!(self.way, Way::Published { .. }),
            "the camera did not say what it sent"
        );
        // What ffmpeg sent before the worker read is nobody's loss.
        let comparison = evidence.coded_frames(CodedFrames::video)?;
        let first = comparison.input - comparison.recorded;
        ensure!(
            comparison.matched == comparison.recorded
                && first <= (self.unread * self.clip.gop) as usize,
            "not the clip from a keyframe on: {comparison}"
        );
        Ok(first as u32)
    }

    /// Every picture by its number, its time, and what is heard with it.
    fn seen(&self, evidence: &Evidence, first: u32) -> Result<String> {
        let clock = evidence.clock()?;
        let mut sequence = clock.sequence(first..self.clip.frames());
        sequence
            .missing
            .retain(|number| !self.lost.contains(number));
        ensure!(sequence.is_perfect(), "{sequence}");
        let steps = clock.steps();
        ensure!(
            steps.worst_step_error_ms.abs() <= self.step_ms,
            "picture times step unevenly: {steps:?}"
        );
        let mut sync = clock.sync();
        let settled = |second: u32| {
            !self
                .unsettled
                .iter()
                .any(|range| range.contains(&f64::from(second)))
        };
        sync.flash_only
            .retain(|second| settled(*second) && !self.silent.contains(second));
        ensure!(
            sync.flash_only.is_empty(),
            "no beep in seconds {:?}",
            sync.flash_only
        );
        sync.skews.retain(|skew| settled(skew.second));
        let worst = sync.worst_ms();
        ensure!(
            worst.abs() <= self.sync_ms,
            "flash and beep are {worst:.1} ms apart: {:?}",
            skews(&sync)
        );
        let heard = sync
            .skews
            .iter()
            .filter(|skew| self.silent.contains(&skew.second))
            .count();
        ensure!(heard == 0, "{heard} beeps where there was no sound");
        Ok(format!(
            "{} pictures, lips within {worst:+.1} ms",
            clock.pictures.len()
        ))
    }
}

/// With another password than every scenario carries.
fn with_login(url: &str, password: Option<&str>) -> String {
    password.map_or_else(|| url.to_owned(), |other| url.replace(PASSWORD, other))
}

fn skews(sync: &e2e::probe::clock::Sync) -> Vec<(u32, i64)> {
    let skews = sync.skews.iter();
    skews
        .map(|skew| (skew.second, skew.ms.round() as i64))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// One of the streams that ffmpeg publishes, as a part of another scenario: with it MediaMTX has a real
/// publisher there. Nothing where MediaMTX does not run.
pub(crate) fn published(context: &Context, which: &str) -> Result<()> {
    let rows = rows::of_mediamtx().into_iter();
    for row in rows.filter(|row| row.name == which && context.media_server() == Kind::MediaMtx) {
        let said = row.run(context).context(row.name)?;
        println!("{}: {}: {said}", context.name(), row.name);
    }
    Ok(())
}

pub(crate) fn run(context: &Context) -> Result<()> {
    let mut rows = rows::of_cameras()?;
    if context.media_server() == Kind::MediaMtx {
        rows.extend(rows::of_mediamtx());
    } else {
        println!(
            "cameras: SKIPPED the rows in which ffmpeg publishes to MediaMTX, which does not run here"
        );
    }
    // The longest first.
    rows.sort_by_key(|row| std::cmp::Reverse(row.clip.seconds));
    let run = |row: &Row| -> Result<()> {
        let said = row.run(context)?;
        println!("cameras: {}: {said}", row.name);
        Ok(())
    };
    let parts: Vec<_> = rows
        .iter()
        .map(|row| (row.name, move || run(row)))
        .collect();
    let parts: Vec<Part<'_>> = parts
        .iter()
        .map(|(name, part)| (*name, part as _))
        .collect();
    context.parts(&parts)
}
