//! Known faults, planted one by one, and copies that must count as exact.

use std::time::{Duration, Instant};

use e2e_ffmpeg::Change;

use super::*;
use crate::testclip;

fn input() -> CodedFrames {
    CodedFrames::video(&testclip::path(testclip::PLAIN)).unwrap()
}

fn indexes(places: &[Place]) -> Vec<usize> {
    places.iter().map(|place| place.index).collect()
}

#[test]
fn the_same_frames_in_another_container_are_exact() {
    let directory = tempfile::tempdir().unwrap();
    for (name, how) in [
        ("copy.flv", Change::Delimiters),
        ("copy.ts", Change::Container),
        ("copy.mp4", Change::Fragments),
    ] {
        let copy = directory.path().join(name);
        for recipe in [testclip::PLAIN, testclip::B_FRAMES] {
            e2e_ffmpeg::change(&testclip::path(recipe), how, &copy)
                .run()
                .unwrap();
            let input = CodedFrames::video(&testclip::path(recipe)).unwrap();
            let comparison = compare(&input, &CodedFrames::video(&copy).unwrap());
            assert!(comparison.is_exact(), "{name} {recipe:?}: {comparison}");
            assert!(
                comparison.worst_step_ms <= 1.0,
                "{name} {recipe:?}: {comparison}"
            );
            let audio = CodedFrames::audio(&testclip::path(recipe)).unwrap();
            // The copy may hold the priming frame that the presentation leaves out.
            let copied = compare(&audio, &CodedFrames::audio(&copy).unwrap());
            assert!(
                copied.missing.is_empty() && copied.foreign.len() <= 1,
                "{name} {recipe:?}: {copied}"
            );
        }
    }
}

#[test]
fn a_dropped_frame_is_missing() {
    let input = input();
    let mut recording = input.clone();
    recording.0.remove(40);
    recording.0.remove(0);
    let comparison = compare(&input, &recording);
    assert_eq!(indexes(&comparison.missing), [0, 40]);
    assert_eq!(comparison.matched, 88);
    assert!(
        comparison.steps.is_empty(),
        "what is left stands where it stood: {comparison}"
    );
    assert!(
        comparison
            .require_exact()
            .unwrap_err()
            .to_string()
            .contains("2 missing: #0 at 0.0 ms, #40 at 1333.3 ms")
    );
}

#[test]
fn a_doubled_frame_is_found() {
    let input = input();
    let mut recording = input.clone();
    recording.0.insert(12, recording.0[11]);
    let comparison = compare(&input, &recording);
    assert_eq!(
        (
            comparison.matched,
            comparison.doubled.len(),
            comparison.missing.len()
        ),
        (90, 1, 0)
    );
    assert!([11, 12].contains(&comparison.doubled[0].index));
    assert!(!comparison.is_bit_exact());
}

#[test]
fn swapped_frames_are_in_the_wrong_order() {
    let input = input();
    let mut recording = input.clone();
    recording.0.swap(50, 51);
    let comparison = compare(&input, &recording);
    assert_eq!(
        (comparison.matched, comparison.reordered.len()),
        (89, 1),
        "{comparison}"
    );
    assert!(
        comparison.missing.is_empty() && comparison.foreign.is_empty(),
        "{comparison}"
    );
    assert!(
        comparison
            .to_string()
            .contains("1 swapped with the next: #"),
        "{comparison}"
    );
    let far = recording.0.remove(10);
    recording.0.insert(70, far);
    let text = compare(&input, &recording).to_string();
    assert!(text.contains("in the wrong order"), "{text}");
}

#[test]
fn a_keyframe_that_lost_its_flag_is_named() {
    let input = input();
    let mut recording = input.clone();
    recording.0[30].keyframe = false;
    let comparison = compare(&input, &recording);
    assert!(comparison.is_bit_exact() && !comparison.is_exact());
    let error = comparison.require_exact().unwrap_err().to_string();
    assert!(
        error.contains("1 without their keyframe flag: #30 at 1000.0 ms"),
        "{error}"
    );
}

#[test]
fn one_flipped_bit_is_an_altered_frame() {
    let directory = tempfile::tempdir().unwrap();
    let (path, damaged) = (
        testclip::path(testclip::FLV),
        directory.path().join("damaged.flv"),
    );
    let packets = ffprobe::packets(&path, "v:0").unwrap();
    let (from, length) = (packets[33].pos.unwrap(), packets[33].size.unwrap());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[from + length] ^= 0x10;
    std::fs::write(&damaged, bytes).unwrap();
    let input = CodedFrames::video(&path).unwrap();
    let comparison = compare(&input, &CodedFrames::video(&damaged).unwrap());
    assert_eq!(indexes(&comparison.altered), [33]);
    let rest = (
        comparison.matched,
        comparison.missing.len(),
        comparison.foreign.len(),
    );
    assert_eq!(rest, (89, 0, 0));
}

#[test]
fn a_frame_from_elsewhere_is_foreign() {
    let input = input();
    let mut recording = input.clone();
    recording.0.push(CodedFrame {
        pts_ms: 3000.0,
        keyframe: false,
        hash: [9; 32],
    });
    assert_eq!(indexes(&compare(&input, &recording).foreign), [90]);
}

#[test]
fn steps_in_time_are_compared_and_a_constant_offset_is_not_an_error() {
    let input = input();
    let mut recording = input.clone();
    for frame in &mut recording.0 {
        frame.pts_ms += 6000.0;
    }
    assert!(compare(&input, &recording).is_exact());
    for frame in &mut recording.0[60..] {
        frame.pts_ms += 2.5;
    }
    let comparison = compare(&input, &recording);
    assert!(comparison.is_bit_exact() && !comparison.is_exact());
    assert_eq!(comparison.steps.len(), 1);
    assert_eq!(comparison.steps[0].at.index, 60);
    let (least, most) = comparison.offset_ms.unwrap();
    assert!((least - 6000.0).abs() < 1e-6 && (most - 6002.5).abs() < 1e-6);
}

#[test]
fn nothing_at_all_in_common_is_quick_too() {
    let frames = |first: u32| {
        let frame = |index: u32| CodedFrame {
            pts_ms: f64::from(index) * 33.3,
            keyframe: false,
            hash: std::array::from_fn(|at| ((first + index) >> (at % 4 * 8)) as u8),
        };
        CodedFrames((0..1800).map(frame).collect())
    };
    let begin = Instant::now();
    let comparison = compare(&frames(0), &frames(100_000));
    assert_eq!((comparison.matched, comparison.altered.len()), (0, 1800));
    assert!(
        begin.elapsed() < Duration::from_secs(3),
        "{:?}",
        begin.elapsed()
    );
}
