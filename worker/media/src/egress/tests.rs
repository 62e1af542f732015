//! The RTMP output against a server that tells what it sees.

mod server;

use std::time::{Duration, Instant};

use self::server::{Manner, Seen, Server};
use super::*;

/// By how much pictures are shown later than they are decoded, as with B-frames.
const DELAY: i64 = 80_000_000;
const PATIENCE: Duration = Duration::from_secs(10);

struct Bench {
    server: Server,
    egress: Egress,
    facts: mpsc::Receiver<(u32, EgressFact)>,
}

impl Bench {
    fn new(manner: Manner, tail: &str) -> Self {
        let server = Server::start(manner);
        let url = format!("rtmp://127.0.0.1:{}/{tail}", server.port);
        Self::at(server, &url)
    }

    fn at(server: Server, url: &str) -> Self {
        crate::init().expect("the machine has the plugins: cargo xtask setup");
        let target = RtmpTarget::parse(url).unwrap();
        let (sender, facts) = mpsc::channel(16);
        let format = AacFormat::lc(48_000, 2);
        let egress = Egress::start(&target, &format, 7, sender).unwrap();
        Self {
            server,
            egress,
            facts,
        }
    }

    fn wait_accepted(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.egress.bytes_sent() == 0 {
            assert!(Instant::now() < deadline, "not accepted");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Frames `from..to` of 40 ms each, a keyframe every 25, with audio beside them.
    fn push(&mut self, from: i64, to: i64, size: usize, keyframe_size: usize) {
        for n in from..to {
            let (key, at) = (n % 25 == 0, n * 40_000_000);
            let unit = unit(key, if key { keyframe_size } else { size });
            self.egress.video(&unit, at + DELAY, at);
            for half in 0..2 {
                let at = at + half * 20_000_000;
                self.egress.audio(&AacFrame::from([7_u8; 200]), at);
            }
            if n % 3 == 2 {
                self.egress.send().unwrap();
            }
        }
    }

    fn fact(&mut self) -> EgressFact {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.facts.try_recv() {
                Ok((connection, fact)) => {
                    assert_eq!(connection, 7);
                    return fact;
                }
                Err(_) => assert!(Instant::now() < deadline, "no fact"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn failure(&mut self) -> EgressError {
        match self.fact() {
            EgressFact::Failed(error) => error,
            other => panic!("{other:?}"),
        }
    }

    fn finish(mut self) -> Vec<Seen> {
        self.egress.finish();
        assert!(matches!(self.fact(), EgressFact::Finished));
        let deadline = Instant::now() + PATIENCE;
        while !self.egress.is_quiet() {
            assert!(Instant::now() < deadline, "never quiet");
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(self.egress);
        self.server.finish()
    }
}

pub(crate) fn unit(keyframe: bool, size: usize) -> AccessUnit {
    AccessUnit::made_up(30, keyframe, size)
}

/// FLV video tags: sequence headers (packet type 0) and pictures (1).
fn pictures(seen: &[Seen]) -> Vec<(u32, usize)> {
    let picture = |seen: &Seen| match seen {
        Seen::Video { at, data } if data.get(1) == Some(&1) => Some((*at, data.len() - 5)),
        _ => None,
    };
    seen.iter().filter_map(picture).collect()
}

#[test]
fn every_unit_arrives_once_and_in_time() {
    let mut bench = Bench::new(Manner::Takes, "live/test/out");
    bench.push(0, 100, 1_000, 20_000);
    bench.wait_accepted();
    let seen = bench.finish();
    let pictures = pictures(&seen);
    let expected = (0..100).map(|n| (n * 40, 4 + if n % 25 == 0 { 20_000 } else { 1_000 }));
    assert!(pictures.iter().copied().eq(expected), "{pictures:?}");
    let tags = seen.iter().filter_map(|seen| match seen {
        Seen::Video { data, .. } if data[1] == 1 => Some(&data[..5]),
        _ => None,
    });
    for (n, tag) in tags.enumerate() {
        // A keyframe or not, AVC, a picture; so much later shown.
        let kind = if n % 25 == 0 { 0x17 } else { 0x27 };
        assert_eq!(tag, [kind, 1, 0, 0, 80], "picture {n}");
    }
    let first = seen.iter().find(|seen| matches!(seen, Seen::Audio(_)));
    assert_eq!(first, Some(&Seen::Audio(4)), "the configuration");
    let sounds = seen
        .iter()
        .filter(|s| matches!(s, Seen::Audio(100..)))
        .count();
    assert_eq!(sounds, 200);
    assert!(seen.contains(&Seen::Published("live/test".into(), "out".into())));
}

/// Players decode with what they were told last.
#[test]
fn parameter_sets_that_change_are_sent_before_the_first_picture_that_needs_them() {
    let mut bench = Bench::new(Manner::Takes, "live/test/out");
    bench.push(0, 50, 1_000, 2_000);
    for n in 50..100 {
        let at = n * 40_000_000;
        let unit = AccessUnit::made_up(31, n % 25 == 0, 1_000);
        bench.egress.video(&unit, at, at);
        bench.egress.audio(&AacFrame::from([7_u8; 200]), at);
    }
    bench.wait_accepted();
    let videos: Vec<_> = bench
        .finish()
        .into_iter()
        .filter_map(|seen| match seen {
            Seen::Video { data, .. } => Some(data),
            _ => None,
        })
        .collect();
    let level = |data: &[u8]| (data[1] == 0).then(|| data[5 + 3]);
    let headers: Vec<_> = videos
        .iter()
        .enumerate()
        .filter_map(|(at, it)| Some((at, level(it)?)))
        .collect();
    let pictures = videos.iter().filter(|data| data[1] == 1);
    assert_eq!(pictures.count(), 100);
    assert_eq!(
        headers,
        [(0, 30), (51, 31)],
        "place and level of each sequence header"
    );
}

#[test]
fn a_stream_key_arrives_as_it_was_written() {
    for (tail, application, stream) in [
        (
            "live/k?token=a/b+c%2Fd==&x=/",
            "live",
            "k?token=a/b+c%2Fd==&x=/",
        ),
        ("app/inst/key%20with+plus", "app/inst", "key%20with+plus"),
        ("live/k?a=b?c", "live", "k?a=b?c"),
    ] {
        let mut bench = Bench::new(Manner::Takes, tail);
        bench.wait_accepted();
        bench.push(0, 5, 100, 100);
        let seen = bench.finish();
        let wanted = Seen::Published(application.into(), stream.into());
        assert!(seen.contains(&wanted), "{tail}: {:?}", &seen[..3]);
    }
}

#[test]
fn user_and_password_arrive() {
    let server = Server::start(Manner::Takes);
    let url = format!("rtmp://anna:p%40ss@127.0.0.1:{}/live/k?a=1", server.port);
    let mut bench = Bench::at(server, &url);
    bench.wait_accepted();
    bench.push(0, 5, 100, 100);
    let seen = bench.finish();
    let stream = "k?a=1&user=anna&pass=p%40ss";
    assert!(
        seen.contains(&Seen::Published("live".into(), stream.into())),
        "{seen:?}"
    );
}

/// 4K: keyframes of 2 MB, 100 Mbit/s. With chunks of 128 bytes it takes longer than it lasts.
#[test]
fn big_pictures_go_out_many_times_faster_than_real_time() {
    let mut bench = Bench::new(Manner::Takes, "live/out");
    bench.wait_accepted();
    let begun = Instant::now();
    bench.push(0, 125, 417_000, 2_000_000);
    let seen = bench.finish();
    let took = begun.elapsed();
    assert_eq!(pictures(&seen).len(), 125);
    assert!(took < Duration::from_secs(3), "5 s of media took {took:?}");
}

#[test]
fn a_name_that_is_taken_is_told_apart() {
    let mut bench = Bench::new(Manner::NameTaken, "live/out");
    let error = bench.failure();
    assert!(error.name_taken, "{error}");
    assert_eq!(error.kind, "resource");
    assert_eq!(bench.egress.bytes_sent(), 0, "accepted");
}

#[test]
fn a_refusal_and_a_loss_have_their_causes() {
    // Nobody listens.
    let server = Server::start(Manner::Takes);
    let url = "rtmp://127.0.0.1:9/live/out";
    let error = Bench::at(server, url).failure();
    assert!(
        !error.name_taken && error.text.contains("refused"),
        "{error}"
    );
    // The application is not known.
    let error = Bench::new(Manner::HangsUpAtConnect, "live/out").failure();
    assert!(
        !error.name_taken && error.text.contains("'connect'"),
        "{error}"
    );
    // In the middle of the stream.
    let mut bench = Bench::new(Manner::HangsUpAfter(20), "live/out");
    bench.wait_accepted();
    bench.push(0, 50, 1_000, 1_000);
    let error = bench.failure();
    assert!(
        !error.name_taken && error.text.contains("closed"),
        "{error}"
    );
    // What is handed over after the end has nowhere to go.
    bench.egress.finish();
    bench.egress.video(&unit(false, 10), 0, 0);
    let refused = bench.egress.send().unwrap_err();
    assert!(refused.text.contains("takes no more"), "{refused}");
}

#[test]
fn what_a_slow_server_leaves_waiting_is_seen() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let mut bench = Bench::new(Manner::StopsReading, "live/out");
    bench.wait_accepted();
    bench.push(0, 100, 100_000, 100_000);
    let deadline = Instant::now() + PATIENCE;
    loop {
        bench.egress.look();
        match bench.fact() {
            // 10 MB were handed over; the server's machine takes some of it.
            EgressFact::Waiting(bytes) if bytes > 3_000_000 => break,
            EgressFact::Waiting(bytes) => assert!(Instant::now() < deadline, "{bytes}"),
            other => panic!("{other:?}"),
        }
    }
    // Of 4 s of media; a few are in the sockets.
    let waiting = bench.egress.backlog();
    assert!(
        (Duration::from_secs(1)..PATIENCE).contains(&waiting),
        "{waiting:?}"
    );
}
