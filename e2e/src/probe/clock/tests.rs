//! The probe against clips with known faults: each must be found, with the
//! right numbers, and nothing else.

use super::*;
use crate::clock::{ClipSpec, render, render_edited, samples, sound};
use e2e_ffmpeg::{Call, Change, Rework, change, rework};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const RATE: usize = 48_000;

/// A folder for one test's clips.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn clip(&self, spec: &ClipSpec) -> PathBuf {
        let path = self.path("clip.mp4");
        render(spec, &path).expect("rendered");
        path
    }

    /// A clip with frames and sound of one's own.
    fn edited(&self, spec: &ClipSpec, numbers: &[u32], sound: Vec<f32>) -> Clock {
        let path = self.path("edited.mp4");
        render_edited(spec, numbers, sound, &path).expect("rendered");
        Clock::read(&path).expect("read")
    }

    /// What the clip shows that was put through ffmpeg once more.
    fn through(&self, name: &str, call: impl FnOnce(&Path) -> Call) -> Clock {
        let path = self.path(name);
        call(&path).run().expect("ffmpeg makes it");
        Clock::read(&path).expect("read")
    }
}

fn spec(seconds: u32) -> ClipSpec {
    ClipSpec::clock(seconds).small()
}

fn numbers(spec: &ClipSpec) -> Vec<u32> {
    (0..spec.frames()).collect()
}

/// Stereo samples from a time in seconds on.
fn at(seconds: f64) -> usize {
    (seconds * RATE as f64) as usize * 2
}

/// Adds (or, with -1, takes away) a second's beep at the start of another.
fn add_beep(samples: &mut [f32], pitch_of: u32, second: u32, gain: f64) {
    for (offset, frame) in samples[at(f64::from(second))..].chunks_mut(2).enumerate() {
        let time = offset as f64 / RATE as f64;
        if time >= sound::BEEP_SECONDS {
            break;
        }
        for value in frame {
            *value += (gain * sound::beep(pitch_of, time)) as f32;
        }
    }
}

fn assert_clean(clock: &Clock, seconds: u32, limit_ms: f64) {
    let sequence = clock.sequence(0..seconds * 30);
    assert!(sequence.is_perfect(), "{sequence}");
    let sync = clock.sync();
    assert_eq!(sync.skews.len(), seconds as usize, "{sync:?}");
    assert_eq!(sync.stray_beeps, []);
    assert!(sync.worst_ms().abs() < limit_ms, "{sync:?}");
}

#[test]
fn a_clean_clip_reads_the_same_from_every_container() {
    let bench = Bench::new();
    let clip = bench.clip(&spec(6));
    let clock = Clock::read(&clip).expect("read");
    assert_clean(&clock, 6, 0.1);
    assert!(clock.steps().worst_step_error_ms.abs() < 0.01);

    // FLV and Matroska count milliseconds; neither knows about priming, so the
    // picture starts 21 ms into the file, and so must the sound.
    for (name, how, limit_ms) in [
        ("clip.flv", Change::Container, 0.6),
        ("clip.mkv", Change::Container, 0.6),
        ("clip.ts", Change::Container, 0.1),
        ("late.flv", Change::Later(7.3), 0.6),
        ("fragments.mp4", Change::Fragments, 0.1),
    ] {
        let clock = bench.through(name, |to| change(&clip, how, to));
        assert_clean(&clock, 6, limit_ms);
        assert!(clock.steps().worst_step_error_ms.abs() < 1.0, "{name}");
    }
}

#[test]
fn other_codecs_sizes_and_rates_do_not_matter() {
    let bench = Bench::new();
    let clip = bench.clip(&spec(4));
    for (name, how) in [
        ("poor.mp4", Rework::PoorPicture),
        ("poor.m4v", Rework::OtherPicture),
        ("small.mp4", Rework::PoorSound),
        ("mp3.mkv", Rework::OtherSound),
    ] {
        let clock = bench.through(name, |to| rework(&clip, how, to));
        assert_clean(&clock, 4, 2.0);
    }
}

