//! User story 3: an STS service that fails and fails is left alone for a while, then asked once.
//!
//! Segments of 2 s, answers after 1 s. Fragments 0 and 1 time out at the service, 2 is refused for
//! good (which neither counts nor resets), 3, 4 and 5 time out: the fifth failure opens the breaker
//! one second after fragment 5 was sent. Thirty seconds later, a second before segment 21 is ready,
//! it is half open; 21 is the probe. It takes 3 s, so that 22 becomes ready while it is out.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::clock::{ClipSpec, cached};
use e2e::pipeline::{Evidence, Live};
use e2e::probe::logs::Record;
use e2e::runner::Context;
use e2e::services::echo_sts::EchoStsOptions;
use sts_protocol::{ErrorCode, ErrorRule, ErrorSimulation, LatencyConfig};

use crate::stage::{MINUTE, Stage};
use crate::wire::{self, Sent};

const SEGMENT: Duration = Duration::from_secs(2);
const SEGMENTS: u64 = 30;
/// Fragments that fail before the breaker opens; the third of them does not count.
const FAILING: usize = 6;
const PROBE: u64 = 21;
const USUAL_LATENCY: u64 = 1_000;
const PROBE_LATENCY: u64 = 3_000;

pub(crate) fn run(stage: &Context) -> Result<()> {
    let sts = EchoStsOptions::mode("mark").latency(Duration::from_millis(USUAL_LATENCY));
    let evidence = stage
        .pipeline(cached(&ClipSpec::clock(60).small())?, MINUTE)
        .sts(sts)
        .worker(|options| options.segment_duration = Some(SEGMENT))
        .run(fail_then_recover)?;
    stage.snapshot("circuit_breaker__metrics", &wire::metric_set(&evidence));
    stage.snapshot("circuit_breaker__sts_events", &wire::wire(&evidence));
    transitions(&evidence)?;
    calls(&evidence)?;
    wire::require_outcome(
        &evidence,
        SEGMENTS,
        SEGMENT,
        &[
            (0..6, "error"),
            (6..PROBE, "breaker_open"),
            (PROBE + 1..PROBE + 2, "breaker_open"),
        ],
    )?;
    wire::require_stalls(&evidence, &[PROBE])?;
    evidence.require_every_picture(1800)?;
    evidence.require_every_coded_frame()?;
    // It was over before any alert's time: they wait.
    stage.told(evidence.require_rules(&[
        (
            "count(ALERTS{alertname=\"DubFallback\",alertstate=\"pending\"}) > bool 0",
            1.0,
        ),
        ("count(ALERTS{alertstate=\"firing\"}) or vector(0)", 0.0),
        ("max(stream:dubbed_ratio:5m) < bool 0.5", 1.0),
    ]))
}

fn fail_then_recover(live: &mut Live) -> Result<()> {
    let control = live.environment.echo_sts().control()?;
    let stream_id = Some(live.environment.stream_id().to_owned());
    let latency = |base_ms| {
        control.send(LatencyConfig {
            stream_id: stream_id.clone(),
            base_ms,
            ..LatencyConfig::default()
        })
    };
    control.send(ErrorSimulation {
        stream_id: stream_id.clone(),
        enabled: true,
        rules: vec![
            ErrorRule::sequence(2, ErrorCode::InvalidConfig).times(1),
            ErrorRule::always(ErrorCode::Timeout).times(5),
        ],
    })?;
    let breaker = |to: &'static str, patience| {
        live.worker.wait_record(
            &format!("breaker to {to}"),
            Duration::from_secs(patience),
            move |record| record.event() == Some("breaker") && record.text("to") == Some(to),
        )
    };
    breaker("open", 30)?;
    live.tell("the breaker is open");
    latency(PROBE_LATENCY)?;
    breaker("half_open", 40)?;
    live.tell("the breaker is half open");
    breaker("closed", 20)?;
    live.tell("the breaker is closed");
    // Later answers are in time for what is on air.
    latency(USUAL_LATENCY)?;
    Ok(())
}

/// The breaker's way, when it went it, and that the gauge went along.
fn transitions(evidence: &Evidence) -> Result<()> {
    let records: Vec<&Record> = evidence.log.events("breaker").collect();
    let way: Vec<_> = records
        .iter()
        .filter_map(|record| Some((record.text("from")?, record.text("to")?)))
        .collect();
    let expected = [
        ("closed", "open"),
        ("open", "half_open"),
        ("half_open", "closed"),
    ];
    ensure!(way == expected, "the breaker went {way:?}");
    let states = wire::gauge(evidence, "worker_sts_breaker_state")?;
    ensure!(states == [0, 2, 1, 0], "the gauge went {states:?}");

    let sent = wire::sent(evidence)?;
    let epoch = wire::epoch(&evidence.journal)?;
    let [opened, half_open, closed] = [0, 1, 2].map(|n: usize| records[n].unix_ms());
    let (opened, half_open, closed) = (opened?, half_open?, closed?);
    let answered = |fragment: &Sent| {
        fragment
            .seen
            .processed_ms
            .map(|at| at + epoch)
            .context("no answer")
    };
    wire::within(
        "opens with the fifth failure",
        opened - answered(&sent[FAILING - 1])?,
        0.0,
        500.0,
    )?;
    wire::within("half open", half_open - opened, 29_990.0, 30_500.0)?;
    wire::within(
        "closes with the probe's answer",
        closed - answered(&sent[FAILING])?,
        0.0,
        1_000.0,
    )?;

    // What became ready while the probe was out fell back at once.
    let beside = wire::of_batch(&evidence.log, "fallback", PROBE + 1)?.unix_ms()?;
    let ready = wire::of_batch(&evidence.log, "segment_ready", PROBE + 1)?.unix_ms()?;
    wire::within("falls back beside the probe", beside - ready, 0.0, 500.0)?;
    ensure!(
        sent[FAILING].data < beside && beside < closed,
        "segment {} was not ready while the probe was out",
        PROBE + 1
    );
    let probes = sent
        .iter()
        .filter(|fragment| (half_open..closed).contains(&fragment.data))
        .count();
    ensure!(probes == 1, "{probes} fragments were sent half open");
    Ok(())
}

/// What `echo-sts` answered, and that it was left alone while the breaker was open.
fn calls(evidence: &Evidence) -> Result<()> {
    ensure!(
        wire::simulated(evidence, "simulated_error") == FAILING,
        "the fault was not there"
    );
    let sent = wire::sent(evidence)?;
    let codes: Vec<_> = sent
        .iter()
        .map(|fragment| fragment.seen.code.as_deref())
        .collect();
    let mut expected = vec![None; codes.len()];
    expected[..FAILING].fill(Some("TIMEOUT"));
    expected[2] = Some("INVALID_CONFIG");
    ensure!(codes == expected, "echo-sts answered {codes:?}");
    let batches: Vec<_> = sent.iter().map(|fragment| fragment.batch).collect();
    let called: Vec<_> = (0..6).chain([PROBE]).chain(PROBE + 2..SEGMENTS).collect();
    ensure!(batches == called, "segments {batches:?} were sent");

    let last_failure = sent[FAILING - 1]
        .seen
        .processed_ms
        .context("no sixth answer")?;
    let quiet = sent[FAILING].seen.data_ms - last_failure;
    ensure!(
        quiet >= 30_000.0,
        "STS was called {quiet} ms after the breaker opened"
    );
    Ok(())
}
