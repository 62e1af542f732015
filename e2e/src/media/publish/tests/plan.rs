//! A clip without faults: stamps, pace, reports, loops, packing.

use super::*;

#[test]
fn every_frame_leaves_at_its_time_with_its_stamp() {
    let sent = send(testclip::PLAIN, "");
    assert_eq!(sent.frames, [90, 141]);
    let expected: Vec<u32> = (0..90).map(|frame| frame * 3000).collect();
    assert_eq!(sent.stamps(Media::Video), expected);
    assert_eq!(
        sent.stamps(Media::Audio),
        (0..141).map(|frame| frame * 1024).collect::<Vec<_>>()
    );
    for packet in sent.video() {
        assert!((packet.at.as_secs_f64() - f64::from(packet.timestamp) / 90_000.0).abs() < 1e-6);
    }
    for packet in sent.audio() {
        assert!((packet.at.as_secs_f64() - f64::from(packet.timestamp) / 48_000.0).abs() < 1e-6);
    }
    assert!(sent.order.is_sorted_by_key(|outgoing| outgoing.at));
}

#[test]
fn sequence_numbers_have_no_hole_and_markers_end_frames() {
    let sent = send(testclip::PLAIN, "");
    for packets in &sent.rtp {
        for pair in packets.windows(2) {
            assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
            assert_eq!(pair[0].marker, pair[0].timestamp != pair[1].timestamp);
        }
    }
    assert!(
        sent.order
            .iter()
            .flat_map(|outgoing| &outgoing.packets)
            .all(|packet| packet.len() <= 1400)
    );
}

#[test]
fn reports_of_both_tracks_agree_on_wall_time() {
    let sent = send(testclip::PLAIN, "--sr-interval 0.5");
    for (reports, clock) in sent.reports.iter().zip([90_000.0, 48_000.0]) {
        assert_eq!(
            reports.len(),
            6,
            "at the start and every half second of three"
        );
        assert_eq!(reports[0].at, Duration::ZERO);
        for report in reports {
            let clip_time = f64::from(report.timestamp) / clock;
            assert!(
                (clip_time - report.wall as f64 / 1e9).abs() < 2e-5,
                "{report:?}"
            );
            assert!(
                (clip_time - report.at.as_secs_f64()).abs() < 2e-5,
                "{report:?}"
            );
        }
    }
    // A report counts what was sent before it; the first one follows the first packet.
    assert_eq!(sent.reports[1][0].packets, 1);
    let before = sent
        .audio()
        .iter()
        .filter(|packet| packet.at <= sent.reports[1][3].at)
        .count();
    assert_eq!(sent.reports[1][3].packets as usize, before);
}

#[test]
fn reports_and_names_can_be_left_out() {
    assert!(
        send(testclip::PLAIN, "--no-sr")
            .order
            .iter()
            .all(|outgoing| outgoing.frames > 0)
    );
    let kinds = |arguments| {
        let sent = send(testclip::PLAIN, arguments);
        let rtcp = sent
            .order
            .iter()
            .find(|outgoing| outgoing.frames == 0)
            .unwrap();
        let packet = &rtcp.packets[0];
        (packet[1], packet.get(29).copied())
    };
    assert_eq!(kinds(""), (200, Some(202)));
    assert_eq!(kinds("--no-cname"), (200, None));
}

#[test]
fn the_farewell_is_a_compound_packet_that_ends_in_bye() {
    for (arguments, first) in [("", 200), ("--no-sr", 201), ("--no-sr --no-cname", 201)] {
        let options = options(arguments);
        let clip = clip(testclip::PLAIN);
        let mut stream = Stream::new(&clip, &options, START);
        stream.by_ref().for_each(drop);
        assert!(
            (millis(stream.end()) - 3000.0).abs() < 1.0,
            "{:?}",
            stream.end()
        );
        for farewell in stream.farewell() {
            let packet = &farewell.packets[0];
            let mut kinds = Vec::new();
            let mut at = 0;
            while at < packet.len() {
                kinds.push(packet[at + 1]);
                at += 4 + 4 * usize::from(u16::from_be_bytes([packet[at + 2], packet[at + 3]]));
            }
            assert_eq!(
                (kinds[0], *kinds.last().unwrap()),
                (first, 203),
                "{arguments}"
            );
        }
    }
}

