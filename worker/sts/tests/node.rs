//! Against socket.io on Node, which other production services are written with.
//!
//! `npm` installs it into `target/node` once. Without Node or npm the tests say so on standard error
//! and pass, but not in CI.

mod support;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use dub_engine::{Outcome, SessionFact};
use support::{PATIENCE, Worker, fragment, patient};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;
use tokio::time::timeout;

const PACKAGE: &str = "socket.io@4.8.1";

/// Where socket.io is, or nothing, and then this is said.
async fn modules() -> Option<&'static PathBuf> {
    static MODULES: OnceCell<Option<PathBuf>> = OnceCell::const_new();
    MODULES.get_or_init(install).await.as_ref()
}

async fn install() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../node");
    let modules = dir.join("node_modules");
    if !modules.join("socket.io").is_dir() {
        let _ = std::fs::create_dir_all(&dir);
        let npm = Command::new("npm")
            .args([
                "install",
                "--silent",
                "--no-audit",
                "--no-fund",
                "--prefix",
                ".",
                PACKAGE,
            ])
            .current_dir(&dir)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .status();
        let _ = timeout(Duration::from_mins(2), npm).await;
    }
    let there = modules.join("socket.io").is_dir();
    if !there {
        let text = format!("SKIPPED: no Node, or npm cannot install {PACKAGE}\n");
        assert!(
            std::env::var_os("CI").is_none(),
            "in CI nothing is skipped: {text}"
        );
        // Not `eprintln!`: a test's output is only shown when it fails.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
    there.then_some(modules)
}

/// A running service, killed when dropped, and its URL.
async fn service(options: &[&str]) -> Option<(Child, String)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/node_sts_server.js");
    let mut child = Command::new("node")
        .arg(script)
        .args(options)
        .env("NODE_PATH", modules().await?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("node");
    let mut said = BufReader::new(child.stdout.take().expect("stdout")).lines();
    let line = timeout(PATIENCE, said.next_line()).await.expect("in time");
    let line = line.expect("readable").expect("it is still there");
    let port = line.strip_prefix("listening ").expect("a port");
    Some((child, format!("http://127.0.0.1:{port}")))
}

#[tokio::test]
async fn buffers_are_audio() {
    let Some((_service, url)) = service(&["10000000"]).await else {
        return;
    };
    let mut worker = Worker::connect(patient(&url));
    worker.connected(1).await;
    worker.client.init(1);
    assert!(matches!(worker.kind(1).await, SessionFact::Ready { .. }));
    for n in 0..3 {
        let sent = fragment(n, 100_000);
        worker.client.send(1, sent.clone());
        assert!(matches!(worker.kind(1).await, SessionFact::Acked { .. }));
        let kind = worker.kind(1).await;
        assert!(
            matches!(&kind, SessionFact::Processed { id, outcome: Outcome::Audio, .. } if *id == sent.id),
            "{kind:?}"
        );
        let audio = worker.audio.take().expect("audio").expect("good audio");
        assert_eq!(audio.bytes, sent.m4a);
    }
}

#[tokio::test]
async fn its_message_limit_is_certain() {
    let Some((_service, url)) = service(&["20000"]).await else {
        return;
    };
    let mut worker = Worker::connect(patient(&url));
    worker.connected(1).await;
    worker.client.init(1);
    assert!(matches!(worker.kind(1).await, SessionFact::Ready { .. }));
    worker.client.send(1, fragment(0, 100_000));
    let ended = worker
        .ended(1)
        .await
        .within(Duration::from_secs(2), "message size limit");
    assert!(
        matches!(
            ended.before[..],
            [SessionFact::MessageCut {
                bytes: 133_000..134_500,
                ..
            }]
        ),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_middleware_that_lets_nobody_in_is_no_final_no() {
    let Some((_service, url)) = service(&["20000", "refuse"]).await else {
        return;
    };
    let mut worker = Worker::connect(patient(&url));
    match worker.kind(1).await {
        SessionFact::ConnectFailed {
            reason,
            fatal: None,
            ..
        } => assert!(reason.contains("not today"), "{reason}"),
        other => panic!("{other:?}"),
    }
}
