//! User story 1: a minute of live video goes all the way through, and every frame is proven.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::pipeline::{Evidence, Live};
use e2e::probe::audio;
use e2e::probe::ffprobe;
use e2e::probe::metrics::ScrapeSample;
use e2e::runner::{Context, MAIN};
use e2e::threads::quietly;

use crate::cameras;
use crate::judge;
use crate::stage::{self, MINUTE, Stage};

const SEGMENTS: usize = 10;
const PICTURES: u32 = 1_800;

pub(crate) fn run(stage: &Context) -> Result<()> {
    stage.parts(&[
        (MAIN, &|| minute(stage)),
        ("ffmpeg", &|| cameras::published(stage, "ffmpeg")),
    ])
}

fn minute(stage: &Context) -> Result<()> {
    let evidence = stage
        .pipeline(stage.fixture(), MINUTE)
        .late_reader()
        .run(there_within_a_second)?;
    stage.snapshot("full_pipeline__metrics", &stage::metric_set(&evidence));
    stage.snapshot("full_pipeline__sts_events", &stage::sts_events(&evidence));
    let recording = evidence.recording()?.to_owned();
    let mut summary = quietly(move || Ok(ffprobe::probe(&recording)?.summary()))?;
    // Times in FLV are whole milliseconds, so the rate read from them is nearly the clip's.
    let video = summary.get_mut("video").context("no video stream")?;
    let fps = video.fps.take().context("no frame rate")?;
    stage.snapshot("full_pipeline__output_streams", &summary);
    let rate: f64 = fps.parse()?;
    ensure!(
        (29.0..31.0).contains(&rate),
        "the output has {fps} frames per second"
    );
    timing(&evidence)?;
    sts(&evidence)?;
    evidence.require_clean_log()?;
    playable(&evidence)?;
    if stage.is_own_fixture() {
        pictures_and_sound(&evidence)?;
    }
    evidence.require_every_coded_frame()?;
    steady(&evidence)?;
    metrics(&evidence)?;
    stage.told(evidence.require_rules(&[
        ("count(ALERTS{alertstate=\"firing\"}) or vector(0)", 0.0),
        ("min(stream:dubbed_ratio:5m) > bool 0.9", 1.0),
        ("max(stream:sts_rtt_ms:p95_5m) < bool 1000", 1.0),
        ("max(stream:out_of_sync_ratio:15m) == bool 0", 1.0),
    ]))
}

/// By the server, not by the worker: `MediaMTX` looks at two seconds of media before a path is there.
fn there_within_a_second(live: &mut Live) -> Result<()> {
    live.worker
        .wait_log("fragment_processed", Duration::from_secs(30))?;
    let pair = Instant::now();
    let (server, path) = (
        live.environment.media_server(),
        live.environment.output_path(),
    );
    server.wait_rtmp_published(&path, Duration::from_secs(10))?;
    let took = pair.elapsed();
    live.tell(&format!(
        "the output is there {took:?} after the first pair"
    ));
    ensure!(
        took < Duration::from_secs(1),
        "by the media server the output was there {took:?} after the first pair"
    );
    Ok(())
}

fn timing(evidence: &Evidence) -> Result<()> {
    ensure!(
        evidence.reading_after < Duration::from_secs(5),
        "the worker read its input only after {:?}",
        evidence.reading_after
    );
    let first_pair = evidence.log.first("fragment_processed")?.unix_ms()?;
    let published = evidence.log.first("pair_started")?.unix_ms()?;
    ensure!(
        published - first_pair < 1_000.0,
        "output came {} ms after the first pair",
        published - first_pair
    );
    ensure!(
        evidence.took < Duration::from_secs(90),
        "the run took {:?}",
        evidence.took
    );
    Ok(())
}

fn sts(evidence: &Evidence) -> Result<()> {
    evidence.journal.assert_complete(SEGMENTS)?;
    for fragment in evidence.journal.fragments() {
        let took = fragment
            .processing_ms()
            .context("a fragment has no answer")?;
        ensure!(
            took < 1_000.0,
            "echo-sts took {took} ms for fragment {:?}",
            fragment.sequence
        );
    }
    Ok(())
}

fn playable(evidence: &Evidence) -> Result<()> {
    let late = evidence.late.as_ref().context("nobody joined late")?;
    late.require_playable(Duration::from_secs(5))
}

