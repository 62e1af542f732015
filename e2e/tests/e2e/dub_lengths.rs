//! Answers as long as translated speech really is: with `--dub-fit stretch` they are heard, with `refuse`
//! few are.
//!
//! Segments of 2 s, and `echo-sts` in its mode `speech`. Two runs of 40 segments have lengths drawn around
//! +22 % with a spread of 12 %; two short ones have every length of a list once, and what is heard of each
//! is a table. The original is a steady tone, the dub's own tone is the marker, so pitch and damage can be
//! measured. All runs write captions, which say the seconds they belong to.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::clock::{ClipSpec, cached};
use e2e::pipeline::{Evidence, Live};
use e2e::probe::audio::{self, Segment, Sound};
use e2e::probe::captions;
use e2e::probe::clock::Clock;
use e2e::runner::{self, Context};
use e2e::services::echo_sts::EchoStsOptions;
use sts_protocol::{Direction, event, mark};

use crate::stage::Stage;
use crate::wire;

const SEGMENT: Duration = Duration::from_secs(2);
const SECONDS: f64 = 2.0;
const TONE_HZ: f64 = 997.0;
const SEGMENTS: u64 = 40;
/// Draws lengths from 1.01 to 1.55: one beyond what is allowed, four below 1.1, none at a border.
const SEED: u64 = 16;
/// What is a little too long for 1.4 may run on by so much: starts stay within what lips allow.
const SPILL: &str = "100ms";
/// Silence of `echo-sts` at each end of an answer, in seconds.
const SILENCE: f64 = 0.08;
/// Lengths of the table.
const FACTORS: [f64; 8] = [0.4, 0.6, 0.85, 0.92, 1.08, 1.2, 1.35, 1.6];
/// A dub is heard where the marker is in more than this share of a segment, the original in less than half
/// of it: the shortest answer of the list fills 0.4.
const HEARD: f64 = 0.25;
const PATIENCE: Duration = Duration::from_secs(40);

/// How lengths that do not fit are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    Refuse,
    Stretch,
}

pub(crate) fn run(stage: &Context) -> Result<()> {
    let drawn = |fit| move || drawn(&play(stage, fit, None)?, fit);
    let listed = |fit| move || listed(stage, &play(stage, fit, Some(FACTORS))?, fit);
    let parts: [runner::Part<'_>; 4] = [
        ("stretch", &drawn(Fit::Stretch)),
        ("refuse", &drawn(Fit::Refuse)),
        ("stretch-list", &listed(Fit::Stretch)),
        ("refuse-list", &listed(Fit::Refuse)),
    ];
    stage.parts(&parts)
}

/// What was seen, and what is heard of each segment.
struct Played {
    evidence: Evidence,
    sound: Sound,
    clock: Clock,
    heard: Vec<Segment>,
}

impl Played {
    fn is_dubbed(&self) -> Vec<bool> {
        let dubbed = |segment: &Segment| segment.marker_share > HEARD;
        self.heard.iter().map(dubbed).collect()
    }

    /// Length of each answer over that of its segment, without the silence at its ends.
    fn lengths(&self) -> Result<Vec<f64>> {
        let length = |name: &str, direction| -> Vec<f64> {
            let entries = self.evidence.journal.events(direction, name);
            entries
                .filter_map(|entry| Some(entry.duration_ms? as f64 / 1e3))
                .collect()
        };
        let sent = length(event::FRAGMENT_DATA, Direction::In);
        let answered = length(event::FRAGMENT_PROCESSED, Direction::Out);
        ensure!(
            sent.len() == self.heard.len() && answered.len() == sent.len(),
            "{} segments, {} sent, {} answered",
            self.heard.len(),
            sent.len(),
            answered.len()
        );
        let both = sent.iter().zip(&answered);
        Ok(both
            .map(|(sent, got)| (got - 2.0 * SILENCE) / sent)
            .collect())
    }
}

fn play(stage: &Context, fit: Fit, list: Option<[f64; 8]>) -> Result<Played> {
    let (name, segments) = match (fit, list) {
        (Fit::Stretch, None) => ("stretch", SEGMENTS),
        (Fit::Refuse, None) => ("refuse", SEGMENTS),
        (Fit::Stretch, Some(_)) => ("stretch-list", FACTORS.len() as u64),
        (Fit::Refuse, Some(_)) => ("refuse-list", FACTORS.len() as u64),
    };
    let length = SEGMENT * segments as u32;
    let spec = ClipSpec::tone(TONE_HZ, length.as_secs() as u32).small();
    let factors = list.map(|list| list.map(|factor| factor.to_string()).join(","));
    let sts = EchoStsOptions::mode("speech").with("--seed", SEED);
    let sts = match factors {
        Some(list) => sts.with("--audio-ratios", list),
        None => sts,
    };
    let evidence = stage
        .part(name, cached(&spec)?, length)
        .sts(sts)
        .worker(move |options| {
            options.segment_duration = Some(SEGMENT);
            options.captions = true;
            if fit == Fit::Stretch {
                options.set("WORKER_DUB_FIT", "stretch");
                options.set("WORKER_DUB_SPILL", SPILL);
            }
        })
        .run(|live| pages(live))?;
    let clock = evidence.require_every_picture(spec.frames())?;
    evidence.require_every_coded_frame()?;
    let sound = evidence.sound()?;
    ensure!(
        sound.breaks().is_empty(),
        "audio is not continuous: {:?}",
        sound.breaks()
    );
    let stretches: Vec<_> = (0..segments)
        .map(|n| (n as f64 * SECONDS, (n + 1) as f64 * SECONDS))
        .collect();
    let heard = audio::segments(&sound, &stretches, mark::TONE_HZ);
    let played = Played {
        evidence,
        sound,
        clock,
        heard,
    };
    counted(&played)?;
    captioned(&played)?;
    let clicks = audio::clicks(&played.sound);
    ensure!(clicks.is_empty(), "clicks in the output: {clicks:?}");
    Ok(played)
}

