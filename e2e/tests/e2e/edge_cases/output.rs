//! Rows about the output, signals and options.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::environment::Way;
use e2e::probe::frames::CodedFrames;
use e2e::probe::metrics::ScrapeSample;
use e2e::runner::Context;
use e2e::services::echo_sts::EchoStsOptions;
use e2e::services::media_server::Kind;
use e2e::services::worker::Worker;
use nix::sys::signal::Signal;

use crate::cameras::also;

use super::{clip, complete, pipeline, prefix};

/// Nobody listens where the output goes: exit code 12, and the URL without its credentials.
pub(super) fn refused(context: &Context, row: &'static str) -> Result<()> {
    let name = format!("{}-{row}", context.name());
    let environment = context
        .named_environment(&name)
        .echo_sts(EchoStsOptions::default())
        .start()?;
    let mut options = environment.worker_options();
    // Port 9 (discard) is in nobody's range of free ports.
    options.output_url = String::from("rtmp://someone:secret@127.0.0.1:9/live/test/out");
    let process = Worker::spawn(environment.place(), &options)?;
    let exit = process.wait_exit(Duration::from_secs(10))?;
    let log = process.last_lines(20).join("\n");
    ensure!(exit.code() == Some(12), "exit code {exit:?}:\n{log}");
    ensure!(
        log.contains("rtmp://***@127.0.0.1:9/live/***"),
        "no URL in:\n{log}"
    );
    for secret in ["secret", "test/out"] {
        ensure!(!log.contains(secret), "the log has {secret}:\n{log}");
    }
    environment.finish()
}

/// The RTMP server dies mid-stream: exit code 12.
pub(super) fn lost(context: &Context, row: &'static str) -> Result<()> {
    let spec = clip(20);
    let evidence = pipeline(context, row, &spec)?.exit(12).run(|live| {
        live.worker
            .wait_batch("pair_started", 1, Duration::from_secs(20))?;
        live.environment.media_server().kill();
        Ok(())
    })?;
    super::says(&evidence, "output rtmp://")?;
    let errors = evidence.log.events("bus_error").count();
    ensure!(errors >= 1, "no bus error was logged");
    Ok(())
}

/// The RTMP server dies mid-stream and comes back: with `--output-retry` the stream goes on with the
/// next keyframe, what was skipped is counted, and the worker ends as if nothing had been. The input comes
/// from the camera itself: MediaMTX would take it along.
pub(super) fn returns(context: &Context, row: &'static str) -> Result<()> {
    let spec = clip(24);
    let evidence = pipeline(context, row, &spec)?
        .way(Way::Camera)
        .worker(|options| options.set("WORKER_OUTPUT_RETRY", "20s"))
        .run(|live| {
            live.worker
                .wait_batch("pair_started", 2, Duration::from_secs(20))?;
            live.environment.media_server().kill();
            live.worker
                .wait_log("output_lost", Duration::from_secs(5))?;
            live.environment.media_server_mut().restart()?;
            live.worker
                .wait_log("output_reconnected", Duration::from_secs(10))?;
            Ok(())
        })?;
    let back = evidence.log.events("output_reconnected").next();
    let back = back.context("the output did not come back")?;
    let skipped: f64 = ["skipped_video", "skipped_audio"]
        .iter()
        .filter_map(|field| back.number(field))
        .sum();
    let counted = evidence.count("worker_media_dropped_total", &[("reason", "output_lost")])?;
    ensure!(
        counted > 0 && counted as f64 == skipped,
        "{counted} units were counted, {skipped} told"
    );
    let pictures = evidence.clock()?.pictures;
    let numbers: Vec<_> = pictures
        .iter()
        .filter_map(|picture| picture.number)
        .collect();
    let (first, last) = (numbers.first().copied(), numbers.last().copied());
    ensure!(
        last == Some(spec.frames() - 1),
        "the output went on until picture {last:?}"
    );
    let whole = first.is_some_and(|first| numbers.iter().copied().eq(first..spec.frames()));
    ensure!(whole, "after its return the output has holes: {numbers:?}");
    Ok(())
}

/// SIGTERM: what came in is dubbed and published, the STS stream is ended, exit code 0.
pub(super) fn sigterm(context: &Context, row: &'static str) -> Result<()> {
    let spec = clip(20);
    let evidence = pipeline(context, row, &spec)?
        .way(Way::Camera)
        .abrupt()
        .run(also::terminate)?;
    let wire = evidence.journal.transcript();
    for step in ["→ stream:end", "← stream:complete"] {
        ensure!(
            wire.iter().any(|line| line == step),
            "{step:?} is missing in {wire:#?}"
        );
    }
    also::drained(&evidence)?;
    evidence.require_clean_log()
}

