//! One of everything the log can say: `docs/ref/messages.md` is made of these and compared with them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dub_engine::input::InputNews;
use dub_engine::timeline::{DropReason, Note};
use dub_engine::{
    AckStatus, BackpressureAction, BreakerState, DubFitHow, End, Event, FragmentId, LoudnessChange,
    OriginalReason, ProtocolErrorKind,
};
use dub_media::MediaUrl;
use dub_media::messages::Severity;
use dub_media::segment_files::FileFact;

use super::{Fact, Observer, Status, debug_output, hide, library_message, panicked, raw_output};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/ref/messages.md");

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) fn events() -> Vec<Event> {
    let fragment_id = FragmentId::parse("7f3c1f9e-4a57-4c11-9d2b-0a5f6f1c2d3e").unwrap();
    let (batch, sequence, link) = (7, 4, 1);
    let gone = || "closed by the server".to_owned();
    let breaker = |from, to| Event::Breaker { from, to };
    let refused = || ("AUTH_FAILED".to_owned(), "bad token".to_owned());
    let protocol = |first, count| Event::ProtocolError {
        kind: ProtocolErrorKind::Late,
        first,
        count,
        detail: "an answer to a settled fragment".to_owned(),
    };
    let drained = |end| Event::Drained { end };
    vec![
        Event::StsConnecting { link },
        Event::StsConnected { link },
        Event::StsReady {
            link,
            max_inflight: 3,
        },
        Event::StsConnectFailed {
            link,
            reason: "connection refused".to_owned(),
        },
        Event::StsDisconnected {
            link,
            reason: gone(),
            in_flight: 2,
        },
        Event::MessageLimit { bytes: 1_048_576 },
        Event::TooLarge {
            batch,
            bytes: 1_048_600,
        },
        Event::ReconnectScheduled {
            attempt: 1,
            delay: ms(2000),
        },
        Event::ReconnectAttempt {
            attempt: 1,
            success: true,
        },
        Event::ReconnectAttempt {
            attempt: 1,
            success: false,
        },
        Event::Reconnected {
            link,
            away: ms(2100),
        },
        Event::SessionLost { link },
        Event::StsGone {
            attempts: 5,
            stays: false,
        },
        Event::StsRefused {
            code: refused().0,
            message: refused().1,
        },
        Event::FragmentSent {
            batch,
            sequence,
            fragment_id,
            in_flight: 2,
        },
        Event::FragmentAcked {
            batch,
            sequence,
            fragment_id,
            status: AckStatus::Queued,
        },
        Event::FragmentProcessed {
            batch,
            sequence,
            fragment_id,
            rtt: ms(850),
        },
        Event::FragmentFailed {
            batch,
            sequence,
            fragment_id,
            code: "MODEL_ERROR".to_owned(),
            retryable: true,
            message: "out of memory".to_owned(),
        },
        Event::FragmentTimeout {
            batch,
            sequence,
            fragment_id,
            after: ms(8000),
        },
        Event::BadAudio {
            batch,
            fragment_id,
            reason: "no audio found".to_owned(),
        },
        Event::SegmentDubbed { batch },
        Event::SegmentOriginal {
            batch,
            reason: OriginalReason::FALLBACKS[0],
        },
        Event::Fallback {
            batch,
            reason: OriginalReason::FALLBACKS[0],
        },
        breaker(BreakerState::Closed, BreakerState::Open),
        breaker(BreakerState::Open, BreakerState::HalfOpen),
        Event::Backpressure {
            action: BackpressureAction::SlowDown,
            delay: Some(ms(500)),
            changed: true,
        },
        protocol(true, 1),
        protocol(false, 3),
        Event::StreamEnding { link },
        Event::StreamComplete {
            link,
            confirmed: true,
        },
        Event::StreamComplete {
            link,
            confirmed: false,
        },
        drained(End::Complete),
        drained(End::Gone),
        drained(End::Refused {
            code: refused().0,
            message: refused().1,
        }),
        Event::DubFitted {
            batch,
            how: DubFitHow::Stretched,
            speed_permille: 1250,
            spill: ms(0),
            cut: ms(0),
        },
        Event::dub_refused(batch),
        Event::DubLevelled {
            batch,
            change: LoudnessChange::Lowered,
            difference_tenths: 94,
            gain_tenths: -39,
        },
        Event::OutputStarted {
            batch,
            latency: ms(6900),
            head_room: ms(500),
        },
        Event::OutputNameTaken { delay: ms(1000) },
        Event::OutputLost {
            reason: "connection closed remotely".to_owned(),
        },
        Event::OutputReconnected {
            away: ms(3000),
            video: 90,
            audio: 140,
        },
        Event::Stall {
            batch,
            duration: ms(1200),
        },
        Event::CatchUpStarted {
            batch,
            excess: ms(1200),
        },
        Event::CatchUpDone {
            batch,
            latency: ms(6900),
        },
        Event::AvCorrection {
            batch,
            delta_ns: 12_000_000,
            slewed_ns: -12_000_000,
        },
        Event::AvGapFilled {
            batch,
            silence: ms(2000),
        },
        Event::AvOverThreshold {
            batch,
            delta_ns: 140_000_000,
        },
    ]
}

