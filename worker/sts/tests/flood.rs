//! A binary of its own: it measures the memory of the whole process, one test after the other.

mod support;

use std::time::Duration;

use dub_engine::{ProtocolErrorKind, SessionFact};
use serde_json::json;
use support::{Peer, Worker, listen, patient};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Mutex;
use tokio::time::sleep;

/// Held by the test that measures.
static MEMORY: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn a_flood_nobody_reads_stays_small_and_is_counted() {
    let _memory = MEMORY.lock().await;
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(patient(&url));
    let mut peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    let before = memory_mb("VmRSS:");
    // 3000 events of 32 KB, 96 MB in all, while the driver reads nothing.
    let event = json!({ "action": "none", "padding": "x".repeat(32 << 10) });
    for _ in 0..3_000 {
        peer.event("backpressure", &event).await;
    }
    sleep(Duration::from_millis(300)).await;
    let grown = memory_mb("VmRSS:").saturating_sub(before);
    assert!(grown < 80, "{grown} MB for events nobody reads");
    let (mut taken, mut dropped) = (0, 0);
    while taken + dropped < 3_000 {
        match worker.kind(1).await {
            SessionFact::Backpressure { .. } => taken += 1,
            SessionFact::Malformed {
                link: _,
                kind: ProtocolErrorKind::Flood,
                count,
                ..
            } => dropped += count,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(taken + dropped, 3_000);
    assert!(
        dropped > 1_000 && taken > 100,
        "{taken} taken, {dropped} dropped"
    );
    worker.client.init(1);
    assert_eq!(peer.received().await.0, "stream:init");
}

/// What a tree of the event would cost is 2.8 GB.
#[tokio::test]
async fn an_event_of_15_mib_of_tiny_objects_costs_less_than_100_mb() {
    const SIZE: usize = 15 << 20;
    const OBJECT: &[u8] = b"{\"\":0},";
    let _memory = MEMORY.lock().await;
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(patient(&url));
    let mut peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    for wrap in [
        (
            "42[\"backpressure\",{\"action\":\"none\",\"junk\":[",
            "0]}]",
        ),
        (
            "42[\"error\",{\"code\":\"X\",\"metadata\":{\"all\":[",
            "0]}}]",
        ),
        ("42[\"nobody:knows\",[", "0]]"),
    ] {
        // The highest so far is forgotten.
        std::fs::write("/proc/self/clear_refs", "5").expect("Linux");
        let before = memory_mb("VmRSS:");
        let objects = (SIZE - wrap.0.len() - wrap.1.len()) / OBJECT.len();
        let len = wrap.0.len() + objects * OBJECT.len() + wrap.1.len();
        // In pieces, so that this end costs nothing.
        let wire = peer.socket.get_mut();
        let mut head = vec![0x81, 127];
        head.extend((len as u64).to_be_bytes());
        head.extend(wrap.0.as_bytes());
        wire.write_all(&head).await.expect("head");
        let piece = OBJECT.repeat(1_000);
        for at in (0..objects).step_by(1_000) {
            let objects = (objects - at).min(1_000);
            wire.write_all(&piece[..objects * OBJECT.len()])
                .await
                .expect("objects");
        }
        wire.write_all(wrap.1.as_bytes()).await.expect("tail");
        let fact = worker.kind(1).await;
        assert!(
            matches!(
                fact,
                SessionFact::Backpressure { .. }
                    | SessionFact::StsError { .. }
                    | SessionFact::Malformed { .. }
            ),
            "{fact:?}"
        );
        let most = memory_mb("VmHWM:").saturating_sub(before);
        println!("{}: {most} MB", wrap.0);
        assert!(most < 100, "{most} MB for {}", wrap.0);
    }
    worker.client.init(1);
    assert_eq!(peer.received().await.0, "stream:init");
}

fn memory_mb(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find(|line| line.starts_with(field));
    let kb = line.expect("the field").split_whitespace().nth(1);
    kb.and_then(|kb| kb.parse::<u64>().ok()).expect("kB") / 1024
}
