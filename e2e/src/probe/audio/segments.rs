//! Who spoke when: the dub, the original, or nobody.

use super::{Sound, decibels, median, rms};
use std::f64::consts::TAU;

/// The marker is looked for in windows of this length.
const WINDOW_SECONDS: f64 = 0.1;
/// What the tone must be to be the marker: this loud …
const MARKER_FLOOR: f64 = 0.004;
/// … and this many times what is beside it in frequency, …
const MARKER_RISE: f64 = 4.0;
/// … measured this far to either side.
const BESIDE_HZ: f64 = 60.0;
/// Below this a segment is silent.
const SILENCE_DB: f64 = -60.0;
/// A segment is dubbed (original) when the marker is in at least (at most)
/// this share of its windows.
const DUBBED_SHARE: f64 = 0.9;
const ORIGINAL_SHARE: f64 = 0.1;

/// What a segment's sound is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The marker is there throughout.
    Dubbed,
    /// There is sound without the marker.
    Original,
    /// The marker comes or goes within the segment.
    Mixed,
    /// Nothing is heard.
    Silent,
}

/// One segment's sound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Segment {
    /// From here, in seconds, …
    pub start: f64,
    /// … to here.
    pub end: f64,
    pub verdict: Verdict,
    /// Share of the segment in which the marker is heard, 0 to 1.
    pub marker_share: f64,
    /// Median peak of the marker where it is heard, dB re full scale.
    pub marker_db: f64,
    /// Level of everything (RMS), dB re full scale.
    pub level_db: f64,
}

/// Judges stretches of sound, each from a start to an end in seconds, by the
/// presence of a steady marker tone of `marker_hz`.
///
/// 40 ms at either edge are not judged: a join need not be at the exact place.
pub fn segments(sound: &Sound, stretches: &[(f64, f64)], marker_hz: f64) -> Vec<Segment> {
    stretches
        .iter()
        .map(|&(start, end)| judge(sound, start, end, marker_hz))
        .collect()
}

fn judge(sound: &Sound, start: f64, end: f64, hz: f64) -> Segment {
    let inside = sound.between(start + 0.04, end - 0.04);
    let window = (f64::from(sound.rate) * WINDOW_SECONDS) as usize;
    let mut windows = 0;
    let mut heard = Vec::new();
    for samples in inside.chunks_exact(window.max(1)) {
        windows += 1;
        let [below, at, above] = [hz - BESIDE_HZ, hz, hz + BESIDE_HZ]
            .map(|hz| amplitude(samples, hz / f64::from(sound.rate)));
        if at > MARKER_FLOOR && at > MARKER_RISE * below.max(above) {
            heard.push(at);
        }
    }
    let marker_share = heard.len() as f64 / f64::from(windows.max(1));
    let level_db = decibels(rms(inside));
    let verdict = if level_db < SILENCE_DB {
        Verdict::Silent
    } else if marker_share >= DUBBED_SHARE {
        Verdict::Dubbed
    } else if marker_share <= ORIGINAL_SHARE {
        Verdict::Original
    } else {
        Verdict::Mixed
    };
    Segment {
        start,
        end,
        verdict,
        marker_share,
        marker_db: decibels(median(heard)),
        level_db,
    }
}

/// Peak of the component at a share of the sample rate, through a Hann window.
pub(super) fn amplitude(samples: &[f32], share_of_rate: f64) -> f64 {
    let count = samples.len() as f64;
    let (mut re, mut im, mut weight) = (0.0, 0.0, 0.0);
    for (at, &value) in samples.iter().enumerate() {
        let hann = 0.5 - 0.5 * ((at as f64 + 0.5) / count * TAU).cos();
        let (sin, cos) = (at as f64 * share_of_rate * TAU).sin_cos();
        re += hann * f64::from(value) * cos;
        im += hann * f64::from(value) * sin;
        weight += hann;
    }
    2.0 * re.hypot(im) / weight.max(1e-9)
}
