//! The `echo-sts` process of one environment.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};

use super::{Place, STOP_GRACE, wait_answer, wait_url};
use crate::{
    control::Control,
    probe::journal::Journal,
    process::{Process, exit_text},
    programs,
    wait::{self, Look},
};

/// Arguments with which `echo-sts` is started; what is not said is left to its own default.
#[derive(Debug, Clone, Default)]
pub struct EchoStsOptions(Vec<String>);

impl EchoStsOptions {
    /// With what comes back: `echo`, `mark`, `silence`, …
    pub fn mode(audio_mode: &str) -> Self {
        Self::default().with("--audio-mode", audio_mode)
    }

    /// A delay before each answer.
    #[must_use]
    pub fn latency(self, latency: Duration) -> Self {
        self.with("--latency-ms", latency.as_millis())
    }

    /// Engine.IO's ping interval and its timeout.
    #[must_use]
    pub fn pings(self, interval: Duration, timeout: Duration) -> Self {
        self.with("--ping-interval-ms", interval.as_millis())
            .with("--ping-timeout-ms", timeout.as_millis())
    }

    /// One more argument with its value.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.0.extend([name.to_owned(), value.to_string()]);
        self
    }
}

#[derive(Debug)]
pub struct EchoSts {
    place: Place,
    options: EchoStsOptions,
    process: Process,
    url: String,
    journal: PathBuf,
    /// Journals of the processes before this one.
    earlier: Vec<PathBuf>,
}

impl EchoSts {
    /// Starts it on a free port; returns when `/health` answers 200.
    pub fn start(place: &Place, options: EchoStsOptions) -> Result<Self> {
        let journal = place.journal();
        let (process, url) = spawn(place, &options, "127.0.0.1:0", &journal)?;
        Ok(Self {
            place: place.clone(),
            options,
            process,
            url,
            journal,
            earlier: Vec::new(),
        })
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When its URL is not what it should be.
    pub fn address(&self) -> Result<SocketAddr> {
        let address = self.url.trim_start_matches("http://");
        address
            .parse()
            .with_context(|| format!("{} has no address", self.url))
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The journal so far, over all restarts.
    pub fn journal(&self) -> Result<Journal> {
        let files = self.earlier.iter().chain([&self.journal]);
        files
            .map(|file| Journal::read(file))
            .try_fold(Journal::default(), |all, next| Ok(all.followed_by(next?)))
    }

    /// Waits until the journal fulfils `is_so`, and returns it.
    ///
    /// # Errors
    /// When it does not within `patience`, or `echo-sts` died.
    pub fn wait_journal(
        &self,
        what: &str,
        patience: Duration,
        mut is_so: impl FnMut(&Journal) -> bool,
    ) -> Result<Journal> {
        wait::until(&format!("{what} in the journal"), patience, || {
            self.process.alive()?;
            let journal = self.journal()?;
            if is_so(&journal) {
                return Ok(Look::Done(journal));
            }
            let last = journal
                .transcript()
                .pop()
                .unwrap_or_else(|| "nothing".into());
            Ok(Look::NotYet(format!(
                "{} entries, last: {last}",
                journal.entries().len()
            )))
        })
    }

    /// Connects a control client.
    ///
    /// # Errors
    /// When it cannot connect.
    pub fn control(&self) -> Result<Control> {
        Control::connect(&self.url)
    }

    /// Kills it, as a crash would.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Starts it again on the same port, stopping it first if it runs. The journal goes on.
    pub fn restart(&mut self) -> Result<()> {
        self.process.stop(STOP_GRACE);
        // A new process begins with an empty file.
        let name = format!("journal-{}.jsonl", self.earlier.len() + 1);
        let kept = self.journal.with_file_name(name);
        std::fs::rename(&self.journal, &kept)
            .with_context(|| format!("cannot keep the journal as {}", kept.display()))?;
        self.earlier.push(kept);
        let address = self.url.trim_start_matches("http://");
        (self.process, _) = spawn(&self.place, &self.options, address, &self.journal)?;
        Ok(())
    }

    /// Stops it with SIGTERM, which it has to obey with exit code 0.
    ///
    /// # Errors
    /// When it ends otherwise.
    pub fn stop(&self) -> Result<()> {
        let exit = self.process.stop(STOP_GRACE);
        anyhow::ensure!(
            exit.success(),
            "echo-sts ended with {} after SIGTERM",
            exit_text(exit)
        );
        Ok(())
    }
}

fn spawn(
    place: &Place,
    options: &EchoStsOptions,
    listen: &str,
    journal: &std::path::Path,
) -> Result<(Process, String)> {
    let spawn = place
        .spawn("echo-sts", programs::own("echo-sts")?)
        .args(["--listen", listen, "--journal"])
        .arg(journal)
        .args(&options.0)
        .env("LOG_FORMAT", "json");
    let process = place.group.spawn(&spawn)?;
    let url = wait_url(&process)?;
    wait_answer(&process, &format!("{url}/health"), &[200])?;
    Ok((process, url))
}
