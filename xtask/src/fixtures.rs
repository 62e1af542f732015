//! Makes or checks the media clips under fixtures/.

use crate::flags::Fixtures;
use crate::process::run;
use crate::programs::Profile;
use crate::requirements::Need;
use crate::{preflight, programs};

/// `cargo xtask fixtures`.
pub(crate) fn command(options: &Fixtures) -> anyhow::Result<()> {
    preflight::ensure(&[Need::Build, Need::Run])?;
    programs::build(Profile::Dev)?;
    make_or_check(options.check)
}

/// Everything needed is here and built already.
pub(crate) fn make_or_check(check: bool) -> anyhow::Result<()> {
    let mut command = programs::program("fixtures", Profile::Dev)?;
    if check {
        command.arg("--check");
    }
    run(
        if check {
            "the check of the fixtures"
        } else {
            "making the fixtures"
        },
        &mut command,
    )
}
