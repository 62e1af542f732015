//! Stories of sending no faster than the service wants.

use super::{SEGMENT, dubbed, reasons, tell, world};
use crate::sts::{Sts, Welcome, at, ms};
use dub_engine::{BackpressureAction, Event, ProtocolErrorKind, SessionFact, SessionOrder};

#[test]
fn pause_stops_sending_until_none() {
    let mut world = world(Sts::default());
    world.backpressure(at(7.0), BackpressureAction::Pause, None);
    world.backpressure(at(16.5), BackpressureAction::None, None);
    world.segments(4, SEGMENT);
    let world = tell("backpressure_pause", world);
    assert_eq!(dubbed(&world), 4);
}

#[test]
fn a_pause_from_before_there_is_a_connection_is_told_and_holds_nothing_back() {
    let mut world = world(Sts::default());
    // It takes 20 ms to connect.
    let pause = SessionFact::Backpressure {
        link: 1,
        action: BackpressureAction::Pause,
        delay: None,
    };
    world.agenda.tell(at(0.01), pause);
    world.segments(4, SEGMENT);
    world.run();
    world.reference.finish();
    assert_eq!(dubbed(&world), 4);
    let told = world.heard.iter().any(|order| {
        matches!(order, SessionOrder::Event(Event::ProtocolError { kind, .. })
            if *kind == ProtocolErrorKind::Unexpected)
    });
    assert!(told);
}

#[test]
fn a_pause_longer_than_the_timeout_makes_segments_fall_back_one_by_one() {
    let mut world = world(Sts::default());
    world.backpressure(at(7.0), BackpressureAction::Pause, None);
    world.segments(4, SEGMENT);
    let world = tell("backpressure_endless_pause", world);
    assert_eq!(
        reasons(&world),
        ["dubbed", "backpressure", "backpressure", "backpressure"]
    );
}

#[test]
fn slow_down_waits_before_each_fragment() {
    let mut world = world(Sts::default());
    world.backpressure(at(1.0), BackpressureAction::SlowDown, Some(500));
    // Three at once: spaced by the delay. Then a repeated slow_down does not restart the wait.
    for batch in 0..3 {
        world.agenda.tell(
            at(6.0),
            SessionFact::SegmentReady {
                batch,
                sendable: true,
                bytes: 1_000,
            },
        );
    }
    world.agenda.tell(
        at(12.0),
        SessionFact::SegmentReady {
            batch: 3,
            sendable: true,
            bytes: 1_000,
        },
    );
    world.backpressure(at(12.4), BackpressureAction::SlowDown, Some(500));
    world.backpressure(at(14.0), BackpressureAction::None, None);
    world.agenda.tell(
        at(18.0),
        SessionFact::SegmentReady {
            batch: 4,
            sendable: true,
            bytes: 1_000,
        },
    );
    world.agenda.tell(at(18.1), SessionFact::InputEnded);
    let world = tell("backpressure_slow_down", world);
    assert_eq!(dubbed(&world), 5);
}

/// Two segments are ready at 6 s: the second falls back at 14 s unless it may be sent by then.
#[test]
fn what_falls_back_unsent_says_what_held_it_at_its_deadline() {
    for (limit, delay, second) in [
        (1, 4_000, "timeout"),
        (1, 4_001, "backpressure"),
        (2, 4_000, "dubbed"),
        (2, 4_001, "backpressure"),
    ] {
        let mut world = world(Sts {
            welcome: Welcome::Ready(Some(limit)),
            latency: ms(7_000),
            ..Sts::default()
        });
        world.backpressure(at(1.0), BackpressureAction::SlowDown, Some(delay));
        for batch in [0, 1] {
            let ready = SessionFact::SegmentReady {
                batch,
                sendable: true,
                bytes: 1_000,
            };
            world.agenda.tell(at(6.0), ready);
        }
        world.agenda.tell(at(6.1), SessionFact::InputEnded);
        world.run();
        world.reference.finish();
        assert_eq!(reasons(&world), ["dubbed", second], "{limit} {delay}");
    }
}

#[test]
fn never_more_than_three_are_out() {
    let mut world = world(Sts {
        latency: ms(2_000),
        ..Sts::default()
    });
    world.peer.in_order = false;
    for batch in 0..5 {
        world.agenda.tell(
            at(6.0),
            SessionFact::SegmentReady {
                batch,
                sendable: true,
                bytes: 1_000,
            },
        );
    }
    world.peer.latencies.insert(1, ms(1_000));
    world.agenda.tell(at(6.1), SessionFact::InputEnded);
    let world = tell("max_inflight", world);
    assert_eq!(world.reference.most_out, 3);
    assert_eq!(dubbed(&world), 5);
}

#[test]
fn the_server_may_confirm_a_lower_limit() {
    let mut world = world(Sts {
        latency: ms(2_000),
        ..Sts::default()
    });
    world.peer.welcome = Welcome::Ready(Some(1));
    world.segments(6, ms(1_000));
    let world = tell("lower_limit", world);
    assert_eq!(world.reference.most_out, 1);
}

#[test]
fn a_segment_held_by_the_limit_for_eight_seconds_falls_back_unsent() {
    let mut world = world(Sts {
        latency: ms(7_900),
        in_order: false,
        ..Sts::default()
    });
    for (batch, ready) in [(0, 6.0), (1, 13.0), (2, 13.5), (3, 13.6), (4, 13.7)] {
        world.agenda.tell(
            at(ready),
            SessionFact::SegmentReady {
                batch,
                sendable: true,
                bytes: 1_000,
            },
        );
    }
    world.peer.welcome = Welcome::Ready(Some(1));
    world.agenda.tell(at(40.0), SessionFact::InputEnded);
    let world = tell("send_deadline", world);
    assert_eq!(
        reasons(&world),
        ["dubbed", "dubbed", "timeout", "timeout", "timeout"]
    );
}
