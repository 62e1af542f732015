//! The `camera` process: shows a clip over RTSP to whoever asks.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use camera::{Manner, Sent};
use serde_json::Value;

use super::{Place, READY_PATIENCE};
use crate::process::{Line, Process, Source};
use crate::programs;

/// A running camera.
#[derive(Debug, Clone)]
pub struct Camera {
    process: Process,
    address: SocketAddr,
    sent: PathBuf,
}

impl Camera {
    /// Starts a camera called `name`, at a free port unless told otherwise; returns when it can be read.
    ///
    /// # Errors
    /// When the clip or the manner cannot be played; the message holds the camera's own sentence.
    pub fn start(
        place: &Place,
        name: &str,
        clip: &Path,
        manner: &Manner,
        listen: Option<SocketAddr>,
    ) -> Result<Self> {
        let sent = place.artifacts.join(format!("{name}-sent.json"));
        let listen = listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
        let spawn = place
            .spawn(name, programs::own("camera")?)
            .listening()
            .arg(clip)
            .args([
                "--listen",
                &listen.to_string(),
                "--manner",
                &serde_json::to_string(manner)?,
                "--sent",
            ])
            .arg(&sent);
        let process = place.group.spawn(&spawn)?;
        let address = process.wait_line("that it listens", READY_PATIENCE, |line| {
            said(line, "listening")?["address"].as_str()?.parse().ok()
        })?;
        Ok(Self {
            process,
            address,
            sent,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets a camera that holds its first packet send it.
    ///
    /// # Errors
    /// When it is dead.
    pub fn go(&self) -> Result<()> {
        self.process.say("go")
    }

    /// Waits for its first packet; returns its wall time, milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// When nobody asks for it within `patience`, or it is dead.
    pub fn wait_playing(&self, patience: Duration) -> Result<f64> {
        self.process
            .wait_line("its first packet", patience, |line| {
                said(line, "playing")?["unix_ms"].as_f64()
            })
    }

    /// What was sent to sessions that have ended; `None` before the first has.
    pub fn sent(&self) -> Option<Sent> {
        serde_json::from_slice(&std::fs::read(&self.sent).ok()?).ok()
    }

    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// The event of this name, if a line is one.
fn said(line: &Line, name: &str) -> Option<Value> {
    if line.source != Source::Stdout {
        return None;
    }
    let event: Value = serde_json::from_str(&line.text).ok()?;
    (event["event"] == name).then_some(event)
}
