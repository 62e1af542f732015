//! The main job, once, for a person: publishes a clip through the worker and says what came of it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use e2e::clock;
use e2e::environment::{Environment, Traces};
use e2e::failure::Failure;
use e2e::pipeline::{Evidence, Pipeline};
use e2e::probe::ffprobe;
use e2e::probe::frames::CodedFrames;
use e2e::report::{self, Verdict};
use e2e::services::echo_sts::EchoStsOptions;
use e2e::services::media_server::Kind;
use e2e::threads::lock;

/// Publish a clip through the worker and echo-sts, and say what came out.
#[derive(Parser)]
struct Options {
    /// The clip to publish: H.264 video with audio [default: fixtures/clock-60s.mp4]
    #[arg(long, value_name = "PATH", env = "E2E_FIXTURE")]
    fixture: Option<PathBuf>,

    /// mediamtx or default (nginx) [default: MediaMTX if it is installed]
    #[arg(long, env = "E2E_MEDIA_SERVER")]
    media_server: Option<Kind>,
}

fn main() -> ExitCode {
    match demo(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo(options: Options) -> Result<()> {
    let own_clip = options.fixture.is_none();
    let mut command = String::from("cargo xtask demo");
    if let Some(server) = options.media_server {
        command += &format!(" --media-server {server}");
    }
    if let Some(clip) = &options.fixture {
        command += &format!(" --fixture '{}'", std::path::absolute(clip)?.display());
    }
    let clip = match options.fixture {
        Some(clip) => clip,
        None => clock::fixture()?,
    };
    let probe = ffprobe::probe(&clip)
        .with_context(|| format!("{} cannot be used as a clip", clip.display()))?;
    let seconds = probe
        .format
        .duration
        .context("the clip does not say how long it is")?;
    let server = Kind::choose(options.media_server)?;
    println!(
        "media server: {server}; clip: {} ({seconds:.1} s)",
        clip.display()
    );

    let began = Instant::now();
    let tell =
        Arc::new(move |what: &str| println!("{:6.1} s  {what}", began.elapsed().as_secs_f64()));
    let traces = Arc::new(Traces {
        command,
        ..Traces::default()
    });
    let environment = Environment::builder("demo")
        .media_server(server)
        .trace(Arc::clone(&traces));
    let evidence = Pipeline::new(environment, &clip, Duration::from_secs_f64(seconds))
        .sts(EchoStsOptions::mode("mark"))
        .tell(tell)
        .worker(|options| options.captions = true)
        .run(|_| Ok(()));
    let told = evidence.and_then(|evidence| summary(&evidence, own_clip));
    let gone = lock(&traces.gone);
    for trace in gone.iter() {
        let mut part = trace.part.clone();
        "demo".clone_into(&mut part.scenario);
        "the main job, once, for a person to watch".clone_into(&mut part.about);
        part.failures.extend(told.as_ref().err().map(Failure::of));
        part.verdict = if told.is_ok() {
            Verdict::Passed
        } else {
            Verdict::Failed
        };
        report::write(&trace.artifacts, &part)?;
        println!(
            "report     {}",
            trace.artifacts.join(report::FILE).display()
        );
    }
    told
}

fn summary(evidence: &Evidence, own_clip: bool) -> Result<()> {
    let frames = evidence.coded_frames(CodedFrames::video)?;
    let clock = own_clip.then(|| evidence.clock()).transpose()?;
    let metrics = &evidence.metrics;
    let fallbacks = metrics.sum("worker_fallback_total", &[]);
    println!();
    println!(
        "frames     {} in, {} out, {} of them bit-identical",
        frames.input, frames.recorded, frames.matched
    );
    println!(
        "fragments  {} sent, {} dubbed, {fallbacks} fallen back to original audio",
        metrics.count("worker_audio_fragments_total", &[("status", "sent")])?,
        metrics.count("worker_audio_fragments_total", &[("status", "processed")])?,
    );
    if let Some(heard) = evidence.summary() {
        println!("heard      {heard}");
    }
    if let Some(clock) = clock {
        let sync = clock.sync();
        println!(
            "lip sync   worst {:+.1} ms, median {:+.1} ms over {} flashes and beeps (positive: sound is late)",
            sync.worst_ms(),
            sync.median_ms(),
            sync.skews.len()
        );
    }
    let delta = metrics.histogram("worker_av_sync_abs_delta_ms", &[])?;
    println!(
        "A/V delta  {:.1} ms on average by the worker's own timestamps",
        delta.sum / delta.count.max(1) as f64
    );
    println!(
        "latency    {:.2} s, {} stalls",
        metrics.value("worker_output_latency_seconds", &[])?,
        metrics.count("worker_output_stalls_total", &[])?,
    );
    println!("recording  {}", evidence.recording()?.display());
    println!("logs       {}", evidence.directory.display());
    Ok(())
}
