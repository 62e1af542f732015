//! Against python-socketio, which is what production services are written with.
//!
//! `E2E_PYTHON` names a Python that has the packages; unset: the one that `cargo xtask setup` makes.
//! Without either, the tests say so on standard error and pass, but not in CI.

mod support;

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use dub_engine::{Outcome, ProtocolErrorKind, SessionFact};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sts_client::{Secret, StsClientConfig};
use support::{PATIENCE, STREAM, WORKER, Worker, config, fragment};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

const AT_ONCE: Duration = Duration::from_millis(800);

/// Python with the packages, or nothing, and then this is said.
fn interpreter() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../python/bin/python3");
    let found = set("E2E_PYTHON")
        .map(PathBuf::from)
        .or_else(|| made.is_file().then_some(made));
    if found.is_none() {
        let text = "SKIPPED: python-socketio is not installed, `cargo xtask setup` installs it\n";
        assert!(set("CI").is_none(), "in CI nothing is skipped: {text}");
        // Not `eprintln!`: a test's output is only shown when it fails.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
    found
}

/// A running service. Killed when dropped.
struct Service {
    child: Child,
    orders: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
    url: String,
}

impl Service {
    /// Starts one, if there is a Python for it.
    async fn start(ping: (&str, &str)) -> Option<Self> {
        Self::start_as(ping, &[]).await
    }

    async fn start_as(ping: (&str, &str), options: &[&str]) -> Option<Self> {
        let interpreter = interpreter()?;
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/python_sts_server.py");
        let mut child = Command::new(interpreter)
            .arg(script)
            .args([ping.0, ping.1])
            .args(options)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python3");
        let orders = child.stdin.take().expect("stdin");
        let said = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let mut service = Self {
            child,
            orders,
            said,
            url: String::new(),
        };
        let ready = service.says().await;
        let port = ready.strip_prefix("listening ").expect("a port");
        service.url = format!("http://127.0.0.1:{port}");
        Some(service)
    }

    async fn says(&mut self) -> String {
        let line = timeout(PATIENCE, self.said.next_line())
            .await
            .expect("in time");
        line.expect("readable").expect("the service is still there")
    }

    async fn order(&mut self, order: &str) {
        self.orders
            .write_all(format!("{order}\n").as_bytes())
            .await
            .expect("an order");
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.id().expect("running");
        kill(Pid::from_raw(i32::try_from(id).expect("a pid")), signal).expect("signal");
    }
}

fn patient(url: &str) -> StsClientConfig {
    StsClientConfig {
        connect_timeout: PATIENCE,
        max_silence: Duration::from_secs(45),
        stuck_timeout: Duration::from_secs(20),
        ..config(url)
    }
}

/// Init, then ten fragments there and back.
async fn ten_fragments(worker: &mut Worker, service: &mut Service, link: u32) {
    worker.connected(link).await;
    assert_eq!(service.says().await, format!("connect {STREAM} {WORKER}"));
    worker.client.init(link);
    assert_eq!(service.says().await, "init es");
    let ready = worker.kind(link).await;
    assert!(
        matches!(
            ready,
            SessionFact::Ready {
                link: _,
                max_inflight: Some(3),
                ..
            }
        ),
        "{ready:?}"
    );
    for n in 0..10 {
        // About what six seconds of AAC take.
        let sent = fragment(n, 100_000);
        worker.client.send(link, sent.clone());
        let ack = worker.kind(link).await;
        assert!(
            matches!(&ack, SessionFact::Acked { link: _, id, .. } if *id == sent.id),
            "{ack:?}"
        );
        match worker.kind(link).await {
            SessionFact::Processed {
                link: _,
                id,
                sequence,
                outcome: Outcome::Audio,
            } => {
                let audio = worker.audio.take().expect("audio").expect("good audio");
                assert_eq!((id.as_str(), sequence), (sent.id.as_str(), Some(n)));
                assert_eq!(audio.bytes, sent.m4a);
            }
            other => panic!("{other:?}"),
        }
        worker.client.applied(link, sent.id.as_str());
        assert_eq!(service.says().await, format!("applied {}", sent.id));
    }
}

