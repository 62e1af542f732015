//! The main job, once, for a person to watch.

use crate::flags::Demo;
use crate::process::run;
use crate::programs::Profile;
use crate::{e2e, preflight, programs};

/// `cargo xtask demo`.
pub(crate) fn command(options: &Demo) -> anyhow::Result<()> {
    preflight::ensure_media(&options.media)?;
    programs::build(Profile::Dev)?;
    let mut demo = programs::program("demo", Profile::Dev)?;
    e2e::media_environment(&mut demo, &options.media)?;
    run("the demo", &mut demo)
}
