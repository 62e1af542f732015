//! Against python-socketio, which is what production services are written with: connect, ten
//! fragments, disconnect, reconnect, and the end, all as with `echo-sts`.
//!
//! The service is `python_sts/server.py`. It keeps the same journal, so the same checks apply.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::clock::{ClipSpec, cached};
use e2e::failure::Skipped;
use e2e::pipeline::Evidence;
use e2e::probe::audio::Verdict;
use e2e::probe::logs::{Level, Record};
use e2e::runner::Context;
use e2e::services::python_sts::PythonStsOptions;
use sts_protocol::{Direction, event, mark};

use crate::stage::Stage as _;
use crate::wire;

/// Which Python runs the service; unset: the one that `cargo xtask setup` makes.
const INTERPRETER_ENV: &str = "E2E_PYTHON";

const SEGMENT: Duration = Duration::from_secs(1);
const CLIP: u32 = 18;
/// What is left at the end is some samples short of a second, and is not sent.
const SEGMENTS: u64 = 17;
/// The service disconnects the worker with the fragment after these in hand, …
const ANSWERED: u64 = 10;
/// … well between two segments' boundaries, as then is the return 2 s later.
const HOLD: Duration = Duration::from_millis(300);
const DELAY_MS: f64 = 2_000.0;

pub(crate) fn run(stage: &Context) -> Result<()> {
    let spec = ClipSpec::clock(CLIP).small();
    let service = service()?;
    let evidence = stage
        .pipeline(cached(&spec)?, Duration::from_secs(CLIP.into()))
        .python_sts(service)
        .worker(|options| options.segment_duration = Some(SEGMENT))
        .run(|_| Ok(()))?;
    let back = reconnection(&evidence)?;
    sessions(&evidence, back)?;
    ten_fragments(&evidence)?;
    // The service answers with tones: only where it was away the sound is the input's own.
    let length = SEGMENT.as_secs_f64();
    let away = (ANSWERED as f64 * length)..(back as f64 * length);
    evidence.require_identity(move |second| second >= away.start && second + 1.0 <= away.end)?;
    wire::require_dubs(
        &evidence,
        SEGMENTS,
        SEGMENT,
        &[(ANSWERED..back, "disconnected")],
    )?;
    wire::require_stalls(&evidence, &[])?;
    ending(&evidence)?;
    nothing_else_went_wrong(&evidence, back)?;
    evidence.require_every_picture(spec.frames())?;
    evidence.require_every_coded_frame()
}

fn service() -> Result<PythonStsOptions> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/python_sts/server.py");
    let args = [
        mark::TONE_HZ,
        mark::TONE_DBFS,
        ANSWERED as f64,
        HOLD.as_secs_f64(),
    ];
    Ok(PythonStsOptions {
        interpreter: interpreter()?,
        script,
        args: args.iter().map(ToString::to_string).collect(),
    })
}

fn interpreter() -> Result<PathBuf> {
    let given = env::var_os(INTERPRETER_ENV).filter(|path| !path.is_empty());
    if let Some(path) = given {
        return Ok(path.into());
    }
    let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../python/bin/python3");
    let why = "python-socketio is not installed, `cargo xtask setup` installs it";
    made.is_file()
        .then_some(made)
        .ok_or_else(|| Skipped::because(why).into())
}

/// One loss with one fragment in flight, one attempt 2 s later, which succeeds. Returns the first
/// segment that was ready when the second session was.
fn reconnection(evidence: &Evidence) -> Result<u64> {
    let one = |event: &str| -> Result<&Record> {
        let mut found = evidence.log.records.iter();
        let record = found.find(|record| record.event() == Some(event));
        let more = found.any(|record| record.event() == Some(event));
        ensure!(!more, "{event} was logged more than once");
        record.with_context(|| format!("{event} was not logged"))
    };
    let lost = one("sts_disconnected")?;
    let out = wire::number(lost, "in_flight")?;
    ensure!(out == 1, "{out} fragments were in flight at the loss");
    let hung_up = evidence
        .journal
        .events(Direction::Local, "simulated_disconnect")
        .next()
        .context("the service did not hang up")?;
    let noticed = lost.unix_ms()? - hung_up.time_ms;
    wire::within("notices the loss", noticed, -5.0, 300.0)?;

    let scheduled = one("reconnect_scheduled")?;
    let delay = scheduled.number("delay_ms");
    ensure!(delay == Some(DELAY_MS), "a retry after {delay:?} ms");
    let tried = evidence.log.events("sts_connecting").nth(1);
    let tried = tried.context("no second connection was tried")?.unix_ms()?;
    let after = tried - scheduled.unix_ms()?;
    wire::within("the retry", after, DELAY_MS * 0.9, DELAY_MS * 1.1)?;

    for (name, labels, wanted) in [
        ("worker_reconnection_total", &[][..], 1),
        (
            "worker_reconnection_attempts_total",
            &[("outcome", "success")],
            1,
        ),
        (
            "worker_reconnection_attempts_total",
            &[("outcome", "failure")],
            0,
        ),
    ] {
        let counted = evidence.count(name, labels)?;
        ensure!(counted == wanted, "{name} {labels:?} is {counted}");
    }

    let ready = |record: &&Record| record.event() == Some("sts_ready");
    let mut after_return = evidence
        .log
        .records
        .iter()
        .skip_while(|r| !ready(r))
        .skip(1);
    after_return
        .by_ref()
        .find(ready)
        .context("there was no second session")?;
    let first = after_return.find(|record| record.event() == Some("segment_ready"));
    let back = wire::number(first.context("the stream ended while away")?, "batch")?;
    ensure!(
        (ANSWERED + 2..SEGMENTS - 2).contains(&back),
        "the session was back before segment {back}: nothing was missed, or too little left"
    );
    Ok(back)
}

