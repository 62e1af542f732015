//! Cutting where speakers pause: a talk of many minutes, and what it does to the output.

use super::segment::{
    Cut, Frame, Unit, assert_complete, cutting, describe, drain, feed, finish, frame, unit,
};
use dub_engine::pause::{FrameLevel, SILENCE};
use dub_engine::{CutAt, SegmentCut, SegmentKind};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

const PAUSE: SegmentCut = SegmentCut::Pause {
    min: Duration::from_secs(3),
    max: Duration::from_secs(10),
};

/// Somebody talks: sentences of one to five seconds, between them a breath of 250 to 700 ms. Levels by
/// frame, and whether somebody breathes.
fn talk(seed: u64, frames: u64) -> (Vec<Frame>, Vec<bool>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut left, mut breathes) = (0, true);
    let mut breath = Vec::new();
    let sound = (0..frames).map(|n| {
        if left == 0 {
            breathes = !breathes;
            let ms = if breathes { 250..700 } else { 1_000..5_000 };
            left = rng.random_range(ms) * 48 / 1_024;
        }
        left -= 1;
        breath.push(breathes);
        let (level, swing) = if breathes {
            (-5_500, 400)
        } else {
            (-2_200, 900)
        };
        Frame {
            level: Some(level + rng.random_range(-swing..swing)),
            ..frame(n, 0)
        }
    });
    let sound = sound.collect();
    (sound, breath)
}

fn pictures(count: u64) -> Vec<Unit> {
    (0..count).map(|n| unit(n, 0)).collect()
}

/// All cuts, each segment no shorter and no longer than allowed but for the last.
fn cut(video: &[Unit], audio: &[Frame]) -> Vec<Cut> {
    let mut segmenter = cutting(PAUSE);
    let cuts = feed(&mut segmenter, video, audio, 0);
    let cuts = finish(&mut segmenter, cuts);
    assert_complete(&cuts, video, audio, 0);
    for two in cuts.windows(2) {
        assert_eq!(two[0].end, two[1].start, "{}", describe(&cuts));
        let length = two[0].end.since(two[0].start).as_millis();
        assert!(
            (3_000..=10_000).contains(&length),
            "{length} ms in {}",
            describe(&cuts)
        );
    }
    cuts
}

#[test]
fn ten_minutes_of_talk_are_cut_where_somebody_breathes() {
    for seed in 0..20 {
        let (audio, breath) = talk(seed, 28_125);
        let cuts = cut(&pictures(18_000), &audio);
        assert!((80..=130).contains(&cuts.len()), "{}", cuts.len());
        let inner = &cuts[1..];
        let quiet = |cut: &&Cut| {
            let first = cut.audio[0].payload as usize;
            (first - 3..first + 3).all(|n| breath[n])
        };
        let in_pauses = inner.iter().filter(quiet).count();
        assert!(
            in_pauses * 100 >= inner.len() * 95,
            "{in_pauses} of {}",
            inner.len()
        );
        let said = cuts.iter().filter(|cut| cut.cut == CutAt::Pause).count();
        assert_eq!(said, in_pauses, "what it says of itself");
        // Every boundary in a pause is the edge of an audio frame.
        for two in cuts.windows(2).filter(|two| two[0].cut == CutAt::Pause) {
            assert_eq!(two[1].audio[0].pts, two[1].start);
        }
    }
}

#[test]
fn a_segment_is_handed_out_when_the_longest_would_be_over() {
    let (audio, _) = talk(3, 5_625);
    let mut segmenter = cutting(PAUSE);
    let mut audio = audio.into_iter().peekable();
    for picture in pictures(3_600) {
        while let Some(sound) = audio.next_if(|sound| sound.pts <= picture.pts) {
            segmenter.audio(sound);
        }
        let now = picture.pts;
        segmenter.video(picture);
        for cut in drain(&mut segmenter) {
            // Neither later nor, or the output would wait for a longer one, earlier.
            let late = now.since(cut.start).as_millis();
            assert!((10_000..10_070).contains(&late), "{late} ms");
        }
    }
}

