//! The input by what its connections tell; none is opened.

use std::ops::Range;

use clap::Parser as _;
use dub_engine::timeline::Picture;
use dub_media::MediaError;

use super::*;
use crate::cli::Cli;
use crate::observe::Status;
use crate::telemetry::metrics::Counted;

fn config(args: &[&str]) -> Config {
    let cli = ["worker", "--input-url=rtsp://u:geheim@127.0.0.1:1/cam"];
    Config::from(&Cli::try_parse_from(cli.iter().chain(args)).unwrap())
}

fn input_with(args: &[&str]) -> (Input, Observer) {
    let input = Input::new(&config(args), Instant::now());
    (input, Observer::new(Status::default(), None))
}

fn input() -> (Input, Observer) {
    input_with(&[])
}

/// An AAC frame at 48 kHz, in nanoseconds.
const FRAME: u64 = 21_333_333;

fn picture(input: &Input, ms: u64, picture: Picture) -> IngestFact {
    IngestFact::Video {
        time: Some(ms as i64 * 1_000_000),
        arrived: input.clock + Duration::from_millis(ms),
        picture,
        unit: AccessUnit::made_up(30, picture == Picture::Key, 900),
    }
}

/// The sound of so many milliseconds, and when each fact about it comes.
fn sound(input: &Input, ms: Range<u64>) -> Vec<(u64, IngestFact)> {
    let frames = (ms.start * 1_000_000).div_ceil(FRAME)..ms.end * 1_000_000 / FRAME;
    let facts = frames.flat_map(|n| {
        let (time, arrived) = (n * FRAME, input.clock + Duration::from_nanos(n * FRAME));
        let packet = IngestFact::Packet {
            time: time as i64,
            arrived,
        };
        let frame = IngestFact::Audio {
            time: Some(time as i64),
            arrived,
            frame: AacFrame::from([7; 300]),
            level: None,
        };
        [(time, packet), (time, frame)]
    });
    facts.collect()
}

/// Pictures, a keyframe a second, and sound of so many milliseconds, in the order in which they come.
pub(in crate::driver) fn media(input: &Input, ms: Range<u64>) -> Vec<IngestFact> {
    let pictures = ms.clone().step_by(40).map(|at| {
        let key = (at - ms.start).is_multiple_of(1_000);
        let kind = [Picture::Predicted, Picture::Key][usize::from(key)];
        (at * 1_000_000, picture(input, at, kind))
    });
    let mut all: Vec<_> = pictures.chain(sound(input, ms.clone())).collect();
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, fact)| fact).collect()
}

/// How many pictures and frames are told of.
pub(in crate::driver) fn units(facts: &[IngestFact]) -> (usize, usize) {
    let count = |what: fn(&IngestFact) -> bool| facts.iter().filter(|fact| what(fact)).count();
    (
        count(|fact| matches!(fact, IngestFact::Video { .. })),
        count(|fact| matches!(fact, IngestFact::Audio { .. })),
    )
}

/// How many pictures and frames lie in the segments that are complete.
pub(in crate::driver) fn cut(input: &mut Input) -> (usize, usize) {
    let segments = std::iter::from_fn(|| input.poll_segment());
    segments.fold((0, 0), |(video, audio), (segment, _)| {
        (video + segment.video.len(), audio + segment.audio.len())
    })
}

/// Starts, without a connection: its number. What it would have told is told by hand.
pub(in crate::driver) fn start(input: &mut Input) -> u32 {
    input.life.start(At::ZERO);
    connection(input)
}

/// Puts a fact where the driver takes it from.
pub(in crate::driver) fn tell(input: &Input, connection: u32, fact: IngestFact) {
    input.sender.try_send((connection, fact)).unwrap();
}

/// Takes in facts in the moment in which the last of them came.
fn hear(
    input: &mut Input,
    observer: &Observer,
    connection: u32,
    ms: u64,
    facts: impl IntoIterator<Item = IngestFact>,
) {
    for fact in facts {
        input
            .handle(At::from_millis(ms), connection, fact, observer)
            .unwrap();
    }
}

/// Exit code and words.
fn told(result: Result<(), WorkerError>) -> Option<(u8, String)> {
    result
        .err()
        .map(|error| (error.exit_code(), error.to_string()))
}

fn no() -> String {
    "no".to_owned()
}

fn installation() -> IngestError {
    IngestError::Installation {
        media: "audio".to_owned(),
        encoding: "MPEG4-GENERIC".to_owned(),
        error: MediaError::MissingElements(vec!["aacparse".to_owned()]),
    }
}

