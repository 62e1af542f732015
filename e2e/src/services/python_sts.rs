//! An STS service as others write it: a script of a scenario's, run by a Python that has
//! python-socketio.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::{Place, READY_PATIENCE};

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

/// A running script; its environment stops it.
#[derive(Debug)]
pub struct PythonSts {
    url: String,
}

impl PythonSts {
    /// Starts it; returns when it has said where it listens.
    ///
    /// # Errors
    /// When it does not start; the message holds its last lines.
    pub fn start(place: &Place, options: &PythonStsOptions) -> Result<Self> {
        let spawn = place
            .spawn("python-sts", &options.interpreter)
            .arg(&options.script)
            .arg(place.journal())
            .args(&options.args)
            // Nothing is left beside the script.
            .env("PYTHONDONTWRITEBYTECODE", "1");
        let process = place.group.spawn(&spawn)?;
        let url = process
            .wait_line("its ready line", READY_PATIENCE, |line| {
                line.text.strip_prefix("listening on ").map(str::to_owned)
            })
            .with_context(|| format!("{} does not start", options.script.display()))?;
        Ok(Self { url })
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }
}