#[test]
fn where_nobody_pauses_the_grid_decides() {
    let flat = |level: fn(u64) -> FrameLevel| -> Vec<Frame> {
        let loud = |n| Frame {
            level: Some(level(n)),
            ..frame(n, 0)
        };
        (0..2_812).map(loud).collect()
    };
    let noise: fn(u64) -> FrameLevel = |n| -2_000 - (n * 7919 % 200) as FrameLevel;
    // Notes of a quarter of a second that die away by 12 dB.
    let music: fn(u64) -> FrameLevel = |n| -1_800 - (n % 12 * 100) as FrameLevel;
    let silence: fn(u64) -> FrameLevel = |_| SILENCE;
    for level in [noise, music, silence] {
        let cuts = cut(&pictures(1_800), &flat(level));
        let lines: Vec<_> = cuts
            .iter()
            .map(|cut| cut.end.nanos() / 10_000_000)
            .collect();
        let off = |(n, end): (usize, &i64)| (end - 600 * (n as i64 + 1)).abs();
        assert!(
            lines.iter().enumerate().all(|line| off(line) <= 2),
            "{lines:?}"
        );
    }
    let cuts = cut(&pictures(1_800), &flat(noise));
    assert!(cuts[..9].iter().all(|cut| cut.cut == CutAt::Grid));
}

#[test]
fn after_talk_the_grid_is_found_again() {
    let (mut audio, _) = talk(5, 5_625);
    for sound in &mut audio[1_500..] {
        sound.level = Some(-2_000);
    }
    let cuts = cut(&pictures(3_600), &audio);
    let last = &cuts[cuts.len() - 10..];
    assert!(
        last.windows(2)
            .all(|two| two[1].start.nanos() % 6_000_000_000 == 0),
        "{}",
        describe(&cuts)
    );
}

#[test]
fn what_is_left_is_not_cut_into_a_rest_nobody_dubs() {
    // 10.4 s with a pause just before ten: the rest would be a tail. With an earlier pause and without.
    let sound = |pauses: &[std::ops::Range<u64>], n: u64| Frame {
        level: Some(if pauses.iter().any(|pause| pause.contains(&n)) {
            -6_000
        } else {
            -2_000
        }),
        ..frame(n, 0)
    };
    let video = pictures(312);
    let audio = |pauses| (0..487).map(move |n| sound(pauses, n)).collect();
    let both: Vec<Frame> = audio(&[200..215, 440..462]);
    let late: Vec<Frame> = audio(std::slice::from_ref(&(440..462)));
    // Where one track ends before the longest would, it is the end that decides.
    for (audio, pictures) in [(&both, 312), (&late, 290)] {
        let video = &video[..pictures];
        let mut segmenter = cutting(PAUSE);
        // All at once: nothing is cut before the end.
        for picture in video {
            segmenter.video(picture.clone());
        }
        for sound in audio {
            segmenter.audio(sound.clone());
        }
        segmenter.finish();
        let cuts = drain(&mut segmenter);
        assert_complete(&cuts, video, audio, 0);
        assert_eq!(cuts.len(), 2, "{}", describe(&cuts));
        let rest = cuts[1].end.since(cuts[1].start);
        assert!(rest >= Duration::from_secs(3), "{}", describe(&cuts));
    }
    let audio = both;
    // Up to the longest it is one, and the last frame belongs to where most of it is.
    for (frames, segments) in [(466, 1), (469, 1), (470, 2)] {
        let cuts = cut(&pictures(299), &audio[..frames]);
        assert_eq!(
            (cuts.len(), cuts[0].kind),
            (segments, SegmentKind::Full),
            "{frames}"
        );
    }
    let cuts = cut(&pictures(40), &audio[..62]);
    assert_eq!((cuts.len(), cuts[0].kind), (1, SegmentKind::Remainder));
}
