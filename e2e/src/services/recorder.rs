//! What a viewer gets: a player that joins the output late.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Place, STOP_GRACE};
use crate::probe::field;
use crate::process::{Line, Process, exit_text};

/// What a player may need beyond the time it plays: connect, find the streams, wait for a keyframe.
const JOINING: Duration = Duration::from_secs(20);
/// A server that says nothing for this long has no stream for the player.
const SILENCE: Duration = Duration::from_secs(10);

/// ffmpeg as a player that joins the output while it runs, decodes it for a while and tells.
#[derive(Debug)]
pub struct LateReader {
    process: Process,
    started: Instant,
    play: Duration,
    /// The coded video as it arrived, from the first packet on.
    received: PathBuf,
}

/// What a late reader saw.
#[derive(Debug, Clone, PartialEq)]
pub struct LateReport {
    /// From starting the player to the first decoded picture.
    pub first_picture_after: Duration,
    /// Width and height of the first picture.
    pub size: (u32, u32),
    /// The first decoded picture is a keyframe.
    pub first_picture_is_key: bool,
    /// The first access unit that arrived is an IDR picture.
    pub first_unit_is_key: bool,
    /// Parameter sets were there before the first slice.
    pub parameter_sets_first: bool,
    /// Pictures decoded.
    pub pictures: usize,
    /// Stream time from the first to the last picture.
    pub video: Duration,
    /// Stream time of decoded audio from the first to the last block.
    pub audio: Duration,
    /// What the player complained about as an error.
    pub errors: Vec<String>,
}

impl LateReader {
    /// Joins a stream and plays it for `play` of its own time.
    pub fn start(place: &Place, name: &str, url: &str, play: Duration) -> Result<Self> {
        let received = place.scratch.join(format!("{name}.h264"));
        // Only a limit: `finish` stops the player when it has seen enough.
        let call = e2e_ffmpeg::play(url, play + JOINING, SILENCE, &received);
        let spawn = place.call(name, &call);
        let process = place.group.spawn(&spawn)?;
        Ok(Self {
            started: process.started(),
            process,
            play,
            received,
        })
    }

    /// Waits for the first picture; gives the time from starting the player to it.
    ///
    /// # Errors
    /// When the player ends without one or it takes longer than `patience`.
    pub fn wait_picture(&self, patience: Duration) -> Result<Duration> {
        let first = |line: &Line| Picture::read(&line.text).map(|_| line.at);
        let at = self
            .process
            .wait_line("its first picture", patience, first)?;
        Ok(at.duration_since(self.started))
    }

    /// Waits until the player has played its time of both video and audio (or the stream has ended),
    /// stops it and tells what it saw.
    ///
    /// # Errors
    /// When it showed no picture, or neither played its time nor ended within that time and 20 s.
    pub fn finish(self) -> Result<LateReport> {
        let (mut video, mut audio) = (Played::default(), Played::default());
        let patience = self.play + JOINING;
        let enough = self
            .process
            .wait_line("that it played its time", patience, |line| {
                if let Some(picture) = Picture::read(&line.text) {
                    video.at(picture.time);
                } else if let Some(time) = block(&line.text) {
                    audio.at(time);
                }
                (video.length().min(audio.length()) >= self.play).then_some(())
            });
        let seen = Instant::now();
        let own_end = self.process.exit();
        if own_end.is_none() {
            enough?;
        }
        self.process.stop(STOP_GRACE);
        // What it says about being stopped is no complaint about the stream.
        let mut lines = self.process.lines();
        lines.retain(|line| line.at <= seen);
        let mut errors: Vec<_> = lines
            .iter()
            .filter(|line| line.text.contains("[error]") || line.text.contains("[fatal]"))
            .map(|line| line.text.clone())
            .collect();
        if let Some(exit) = own_end.filter(|exit| !exit.success()) {
            errors.push(format!("the player ended with {}", exit_text(exit)));
        }
        let mut pictures = lines
            .iter()
            .filter_map(|line| Some((line.at, Picture::read(&line.text)?)));
        let Some((at, first)) = pictures.next() else {
            let (name, errors) = (self.process.name(), errors.join("; "));
            bail!("{name} showed no picture: {errors}");
        };
        let received = std::fs::read(&self.received)
            .with_context(|| format!("cannot read {}", self.received.display()))?;
        // Types of NAL units (ISO/IEC 14496-10, table 7-1): 1 to 5 are slices, 5 is of an IDR picture, 7
        // and 8 are parameter sets.
        let starts = received.windows(4).filter(|bytes| bytes[..3] == [0, 0, 1]);
        let kinds: Vec<_> = starts.map(|bytes| bytes[3] & 0x1f).collect();
        let slice = kinds.iter().position(|kind| (1..=5).contains(kind));
        let before = &kinds[..slice.unwrap_or(kinds.len())];
        Ok(LateReport {
            first_picture_after: at.duration_since(self.started),
            size: first.size,
            first_picture_is_key: first.key,
            first_unit_is_key: slice.is_some_and(|at| kinds[at] == 5),
            parameter_sets_first: before.contains(&7) && before.contains(&8),
            pictures: 1 + pictures.count(),
            video: video.length(),
            audio: audio.length(),
            errors,
        })
    }
}

