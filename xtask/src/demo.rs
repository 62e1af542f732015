//! The main job, once, for a person to watch.

use crate::flags::{Demo, MediaOptions};
use crate::process::{cargo, run};
use crate::{e2e, preflight};

/// `cargo xtask demo`.
pub(crate) fn command(options: &Demo) -> anyhow::Result<()> {
    let server = preflight::ensure_media(&options.media)?;
    e2e::build()?;
    let mut command = cargo(&["run", "--quiet", "--package", "e2e", "--bin", "demo", "--"]);
    command.args(arguments(&options.media, server)?);
    run("the demo", &mut command)
}

/// The demo program's own arguments.
pub(crate) fn arguments(
    media: &MediaOptions,
    server: crate::flags::MediaServer,
) -> anyhow::Result<Vec<std::ffi::OsString>> {
    let mut arguments = vec!["--media-server".into(), e2e::server_name(server).into()];
    if let Some(fixture) = &media.fixture {
        arguments.push("--fixture".into());
        arguments.push(std::path::absolute(fixture)?.into());
    }
    Ok(arguments)
}
