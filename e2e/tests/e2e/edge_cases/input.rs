//! Rows about the input.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use camera::Manner;
use camera::manner::{Failure, Fault, Jump, SessionManner, TrackManner};
use e2e::clock::{self, ClipSpec};
use e2e::environment::{Scene, Way};
use e2e::runner::Context;
use e2e::services::echo_sts::EchoStsOptions;
use e2e::services::media_server::Kind;
use e2e::services::worker::Worker;

use super::{clip, complete, pipeline, prefix, says};

/// RTSP is not there: three retries after 1, 2 and 4 s, then exit code 10.
pub(super) fn no_input(context: &Context, row: &'static str) -> Result<()> {
    let environment = context
        .named_environment(&format!("{}-{row}", context.name()))
        .echo_sts(EchoStsOptions::default())
        .start()?;
    let worker = environment.start_worker(&environment.worker_options())?;
    worker.expect_exit(10, Duration::from_secs(20))?;
    let log = worker.log();
    let delays: Vec<_> = log
        .events("input_retry")
        .filter_map(|record| record.number("delay_ms"))
        .collect();
    ensure!(
        delays == [1000.0, 2000.0, 4000.0],
        "retries after {delays:?} ms"
    );
    let took = (log.first("failed")?.unix_ms()? - log.first("input_retry")?.unix_ms()?) / 1e3;
    ensure!(
        (6.8..8.5).contains(&took),
        "the retries took {took:.2} s instead of 7"
    );
    drop(worker);
    environment.finish()
}

/// The camera's connection breaks after 5 s, and whoever comes again sees the clip from its start: the
/// output goes on where it was.
pub(super) fn returns(context: &Context, row: &'static str) -> Result<()> {
    let spec = clip(8);
    let evidence = pipeline(context, row, &spec)?
        .way(Way::Camera)
        .manner(Manner {
            faults: vec![Fault {
                at: 5.0,
                how: Failure::Close,
            }],
            session: SessionManner {
                again_from_start: true,
                ..SessionManner::default()
            },
            ..Manner::default()
        })
        .extra_time(Duration::from_secs(20))
        .run(|_| Ok(()))?;
    let clock = evidence.clock()?;
    let numbers: Vec<_> = clock
        .pictures
        .iter()
        .filter_map(|picture| picture.number)
        .collect();
    let restart = (1..numbers.len())
        .find(|&n| numbers[n] == 0)
        .context("the second connection's pictures are missing")?;
    ensure!(
        numbers[..restart].iter().copied().eq(0..restart as u32),
        "a hole before the loss: {numbers:?}"
    );
    ensure!(
        numbers[restart..].iter().copied().eq(0..spec.frames()),
        "not all pictures after the loss: {numbers:?}"
    );
    ensure!(
        (130..=150).contains(&restart),
        "{restart} pictures before the loss at 5 s"
    );
    // One timeline: times go on, and the hole is as long as the input was away.
    let hole = clock.pictures[restart].at - clock.pictures[restart - 1].at;
    ensure!((0.5..12.0).contains(&hole), "the hole is {hole:.2} s");
    let sound = evidence.sound()?;
    ensure!(
        sound.breaks().is_empty(),
        "audio is not continuous over the hole: {:?}",
        sound.breaks()
    );
    let skews = clock.sync().skews;
    ensure!(
        skews.len() >= 11,
        "{} seconds with flash and beep",
        skews.len()
    );
    for skew in skews {
        ensure!(
            skew.ms.abs() < 40.0,
            "second {} is {:.1} ms apart",
            skew.second,
            skew.ms
        );
    }
    Ok(())
}

/// The camera dies mid-stream: what came in still goes out, then exit code 10. The worker reads the camera
/// itself: behind MediaMTX a camera that has died is a stream that is over.
pub(super) fn server_lost(context: &Context, row: &'static str) -> Result<()> {
    let spec = clip(12);
    let evidence = pipeline(context, row, &spec)?
        .way(Way::Camera)
        .exit(10)
        .run(|live| {
            live.worker
                .wait_log("pair_started", Duration::from_secs(20))?;
            live.environment.camera().process().kill();
            Ok(())
        })?;
    says(&evidence, "input rtsp://")?;
    let delays: Vec<_> = evidence
        .log
        .events("input_retry")
        .filter_map(|r| r.number("delay_ms"))
        .collect();
    ensure!(
        delays == [1000.0, 2000.0, 4000.0],
        "retries after {delays:?} ms"
    );
    let ready: f64 = evidence
        .log
        .events("segment_ready")
        .filter_map(|record| record.number("video_units"))
        .sum();
    let out = prefix(&evidence)?;
    ensure!(
        f64::from(out) == ready,
        "{ready} pictures were in segments, {out} are out"
    );
    Ok(())
}

