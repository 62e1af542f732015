//! The driver's parts together, without a loop around them.

use std::path::PathBuf;

use clap::Parser as _;

use super::*;
use crate::captions::Words;
use crate::cli::Cli;
use crate::observe::Status;
use crate::telemetry::metrics::Counted;
use dub_engine::AudioFrame;
use dub_engine::input::InputNews;
use dub_media::AccessUnit;
use dub_media::aac::AacFormat;
use dub_media::audio::{AudioError, Pcm};
use dub_media::mixer::MixTrouble;

/// Options with which nothing is connected to.
pub(super) fn config(args: &[&str]) -> Config {
    let cli = [
        "worker",
        "--input-url=rtsp://127.0.0.1:1/cam",
        "--sts-service-url=http://u:geheim@127.0.0.1:1",
    ];
    Config::from(&Cli::try_parse_from(cli.iter().chain(args)).unwrap())
}

const NO_OUTPUT: &str = "--output-url=rtmp://127.0.0.1:1/live/out";

fn driver() -> Driver {
    driver_with(&["--segment-retention=0s"])
}

fn driver_with(args: &[&str]) -> Driver {
    dub_media::init().unwrap();
    let config = config(&[&[NO_OUTPUT], args].concat());
    let target = RtmpTarget::parse(config.output_url.secret()).unwrap();
    let observer = Observer::new(Status::default(), None);
    let captions = Captions::new(&config, &observer).unwrap();
    Driver::new(config, target, observer, captions).unwrap()
}

/// A segment of 2 s or more: pictures in the order in which they are decoded, by the numbers of their places, 40 ms
/// each, and sound.
pub(super) fn segment(
    batch: u64,
    start: i64,
    places: &[i64],
    size: usize,
    frames: Vec<AacFrame>,
) -> Segment<VideoPayload, AacFrame> {
    let at = |ms: i64| Pts::from_millis(start + ms);
    let picture = |(n, place): (usize, &i64)| VideoUnit {
        pts: at(place * 40),
        keyframe: n == 0,
        payload: (AccessUnit::made_up(30, n == 0, size), At::ZERO),
    };
    let sound = |(n, payload)| AudioFrame {
        pts: at(n as i64 * 21),
        duration: Duration::from_millis(21),
        level: None,
        payload,
    };
    Segment {
        batch,
        start: at(0),
        end: at(2_000.max(places.len() as i64 * 40)),
        cut: CutAt::Grid,
        kind: SegmentKind::Full,
        video: places.iter().enumerate().map(picture).collect(),
        audio: (0..).zip(frames).map(sound).collect(),
    }
}

/// What the mixer has made of a segment, so far.
fn mixed(part: Part) -> Mixed {
    Mixed {
        part,
        frames: vec![(0, AacFrame::from([7]))],
        delta: 0,
        events: Vec::new(),
        dubbed_m4a: None,
        trouble: None,
    }
}

/// The input tells its format: the number of its connection.
fn begin(driver: &mut Driver, format: &AacFormat) -> u32 {
    let connection = input::tests::start(&mut driver.input);
    let fact = IngestFact::AudioFormat {
        format: format.clone(),
        bundled: None,
    };
    driver.hear(connection, fact).unwrap();
    connection
}

/// The exit code and the words that the driver ends with.
fn ends(driver: &Driver) -> Option<(u8, String)> {
    let failure = driver.failure.as_ref();
    failure.map(|error| (error.exit_code(), error.to_string()))
}

fn input_lost() -> WorkerError {
    let (url, reason) = ("rtsp://cam".to_owned(), "gone".to_owned());
    WorkerError::Input {
        url,
        reason,
        attempts: 4,
    }
}

#[test]
fn what_may_complete_a_segment_is_taken_in_sooner() {
    let ms = Duration::from_millis;
    for (missing, expected) in [(None, 80), (Some(250), 80), (Some(249), 20), (Some(0), 20)] {
        assert_eq!(turn(missing.map(ms)), ms(expected), "{missing:?} missing");
    }
}

