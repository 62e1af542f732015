//! User story 6: the connection to the STS service is lost, the stream is not.
//!
//! Two runs side by side. In one the service hangs up twice and comes back, the second time only
//! after having refused an attempt. In the other it is killed and stays away.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::clock::{ClipSpec, cached};
use e2e::pipeline::{Evidence, Live};
use e2e::probe::audio::Verdict;
use e2e::probe::frames::{self, CodedFrames};
use e2e::probe::logs::{Log, Record};
use e2e::runner::{Context, MAIN};
use e2e::services::echo_sts::EchoStsOptions;
use e2e::threads::quietly;
use sts_protocol::{Direction, SimulateDisconnect, event};

use crate::stage::Stage;
use crate::wire;

const SEGMENT: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(30);
/// From a segment's boundary to the middle between it and the next.
const MIDWAY_MS: u64 = 1_000;

/// The run that goes on: two fragments are in flight at each loss.
const CLIP: u32 = 28;
const SEGMENTS: u64 = 14;
const LATENCY: Duration = Duration::from_millis(3_600);
const FIRST_LOSS: u64 = 3;
const SECOND_LOSS: u64 = 7;
/// Over the first attempt, which comes after 2 s, and not the second, 4 s later.
const REFUSE_MS: u64 = 3_500;

/// The run that ends: killed after the first of 2 + 4 + 8 + 16 + 32 s, gone well before its end.
const LONG_CLIP: u32 = 76;
const KILL_AFTER: Duration = Duration::from_millis(1_400);
const DELAYS_MS: [f64; 5] = [2_000.0, 4_000.0, 8_000.0, 16_000.0, 32_000.0];

pub(crate) fn run(stage: &Context) -> Result<()> {
    stage.parts(&[
        (MAIN, &|| judge_back(stage, &come_back(stage)?)),
        ("gone", &|| judge_gone(stage, &go_for_good(stage)?)),
    ])
}

fn sts(latency: Duration) -> EchoStsOptions {
    EchoStsOptions::mode("mark").latency(latency)
}

fn come_back(stage: &Context) -> Result<Evidence> {
    stage
        .pipeline(cached(&spec(CLIP))?, Duration::from_secs(CLIP.into()))
        .sts(sts(LATENCY))
        .worker(|options| options.segment_duration = Some(SEGMENT))
        .run(hang_up_twice)
}

fn judge_back(stage: &Context, evidence: &Evidence) -> Result<()> {
    stage.snapshot("reconnection__metrics", &wire::metric_set(evidence));
    stage.snapshot("reconnection__sts_events", &wire::wire(evidence));
    losses(evidence)?;
    sessions(evidence)?;
    let away = [(2..5, "disconnected"), (6..11, "disconnected")];
    wire::require_outcome(evidence, SEGMENTS, SEGMENT, &away)?;
    attempts(evidence, 2, 1)?;
    wire::require_stalls(evidence, &[])?;
    evidence.require_every_picture(spec(CLIP).frames())?;
    evidence.require_every_coded_frame()?;
    Ok(())
}

fn spec(seconds: u32) -> ClipSpec {
    ClipSpec::clock(seconds).small()
}

fn hang_up_twice(live: &mut Live) -> Result<()> {
    let control = live.environment.echo_sts().control()?;
    let stream_id = live.environment.stream_id();
    for (batch, refuse_for_ms) in [(FIRST_LOSS, None), (SECOND_LOSS, Some(REFUSE_MS))] {
        live.worker.wait_batch("fragment_sent", batch, PATIENCE)?;
        live.tell(&format!("STS hangs up after segment {batch}"));
        control.send(SimulateDisconnect {
            stream_id: Some(stream_id.to_owned()),
            delay_ms: MIDWAY_MS,
            refuse_for_ms,
        })?;
    }
    Ok(())
}

fn times(log: &Log, event: &str) -> Result<Vec<f64>> {
    log.events(event).map(Record::unix_ms).collect()
}

