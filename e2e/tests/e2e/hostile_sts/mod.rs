//! An STS service that breaks every rule: the worker lives, loses nothing, stays small, and names
//! each kind of trouble once. One that is killed, stopped and cut off at random moments. And some that
//! let nobody in.
//!
//! The first two are judged by [`fates`]: what the worker's log says became of each segment is what is
//! heard, and what the metrics count.

mod acts;
mod doors;
mod offences;
pub(crate) mod plan;
pub(crate) mod random;
mod server;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::clock::ClipSpec;
use e2e::pipeline::{Evidence, Live};
use e2e::probe::FALLBACK_REASONS;
use e2e::probe::audio::Verdict;
use e2e::runner::Context;

use crate::{judge, wire};

/// Length of a segment in both runs.
const SEGMENT: Duration = Duration::from_secs(1);

pub(crate) fn run(context: &Context) -> Result<()> {
    context.parts(&[
        ("hostile", &|| offences::run(context)),
        ("random", &|| random::run(context)),
        ("unauthorized", &|| doors::unauthorized(context)),
        ("refused", &|| doors::refused(context)),
        ("refused_later", &|| doors::refused_later(context)),
        ("dropped", &|| doors::dropped(context)),
    ])
}

/// What became of a segment, by the worker's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The answer went out.
    Dubbed,
    /// Its own audio went out, for this reason.
    Fallback(String),
    /// Its own audio went out as intended: the tail of the clip is a little too short to be sent.
    Tail,
}

/// What the log says became of each segment. Fails unless every segment went out once, the sound
/// of the recording agrees one by one, and the metrics add up to it.
pub(crate) fn fates(evidence: &Evidence, segments: u64) -> Result<Vec<Fate>> {
    let mut fates = Vec::new();
    for batch in 0..segments {
        let dubbed = wire::of_batch(&evidence.log, "pair_started", batch)?.flag("dubbed");
        fates.push(if dubbed == Some(true) {
            Fate::Dubbed
        } else if batch + 1 == segments && count(evidence, "segment_original") == 1 {
            wire::of_batch(&evidence.log, "segment_original", batch)?;
            Fate::Tail
        } else {
            let fallback = wire::of_batch(&evidence.log, "fallback", batch)?;
            let reason = fallback.text("reason");
            Fate::Fallback(reason.context("a fallback without a reason")?.to_owned())
        });
    }
    let (started, fell_back) = (count(evidence, "pair_started"), count(evidence, "fallback"));
    let fallbacks = number_of(&fates, |fate| matches!(fate, Fate::Fallback(_)));
    ensure!(
        started as u64 == segments && fell_back as u64 == fallbacks,
        "{started} of {segments} segments were on air, {fell_back} times one fell back, {fallbacks} did"
    );
    heard(evidence, &fates)?;
    counted(evidence, &fates)?;
    Ok(fates)
}

fn number_of(fates: &[Fate], is_it: impl Fn(&Fate) -> bool) -> u64 {
    fates.iter().filter(|fate| is_it(fate)).count() as u64
}

fn count(evidence: &Evidence, event: &str) -> usize {
    evidence.log.events(event).count()
}

/// The sound alone tells the same story.
fn heard(evidence: &Evidence, fates: &[Fate]) -> Result<()> {
    let heard = evidence.heard(fates.len(), SEGMENT)?;
    let differ: Vec<String> = (0..)
        .zip(fates.iter().zip(&heard))
        .filter(|(_, (fate, verdict))| {
            let wanted = match fate {
                Fate::Dubbed => Verdict::Dubbed,
                Fate::Fallback(_) | Fate::Tail => Verdict::Original,
            };
            **verdict != wanted
        })
        .map(|(batch, (fate, verdict))| format!("{batch}: log {fate:?}, sound {verdict:?}"))
        .collect();
    if differ.is_empty() {
        Ok(())
    } else {
        bail!("log and sound disagree on segments {}", differ.join("; "))
    }
}

/// Every fallback is counted under its reason, and dubbed and fallbacks make up all segments.
fn counted(evidence: &Evidence, fates: &[Fate]) -> Result<()> {
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    for fate in fates {
        if let Fate::Fallback(reason) = fate {
            *reasons.entry(reason).or_default() += 1;
        }
    }
    for reason in FALLBACK_REASONS {
        let counted = evidence.count("worker_fallback_total", &[("reason", reason)])?;
        let wanted = reasons.remove(reason).unwrap_or(0);
        ensure!(
            counted == wanted,
            "{counted} fallbacks for {reason} were counted, {wanted} were logged"
        );
    }
    ensure!(
        reasons.is_empty(),
        "reasons nobody has heard of: {reasons:?}"
    );
    let dubbed = number_of(fates, |fate| *fate == Fate::Dubbed);
    let refused = evidence.count("worker_fallback_total", &[("reason", "bad_audio")])?;
    for (status, wanted) in [
        ("sent", count(evidence, "fragment_sent") as u64),
        ("processed", dubbed + refused),
        (
            "fallback",
            number_of(fates, |fate| matches!(fate, Fate::Fallback(_))),
        ),
    ] {
        let counted = evidence.count("worker_audio_fragments_total", &[("status", status)])?;
        ensure!(
            counted == wanted,
            "{counted} fragments were counted as {status}, not {wanted}"
        );
    }
    let cut = evidence.count("worker_segments_total", &[("kind", "audio")])?;
    ensure!(
        cut == fates.len() as u64,
        "{cut} segments were cut from the input"
    );
    Ok(())
}

/// Waits for the worker's end for this long, which is not expected.
fn ended_within(live: &Live, time: Duration) -> bool {
    live.worker.wait_exit(time).is_ok()
}

/// Watches the worker's memory until it ends.
fn watch_memory(live: &mut Live) -> Result<()> {
    let mut most = 0;
    let end = Instant::now() + Duration::from_mins(2);
    while !ended_within(live, Duration::from_millis(300)) && Instant::now() < end {
        most = live.worker.process().peak_kib().unwrap_or(most);
    }
    let name = live.environment.name();
    println!("{name}: the worker had {} MiB at most at once", most / 1024);
    judge::require_small(most)
}

fn complete(evidence: &Evidence, spec: &ClipSpec) -> Result<()> {
    evidence.require_every_picture(spec.frames())?;
    evidence.require_every_coded_frame()?;
    let panics = count(evidence, "panic");
    ensure!(panics == 0, "the worker panicked {panics} times");
    ensure!(
        evidence.log.strays.is_empty(),
        "the worker said aloud: {:?}",
        evidence.log.strays
    );
    Ok(())
}