#[tokio::test]
async fn each_end_of_dubbing_has_its_exit_code() {
    let (code, message) = ("AUTH_FAILED".to_owned(), "bad token".to_owned());
    for (end, expected) in [
        (End::Complete, None),
        (End::Gone, Some((13, "connection lost"))),
        (
            End::Refused { code, message },
            Some((14, "AUTH_FAILED: bad token")),
        ),
    ] {
        let mut driver = driver();
        let connected = InputNews::Connected { connection: 1 };
        let news = Fact::Input { news: &connected };
        driver.observer.fact(&news);
        driver
            .carry_out(At::ZERO, DubbingOrder::Drained(end))
            .unwrap();
        assert!(driver.drained);
        let shown = driver.observer.board().snapshot();
        let draining = shown.reasons.iter().any(|reason| reason == "draining");
        assert_eq!(
            (shown.input.connected, draining),
            match expected {
                None => (true, false),
                Some(_) => (false, true),
            }
        );
        let found = ends(&driver);
        assert_eq!(found.as_ref().map(|it| it.0), expected.map(|it| it.0));
        if let (Some((_, said)), Some((_, words))) = (found, expected) {
            assert!(said.contains(words) && !said.contains("geheim"), "{said}");
            assert!(driver.input.has_ended(), "nothing more is read");
        }
    }
}

/// Of several failures the first counts; what came before an input was lost is published first.
#[tokio::test]
async fn the_first_failure_counts_and_what_is_buffered_goes_out() {
    let mut driver = driver();
    let never = driver.input_result(Err(input_lost()));
    assert_eq!(never.map_err(|error| error.exit_code()), Err(10));
    driver.started = true;
    driver.input_result(Err(input_lost())).unwrap();
    let (url, reason) = (String::new(), String::new());
    let changed = WorkerError::InputChanged { url, reason };
    driver.input_result(Err(changed)).unwrap();
    driver
        .carry_out(At::ZERO, DubbingOrder::Drained(End::Gone))
        .unwrap();
    assert_eq!(ends(&driver).map(|it| it.0), Some(10));
    let unsuitable = WorkerError::UnsuitableInput {
        url: String::new(),
        reason: String::new(),
    };
    assert!(
        driver.input_result(Err(unsuitable)).is_err(),
        "that one stops at once"
    );
}

#[test]
fn segment_files_go_where_the_options_say() {
    let user = nix::unistd::getuid();
    let place = |args: &[&str]| place(&config(args));
    let minutes = Duration::from_mins;
    let usual = Place {
        root: std::env::temp_dir().join(format!("worker-segments-{user}")),
        private: true,
        stream_id: "stream".to_owned(),
        retention: minutes(10),
    };
    assert_eq!(place(&[]), Some(usual));
    let own = Place {
        root: PathBuf::from("/media"),
        private: false,
        stream_id: "news".to_owned(),
        retention: minutes(3),
    };
    let options = [
        "--segment-dir=/media",
        "--segment-retention=3m",
        "--stream-id=news",
        "--worker-id=w7",
    ];
    assert_eq!(place(&options), Some(own));
    let none = ["--segment-dir=/media", "--segment-retention=0s"];
    assert_eq!(place(&none), None);
}

/// The values of a field, as ffprobe tells them of a segment's pictures.
fn told<'a>(text: &'a str, field: &str) -> Vec<&'a str> {
    let pattern = format!("\"{field}\": \"");
    let values = text.split(&pattern).skip(1);
    values.filter_map(|rest| rest.split('"').next()).collect()
}

