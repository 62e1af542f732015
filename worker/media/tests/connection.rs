//! How connections end, against a camera: each text of `rtspsrc` that is told apart is provoked on the
//! installed version.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what it expects by unwrapping it"
)]

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use camera::{Camera, Clip, Manner};
use dub_media::MediaUrl;
use dub_media::ingest::{CHANNEL_CAPACITY, Ingest, IngestError, IngestFact};
use tokio::sync::mpsc::{self, Receiver, error::TryRecvError};

const PATIENCE: Duration = Duration::from_secs(10);
/// A worker asks every two seconds; one that asks as often as this meets every moment of an end.
const OFTEN: Duration = Duration::from_millis(10);

fn camera(manner: &str) -> Camera {
    let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/clock-60s.mp4");
    let manner = serde_json::from_str::<Manner>(manner).unwrap();
    Camera::start(
        "127.0.0.1:0".parse().unwrap(),
        Clip::open(&clip, manner.audio_codec).unwrap(),
        manner,
        Arc::new(|_| ()),
    )
    .unwrap()
}

/// A connection under way and what it has told.
struct Connection {
    ingest: Ingest,
    facts: Receiver<(u32, IngestFact)>,
    warnings: Vec<String>,
}

impl Connection {
    fn to(url: &str) -> Self {
        dub_media::init().unwrap();
        let (sender, facts) = mpsc::channel(CHANNEL_CAPACITY);
        let (url, latency) = (MediaUrl::new(url), Duration::from_millis(200));
        Self {
            ingest: Ingest::start(&url, latency, false, 1, sender).unwrap(),
            facts,
            warnings: Vec::new(),
        }
    }

