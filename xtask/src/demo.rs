//! The main job, once, for a person to watch.

use std::process::Command;

use crate::flags::{Demo, MediaOptions};
use crate::process::run;
use crate::programs::Profile;
use crate::{e2e, preflight, programs};

/// `cargo xtask demo`.
pub(crate) fn command(options: &Demo) -> anyhow::Result<()> {
    preflight::ensure_media(&options.media)?;
    programs::build(Profile::Dev)?;
    run("the demo", &mut demo(&options.media, Profile::Dev)?)
}

/// The demo program with its settings; it is built already.
pub(crate) fn demo(media: &MediaOptions, profile: Profile) -> anyhow::Result<Command> {
    let mut command = programs::program("demo", profile)?;
    e2e::media_environment(&mut command, media)?;
    Ok(command)
}
