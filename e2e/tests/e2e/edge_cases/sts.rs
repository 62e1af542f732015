//! Rows about the STS service.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::probe::audio::Verdict;

use e2e::runner::Context;
use e2e::services::echo_sts::EchoStsOptions;
use nix::sys::signal::Signal;
use sts_protocol::{BackpressureAction, Direction, SimulateBackpressure, SimulateSessionLoss};

use super::{SEGMENT, clip, complete, fallbacks, pipeline, says};

/// Never an answer: all original, the breaker opens after five, exit code 0.
pub(super) fn never_answers(context: &Context, row: &'static str) -> Result<()> {
    let spec = clip(16);
    let evidence = pipeline(context, row, &spec)?
        .sts(EchoStsOptions::mode("hold"))
        // Shorter than a segment, so that one is out at a time and counts are exact.
        .worker(|options| options.set("WORKER_STS_TIMEOUT_MS", 1000))
        .run(|_| Ok(()))?;
    complete(&evidence, &spec)?;
    ensure!(
        evidence.heard(8, SEGMENT)? == [Verdict::Original; 8],
        "not everything is original"
    );
    ensure!(
        fallbacks(&evidence, "timeout")? == 5,
        "{} timeouts",
        fallbacks(&evidence, "timeout")?
    );
    ensure!(
        fallbacks(&evidence, "breaker_open")? == 3,
        "{} kept back",
        fallbacks(&evidence, "breaker_open")?
    );
    ensure!(
        evidence.metrics.value("worker_sts_breaker_state", &[])? == 2.0,
        "the breaker is not open"
    );
    ensure!(
        evidence.journal.fragments().len() == 5,
        "more than five fragments were sent"
    );
    Ok(())
}

/// A token that is wrong: exit code 14 with the server's words, the token never shown.
pub(super) fn auth_failed(context: &Context, row: &'static str) -> Result<()> {
    let sts = EchoStsOptions::default().with("--auth-token", "right");
    let evidence = pipeline(context, row, &clip(6))?
        .sts(sts)
        .worker(|options| {
            options
                .env
                .push(("WORKER_STS_TOKEN".to_owned(), "wrong-token".to_owned()));
        })
        .exit(14)
        .run(|_| Ok(()))?;
    says(&evidence, "AUTH_FAILED")?;
    let log = std::fs::read_to_string(evidence.directory.join("worker.log"))?;
    ensure!(!log.contains("wrong-token"), "the token is in the log");
    Ok(())
}

/// An older server that caps the chunk length: exit code 14, saying what was refused.
pub(super) fn config_refused(context: &Context, row: &'static str) -> Result<()> {
    let sts = EchoStsOptions::default().with("--max-chunk-ms", 1000);
    let evidence = pipeline(context, row, &clip(6))?
        .sts(sts)
        .exit(14)
        .run(|_| Ok(()))?;
    says(&evidence, "INVALID_CONFIG")?;
    says(&evidence, "chunk_duration_ms")
}

/// The service stops answering pings: the link is given up, and found again.
pub(super) fn ping_timeout(context: &Context, row: &'static str) -> Result<()> {
    let spec = clip(24);
    let second = Duration::from_secs(1);
    let sts = EchoStsOptions::mode("mark").pings(second, second);
    let evidence = pipeline(context, row, &spec)?.sts(sts).run(|live| {
        live.worker
            .wait_batch("fragment_processed", 1, Duration::from_secs(20))?;
        live.environment
            .echo_sts()
            .process()
            .signal(Signal::SIGSTOP);
        let lost = live
            .worker
            .wait_log("sts_disconnected", Duration::from_secs(10));
        live.environment
            .echo_sts()
            .process()
            .signal(Signal::SIGCONT);
        lost?;
        live.worker
            .wait_log("reconnected", Duration::from_secs(15))?;
        Ok(())
    })?;
    complete(&evidence, &spec)?;
    ensure!(
        fallbacks(&evidence, "disconnected")? >= 1,
        "no segment fell back"
    );
    ensure!(
        evidence.count("worker_reconnection_total", &[])? == 1,
        "not reconnected once"
    );
    let heard = evidence.heard(12, SEGMENT)?;
    ensure!(
        heard.last() == Some(&Verdict::Dubbed),
        "not dubbed again after reconnecting: {heard:?}"
    );
    Ok(())
}

/// The service forgets the session while it holds the worker back: initialised again, goes on.
pub(super) fn session_lost_in_pause(context: &Context, row: &'static str) -> Result<()> {
    let spec = clip(20);
    let evidence = pipeline(context, row, &spec)?.run(|live| {
        let control = live.environment.echo_sts().control()?;
        let stream_id = Some(live.environment.stream_id().to_owned());
        let pressure = |action| SimulateBackpressure {
            stream_id: stream_id.clone(),
            action,
            severity: None,
            recommended_delay_ms: None,
        };
        live.worker
            .wait_batch("fragment_processed", 1, Duration::from_secs(20))?;
        control.send(pressure(BackpressureAction::Pause))?;
        live.worker
            .wait_batch("segment_ready", 2, Duration::from_secs(20))?;
        // The pause is lifted first: a session that is gone says nothing any more.
        control.send(SimulateSessionLoss {
            stream_id: stream_id.clone(),
            delay_ms: 300,
        })?;
        control.send(pressure(BackpressureAction::None))?;
        Ok(())
    });
    let evidence = evidence?;
    complete(&evidence, &spec)?;
    let inits = evidence
        .journal
        .events(Direction::In, "stream:init")
        .count();
    ensure!(inits == 2, "{inits} times initialised");
    ensure!(
        evidence.log.events("session_lost").count() == 1,
        "the loss was not logged"
    );
    let heard = evidence.heard(10, SEGMENT)?;
    let original = heard
        .iter()
        .filter(|verdict| **verdict != Verdict::Dubbed)
        .count();
    ensure!(
        original <= 2,
        "{original} segments were not dubbed: {heard:?}"
    );
    ensure!(
        heard.last() == Some(&Verdict::Dubbed),
        "not dubbed after the loss: {heard:?}"
    );
    Ok(())
}