    /// Waits for the end. Asks to be kept alive from the first media on, and for a while behind the end.
    fn end(&mut self) -> IngestFact {
        let (mut until, mut end) = (Instant::now() + PATIENCE, None);
        let mut asked = None::<Instant>;
        while Instant::now() < until {
            match self.facts.try_recv() {
                Ok((_, IngestFact::Warning { text })) => self.warnings.push(text),
                Ok((_, fact @ (IngestFact::Ended { .. } | IngestFact::Failed { .. }))) => {
                    end.get_or_insert(fact);
                    until = Instant::now() + Duration::from_millis(300);
                }
                Ok((_, IngestFact::Video { .. })) => {
                    asked.get_or_insert_with(Instant::now);
                }
                Ok(_) => {}
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => {
                    if asked.is_some_and(|at| at.elapsed() > OFTEN) {
                        asked = Some(Instant::now());
                        self.ingest.keep_alive();
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
        end.expect("the connection never ended")
    }

    fn error(url: &str) -> IngestError {
        match Self::to(url).end() {
            IngestFact::Failed { error } => error,
            other => panic!("{other:?}"),
        }
    }
}

fn url(camera: &Camera) -> String {
    format!("rtsp://{}/live/x/in", camera.address())
}

#[test]
fn a_camera_that_closes_is_no_trouble_whatever_was_being_asked() {
    let close = |manner: &str| {
        let camera = camera(manner);
        let mut connection = Connection::to(&url(&camera));
        let end = connection.end();
        let asked = camera.sent().requests.get("GET_PARAMETER").copied();
        (end, connection.warnings, asked.unwrap_or_default())
    };
    // Whether the request or the end is first is a matter of luck, so several.
    let ends = std::thread::scope(|scope| {
        let all = [
            r#"{"end_at": 1}"#,
            r#"{"end_at": 1, "end": "close"}"#,
            r#"{"faults": [{"at": 1, "how": "reset"}]}"#,
        ];
        let all: Vec<_> = all
            .repeat(8)
            .into_iter()
            .map(|manner| scope.spawn(move || close(manner)))
            .collect();
        all.into_iter()
            .map(|it| it.join().unwrap())
            .collect::<Vec<_>>()
    });
    let asked: u64 = ends.iter().map(|(_, _, asked)| asked).sum();
    assert!(asked as usize > 2 * ends.len(), "{asked} times");
    for (end, warnings, _) in ends {
        let broken = |error: &IngestError| matches!(error, IngestError::Broken(_));
        assert!(
            matches!(&end, IngestFact::Ended { .. })
                || matches!(&end, IngestFact::Failed { error } if broken(error)),
            "{end:?}"
        );
        assert_eq!(warnings, Vec::<String>::new());
    }
}

#[test]
fn a_camera_that_closes_before_any_media_is_not_waited_for() {
    let camera = camera(
        r#"{"video": {"from": 99}, "audio": {"from": 99}, "reports": {"kind": "absent"},
            "faults": [{"at": 0.2, "how": "close"}]}"#,
    );
    let mut connection = Connection::to(&url(&camera));
    let end = connection.end();
    assert!(matches!(&end, IngestFact::Ended { .. }), "{end:?}");
    assert_eq!(connection.warnings, Vec::<String>::new());
}

/// What came up to the ninetieth picture.
#[derive(Debug, Default)]
struct Heard {
    /// Times of the pictures.
    pictures: Vec<i64>,
    frames: usize,
    lost: u16,
    warnings: Vec<String>,
}

fn heard(manner: &str) -> Heard {
    let camera = camera(manner);
    // Who is not asked for a login does not mind one.
    let mut connection = Connection::to(&url(&camera).replace("//", "//someone:right@"));
    let mut heard = Heard::default();
    let until = Instant::now() + 3 * PATIENCE;
    while heard.pictures.len() < 90 {
        assert!(Instant::now() < until, "{manner}: {heard:?}");
        match connection.facts.try_recv() {
            Ok((_, IngestFact::Warning { text })) => heard.warnings.push(text),
            Ok((_, IngestFact::Video { time, .. })) => {
                heard.pictures.push(time.expect("a time of its own"));
            }
            Ok((_, IngestFact::Audio { .. })) => heard.frames += 1,
            Ok((_, IngestFact::Lost { packets, .. })) => heard.lost += packets,
            Ok((_, fact @ (IngestFact::Ended { .. } | IngestFact::Failed { .. }))) => {
                panic!("{manner}: {fact:?}")
            }
            Ok(_) => {}
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    heard
}

/// Each as some camera does it; all that was sent comes out, and nothing is said of it.
#[test]
fn what_cameras_leave_out_or_put_in_costs_nothing() {
    let without = |what: &str| format!(r#"{{"sdp": [{{"find": "{what}", "replace": ""}}]}}"#);
    // AAC without its mode, and without any description but its rate.
    let [bare, barer] = [" ?mode=AAC-hbr;", "a=fmtp:97.*\\n"].map(without);
    let with_32k = |manner: &str| manner.replacen('{', r#"{"audio_codec": "aac32k", "#, 1);
    let manners = [
        "{}",
        &bare,
        &barer,
        r#"{"audio": {"unmarked": true}}"#,
        // The same where it is not copied.
        r#"{"audio_codec": "aac32k"}"#,
        &with_32k(&bare),
        &with_32k(&barer),
        r#"{"audio_codec": "aac32k", "audio": {"unmarked": true}}"#,
        r#"{"audio": {"unmarked": true}, "frames_per_packet": 4}"#,
        r#"{"audio": {"byes": [1, 1.5]}}"#,
        r#"{"video": {"byes": [1]}, "audio": {"byes": [1.2]}}"#,
        r#"{"packets": {"private": 5}}"#,
        // Pictures in them are lost.
        r#"{"packets": {"interleaved": 50}}"#,
        r#"{"video": {"jumps": [{"at": 0.5, "sequence": 10000}, {"at": 1, "sequence": -1500}]}}"#,
        r#"{"video": {"jumps": [{"at": 0.5, "sequence": -9000}, {"at": 1, "sequence": 9000}]}}"#,
        r#"{"sets_in_band": true, "sets_early": true}"#,
        r#"{"session": {"describes_after": 6}}"#,
        r#"{"session": {"slow": 0.5}}"#,
        r#"{"session": {"no_base": true}}"#,
        r#"{"session": {"other_channels": true}}"#,
        r#"{"session": {"spaced": true}}"#,
        r#"{"session": {"login": {"user": "someone", "password": "right", "basic": true}}}"#,
        r#"{"session": {"login": {"user": "someone", "password": "right", "nonce_lasts": 2}}}"#,
        r#"{"faults": [{"at": 1, "how": "ask"}]}"#,
        r#"{"max_packet": 500}"#,
        r#"{"audio_codec": "g722"}"#,
        r#"{"audio_codec": "g726"}"#,
    ];
    std::thread::scope(|scope| {
        for manner in manners {
            scope.spawn(move || {
                let heard = heard(manner);
                let steps = heard.pictures.windows(2).map(|it| it[1] - it[0]);
                let steps: Vec<_> = steps.collect();
                let even = |step: &i64| (33_000_000..34_000_000).contains(step);
                // A gap costs the picture that it is in, and is counted.
                let gaps = manner.contains("interleaved");
                assert!(gaps || steps.iter().all(even), "{manner}: {steps:?}");
                assert_eq!(heard.lost > 0, gaps, "{manner}: {} lost", heard.lost);
                // Three seconds of them, give or take what is on its way.
                let frames = 110..170;
                assert!(frames.contains(&heard.frames), "{manner}: {heard:?}");
                assert_eq!(heard.warnings, Vec::<String>::new(), "{manner}");
            });
        }
    });
}

#[test]
fn refusals_are_told_apart() {
    let denied = camera(r#"{"session": {"login": {"user": "someone", "password": "right one"}}}"#);
    let error = Connection::error(&url(&denied));
    assert!(matches!(error, IngestError::Denied(_)), "{error:?}");

    let over = camera(r#"{"end_at": 0.2}"#);
    let _ = Connection::to(&url(&over)).end();
    let error = Connection::error(&url(&over));
    assert!(matches!(error, IngestError::NotFound(_)), "{error:?}");

    let refusal = r#"{"session": {"refusals": [{"method": "PLAY", "status": 454, "times": 9}]}}"#;
    let forgotten = camera(refusal);
    let error = Connection::error(&url(&forgotten));
    assert!(matches!(error, IngestError::NotFound(_)), "{error:?}");

    // Of nothing that it has is there anything to set up.
    let foreign = camera(
        r#"{"audio": {"off": true}, "sdp": [{"find": "H264/90000", "replace": "H265/90000"}]}"#,
    );
    let error = Connection::error(&url(&foreign));
    let words = "H.264 video track required, the input has H265";
    assert!(
        matches!(&error, IngestError::Unsuitable(said) if said == words),
        "{error:?}"
    );

    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let error = Connection::error(&format!("rtsp://{}/live/x/in", nobody.unwrap()));
    assert!(matches!(error, IngestError::Broken(_)), "{error:?}");
}
