//! The stories of the product, as timelines.

use crate::sts::{Door, Reply, Sts, Welcome, at, ms};
use crate::world::World;
use dub_engine::{
    BackpressureAction, Event, Input, Level, OriginalReason, Outcome, Output, ProtocolErrorKind,
    Resolution, Session, SessionConfig,
};
use std::time::Duration;

const SEGMENT: Duration = Duration::from_secs(6);

fn world(sts: Sts) -> World<Sts> {
    World::scripted(&SessionConfig::default(), sts)
}

fn dubbed(world: &World<Sts>) -> usize {
    let is_dubbed = |(_, with): &&(u64, Resolution)| matches!(with, Resolution::Dubbed { .. });
    world.reference.resolved.iter().filter(is_dubbed).count()
}

fn reasons(world: &World<Sts>) -> Vec<&'static str> {
    let label = |(_, with): &(u64, Resolution)| match with {
        Resolution::Dubbed { .. } => "dubbed",
        Resolution::Original(reason) => reason.label(),
    };
    world.reference.resolved.iter().map(label).collect()
}

/// Runs, keeps the timeline as a snapshot, and hands the world back for questions.
fn tell(name: &str, mut world: World<Sts>) -> World<Sts> {
    world.run();
    world.reference.finish();
    let timeline = world.timeline.clone().unwrap_or_default().join("\n");
    insta::assert_snapshot!(name, timeline);
    world
}

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
        Input::SegmentReady {
            batch: 0,
            sendable: true,
        },
    );
    world.agenda.tell(
        at(6.6),
        Input::SegmentReady {
            batch: 1,
            sendable: false,
        },
    );
    world.agenda.tell(at(6.6), Input::InputEnded);
    let world = tell("short_tail", world);
    assert_eq!(reasons(&world), ["dubbed", "not_sent"]);
    assert!(world.loudest <= Level::Info);
}

#[test]
fn five_timeouts_open_the_breaker_and_a_probe_closes_it() {
    let mut world = world(Sts {
        reply: Reply::Fail("TIMEOUT", true),
        ..Sts::default()
    });
    world.change(at(31.0), |sts| sts.reply = Reply::Audio);
    world.segments(13, SEGMENT);
    let world = tell("circuit_breaker", world);
    assert_eq!(world.reference.breaker.openings, 1);
    assert_eq!(world.reference.breaker.probes, 1);
    // 30.3 s to 60.3 s: batches 5 to 9 are not sent.
    assert_eq!(
        world.peer.sent.iter().map(|s| s.2).collect::<Vec<_>>(),
        [0, 1, 2, 3, 4, 10, 11, 12]
    );
}

#[test]
fn a_failed_probe_opens_the_breaker_for_a_fresh_cooldown_counted_from_there() {
    let mut world = world(Sts {
        reply: Reply::Fail("GPU_OOM", true),
        ..Sts::default()
    });
    world.change(at(67.0), |sts| sts.reply = Reply::Audio);
    world.segments(18, SEGMENT);
    let world = tell("breaker_probe_fails", world);
    assert_eq!(
        (
            world.reference.breaker.openings,
            world.reference.breaker.probes
        ),
        (2, 2)
    );
}

#[test]
fn while_the_probe_is_out_the_others_fall_back() {
    let mut world = world(Sts {
        reply: Reply::Fail("MODEL_ERROR", true),
        ..Sts::default()
    });
    world.change(at(20.0), |sts| {
        sts.reply = Reply::Audio;
        sts.latency = ms(7_000);
    });
    world.segments(30, ms(2_000));
    let world = tell("breaker_one_probe", world);
    assert_eq!(world.reference.breaker.probes, 1);
}

#[test]
fn a_probe_that_says_nothing_about_health_makes_room_for_the_next_probe() {
    let mut world = world(Sts {
        reply: Reply::Fail("TIMEOUT", true),
        ..Sts::default()
    });
    world.change(at(31.0), |sts| sts.reply = Reply::Audio);
    world
        .peer
        .replies
        .insert(10, Reply::Fail("FRAGMENT_TOO_LARGE", false));
    world.peer.replies.insert(11, Reply::BadAudio);
    world.segments(14, SEGMENT);
    let world = tell("breaker_neutral_probes", world);
    assert_eq!(world.reference.breaker.probes, 3);
}

#[test]
fn errors_that_are_not_retryable_neither_count_nor_reset() {
    let mut world = world(Sts {
        reply: Reply::Fail("TIMEOUT", true),
        ..Sts::default()
    });
    for batch in [2, 4, 6] {
        world
            .peer
            .replies
            .insert(batch, Reply::Fail("INVALID_SEQUENCE", false));
    }
    // Fifth TIMEOUT is batch 7.
    world.segments(9, SEGMENT);
    let world = tell("breaker_non_retryable", world);
    assert_eq!(reasons(&world)[7..], ["error", "breaker_open"]);
}

