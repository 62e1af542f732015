//! What single rows must show beside what all of them do.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use e2e::environment::Scene;
use e2e::pipeline::{Evidence, Live};
use e2e::runner::Context;
use e2e::services::echo_sts::EchoStsOptions;
use e2e::services::worker::Worker;
use nix::sys::signal::Signal;

use super::Row;

/// How soon a refusal that no retry can fix must be said.
const AT_ONCE: Duration = Duration::from_secs(6);

/// How long it may take to end after SIGTERM: ten seconds and what is buffered.
const DRAINED_MS: f64 = 13_000.0;

/// How far into a segment SIGTERM comes: more of it is filled than `drained` forgives.
const FILLING: Duration = Duration::from_millis(1_200);

/// The output can be played within a second of the first pair, and the media server is the judge.
pub(super) fn there_soon(live: &mut Live) -> Result<()> {
    let patience = Duration::from_secs(20);
    let ready = live
        .worker
        .wait_log("fragment_processed", patience)?
        .unix_ms()?;
    let server = live.environment.media_server();
    server.wait_rtmp_published(&live.environment.output_path(), patience)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() * 1e3;
    ensure!(
        now - ready < 1_000.0,
        "the output was there {:.0} ms after the first pair",
        now - ready
    );
    Ok(())
}

/// SIGTERM a while after the step: whatever had come in by then goes out, and it ends in time.
pub(crate) fn terminate(live: &mut Live) -> Result<()> {
    live.worker
        .wait_batch("segment_ready", 3, Duration::from_secs(20))?;
    let process = live.worker.process();
    let ended = process.wait_exit(FILLING);
    ensure!(ended.is_err(), "the worker ended by itself");
    process.signal(Signal::SIGTERM);
    Ok(())
}

/// What the camera had sent half a second before SIGTERM came is in the recording, without a hole.
pub(crate) fn drained(evidence: &Evidence) -> Result<()> {
    let asked = evidence.log.first("stop_requested")?.unix_ms()?;
    let exits = evidence.log.events("exiting").next();
    let took = exits.context("no exit was logged")?.unix_ms()? - asked;
    ensure!(took < DRAINED_MS, "it took {took:.0} ms to drain");
    let sent = evidence
        .sent
        .as_ref()
        .context("the camera did not say what it sent")?;
    let since = asked - evidence.first_packet_ms - 500.0;
    let pictures = sent.sessions[0].pictures.iter();
    let expected = pictures.filter(|picture| picture.pts_ms < since).count();
    let clock = evidence.clock()?;
    let out = clock.pictures.len();
    let sequence = clock.sequence(0..u32::try_from(out)?);
    ensure!(sequence.is_perfect(), "{sequence}");
    ensure!(
        out >= expected,
        "{expected} pictures had come when it was told to stop, {out} are out"
    );
    Ok(())
}

/// Filled-in silence is not worth dubbing.
pub(super) fn silence_stays_here(evidence: &Evidence) -> Result<()> {
    let fallen = evidence.count("worker_fallback_total", &[("reason", "no_audio")])?;
    ensure!(fallen >= 3, "{fallen} segments fell back for want of audio");
    Ok(())
}

/// Lost packets are counted and told.
pub(crate) fn losses_are_told(evidence: &Evidence) -> Result<()> {
    let told = evidence.metrics.sum("worker_input_anomalies_total", &[]);
    ensure!(told >= 1.0, "nothing was counted of what got lost");
    Ok(())
}

/// The worker asked at least once while media flowed.
pub(crate) fn kept_alive(evidence: &Evidence) -> Result<()> {
    let sent = evidence
        .sent
        .as_ref()
        .context("the camera did not say what it sent")?;
    let asked = |method| sent.requests.get(method).copied().unwrap_or(0);
    let kept = asked("GET_PARAMETER") + asked("SET_PARAMETER") + asked("OPTIONS");
    ensure!(
        kept >= 3,
        "the session was kept alive {kept} times: {:?}",
        sent.requests
    );
    Ok(())
}

/// A camera that cannot be used, which no retry fixes: the worker says why at once and ends.
pub(super) fn refused(row: &Row, context: &Context, clip: PathBuf) -> Result<String> {
    let environment = context
        .named_environment(&format!("{}-{}", context.name(), row.name))
        .scene(Scene {
            clip,
            manner: row.manner.clone(),
            way: row.way,
        })
        .echo_sts(EchoStsOptions::default())
        .start()?;
    let began = Instant::now();
    let mut options = environment.worker_options();
    options.input_url = super::with_login(&options.input_url, row.password);
    let process = Worker::spawn(environment.place(), &options)?;
    let exit = process.wait_exit(AT_ONCE)?;
    let (took, log) = (began.elapsed(), process.last_lines(20).join("\n"));
    ensure!(exit.code() == Some(row.exit), "exit code {exit:?}:\n{log}");
    ensure!(
        log.contains(row.says),
        "the log does not say {:?}:\n{log}",
        row.says
    );
    environment.finish()?;
    Ok(format!("refused after {:.1} s", took.as_secs_f64()))
}
