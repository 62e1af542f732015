//! A viewer with a stopwatch: plays the output while it runs and notes when each frame arrives.
//!
//! Which frame it is tells the coded picture itself, so neither the worker's timestamps nor the
//! media server's need to be believed. From when a frame was published and when it came out again
//! follows how old the output is.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{Place, STOP_GRACE};
use crate::process::{Line, Process, Source};

/// A server that says nothing for this long has no stream for the viewer.
const SILENCE: Duration = Duration::from_secs(30);

/// ffmpeg as a viewer who looks at nothing but the time.
#[derive(Debug)]
pub struct Viewer(Process);

/// One frame of the output as it arrived.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arrival {
    /// When.
    pub at: Instant,
    /// Number of the frame in the clip, in decoding order.
    pub frame: usize,
}

impl Viewer {
    /// Joins a stream that is there already.
    pub fn start(place: &Place, name: &str, url: &str) -> Result<Self> {
        let spawn = place.call(name, &e2e_ffmpeg::watch_frames(url, SILENCE));
        Ok(Self(place.group.spawn(&spawn)?))
    }

    /// Waits until frames arrive.
    ///
    /// # Errors
    /// When the viewer ends before, or `patience` runs out.
    pub fn wait_frame(&self, patience: Duration) -> Result<()> {
        self.0
            .wait_line("its first frame", patience, |line| hash(line).map(|_| ()))
    }

    /// Stops looking; gives every frame that arrived, in order.
    ///
    /// # Errors
    /// When `clip` cannot be read or a frame arrived that it does not have.
    pub fn finish(self, clip: &Path) -> Result<Vec<Arrival>> {
        self.0.stop(STOP_GRACE);
        let numbers = numbers(clip)?;
        let arrival = |line: &Line| {
            let hash = hash(line)?;
            let frame = numbers.get(hash).copied();
            let arrival = frame.map(|frame| Arrival { at: line.at, frame });
            Some(arrival.context("a frame arrived that is not of the clip"))
        };
        self.0.lines().iter().filter_map(arrival).collect()
    }
}

/// The number of each coded frame of a clip, by its hash.
fn numbers(clip: &Path) -> Result<HashMap<String, usize>> {
    let text = e2e_ffmpeg::hash_frames(clip)
        .run()
        .with_context(|| clip.display().to_string())?;
    let text = String::from_utf8_lossy(&text);
    let hashes: Vec<&str> = text.lines().filter_map(hash_of).collect();
    let numbers: HashMap<_, _> = (0..)
        .zip(&hashes)
        .map(|(n, h)| ((*h).to_owned(), n))
        .collect();
    ensure!(
        !numbers.is_empty() && numbers.len() == hashes.len(),
        "{}: {} frames, {} of them different",
        clip.display(),
        hashes.len(),
        numbers.len()
    );
    Ok(numbers)
}

fn hash(line: &Line) -> Option<&str> {
    (line.source == Source::Stdout).then(|| hash_of(&line.text))?
}

/// The hash in a line of ffmpeg's `framemd5`: `stream, dts, pts, duration, size, hash`.
fn hash_of(line: &str) -> Option<&str> {
    if line.starts_with('#') {
        return None;
    }
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let [_, _, _, _, _, hash, ..] = fields[..] else {
        return None;
    };
    (hash.len() == 32).then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_read_from_ffmpegs_lines() {
        let line =
            "0,          0,          0,      512,     6321, 53d4a6b0c8f1b0d6f0e7a1c2d3e4f506";
        assert_eq!(hash_of(line), Some("53d4a6b0c8f1b0d6f0e7a1c2d3e4f506"));
        assert_eq!(hash_of("#stream#, dts, pts, duration, size, hash"), None);
        assert_eq!(hash_of("0, 1, 2"), None);
        assert_eq!(hash_of(""), None);
    }

    #[test]
    fn every_frame_of_the_fixture_has_a_number() {
        let clip = crate::clock::fixture().unwrap();
        assert_eq!(numbers(&clip).unwrap().len(), 1_800);
    }
}
