//! The `publisher` process: sends a clip to the media server and holds its first packet until told.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Place, READY_PATIENCE, STOP_GRACE};
use crate::process::{Line, Process, Source};
use crate::programs;

/// How long the first packet may take after `go`; it needs a few milliseconds.
const FIRST_PACKET: Duration = Duration::from_secs(5);

/// What a publisher sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Access units.
    pub video: u64,
    /// Audio frames.
    pub audio: u64,
}

/// A running publisher.
#[derive(Debug, Clone)]
pub struct Publisher(Process);

impl Publisher {
    /// Starts a publisher called `name` and returns when the server has taken the stream. No media is
    /// sent before [`go`](Self::go). `options` are those of `publisher --help`.
    ///
    /// # Errors
    /// When the clip cannot be published or the server does not take it; the message holds the
    /// publisher's own sentence about it.
    pub fn start(
        place: &Place,
        name: &str,
        clip: &Path,
        url: &str,
        options: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>,
    ) -> Result<Self> {
        let spawn = place
            .spawn(name, programs::own("publisher")?)
            .listening()
            .arg(clip)
            .arg(url)
            .args(options);
        let process = place.group.spawn(&spawn)?;
        process.wait_line(
            "that it announced its stream",
            READY_PATIENCE,
            said("announced"),
        )?;
        Ok(Self(process))
    }

    /// Sends from now on; returns the wall time of the first packet, milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// When the publisher is dead or sends nothing.
    pub fn go(&self) -> Result<f64> {
        self.0.say("go")?;
        let sent = self
            .0
            .wait_line("its first packet", FIRST_PACKET, said("first_packet"))?;
        sent.trim()
            .parse()
            .with_context(|| format!("'{sent}' is not a time"))
    }

    /// Waits until everything is sent and the publisher has ended.
    ///
    /// # Errors
    /// When it fails or still sends after `patience`.
    pub fn wait_done(&self, patience: Duration) -> Result<Sent> {
        let done = self
            .0
            .wait_line("that everything is sent", patience, said("done"))?;
        self.0.wait_exit(STOP_GRACE)?;
        counts(&done).with_context(|| format!("'{done}' does not say what was sent"))
    }

    /// What was sent, if the publisher has sent everything.
    pub fn done(&self) -> Option<Sent> {
        self.0
            .lines()
            .iter()
            .find_map(said("done"))
            .and_then(|done| counts(&done))
    }

    /// Kills it, as a crash would: the connection just ends.
    pub fn kill(&self) {
        self.0.kill();
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.0
    }
}

/// Picks what follows a word at the start of a line on standard output.
fn said(word: &'static str) -> impl FnMut(&Line) -> Option<String> {
    move |line| {
        let rest = line
            .text
            .strip_prefix(word)
            .filter(|_| line.source == Source::Stdout)?;
        (rest.is_empty() || rest.starts_with(' ')).then(|| rest.trim().to_owned())
    }
}

/// Reads `video=<n> audio=<n>`.
fn counts(text: &str) -> Option<Sent> {
    let mut words = text.split_whitespace();
    let mut count = |name: &str| {
        words
            .next()?
            .strip_prefix(name)?
            .strip_prefix('=')?
            .parse()
            .ok()
    };
    Some(Sent {
        video: count("video")?,
        audio: count("audio")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_read() {
        assert_eq!(
            counts("video=1800 audio=2813"),
            Some(Sent {
                video: 1800,
                audio: 2813
            })
        );
        assert_eq!(counts("video=1800"), None);
    }

    #[test]
    fn only_whole_words_on_standard_output_count() {
        let line = |source, text: &str| Line {
            at: std::time::Instant::now(),
            source,
            text: text.into(),
        };
        assert_eq!(
            said("done")(&line(Source::Stdout, "done video=1")),
            Some("video=1".into())
        );
        assert_eq!(said("done")(&line(Source::Stdout, "donezo")), None);
        assert_eq!(said("done")(&line(Source::Stderr, "done video=1")), None);
    }
}
