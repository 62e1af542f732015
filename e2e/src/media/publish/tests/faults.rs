//! Every fault, read from the stamps, times and reports of the packets that are sent.

use super::*;

/// Wall time in seconds of a stamp, by a report.
fn wall(report: &Report, timestamp: u32, clock: f64) -> f64 {
    report.wall as f64 / 1e9 + f64::from(timestamp.wrapping_sub(report.timestamp) as i32) / clock
}

#[test]
fn drift_keeps_steps_and_moves_pace_and_reports() {
    for (arguments, rate) in [
        ("--audio-drift 0.5%", 1.005),
        ("--audio-drift -5000ppm", 0.995),
    ] {
        let sent = send(testclip::PLAIN, &format!("{arguments} --sr-interval 0.5"));
        let plain = send(testclip::PLAIN, "--sr-interval 0.5");
        assert_eq!(
            sent.stamps(Media::Audio),
            plain.stamps(Media::Audio),
            "1024 a frame, as ever"
        );
        for packet in sent.audio() {
            let expected = f64::from(packet.timestamp) / 48_000.0 / rate;
            assert!(
                (packet.at.as_secs_f64() - expected).abs() < 1e-6,
                "{packet:?}"
            );
        }
        for report in &sent.reports[1] {
            let expected = report.wall as f64 / 1e9 * rate * 48_000.0;
            assert!(
                (f64::from(report.timestamp) - expected).abs() < 1.0,
                "{report:?}"
            );
        }
        assert_eq!(sent.stamps(Media::Video), plain.stamps(Media::Video));
        assert_eq!(sent.reports[0], plain.reports[0]);
    }
}

#[test]
fn a_step_moves_one_track_from_its_moment_on() {
    for step in [200_i32, -200] {
        let sent = send(
            testclip::PLAIN,
            &format!("--audio-step-ms {step} --step-at 1"),
        );
        let plain = send(testclip::PLAIN, "");
        // The first frame at or after one second is number 47.
        for (index, (moved, still)) in sent.audio().iter().zip(plain.audio()).enumerate() {
            let by = moved.timestamp.wrapping_sub(still.timestamp) as i32;
            assert_eq!(by, if index < 47 { 0 } else { step * 48 }, "frame {index}");
            assert_eq!(
                moved.at, still.at,
                "frame {index} leaves when it always does"
            );
        }
        assert_eq!(sent.stamps(Media::Video), plain.stamps(Media::Video));

        let sent = send(
            testclip::PLAIN,
            &format!("--video-step-ms {step} --step-at 1"),
        );
        assert_eq!(steps(&sent.stamps(Media::Video))[29], 3000 + step * 90);
        assert_eq!(
            steps(&sent.stamps(Media::Video))
                .iter()
                .filter(|&&step| step != 3000)
                .count(),
            1
        );
        assert_eq!(sent.stamps(Media::Audio), plain.stamps(Media::Audio));
    }
}

#[test]
fn reports_keep_to_wall_time_or_follow_a_step() {
    let plain = send(testclip::PLAIN, "--sr-interval 0.5");
    let kept = send(
        testclip::PLAIN,
        "--sr-interval 0.5 --audio-step-ms 200 --step-at 1.2",
    );
    assert_eq!(kept.reports[1], plain.reports[1]);
    let followed = send(
        testclip::PLAIN,
        "--sr-interval 0.5 --audio-step-ms 200 --step-at 1.2 --step-reports follow",
    );
    for (moved, still) in followed.reports[1].iter().zip(&plain.reports[1]) {
        let by = moved.timestamp.wrapping_sub(still.timestamp);
        assert_eq!(
            by,
            if still.at.as_secs_f64() < 1.2 {
                0
            } else {
                9600
            },
            "{still:?}"
        );
        assert_eq!(moved.wall, still.wall);
    }
}

#[test]
fn a_gap_takes_frames_out_and_leaves_stamps_alone() {
    let sent = send(testclip::PLAIN, "--audio-gap-ms 1000 --gap-at 1");
    let expected: Vec<u32> = (0..141)
        .map(|frame| frame * 1024)
        .filter(|stamp| !(48_000..96_000).contains(stamp))
        .collect();
    assert_eq!(sent.stamps(Media::Audio), expected);
    assert_eq!(sent.frames, [90, expected.len()]);
    // Nothing was lost on the way, so sequence numbers go on.
    assert!(
        sent.audio()
            .windows(2)
            .all(|pair| pair[1].sequence == pair[0].sequence.wrapping_add(1))
    );
    let packed = send(
        testclip::PLAIN,
        "--audio-gap-ms 1000 --gap-at 1 --aac-per-packet 5",
    );
    assert_eq!(
        packed.frames, sent.frames,
        "a packet does not reach across the gap"
    );
    assert!(
        packed.stamps(Media::Audio).contains(&(94 * 1024)),
        "the first frame after the gap begins one"
    );
}

#[test]
fn delay_moves_sending_only() {
    let sent = send(testclip::PLAIN, "--audio-delay-ms 300");
    let plain = send(testclip::PLAIN, "");
    assert_eq!(sent.stamps(Media::Audio), plain.stamps(Media::Audio));
    for (late, punctual) in sent.audio().iter().zip(plain.audio()) {
        assert_eq!(late.at, punctual.at + Duration::from_millis(300));
    }
    assert!(sent.order.is_sorted_by_key(|outgoing| outgoing.at));
    let report = &sent.reports[1][0];
    assert!(
        (wall(report, 0, 48_000.0)).abs() < 2e-5,
        "reports tell the true time: {report:?}"
    );
}

#[test]
fn wander_moves_audio_reports_within_bounds_and_the_same_way_each_time() {
    let arguments = "--sr-wander-ms 40 --sr-interval 0.1";
    let sent = send(testclip::PLAIN, arguments);
    let off: Vec<f64> = sent.reports[1]
        .iter()
        .map(|report| wall(report, 0, 48_000.0) * 1000.0)
        .collect();
    assert!(off.iter().all(|off| off.abs() <= 40.1), "{off:?}");
    assert!(
        off.iter().any(|&off| off > 10.0) && off.iter().any(|&off| off < -10.0),
        "{off:?}"
    );
    assert_eq!(sent.reports, send(testclip::PLAIN, arguments).reports);
    assert_eq!(
        sent.reports[0],
        send(testclip::PLAIN, "--sr-interval 0.1").reports[0]
    );
}

#[test]
fn a_stream_that_is_dropped_sends_nothing_from_then_on() {
    let sent = send(testclip::PLAIN, "--stop-at 1.5");
    assert_eq!(sent.frames, [45, 71]);
    assert!(
        sent.order
            .iter()
            .all(|outgoing| millis(outgoing.at) < 1500.0)
    );
}

#[test]
fn packed_frames_do_not_reach_across_a_step() {
    let sent = send(
        testclip::PLAIN,
        "--audio-step-ms 200 --step-at 1 --aac-per-packet 5",
    );
    assert!(sent.stamps(Media::Audio).contains(&(47 * 1024 + 9600)));
    assert_eq!(sent.frames[1], 141);
}