/// At each loss two fragments were out, and fell back at once; attempts came when they had to.
fn losses(evidence: &Evidence) -> Result<()> {
    let simulated = evidence
        .journal
        .events(Direction::Local, "simulated_disconnect");
    let faults: Vec<f64> = simulated.map(|entry| entry.time_ms).collect();
    ensure!(faults.len() == 2, "echo-sts hung up {} times", faults.len());
    let lost: Vec<&Record> = evidence.log.events("sts_disconnected").collect();
    ensure!(lost.len() == 2, "the worker noticed {} losses", lost.len());
    for ((fault, lost), last) in faults.iter().zip(lost).zip([FIRST_LOSS, SECOND_LOSS]) {
        wire::within("notices the loss", lost.unix_ms()? - fault, -5.0, 300.0)?;
        let out = wire::number(lost, "in_flight")?;
        ensure!(
            out == 2,
            "{out} fragments were in flight at the loss after {last}"
        );
        for batch in [last - 1, last] {
            let fell_back = wire::of_batch(&evidence.log, "fallback", batch)?.unix_ms()?;
            wire::within("falls back", fell_back - lost.unix_ms()?, 0.0, 200.0)?;
        }
        let next = last + 1;
        let ready = wire::of_batch(&evidence.log, "segment_ready", next)?.unix_ms()?;
        let fell_back = wire::of_batch(&evidence.log, "fallback", next)?.unix_ms()?;
        wire::within("falls back while away", fell_back - ready, 0.0, 200.0)?;
    }
    let connecting = times(&evidence.log, "sts_connecting")?;
    ensure!(
        connecting.len() == 4,
        "{} connections were tried",
        connecting.len()
    );
    scheduled(&evidence.log, &[2_000.0, 2_000.0, 4_000.0])?;
    let refused = wire::simulated(evidence, "refused");
    ensure!(refused == 1, "{refused} attempts were refused");
    let failed = evidence.log.events("sts_connect_failed").count();
    ensure!(failed == 1, "{failed} attempts failed");
    Ok(())
}

/// The log announces these delays, and the attempts came after them, within 10 %.
fn scheduled(log: &Log, delays: &[f64]) -> Result<()> {
    let records: Vec<&Record> = log.events("reconnect_scheduled").collect();
    let announced: Vec<_> = records
        .iter()
        .filter_map(|record| record.number("delay_ms"))
        .collect();
    ensure!(
        announced == delays,
        "reconnects were scheduled after {announced:?} ms"
    );
    // The first connection is the one at the start.
    let tried = times(log, "sts_connecting")?;
    ensure!(
        tried.len() == delays.len() + 1,
        "{} connections were tried",
        tried.len()
    );
    for ((record, tried), delay) in records.iter().zip(&tried[1..]).zip(delays) {
        let gap = tried - record.unix_ms()?;
        wire::within(
            &format!("the retry due after {delay} ms"),
            gap,
            delay * 0.9,
            delay * 1.1,
        )
        .with_context(|| wire::lateness(log))?;
    }
    Ok(())
}

/// Each connection begins with `stream:init`, and its fragments with number 0, at a whole segment.
fn sessions(evidence: &Evidence) -> Result<()> {
    let journal = evidence.journal.of_stream("test");
    let inits = journal.events(Direction::In, event::STREAM_INIT).count();
    ensure!(
        inits == 3 && journal.sessions().len() == 3,
        "{inits} times stream:init"
    );
    let got: Vec<_> = wire::sent(evidence)?
        .into_iter()
        .map(|fragment| {
            (
                fragment.batch,
                fragment.seen.session,
                fragment.seen.sequence,
            )
        })
        .collect();
    let expected: Vec<_> = [(1, 0..4_u64), (2, 5..8), (3, 11..SEGMENTS)]
        .into_iter()
        .flat_map(|(session, batches)| {
            let first = batches.start;
            batches.map(move |batch| (batch, Some(session), Some(batch - first)))
        })
        .collect();
    ensure!(
        got == expected,
        "segments, sessions and numbers were {got:?}"
    );
    Ok(())
}