/// Audio that is sent three seconds late, stamped right: video waits for it, nothing is lost.
pub(super) fn delayed_audio(context: &Context, row: &'static str) -> Result<()> {
    let spec = clip(12);
    let evidence = pipeline(context, row, &spec)?
        .manner(audio(TrackManner {
            late: 3.0,
            ..TrackManner::default()
        }))
        .run(|_| Ok(()))?;
    complete(&evidence, &spec)?;
    // MediaMTX tells its readers when a packet reached it instead of when it was made: late
    // audio is late for good there.
    if evidence.kind == Kind::MediaMtx {
        return Ok(());
    }
    let clock = evidence.clock()?;
    let sync = clock.sync();
    ensure!(
        sync.skews.len() == 12 && sync.worst_ms().abs() < 40.0,
        "{sync:?}"
    );
    let latency = evidence
        .metrics
        .value("worker_output_latency_seconds", &[])?;
    ensure!(
        latency > 4.5,
        "latency is {latency} s, so the audio was not waited for"
    );
    Ok(())
}

/// No audio track: says so at once, exit code 11.
pub(super) fn no_audio(context: &Context, row: &'static str) -> Result<()> {
    unsuitable(
        context,
        row,
        &ClipSpec::silent(4).small(),
        "audio track required for dubbing",
    )
}

/// No video track: says so at once, exit code 11.
pub(super) fn no_video(context: &Context, row: &'static str) -> Result<()> {
    unsuitable(
        context,
        row,
        &ClipSpec::sound_only(4),
        "H.264 video track required",
    )
}

fn unsuitable(context: &Context, row: &'static str, spec: &ClipSpec, text: &str) -> Result<()> {
    let name = format!("{}-{row}", context.name());
    let environment = context
        .named_environment(&name)
        .scene(Scene {
            clip: clock::cached(spec)?,
            manner: Manner::default(),
            way: Way::Usual,
        })
        .echo_sts(EchoStsOptions::default())
        .start()?;
    let process = Worker::spawn(environment.place(), &environment.worker_options())?;
    let exit = process.wait_exit(Duration::from_secs(10))?;
    let log = process.last_lines(20).join("\n");
    ensure!(exit.code() == Some(11), "exit code {exit:?}:\n{log}");
    ensure!(log.contains(text), "the log does not say {text:?}:\n{log}");
    environment.finish()
}

/// A camera whose audio is wrong in this way.
fn audio(audio: TrackManner) -> Manner {
    Manner {
        audio,
        ..Manner::default()
    }
}

/// B-frames: access units keep their order, times are right.
pub(super) fn b_frames(context: &Context, row: &'static str) -> Result<()> {
    let spec = clip(6).with_bframes(2);
    let evidence = pipeline(context, row, &spec)?.run(|_| Ok(()))?;
    complete(&evidence, &spec)?;
    evidence.require_clean_log()
}

/// Other rates and channel counts run through unchanged.
pub(super) fn mono_44100(context: &Context, row: &'static str) -> Result<()> {
    let spec = clip(6).with_audio(44_100, 1);
    let evidence = pipeline(context, row, &spec)?.run(|_| Ok(()))?;
    complete(&evidence, &spec)?;
    let sound = evidence.sound()?;
    ensure!(
        (sound.rate, sound.channels) == (44_100, 1),
        "{} Hz, {} channels",
        sound.rate,
        sound.channels
    );
    let sync = evidence.clock()?.sync();
    ensure!(
        sync.skews.len() == 6 && sync.worst_ms().abs() < 40.0,
        "{sync:?}"
    );
    Ok(())
}

/// Five audio frames per packet, as ffmpeg publishes.
pub(super) fn bundled_audio(context: &Context, row: &'static str) -> Result<()> {
    let spec = clip(6);
    let evidence = pipeline(context, row, &spec)?
        .manner(Manner {
            frames_per_packet: 5,
            ..Manner::default()
        })
        .run(|_| Ok(()))?;
    complete(&evidence, &spec)?;
    // Aligned by sender reports; those of MediaMTX tell arrival, which is late by a packet, so that the first
    // beep may lie before the first picture.
    let (least, limit) = if evidence.kind == Kind::MediaMtx {
        (5, 120.0)
    } else {
        (6, 40.0)
    };
    let sync = evidence.clock()?.sync();
    ensure!(
        sync.skews.len() >= least && sync.worst_ms().abs() < limit,
        "{sync:?}"
    );
    evidence.require_clean_log()
}

/// The video's clock steps back: no frame is lost, time goes on.
pub(super) fn clock_back(context: &Context, row: &'static str) -> Result<()> {
    let spec = clip(12);
    let evidence = pipeline(context, row, &spec)?
        .manner(Manner {
            video: TrackManner {
                jumps: vec![Jump {
                    at: 7.0,
                    ms: -200.0,
                    ..Jump::default()
                }],
                ..TrackManner::default()
            },
            ..Manner::default()
        })
        .run(|_| Ok(()))?;
    let clock = evidence.require_every_picture(spec.frames())?;
    for pair in clock.pictures.windows(2) {
        ensure!(
            pair[1].at > pair[0].at,
            "time repeats or goes back at {:.3} s",
            pair[1].at
        );
    }
    Ok(())
}