#[tokio::test]
async fn two_sessions_of_ten_fragments() {
    let Some(mut service) = Service::start(("25", "20")).await else {
        return;
    };
    let mut worker = Worker::connect(patient(&service.url));
    ten_fragments(&mut worker, &mut service, 1).await;
    service.order("drop").await;
    worker
        .ended(1)
        .await
        .within(AT_ONCE, "the service ended the session");
    assert_eq!(service.says().await, "disconnect");
    // A new session starts at sequence number 0 again.
    worker.client.connect(2);
    ten_fragments(&mut worker, &mut service, 2).await;
    worker.client.end(2, "input ended");
    let complete = worker.kind(2).await;
    assert!(
        matches!(complete, SessionFact::StreamComplete { .. }),
        "{complete:?}"
    );
    worker.client.disconnect(2);
    worker
        .ended(2)
        .await
        .within(AT_ONCE, "closed by the worker");
    assert_eq!(service.says().await, "disconnect");
}

#[tokio::test]
async fn a_bad_token_is_refused() {
    let Some(service) = Service::start(("25", "20")).await else {
        return;
    };
    let token = Some(Secret::new("bad"));
    let mut worker = Worker::connect(StsClientConfig {
        token,
        ..patient(&service.url)
    });
    match worker.kind(1).await {
        SessionFact::ConnectFailed {
            link: _,
            fatal: Some(refused),
            ..
        } => {
            assert_eq!(refused.code, "AUTH_FAILED");
            assert!(refused.message.contains("token"), "{refused:?}");
        }
        other => panic!("{other:?}"),
    }
}

/// Connected and ready.
async fn session(service: &Service) -> Worker {
    let mut worker = Worker::connect(patient(&service.url));
    worker.connected(1).await;
    worker.client.init(1);
    assert!(matches!(worker.kind(1).await, SessionFact::Ready { .. }));
    worker
}

