//! Stories of fragments on their way, and of the end.

use super::{SEGMENT, dubbed, reasons, tell, world};
use crate::sts::{Reply, Sts, at, ms};
use crate::world::World;
use dub_engine::{
    Event, Level, OriginalReason, Outcome, ProtocolErrorKind, Resolution, Session, SessionConfig,
    SessionFact, SessionOrder,
};

#[test]
fn a_clean_minute_sends_ten_fragments_and_warns_of_nothing() {
    let mut world = world(Sts::default());
    world.segments(10, SEGMENT);
    let world = tell("clean_minute", world);
    assert_eq!(dubbed(&world), 10);
    assert_eq!(
        world.peer.sent.iter().map(|s| s.3).collect::<Vec<_>>(),
        (0..10).collect::<Vec<_>>()
    );
    assert!(world.loudest <= Level::Info, "{:?}", world.loudest);
}

#[test]
fn a_tail_too_short_to_send_keeps_its_audio_without_being_a_fallback() {
    let mut world = world(Sts::default());
    world.agenda.tell(
        at(6.0),
        SessionFact::SegmentReady {
            batch: 0,
            sendable: true,
            bytes: 1_000,
        },
    );
    world.agenda.tell(
        at(6.6),
        SessionFact::SegmentReady {
            batch: 1,
            sendable: false,
            bytes: 1_000,
        },
    );
    world.agenda.tell(at(6.6), SessionFact::InputEnded);
    let world = tell("short_tail", world);
    assert_eq!(reasons(&world), ["dubbed", "not_sent"]);
    assert!(world.loudest <= Level::Info);
}

#[test]
fn a_fragment_without_an_answer_gives_its_place_back_after_eight_seconds() {
    let mut world = world(Sts {
        in_order: false,
        ..Sts::default()
    });
    for batch in 0..3 {
        world.peer.latencies.insert(batch, ms(11_000));
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
        at(7.0),
        SessionFact::SegmentReady {
            batch: 3,
            sendable: true,
            bytes: 1_000,
        },
    );
    world.agenda.tell(at(20.0), SessionFact::InputEnded);
    let world = tell("fragment_timeout", world);
    assert_eq!(reasons(&world), ["timeout", "timeout", "timeout", "dubbed"]);
}

#[test]
fn at_the_end_fragments_in_flight_are_waited_for() {
    let mut world = world(Sts {
        latency: ms(5_000),
        ..Sts::default()
    });
    world.segments(2, ms(3_000));
    let world = tell("drain", world);
    assert_eq!(dubbed(&world), 2);
}

#[test]
fn stream_complete_is_not_waited_for_for_ever() {
    let mut world = world(Sts {
        completes: false,
        ..Sts::default()
    });
    world.segments(1, SEGMENT);
    tell("no_stream_complete", world);
}

#[test]
fn passthrough_never_connects() {
    let config = SessionConfig {
        enabled: false,
        ..SessionConfig::default()
    };
    let mut world = World::scripted(&config, Sts::default());
    world.segments(3, SEGMENT);
    let world = tell("passthrough", world);
    assert!(world.peer.sent.is_empty() && world.loudest <= Level::Info);
}

#[test]
fn answers_out_of_order_are_held_until_their_turn() {
    let mut world = world(Sts {
        in_order: false,
        ..Sts::default()
    });
    world.peer.latencies.insert(0, ms(4_000));
    world.peer.latencies.insert(1, ms(1_000));
    world.segments(3, ms(1_000));
    let world = tell("out_of_order", world);
    assert_eq!(dubbed(&world), 3);
}

#[test]
fn audio_that_cannot_be_used_falls_back_and_says_nothing_about_health() {
    let mut world = world(Sts::default());
    world.peer.replies.insert(0, Reply::BadAudio);
    world.peer.replies.insert(1, Reply::EndlessAudio);
    world.segments(3, SEGMENT);
    let world = tell("bad_audio", world);
    assert_eq!(reasons(&world), ["bad_audio", "bad_audio", "dubbed"]);
}

