//! User story 4: the STS service says how fast it wants to be fed, and is obeyed.
//!
//! Segments of 2 s; `echo-sts` is told to say, each time between two boundaries:
//!
//! | after fragment | says | what follows |
//! |---|---|---|
//! | 2 | pause | 3, 4, 5 wait |
//! | | none | they go out at once |
//! | 8 | pause | 9, 10, 11 wait |
//! | | slow_down 500 ms | they go out 500 ms apart, 12 and 13 wait 500 ms each |
//! | 13 | none | 14 goes out at once |
//! | 14 | pause | 15, 16 wait for eight seconds and fall back, 17 to 20 wait |
//! | | none | 17 to 20 go out, three at a time |
//!
//! Beside it runs a stream whose load `echo-sts` reports by itself.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::clock::{ClipSpec, cached};
use e2e::pipeline::{Evidence, Live};
use e2e::probe::logs::Record;
use e2e::runner::{Context, MAIN};
use e2e::services::echo_sts::EchoStsOptions;
use sts_protocol::{
    BackpressureAction, BackpressureConfig, Direction, LatencyConfig, SimulateBackpressure, event,
};

use crate::judge::{actions, backpressure_agrees};
use crate::stage::Stage;
use crate::wire::{self, Sent};

const CLIP: u32 = 48;
const SEGMENT: Duration = Duration::from_secs(2);
const SEGMENTS: u64 = 24;
const DELAY_MS: u64 = 500;
const PATIENCE: Duration = Duration::from_secs(20);
/// From an event of a segment to the middle between it and the next.
const MIDWAY: Duration = Duration::from_millis(600);
/// Log times and arrival times are taken a little after the decisions they stand for.
const TOLERANCE_MS: f64 = 40.0;
/// What "at once" may take on a busy machine; the next segment is five times as far.
const AT_ONCE_MS: f64 = 400.0;

/// The first answer is slow, so that output starts late enough to be never more than 5 s behind what
/// it began with: MediaMTX would not record it.
const FIRST_ANSWER: Duration = Duration::from_millis(3_600);
const ANSWER_MS: u64 = 200;

const AUTOMATIC_CLIP: u32 = 16;
const AUTOMATIC_SEGMENTS: u64 = 8;

pub(crate) fn run(stage: &Context) -> Result<()> {
    stage.parts(&[
        (MAIN, &|| judge(stage, &tell(stage)?)),
        ("automatic", &|| judge_automatic(&report_by_itself(stage)?)),
    ])
}

fn tell(stage: &Context) -> Result<Evidence> {
    stage
        .pipeline(cached(&spec(CLIP))?, Duration::from_secs(CLIP.into()))
        .sts(sts(FIRST_ANSWER))
        .worker(|options| options.segment_duration = Some(SEGMENT))
        .run(change_the_pace)
}

fn judge(stage: &Context, evidence: &Evidence) -> Result<()> {
    stage.snapshot("backpressure__metrics", &wire::metric_set(evidence));
    stage.snapshot("backpressure__sts_events", &wire::wire(evidence));
    pauses(evidence)?;
    spacing(evidence)?;
    counts(evidence)?;
    wire::require_outcome(evidence, SEGMENTS, SEGMENT, &[(15..17, "backpressure")])?;
    wire::require_stalls(evidence, &[3, 15])?;
    evidence.require_every_picture(spec(CLIP).frames())?;
    evidence.require_every_coded_frame()?;
    Ok(())
}

fn spec(seconds: u32) -> ClipSpec {
    ClipSpec::clock(seconds).small()
}

fn sts(latency: Duration) -> EchoStsOptions {
    EchoStsOptions::mode("mark").latency(latency)
}

fn change_the_pace(live: &mut Live) -> Result<()> {
    let control = live.environment.echo_sts().control()?;
    let stream_id = live.environment.stream_id();
    let say = |action, recommended_delay_ms| -> Result<()> {
        live.tell(&format!("STS asks for {action:?}"));
        let report = SimulateBackpressure {
            stream_id: Some(stream_id.to_owned()),
            action,
            severity: None,
            recommended_delay_ms,
        };
        control.send(report).map(|_| ())
    };
    let until = |event: &'static str, batch: u64| -> Result<Record> {
        let record = live.worker.wait_batch(event, batch, PATIENCE)?;
        // Not a wait for anything: the next word falls far from every boundary.
        thread::sleep(MIDWAY);
        Ok(record)
    };
    live.environment
        .echo_sts()
        .wait_journal("a fragment", PATIENCE, |journal| {
            journal
                .events(Direction::In, event::FRAGMENT_DATA)
                .next()
                .is_some()
        })?;
    control.send(LatencyConfig {
        stream_id: Some(stream_id.to_owned()),
        base_ms: ANSWER_MS,
        ..LatencyConfig::default()
    })?;
    until("fragment_processed", 2)?;
    say(BackpressureAction::Pause, None)?;
    until("segment_ready", 5)?;
    say(BackpressureAction::None, None)?;

    until("fragment_processed", 8)?;
    say(BackpressureAction::Pause, None)?;
    until("segment_ready", 11)?;
    say(BackpressureAction::SlowDown, Some(DELAY_MS))?;
    until("fragment_processed", 13)?;
    say(BackpressureAction::None, None)?;

    until("fragment_processed", 14)?;
    say(BackpressureAction::Pause, None)?;
    until("fallback", 16)?;
    say(BackpressureAction::None, None)
}

fn data_between(sent: &[Sent], from: f64, to: f64) -> Vec<u64> {
    // The fragment that makes `echo-sts` say pause arrives at that very moment.
    let inside = sent
        .iter()
        .filter(|fragment| (from + 1.0..to).contains(&fragment.data));
    inside.map(|fragment| fragment.batch).collect()
}