/// While the stream is on air its captions are served.
fn pages(live: &Live) -> Result<()> {
    live.worker.wait_batch("pair_started", 2, PATIENCE)?;
    let (status, vtt) = live.worker.page("/captions.vtt")?;
    ensure!(
        status == 200 && vtt.starts_with("WEBVTT\n\n"),
        "{status}: {vtt}"
    );
    let (status, json) = live.worker.page("/captions")?;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    let cues = json["cues"].as_array().context("no cues")?;
    ensure!(
        status == 200 && json["stream_id"] == live.environment.stream_id(),
        "{status}: {json}"
    );
    for cue in cues {
        let text = cue["text"].as_str().context("a cue without text")?;
        let (said, start) = (second_of(text)?, cue["start"].as_f64());
        ensure!(
            start.is_some_and(|start| (start - said).abs() < 0.5),
            "{cue} is not at its second"
        );
        ensure!(vtt.contains(text), "{text} is in the JSON alone");
    }
    Ok(())
}

/// The counters and the last line say what is heard.
fn counted(played: &Played) -> Result<()> {
    let is_dubbed = played.is_dubbed();
    let dubbed = is_dubbed.iter().filter(|dubbed| **dubbed).count() as u64;
    let original = is_dubbed.len() as u64 - dubbed;
    let switches = is_dubbed.windows(2).filter(|two| two[0] != two[1]).count();
    for (label, wanted) in [("dubbed", dubbed), ("original", original)] {
        let name = "worker_segments_on_air_total";
        let counted = played.evidence.count(name, &[("audio", label)])?;
        ensure!(
            counted == wanted,
            "{wanted} are heard {label}, {counted} counted: {:?}",
            played.heard
        );
    }
    let summary = played.evidence.log.events("summary").last();
    let summary = summary.context("the run has no summary")?;
    let told = (
        wire::number(summary, "dubbed")?,
        wire::number(summary, "original")?,
    );
    ensure!(told == (dubbed, original), "the summary says {told:?}");
    let per_minute = switches as f64 * 60.0 / (is_dubbed.len() as f64 * SECONDS);
    let told = summary.number("switches_per_minute").unwrap_or(-1.0);
    ensure!(
        (told - per_minute).abs() < 0.2,
        "{told} language switches, not {per_minute}"
    );
    let refused = played
        .evidence
        .count("worker_dub_fit_total", &[("how", "refused")])?;
    ensure!(
        refused == original,
        "{refused} counted as refused, {original} heard in the original"
    );
    Ok(())
}

/// Two cues over every dubbed segment, each over the second it names, none over the original.
fn captioned(played: &Played) -> Result<()> {
    let file = played.evidence.directory.join("test.vtt");
    let cues = captions::read(&file).with_context(|| file.display().to_string())?;
    let mut shown = vec![0; played.heard.len()];
    for cue in &cues {
        let second = second_of(&cue.text)?;
        ensure!(
            (cue.start - second).abs() <= 0.25 && (cue.end - second - 1.0).abs() <= 0.25,
            "{cue:?} is not over its second"
        );
        let batch = (f64::midpoint(cue.start, cue.end) / SECONDS) as usize;
        *shown.get_mut(batch).context("a cue after the end")? += 1;
    }
    let wanted: Vec<_> = played
        .is_dubbed()
        .iter()
        .map(|dubbed| 2 * usize::from(*dubbed))
        .collect();
    ensure!(
        shown == wanted,
        "cues over each segment: {shown:?}, not {wanted:?}"
    );
    Ok(())
}

/// The second that a caption of `echo-sts` names.
fn second_of(text: &str) -> Result<f64> {
    let number = text
        .strip_prefix("Segundo ")
        .and_then(|rest| rest.strip_suffix('.'));
    let number = number.with_context(|| format!("{text:?} names no second"))?;
    Ok(number.parse()?)
}