#[test]
fn each_end_of_the_input_has_its_exit_code_and_its_words() {
    let refused = || InputEnd::Refused { reason: no() };
    let lost = InputEnd::Lost {
        reason: no(),
        attempts: 4,
    };
    let place = "input rtsp://***@127.0.0.1:1/cam: no";
    for (end, error, expected) in [
        (InputEnd::Stopped, None, None),
        (InputEnd::Over, None, None),
        (
            lost,
            Some(IngestError::Broken(no())),
            Some((10, "gave up after 4 attempts")),
        ),
        (
            refused(),
            Some(IngestError::Unsuitable(no())),
            Some((11, place)),
        ),
        (refused(), None, Some((11, place))),
        (
            refused(),
            Some(IngestError::Denied(no())),
            Some((10, place)),
        ),
        (refused(), Some(installation()), Some((1, "aacparse"))),
    ] {
        let (mut input, observer) = input();
        let what = format!("{end:?}, {error:?}");
        input.error = error;
        let told = told(input.ended(end, &observer));
        let code = told.as_ref().map(|(code, _)| *code);
        assert_eq!(code, expected.map(|(code, _)| code), "{what}");
        if let (Some((_, said)), Some((_, words))) = (told, expected) {
            assert!(
                said.contains(words) && !said.contains("geheim"),
                "{what}: {said}"
            );
        }
    }
}

/// Opens no connection: the order is taken away.
fn connection(input: &mut Input) -> u32 {
    while let Some(order) = input.life.poll() {
        if let InputOrder::Connect { connection } = order {
            return connection;
        }
    }
    panic!("no connection is ordered");
}

/// A stream that was there and then ends so, however often it is tried: how often, and its exit code.
fn tried(error: &IngestError) -> (u32, Option<u8>) {
    let (mut input, observer) = input();
    input.life.start(At::ZERO);
    let first = connection(&mut input);
    input.life.connected(At::ZERO);
    input.life.unit(At::ZERO, Track::Video);
    input.life.placed();
    let ended = IngestFact::Ended { reason: no() };
    input.handle(At::ZERO, first, ended, &observer).unwrap();
    for attempts in 1.. {
        let at = input.poll_timeout().expect("another attempt");
        input.life.wake(at);
        let next = connection(&mut input);
        let stale = IngestFact::Failed {
            error: IngestError::Unsuitable(no()),
        };
        input
            .handle(at, first, stale, &observer)
            .expect("last words of the first");
        let error = error.clone();
        let result = input.handle(at, next, IngestFact::Failed { error }, &observer);
        if input.has_ended() {
            return (attempts, told(result).map(|(code, _)| code));
        }
        result.unwrap();
    }
    unreachable!()
}

#[test]
fn each_failure_is_tried_again_or_not_and_ends_with_its_exit_code() {
    for (error, expected) in [
        // Its publisher has ended the stream.
        (IngestError::NotFound(no()), (3, None)),
        (IngestError::Broken(no()), (3, Some(10))),
        (IngestError::Overrun { dropped: 7 }, (3, Some(10))),
        (IngestError::Denied(no()), (1, Some(10))),
        (IngestError::Unsuitable(no()), (1, Some(11))),
        (installation(), (1, Some(1))),
    ] {
        assert_eq!(tried(&error), expected, "{error:?}");
    }
}

/// What came before is still cut and published.
#[test]
fn another_audio_format_on_the_way_ends_the_input_with_both_in_its_words() {
    dub_media::init().unwrap();
    for (rate, channels) in [(24_000, 2), (48_000, 1)] {
        let (mut input, observer) = input();
        input.life.start(At::ZERO);
        let connection = connection(&mut input);
        let mut tell = |rate, channels| {
            let (format, bundled) = (AacFormat::lc(rate, channels), None);
            let fact = IngestFact::AudioFormat { format, bundled };
            told(input.handle(At::ZERO, connection, fact, &observer))
        };
        assert_eq!(tell(48_000, 2), None);
        assert_eq!(tell(48_000, 2), None);
        let (code, said) = tell(rate, channels).expect("refused");
        let words = format!("48000 Hz, 2 channels to {rate} Hz, {channels} channels");
        assert!(code == 10 && said.contains(&words), "{said}");
        assert!(input.has_ended());
    }
}

#[test]
fn what_waits_for_a_report_goes_out_at_a_stop() {
    let (mut input, observer) = input();
    let connection = start(&mut input);
    let facts = media(&input, 0..3_000);
    let came = units(&facts);
    hear(&mut input, &observer, connection, 3_000, facts);
    assert_eq!(cut(&mut input), (0, 0), "nothing has its place yet");
    input.stop(At::from_millis(3_000), &observer);
    assert_eq!(cut(&mut input), came);
}