/// One of each fact told to `observer`; `told` hears of each once it is.
pub(super) fn facts(observer: &Observer, mut told: impl FnMut(String)) {
    driver_facts(observer, &mut told);
    anomalies(observer, &mut told);
}

fn anomalies(observer: &Observer, told: &mut dyn FnMut(String)) {
    let track = dub_engine::Track::Video;
    for note in [
        Note::Stepped {
            track,
            by: 120_000_000_000,
        },
        Note::Paced { track, by: 2_000 },
        Note::ClockSet {
            track,
            by: 3_600_000_000_000,
        },
        Note::ReportRefused { by: 5_000_000_000 },
        Note::ReportsByArrival { late: 85_333_333 },
        Note::Realigned { by: 64_000_000 },
        Note::AudioMissing { waited: ms(6000) },
        Note::AudioJoined { silence: ms(9000) },
    ] {
        observer.fact(&Fact::Anomaly { note });
        told(format!("{note:?}"));
    }
}

fn driver_facts(observer: &Observer, told: &mut dyn FnMut(String)) {
    let addr = "127.0.0.1:8000".parse().unwrap();
    let options = BTreeMap::from([("stream-id".to_owned(), "news".to_owned())]);
    let batch = 7;
    for fact in [
        Fact::Started {
            version: "1.2.3",
            commit: "0123456789ab",
            options: &options,
        },
        Fact::MetricsListening { addr },
        Fact::MetricsUnavailable {
            addr,
            error: "Address already in use (os error 98)",
        },
        Fact::LogLinesDropped { lines: 1200 },
        Fact::Input {
            news: &InputNews::Connected { connection: 1 },
        },
        Fact::InputAligned {
            by: "sender_reports",
            rate: 48000,
            channels: 2,
        },
        Fact::Input {
            news: &InputNews::Lost {
                reason: "the server closed the stream".to_owned(),
            },
        },
        Fact::Input {
            news: &InputNews::Retry {
                attempt: 1,
                delay: ms(1000),
                reason: "Not found: Not Found (404)".to_owned(),
            },
        },
        Fact::Input {
            news: &InputNews::NoKeyframe {
                pictures: 300,
                frames: 469,
            },
        },
        Fact::PacketsLost {
            track: dub_engine::Track::Video,
            packets: 3,
        },
        Fact::MediaDropped {
            track: dub_engine::Track::Audio,
            reason: DropReason::Late,
            units: 12,
        },
        Fact::MediaDropped {
            track: dub_engine::Track::Video,
            reason: DropReason::BeforeKeyframe,
            units: 25,
        },
        Fact::InputEnded {
            reason: "the publisher has ended the stream",
        },
        Fact::MediaWarning {
            text: "Delayed linking failed",
        },
        Fact::BusError {
            kind: "resource",
            text: "Connection error: connection closed remotely",
        },
        Fact::SegmentReady {
            batch,
            kind: "full",
            cut: "grid",
            duration: ms(6000),
            video: 180,
            audio: 281,
        },
        Fact::PairStarted {
            batch,
            delta: 1_200_000,
            latency: ms(6900),
            dubbed: true,
        },
        Fact::OriginalUndecodable {
            batch: Some(batch),
            reason: "no audio found",
        },
        Fact::CaptionsFailed {
            path: Path::new("/captions/news.vtt"),
            error: "No space left on device (os error 28)",
        },
        Fact::DubUnusable {
            batch: Some(batch),
            reason: "the answer is too long",
        },
        Fact::StopRequested { signal: "SIGTERM" },
        Fact::Behind {
            count: 2,
            late: ms(80),
            turn: ms(5),
        },
        Fact::OutputFinished { bytes: 7_340_032 },
        Fact::Failed {
            error: "output rtmp://cdn.example/live/***: cannot connect",
        },
        Fact::Exiting { code: 12 },
    ] {
        observer.fact(&fact);
        told(format!("{fact:?}"));
    }
    let reason =
        "/segments/news/000007_video.mp4: No space left on device (os error 28)".to_owned();
    for fact in [
        FileFact::Failed {
            batch,
            count: 3,
            reason,
            first: true,
        },
        FileFact::Back { missed: 12 },
        FileFact::DirBusy {
            dir: "/segments/news/run-1764087604-4711".to_owned(),
        },
    ] {
        observer.file(&fact);
        told(format!("{fact:?}"));
    }
}

