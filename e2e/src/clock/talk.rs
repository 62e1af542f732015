//! Somebody who talks: sentences of syllables with pauses between them, in a room that is never quite
//! silent.
//!
//! For what cuts or judges speech: syllables rise and fall by 9 dB, now and then the mouth closes for
//! 60 ms within a word, which is no pause, and between sentences there are 350 to 800 ms of room.

use super::music::dice;
use std::f64::consts::TAU;

/// Peak of the room's noise, of full scale.
const ROOM: f64 = 0.0008;
/// Seconds from syllable to syllable.
const SYLLABLE: f64 = 0.23;
/// How long a closed mouth stays closed, in seconds.
const CLOSURE: f64 = 0.06;
/// No partial of the voice is above this.
const LIMIT_HZ: f64 = 3_500.0;

/// A number from 0 to 1 for each index.
fn chance(index: u64) -> f64 {
    (dice(index) >> 11) as f64 / (1_u64 << 53) as f64
}

/// When somebody talks within the first `seconds`: from and to, in seconds.
pub fn sentences(seconds: f64) -> Vec<(f64, f64)> {
    let mut at = 0.2;
    let mut all = Vec::new();
    for index in 0.. {
        if at >= seconds {
            break;
        }
        let end = at + 1.2 + 3.3 * chance(2 * index);
        all.push((at, end.min(seconds)));
        at = end + 0.35 + 0.45 * chance(2 * index + 1);
    }
    all
}

/// The talk as two equal channels, `count` samples at `rate` hertz from its start.
pub(super) fn render(rate: u32, count: usize) -> Vec<[f64; 2]> {
    let second = f64::from(rate);
    let room = |at: usize| ROOM * (2.0 * chance(at as u64 + 1_000_000) - 1.0);
    let mut out: Vec<_> = (0..count).map(|at| [room(at); 2]).collect();
    let mut phase = 0.0;
    for (from, to) in sentences(count as f64 / second) {
        let first = (from * second) as usize;
        let last = ((to * second) as usize).min(count);
        for (at, frame) in out.iter_mut().enumerate().take(last).skip(first) {
            let time = at as f64 / second - from;
            let pitch = 125.0 + 18.0 * (time * TAU * 0.9).sin() - 6.0 * time;
            phase += pitch / second;
            let value = 0.16 * loudness(time, to - from, from) * voice(phase, pitch);
            frame[0] += value;
            frame[1] += value;
        }
    }
    out
}

/// Harmonics through two formants.
fn voice(phase: f64, pitch: f64) -> f64 {
    let formant = |hz: f64, at: f64, width: f64| 1.0 / (1.0 + ((hz - at) / width).powi(2));
    let partials = 1..=(LIMIT_HZ / pitch) as u32;
    let sum = partials.map(|n| {
        let hz = f64::from(n) * pitch;
        let gain = 0.15 + formant(hz, 550.0, 150.0) + 0.5 * formant(hz, 1_500.0, 250.0);
        gain * (phase * f64::from(n) * TAU).sin()
    });
    sum.sum::<f64>() / 4.0
}

/// 0 to 1, by the time within a sentence that is `length` seconds long and begins at `from`.
fn loudness(time: f64, length: f64, from: f64) -> f64 {
    let ramp = |x: f64| 0.5 - 0.5 * (x.clamp(0.0, 1.0) * TAU / 2.0).cos();
    let edges = ramp(time / 0.015) * ramp((length - time) / 0.03);
    let (syllable, within) = ((time / SYLLABLE) as u64, time % SYLLABLE);
    let swing = 0.35 + 0.65 * (within / SYLLABLE * TAU / 2.0).sin().powi(2);
    let closes = syllable > 0 && dice(syllable + (from * 1e3) as u64).is_multiple_of(6);
    let closure = if closes && within < CLOSURE + 0.01 {
        1.0 - ramp(within / 0.005) * ramp((CLOSURE + 0.01 - within) / 0.005)
    } else {
        1.0
    };
    edges * swing * closure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_loud_in_sentences_and_quiet_between() {
        let sound = render(48_000, 48_000 * 20);
        let level = |from: f64, to: f64| {
            let part = &sound[(from * 48e3) as usize..(to * 48e3) as usize];
            let power = part.iter().map(|frame| frame[0].powi(2)).sum::<f64>();
            10.0 * (power / part.len() as f64).log10()
        };
        let all = sentences(20.0);
        assert!(all.len() >= 5, "{all:?}");
        for two in all.windows(2) {
            let ((from, to), (next, _)) = (two[0], two[1]);
            assert!((0.34..=0.81).contains(&(next - to)), "{two:?}");
            assert!(level(from, to) > -35.0, "{}", level(from, to));
            assert!(level(to, next) < -62.0, "{}", level(to, next));
        }
        let most = sound
            .iter()
            .fold(0.0_f64, |most, frame| most.max(frame[0].abs()));
        assert!((0.1..0.9).contains(&most), "{most}");
    }
}