#[tokio::test]
async fn segment_files_hold_what_was_cut_and_what_was_mixed() {
    let root = tempfile::tempdir().unwrap();
    let option = format!("--segment-dir={}", root.path().display());
    let mut driver = driver_with(&[&option, "--stream-id=news"]);
    let format = AacFormat::lc(48_000, 2);
    begin(&mut driver, &format);
    let frames = |batch: u8| [0, 1, 2].map(|n| AacFrame::from([batch, n, 7]));
    // As with B-frames.
    let places = [0, 2, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11];
    for (batch, start, size) in [(0, 0, 900), (1, 2_000, 700)] {
        let sound = frames(batch).to_vec();
        let segment = segment(batch.into(), start, &places, size, sound);
        driver.segment_ready(At::ZERO, segment, batch > 0);
    }
    let end = Mixed {
        dubbed_m4a: Some(b"dub".to_vec()),
        ..mixed(Part::End(1))
    };
    driver.mixed(end).unwrap();
    drop(driver.files.take());

    let dir = root.path().join("news");
    let names = || {
        let files = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        let names = files.filter_map(|file| file.file_name().into_string().ok());
        let mut names: Vec<_> = names.filter(|name| !name.contains(".tmp")).collect();
        names.sort();
        names
    };
    let expected = [
        "000000_audio.m4a",
        "000000_video.mp4",
        "000001_audio.m4a",
        "000001_audio_dubbed.m4a",
        "000001_video.mp4",
    ];
    // A busy machine needs more than the worker's own patience.
    let patience = Instant::now() + Duration::from_secs(10);
    while names().len() < expected.len() && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(names(), expected);
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
    let (first, second) = (frames(0), frames(1));
    let slices = |frames: &[AacFrame]| {
        m4a::write(
            &format,
            None,
            &frames.iter().map(|it| &it[..]).collect::<Vec<_>>(),
        )
    };
    assert!(read(expected[0]) == slices(&first));
    let second: Vec<_> = second.iter().map(|frame| &frame[..]).collect();
    let follows = m4a::write(&format, Some(&first[2]), &second);
    assert!(read(expected[2]) == follows, "with the frame before it");
    assert_eq!(read(expected[3]), b"dub");
    for (name, size) in [(expected[1], "904"), (expected[4], "704")] {
        let packets = e2e_ffmpeg::Detail::Packets("v:0");
        let text = e2e_ffmpeg::probe(dir.join(name), packets).run().unwrap();
        let text = String::from_utf8(text).unwrap();
        let seconds = |place: i64| format!("{:.6}", place as f64 * 0.04);
        assert_eq!(told(&text, "pts_time"), places.map(seconds), "{name}");
        let decoded: [i64; 12] = std::array::from_fn(|n| n as i64 - 1);
        assert_eq!(told(&text, "dts_time"), decoded.map(seconds), "{name}");
        assert_eq!(told(&text, "size"), [size; 12], "{name}");
    }
}

#[tokio::test]
async fn what_comes_is_counted_by_its_track_and_size() {
    let counted = Counted::during(|| {
        let mut driver = driver();
        let connection = begin(&mut driver, &AacFormat::lc(48_000, 2));
        for fact in input::tests::media(&driver.input, 0..100) {
            driver.hear(connection, fact).unwrap();
        }
    });
    let of = |name, track| counted.of(name, track);
    assert_eq!(of("worker_input_bytes_total", "video"), 3 * 904);
    assert_eq!(of("worker_input_bytes_total", "audio"), 4 * 300);
    assert_eq!(of("worker_input_frames_total", "video"), 3);
    assert_eq!(of("worker_input_frames_total", "audio"), 4);
}

/// Also what the loop has not looked at yet.
#[tokio::test]
async fn a_signal_loses_nothing_that_came() {
    let mut driver = driver();
    let connection = begin(&mut driver, &AacFormat::lc(48_000, 2));
    let facts = input::tests::media(&driver.input, 0..3_000);
    let came = input::tests::units(&facts);
    for fact in facts {
        input::tests::tell(&driver.input, connection, fact);
    }
    driver.stop_requested("SIGTERM").unwrap();
    assert_eq!(input::tests::cut(&mut driver.input), came);
    assert!(driver.input.has_ended());
    let again = driver.stop_requested("SIGTERM").unwrap_err();
    assert!(again.to_string().contains("second signal"), "{again}");
}

/// The original is heard, whatever was decided before.
#[tokio::test]
async fn a_dub_that_the_mixer_cannot_use_is_none_to_anybody() {
    for (trouble, cues, heard) in [
        (None, 1, "dubbed"),
        (Some(MixTrouble::Dub(AudioError::Empty)), 0, "original"),
    ] {
        let mut driver = driver();
        begin(&mut driver, &AacFormat::lc(48_000, 2));
        driver.settle().unwrap();
        let at = driver.now();
        driver.segment_ready(at, segment(0, 0, &[0, 1], 900, Vec::new()), false);
        let publish = DubbingOrder::Publish {
            batch: 0,
            dubbed: Some(Pcm::silence(1_024, 2)),
            words: Words {
                transcript: "Hello.".to_owned(),
                translated: "Hallo.".to_owned(),
            },
        };
        driver.carry_out(at, publish).unwrap();
        let begin = Mixed {
            trouble,
            ..mixed(Part::Begin(0))
        };
        driver.mixed(begin).unwrap();
        assert_eq!(driver.captions.json().matches("Hallo.").count(), cues);
        let later = driver.now() + Duration::from_secs(2);
        driver.output.wake(later, &driver.observer).unwrap();
        let shown = driver.observer.board().snapshot();
        let on_air: Vec<_> = shown.segments.iter().map(|it| it.audio).collect();
        assert_eq!(on_air, [heard]);
    }
}
