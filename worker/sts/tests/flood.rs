//! A binary of its own: it measures the memory of the whole process.

mod support;

use std::time::Duration;

use dub_engine::{Input, ProtocolErrorKind};
use serde_json::json;
use sts_client::StsClientConfig;
use support::{Peer, Worker, config, listen};
use tokio::time::sleep;

#[tokio::test]
async fn a_flood_nobody_reads_stays_small_and_is_counted() {
    let (listener, url) = listen().await;
    let patient = StsClientConfig {
        max_silence: Duration::from_secs(35),
        ..config(&url)
    };
    let mut worker = Worker::connect(patient);
    let mut peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    let before = rss_mb();
    // 3000 events of 32 KB, 96 MB in all, while the driver reads nothing.
    let event = json!({ "action": "none", "padding": "x".repeat(32 << 10) });
    for _ in 0..3_000 {
        peer.event("backpressure", &event).await;
    }
    sleep(Duration::from_millis(300)).await;
    let grown = rss_mb().saturating_sub(before);
    assert!(grown < 80, "{grown} MB for events nobody reads");
    let (mut taken, mut dropped) = (0, 0);
    while taken + dropped < 3_000 {
        match worker.kind(1).await {
            Input::Backpressure { .. } => taken += 1,
            Input::Malformed {
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

fn rss_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("VmRSS");
    line.split_whitespace()
        .nth(1)
        .and_then(|kb| kb.parse::<u64>().ok())
        .expect("kB")
        / 1024
}