/// Each session begins with `stream:init`, and its fragments with number 0.
fn sessions(evidence: &Evidence, back: u64) -> Result<()> {
    let journal = &evidence.journal;
    for (direction, event, wanted) in [
        (Direction::Local, "connect", 2),
        (Direction::In, event::STREAM_INIT, 2),
        (Direction::Out, event::STREAM_READY, 2),
    ] {
        let count = journal.events(direction, event).count();
        ensure!(count == wanted, "{count} times {event}");
    }
    let got: Vec<_> = wire::sent(evidence)?
        .into_iter()
        .map(|fragment| {
            let seen = fragment.seen;
            (fragment.batch, seen.session, seen.sequence)
        })
        .collect();
    let first = (0..=ANSWERED).map(|batch| (batch, Some(1), Some(batch)));
    let second = (back..SEGMENTS).map(|batch| (batch, Some(2), Some(batch - back)));
    let expected: Vec<_> = first.chain(second).collect();
    ensure!(
        got == expected,
        "segments, sessions and numbers were {got:?}"
    );
    Ok(())
}

/// Ten fragments of the first session went the whole way, in order; the eleventh was abandoned.
fn ten_fragments(evidence: &Evidence) -> Result<()> {
    let fragments = evidence.journal.fragments();
    let mut last = 0.0;
    for fragment in &fragments[..ANSWERED as usize] {
        let steps = [
            Some(fragment.data_ms),
            fragment.queued_ms,
            fragment.processed_ms,
        ];
        for step in steps {
            let at = step.with_context(|| format!("left half-way: {fragment:?}"))?;
            ensure!(at >= last, "out of order: {fragment:?}");
            last = at;
        }
        let applied = fragment.applied_ms.context("never applied")?;
        ensure!(applied >= last, "applied before it was there: {fragment:?}");
    }
    let held = &fragments[ANSWERED as usize];
    ensure!(
        held.queued_ms.is_some() && held.processed_ms.is_none() && held.abandoned_ms.is_some(),
        "not in flight at the loss: {held:?}"
    );
    Ok(())
}

/// The rest is not dubbed. The worker ends the stream, the service confirms, and only then is the
/// connection closed.
fn ending(evidence: &Evidence) -> Result<()> {
    let heard = evidence.heard(SEGMENTS as usize + 1, SEGMENT)?;
    ensure!(
        heard.last() == Some(&Verdict::Original),
        "one hears {heard:?}"
    );
    let last: Vec<_> = evidence
        .journal
        .entries()
        .iter()
        .rev()
        .filter(|entry| entry.event != event::FRAGMENT_ACK)
        .take(3)
        .map(|entry| entry.event.as_str())
        .collect();
    let expected = ["disconnect", event::STREAM_COMPLETE, event::STREAM_END];
    ensure!(
        last == expected,
        "the stream ended with {last:?}, backwards"
    );
    let confirmed = evidence.log.events("stream_complete").count();
    ensure!(confirmed == 1, "{confirmed} ends were confirmed");
    Ok(())
}

/// What the worker has to say at WARN or above is about the loss, and perhaps that output waited for
/// the fragment that was held; the service has nothing to say.
fn nothing_else_went_wrong(evidence: &Evidence, back: u64) -> Result<()> {
    let log = &evidence.log;
    let waited_for_it = |record: &Record| {
        record.event() == Some("stall") && record.number("batch") == Some(ANSWERED as f64)
    };
    let loud: Vec<_> = log
        .records
        .iter()
        .filter(|record| record.level >= Level::Warn && !waited_for_it(record))
        .map(|record| record.event().unwrap_or(&record.message))
        .collect();
    let mut expected = vec!["sts_disconnected", "fallback", "reconnect_scheduled"];
    expected.extend((ANSWERED + 1..back).map(|_| "fallback"));
    let order = |mut events: Vec<&str>| {
        events.sort_unstable();
        events.join(", ")
    };
    let (loud, expected) = (order(loud), order(expected));
    ensure!(
        loud == expected && log.strays.is_empty(),
        "the worker warned of {loud}, expected {expected}; {:?}",
        log.strays
    );
    let said = std::fs::read_to_string(evidence.directory.join("python-sts.log"))?;
    let trouble: Vec<_> = said
        .lines()
        .filter(|line| !line.contains("listening on "))
        .collect();
    ensure!(trouble.is_empty(), "the service said {trouble:#?}");
    Ok(())
}
