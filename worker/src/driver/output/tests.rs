//! The output without a worker around it.

use std::time::Instant;

use dub_engine::{CutAt, DubFitMode, SegmentKind};
use dub_media::encoder;

use super::*;
use crate::driver::tests::{config, segment};
use crate::observe::Status;
use crate::telemetry::metrics::Counted;

#[path = "../../../media/src/egress/tests/server.rs"]
#[allow(dead_code, reason = "the rest is for the tests beside it")]
mod server;

fn publisher_with(args: &[&str]) -> (Publisher, Observer) {
    let config = config(args);
    let target = RtmpTarget::parse(config.output_url.secret()).unwrap();
    let observer = Observer::new(Status::default(), None);
    (Publisher::new(&config, target), observer)
}

fn publisher() -> (Publisher, Observer) {
    publisher_with(&[])
}

/// A segment whose pictures are decoded when they are shown.
fn cut(output: &mut Publisher, segment: Segment<VideoPayload, AacFrame>) {
    let dts = segment.video.iter().map(|unit| unit.pts).collect();
    output.cut(segment, At::ZERO, dts, None);
}

#[test]
fn video_waits_for_the_sound_beside_it_not_for_all_of_it() {
    let (mut output, observer) = publisher();
    let (at, start) = (At::new(Duration::from_secs(7)), Pts::from_millis(0));
    let segment = Segment {
        batch: 0,
        start,
        end: Pts::from_millis(6_000),
        cut: CutAt::Grid,
        kind: SegmentKind::Full,
        video: VecDeque::new(),
        audio: Vec::new(),
    };
    output.cut(segment, At::new(Duration::ZERO), Vec::new(), None);
    assert!(output.segments.decided(at, 0, None, false).is_some());
    let take = |output: &mut Publisher, part, frames: &[i64]| {
        let frames = frames.iter().map(|at| (*at, AacFrame::from([0])));
        let mixed = Mixed {
            part,
            frames: frames.collect(),
            delta: 0,
            events: Vec::new(),
            dubbed_m4a: None,
            trouble: None,
        };
        assert!(output.take(at, mixed, &observer).unwrap().is_none());
    };

    take(&mut output, Part::Begin(0), &[0]);
    assert_eq!(output.next_video(), Some(start));
    assert!(output.playout.due(start).is_some(), "the pair is ready");
    output.audio.clear();
    assert_eq!(output.next_video(), None, "no sound for it yet");
    let timeout = output.poll_timeout(at);
    assert!(timeout.is_none_or(|timeout| timeout > at), "{timeout:?}");
    take(&mut output, Part::End(0), &[21_000_000]);
    output.audio.clear();
    assert_eq!(output.next_video(), Some(start), "no more sound comes");
}

#[test]
fn a_connection_that_was_given_up_is_not_believed() {
    let (mut output, observer) = publisher();
    for second in 0..10 {
        output
            .handed_over
            .push(Pts::from_millis(second * 1_000), 1_000);
    }
    let at = At::new(Duration::from_secs(7));
    observer.output_connected(true);
    let error = || EgressError {
        kind: "stream",
        name_taken: false,
        text: "gone".to_owned(),
    };
    let current = output.life.connection();
    for (connection, fact) in [
        (current, EgressFact::Waiting(u64::MAX)),
        (current + 7, EgressFact::Waiting(u64::MAX)),
        (current + 7, EgressFact::Failed(error())),
    ] {
        output.handle(at, connection, fact, &observer);
    }
    assert_eq!(output.waiting, Duration::ZERO);
    assert!(observer.board().snapshot().output.connected);
}

#[test]
fn the_mixer_goes_by_the_options() {
    let options = [
        "--av-sync-threshold-ms=99",
        "--dub-fit=stretch",
        "--dub-max-speed=1.25",
        "--dub-spill=300ms",
        "--dub-loudness=keep",
        "--dub-mix=duck",
        "--dub-duck-db=-12.5",
    ];
    let sync = AvSyncConfig {
        rate: 44_100,
        threshold: Duration::from_millis(99),
        gap: Duration::from_millis(500),
        ..AvSyncConfig::default()
    };
    let fit = DubFitConfig {
        mode: DubFitMode::Stretch,
        max_speed: 1.25,
        spill: Duration::from_millis(300),
        rate: 44_100,
    };
    let expected = (sync, fit, DubLoudness::Keep, Some(-12.5));
    assert_eq!(mixer_config(&config(&options), 44_100), expected);
}