#[tokio::test]
async fn return_false_is_no_final_no() {
    let Some(service) = Service::start_as(("25", "20"), &["refuse"]).await else {
        return;
    };
    let mut worker = Worker::connect(patient(&service.url));
    let refused = worker.kind(1).await;
    assert!(
        matches!(&refused, SessionFact::ConnectFailed { reason, fatal: None, .. } if reason.contains("refused")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn an_error_emitted_before_return_false_is_its_reason() {
    let Some(service) = Service::start_as(("25", "20"), &["early"]).await else {
        return;
    };
    let mut worker = Worker::connect(patient(&service.url));
    let refused = worker.kind(1).await;
    assert!(
        matches!(&refused, SessionFact::ConnectFailed { fatal: Some(fatal), .. }
            if fatal.code == "AUTH_FAILED" && fatal.message == "no licence"),
        "{refused:?}"
    );
}

/// One odd number used to cost the link; one in every answer, all dubs.
#[tokio::test]
async fn nan_and_half_a_character_in_every_answer_cost_nothing() {
    let Some(service) = Service::start_as(("25", "20"), &["odd"]).await else {
        return;
    };
    let mut worker = session(&service).await;
    for n in 0..5 {
        let sent = fragment(n, 10_000);
        worker.client.send(1, sent.clone());
        assert!(matches!(worker.kind(1).await, SessionFact::Acked { .. }));
        let odd = worker.kind(1).await;
        assert!(
            matches!(
                odd,
                SessionFact::Malformed {
                    kind: ProtocolErrorKind::BadJson,
                    count: 1,
                    ..
                }
            ),
            "{odd:?}"
        );
        let answer = worker.kind(1).await;
        assert!(
            matches!(answer, SessionFact::Processed { .. }),
            "{answer:?}"
        );
        let audio = worker.audio.take().expect("audio").expect("good audio");
        assert_eq!(audio.bytes, sent.m4a);
        assert!(audio.transcript.starts_with("good "), "{audio:?}");
    }
}

#[tokio::test]
async fn bytes_are_audio() {
    let Some(service) = Service::start_as(("25", "20"), &["bytes"]).await else {
        return;
    };
    let mut worker = session(&service).await;
    for n in 0..3 {
        let sent = fragment(n, 100_000);
        worker.client.send(1, sent.clone());
        assert!(matches!(worker.kind(1).await, SessionFact::Acked { .. }));
        assert!(matches!(
            worker.kind(1).await,
            SessionFact::Processed { .. }
        ));
        let audio = worker.audio.take().expect("audio").expect("good audio");
        assert_eq!(audio.bytes, sent.m4a);
    }
}

/// python-engineio takes 1 MB, or what it is told, and drops a peer that sends more, without a word.
#[tokio::test]
async fn its_message_limit_is_named() {
    for (options, audio) in [(&[][..], 900_000), (&["limit=20000"], 20_000)] {
        let Some(service) = Service::start_as(("25", "20"), options).await else {
            return;
        };
        let mut worker = session(&service).await;
        worker.client.send(1, fragment(0, audio));
        let ended = worker.ended(1).await.within(
            Duration::from_secs(2),
            "its message size limit may be lower",
        );
        assert!(
            matches!(ended.before[..], [SessionFact::MessageCut { bytes, .. }] if bytes > audio),
            "{ended:?}"
        );
    }
}

/// Models that compute in the event loop stop it, pings and all.
#[tokio::test]
async fn a_loop_that_stands_still_for_15_s_keeps_its_link() {
    let Some(mut service) = Service::start(("25", "20")).await else {
        return;
    };
    let mut worker = session(&service).await;
    service.order("block 15").await;
    while service.says().await != "blocked" {}
    // More than the socket's buffers take.
    let sent = fragment(0, 500_000);
    worker.client.send(1, sent.clone());
    worker.silent(Duration::from_secs(14)).await;
    assert!(matches!(worker.kind(1).await, SessionFact::Acked { .. }));
    assert!(matches!(
        worker.kind(1).await,
        SessionFact::Processed { .. }
    ));
    assert_eq!(
        worker.audio.take().expect("audio").expect("good").bytes,
        sent.m4a
    );
}

/// What it says of itself counts: the usual silence that means death is 35 s.
#[tokio::test]
async fn a_ping_interval_of_60_s_is_respected() {
    let Some(service) = Service::start(("60", "20")).await else {
        return;
    };
    let mut worker = Worker::connect(StsClientConfig {
        max_silence: Duration::from_mins(5),
        ..patient(&service.url)
    });
    worker.connected(1).await;
    worker.silent(Duration::from_secs(37)).await;
    worker.client.init(1);
    assert!(matches!(worker.kind(1).await, SessionFact::Ready { .. }));
}

#[tokio::test]
async fn it_is_terminated() {
    let Some(service) = Service::start(("25", "20")).await else {
        return;
    };
    let mut worker = Worker::connect(patient(&service.url));
    worker.connected(1).await;
    service.signal(Signal::SIGTERM);
    worker
        .ended(1)
        .await
        .within(Duration::from_secs(2), "the service");
}

#[tokio::test]
async fn it_is_killed() {
    let Some(service) = Service::start(("25", "20")).await else {
        return;
    };
    let mut worker = Worker::connect(patient(&service.url));
    worker.connected(1).await;
    service.signal(Signal::SIGKILL);
    worker.ended(1).await.within(AT_ONCE, "connection");
}

#[tokio::test]
async fn it_is_stopped_and_its_pings_with_it() {
    let Some(service) = Service::start(("1", "0.5")).await else {
        return;
    };
    let mut worker = Worker::connect(StsClientConfig {
        max_silence: Duration::from_millis(1_500),
        ..patient(&service.url)
    });
    worker.connected(1).await;
    // python-engineio announces whole seconds only. Idle for longer than the bound: its pings keep the link.
    worker.silent(Duration::from_millis(2_500)).await;
    service.signal(Signal::SIGSTOP);
    let ended = worker.ended(1).await;
    service.signal(Signal::SIGCONT);
    ended.within(
        Duration::from_millis(1_500 + 300) + AT_ONCE,
        "nothing heard for",
    );
}