/// What is logged meanwhile, as text.
fn logged(tell: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);
    impl Write for Sink {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(text);
            Ok(text.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    // While there is one subscriber only, a line that another test's thread says first is never said.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let sink = Sink::default();
    let writer = sink.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .finish();
    tracing::subscriber::with_default(subscriber, tell);
    String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
}

/// The log of one of everything, a line each.
fn log() -> Vec<String> {
    let text = logged(|| {
        let status = Status {
            stream_id: "news".into(),
            run_id: "1".into(),
            ..Status::default()
        };
        let observer = Observer::new(status, None);
        facts(&observer, drop);
        observer.summary();
        for event in events() {
            observer.event(&event);
        }
        library_message(Severity::Warning, "GLib-GIO", "something is odd");
        library_message(Severity::Detail, "GLib-GIO", "something happened");
        debug_output("rtspsrc", "state changed");
        raw_output("malloc(): invalid size");
        panicked("worker/src/x.rs:1:1", "index out of bounds");
    });
    text.lines().map(str::to_owned).collect()
}

#[test]
fn no_text_from_outside_shows_a_secret() {
    hide(vec![
        MediaUrl::new("rtsp://cam:geheim@10.0.0.1/live"),
        MediaUrl::output("rtmp://cdn/app/key-4711"),
    ]);
    let text = "rtsp://cam:geheim@10.0.0.1/live, geheim, rtmp://cdn/app/key-4711: failed";
    let log = logged(|| {
        library_message(Severity::Warning, "GLib", text);
        library_message(Severity::Detail, "GLib", text);
        debug_output("rtspsrc", text);
        raw_output(text);
        panicked("somewhere", text);
    });
    assert_eq!(log.matches("failed").count(), 5, "{log}");
    assert!(!log.contains("geheim") && !log.contains("4711"), "{log}");
}

/// `LEVEL message event="name" stream_id=… run_id=… fields` as a row of the table.
fn row(line: &str) -> String {
    let (level, rest) = line.trim().split_once(' ').unwrap();
    let (message, rest) = rest.trim().split_once(" event=\"").unwrap();
    let (name, fields) = rest.split_once('"').unwrap();
    let fields = fields.replace(" stream_id=\"news\" run_id=\"1\"", "");
    let fields = fields.trim();
    let example = if fields.is_empty() {
        String::new()
    } else {
        format!("`{fields}`")
    };
    format!(
        "| `{name}` | {} | {message} | {example} |",
        level.to_lowercase()
    )
}

/// Names of events as the sources have them.
fn names_in_code() -> BTreeSet<String> {
    let quoted = |text: &str| text.split('"').nth(1).map(str::to_owned);
    let engine = include_str!("../../engine/src/event.rs").lines();
    let engine = engine.filter(|line| line.contains("Self::") && line.contains("=> \""));
    let mut names: BTreeSet<_> = engine.filter_map(quoted).collect();
    for source in [
        include_str!("mod.rs"),
        include_str!("facts.rs"),
        include_str!("foreign.rs"),
        include_str!("input.rs"),
    ] {
        for level in ["info", "warn", "error", "debug"] {
            let pattern = format!("self, {level}, \"");
            names.extend(
                source
                    .split(&pattern)
                    .skip(1)
                    .filter_map(|rest| Some(rest.split('"').next()?.to_owned())),
            );
        }
        names.extend(
            source
                .split("event = \"")
                .skip(1)
                .filter_map(|rest| Some(rest.split('"').next()?.to_owned())),
        );
    }
    names
}

#[test]
fn every_message_is_documented_with_an_example() {
    let rows: Vec<_> = log().iter().map(|line| row(line)).collect();
    let sampled: BTreeSet<_> = rows
        .iter()
        .map(|row| row.split('`').nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(
        sampled,
        names_in_code(),
        "one sample of every event belongs into samples.rs"
    );
    let document = std::fs::read_to_string(DOCUMENT).unwrap();
    let head = "| event | level | message | example of its fields |\n|---|---|---|---|\n";
    let at = document.find(head).expect("the table's head") + head.len();
    let wanted = document[..at].to_owned() + &rows.join("\n") + "\n";
    if document != wanted && std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(DOCUMENT, &wanted).unwrap();
        return;
    }
    assert_eq!(
        document, wanted,
        "run this test with UPDATE_DOCS=1 and look at the difference"
    );
}
