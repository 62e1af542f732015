//! The programs an environment is made of, each behind a typed handle.

pub mod camera;
pub mod echo_sts;
pub mod fleet;
pub mod media_server;
pub mod python_sts;
pub mod recorder;
pub mod tcp_proxy;
pub mod viewer;
pub mod worker;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::process::{Group, Line, Process, Spawn};
use crate::wait::{self, Look};

/// How long a program may take to become ready. All of them need well under a second; a machine
/// that builds and tests at the same time can be ten times slower.
pub const READY_PATIENCE: Duration = Duration::from_secs(15);
/// Grace between SIGTERM and SIGKILL when a service is stopped.
pub const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long a local HTTP question may take.
const HTTP_PATIENCE: Duration = Duration::from_secs(2);

/// Where a service lives: whose child it is, where it may write, where its log goes.
#[derive(Debug, Clone)]
pub struct Place {
    /// Owns the processes.
    pub group: Arc<Group>,
    /// Private directory, gone with the environment.
    pub scratch: PathBuf,
    /// Directory of the artifacts, stays.
    pub artifacts: PathBuf,
}

impl Place {
    /// A child called `name` whose output goes to `NAME.log` among the artifacts.
    pub fn spawn(&self, name: &str, program: impl Into<PathBuf>) -> Spawn {
        Spawn::new(name, program, self.artifacts.join(format!("{name}.log"))).dir(&self.scratch)
    }

    /// The same for ffmpeg.
    pub fn call(&self, name: &str, call: &e2e_ffmpeg::Call) -> Spawn {
        self.spawn(name, call.program()).args(call.arguments())
    }

    /// Where the STS service writes down what it sees.
    pub fn journal(&self) -> PathBuf {
        self.artifacts.join("journal.jsonl")
    }
}

/// One local HTTP question: the status code and the body.
pub(crate) fn http_get(url: &str) -> Result<(u16, String)> {
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(HTTP_PATIENCE))
        // The harness talks to its own children only, whatever proxy the machine has.
        .proxy(None)
        .build()
        .new_agent();
    let mut response = agent
        .get(url)
        .call()
        .with_context(|| format!("cannot get {url}"))?;
    let body = response
        .body_mut()
        .read_to_string()
        .with_context(|| format!("cannot read {url}"))?;
    Ok((response.status().as_u16(), body))
}

/// Waits until a program that was just started prints `listening on URL`.
///
/// # Errors
/// When it does not start; the message holds its last lines.
pub(crate) fn wait_url(process: &Process) -> Result<String> {
    let url = |line: &Line| {
        let url = line.text.strip_prefix("listening on ")?;
        Some(url.trim().to_owned())
    };
    process
        .wait_line("its ready line", READY_PATIENCE, url)
        .with_context(|| format!("{} does not start", process.name()))
}

/// Waits until a program that was just started answers, with one of `statuses` if there are any; kills it
/// if it does not.
///
/// # Errors
/// When it dies or does not answer in time.
pub(crate) fn wait_answer(process: &Process, url: &str, statuses: &[u16]) -> Result<()> {
    let what = format!("{} to answer", process.name());
    wait::until(&what, READY_PATIENCE, || {
        process.alive()?;
        Ok(match http_get(url) {
            Ok((status, _)) if statuses.is_empty() || statuses.contains(&status) => Look::Done(()),
            Ok((status, body)) => Look::NotYet(format!("status {status}: {body}")),
            Err(error) => Look::NotYet(format!("{error:#}")),
        })
    })
    .inspect_err(|_| {
        process.kill();
    })
}

/// Like [`http_get`] for JSON; `None` if the answer is 404.
pub(crate) fn http_json(url: &str) -> Result<Option<Value>> {
    let (status, body) = http_get(url)?;
    match status {
        200 => Ok(Some(
            serde_json::from_str(&body).with_context(|| format!("{url} is not JSON: {body}"))?,
        )),
        404 => Ok(None),
        other => anyhow::bail!("{url} answered {other}: {body}"),
    }
}
