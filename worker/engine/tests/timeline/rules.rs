//! Each rule of the timeline, as a row.

use dub_engine::Track;
use dub_engine::timeline::Note;

use crate::sender::{FRAME, MS, Reports, Run, SECOND, Sender, Step};

fn step(at: i64, by: i64) -> Vec<Step> {
    vec![Step {
        at: at * SECOND,
        by,
    }]
}

/// Runs, checks that all pictures are out, and that lips are in sync (ms) everywhere but in the segment
/// after `seconds`.
fn in_sync(name: &str, sender: &Sender, but_after: &[i64], within: f64) -> Run {
    let run = sender.run();
    run.is_sane();
    assert_eq!(run.dropped(Track::Video), 0, "{name}: pictures lost");
    let mut from = 0;
    for at in but_after {
        let skew = run.skew(from, at * SECOND);
        assert!(skew.abs() <= within, "{name}: {skew} ms before {at} s");
        from = (at + 6) * SECOND;
    }
    let skew = run.skew(from, i64::MAX);
    assert!(skew.abs() <= within, "{name}: {skew} ms after {from}");
    run
}

/// Nothing waits long: every picture leaves within so many ms of the last one before it that came.
fn goes_on(name: &str, run: &Run, from: i64, within: i64) {
    let video = run.of('v');
    let pairs = video.iter().zip(video.iter().skip(1));
    for (a, b) in pairs.filter(|(a, _)| a.at >= from) {
        assert!(
            b.at - a.at <= within * MS,
            "{name}: {} ms without a picture at {} ms",
            (b.at - a.at) / MS,
            a.at / MS
        );
        assert!(
            b.pts - a.pts <= within * MS,
            "{name}: a hole of {} ms at {} ms",
            (b.pts - a.pts) / MS,
            a.truth / MS
        );
    }
}

#[test]
fn honest_reports_are_exact_whatever_arrival_says() {
    for bundle in [vec![1], vec![5], vec![4, 3, 4, 4]] {
        for late in [0, 200 * MS] {
            let sender = Sender {
                bundle: bundle.clone(),
                audio_late: late,
                ..Sender::default()
            };
            let run = in_sync("honest", &sender, &[], 0.1);
            assert_eq!(run.dropped(Track::Audio), 0);
            assert_eq!(run.of('s').len(), 0);
        }
    }
}

#[test]
fn honest_reports_of_a_live_encoder_that_reorders_are_not_taken_for_arrival() {
    let step = SECOND / 30;
    for late in [2 * step, 5 * step, 8 * step] {
        for from in [0, 4] {
            let sender = Sender {
                reordered_from: Some(from * SECOND),
                video_late: late,
                report_every: 2 * SECOND,
                ..Sender::default()
            };
            let run = in_sync("live", &sender, &[], 0.1);
            assert_eq!(run.noted("realigned"), 0, "late by {} ms", late / MS);
            // What is before the first picture only.
            let early = run.dropped(Track::Audio);
            assert!(early <= 1, "{early} frames of sound lost");
        }
    }
}

#[test]
fn without_reports_arrival_is_exact_to_milliseconds() {
    for (bundle, reordered) in [
        (vec![1], false),
        (vec![5], false),
        (vec![4, 3, 4, 4], true),
        (vec![7], true),
    ] {
        let sender = Sender {
            reports: Reports::None,
            reordered_from: reordered.then_some(0),
            bundle,
            ..Sender::default()
        };
        in_sync("no reports", &sender, &[], 5.0);
    }
}

