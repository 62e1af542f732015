//! The harness itself: a media server starts, takes an RTSP publisher and an RTMP publisher, shows
//! and records them, survives its own restart, and nothing is left. Needs no worker.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::{
    runner::Context,
    services::media_server::{Half, Kind},
};

const PATIENCE: Duration = Duration::from_secs(20);
/// Short on purpose: what is proven here does not get truer with time.
const SECONDS: u32 = 3;

pub(crate) fn run(context: &Context) -> Result<()> {
    let mut environment = context.environment().start()?;
    let server = environment.media_server();
    ensure!(
        server.kind() == context.media_server(),
        "another media server was started"
    );
    ensure!(
        server.readers(&environment.input_path())?.is_none(),
        "something is published already"
    );

    context.phase("RTSP in and out");
    let place = environment.place().clone();
    let input_url = environment.input_url();
    let publisher = e2e_ffmpeg::publish(context.fixture(), Some(8), &input_url);
    let publisher = place.group.spawn(&place.call("publisher", &publisher))?;
    e2e::wait::until("the input to be published", PATIENCE, || {
        publisher.alive()?;
        let readers = server.readers(&environment.input_path())?;
        Ok(readers.map_or(
            e2e::wait::Look::NotYet("nothing".into()),
            e2e::wait::Look::Done,
        ))
    })?;

    let relayed = environment.artifacts().path("relayed.mp4");
    let reader = e2e_ffmpeg::record(&input_url, SECONDS, &relayed);
    let reader = place.group.spawn(&place.call("reader", &reader))?;
    server.wait_reader(&environment.input_path(), PATIENCE)?;
    let exit = reader.wait_exit(PATIENCE)?;
    ensure!(
        exit.success(),
        "the reader failed: {:?}",
        reader.last_lines(5)
    );
    ensure!(
        relayed.metadata().context("no relayed file")?.len() > 10_000,
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
    for half in [Half::Rtsp, Half::Rtmp] {
        let (input_url, output_url) = (environment.input_url(), environment.output_url());
        let server = environment.media_server_mut();
        server.kill(half);
        ensure!(server.alive().is_err(), "it survived SIGKILL");
        server.restart(half)?;
        server.alive()?;
        let same = environment.input_url() == input_url && environment.output_url() == output_url;
        ensure!(same, "it came back at another address");
    }

    context.phase("cleaning up");
    let scratch = environment.scratch().to_owned();
    environment.finish()?;
    ensure!(
        !scratch.exists(),
        "the environment's directory is still there"
    );
    Ok(())
}