fn pictures_and_sound(evidence: &Evidence) -> Result<()> {
    let clock = evidence.require_every_picture(PICTURES)?;
    evidence.require_identity(|_| true)?;
    let sync = clock.sync();
    ensure!(
        sync.skews.len() == 60,
        "{} of 60 seconds have flash and beep: {sync:?}",
        sync.skews.len()
    );
    ensure!(
        sync.stray_beeps.is_empty(),
        "beeps out of place: {:?}",
        sync.stray_beeps
    );
    ensure!(
        sync.worst_ms().abs() <= 40.0,
        "flash and beep are {:.1} ms apart",
        sync.worst_ms()
    );

    let steps = clock.steps();
    ensure!(
        steps.worst_step_error_ms.abs() <= 2.0,
        "picture times step unevenly: {steps:?}"
    );

    let sound = evidence.sound()?;
    ensure!(
        sound.breaks().is_empty(),
        "audio timestamps are not continuous: {:?}",
        sound.breaks()
    );
    let length = sound.end() - sound.start();
    ensure!(
        (length - 60.0).abs() <= 0.5,
        "the sound lasts {length:.3} s"
    );
    let pictures = &clock.pictures;
    let (first, last) = (
        pictures.first().context("no picture")?.at,
        pictures.last().context("no picture")?.at,
    );
    let video = last - first + 1.0 / 30.0;
    ensure!(
        (video - 60.0).abs() <= 0.1,
        "the pictures last {video:.3} s"
    );

    // Echoed sound is the input's sound, where it belongs, to the millisecond.
    let clip = evidence.clip.clone();
    let (alignment, clicks, dropouts) = quietly(move || {
        let input = audio::Sound::read(&clip)?;
        Ok((
            audio::align(&input, &sound, 200.0)?,
            audio::clicks(&sound),
            audio::dropouts(&sound),
        ))
    })?;
    ensure!(
        alignment.worst_deviation_ms() < 5.0,
        "the sound wanders: {alignment:?}"
    );
    ensure!(clicks.is_empty(), "clicks in the output: {clicks:?}");
    ensure!(dropouts.is_empty(), "dropouts in the output: {dropouts:?}");
    Ok(())
}

/// Between its first pair and the last one the worker grows by nothing.
fn steady(evidence: &Evidence) -> Result<()> {
    let moved = |sample: &&ScrapeSample, pairs: u64| {
        let [dubbed, original] = ["dubbed", "original"].map(|audio| {
            let on_air = sample
                .scrape
                .count("worker_segments_on_air_total", &[("audio", audio)]);
            on_air.unwrap_or_default()
        });
        dubbed + original >= pairs
    };
    let at = |pairs| {
        let sample = evidence.samples.iter().find(|sample| moved(sample, pairs));
        sample.map(|sample| sample.at)
    };
    let (first, last) = (at(1), at(SEGMENTS as u64));
    let (first, last) = first.zip(last).context("no pair in any scrape")?;
    judge::require_steady(&evidence.samples, first, last)
}

fn metrics(evidence: &Evidence) -> Result<()> {
    let delta = evidence
        .metrics
        .histogram("worker_av_sync_abs_delta_ms", &[])?;
    ensure!(
        delta.count == SEGMENTS as u64,
        "{} pairs were measured",
        delta.count
    );
    ensure!(
        delta.at_most(40.0)? == delta.count,
        "a pair was more than 40 ms apart: {delta:?}"
    );
    let rtt = evidence.metrics.histogram("worker_sts_rtt_ms", &[])?;
    ensure!(
        rtt.at_most(1000.0)? == SEGMENTS as u64,
        "round trips over a second: {rtt:?}"
    );
    for (name, labels) in [
        ("worker_input_frames_total", [("track", "video")]),
        ("worker_output_frames_total", [("track", "video")]),
        ("worker_video_units_total", [("stage", "received")]),
        ("worker_video_units_total", [("stage", "placed")]),
        ("worker_video_units_total", [("stage", "published")]),
    ] {
        let counted = evidence.metrics.count(name, &labels)?;
        ensure!(
            counted == u64::from(PICTURES),
            "{name} {labels:?} says {counted}, {PICTURES} were sent and recorded"
        );
    }
    let latency = evidence
        .metrics
        .value("worker_output_latency_seconds", &[])?;
    ensure!(
        (6.0..8.0).contains(&latency),
        "output latency is {latency} s"
    );
    Ok(())
}