/// Nobody reads the log for a minute, though there is much of it: output goes on, and SIGTERM drains.
pub(super) fn stalled_log(context: &Context, row: &'static str) -> Result<()> {
    const MINUTE: Duration = Duration::from_mins(1);
    /// Output leaves in steps of pictures; a machine that is busy holds it up too.
    const STANDSTILL: Duration = Duration::from_secs(2);
    let spec = clip(75);
    let mut stalled = Duration::ZERO;
    let evidence = pipeline(context, row, &spec)?
        .worker(|options| {
            // Far more than a pipe and what the worker keeps.
            let talk = "rtspsrc:6,rtpjitterbuffer:6,rtmp2sink:6,basesink:6";
            options.set("GST_DEBUG", talk);
        })
        .abrupt()
        .run(|live| {
            live.worker
                .wait_log("pair_started", Duration::from_secs(20))?;
            let process = live.worker.process();
            stalled = live
                .worker
                .metrics_over_time()?
                .last()
                .map_or(stalled, |it| it.at);
            process.stop_reading();
            let minute = process.wait_exit(MINUTE);
            ensure!(
                minute.is_err(),
                "the worker ended while nobody read its log"
            );
            process.signal(Signal::SIGTERM);
            let drained = process.wait_exit(Duration::from_secs(20));
            process.read_again();
            drained.map(drop)
        })?;
    let series = "worker_log_lines_dropped_total";
    let dropped = evidence.metrics.count(series, &[])?;
    ensure!(dropped > 0, "no log line was dropped: nothing was stalled");
    let bytes = |sample: &ScrapeSample| sample.scrape.value("worker_output_bytes_total", &[]);
    let (mut moved, mut last) = (stalled, 0.0);
    for sample in evidence.samples.iter().filter(|it| it.at >= stalled) {
        let bytes = bytes(sample)?;
        if bytes > last {
            (moved, last) = (sample.at, bytes);
        }
        let still = sample.at.saturating_sub(moved);
        ensure!(still < STANDSTILL, "output stood still for {still:?}");
    }
    ensure!(
        moved >= stalled + MINUTE,
        "output ended {moved:?} after the start"
    );
    let out = prefix(&evidence)?;
    ensure!(out >= 30 * 60, "only {out} pictures are out");
    Ok(())
}

/// A second signal does not wait for the drain.
pub(super) fn second_signal(context: &Context, row: &'static str) -> Result<()> {
    let spec = clip(20);
    let evidence = pipeline(context, row, &spec)?.exit(1).run(|live| {
        live.worker
            .wait_log("pair_started", Duration::from_secs(20))?;
        live.worker.process().signal(Signal::SIGTERM);
        live.worker
            .wait_log("stop_requested", Duration::from_secs(5))?;
        live.worker.process().signal(Signal::SIGINT);
        Ok(())
    })?;
    let asked = evidence.log.first("stop_requested")?.unix_ms()?;
    let gone = evidence.log.first("exiting")?.unix_ms()?;
    ensure!(
        gone - asked < 2_000.0,
        "it took {} ms to stop at once",
        gone - asked
    );
    Ok(())
}

/// A bad value is refused at start with option, value and what is allowed; exit code 2.
pub(super) fn bad_option(context: &Context, row: &'static str) -> Result<()> {
    let name = format!("{}-{row}", context.name());
    let environment = context.named_environment(&name).start()?;
    let mut options = environment.worker_options();
    options.set("WORKER_STS_MAX_INFLIGHT", 11);
    let process = Worker::spawn(environment.place(), &options)?;
    let exit = process.wait_exit(Duration::from_secs(10))?;
    let said = process.last_lines(20).join("\n");
    ensure!(exit.code() == Some(2), "exit code {exit:?}:\n{said}");
    for part in ["--sts-max-inflight", "'11'", "1..=10"] {
        ensure!(said.contains(part), "{part} is missing in:\n{said}");
    }
    environment.finish()
}

/// Without STS: audio is copied, nobody is called.
pub(super) fn passthrough(context: &Context, row: &'static str) -> Result<()> {
    let spec = clip(6);
    let evidence = pipeline(context, row, &spec)?
        .worker(|options| options.set("WORKER_STS_MODE", "passthrough"))
        .run(|_| Ok(()))?;
    complete(&evidence, &spec)?;
    ensure!(
        evidence.journal.entries().is_empty(),
        "the STS service was called: {:?}",
        evidence.journal.transcript()
    );
    let audio = evidence.coded_frames(CodedFrames::audio)?;
    // The clip's first frame is priming, which nobody publishes.
    ensure!(
        audio.matched == audio.recorded && audio.matched + 2 >= audio.input,
        "audio is not a copy: {audio}"
    );
    evidence.require_clean_log()
}

/// Segment files cannot be written: logged and counted, the stream does not care.
pub(super) fn disk_full(context: &Context, row: &'static str) -> Result<()> {
    let spec = clip(6);
    let evidence = pipeline(context, row, &spec)?
        .worker(|options| options.set("WORKER_SEGMENT_DIR", "/dev/null/nowhere"))
        .run(|_| Ok(()))?;
    complete(&evidence, &spec)?;
    let lost = evidence.count("worker_segment_file_errors_total", &[])?;
    ensure!(lost >= 3, "{lost} missing files were counted");
    ensure!(
        evidence.log.events("segment_file_failed").count() >= 1,
        "no missing file was logged"
    );
    // MediaMTX or nginx: the same.
    ensure!(matches!(evidence.kind, Kind::MediaMtx | Kind::Default));
    Ok(())
}