#[test]
fn b_frames_leave_in_decoding_order_and_never_before_they_happen() {
    let sent = send(testclip::B_FRAMES, "");
    let stamps = sent.stamps(Media::Video);
    assert!(!stamps.is_sorted(), "there are B-frames");
    let mut sorted = stamps.clone();
    sorted.sort_unstable();
    assert_eq!(
        sorted,
        (0..90).map(|frame| frame * 3000).collect::<Vec<_>>()
    );
    // Wall time of a stamp, from the first report, must not be later than its sending.
    let report = &sent.reports[0][0];
    for packet in sent.video() {
        let clip_time =
            (f64::from(packet.timestamp) - f64::from(report.timestamp as i32)) / 90_000.0;
        assert!(
            report.wall as f64 / 1e9 + clip_time <= packet.at.as_secs_f64() + 1e-6,
            "{packet:?}"
        );
    }
    // Audio and video of one instant agree on wall time all the same.
    let instant = |lane: usize, clock: f64| {
        let report = &sent.reports[lane][0];
        report.wall as f64 / 1e9 - f64::from(report.timestamp as i32) / clock
    };
    assert!((instant(0, 90_000.0) - instant(1, 48_000.0)).abs() < 2e-5);
}

#[test]
fn stamps_wrap_around() {
    let options = Flags::parse_from(["publisher", "--rtp-base", "4294900000"]).options;
    let clip = clip(testclip::PLAIN);
    let sent = collect(Stream::new(&clip, &options, START));
    assert_eq!(sent.stamps(Media::Video)[0], 4_294_900_000);
    assert!(
        steps(&sent.stamps(Media::Video))
            .iter()
            .all(|&step| step == 3000)
    );
    assert!(sent.stamps(Media::Video).last() < Some(&300_000));
}

#[test]
fn loops_continue_both_timelines_without_a_seam() {
    let options = options("--loop");
    let clip = clip(testclip::PLAIN);
    let sent = collect(
        Stream::new(&clip, &options, START).take_while(|outgoing| outgoing.at.as_secs() < 10),
    );
    assert!(
        steps(&sent.stamps(Media::Video))
            .iter()
            .all(|&step| step == 3000)
    );
    assert!(
        steps(&sent.stamps(Media::Audio))
            .iter()
            .all(|&step| step == 1024)
    );
    assert_eq!(sent.frames[0], 300);
    // A loop of audio begins on the frame nearest to the loop of video: 3 s are 140.625 frames.
    let first = &sent.audio()[0].payload;
    for (round, frame) in [(1_u32, 141), (2, 281), (3, 422)] {
        assert_eq!(&sent.audio()[frame].payload, first, "loop {round}");
        let apart = f64::from(sent.audio()[frame].timestamp) / 48.0 - f64::from(round) * 3000.0;
        assert!(apart.abs() <= 10.7, "loop {round}: {apart} ms");
    }
}

#[test]
fn frames_are_packed_and_sent_when_the_last_one_is_there() {
    let sent = send(testclip::PLAIN, "--aac-per-packet 5");
    assert_eq!(sent.frames[1], 141);
    let stamps = sent.stamps(Media::Audio);
    assert_eq!(
        stamps,
        (0..29).map(|packet| packet * 5 * 1024).collect::<Vec<_>>()
    );
    let second = &sent.audio()[1];
    assert_eq!(second.payload[..2], [0, 80], "five headers of 16 bits");
    assert!((millis(second.at) - 9.0 * 1024.0 / 48.0).abs() < 0.01);
}

#[test]
fn a_stream_can_be_cut_to_length_and_tracks_left_out() {
    assert_eq!(send(testclip::PLAIN, "--end-at 1").frames, [30, 47]);
    assert_eq!(send(testclip::PLAIN, "--no-audio").frames, [90, 0]);
    assert_eq!(send(testclip::PLAIN, "--no-video").frames, [0, 141]);
    let nothing = select(clip(testclip::PLAIN), &options("--no-video --no-audio")).unwrap_err();
    assert!(nothing.to_string().contains("nothing of it is left"));
}

#[test]
fn parameter_sets_go_before_keyframes_when_asked() {
    let kinds = |arguments: &str| {
        let sent = send(testclip::PLAIN, arguments);
        sent.video()
            .iter()
            .filter(|packet| matches!(packet.payload[0] & 0x1f, 7 | 8))
            .count()
    };
    assert_eq!(
        kinds("--inband-parameter-sets"),
        kinds("") + 6,
        "two sets, three keyframes"
    );
}