#[test]
fn an_answer_at_its_very_deadline_is_late() {
    for (latency, expected) in [(7_999, "dubbed"), (8_000, "timeout")] {
        let mut world = world(Sts {
            latency: ms(latency),
            ..Sts::default()
        });
        world.segments(1, SEGMENT);
        world.run();
        assert_eq!(reasons(&world), [expected], "{latency} ms");
    }
}

#[test]
fn what_is_due_is_done_before_a_fact_is_taken_in() {
    // No `handle_timeout` at all: the driver was busy and tells the answer first.
    let mut session = Session::new(SessionConfig::default());
    session.handle(at(0.0), SessionFact::Start);
    session.handle(at(0.0), SessionFact::Connected { link: 1 });
    session.handle(
        at(0.0),
        SessionFact::Ready {
            link: 1,
            max_inflight: None,
        },
    );
    session.handle(
        at(6.0),
        SessionFact::SegmentReady {
            batch: 0,
            sendable: true,
            bytes: 1_000,
        },
    );
    let outputs = std::iter::from_fn(|| session.poll_order()).collect::<Vec<_>>();
    let id = outputs.iter().find_map(|output| match output {
        SessionOrder::Send { id, .. } => Some(*id),
        _ => None,
    });
    let id = id.expect("sent").to_string();
    let outcome = Outcome::Audio;
    session.handle(
        at(14.0),
        SessionFact::Processed {
            link: 1,
            id,
            sequence: Some(0),
            outcome,
        },
    );
    let with = Resolution::Original(OriginalReason::Timeout);
    let outputs = std::iter::from_fn(|| session.poll_order()).collect::<Vec<_>>();
    assert!(
        outputs.contains(&SessionOrder::Resolve { batch: 0, with }),
        "{outputs:?}"
    );
}

#[test]
fn hours_of_stream_hold_no_more_than_one_segment() {
    let mut world = World::new(&SessionConfig::default(), Sts::default());
    world.segments(2_000, SEGMENT);
    // A very late answer for the first fragment, long after it was forgotten.
    let act = Box::new(
        |sts: &mut Sts, now, agenda: &mut crate::world::Agenda<Sts>| {
            let (link, id, _, sequence) = sts.sent[0];
            let (id, outcome) = (id.to_string(), Outcome::Audio);
            agenda.tell(
                now,
                SessionFact::Processed {
                    link,
                    id,
                    sequence: Some(sequence),
                    outcome,
                },
            );
        },
    );
    world.agenda.put(at(11_000.0), crate::world::Item::Act(act));
    world.run();
    world.reference.finish();
    assert_eq!(dubbed(&world), 2_000);
    let most = world.most_load;
    assert_eq!(
        (most.waiting, most.out, most.checking, most.unresolved),
        (0, 1, 1, 1)
    );
    assert_eq!(most.remembered, dub_engine::in_flight::REMEMBERED);
    let unknown = world.heard.iter().any(|output| {
        let kind = ProtocolErrorKind::UnknownFragment;
        matches!(output, SessionOrder::Event(Event::ProtocolError { kind: told, .. }) if *told == kind)
    });
    assert!(unknown, "forgotten means unknown");
}

#[test]
fn a_late_answer_frees_its_payload() {
    let mut world = world(Sts {
        reply: Reply::Hold,
        ..Sts::default()
    });
    world.segments(3, SEGMENT);
    let act = Box::new(
        |sts: &mut Sts, now, agenda: &mut crate::world::Agenda<Sts>| {
            let (link, id, _, sequence) = sts.sent[0];
            agenda.wire(
                now,
                link,
                SessionFact::Processed {
                    link,
                    id: id.to_string(),
                    sequence: Some(sequence),
                    outcome: Outcome::Audio,
                },
            );
        },
    );
    world.agenda.put(at(14.5), crate::world::Item::Act(act));
    // `finish` in `tell` proves that no payload is left.
    let world = tell("late_answer", world);
    assert_eq!(
        world.reference.resolved[0].1,
        Resolution::Original(OriginalReason::Timeout)
    );
}