/// The long runs.
fn drawn(played: &Played, fit: Fit) -> Result<()> {
    let is_dubbed = played.is_dubbed();
    let dubbed = is_dubbed.iter().filter(|dubbed| **dubbed).count();
    let lengths = played.lengths()?;
    let mean = lengths.iter().sum::<f64>() / lengths.len() as f64;
    ensure!(
        (1.15..=1.29).contains(&mean),
        "answers are {mean:.3} as long: {lengths:?}"
    );
    if fit == Fit::Refuse {
        // Silence gives way first, so it is the speech that must not be more than a tenth too long.
        let pairs = || lengths.iter().zip(&is_dubbed);
        ensure!(
            pairs().all(|(length, dubbed)| *dubbed || *length > 1.09)
                && pairs().all(|(length, dubbed)| !*dubbed || *length < 1.11),
            "heard dubbed: {is_dubbed:?} of lengths {lengths:?}"
        );
        ensure!(dubbed * 4 <= is_dubbed.len(), "{dubbed} are heard dubbed");
        let hint = |record: &&e2e::probe::logs::Record| {
            let reason = record.text("reason").unwrap_or_default();
            reason.contains("--dub-fit stretch")
        };
        let hints = played.evidence.log.events("bad_audio").filter(hint).count();
        ensure!(
            hints == is_dubbed.len() - dubbed,
            "{hints} warnings name the option"
        );
        return Ok(());
    }
    ensure!(
        dubbed * 100 >= is_dubbed.len() * 95,
        "{dubbed} of {} are heard dubbed",
        is_dubbed.len()
    );
    for (batch, segment) in played
        .heard
        .iter()
        .enumerate()
        .filter(|(n, _)| is_dubbed[*n])
    {
        ensure!(
            segment.marker_share >= 0.85,
            "segment {batch} is dubbed in part: {segment:?}"
        );
        let hz = marker_hz(&played.sound, segment);
        ensure!(
            (hz / mark::TONE_HZ - 1.0).abs() <= 0.01,
            "the tone of segment {batch} is at {hz:.0} Hz"
        );
        let off = onset(&played.sound, segment.start)? - flash(&played.clock, segment.start)?;
        ensure!(
            (-0.03..=0.12).contains(&off),
            "the dub of segment {batch} starts {off:.3} s after the flash"
        );
    }
    flat(&played.evidence)
}

/// Where the marker really lies, in Hz.
fn marker_hz(sound: &Sound, segment: &Segment) -> f64 {
    let middle = f64::midpoint(segment.start, segment.end);
    let level = |hz: i32| audio::tone_db(sound, f64::from(hz), middle, 0.5);
    let around = (mark::TONE_HZ as i32 - 100)..=(mark::TONE_HZ as i32 + 100);
    let best = around.max_by(|a, b| level(*a).total_cmp(&level(*b)));
    best.map_or(0.0, f64::from)
}

/// When the marker begins to be heard after `start`.
fn onset(sound: &Sound, start: f64) -> Result<f64> {
    let half = mark::TONE_DBFS - 6.0;
    let heard = |at: &f64| audio::tone_db(sound, mark::TONE_HZ, *at, 0.02) >= half;
    let mut moments = (0..160).map(|n| start - 0.02 + f64::from(n) * 0.0025);
    moments.find(heard).context("no marker within 0.4 s")
}

/// When the flash of the second at `start` is seen.
fn flash(clock: &Clock, start: f64) -> Result<f64> {
    let mut lit = clock.pictures.iter().filter(|picture| picture.lit);
    let found = lit.find(|picture| (picture.at - start).abs() < 0.3);
    Ok(found.with_context(|| format!("no flash at {start}"))?.at)
}

/// The output's latency neither grows nor swings.
fn flat(evidence: &Evidence) -> Result<()> {
    let latencies = evidence.log.events("pair_started").skip(3);
    let latencies: Vec<_> = latencies
        .filter_map(|record| record.number("latency_ms"))
        .collect();
    // What the start took longer is won back; nothing is lost again.
    let mut least = f64::MAX;
    for latency in &latencies {
        least = least.min(*latency);
        ensure!(
            latency - least <= 400.0,
            "latency from {least} to {latency} ms: {latencies:?}"
        );
    }
    Ok(())
}

/// The short runs: the table of what was heard.
fn listed(stage: &Context, played: &Played, fit: Fit) -> Result<()> {
    let mut how: Vec<&str> = vec![""; FACTORS.len()];
    for record in played.evidence.log.events("dub_fitted") {
        let batch = wire::number(record, "batch")? as usize;
        *how.get_mut(batch).context("an unknown batch")? = record.text("how").unwrap_or_default();
    }
    let rows = FACTORS.iter().zip(&played.heard).zip(how);
    let rows: Vec<String> = rows
        .map(|((factor, segment), how)| {
            let share = segment.marker_share;
            if share <= HEARD {
                return format!("{factor:.2}: the original");
            }
            // The tenth of a segment that its edges and its silence take is no matter.
            let part = match share {
                share if share > 0.85 => "all through".to_owned(),
                share => format!("for {share:.1} of it"),
            };
            format!("{factor:.2}: the dub {part} {how}")
                .trim_end()
                .to_owned()
        })
        .collect();
    let name = match fit {
        Fit::Refuse => "dub_lengths__refuse",
        Fit::Stretch => "dub_lengths__stretch",
    };
    stage.snapshot(name, &rows);
    Ok(())
}
