//! Where segments are cut, and that nothing is lost, doubled or reordered on the way.

use dub_engine::{
    AudioFrame, DroppedBeforeStart, Pts, Segment, SegmentCut, SegmentKind, Segmenter,
    SegmenterConfig, VideoUnit,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

pub(crate) type Unit = VideoUnit<u64>;
pub(crate) type Frame = AudioFrame<u64>;
pub(crate) type Cut = Segment<u64, u64>;

/// Both ways to cut; without a pause, and nobody has measured any here, the second falls back to the
/// first.
pub(crate) const WAYS: [SegmentCut; 2] = [
    SegmentCut::Grid,
    SegmentCut::Pause {
        min: Duration::from_secs(3),
        max: Duration::from_secs(10),
    },
];

/// Frame `n` of 30 fps video with a keyframe every second, starting at `origin` ns.
pub(crate) fn unit(n: u64, origin: i64) -> Unit {
    let pts = Pts::from_nanos(origin + (n as i64 * 1_000_000_000) / 30);
    VideoUnit {
        pts,
        keyframe: n.is_multiple_of(30),
        payload: n,
    }
}

/// AAC frame `n` at 48 kHz, starting at `origin` ns.
pub(crate) fn frame(n: u64, origin: i64) -> Frame {
    let at = |n: u64| origin + (n as i64 * 1024 * 1_000_000_000) / 48_000;
    let duration = Duration::from_nanos((at(n + 1) - at(n)) as u64);
    AudioFrame {
        pts: Pts::from_nanos(at(n)),
        duration,
        level: None,
        payload: n,
    }
}

fn segmenter() -> Segmenter<u64, u64> {
    cutting(SegmentCut::Grid)
}

pub(crate) fn cutting(cut: SegmentCut) -> Segmenter<u64, u64> {
    Segmenter::new(SegmenterConfig {
        cut,
        ..SegmenterConfig::default()
    })
}

pub(crate) fn drain(segmenter: &mut Segmenter<u64, u64>) -> Vec<Cut> {
    std::iter::from_fn(|| segmenter.poll()).collect()
}

/// Feeds both tracks in order of PTS; `audio_delay`: audio arrives that much later than it should.
pub(crate) fn feed(
    segmenter: &mut Segmenter<u64, u64>,
    video: &[Unit],
    audio: &[Frame],
    audio_delay: i64,
) -> Vec<Cut> {
    let mut cuts = Vec::new();
    let (mut video, mut audio) = (video.iter().peekable(), audio.iter().peekable());
    loop {
        let take_video = match (video.peek(), audio.peek()) {
            (None, None) => return cuts,
            (Some(v), Some(a)) => v.pts.nanos() <= a.pts.nanos() + audio_delay,
            (v, _) => v.is_some(),
        };
        if take_video {
            segmenter.video(video.next().cloned().expect("peeked"));
        } else {
            segmenter.audio(audio.next().cloned().expect("peeked"));
        }
        cuts.extend(drain(segmenter));
    }
}

pub(crate) fn finish(segmenter: &mut Segmenter<u64, u64>, mut cuts: Vec<Cut>) -> Vec<Cut> {
    segmenter.finish();
    cuts.extend(drain(segmenter));
    cuts
}

fn minute(frames: u64, audio_frames: u64) -> Vec<Cut> {
    minute_cut(SegmentCut::Grid, frames, audio_frames)
}

fn minute_cut(cut: SegmentCut, frames: u64, audio_frames: u64) -> Vec<Cut> {
    let video: Vec<Unit> = (0..frames).map(|n| unit(n, 0)).collect();
    let audio: Vec<Frame> = (0..audio_frames).map(|n| frame(n, 0)).collect();
    let mut segmenter = cutting(cut);
    let cuts = feed(&mut segmenter, &video, &audio, 0);
    finish(&mut segmenter, cuts)
}

pub(crate) fn describe(cuts: &[Cut]) -> String {
    let line = |cut: &Cut| {
        let (batch, kind) = (cut.batch, format!("{:?}", cut.kind));
        let (video, audio) = (cut.video.len(), cut.audio.len());
        format!(
            "{batch:3} {} .. {} {kind:9} video {video:3} audio {audio:3}",
            cut.start, cut.end
        )
    };
    cuts.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Units and frames that came out.
fn out(cuts: &[Cut]) -> (usize, usize) {
    let video = cuts.iter().map(|cut| cut.video.len()).sum();
    (video, cuts.iter().map(|cut| cut.audio.len()).sum())
}

/// Every payload once and in order, batches without a hole.
pub(crate) fn assert_complete(cuts: &[Cut], video: &[Unit], audio: &[Frame], first_batch: u64) {
    let got: Vec<u64> = cuts
        .iter()
        .flat_map(|cut| &cut.video)
        .map(|unit| unit.payload)
        .collect();
    let want: Vec<u64> = video.iter().map(|unit| unit.payload).collect();
    assert!(got == want, "video lost, doubled or reordered");
    let got: Vec<u64> = cuts
        .iter()
        .flat_map(|cut| &cut.audio)
        .map(|frame| frame.payload)
        .collect();
    let want: Vec<u64> = audio.iter().map(|frame| frame.payload).collect();
    assert!(got == want, "audio lost, doubled or reordered");
    let batches: Vec<u64> = cuts.iter().map(|cut| cut.batch).collect();
    let want: Vec<u64> = (first_batch..first_batch + cuts.len() as u64).collect();
    assert_eq!(batches, want);
    assert!(cuts.iter().all(|cut| cut.end > cut.start));
}

#[test]
fn a_minute_is_exactly_ten_segments() {
    for cut in WAYS {
        let cuts = minute_cut(cut, 1800, 2812);
        insta::assert_snapshot!("minute", describe(&cuts));
    }
}

#[test]
fn a_minute_and_a_bit_of_audio_is_ten_segments_too() {
    // Encoders pad the last frame: 18 ms and 997 ms of audio beyond the last picture.
    for frames in [2813, 2859] {
        let cuts = minute(1800, frames);
        assert_eq!(cuts.len(), 10, "{}", describe(&cuts));
        let audio: usize = cuts.iter().map(|cut| cut.audio.len()).sum();
        assert_eq!(audio as u64, frames);
        assert_eq!(cuts[9].kind, SegmentKind::Full);
        assert_eq!(cuts[9].end, frame(frames, 0).pts);
    }
    // A whole second and more without video is a segment of its own.
    let cuts = minute(1800, 2870);
    assert_eq!(cuts.len(), 11);
    assert_eq!(
        (cuts[10].kind, cuts[10].video.len()),
        (SegmentKind::Remainder, 0)
    );
}

#[test]
fn what_is_left_at_the_end_is_a_remainder_from_one_second_on() {
    // 12 s plus this many frames of video, with the audio to go with it.
    for (extra, kind) in [
        (1, SegmentKind::Tail),
        (29, SegmentKind::Tail),
        (31, SegmentKind::Remainder),
    ] {
        let frames = 360 + extra;
        let cuts = minute(frames, frames * 1600 / 1024);
        assert_eq!(cuts.len(), 3, "{extra}");
        assert_eq!(cuts[2].kind, kind, "{extra}");
        assert_eq!(cuts[2].video.len() as u64, extra);
    }
    // Nothing beyond the boundary: nothing more.
    assert_eq!(minute(360, 562).len(), 2);
}

#[test]
fn both_tracks_start_at_the_first_keyframe() {
    for cut in WAYS {
        let mut segmenter = cutting(cut);
        // The publisher is joined in mid-GOP: 20 frames to the next keyframe.
        let video: Vec<Unit> = (10..400).map(|n| unit(n, 0)).collect();
        let audio: Vec<Frame> = (15..625).map(|n| frame(n, 0)).collect();
        let cuts = feed(&mut segmenter, &video, &audio, 0);
        let start = unit(30, 0).pts;
        assert_eq!(cuts[0].start, start);
        assert_eq!(cuts[0].video[0].payload, 30);
        // 1.0 s is 46.875 frames: frame 47 starts 2.7 ms later, 46 would start 18.7 ms earlier.
        assert_eq!(cuts[0].audio[0].payload, 47);
        assert_eq!(
            segmenter.dropped(),
            DroppedBeforeStart {
                video: 20,
                audio: 32
            }
        );
        let cuts = finish(&mut segmenter, cuts);
        assert_complete(&cuts, &video[20..], &audio[32..], 0);
    }
}

#[test]
fn steps_inside_the_audio_are_told_rounding_is_not() {
    let mut segmenter = segmenter();
    segmenter.video(unit(0, 0));
    // Frames with their timestamps rounded to 1 ms; 6.7 ms of a hole left after frame 20.
    for n in 0..40 {
        let mut frame = frame(n, if n < 20 { 0 } else { 6_700_000 });
        frame.pts = Pts::from_nanos(frame.pts.nanos() / 1_000_000 * 1_000_000);
        segmenter.audio(frame);
    }
    let cuts = finish(&mut segmenter, Vec::new());
    let step = cuts[0].audio_step();
    assert!((5_700_000..7_700_000).contains(&step), "{step}");
}

#[test]
fn the_grid_does_not_drift_in_a_day() {
    // One frame a second is enough to see the cuts; a duration that is no whole number of frames.
    let duration = Duration::from_nanos(6_006_006_007);
    let config = SegmenterConfig {
        duration,
        ..SegmenterConfig::default()
    };
    let mut segmenter: Segmenter<(), ()> = Segmenter::new(config);
    let origin = 123_456_789;
    let mut cuts = 0;
    for second in 0..86_400_i64 {
        let pts = Pts::from_nanos(origin + second * 1_000_000_000);
        segmenter.video(VideoUnit {
            pts,
            keyframe: true,
            payload: (),
        });
        segmenter.audio(AudioFrame {
            pts,
            duration: Duration::from_secs(1),
            level: None,
            payload: (),
        });
        while let Some(cut) = segmenter.poll() {
            assert_eq!(cut.start.nanos(), origin + cuts * 6_006_006_007);
            assert_eq!(cut.end.nanos(), origin + (cuts + 1) * 6_006_006_007);
            cuts += 1;
        }
    }
    assert_eq!(cuts, 86_399_000_000_000 / 6_006_006_007);
}

#[test]
fn every_cut_is_at_the_audio_frame_nearest_to_the_boundary() {
    let video: Vec<Unit> = (0..30 * 600).map(|n| unit(n, 0)).collect();
    let audio: Vec<Frame> = (0..28_125).map(|n| frame(n, 0)).collect();
    let cuts = feed(&mut segmenter(), &video, &audio, 0);
    assert!(cuts.len() >= 98);
    for cut in &cuts[1..] {
        let off = cut.audio[0].pts.offset_from(cut.start);
        assert!(
            off.abs() <= 10_666_667,
            "batch {} starts {off} ns off",
            cut.batch
        );
        assert_eq!(cut.video[0].pts, cut.start);
    }
}

#[test]
fn b_frames_stay_in_decode_order() {
    for cut in WAYS {
        // I0 P3 B1 B2 P6 B4 B5 ...; the boundary falls between B4 and B5 of a group.
        let step = 40_000_000;
        let mut order = vec![0];
        for group in 0..100 {
            order.extend([group * 3 + 3, group * 3 + 1, group * 3 + 2]);
        }
        let video: Vec<Unit> = order
            .iter()
            .map(|n| VideoUnit {
                pts: Pts::from_nanos(*n * step),
                keyframe: *n == 0,
                payload: *n as u64,
            })
            .collect();
        let audio: Vec<Frame> = (0..562).map(|n| frame(n, 0)).collect();
        let mut segmenter = cutting(cut);
        let cuts = feed(&mut segmenter, &video, &audio, 0);
        let cuts = finish(&mut segmenter, cuts);
        assert_complete(&cuts, &video, &audio, 0);
        // 6 s is frame 150: the cut is before P150, and B148 and B149, decoded after it, go with it.
        assert_eq!(
            cuts[1]
                .video
                .iter()
                .map(|u| u.payload)
                .take(3)
                .collect::<Vec<_>>(),
            [150, 148, 149]
        );
    }
}

#[test]
fn leading_pictures_of_an_open_gop_are_dropped_at_the_start_only() {
    for cut in WAYS {
        let at = |ms: i64, keyframe| VideoUnit {
            pts: Pts::from_millis(ms),
            keyframe,
            payload: 0,
        };
        let mut segmenter = cutting(cut);
        for unit in [
            at(1_000, true),
            at(920, false),
            at(960, false),
            at(1_000, false),
            at(1_040, false),
        ] {
            segmenter.video(unit);
        }
        assert_eq!(segmenter.dropped().video, 2);
        assert_eq!(out(&finish(&mut segmenter, Vec::new())).0, 3);
    }
}

#[test]
fn video_without_audio_flows_on_and_late_audio_is_not_lost() {
    let video: Vec<Unit> = (0..1800).map(|n| unit(n, 0)).collect();
    // Audio stops from 10 s to 40 s and then delivers the backlog in one go.
    let audio: Vec<Frame> = (0..2812).map(|n| frame(n, 0)).collect();
    let mut segmenter = segmenter();
    let mut cuts = feed(&mut segmenter, &video[..300], &audio[..469], 0);
    cuts.extend(feed(&mut segmenter, &video[300..1200], &[], 0));
    let before = cuts.len();
    // At 40 s everything up to 30 s is cut, a segment later than usual.
    assert_eq!(
        cuts.last().map(|cut| cut.end),
        Some(Pts::from_millis(30_000))
    );
    cuts.extend(feed(&mut segmenter, &[], &audio[469..1875], 0));
    cuts.extend(feed(&mut segmenter, &video[1200..], &audio[1875..], 0));
    let cuts = finish(&mut segmenter, cuts);
    assert_complete(&cuts, &video, &audio, 0);
    assert_eq!(cuts.len(), 10);
    assert!(cuts[2..before].iter().all(|cut| cut.audio.is_empty()));
    assert_eq!(
        cuts[before].audio[0].payload, 469,
        "the backlog is in the next segment"
    );
}

#[test]
fn audio_that_is_delayed_by_less_than_the_patience_changes_nothing() {
    for cut in WAYS {
        let video: Vec<Unit> = (0..1800).map(|n| unit(n, 0)).collect();
        let audio: Vec<Frame> = (0..2812).map(|n| frame(n, 0)).collect();
        let expected = describe(&minute(1800, 2812));
        for delay_ms in [-5_000, -1_000, 1_000, 5_000] {
            let mut segmenter = cutting(cut);
            let cuts = feed(&mut segmenter, &video, &audio, delay_ms * 1_000_000);
            let cuts = finish(&mut segmenter, cuts);
            assert_eq!(describe(&cuts), expected, "audio {delay_ms} ms late");
        }
    }
}

#[test]
fn what_is_missing_of_a_segment_is_what_the_later_track_lacks() {
    for (cut, whole) in WAYS.into_iter().zip([6_000, 10_000]) {
        let mut segmenter = cutting(cut);
        assert_eq!(segmenter.missing(), None);
        segmenter.video(unit(0, 0));
        assert_eq!(segmenter.missing(), None, "no audio yet");
        let missing = |segmenter: &Segmenter<u64, u64>| segmenter.missing().map(|m| m.as_millis());
        for n in 0..47 {
            segmenter.audio(frame(n, 0));
        }
        assert_eq!(missing(&segmenter), Some(whole), "video is at 0");
        for n in 1..=90 {
            segmenter.video(unit(n, 0));
        }
        // 47 frames are 1002.67 ms.
        assert_eq!(missing(&segmenter), Some(whole - 1_003), "audio is behind");
        for n in 47..469 {
            segmenter.audio(frame(n, 0));
        }
        assert_eq!(missing(&segmenter), Some(whole - 3_000));
        for n in 91..=300 {
            segmenter.video(unit(n, 0));
        }
        assert_eq!(missing(&segmenter), Some(0));
        assert_eq!(drain(&mut segmenter).len(), 1);
    }
}

#[test]
fn video_that_was_held_up_is_late_and_not_a_new_timeline() {
    for cut in WAYS {
        let video: Vec<Unit> = (0..1800).map(|n| unit(n, 0)).collect();
        let audio: Vec<Frame> = (0..2812).map(|n| frame(n, 0)).collect();
        let mut segmenter = cutting(cut);
        let mut cuts = feed(&mut segmenter, &video[..300], &audio[..1875], 0);
        cuts.extend(feed(&mut segmenter, &video[300..1200], &[], 0));
        cuts.extend(feed(&mut segmenter, &video[1200..], &audio[1875..], 0));
        let cuts = finish(&mut segmenter, cuts);
        assert_complete(&cuts, &video, &audio, 0);
        assert_eq!(cuts.len(), 10);
    }
}

#[test]
fn a_discontinuity_starts_a_new_grid_and_goes_on_counting() {
    let video: Vec<Unit> = (0..500).map(|n| unit(n, 0)).collect();
    let audio: Vec<Frame> = (0..781).map(|n| frame(n, 0)).collect();
    let mut segmenter = segmenter();
    let cuts = feed(&mut segmenter, &video, &audio, 0);
    let cuts = finish(&mut segmenter, cuts);
    assert_complete(&cuts, &video, &audio, 0);
    assert_eq!(cuts.len(), 3);
    // The input is back after 20 s, in mid-GOP.
    let origin = 36_600_000_000;
    let video: Vec<Unit> = (25..500).map(|n| unit(n, origin)).collect();
    let audio: Vec<Frame> = (40..781).map(|n| frame(n, origin)).collect();
    let more = feed(&mut segmenter, &video, &audio, 0);
    let more = finish(&mut segmenter, more);
    assert_eq!(more[0].start, unit(30, origin).pts);
    assert_complete(&more, &video[5..], &audio[7..], 3);
}

#[test]
fn a_timeline_that_starts_anew_is_noticed_at_its_keyframe() {
    for cut in WAYS {
        let mut segmenter = cutting(cut);
        let origin = 3_600_000_000_000;
        let video: Vec<Unit> = (0..500).map(|n| unit(n, origin)).collect();
        let audio: Vec<Frame> = (0..781).map(|n| frame(n, origin)).collect();
        let mut cuts = feed(&mut segmenter, &video, &audio, 0);
        let again: Vec<Unit> = (0..500).map(|n| unit(n, 0)).collect();
        let audio_again: Vec<Frame> = (0..781).map(|n| frame(n, 0)).collect();
        cuts.extend(feed(&mut segmenter, &again, &audio_again, 0));
        let cuts = finish(&mut segmenter, cuts);
        let both: Vec<Unit> = video.into_iter().chain(again).collect();
        let sound: Vec<Frame> = audio.into_iter().chain(audio_again).collect();
        assert_complete(&cuts, &both, &sound, 0);
        assert_eq!(cuts[3].start, Pts::ZERO);
    }
}

#[test]
fn a_hole_in_both_tracks_makes_no_empty_segments() {
    let video: Vec<Unit> = (0..300).chain(1350..1800).map(|n| unit(n, 0)).collect();
    let audio: Vec<Frame> = (0..469).chain(2110..2812).map(|n| frame(n, 0)).collect();
    let mut segmenter = segmenter();
    let cuts = feed(&mut segmenter, &video, &audio, 0);
    let cuts = finish(&mut segmenter, cuts);
    assert_complete(&cuts, &video, &audio, 0);
    let starts: Vec<i64> = cuts
        .iter()
        .map(|cut| cut.start.nanos() / 1_000_000_000)
        .collect();
    assert_eq!(starts, [0, 6, 42, 48, 54]);
}

#[test]
fn whatever_comes_nothing_is_lost_and_little_is_held() {
    let ms = Duration::from_millis;
    let pause = SegmentCut::Pause {
        min: ms(300),
        max: ms(1_000),
    };
    for (seed, cut) in (0..400).flat_map(|seed| [(seed, SegmentCut::Grid), (seed, pause)]) {
        let mut rng = StdRng::seed_from_u64(seed);
        let (duration, max_wait, min_remainder) = (ms(600), ms(600), ms(100));
        let config = SegmenterConfig {
            duration,
            cut,
            min_remainder,
            max_wait,
        };
        let mut segmenter: Segmenter<u64, u64> = Segmenter::new(config);
        let (mut video, mut audio, mut cuts) = (Vec::new(), Vec::new(), Vec::new());
        let (mut video_at, mut audio_at) = (0_i64, 0_i64);
        let (mut track, mut talk) = (0.5, -2_000);
        let mut gone = (0, 0);
        for n in 0..6_000_u64 {
            // Tracks race each other, stop for a while, jump forward, wander back a little.
            if rng.random_bool(0.002) {
                track = rng.random_range(0.0..=1.0);
            }
            if rng.random_bool(0.02) {
                talk = -2_000 - talk - 6_000;
            }
            let jump = if rng.random_bool(0.002) {
                rng.random_range(-300..20_000)
            } else {
                0
            };
            if rng.random_bool(track) {
                video_at += 33 + jump;
                let keyframe = video.is_empty() || rng.random_bool(0.03);
                let unit = VideoUnit {
                    pts: Pts::from_millis(video_at.max(0)),
                    keyframe,
                    payload: n,
                };
                video.push(unit.clone());
                segmenter.video(unit);
            } else if !video.is_empty() {
                audio_at += 21 + jump;
                let duration = Duration::from_millis(21);
                let pts = Pts::from_millis(audio_at.max(0));
                let frame = AudioFrame {
                    pts,
                    duration,
                    level: Some(if rng.random_bool(0.9) { talk } else { -6_000 }),
                    payload: n,
                };
                audio.push(frame.clone());
                segmenter.audio(frame);
            }
            let new = drain(&mut segmenter);
            gone = (gone.0 + out(&new).0, gone.1 + out(&new).1);
            cuts.extend(new);
            // Five times a segment and the patience, and a little for what wanders back.
            let held = (video.len() - gone.0, audio.len() - gone.1);
            let most = if cut == SegmentCut::Grid {
                6_000
            } else {
                8_000
            };
            let (most_video, most_audio) = (most / 33 + 50, most / 21 + 50);
            assert!(
                held.0 < most_video && held.1 < most_audio,
                "seed {seed}: {held:?}"
            );
        }
        let cuts = finish(&mut segmenter, cuts);
        let kept = usize::try_from(segmenter.dropped().audio).expect("few");
        assert_eq!(segmenter.dropped().video, 0, "seed {seed}");
        assert_complete(&cuts, &video, &audio[kept..], 0);
        let follow = cuts
            .windows(2)
            .all(|two| two[1].start >= two[0].end || two[1].start < two[0].start);
        assert!(follow, "seed {seed} {cut:?}");
    }
}

#[test]
fn a_missing_track_does_not_fill_the_memory() {
    // An hour of video without audio, then an hour of audio without video.
    let mut segmenter = segmenter();
    let (mut most, mut gone, mut cuts) = (0, 0, 0);
    for n in 0..108_000 {
        segmenter.video(unit(n, 0));
        let new = drain(&mut segmenter);
        cuts += new.len();
        gone += out(&new).0;
        most = most.max(n as usize + 1 - gone);
    }
    assert_eq!(cuts, 599 - 1, "all but the open segment and the patience");
    assert!(most <= 12 * 30 + 1, "{most}");
    let (mut most, mut gone) = (0, 0);
    for n in 168_750..337_500 {
        segmenter.audio(frame(n, 0));
        gone += out(&drain(&mut segmenter)).1;
        most = most.max(n as usize + 1 - 168_750 - gone);
    }
    assert!(most <= 563 + 1, "{most}");
}
