//! The fixture's clock read back from pixels and samples.
//!
//! ```text
//! file ─▶ pictures  frame number and flash of every picture, with its time ─┐
//!     └─▶ beeps     start and second of every beep, with its time          ─┴▶ Clock
//! ```
//!
//! A [`Clock`] is what was seen; [`Clock::sequence`] and [`Clock::sync`] judge
//! it. All times are seconds on the file's own timeline.

mod beeps;
mod pictures;
mod verdict;

pub use beeps::{Beep, beeps};
pub use pictures::{Picture, pictures};
pub use verdict::{Sequence, Skew, Steps, Sync};

#[cfg(test)]
mod tests;

use super::audio::Sound;
use crate::clock::layout::FLASH_FRAMES;
use anyhow::Result;
use std::ops::Range;
use std::path::Path;

/// A flash: from a dark picture to a lit one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flash {
    /// When its first picture is shown, in seconds.
    pub at: f64,
    /// Which second's flash it is, by the number of the picture; counted from
    /// the clip's start.
    pub second: u32,
    /// Pictures of it that are missing at its beginning; 0 for a whole flash.
    pub late_frames: u32,
}

/// Everything the fixture's clock says in one file.
#[derive(Clone, Debug)]
pub struct Clock {
    /// Frames a second of the clip (not of the file's timestamps).
    pub fps: u32,
    /// Every picture, in the order it is shown.
    pub pictures: Vec<Picture>,
    /// Every flash, in the order it is seen.
    pub flashes: Vec<Flash>,
    /// Every beep, in the order it is heard.
    pub beeps: Vec<Beep>,
}

impl Clock {
    /// Reads a file whose clip had 30 frames a second. A file without a picture
    /// (or sound) has no pictures (beeps); one with neither is an error.
    pub fn read(media: &Path) -> Result<Self> {
        let fps = 30;
        let path = media.to_path_buf();
        let seen = std::thread::spawn(move || pictures(&path));
        let sound = Sound::read(media);
        let seen = seen
            .join()
            .map_err(|_| anyhow::anyhow!("reading pictures panicked"))?;
        match (seen, sound) {
            (Ok(seen), sound) => {
                let heard = sound.map(|sound| beeps(&sound)).unwrap_or_default();
                Ok(Self::new(fps, seen, heard))
            }
            (Err(_), Ok(sound)) => Ok(Self::new(fps, Vec::new(), beeps(&sound))),
            (Err(error), Err(_)) => Err(error),
        }
    }

    /// A clock from what was seen and heard.
    pub fn new(fps: u32, pictures: Vec<Picture>, beeps: Vec<Beep>) -> Self {
        let flashes = flashes(&pictures, fps);
        Self {
            fps,
            pictures,
            flashes,
            beeps,
        }
    }

    /// Judges the order and completeness of the pictures against the numbers
    /// that ought to be there.
    pub fn sequence(&self, expected: Range<u32>) -> Sequence {
        Sequence::judge(&self.pictures, expected)
    }

    /// Judges the times from picture to picture against the clip's rate.
    pub fn steps(&self) -> Steps {
        Steps::judge(&self.pictures, self.fps)
    }

    /// Pairs flashes with beeps by the second each says it is.
    pub fn sync(&self) -> Sync {
        Sync::judge(&self.flashes, &self.beeps)
    }
}

/// Flashes among pictures in the order shown. A flash that was already on in
/// the very first picture counts: a recording may start with one.
fn flashes(pictures: &[Picture], fps: u32) -> Vec<Flash> {
    let mut found = Vec::new();
    let mut was_lit = false;
    for picture in pictures {
        let Some(number) = picture.number else {
            continue;
        };
        if picture.lit && !was_lit && number % fps < FLASH_FRAMES {
            found.push(Flash {
                at: picture.at,
                second: number / fps,
                late_frames: number % fps,
            });
        }
        was_lit = picture.lit;
    }
    found
}