/// Whatever comes goes out or is counted, by its reason.
#[test]
fn what_came_and_does_not_go_out_is_counted() {
    let mut missing = 0;
    let counted = Counted::during(|| {
        let (mut input, observer) = input();
        let connection = start(&mut input);
        // The output cannot begin with these, nor with the sound beside them.
        let before = (0..200).step_by(40);
        let mut facts: Vec<_> = before
            .map(|at| picture(&input, at, Picture::Predicted))
            .collect();
        facts.extend(sound(&input, 0..200).into_iter().map(|(_, fact)| fact));
        // Nor can pictures be shown that refer to what came before.
        facts.push(picture(&input, 200, Picture::Key));
        for at in [120, 160] {
            facts.push(picture(&input, at, Picture::Bidirectional));
        }
        facts.extend(media(&input, 1_200..3_000));
        let came = units(&facts);
        hear(&mut input, &observer, connection, 3_000, facts);
        let error = IngestError::Overrun { dropped: 7 };
        let overrun = IngestFact::Failed { error };
        hear(&mut input, &observer, connection, 3_000, [overrun]);
        assert!(input.segmenter.dropped().video > 0, "the leading pictures");
        input.check(&observer);
        input.check(&observer);
        let went = cut(&mut input);
        missing = came.0 - went.0 + came.1 - went.1;
    });
    let dropped = |reason| counted.of("worker_media_dropped_total", reason);
    assert!(missing > 7 + 5, "{missing}");
    assert_eq!(dropped("before_keyframe"), missing as u64);
    assert_eq!(dropped("overrun"), 7);
}

/// The frame before a segment is only put in front of it where the one follows the other.
#[test]
fn the_first_segment_of_a_connection_follows_nothing() {
    let (mut input, observer) = input_with(&["--segment-duration=2s"]);
    let follows = |input: &mut Input| -> Vec<_> {
        let segments = std::iter::from_fn(|| input.poll_segment());
        segments.map(|(it, follows)| (it.batch, follows)).collect()
    };
    let first = start(&mut input);
    hear(&mut input, &observer, first, 0, [IngestFact::Connected]);
    let facts = media(&input, 0..5_000);
    hear(&mut input, &observer, first, 5_000, facts);
    assert_eq!(follows(&mut input), [(0, false), (1, true)]);
    let ended = IngestFact::Ended { reason: no() };
    hear(&mut input, &observer, first, 5_000, [ended]);
    assert_eq!(follows(&mut input), [(2, true)], "it was there before");
    input.life.wake(At::from_millis(9_000));
    let second = connection(&mut input);
    let connected = [IngestFact::Connected];
    hear(&mut input, &observer, second, 9_000, connected);
    let facts = media(&input, 9_000..14_000);
    hear(&mut input, &observer, second, 14_000, facts);
    assert_eq!(follows(&mut input), [(3, false), (4, true)]);
}

#[test]
fn the_input_is_set_up_as_the_options_say() {
    let options = [
        "--segment-duration=4s",
        "--segment-cut=pause",
        "--segment-min=2s",
        "--segment-max=9s",
        "--av-offset=3s",
        "--rtsp-latency-ms=333",
    ];
    let config_of = config;
    let config = config_of(&options);
    let seconds = Duration::from_secs;
    let cut = SegmentCut::Pause {
        min: seconds(2),
        max: seconds(9),
    };
    let expected = SegmenterConfig {
        duration: seconds(4),
        cut,
        min_remainder: seconds(1),
        max_wait: seconds(20),
    };
    assert_eq!(segmenter_config(&config), expected);
    let (frame, bundled) = (Duration::from_millis(23), Some(Duration::from_millis(20)));
    let expected = TimelineConfig {
        report_wait: Duration::from_millis(3_600),
        patience: seconds(3),
        frame,
        bundled,
    };
    assert_eq!(timeline_config(&config, frame, bundled), expected);
    let (url, latency, listen) = source(&config);
    assert_eq!(url.secret(), "rtsp://u:geheim@127.0.0.1:1/cam");
    assert_eq!((latency, listen), (Duration::from_millis(333), true));
    // Where nobody asks for pauses nobody listens; some patience there always is.
    let config = config_of(&["--segment-duration=9s", "--av-offset=0s"]);
    assert!(!source(&config).2);
    let timeline = timeline_config(&config, frame, None);
    assert_eq!(timeline.report_wait, Duration::from_millis(5_500));
    assert_eq!(timeline.patience, seconds(1));
}
