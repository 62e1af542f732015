//! Is what is heard what belongs there? Every second and every channel of the output against the same
//! second and channel of the input.
//!
//! The clip's tune never repeats and its notes lie between the channels, so the mean of both tells the
//! second, and their difference tells left from right: exchanged it is turned over, and of one channel
//! twice nothing is left.

use std::path::Path;

use anyhow::Result;
use sts_protocol::mark::TONE_HZ;

use super::{Sound, align, rms};
use crate::failure::{Failure, Place};

/// Seconds that are less alike than this are others. An encoder, a marker and a slew leave more.
const ALIKE: f64 = 0.5;
/// The mean is alike by chance more easily: chords return.
const MEAN_ALIKE: f64 = 0.8;
/// What a second may be away from its place.
const NEAR_MS: f64 = 60.0;
/// Less than this is no difference between channels.
const AUDIBLE: f64 = 0.002;

/// Sound as the mean of its channels and half their difference.
#[derive(Debug)]
pub struct Stereo {
    pub mean: Sound,
    /// Left minus right.
    pub difference: Sound,
}

impl Stereo {
    /// Decodes the first audio track of any file ffmpeg can read.
    pub fn read(media: &Path) -> Result<Self> {
        Ok(Self {
            mean: Sound::read(media)?,
            difference: Sound::difference(media)?,
        })
    }
}

/// Fails unless every second of `input` that `belongs` is heard in its place in `output`, on both
/// channels.
///
/// # Errors
/// With the first second that is another sound, or on other channels.
pub fn require_identity(
    input: &Stereo,
    output: &Stereo,
    belongs: impl Fn(f64) -> bool,
) -> Result<()> {
    let found = align(&unmarked(&input.mean), &unmarked(&output.mean), NEAR_MS)?;
    for second in found.seconds.iter().filter(|second| belongs(second.at)) {
        let at = second.at.round().abs();
        let wrong = |what: String, likeness: f64, least: f64| {
            Failure::new(what)
                .expected(format!("a likeness of at least {least} to the input"))
                .actual(format!("{likeness:.2}"))
                .at(Place::Media(second.at))
        };
        if rms(input.mean.between(second.at, second.at + 1.0)) < AUDIBLE {
            continue;
        }
        if second.correlation < MEAN_ALIKE {
            let what = format!("second {at} of the sound is not the input's second {at}");
            return Err(wrong(what, second.correlation, MEAN_ALIKE).into());
        }
        let own = input.difference.between(second.at, second.at + 1.0);
        let heard = second.at + second.offset_ms / 1e3;
        let likeness = likeness(own, output.difference.between(heard, heard + 1.0));
        if rms(own) >= AUDIBLE && likeness < ALIKE {
            let what = if likeness < -ALIKE {
                format!("left and right are swapped in second {at}")
            } else {
                format!("left and right are not the input's in second {at}")
            };
            return Err(wrong(what, likeness, ALIKE).into());
        }
    }
    Ok(())
}

/// Sound without the marker: a mean over two of its periods leaves the tune and nothing of it.
fn unmarked(sound: &Sound) -> Sound {
    let periods = (2.0 * f64::from(sound.rate) / TONE_HZ).round() as usize;
    let mean = |window: &[f32]| window.iter().sum::<f32>() / window.len() as f32;
    let mut unmarked = sound.clone();
    unmarked.samples = sound.samples.windows(periods).map(mean).collect();
    unmarked
}

/// How alike two stretches are, -1 to 1.
fn likeness(one: &[f32], other: &[f32]) -> f64 {
    let product = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    product(one, other) / (product(one, one) * product(other, other)).sqrt().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ClipSpec, samples};

    const RATE: u32 = 48_000;

    /// The clip's sound, after `change`.
    fn heard(change: impl Fn(usize, [f32; 2], &[f32]) -> [f32; 2]) -> Stereo {
        let all = samples(&ClipSpec::clock(6));
        let pairs = all.chunks_exact(2).enumerate();
        let frames: Vec<_> = pairs
            .map(|(at, pair)| change(at, [pair[0], pair[1]], &all))
            .collect();
        let sound = |mix: fn(&[f32; 2]) -> f32| {
            Sound::from_samples(RATE, 0.0, frames.iter().map(mix).collect())
        };
        Stereo {
            mean: sound(|it| f32::midpoint(it[0], it[1])),
            difference: sound(|it| (it[0] - it[1]) / 2.0),
        }
    }

    fn verdict(output: &Stereo) -> Result<()> {
        require_identity(&heard(|_, pair, _| pair), output, |_| true)
    }

    #[test]
    fn the_same_sound_is_the_same_also_with_a_marker() {
        verdict(&heard(|_, pair, _| pair)).unwrap();
        let marked = heard(|at, pair, _| {
            let tone =
                (at as f64 * TONE_HZ / f64::from(RATE) * std::f64::consts::TAU).sin() * 0.126;
            pair.map(|value| value * 0.25 + tone as f32)
        });
        verdict(&marked).unwrap();
    }

    #[test]
    fn seconds_that_changed_places_are_found() {
        let swapped = heard(|at, _, all| {
            let from = match at / (2 * RATE as usize) {
                0 => at + 2 * RATE as usize,
                1 => at - 2 * RATE as usize,
                _ => at,
            };
            [all[2 * from], all[2 * from + 1]]
        });
        let error = verdict(&swapped).unwrap_err().to_string();
        assert!(error.contains("second 0"), "{error}");
    }

    #[test]
    fn exchanged_silent_and_doubled_channels_are_found() {
        let error = verdict(&heard(|_, [left, right], _| [right, left]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("left and right are swapped in second 0"),
            "{error}"
        );
        for wrong in [
            heard(|_, [left, _], _| [left, left]),
            heard(|_, [left, _], _| [left, 0.0]),
        ] {
            let error = verdict(&wrong).unwrap_err().to_string();
            assert!(
                error.contains("left and right are not the input's"),
                "{error}"
            );
        }
    }
}
