//! User story 5: at most three fragments are on their way, and one that is never answered gives its
//! place back after eight seconds.
//!
//! Segments of 2.2 s (so that eight seconds do not end on a boundary), answers after 5.3 s:
//!
//! ```text
//! ready   0:2.2  1:4.4  2:6.6  3:8.8  4:11.0  5:13.2  6:15.4  7:17.6  8:19.8
//! sent    0:2.2  1:4.4  2:6.6  3:8.8  4:11.9  5:13.2  …
//! free    0:7.5  1:12.4 (never answered)  2:11.9  3:14.1  4:17.2 …
//! ```

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::clock::{ClipSpec, cached};
use e2e::pipeline::{Evidence, Live};
use e2e::runner::Context;
use e2e::services::echo_sts::EchoStsOptions;
use sts_protocol::{AudioConfig, AudioMode, Direction, event};

use crate::stage::Stage;
use crate::wire::{self, TIMEOUT_SEEN};

const CLIP: u32 = 20;
const SEGMENT: Duration = Duration::from_millis(2_200);
/// Whole segments; the 0.2 s that remain are too short to be sent.
const SEGMENTS: u64 = 9;
/// Never answered.
const HELD: usize = 1;
/// Ready while three are out.
const BLOCKED: usize = 4;
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn run(stage: &Context) -> Result<()> {
    let sts = EchoStsOptions::mode("mark").latency(Duration::from_millis(5_300));
    let spec = ClipSpec::clock(CLIP).small();
    let evidence = stage
        .pipeline(cached(&spec)?, Duration::from_secs(CLIP.into()))
        .sts(sts)
        .worker(|options| options.segment_duration = Some(SEGMENT))
        .run(hold_one)?;
    stage.snapshot("fragment_tracker__metrics", &wire::metric_set(&evidence));
    stage.snapshot("fragment_tracker__sts_events", &wire::wire(&evidence));
    in_flight(&evidence)?;
    ids(&evidence)?;
    wire::require_outcome(&evidence, SEGMENTS, SEGMENT, &[(1..2, "timeout")])?;
    wire::require_stalls(&evidence, &[HELD as u64])?;
    evidence.require_every_picture(spec.frames())?;
    evidence.require_every_coded_frame()?;
    Ok(())
}

fn hold_one(live: &mut Live) -> Result<()> {
    let echo_sts = live.environment.echo_sts();
    let control = echo_sts.control()?;
    let stream_id = Some(live.environment.stream_id().to_owned());
    let arrived = |count: usize| {
        echo_sts.wait_journal(&format!("{count} fragments"), PATIENCE, |journal| {
            journal.events(Direction::In, event::FRAGMENT_DATA).count() == count
        })
    };
    arrived(1)?;
    control.send(AudioConfig {
        stream_id: stream_id.clone(),
        count: Some(1),
        ..AudioConfig::new(AudioMode::Hold)
    })?;
    arrived(2)?;
    live.tell("a fragment is held for ever");
    // Without this it would be `echo` again, which nobody can hear.
    control.send(AudioConfig {
        stream_id,
        ..AudioConfig::new(AudioMode::Mark)
    })?;
    Ok(())
}

/// Three in flight at most: used to the full, never more, and a slot is given back after eight seconds.
fn in_flight(evidence: &Evidence) -> Result<()> {
    let journal = &evidence.journal;
    let most = journal.most_in_flight(Some(TIMEOUT_SEEN));
    ensure!(most == 3, "{most} fragments were in flight at once");
    // Had the held one kept its place there would have been four: the place was given back.
    let counting_held = journal.most_in_flight(None);
    ensure!(
        counting_held == 4,
        "with the held one {counting_held} were in flight at once"
    );
    let gauge = wire::gauge(evidence, "worker_inflight_fragments")?;
    ensure!(gauge.iter().max() == Some(&3), "the gauge went {gauge:?}");
    ensure!(gauge.last() == Some(&0), "the gauge ended so: {gauge:?}");

    ensure!(
        wire::simulated(evidence, "simulated_hold") == 1,
        "the fault was not there"
    );
    let sent = wire::sent(evidence)?;
    let held = &sent[HELD];
    ensure!(
        held.seen.processed_ms.is_none(),
        "the held fragment was answered: {held:?}"
    );
    let timeouts: Vec<_> = evidence.log.events("fragment_timeout").collect();
    ensure!(
        timeouts.len() == 1,
        "{} fragments timed out",
        timeouts.len()
    );
    let id = timeouts[0].text("fragment_id");
    ensure!(
        id == Some(held.seen.fragment_id.as_str()),
        "{id:?} timed out"
    );
    wire::within(
        "gives up",
        timeouts[0].unix_ms()? - held.data,
        7_900.0,
        8_500.0,
    )?;
    let fell_back = wire::of_batch(&evidence.log, "fallback", HELD as u64)?.unix_ms()?;
    wire::within("falls back", fell_back - timeouts[0].unix_ms()?, 0.0, 200.0)?;

    // Everything is sent as soon as it is ready, but for the one that had to wait for a place.
    let epoch = wire::epoch(journal)?;
    for (index, fragment) in sent.iter().enumerate() {
        let waited = fragment.data - fragment.ready;
        if index == BLOCKED {
            ensure!(
                waited >= 500.0,
                "fragment {index} was not blocked, it waited {waited} ms"
            );
            let freed = sent[2]
                .seen
                .processed_ms
                .context("fragment 2 has no answer")?
                + epoch;
            wire::within(
                "takes the place of fragment 2",
                fragment.data - freed,
                0.0,
                300.0,
            )?;
        } else {
            wire::within(&format!("fragment {index} is sent"), waited, -5.0, 400.0)?;
        }
    }
    Ok(())
}

/// The same id and number from sending to the end, on both sides.
fn ids(evidence: &Evidence) -> Result<()> {
    let sent = wire::sent(evidence)?;
    for (index, fragment) in sent.iter().enumerate() {
        let seen = &fragment.seen;
        let numbers = (fragment.batch, seen.sequence);
        ensure!(
            numbers == (index as u64, Some(index as u64)),
            "fragment {index} is {numbers:?}"
        );
        let groups: Vec<usize> = seen.fragment_id.split('-').map(str::len).collect();
        ensure!(
            groups == [8, 4, 4, 4, 12],
            "{} is no UUID",
            seen.fragment_id
        );
        let steps = if index == HELD {
            vec![Some(seen.data_ms), seen.queued_ms]
        } else {
            vec![
                Some(seen.data_ms),
                seen.queued_ms,
                seen.processed_ms,
                seen.applied_ms,
            ]
        };
        ensure!(
            steps.iter().all(Option::is_some) && steps.is_sorted(),
            "a step is missing: {seen:?}"
        );
    }
    let mut answered = Vec::new();
    for record in evidence.log.events("fragment_processed") {
        answered.push((
            wire::number(record, "sequence")?,
            record.text("fragment_id").unwrap_or_default(),
        ));
    }
    let expected: Vec<_> = sent
        .iter()
        .enumerate()
        .filter(|(index, _)| *index != HELD)
        .map(|(index, fragment)| (index as u64, fragment.seen.fragment_id.as_str()))
        .collect();
    ensure!(
        answered == expected,
        "the worker took answers {answered:?}, expected {expected:?}"
    );
    Ok(())
}