/// Segments got ready during every pause, none was sent, and those that waited went out afterwards.
fn pauses(evidence: &Evidence) -> Result<()> {
    let (sent, actions) = (wire::sent(evidence)?, actions(evidence));
    let mut waited = Vec::new();
    for pair in actions.windows(2) {
        let [(action, from), (_, to)] = pair else {
            continue;
        };
        if action != "pause" {
            continue;
        }
        let out = data_between(&sent, *from, *to);
        ensure!(out.is_empty(), "segments {out:?} were sent during a pause");
        let mut ready = Vec::new();
        for record in evidence.log.events("segment_ready") {
            if (*from..*to).contains(&record.unix_ms()?) {
                ready.push(wire::number(record, "batch")?);
            }
        }
        waited.push(ready);
    }
    let expected = [vec![3, 4, 5], vec![9, 10, 11], vec![15, 16, 17, 18, 19, 20]];
    ensure!(
        waited == expected,
        "segments got ready during pauses: {waited:?}"
    );

    // Three places are free after a pause: the first three go out together.
    for (end, batches) in [(actions[1].1, 3..6), (actions[6].1, 17..20)] {
        for batch in batches {
            wire::within(
                &format!("{batch} after none"),
                data_of(&sent, batch)? - end,
                0.0,
                AT_ONCE_MS,
            )?;
        }
    }
    for batch in [15, 16] {
        let ready = wire::of_batch(&evidence.log, "segment_ready", batch)?.unix_ms()?;
        let gave_up = wire::of_batch(&evidence.log, "fallback", batch)?.unix_ms()?;
        wire::within(
            &format!("{batch} waits"),
            gave_up - ready,
            8_000.0 - TOLERANCE_MS,
            8_500.0,
        )?;
    }
    Ok(())
}

fn data_of(sent: &[Sent], batch: u64) -> Result<f64> {
    let fragment = sent.iter().find(|fragment| fragment.batch == batch);
    Ok(fragment
        .with_context(|| format!("batch {batch} was never sent"))?
        .data)
}

/// 500 ms before each fragment while slowed down, no wait otherwise.
fn spacing(evidence: &Evidence) -> Result<()> {
    let (sent, actions) = (wire::sent(evidence)?, actions(evidence));
    let (slowed, freed) = (actions[3].1, actions[4].1);
    let during = data_between(&sent, slowed, freed);
    ensure!(during == [9, 10, 11, 12, 13], "sent slowly: {during:?}");
    let delay = DELAY_MS as f64;
    let mut last = slowed;
    for batch in during {
        let index = sent.iter().position(|fragment| fragment.batch == batch);
        let fragment = &sent[index.context("it was there")?];
        let turn = fragment.ready.max(last);
        let what = format!("{batch} has its turn and is sent");
        wire::within(
            &what,
            fragment.data - turn,
            delay - TOLERANCE_MS,
            delay + AT_ONCE_MS,
        )?;
        last = fragment.data;
    }
    for batch in [0, 1, 2, 6, 7, 8, 14, 21, 22, 23] {
        let ready = wire::of_batch(&evidence.log, "segment_ready", batch)?.unix_ms()?;
        wire::within(
            &format!("{batch} is sent"),
            data_of(&sent, batch)? - ready,
            -5.0,
            AT_ONCE_MS,
        )?;
    }
    Ok(())
}

fn counts(evidence: &Evidence) -> Result<()> {
    let said: Vec<_> = actions(evidence)
        .into_iter()
        .map(|(action, _)| action)
        .collect();
    let expected = [
        "pause",
        "none",
        "pause",
        "slow_down",
        "none",
        "pause",
        "none",
    ];
    ensure!(said == expected, "echo-sts said {said:?}");
    backpressure_agrees(evidence)
}

/// Load reports that `echo-sts` makes by itself: with answers after 5 s the third fragment fills
/// it up (pause), each answer makes room (slow down). Nothing has to fall back.
fn report_by_itself(stage: &Context) -> Result<Evidence> {
    let length = Duration::from_secs(AUTOMATIC_CLIP.into());
    stage
        .part("automatic", cached(&spec(AUTOMATIC_CLIP))?, length)
        .sts(sts(Duration::from_secs(5)))
        .worker(|options| options.segment_duration = Some(SEGMENT))
        .run(|live| {
            let control = live.environment.echo_sts().control()?;
            control.send(BackpressureConfig {
                stream_id: Some(live.environment.stream_id().to_owned()),
                enabled: true,
                threshold_low: 0.3,
                threshold_medium: 0.6,
                threshold_high: 0.9,
            })?;
            Ok(())
        })
}

fn judge_automatic(evidence: &Evidence) -> Result<()> {
    backpressure_agrees(evidence)?;
    let (sent, actions) = (wire::sent(evidence)?, actions(evidence));
    for action in ["pause", "slow_down", "none"] {
        let said = actions.iter().any(|(said, _)| said == action);
        ensure!(said, "echo-sts never said {action}: {actions:?}");
    }
    for pair in actions.windows(2).filter(|pair| pair[0].0 == "pause") {
        let out = data_between(&sent, pair[0].1, pair[1].1);
        ensure!(out.is_empty(), "segments {out:?} were sent during a pause");
    }
    let most = evidence.journal.most_in_flight(Some(wire::TIMEOUT_SEEN));
    ensure!(most == 3, "{most} fragments were in flight at once");
    wire::require_outcome(evidence, AUTOMATIC_SEGMENTS, SEGMENT, &[])?;
    evidence.require_every_picture(spec(AUTOMATIC_CLIP).frames())?;
    evidence.require_every_coded_frame()
}