#[test]
fn a_failure_told_as_error_and_as_processed_counts_once() {
    let mut world = world(Sts {
        reply: Reply::FailTwice("TIMEOUT", true),
        ..Sts::default()
    });
    world.segments(6, SEGMENT);
    let world = tell("failure_told_twice", world);
    assert_eq!(
        world.peer.sent.len(),
        5,
        "opens after five, not after three"
    );
}

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
            Input::SegmentReady {
                batch,
                sendable: true,
            },
        );
    }
    world.agenda.tell(
        at(12.0),
        Input::SegmentReady {
            batch: 3,
            sendable: true,
        },
    );
    world.backpressure(at(12.4), BackpressureAction::SlowDown, Some(500));
    world.backpressure(at(14.0), BackpressureAction::None, None);
    world.agenda.tell(
        at(18.0),
        Input::SegmentReady {
            batch: 4,
            sendable: true,
        },
    );
    world.agenda.tell(at(18.1), Input::InputEnded);
    let world = tell("backpressure_slow_down", world);
    assert_eq!(dubbed(&world), 5);
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
            Input::SegmentReady {
                batch,
                sendable: true,
            },
        );
    }
    world.peer.latencies.insert(1, ms(1_000));
    world.agenda.tell(at(6.1), Input::InputEnded);
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
fn a_fragment_without_an_answer_gives_its_place_back_after_eight_seconds() {
    let mut world = world(Sts {
        in_order: false,
        ..Sts::default()
    });
    for batch in 0..3 {
        world.peer.latencies.insert(batch, ms(11_000));
        world.agenda.tell(
            at(6.0),
            Input::SegmentReady {
                batch,
                sendable: true,
            },
        );
    }
    world.agenda.tell(
        at(7.0),
        Input::SegmentReady {
            batch: 3,
            sendable: true,
        },
    );
    world.agenda.tell(at(20.0), Input::InputEnded);
    let world = tell("fragment_timeout", world);
    assert_eq!(reasons(&world), ["timeout", "timeout", "timeout", "dubbed"]);
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
            Input::SegmentReady {
                batch,
                sendable: true,
            },
        );
    }
    world.peer.welcome = Welcome::Ready(Some(1));
    world.agenda.tell(at(40.0), Input::InputEnded);
    let world = tell("send_deadline", world);
    assert_eq!(
        reasons(&world),
        ["dubbed", "dubbed", "timeout", "timeout", "timeout"]
    );
}

#[test]
fn two_in_flight_fall_back_on_disconnect_and_the_stream_starts_over() {
    let mut world = world(Sts {
        latency: ms(7_000),
        ..Sts::default()
    });
    world.disconnect(at(12.5), Door::Refused);
    world.change(at(20.0), |sts| sts.door = Door::Open);
    world.segments(8, SEGMENT);
    let world = tell("reconnect", world);
    let sequences: Vec<_> = world.peer.sent.iter().map(|s| (s.0, s.2, s.3)).collect();
    // Lost at 12.5 s; retries at 14.5 s and 18.52 s are refused, the one at 26.54 s succeeds.
    assert_eq!(
        sequences,
        [
            (1, 0, 0),
            (1, 1, 1),
            (4, 4, 0),
            (4, 5, 1),
            (4, 6, 2),
            (4, 7, 3)
        ]
    );
}

#[test]
fn after_five_failed_attempts_the_service_is_gone() {
    let mut world = world(Sts::default());
    world.disconnect(at(6.1), Door::Refused);
    world.segments(16, SEGMENT);
    tell("gone", world);
}

#[test]
fn the_first_connection_follows_the_same_schedule() {
    let mut world = world(Sts {
        door: Door::Refused,
        ..Sts::default()
    });
    world.change(at(7.0), |sts| sts.door = Door::Open);
    world.segments(4, SEGMENT);
    tell("first_connection", world);
}

#[test]
fn a_session_lost_in_a_pause_is_initialised_again() {
    let mut world = world(Sts::default());
    world.backpressure(at(7.0), BackpressureAction::Pause, None);
    world.change(at(10.0), |sts| sts.amnesia = true);
    world.backpressure(at(14.0), BackpressureAction::None, None);
    world.segments(5, SEGMENT);
    let world = tell("session_lost_in_pause", world);
    assert_eq!(
        reasons(&world),
        ["dubbed", "error", "dubbed", "dubbed", "dubbed"]
    );
    assert_eq!(world.reference.reinits, 1);
}

#[test]
fn a_session_lost_with_three_out_is_initialised_again_once() {
    let mut world = world(Sts {
        latency: ms(7_000),
        ..Sts::default()
    });
    world.change(at(7.5), |sts| sts.amnesia = true);
    world.segments(12, ms(1_500));
    let world = tell("session_lost_with_three_out", world);
    assert_eq!(world.reference.reinits, 1);
}