#[test]
fn a_file_of_the_dub_is_made_where_files_are_wanted() {
    dub_media::init().unwrap();
    for (option, wanted) in [
        ("--segment-dir=/segments", true),
        ("--segment-retention=0s", false),
    ] {
        let (mut output, observer) = publisher_with(&[option]);
        output.start(&AacFormat::lc(48_000, 2)).unwrap();
        let frames = vec![encoder::silent_frame(2); 94];
        cut(&mut output, segment(0, 0, &[0], 900, frames));
        let tone = (0..94 * 1_024).map(|n| (n as f32 * 0.06).sin() * 0.3);
        let dub = Pcm {
            samples: tone.flat_map(|sample| [sample; 2]).collect(),
            channels: 2,
        };
        output.publish(At::ZERO, 0, Some(dub), &observer).unwrap();
        for part in [Part::Begin(0), Part::End(0)] {
            let mixed = output.mixed.blocking_recv().unwrap();
            assert!(mixed.part == part && mixed.trouble.is_none());
            let file = output.take(At::ZERO, mixed, &observer).unwrap();
            let expected = (wanted && part == Part::End(0)).then_some(0);
            assert_eq!(file.map(|(batch, _)| batch), expected, "{option}");
        }
    }
}

#[test]
fn what_leaves_is_counted_by_its_track() {
    let counted = Counted::during(|| {
        let (mut output, observer) = publisher();
        let frames = vec![AacFrame::from([7]); 5];
        cut(&mut output, segment(0, 0, &[0, 1, 2], 900, frames));
        let at = At::new(Duration::from_secs(7));
        output.publish(at, 0, None, &observer).unwrap();
        let later = at + Duration::from_secs(2);
        output.wake(later, &observer).unwrap();
    });
    assert_eq!(counted.of("worker_output_frames_total", "video"), 3);
    assert_eq!(counted.of("worker_output_frames_total", "audio"), 5);
    assert_eq!(counted.of("worker_video_units_total", "published"), 3);
}

/// A server whose machine takes what fits into its sockets and no more.
#[tokio::test]
async fn an_output_that_takes_no_data_is_seen_and_given_up() {
    dub_media::init().unwrap();
    let server = server::Server::start(server::Manner::StopsReading);
    let url = format!("--output-url=rtmp://127.0.0.1:{}/live/out", server.port);
    let (mut output, observer) = publisher_with(&[&url, "--sts-mode=passthrough"]);
    output.start(&AacFormat::lc(48_000, 2)).unwrap();
    // 12 s at 40 Mbit/s.
    let places: Vec<_> = (0..300).collect();
    cut(&mut output, segment(0, 0, &places, 200_000, Vec::new()));
    let mut at = At::new(Duration::from_secs(7));
    output.publish(at, 0, None, &observer).unwrap();
    output.wake(at, &observer).unwrap();
    let patience = Instant::now() + Duration::from_secs(10);
    while output.egress.as_ref().unwrap().bytes_sent() == 0 {
        assert!(Instant::now() < patience, "not accepted");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut waiting = Duration::ZERO;
    let error = loop {
        at = at + Duration::from_secs(1);
        if let Err(error) = output.wake(at, &observer) {
            break error.to_string();
        }
        output.check(at, &observer);
        // A look takes a moment.
        let fact = tokio::time::timeout(Duration::from_millis(100), output.facts.recv()).await;
        if let Ok(Some((connection, fact))) = fact {
            output.handle(at, connection, fact, &observer);
            waiting = waiting.max(output.waiting);
        }
        assert!(at < At::new(Duration::from_secs(30)), "not given up");
    };
    assert!(error.contains("takes no data"), "{error}");
    assert!(waiting > Duration::from_secs(1), "{waiting:?}");
}