#[test]
fn reports_by_arrival_are_recognised_and_nothing_is_slewed() {
    for reports in [Reports::Arrival, Reports::LastArrival] {
        for (bundle, reordered) in [
            (vec![5], false),
            (vec![4, 3, 4, 4], false),
            (vec![4, 4, 3], true),
            (vec![7], true),
        ] {
            for first in [0, 2 * SECOND, 10 * SECOND] {
                let sender = Sender {
                    reports,
                    reordered_from: reordered.then_some(0),
                    bundle: bundle.clone(),
                    first_report: first,
                    report_every: 10 * SECOND,
                    seconds: 40,
                    ..Sender::default()
                };
                let run = in_sync(
                    "by arrival",
                    &sender,
                    &[],
                    if reordered { 33.0 } else { 10.0 },
                );
                assert_eq!(run.noted("realigned"), 0);
                let first = run.of('a')[0];
                let all = run.of('a');
                let moves = all
                    .iter()
                    .filter(|out| ((out.pts - out.truth) - (first.pts - first.truth)).abs() > MS);
                assert_eq!(moves.count(), 0, "moved");
            }
        }
    }
}

#[test]
fn clocks_that_are_set_move_nothing() {
    let years = 55 * 365 * 86_400 * SECOND;
    for (name, by) in [
        ("1970 to today", years),
        ("an hour on", 3_600 * SECOND),
        ("an hour back", -3_600 * SECOND),
        ("half a second", SECOND / 2),
    ] {
        let sender = Sender {
            wall_steps: step(10, by),
            ..Sender::default()
        };
        let run = in_sync(name, &sender, &[], 1.0);
        assert_eq!(run.of('s').len(), 0, "{name}");
        assert_eq!(run.noted("clock_set"), 1, "{name}");
    }
}

#[test]
fn a_step_in_both_tracks_is_no_hole_and_no_skew() {
    // In the first second too, when arrival has proved little.
    for (at, by) in [10, 120, -1_000, -3, 40_000, -40_000]
        .into_iter()
        .flat_map(|by| [(SECOND / 2, by), (10 * SECOND, by)])
    {
        for reports in [Reports::Honest, Reports::None] {
            let by = by * SECOND;
            let sender = Sender {
                video_steps: vec![Step { at, by }],
                audio_steps: vec![Step { at, by }],
                reports,
                ..Sender::default()
            };
            let name = format!("{} s in both after {} ms", by / SECOND, at / MS);
            let run = in_sync(&name, &sender, &[10], 40.0);
            goes_on(&name, &run, 0, 100);
            assert!(
                run.of('s').len() < 10,
                "{name}: {} frames of silence",
                run.of('s').len()
            );
        }
    }
}

#[test]
fn a_step_in_one_track_is_told_from_a_hole_by_arrival() {
    for (video, audio) in [
        (10, 0),
        (0, 10),
        (-1_000, 0),
        (0, -1_000),
        (0, 120),
        (120, 0),
        (-3, 0),
        (0, -3),
        (5_000, -77),
    ] {
        for reports in [Reports::Honest, Reports::None] {
            for bundle in [vec![1], vec![5]] {
                let sender = Sender {
                    video_steps: step(10, video * SECOND),
                    audio_steps: step(10, audio * SECOND),
                    reports,
                    bundle,
                    ..Sender::default()
                };
                let name = format!("{video} s and {audio} s");
                let run = in_sync(&name, &sender, &[10], 40.0);
                goes_on(&name, &run, 6 * SECOND, 150);
                assert_eq!(run.dropped(Track::Audio), 0, "{name}");
                assert!(
                    run.of('s').len() < 10,
                    "{name}: {} frames of silence",
                    run.of('s').len()
                );
            }
        }
    }
}

#[test]
fn a_restart_after_a_pause_leaves_the_pause_that_was() {
    let sender = Sender {
        pauses: vec![(10 * SECOND, 13 * SECOND)],
        video_steps: step(13, -500 * SECOND),
        audio_steps: step(13, 20_000 * SECOND),
        ..Sender::default()
    };
    let run = in_sync("restart", &sender, &[10], 60.0);
    let video = run.of('v');
    let hole = video
        .iter()
        .zip(video.iter().skip(1))
        .map(|(a, b)| b.pts - a.pts)
        .max();
    assert!((hole.unwrap() - 3 * SECOND).abs() < 100 * MS, "{hole:?}");
}

