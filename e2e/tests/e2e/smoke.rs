//! The harness itself: a camera is read, a media server takes an RTMP publisher, shows and records it,
//! survives its own restart, and nothing is left. Needs no worker.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use camera::Manner;
use e2e::{
    environment::{Scene, Way},
    runner::Context,
    services::media_server::Kind,
};

const PATIENCE: Duration = Duration::from_secs(20);
/// Short on purpose: what is proven here does not get truer with time.
const SECONDS: u32 = 3;

pub(crate) fn run(context: &Context) -> Result<()> {
    let mut environment = context
        .environment()
        .scene(Scene {
            clip: context.fixture().to_owned(),
            manner: Manner::default(),
            way: Way::Usual,
        })
        .start()?;
    let server = environment.media_server();
    ensure!(
        server.kind() == context.media_server(),
        "another media server was started"
    );

    context.phase("RTSP in");
    let place = environment.place().clone();
    let read = environment.artifacts().path("read.mp4");
    let reader = e2e_ffmpeg::record(&environment.input_url(), SECONDS, &read);
    let reader = place.group.spawn(&place.call("reader", &reader))?;
    environment.wait_playing(PATIENCE)?;
    let exit = reader.wait_exit(PATIENCE)?;
    ensure!(
        exit.success(),
        "the reader failed: {:?}",
        reader.last_lines(5)
    );
    ensure!(
        read.metadata().context("nothing was read")?.len() > 10_000,
        "hardly anything came"
    );

    context.phase("RTMP in, recording out");
    let output = environment.output_path();
    let publisher =
        e2e_ffmpeg::publish(context.fixture(), Some(SECONDS), &environment.output_url());
    let publisher = place
        .group
        .spawn(&place.call("rtmp-publisher", &publisher))?;
    if server.kind() == Kind::Default {
        // MediaMTX looks at 2 s of a publisher before it shows it, which is nearly all there is.
        server.wait_rtmp_published(&output, PATIENCE)?;
    }
    let exit = publisher.wait_exit(PATIENCE)?;
    ensure!(
        exit.success(),
        "the publisher failed: {:?}",
        publisher.last_lines(5)
    );
    let recording = environment.keep_recording(PATIENCE)?;
    ensure!(
        recording.metadata()?.len() > 10_000,
        "hardly anything was recorded"
    );
    ensure!(
        !server.is_rtmp_published(&output)?,
        "still published after its end"
    );

    context.phase("restart");
    let output_url = environment.output_url();
    let server = environment.media_server_mut();
    server.kill();
    ensure!(server.process().alive().is_err(), "it survived SIGKILL");
    server.restart()?;
    server.process().alive()?;
    let same = environment.output_url() == output_url;
    ensure!(same, "it came back at another address");

    context.phase("cleaning up");
    let scratch = environment.scratch().to_owned();
    environment.finish()?;
    ensure!(
        !scratch.exists(),
        "the environment's directory is still there"
    );
    Ok(())
}
