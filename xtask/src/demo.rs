//! The main job, once, for a person to watch.

use std::process::Command;

use crate::flags::{Demo, MediaOptions, MediaServer};
use crate::process::run;
use crate::programs::Profile;
use crate::{e2e, preflight, programs};

/// `cargo xtask demo`.
pub(crate) fn command(options: &Demo) -> anyhow::Result<()> {
    let server = preflight::ensure_media(&options.media)?;
    programs::build(Profile::Dev)?;
    run("the demo", &mut demo(&options.media, server, Profile::Dev)?)
}

/// The demo program with its arguments; it is built already.
pub(crate) fn demo(
    media: &MediaOptions,
    server: MediaServer,
    profile: Profile,
) -> anyhow::Result<Command> {
    let mut command = programs::program("demo", profile)?;
    command.args(["--media-server", e2e::server_name(server)]);
    if let Some(fixture) = &media.fixture {
        command.arg("--fixture").arg(std::path::absolute(fixture)?);
    }
    Ok(command)
}
