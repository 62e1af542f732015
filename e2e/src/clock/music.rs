//! What sounds between the beeps: a soft tune that never repeats exactly and
//! never falls silent.
//!
//! It is made for measuring as much as for listening: every second is unlike
//! every other (so that sound can be aligned without ambiguity), all partials
//! stay under [`MUSIC_LIMIT_HZ`] (so that beeps stand alone in their band), and
//! every note starts gently (so that a click is never part of the tune).

use super::sound::MUSIC_LIMIT_HZ;
use std::f64::consts::TAU;

/// Notes start on a grid of this many seconds.
const STEP: f64 = 0.25;
/// A note is forgotten after this many seconds.
const RING: f64 = 1.5;
const DECAY: f64 = 0.45;
const ATTACK: f64 = 0.012;
/// A chord lasts this many seconds and is faded into the next.
const CHORD: f64 = 3.0;
const CHORD_FADE: f64 = 0.4;

/// Chords as semitones above the C below middle C.
const CHORDS: [[i32; 3]; 6] = [
    [0, 4, 7],
    [-3, 0, 4],
    [-7, -3, 0],
    [-5, -1, 2],
    [-8, -5, -1],
    [-10, -7, -3],
];
/// The tune's scale, pentatonic, as semitones above middle C.
const SCALE: [i32; 9] = [0, 2, 4, 7, 9, 12, 14, 16, 19];

fn hertz(semitones_above_c3: i32) -> f64 {
    130.812_782_650_3 * 2_f64.powf(f64::from(semitones_above_c3) / 12.0)
}

/// A well mixed number for each index: the tune's dice, the same every time.
pub(super) fn dice(index: u64) -> u64 {
    let mut x = index.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// The tune as two channels, `count` samples at `rate` hertz from its start.
pub(super) fn render(rate: u32, count: usize) -> Vec<[f64; 2]> {
    let mut out = vec![[0.0; 2]; count];
    let seconds = count as f64 / f64::from(rate);
    for index in 0..(seconds / STEP).ceil() as u64 {
        // A rest now and then, but never two in a row.
        if index % 2 == 1 && dice(index).is_multiple_of(5) {
            continue;
        }
        let tone = SCALE[(dice(index) >> 8) as usize % SCALE.len()] + 12;
        let loud = 0.085 + 0.05 * (dice(index) >> 16 & 0xff) as f64 / 255.0;
        let pan = 0.3 + 0.4 * (dice(index) >> 24 & 0xff) as f64 / 255.0;
        let gains = [loud * 2.0 * (1.0 - pan), loud * 2.0 * pan];
        add_note(&mut out, rate, index as f64 * STEP, hertz(tone), gains);
    }
    for index in 0..(seconds / CHORD).ceil() as usize {
        let chord = CHORDS[dice(index as u64 + 1_000_000) as usize % CHORDS.len()];
        for (voice, tone) in chord.into_iter().enumerate() {
            let side = [1.15, 1.0, 0.85][voice];
            let gains = [0.05 * side, 0.05 * (2.0 - side)];
            add_pad(&mut out, rate, index as f64 * CHORD, hertz(tone), gains);
        }
    }
    out
}

fn add_note(out: &mut [[f64; 2]], rate: u32, start: f64, hz: f64, gains: [f64; 2]) {
    for partial in 1..=4 {
        let hz = hz * f64::from(partial);
        if hz > MUSIC_LIMIT_HZ {
            break;
        }
        let weight = f64::from(partial).powf(-1.6);
        add(out, rate, start, RING, hz, gains, |time| {
            let attack = (time / ATTACK).min(1.0);
            let tail = ((RING - time) / 0.2).min(1.0);
            let decay = (-time / DECAY * f64::from(partial).sqrt()).exp();
            weight * attack * attack * (3.0 - 2.0 * attack) * decay * tail
        });
    }
}

fn add_pad(out: &mut [[f64; 2]], rate: u32, start: f64, hz: f64, gains: [f64; 2]) {
    for (partial, weight) in [(1.0, 1.0), (2.0, 0.45), (3.0, 0.2)] {
        // The fades overlap, centred on the chord's edges.
        let from = start - CHORD_FADE / 2.0;
        let length = CHORD + CHORD_FADE;
        add(out, rate, from, length, hz * partial, gains, |time| {
            let edge = (time.min(length - time) / CHORD_FADE).min(1.0);
            let sway = 1.0 + 0.2 * ((from + time) * TAU * 0.7 + hz).sin();
            weight * (edge * TAU / 4.0).sin().powi(2) * sway
        });
    }
}

/// Adds one sine under an envelope; its phase depends on absolute time only.
fn add(
    out: &mut [[f64; 2]],
    rate: u32,
    start: f64,
    length: f64,
    hz: f64,
    gains: [f64; 2],
    envelope: impl Fn(f64) -> f64,
) {
    let rate = f64::from(rate);
    let first = (start * rate).ceil().max(0.0) as usize;
    let last = (((start + length) * rate) as usize).min(out.len());
    for (at, frame) in out.iter_mut().enumerate().take(last).skip(first) {
        let time = at as f64 / rate;
        let value = envelope((time - start).max(0.0)) * (time * hz * TAU).sin();
        frame[0] += gains[0] * value;
        frame[1] += gains[1] * value;
    }
}
