//! Each probe against sound with known damage, through the codec and not.

use super::*;
use crate::clock::{AudioKind, ClipSpec, render_edited, samples};
use e2e_ffmpeg::{Call, Change, Stretch, change};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const RATE: f64 = 48_000.0;

fn spec(seconds: u32) -> ClipSpec {
    ClipSpec::sound_only(seconds)
}

fn index(seconds: f64) -> usize {
    (seconds * RATE).round() as usize
}

/// Mono samples of the clock's soundtrack.
fn music(seconds: u32) -> Vec<f32> {
    samples(&spec(seconds).with_audio(48_000, 1))
}

fn sound(samples: Vec<f32>) -> Sound {
    Sound::from_samples(48_000, 0.0, samples)
}

/// Five seconds of the clip's sound in a file, and the folder that it is in.
fn clip() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let clip = folder.path().join("clip.mp4");
    render_edited(&spec(5), &[], samples(&spec(5)), &clip).expect("rendered");
    (folder, clip)
}

/// The samples through an AAC encoder and back.
fn coded(samples: Vec<f32>) -> Sound {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("clip.mp4");
    render_edited(&spec(1).with_audio(48_000, 1), &[], samples, &path).expect("rendered");
    Sound::read(&path).expect("read")
}

/// The sound of a file that a call writes.
fn made(folder: &TempDir, name: &str, call: impl FnOnce(&Path) -> Call) -> Sound {
    let path = folder.path().join(name);
    call(&path).run().expect("ffmpeg makes it");
    Sound::read(&path).expect("read")
}

#[test]
fn clean_sound_has_no_damage() {
    let sound = coded(music(8));
    assert_eq!(clicks(&sound), []);
    assert_eq!(dropouts(&sound), []);
    assert_eq!(sound.breaks(), []);
    assert!(sound.start().abs() < 1e-9);
    assert!((sound.end() - sound.samples.len() as f64 / RATE).abs() < 1e-9);
}

#[test]
fn clicks_are_found_where_they_are() {
    // One sample off, a missing stretch of 11 ms, a hard step in level.
    let mut samples = music(8);
    samples[index(1.5)] += 0.3;
    samples.drain(index(3.5)..index(3.5113));
    for value in &mut samples[index(5.5)..index(6.5)] {
        *value *= 0.25;
    }
    for sound in [sound(samples.clone()), coded(samples)] {
        let found = clicks(&sound);
        let places: Vec<_> = found.iter().map(|click| click.at).collect();
        for expected in [1.5, 3.5, 5.5, 6.5] {
            assert!(
                places.iter().any(|at| (at - expected).abs() < 0.012),
                "{expected}: {found:?}"
            );
        }
        assert_eq!(found.len(), 4, "{found:?}");
    }
}

#[test]
fn dropouts_are_found_with_their_length() {
    let mut samples = music(8);
    samples[index(2.3)..index(2.32)].fill(0.0);
    samples[index(5.6)..index(5.9)].fill(0.0);
    for (sound, limit_ms) in [(sound(samples.clone()), 4.0), (coded(samples), 12.0)] {
        let found = dropouts(&sound);
        assert_eq!(found.len(), 2, "{found:?}");
        for (hole, (at, length_ms)) in found.iter().zip([(2.3, 20.0), (5.6, 300.0)]) {
            assert!((hole.at - at).abs() < limit_ms / 1000.0, "{hole:?}");
            assert!((hole.length_ms - length_ms).abs() <= limit_ms, "{hole:?}");
        }
    }
}

#[test]
fn segments_say_who_spoke_and_how_loud() {
    let mut samples = music(10);
    let marker = |at: usize| 0.126 * (at as f64 / RATE * 2600.0 * std::f64::consts::TAU).sin();
    for (at, value) in samples.iter_mut().enumerate() {
        let time = at as f64 / RATE;
        let dubbed = (2.0..4.0).contains(&time) || (6.0..7.0).contains(&time);
        if dubbed {
            *value = *value * 0.25 + marker(at) as f32;
        } else if (4.0..6.0).contains(&time) {
            *value = 0.0;
        } else if (8.0..10.0).contains(&time) {
            *value *= 0.5;
        }
    }
    let stretches = [(0.0, 2.0), (2.0, 4.0), (4.0, 6.0), (6.0, 8.0), (8.0, 10.0)];
    let clean = segments(&sound(music(10)), &stretches, 2600.0);
    assert!(clean.iter().all(|part| part.verdict == Verdict::Original));
    let parts = segments(&coded(samples), &stretches, 2600.0);
    let verdicts: Vec<_> = parts.iter().map(|part| part.verdict).collect();
    use Verdict::{Dubbed, Mixed, Original, Silent};
    assert_eq!(verdicts, [Original, Dubbed, Silent, Mixed, Original]);
    assert!((parts[1].marker_db + 18.0).abs() < 0.5, "{:?}", parts[1]);
    assert!((parts[3].marker_share - 0.5).abs() < 0.1, "{:?}", parts[3]);
    let fall = parts[4].level_db - clean[4].level_db;
    assert!((fall + 6.0).abs() < 0.3, "{fall} dB");
}