#[test]
fn every_kind_of_clip_is_what_it_says() {
    let bench = Bench::new();
    let clock = Clock::read(&bench.clip(&spec(3).with_bframes(2))).expect("read");
    assert_clean(&clock, 3, 0.1);
    let clock = Clock::read(&bench.clip(&spec(3).with_audio(44_100, 1))).expect("read");
    assert_clean(&clock, 3, 0.1);

    let clock = Clock::read(&bench.clip(&ClipSpec::silent(2).small())).expect("read");
    assert!(clock.sequence(0..60).is_perfect());
    assert_eq!(clock.beeps, []);
    assert_eq!(clock.sync().flash_only, [0, 1]);
    let clock = Clock::read(&bench.clip(&ClipSpec::sound_only(3))).expect("read");
    assert!(clock.pictures.is_empty());
    assert_eq!(clock.sync().stray_beeps.len(), 3);
    let clock = Clock::read(&bench.clip(&ClipSpec::tone(997.0, 2).small())).expect("read");
    assert!(clock.sequence(0..60).is_perfect());
    assert_eq!(clock.beeps, []);

    let text = bench.path("not-media.mp4");
    std::fs::write(&text, "not a video").expect("written");
    assert!(Clock::read(&text).is_err());
}

#[test]
fn the_same_specification_gives_the_same_bytes() {
    let bench = Bench::new();
    let spec = spec(2);
    let folder = bench.folder.path();
    let cached = crate::clock::cached_in(folder, &spec).expect("rendered");
    let again = crate::clock::cached_in(folder, &spec).expect("cached");
    assert_eq!(cached, again);
    let fresh = bench.clip(&spec);
    let read = |path| std::fs::read(path).expect("readable");
    assert!(read(cached) == read(fresh), "two renderings differ");
}

#[test]
fn missing_doubled_and_swapped_frames_are_named() {
    let bench = Bench::new();
    let spec = spec(4);
    let mut shown = numbers(&spec);
    shown.retain(|number| !(41..44).contains(number));
    shown.insert(70, shown[70]);
    let swap = shown
        .iter()
        .position(|&number| number == 95)
        .expect("there");
    shown.swap(swap, swap + 1);
    let clock = bench.edited(&spec, &shown, samples(&spec));

    let sequence = clock.sequence(0..120);
    assert_eq!(sequence.pictures, 118);
    assert_eq!(sequence.missing, [41, 42, 43]);
    assert_eq!(sequence.doubled, [73]);
    assert_eq!(sequence.reordered, [95]);
    assert!(sequence.unexpected.is_empty());
    assert!(sequence.unreadable.is_empty());
    assert_eq!(clock.sequence(0..100).unexpected.len(), 20);
    assert_eq!(
        sequence.to_string(),
        "118 pictures; missing 3: 41 42 43; doubled 1: 73; swapped 1: 95"
    );
    // The file closes the gap of three frames, so its times are wrong as well.
    let steps = clock.steps();
    assert!((steps.worst_step_error_ms + 100.0).abs() < 0.1, "{steps:?}");
}

#[test]
fn a_frame_dropped_with_its_time_leaves_the_others_in_place() {
    let bench = Bench::new();
    let clip = bench.clip(&spec(3));
    let clock = bench.through("dropped.mp4", |to| rework(&clip, Rework::Dropped(40), to));
    assert_eq!(clock.sequence(0..90).missing, [40]);
    assert!(clock.steps().worst_step_error_ms.abs() < 0.1);
}

#[test]
fn a_picture_without_its_code_is_unreadable_not_guessed() {
    let bench = Bench::new();
    let clip = bench.clip(&spec(2));
    let clock = bench.through("blotted.mp4", |to| rework(&clip, Rework::Blotted(20), to));
    let sequence = clock.sequence(0..60);
    assert_eq!(sequence.unreadable, [20]);
    assert_eq!(sequence.missing, [20]);
}

#[test]
fn sound_that_is_late_or_early_is_measured() {
    let bench = Bench::new();
    let spec = spec(4);
    let clean = samples(&spec);
    for (ms, shifted) in [
        (50.0, [vec![0.0; at(0.05)], clean.clone()].concat()),
        (-50.0, clean[at(0.05)..].to_vec()),
    ] {
        let sync = bench.edited(&spec, &numbers(&spec), shifted).sync();
        // Early by 50 ms, the first beep has no beginning and is no measure.
        let lost: &[u32] = if ms < 0.0 { &[0] } else { &[] };
        assert_eq!(sync.flash_only, lost);
        assert_eq!(sync.skews.len() + lost.len(), 4);
        assert_eq!(sync.stray_beeps, []);
        for skew in &sync.skews {
            assert!((skew.ms - ms).abs() < 0.1, "{skew:?}");
        }
        assert!(sync.share_within(40.0) < 0.1);
        assert!((sync.share_within(60.0) - sync.skews.len() as f64 / 4.0).abs() < 1e-9);
    }
}