fn attempts(evidence: &Evidence, success: u64, failure: u64) -> Result<()> {
    let attempts = |outcome| {
        evidence.count(
            "worker_reconnection_attempts_total",
            &[("outcome", outcome)],
        )
    };
    let counted = (
        evidence.count("worker_reconnection_total", &[])?,
        attempts("success")?,
        attempts("failure")?,
    );
    ensure!(
        counted == (success, success, failure),
        "reconnections were counted as {counted:?}"
    );
    Ok(())
}

fn go_for_good(stage: &Context) -> Result<Evidence> {
    let length = Duration::from_secs(LONG_CLIP.into());
    stage
        .part("gone", cached(&spec(LONG_CLIP))?, length)
        .sts(sts(Duration::from_millis(200)))
        .worker(|options| options.segment_duration = Some(SEGMENT))
        .exit(13)
        .run(|live| {
            live.worker.wait_log("segment_ready", PATIENCE)?;
            // Not a wait for anything: the end, 62 s later, falls between two boundaries.
            thread::sleep(KILL_AFTER);
            live.environment.echo_sts().kill();
            live.tell("STS is killed");
            Ok(())
        })
}

fn judge_gone(stage: &Context, evidence: &Evidence) -> Result<()> {
    stage.snapshot("reconnection__gone_metrics", &wire::metric_set(evidence));
    stage.snapshot("reconnection__gone_sts_events", &wire::wire(evidence));
    scheduled(&evidence.log, &DELAYS_MS)?;
    attempts(evidence, 0, 5)?;
    let gone = evidence.log.first("sts_gone")?;
    prefix(evidence, gone.unix_ms()?)?;
    dubbed_once(evidence)?;
    wire::require_stalls(evidence, &[])?;
    Ok(())
}

/// What had come in when the worker gave up was published: from the first frame on, without a gap.
fn prefix(evidence: &Evidence, gone: f64) -> Result<()> {
    let clock = evidence.clock()?;
    let frames = u32::try_from(clock.pictures.len())?;
    let sequence = clock.sequence(0..frames);
    ensure!(
        sequence.is_perfect(),
        "the recording is no prefix of the clip: {sequence}"
    );
    let came_in = (gone - evidence.first_packet_ms) / 1e3;
    let recorded = f64::from(frames) / f64::from(clock.fps);
    ensure!(
        (came_in - 0.5..came_in + 0.5).contains(&recorded),
        "{recorded:.2} s are in the recording, {came_in:.2} s had come in when the worker gave up"
    );

    let (clip, recording) = (evidence.clip.clone(), evidence.recording()?.to_owned());
    quietly(move || {
        let mut clip = CodedFrames::video(&clip)?;
        let recorded = CodedFrames::video(&recording)?;
        clip.0.truncate(recorded.0.len());
        frames::compare(&clip, &recorded).require_exact()
    })?;
    let sound = evidence.sound()?;
    ensure!(
        sound.breaks().is_empty(),
        "audio timestamps are not continuous: {:?}",
        sound.breaks()
    );
    let length = sound.end() - sound.start();
    ensure!(
        (length - recorded).abs() < 0.5,
        "{length:.2} s of sound, {recorded:.2} s of pictures"
    );
    Ok(())
}

/// Only the segment before the kill is dubbed; the rest, the last piece included, is original.
fn dubbed_once(evidence: &Evidence) -> Result<()> {
    let segments = evidence.log.events("segment_ready").count();
    let mut heard = evidence.heard(segments, SEGMENT)?;
    ensure!(
        heard.remove(0) == Verdict::Dubbed,
        "the first segment is not dubbed"
    );
    let original = heard.iter().all(|verdict| *verdict == Verdict::Original);
    ensure!(original, "after the first segment one hears {heard:?}");
    let fallbacks = evidence.count("worker_fallback_total", &[("reason", "disconnected")])?;
    ensure!(
        fallbacks as usize == segments - 1,
        "{fallbacks} of {segments} segments fell back"
    );
    Ok(())
}
