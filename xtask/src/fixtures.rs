//! Makes or checks the media clips under fixtures/.

use crate::flags::Fixtures;
use crate::preflight;
use crate::process::{cargo, run};
use crate::requirements::Need;

/// `cargo xtask fixtures`.
pub(crate) fn command(options: &Fixtures) -> anyhow::Result<()> {
    preflight::ensure(&[Need::Build, Need::Run])?;
    make_or_check(options.check)
}

/// Everything needed is here already.
pub(crate) fn make_or_check(check: bool) -> anyhow::Result<()> {
    let mut command = cargo(&[
        "run",
        "--quiet",
        "--package",
        "e2e",
        "--bin",
        "fixtures",
        "--",
    ]);
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