#[test]
fn a_missing_beep_and_a_wrong_pitch_are_named() {
    let bench = Bench::new();
    let spec = spec(5);
    let mut sound = samples(&spec);
    add_beep(&mut sound, 2, 2, -1.0);
    add_beep(&mut sound, 3, 3, -1.0);
    add_beep(&mut sound, 17, 3, 1.0);
    let sync = bench.edited(&spec, &numbers(&spec), sound).sync();
    assert_eq!(sync.flash_only, [2, 3]);
    assert_eq!(sync.skews.len(), 3);
    assert!(sync.worst_ms().abs() < 0.1);
    let [stray] = sync.stray_beeps[..] else {
        panic!("{:?}", sync.stray_beeps);
    };
    assert_eq!(stray.second, Some(17));
    assert!((stray.at - 3.0).abs() < 0.001);
    assert!((sync.share_within(40.0) - 0.6).abs() < 1e-9);
}

#[test]
fn pictures_that_begin_after_the_sound_are_late_in_every_container() {
    let bench = Bench::new();
    let clip = bench.clip(&spec(3));
    for name in ["late.ts", "late.mkv"] {
        let late = bench.through(name, |to| change(&clip, Change::PicturesLater(0.04), to));
        let sync = late.sync();
        assert_eq!(sync.skews.len(), 3, "{name}: {sync:?}");
        for skew in &sync.skews {
            assert!((skew.ms + 40.0).abs() < 0.6, "{name}: {skew:?}");
        }
    }
}

#[test]
fn a_late_picture_is_a_flash_that_is_late() {
    let bench = Bench::new();
    let spec = spec(4);
    // From second 2 on the picture is three frames behind.
    let mut shown = numbers(&spec);
    shown.splice(50..50, [49, 49, 49]);
    let sync = bench.edited(&spec, &shown, samples(&spec)).sync();
    let skews: Vec<_> = sync.skews.iter().map(|skew| skew.ms.round()).collect();
    assert_eq!(skews, [0.0, 0.0, -100.0, -100.0]);
}

#[test]
fn a_cut_off_flash_is_no_measure() {
    let bench = Bench::new();
    let spec = spec(3);
    // The recording starts at the second picture of a flash.
    let clock = bench.edited(&spec, &numbers(&spec)[31..], samples(&spec));
    assert_eq!(clock.flashes[0].second, 1);
    assert_eq!(clock.flashes[0].late_frames, 1);
    assert!(clock.sync().skews.iter().all(|skew| skew.second == 2));
}

#[test]
fn beeps_under_the_dub_marker_are_found() {
    let bench = Bench::new();
    let spec = spec(8);
    let mut sound = samples(&spec);
    // As echo-sts marks a dub: quieter original under a tone, with ramps at
    // joins that are a few milliseconds from a beep's start.
    let (from, to) = (at(1.995), at(5.003));
    for (offset, value) in sound[from..to].iter_mut().enumerate() {
        let edge = (offset.min(to - from - offset) as f64 / at(0.01) as f64).min(1.0);
        let phase = std::f64::consts::TAU * 2600.0 * (offset / 2) as f64 / RATE as f64;
        *value = (f64::from(*value) * 0.25 + edge * 0.126 * phase.sin()) as f32;
    }
    let sync = bench.edited(&spec, &numbers(&spec), sound).sync();
    assert_eq!(sync.skews.len(), 8, "{sync:?}");
    assert_eq!(sync.stray_beeps, []);
    for skew in &sync.skews {
        // At the joins the beep itself changes level as it begins.
        let limit = if [2, 5].contains(&skew.second) {
            2.0
        } else {
            0.2
        };
        assert!(skew.ms.abs() < limit, "{skew:?}");
    }
}

#[test]
fn the_committed_fixture_is_what_its_readme_says() {
    let fixture = crate::clock::fixture().expect("committed");
    let clock = Clock::read(&fixture).expect("read");
    assert_clean(&clock, 60, 0.1);
    let readme = fixture.with_file_name("README.md");
    let readme = std::fs::read_to_string(readme).expect("there");
    let bytes = std::fs::metadata(&fixture).expect("there").len();
    assert!(bytes <= 6_000_000);
    assert!(readme.contains(&format!("{bytes} bytes")), "{bytes}");
}
