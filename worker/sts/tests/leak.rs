//! A binary of its own: it counts what the whole process holds.

mod support;

use std::time::{Duration, Instant};

use dub_engine::SessionFact;
use sts_client::StsClientConfig;
use support::{Peer, Worker, config, listen};
use tokio::time::sleep;

const ROUNDS: u32 = 500;

#[derive(Debug, Clone, Copy)]
struct Usage {
    threads: usize,
    tasks: usize,
    descriptors: usize,
    rss_kb: usize,
}

fn usage() -> Usage {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let field = |name: &str| {
        let line = status
            .lines()
            .find(|line| line.starts_with(name))
            .expect("field");
        line.split_whitespace()
            .nth(1)
            .and_then(|n| n.parse().ok())
            .expect("a number")
    };
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("fd").count();
    Usage {
        threads: field("Threads:"),
        tasks: tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks(),
        descriptors,
        rss_kb: field("VmRSS:"),
    }
}

/// Waits until threads that are on their way out are gone.
async fn settled(limit: Usage) -> Usage {
    let start = Instant::now();
    loop {
        let now = usage();
        let calm = now.threads <= limit.threads
            && now.tasks <= limit.tasks
            && now.descriptors <= limit.descriptors;
        if calm || start.elapsed() > Duration::from_secs(5) {
            return now;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// 500 connections, each ended another way, leave nothing behind.
#[tokio::test]
async fn reconnecting_for_ever_costs_nothing() {
    let (listener, url) = listen().await;
    let config = StsClientConfig {
        close_timeout: Duration::from_millis(100),
        ..config(&url)
    };
    let mut worker = Worker::new(config);
    let mut base = None;
    for link in 1..=ROUNDS {
        worker.client.connect(link);
        let mut peer = match link % 5 {
            // Refused, and dropped in the middle of the handshake.
            0 => {
                let mut peer = Peer::accept(&listener, (25_000, 10_000)).await;
                peer.raw("44{\"message\":\"no\"}").await;
                peer
            }
            1 => {
                drop(listener.accept().await.expect("accept"));
                assert!(matches!(
                    worker.kind(link).await,
                    SessionFact::ConnectFailed { .. }
                ));
                continue;
            }
            _ => Peer::joined(&listener).await,
        };
        if link % 5 == 0 {
            assert!(matches!(
                worker.kind(link).await,
                SessionFact::ConnectFailed { .. }
            ));
            continue;
        }
        worker.connected(link).await;
        worker.client.init(link);
        match link % 5 {
            2 => peer.reset(),
            3 => peer.close().await,
            _ => peer.raw("41").await,
        }
        let end = worker.kind(link).await;
        assert!(matches!(end, SessionFact::Disconnected { .. }), "{end:?}");
        // What the process needs once is there after some rounds.
        if link == 50 || link == 52 {
            base = Some(settled(usage()).await);
        }
    }
    let base = base.expect("measured");
    let now = settled(base).await;
    println!("after 50 links {base:?}, after {ROUNDS} {now:?}");
    assert!(now.threads <= base.threads, "{base:?} -> {now:?}");
    // One link may be on its way out in either measurement.
    assert!(now.tasks <= base.tasks + 1, "{base:?} -> {now:?}");
    assert!(
        now.descriptors <= base.descriptors + 1,
        "{base:?} -> {now:?}"
    );
    assert!(now.rss_kb <= base.rss_kb + 4 * 1024, "{base:?} -> {now:?}");
}