#[test]
fn a_pause_of_the_camera_is_a_hole_in_both_tracks() {
    let sender = Sender {
        pauses: vec![(10 * SECOND, 14 * SECOND)],
        ..Sender::default()
    };
    let run = in_sync("pause", &sender, &[], 1.0);
    assert_eq!(run.noted("rtp_step"), 0);
    let silence = run.of('s').len() as i64;
    assert!((silence - 4 * SECOND / FRAME).abs() <= 1, "{silence}");
}

#[test]
fn bursts_are_late_and_nothing_else() {
    for (from, to) in [(8, 12), (0, 20)] {
        let sender = Sender {
            bursts: vec![(from * SECOND, to * SECOND)],
            seconds: 40,
            ..Sender::default()
        };
        let run = in_sync("burst", &sender, &[], 5.0);
        assert_eq!(run.of('s').len(), 0);
        assert_eq!(run.dropped(Track::Audio), 0);
        assert_eq!(run.noted("rtp_step"), 0);
    }
}

#[test]
fn reordering_may_begin_at_any_time() {
    for fps in [5, 10, 25, 30, 60] {
        let sender = Sender {
            fps,
            key_every: fps * 2,
            reordered_from: Some(14 * SECOND),
            ..Sender::default()
        };
        let run = sender.run();
        run.is_sane();
        assert_eq!(run.dropped(Track::Video), 0);
        // At five a second the first leap ahead looks like a step, until the next picture explains it.
        let astray = run
            .of('v')
            .iter()
            .filter(|out| (out.pts - out.truth).abs() > MS)
            .count();
        assert!(
            astray <= usize::from(fps <= 5),
            "{astray} pictures at {fps} a second"
        );
        let moved = run
            .of('a')
            .iter()
            .filter(|out| (out.pts - out.truth).abs() > MS)
            .count();
        assert_eq!(moved, 0, "at {fps} a second");
    }
}

#[test]
fn stray_timestamps_add_up_to_nothing() {
    for stray in [
        -50 * MS,
        50 * MS,
        -20 * MS,
        -200 * MS,
        200 * MS,
        -20 * SECOND,
        20 * SECOND,
    ] {
        let sender = Sender {
            stray,
            ..Sender::default()
        };
        let run = sender.run();
        run.is_sane();
        assert_eq!(run.dropped(Track::Video), 0);
        let mut off: Vec<i64> = run
            .of('v')
            .iter()
            .map(|out| (out.pts - out.truth).abs())
            .collect();
        off.sort_unstable();
        assert!(
            off[off.len() * 9 / 10] < MS,
            "{} ms: most are where they belong",
            stray / MS
        );
        assert!(
            off[off.len() - 1] <= 201 * MS,
            "{} ms: {}",
            stray / MS,
            off[off.len() - 1] / MS
        );
        assert_eq!(run.of('s').len(), 0, "{} ms", stray / MS);
        let back = run
            .of('v')
            .windows(2)
            .filter(|pair| pair[1].pts <= pair[0].pts)
            .count();
        assert!(
            back == 0 || stray > 0,
            "{} ms: {back} pictures are shown before earlier ones",
            stray / MS
        );
        let first = run.of('a')[0];
        let moved = run
            .of('a')
            .into_iter()
            .find(|out| ((out.pts - out.truth) - (first.pts - first.truth)).abs() > MS);
        assert_eq!(moved, None, "{} ms: sound moved", stray / MS);
    }
}

#[test]
fn pictures_without_a_time_go_out_in_their_order() {
    let sender = Sender {
        slices_as_pictures: true,
        ..Sender::default()
    };
    let run = in_sync("fields", &sender, &[], 2.0);
    let video = run.of('v');
    assert!(video.windows(2).all(|pair| pair[0].pts < pair[1].pts));
}

