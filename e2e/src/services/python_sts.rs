//! An STS service as others write it: a script of a scenario's, run by a Python that has
//! python-socketio.

use std::path::PathBuf;

use anyhow::Result;

use super::{Place, wait_url};

/// What is started as `interpreter script JOURNAL args…`.
#[derive(Debug, Clone)]
pub struct PythonStsOptions {
    /// Python with the packages that the script imports.
    pub interpreter: PathBuf,
    /// The service. It prints `listening on URL` and writes a journal as `echo-sts` does.
    pub script: PathBuf,
    /// What the script wants to know beside the path of its journal.
    pub args: Vec<String>,
}

/// Starts it; returns its URL when it has said where it listens. Its environment stops it.
///
/// # Errors
/// When it does not start; the message holds its last lines.
pub fn start(place: &Place, options: &PythonStsOptions) -> Result<String> {
    let spawn = place
        .spawn("python-sts", &options.interpreter)
        .arg(&options.script)
        .arg(place.journal())
        .args(&options.args)
        // Nothing is left beside the script.
        .env("PYTHONDONTWRITEBYTECODE", "1");
    wait_url(&place.group.spawn(&spawn)?)
}