#[test]
fn a_shifted_segment_shows_in_its_seconds_only() {
    let input = sound(music(12));
    for (shift, ms) in [(-1440_i64, -30.0), (1440, 30.0), (0, 0.0)] {
        let mut samples = input.samples.clone();
        let (from, to) = (index(4.0), index(8.0));
        let moved = (from as i64 - shift) as usize..(to as i64 - shift) as usize;
        samples[from..to].copy_from_slice(&input.samples[moved]);
        // On a timeline of its own, as a recording is.
        let coded = coded(samples);
        let output = Sound::from_samples(48_000, 6.123, coded.samples);
        let result = align(&input, &output, 100.0).expect("aligned");
        assert!(
            (result.offset_ms - 6123.0).abs() < 0.05,
            "{}",
            result.offset_ms
        );
        for (at, second) in result.seconds.iter().enumerate().take(11) {
            let inside = (4..8).contains(&at);
            // Seconds with a join in them hold some of both.
            let join = ms != 0.0 && [3, 4, 7, 8].contains(&at);
            let expected = 6123.0 + if inside { ms } else { 0.0 };
            let error = (second.offset_ms - expected).abs();
            assert!(join || error < 0.05, "{at}: {second:?}");
            assert!(join || second.correlation > 0.99, "{at}: {second:?}");
        }
        assert!((result.worst_deviation_ms() - f64::abs(ms)).abs() < 0.5 || ms == 0.0);
    }
}

#[test]
fn other_sound_is_not_alike() {
    let input = sound(music(6));
    let mut other = input.samples.clone();
    other[index(2.0)..index(3.0)].fill(0.0);
    let rest = other[index(4.0)..index(5.0)].to_vec();
    let reversed: Vec<f32> = rest.into_iter().rev().collect();
    other[index(4.0)..index(5.0)].copy_from_slice(&reversed);
    let result = align(&input, &sound(other), 100.0).expect("aligned");
    let alike = result
        .seconds
        .iter()
        .filter(|second| second.correlation >= 0.9);
    let alike: Vec<_> = alike.map(|second| second.at.round()).collect();
    assert_eq!(alike, [0.0, 1.0, 3.0, 5.0]);
    assert!(result.seconds.iter().any(|second| second.correlation < 0.5));
    assert!(align(&input, &sound(Vec::new()), 100.0).is_err());
}

#[test]
fn sound_at_another_rate_aligns_to_a_fraction_of_a_sample() {
    let input = sound(music(4));
    let other = samples(&spec(4).with_audio(44_100, 1));
    let output = Sound::from_samples(44_100, 1.0, other);
    let result = align(&input, &output, 50.0).expect("aligned");
    assert!(
        (result.offset_ms - 1000.0).abs() < 0.02,
        "{}",
        result.offset_ms
    );
    assert!(result.worst_deviation_ms() < 0.02);
    assert!(
        result
            .seconds
            .iter()
            .all(|second| second.correlation > 0.999)
    );
}

