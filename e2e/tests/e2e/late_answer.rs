//! An answer that takes 6.5 s: output waits for it once, loses nothing, and wins its latency back so
//! gently that nobody sees it.
//!
//! Segments of 2 s. Segment 5 is answered 6.5 s after it was sent, all others after 2 s. The head room,
//! which the log tells, is used up first, so output stands for almost 4.5 s (MediaMTX would not record
//! what came later than 5 s). At 4 % that takes two minutes to win back: the scenario is long, but
//! hardly any work.
//!
//! A viewer with a stopwatch watches the output. How old a picture is when it arrives there is what
//! `worker_output_latency_seconds` must say.

mod seen;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::clock::{ClipSpec, cached};
use e2e::pipeline::{Evidence, Live};
use e2e::runner::Context;
use e2e::services::echo_sts::EchoStsOptions;
use e2e::services::viewer::Viewer;
use sts_protocol::{Direction, LatencyConfig, event};

use self::seen::{CATCH_UP, LATE, Seen, after_the_stall, latency_is_back};
use crate::stage::Stage;
use crate::wire;

const CLIP: u32 = 156;
const SEGMENT: Duration = Duration::from_secs(2);
const SEGMENTS: u64 = 78;
const USUAL: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_millis(6_500);
/// How much later than usual that is.
const LATER: Duration = ANSWER.saturating_sub(USUAL);
/// What may be left of the latency that a slow start cost, beside the head room.
const SPARE: f64 = 300.0;
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn run(stage: &Context) -> Result<()> {
    let spec = ClipSpec::clock(CLIP).small();
    let sts = EchoStsOptions::mode("mark").latency(USUAL);
    let mut watched = None;
    let evidence = stage
        .pipeline(cached(&spec)?, Duration::from_secs(CLIP.into()))
        .sts(sts)
        .worker(|options| options.segment_duration = Some(SEGMENT))
        .run(|live| {
            let viewer = watch(live)?;
            answer_late(live)?;
            recover(live)?;
            watched = Some((viewer, live.sent_at));
            Ok(())
        })?;
    stalled_once(&evidence)?;
    let (viewer, sent_at) = watched.context("nobody watched")?;
    let arrivals = viewer.finish(&evidence.clip)?;
    let seen = Seen::new(&arrivals, sent_at);
    seen.gentle()?;
    seen.agrees_with(&evidence)?;
    latency_is_back(&evidence)?;
    wire::require_outcome(&evidence, SEGMENTS, SEGMENT, &[])?;
    evidence.require_every_picture(spec.frames())?;
    evidence.require_every_coded_frame()
}

/// Lets a viewer join as soon as there is something to see.
fn watch(live: &Live) -> Result<Viewer> {
    live.environment
        .media_server()
        .wait_rtmp_published(&live.environment.output_path(), PATIENCE)?;
    let viewer = Viewer::start(
        live.environment.place(),
        "viewer",
        &live.environment.output_url(),
    )?;
    viewer.wait_frame(PATIENCE)?;
    Ok(viewer)
}

fn answer_late(live: &Live) -> Result<()> {
    let echo_sts = live.environment.echo_sts();
    let control = echo_sts.control()?;
    let latency = |latency: Duration| {
        control.send(LatencyConfig {
            stream_id: Some(live.environment.stream_id().to_owned()),
            base_ms: latency.as_millis() as u64,
            ..LatencyConfig::default()
        })
    };
    let arrived = |count: u64| {
        echo_sts.wait_journal(&format!("{count} fragments"), PATIENCE, |journal| {
            journal.events(Direction::In, event::FRAGMENT_DATA).count() as u64 == count
        })
    };
    arrived(LATE)?;
    latency(ANSWER)?;
    arrived(LATE + 1)?;
    latency(USUAL)?;
    live.tell("an answer takes 6.5 s");
    Ok(())
}

/// Waits for the old latency.
fn recover(live: &Live) -> Result<()> {
    let started = live
        .worker
        .wait_record("catch_up_started", PATIENCE * 2, |record| {
            after_the_stall(record, "catch_up_started")
        })?;
    live.tell("latency is being won back");
    let excess = LATER.as_secs_f64() / (CATCH_UP - 1.0);
    let patience = Duration::from_secs_f64(excess) + PATIENCE;
    live.worker
        .wait_record("catch_up_done", patience, |record| {
            after_the_stall(record, "catch_up_done")
        })
        .with_context(|| format!("after {started:?}"))?;
    live.tell("latency is back");
    Ok(())
}

/// The answer was late, and output waited for it; for anything else only because the machine was late.
fn stalled_once(evidence: &Evidence) -> Result<()> {
    let sent = wire::sent(evidence)?;
    let late = sent
        .iter()
        .find(|fragment| fragment.batch == LATE)
        .context("the late fragment was not sent")?;
    let took = late.seen.processing_ms().context("it was not answered")?;
    wire::within("the late answer", took, 6_400.0, 7_000.0)?;

    let mut waited = None;
    let mut short = 0;
    for stall in evidence.log.events("stall") {
        let ms = stall.number("duration_ms").context("for no time")?;
        if wire::number(stall, "batch")? == LATE {
            waited = Some(ms);
        } else {
            ensure!(ms < SPARE, "output waited for {stall:?}");
            short += 1;
        }
    }
    let waited = waited.context("output did not wait for the late answer")?;
    // Until its latency is won back the worker has no head room: whatever the machine is late then is a
    // stall, and counted as it should be. But only a machine that is late excuses one.
    let busy = evidence.log.events("behind").count();
    ensure!(
        short <= busy,
        "output waited {short} times more, the worker was behind {busy} times"
    );
    let started = evidence.log.events("output_started").next();
    let head_room = started
        .and_then(|record| record.number("head_room_ms"))
        .context("the log does not tell the head room")?;
    let expected = LATER.as_millis() as f64 - head_room;
    wire::within("the stall", waited, expected - SPARE, expected + SPARE)?;
    wire::require_stalls(evidence, &[LATE])?;
    // Each stall is a warning, and nothing else is.
    let problems = evidence.log.problems();
    ensure!(
        problems.len() == 1 + short,
        "the worker logged more trouble than the stalls: {problems:?}"
    );
    Ok(())
}