#[test]
fn a_session_that_is_lost_again_at_once_does_not_turn_in_circles() {
    let mut world = world(Sts::default());
    world.change(at(7.0), |sts| sts.incurable = true);
    world.change(at(26.0), |sts| sts.incurable = false);
    world.segments(7, SEGMENT);
    tell("session_lost_again", world);
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
fn input_that_ends_while_away_ends_the_session_at_once() {
    let mut world = world(Sts::default());
    world.disconnect(at(7.0), Door::Refused);
    world.agenda.tell(
        at(6.0),
        Input::SegmentReady {
            batch: 0,
            sendable: true,
        },
    );
    world.agenda.tell(
        at(12.0),
        Input::SegmentReady {
            batch: 1,
            sendable: true,
        },
    );
    world.agenda.tell(at(12.1), Input::InputEnded);
    tell("ended_while_away", world);
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
fn a_service_that_never_answers_costs_five_calls_and_no_segment() {
    let mut world = world(Sts {
        reply: Reply::Hold,
        ..Sts::default()
    });
    world.segments(10, SEGMENT);
    let world = tell("never_answers", world);
    assert_eq!(dubbed(&world), 0);
    assert_eq!(world.reference.breaker.openings, 1);
    assert_eq!(world.reference.resolved.len(), 10);
}

#[test]
fn no_stream_ready_in_ten_seconds_is_a_failed_attempt() {
    let mut world = world(Sts {
        welcome: Welcome::Silent,
        ..Sts::default()
    });
    world.change(at(11.0), |sts| sts.welcome = Welcome::Ready(None));
    world.segments(4, SEGMENT);
    tell("no_stream_ready", world);
}

#[test]
fn a_connection_attempt_that_never_ends_is_given_up() {
    let mut world = world(Sts {
        door: Door::Silent,
        ..Sts::default()
    });
    world.change(at(21.0), |sts| sts.door = Door::Open);
    world.segments(5, SEGMENT);
    tell("silent_door", world);
}

#[test]
fn a_refusal_at_the_door_ends_the_session() {
    let mut world = world(Sts {
        door: Door::Forbidden,
        ..Sts::default()
    });
    world.segments(1, SEGMENT);
    let world = tell("refused_at_the_door", world);
    assert_eq!(world.loudest, Level::Error);
}

#[test]
fn an_invalid_config_on_init_ends_the_session() {
    let mut world = world(Sts {
        welcome: Welcome::Error("INVALID_CONFIG"),
        ..Sts::default()
    });
    world.segments(1, SEGMENT);
    tell("invalid_config", world);
}

#[test]
fn auth_failed_in_mid_stream_ends_the_session() {
    let mut world = world(Sts {
        latency: ms(5_000),
        ..Sts::default()
    });
    world.segments(3, SEGMENT);
    world.say(at(13.0), |link| Input::StsError {
        link,
        code: "AUTH_FAILED".to_owned(),
        retryable: true,
        fatal: false,
        id: None,
        message: "token expired".to_owned(),
    });
    tell("auth_failed", world);
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
fn audio_that_came_back_before_the_disconnect_is_used() {
    let mut world = world(Sts::default());
    // Processed at 6.3 s, disconnected at 6.31 s, checked at 6.315 s.
    world.disconnect(at(6.31), Door::Open);
    world.segments(2, SEGMENT);
    let world = tell("returned_before_disconnect", world);
    assert_eq!(reasons(&world), ["dubbed", "dubbed"]);
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
    session.handle_input(at(0.0), Input::Start);
    session.handle_input(at(0.0), Input::Connected { link: 1 });
    session.handle_input(
        at(0.0),
        Input::Ready {
            link: 1,
            max_inflight: None,
        },
    );
    session.handle_input(
        at(6.0),
        Input::SegmentReady {
            batch: 0,
            sendable: true,
        },
    );
    let outputs = std::iter::from_fn(|| session.poll_output()).collect::<Vec<_>>();
    let id = outputs.iter().find_map(|output| match output {
        Output::Send { id, .. } => Some(*id),
        _ => None,
    });
    let id = id.expect("sent").to_string();
    let outcome = Outcome::Audio;
    session.handle_input(
        at(14.0),
        Input::Processed {
            link: 1,
            id,
            sequence: Some(0),
            outcome,
        },
    );
    let with = Resolution::Original(OriginalReason::Timeout);
    let outputs = std::iter::from_fn(|| session.poll_output()).collect::<Vec<_>>();
    assert!(
        outputs.contains(&Output::Resolve { batch: 0, with }),
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
                Input::Processed {
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
        matches!(output, Output::Event(Event::ProtocolError { kind: told, .. }) if *told == kind)
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
                Input::Processed {
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