#[test]
fn a_steady_tone_leaves_nothing_and_a_bad_join_much() {
    let mut tone = spec(8).with_audio(48_000, 1);
    if let Some(audio) = &mut tone.audio {
        audio.kind = AudioKind::Tone(997.0);
    }
    let clean = samples(&tone);
    let joins = [2.0, 4.0, 6.0];
    let steady = residual_without_tone(&coded(clean.clone()), 997.0, &joins);
    assert_eq!(steady.joins.len(), 3);
    assert!(steady.elsewhere.len() > 50);
    assert!(steady.median_elsewhere() < -55.0, "{steady:?}");
    let apart = steady.median_at_joins() - steady.median_elsewhere();
    assert!(apart.abs() < 3.0, "{apart} dB");
    assert!((steady.tone_db + 6.02).abs() < 0.1, "{}", steady.tone_db);

    // Five samples too many at one join only: found there, nowhere else.
    let mut spliced = clean.clone();
    for _ in 0..5 {
        spliced.insert(index(4.0), clean[index(4.0)]);
    }
    // Half a decibel at every join.
    let mut stepped = clean;
    for value in &mut stepped[index(2.0)..index(4.0)] {
        *value *= 0.944;
    }
    let spliced = residual_without_tone(&coded(spliced), 997.0, &joins);
    let worst = spliced.worst_join().expect("three joins");
    assert!(
        (worst.at - 4.0).abs() < 0.01 && worst.db > -25.0,
        "{worst:?}"
    );
    assert!(spliced.median_elsewhere() < -55.0);
    assert!(spliced.share_elsewhere_below(worst.db - 20.0) > 0.9);
    let stepped = residual_without_tone(&coded(stepped), 997.0, &[2.0, 4.0]);
    assert!(stepped.median_at_joins() > stepped.median_elsewhere() + 10.0);
}

#[test]
fn a_tone_has_its_level_beside_a_louder_one() {
    let wave = |hz: f64, at: usize| (at as f64 / RATE * hz * std::f64::consts::TAU).sin();
    let both = (0..index(4.0)).map(|at| {
        // Under a tone at -6 dB the other is at -10 dB, and at -24 dB from the second second on.
        let level = if at < index(2.0) { 0.316_2 } else { 0.063_1 };
        (0.5 * wave(1_083.7, at) + level * wave(997.0, at)) as f32
    });
    for sound in [sound(both.clone().collect()), coded(both.collect())] {
        for (at, expected) in [(0.5, -10.0), (1.9, -10.0), (2.1, -24.0), (3.5, -24.0)] {
            let level = tone_db(&sound, 997.0, at, 0.1);
            assert!((level - expected).abs() < 0.3, "{level} dB at {at} s");
            let level = tone_db(&sound, 1_083.7, at, 0.1);
            assert!((level + 6.0).abs() < 0.3, "{level} dB at {at} s");
        }
        assert!(tone_db(&sound, 1_200.0, 1.0, 0.1) < -50.0);
        assert!(tone_db(&sound, 997.0, 9.0, 0.1) < -190.0);
    }
}

#[test]
fn gaps_in_the_timestamps_are_breaks() {
    let (folder, clip) = clip();
    // From the hundred and first frame on 200 ms later.
    let sound = made(&folder, "gap.mkv", |to| {
        Stretch::Gap(102_400, 0.2).write(&clip, to)
    });
    let [gap] = sound.breaks() else {
        panic!("{:?}", sound.breaks());
    };
    assert!((gap.jump_ms - 200.0).abs() < 2.0, "{gap:?}");
    assert!((gap.at - 100.0 * 1024.0 / RATE).abs() < 0.002, "{gap:?}");

    // Milliseconds, as FLV counts them, are no breaks, and average out.
    let flv = made(&folder, "clip.flv", |to| {
        change(&clip, Change::Container, to)
    });
    assert_eq!(flv.breaks(), []);
    assert!((flv.time_of(RATE) - flv.start() - 1.0).abs() < 0.000_3);
}

#[test]
fn a_slew_of_the_timestamps_is_followed() {
    let (folder, clip) = clip();
    // Half a percent slow: after four seconds 20 ms late.
    let sound = made(&folder, "slow.mkv", |to| {
        Stretch::Slew(1.005).write(&clip, to)
    });
    assert_eq!(sound.breaks(), []);
    let late = sound.time_of(index(4.0) as f64) - sound.time_of(0.0) - 4.0;
    assert!((late - 0.020).abs() < 0.001, "{late}");
    let back = sound.index_of(sound.time_of(100_000.0));
    assert!(back.abs_diff(100_000) <= 1, "{back}");
}

#[test]
fn no_sound_is_an_error_that_says_so() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let clip = folder.path().join("clip.mp4");
    let silent = ClipSpec::silent(1).small();
    render_edited(&silent, &[0, 1, 2], Vec::new(), &clip).expect("rendered");
    let error = Sound::read(&clip).expect_err("there is no sound");
    assert!(error.to_string().contains("sound"), "{error:#}");
    assert!(Sound::read(&folder.path().join("none.mp4")).is_err());
}