#[test]
fn video_waits_for_missing_audio_no_longer_than_its_patience() {
    let always = i64::MAX;
    for (name, within, silent) in [
        ("never", vec![], 40),
        ("15 s late", vec![(15 * SECOND, always)], 15),
        ("ends half-way", vec![(0, 20 * SECOND)], 20),
        (
            "away for 12 s",
            vec![(0, 10 * SECOND), (22 * SECOND, always)],
            12,
        ),
    ] {
        let sender = Sender {
            audio_within: within.clone(),
            seconds: 40,
            ..Sender::default()
        };
        let run = sender.run();
        run.is_sane();
        assert_eq!(run.dropped(Track::Video), 0, "{name}");
        let latest = run
            .of('v')
            .iter()
            .map(|out| out.at - out.truth)
            .max()
            .unwrap();
        assert!(
            latest <= 6_200 * MS,
            "{name}: a picture waited {} ms",
            latest / MS
        );
        let silence = run.of('s').len() as i64 * FRAME;
        assert!(
            (silence - silent * SECOND).abs() <= 6_500 * MS,
            "{name}: {} ms of silence",
            silence / MS
        );
        assert_eq!(run.noted("audio_missing"), 1, "{name}");
        if !within.is_empty() {
            let skew = run.skew(0, i64::MAX);
            assert!(skew.abs() < 1.0, "{name}: {skew}");
            // It joins within two seconds of its coming.
            let expected = within
                .iter()
                .map(|(from, to)| (*to).min(40 * SECOND) - from)
                .sum::<i64>()
                / FRAME;
            assert!(
                run.of('a').len() as i64 + 95 >= expected,
                "{name}: {} of {expected}",
                run.of('a').len()
            );
        }
        // Sound without holes to the end.
        let mut sound: Vec<i64> = run
            .out
            .iter()
            .filter(|out| out.kind != 'v')
            .map(|out| out.pts)
            .collect();
        sound.sort_unstable();
        assert!(
            sound
                .windows(2)
                .all(|pair| (pair[1] - pair[0] - FRAME).abs() <= FRAME),
            "{name}"
        );
    }
}

/// By bundling or by a slow encoder; pictures that are decoded early lie ahead of it too.
#[test]
fn audio_that_comes_back_joins_though_it_lies_behind_the_video() {
    for (bundle, reordered_from, audio_late) in [
        (vec![5], Some(0), 0),
        (vec![1], Some(0), 0),
        (vec![1], None, 150 * MS),
        (vec![5], Some(0), 150 * MS),
        (vec![1], None, SECOND),
    ] {
        for (from, to) in [(-SECOND, 15 * SECOND), (10 * SECOND, 22 * SECOND)] {
            let sender = Sender {
                audio_within: vec![(i64::MIN, from), (to, i64::MAX)],
                seconds: 40,
                bundle: bundle.clone(),
                reordered_from,
                audio_late,
                report_every: SECOND,
                ..Sender::default()
            };
            let name = format!("{bundle:?}, {audio_late} ns late, away from {from}");
            let run = in_sync(&name, &sender, &[], 1.0);
            let sound = run.of('a');
            let back = sound.iter().find(|out| out.truth >= to).expect(&name);
            let after = back.truth - to - audio_late;
            assert!(after < 2 * SECOND, "{name}: {} ms", after / MS);
            // And stays.
            let rest = (40 * SECOND - back.truth) / FRAME;
            let stayed = sound.iter().filter(|out| out.truth >= to).count() as i64;
            assert!(rest - stayed < 10, "{name}: {stayed} of {rest}");
            assert_eq!(run.noted("audio_missing"), 1, "{name}");
        }
    }
}

#[test]
fn reports_that_are_refused_are_told_once_for_each_amount() {
    let off = |steps: Vec<Step>| {
        let sender = Sender {
            audio_wall: steps,
            report_every: SECOND / 2,
            seconds: 60,
            ..Sender::default()
        };
        in_sync("off", &sender, &[], 5.0).noted("report_refused")
    };
    let hour = 3_600 * SECOND;
    assert_eq!(off(step(0, hour)), 1);
    assert_eq!(off([step(0, hour), step(30, hour)].concat()), 2);
}