impl LateReport {
    /// Nothing when a viewer would be content: from the first keyframe on everything decodes, for at
    /// least `least` of stream time.
    pub fn require_playable(&self, least: Duration) -> Result<()> {
        let mut wrong = Vec::new();
        if !self.first_unit_is_key || !self.first_picture_is_key {
            wrong.push("the stream does not begin with a keyframe".to_owned());
        }
        if !self.parameter_sets_first {
            wrong.push("no parameter sets before the first picture".to_owned());
        }
        if self.size.0 == 0 || self.size.1 == 0 {
            wrong.push("width and height are not known".to_owned());
        }
        for (what, played) in [("video", self.video), ("audio", self.audio)] {
            let (played, least) = (played.as_secs_f64(), least.as_secs_f64());
            if played < least {
                wrong.push(format!(
                    "only {played:.2} s of {what} instead of {least:.2} s"
                ));
            }
        }
        wrong.extend(self.errors.iter().cloned());
        let wrong = wrong.join("; ");
        ensure!(wrong.is_empty(), "a late reader is not content: {wrong}");
        Ok(())
    }
}

/// One decoded picture, from a line of ffmpeg's `showinfo`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Picture {
    time: f64,
    size: (u32, u32),
    key: bool,
}

impl Picture {
    fn read(line: &str) -> Option<Self> {
        if !line.contains("Parsed_showinfo") {
            return None;
        }
        let (width, height) = field(line, " s:")?.split_once('x')?;
        Some(Self {
            time: field(line, "pts_time:")?.parse().ok()?,
            size: (width.parse().ok()?, height.parse().ok()?),
            // ffmpeg 5 to 6 say `iskey:1`, 7 and later too; the type is there in all.
            key: field(line, "iskey:")? == "1" && field(line, "type:")? == "I",
        })
    }
}

/// Time of a block of decoded audio, from a line of ffmpeg's `ashowinfo`.
fn block(line: &str) -> Option<f64> {
    if line.contains("Parsed_ashowinfo") {
        field(line, "pts_time:")?.parse().ok()
    } else {
        None
    }
}

/// First and last time seen of a track, seconds.
#[derive(Debug, Clone, Copy, Default)]
struct Played(Option<(f64, f64)>);

impl Played {
    fn at(&mut self, time: f64) {
        let first = self.0.map_or(time, |(first, _)| first);
        self.0 = Some((first, time));
    }

    fn length(self) -> Duration {
        let (first, last) = self.0.unwrap_or_default();
        Duration::from_secs_f64((last - first).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_read_from_the_players_lines() {
        let line = "[Parsed_showinfo_0 @ 0x5608dd530600] [info] n:   0 pts:      0 pts_time:0.1       pos:      571 \
                    fmt:yuv420p sar:1/1 s:1280x720 i:P iskey:1 type:I ";
        let key = Picture {
            time: 0.1,
            size: (1280, 720),
            key: true,
        };
        assert_eq!(Picture::read(line), Some(key));
        let other = Picture::read(&line.replace("iskey:1 type:I", "iskey:0 type:P"));
        assert!(!other.unwrap().key);
        for line in [
            "[Parsed_showinfo_0 @ 0x5] [info] color_range:unknown color_space:bt709",
            "[info] Stream #0:0: Video: h264",
        ] {
            assert_eq!(Picture::read(line), None);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let good = LateReport {
            first_picture_after: Duration::from_millis(800),
            size: (1280, 720),
            first_picture_is_key: true,
            first_unit_is_key: true,
            parameter_sets_first: true,
            pictures: 60,
            video: Duration::from_secs(2),
            audio: Duration::from_secs(2),
            errors: Vec::new(),
        };
        let least = Duration::from_secs(2);
        good.require_playable(least).unwrap();
        let says = |words: &str, change: fn(&mut LateReport)| {
            let mut bad = good.clone();
            change(&mut bad);
            let error = bad.require_playable(least).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        let no_key = "the stream does not begin with a keyframe";
        says(no_key, |it| it.first_picture_is_key = false);
        says(no_key, |it| it.first_unit_is_key = false);
        says("no parameter sets", |it| it.parameter_sets_first = false);
        says("width and height", |it| it.size = (1280, 0));
        says("width and height", |it| it.size = (0, 720));
        says("only 0.00 s of video", |it| it.video = Duration::ZERO);
        says("only 0.00 s of audio", |it| it.audio = Duration::ZERO);
        says("[error] lost", |it| it.errors.push("[error] lost".into()));
        says(
            "does not begin with a keyframe; only 0.00 s of audio",
            |it| {
                (it.first_unit_is_key, it.audio) = (false, Duration::ZERO);
            },
        );
    }
}
