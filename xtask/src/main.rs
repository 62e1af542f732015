//! The one entry point for people and CI: `cargo xtask --help`.
//!
//! Each command has a file of its own; this one only dispatches. `requirements` is the single list
//! of what the project needs from the system; `setup`, `doctor`, the check before each run and
//! `tidy` all read it.

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod demo;
mod doctor;
mod e2e;
mod failure;
mod fixtures;
mod flags;
mod host;
mod preflight;
mod process;
mod programs;
mod python;
mod report;
mod requirements;
mod say;
mod setup;
mod soak;
mod test;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser as _;

use crate::flags::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    process::watch_signals();
    match dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::say::tell!("error: {error:#}");
            ExitCode::from(failure::exit_code(&error))
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Setup(options) => setup::command(&options),
        Command::Doctor => doctor::command(),
        Command::Demo(options) => demo::command(&options),
        Command::E2e(options) => e2e::command(&options),
        Command::Report(options) => report::command(&options),
        Command::Test(options) => test::command(&options),
        Command::Fixtures(options) => fixtures::command(&options),
        Command::Tidy => tidy::command(),
        Command::Bench(options) => bench::command(&options),
        Command::Soak(options) => soak::command(&options),
    }
}

/// The root of the checkout: this crate's parent directory. Cargo's word at run time counts, so a
/// checkout that was moved together with its target directory still finds itself.
fn root() -> PathBuf {
    let manifest_dir =
        std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&manifest_dir)
        .parent()
        .expect("the crate lies inside the workspace")
        .to_path_buf()
}