/// Cameras that count pictures, and audio whose description has another rate than its clock.
#[test]
fn a_clock_of_another_pace_is_put_right_and_lips_match_again() {
    for reports in [Reports::None, Reports::Honest] {
        for (ppm, thousandths) in [
            (-600_000, 2_500),
            (-500_000, 2_000),
            (-100_000, 1_111),
            (200_000, 833),
            (1_000_000, 500),
        ] {
            for video in [true, false] {
                let sender = Sender {
                    seconds: 90,
                    reports,
                    video_ppm: [(0, i64::MAX, ppm)].repeat(usize::from(video)),
                    drift_ppm: if video { 0 } else { ppm },
                    ..Sender::default()
                };
                let name = format!("{ppm} {video}");
                let run = sender.run();
                run.is_sane();
                let paced = run.notes.iter().filter_map(|(_, note)| match note {
                    Note::Paced { track, by } => Some((*track == Track::Video, *by)),
                    _ => None,
                });
                assert_eq!(paced.collect::<Vec<_>>(), [(video, thousandths)], "{name}");
                let skew = run.skew(30 * SECOND, i64::MAX);
                assert!(skew.abs() < 40.0, "{name}: {skew} ms");
            }
        }
    }
}

/// At dusk and at dawn.
#[test]
fn a_clock_that_changes_its_pace_is_followed() {
    let sender = Sender {
        seconds: 120,
        video_ppm: vec![(40 * SECOND, 80 * SECOND, -500_000)],
        ..Sender::default()
    };
    let run = sender.run();
    assert_eq!(run.noted("rtp_pace"), 2);
    for (from, to) in [(0, 40), (60, 80), (100, 120)] {
        let skew = run.skew(from * SECOND, to * SECOND);
        assert!(skew.abs() < 40.0, "{from}: {skew} ms");
    }
}

/// A network that takes less than is sent is no clock: both tracks come later and later.
#[test]
fn a_congested_network_is_no_clock() {
    let sender = Sender {
        seconds: 60,
        jitter: |n| n as i64 * 2 * MS,
        ..Sender::default()
    };
    assert_eq!(sender.run().noted("rtp_pace"), 0);
}

#[test]
fn holes_of_a_frame_and_more_are_placed_by_their_timestamps() {
    // Speech of 1 s, silence of 437 ms, as G.711 with silence suppression sends it.
    let within: Vec<_> = (0..16)
        .map(|n| (n * 1_437 * MS, n * 1_437 * MS + SECOND))
        .collect();
    let sender = Sender {
        audio_within: within,
        ..Sender::default()
    };
    let run = in_sync("suppression", &sender, &[], 0.1);
    // Content follows content: what is between is filled, and never off by more than half a frame.
    let mut at = run.of('a')[0].pts;
    for out in run.out.iter().filter(|out| out.kind != 'v') {
        assert!(
            (out.pts - at).abs() <= FRAME / 2 + 1 || out.kind == 's',
            "{} against {}",
            out.pts / MS,
            at / MS
        );
        at += FRAME;
    }
    assert_eq!(run.noted("realigned"), 0);
}

#[test]
fn drift_is_followed_without_reports_too() {
    for ppm in [-400, 400] {
        let sender = Sender {
            reports: Reports::None,
            drift_ppm: ppm,
            seconds: 600,
            fps: 10,
            ..Sender::default()
        };
        let run = sender.run();
        let skew = run.skew(0, i64::MAX);
        assert!(skew.abs() < 60.0, "{skew}");
    }
}

#[test]
fn timestamps_wrap() {
    let sender = Sender {
        video_base: u32::MAX - 900_000,
        audio_base: u32::MAX - 700_000,
        ..Sender::default()
    };
    let run = in_sync("wrap", &sender, &[], 0.1);
    assert_eq!(run.noted("rtp_step"), 0);
}
