//! Cleans up after a run of the suite that could not do it itself; see `e2e::cleanup`.
//!
//! `reaper RUN_DIR`: waits for standard input to close, kills every process that carries the run's
//! mark and removes the directory. Started by the harness, of no use by hand.

use std::{path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: reaper RUN_DIR (started by the end-to-end harness)");
        return ExitCode::from(2);
    };
    e2e::cleanup::reaper_main(&dir)
}
