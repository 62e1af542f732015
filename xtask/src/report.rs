//! Makes the reports of end-to-end runs again and opens them.

use std::process::{Command, Stdio};

use crate::flags::Report;
use crate::process::run;
use crate::programs::{self, Profile};

/// `cargo xtask report`.
pub(crate) fn command(options: &Report) -> anyhow::Result<()> {
    programs::build(Profile::Dev)?;
    let target = programs::target_directory()?.join("e2e");
    let directory = match &options.directory {
        Some(directory) => std::path::absolute(directory)?,
        None => target,
    };
    let mut report = programs::program("report", Profile::Dev)?;
    run("the report", report.arg(&directory))?;
    let page = ["report.html", "index.html"].map(|name| directory.join(name));
    // A machine without a screen has nothing to open it with: the path is said already.
    if std::env::var_os("DISPLAY")
        .or(std::env::var_os("WAYLAND_DISPLAY"))
        .is_some()
        && let Some(page) = page.iter().find(|page| page.is_file())
    {
        let mut open = Command::new("xdg-open");
        let _ = open
            .arg(page)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::flags::{Cli, Command};

    #[test]
    fn the_command_of_a_repro_file_is_one_that_is_understood() {
        let line = "xtask e2e edge_cases --media-server default --fixture /a/b.mp4 --part sigterm";
        let cli = Cli::try_parse_from(line.split(' ')).expect("understood");
        let Command::E2e(options) = cli.command else {
            panic!("{:?}", cli.command);
        };
        assert_eq!(options.scenarios, ["edge_cases"]);
        assert_eq!(options.part.as_deref(), Some("sigterm"));
    }
}
