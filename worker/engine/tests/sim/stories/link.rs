//! Stories of connections and sessions that are lost, refused and found again.

use super::{SEGMENT, reasons, tell, world};
use crate::sts::{Door, Reply, Sts, Welcome, at, ms};
use crate::world::{Agenda, Item, World};
use dub_engine::{At, BackpressureAction, Gone, Level, LinkId, SessionConfig, SessionFact};

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

/// Before the first fragment of a session they are about the one before. An unknown fragment is none.
#[test]
fn complaints_about_no_fragment_count_once_one_was_sent() {
    for (code, times) in [("STREAM_NOT_FOUND", 1), ("INVALID_SEQUENCE", 2)] {
        for (when, id, reinits) in [(5.0, None, 0), (7.0, None, 1), (7.0, Some("7"), 0)] {
            let mut world = world(Sts::default());
            for _ in 0..times {
                world.say(at(when), move |link| complaint(link, code, id));
            }
            world.segments(3, SEGMENT);
            world.run();
            world.reference.finish();
            assert_eq!(world.reference.reinits, reinits, "{code} at {when} s");
            assert_eq!(reasons(&world), ["dubbed"; 3]);
        }
    }
}

#[test]
fn audio_of_a_session_that_was_lost_is_used_and_not_confirmed_to_the_next() {
    let mut world = world(Sts::default());
    world.peer.replies.insert(0, Reply::EndlessAudio);
    // Back at 6.3 s, and still being checked when the next session is ready.
    world.say(at(6.31), |link| complaint(link, "STREAM_NOT_FOUND", None));
    let checked = SessionFact::AudioChecked {
        batch: 0,
        ok: Ok(()),
    };
    world.agenda.tell(at(6.4), checked);
    world.segments(2, SEGMENT);
    world.run();
    world.reference.finish();
    assert_eq!(world.reference.reinits, 1);
    assert_eq!(reasons(&world), ["dubbed"; 2]);
    let lines = world.timeline.iter().flatten();
    let applied = lines.filter(|line| line.contains("applied"));
    assert_eq!(applied.count(), 1, "the other one's");
}

/// A service that did not count a fragment refuses all that follow, and would do so for ever.
#[test]
fn a_service_that_lost_count_gets_a_fresh_init() {
    for vague in [false, true] {
        let mut world = world(Sts {
            uncounted: Some(2),
            vague,
            ..Sts::default()
        });
        world.segments(7, SEGMENT);
        let name = if vague {
            "lost_count_vague"
        } else {
            "lost_count"
        };
        let world = tell(name, world);
        assert_eq!(
            reasons(&world),
            [
                "dubbed", "dubbed", "timeout", "error", "error", "dubbed", "dubbed"
            ]
        );
        assert_eq!(world.reference.reinits, 1);
        let sequences: Vec<_> = world.peer.sent.iter().map(|s| s.3).collect();
        assert_eq!(sequences, [0, 1, 2, 3, 4, 0, 1]);
    }
}

/// One that counts from another number never takes any.
#[test]
fn a_service_that_never_counts_as_we_do_does_not_turn_in_circles() {
    let mut world = world(Sts {
        reply: Reply::Fail("INVALID_SEQUENCE", false),
        ..Sts::default()
    });
    world.segments(40, SEGMENT);
    world.run();
    world.reference.finish();
    assert_eq!(schedule(&world), (vec![2, 4, 8, 16, 32], true));
}

#[test]
fn input_that_ends_while_away_ends_the_session_at_once() {
    let mut world = world(Sts::default());
    world.disconnect(at(7.0), Door::Refused);
    world.agenda.tell(
        at(6.0),
        SessionFact::SegmentReady {
            batch: 0,
            sendable: true,
            bytes: 1_000,
        },
    );
    world.agenda.tell(
        at(12.0),
        SessionFact::SegmentReady {
            batch: 1,
            sendable: true,
            bytes: 1_000,
        },
    );
    world.agenda.tell(at(12.1), SessionFact::InputEnded);
    tell("ended_while_away", world);
}

#[test]
fn only_a_handshake_that_segments_wait_for_is_worth_waiting_for() {
    for door in [Door::Silent, Door::Open] {
        let mut world = world(Sts {
            door,
            welcome: Welcome::Silent,
            ..Sts::default()
        });
        world.agenda.tell(at(1.0), SessionFact::InputEnded);
        world.run();
        world.reference.finish();
        let timeline = world.timeline.expect("a scripted world keeps it");
        let over = ["1.000s > disconnect link=1", "1.000s drained end=complete"];
        assert_eq!(timeline[timeline.len() - 2..], over);
    }
    // Ready at 50 ms.
    for ended in [15, 45] {
        let mut world = world(Sts::default());
        let ready = SessionFact::SegmentReady {
            batch: 0,
            sendable: true,
            bytes: 1_000,
        };
        world.agenda.tell(At::from_millis(10), ready);
        world
            .agenda
            .tell(At::from_millis(ended), SessionFact::InputEnded);
        world.run();
        world.reference.finish();
        assert_eq!(reasons(&world), ["dubbed"]);
    }
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
    let mut refused = world(Sts {
        welcome: Welcome::Error("INVALID_CONFIG"),
        ..Sts::default()
    });
    refused.segments(1, SEGMENT);
    tell("invalid_config", refused);
    // Whatever the service puts where a fragment's id would be, but not where it is one.
    for foreign in [true, false] {
        let mut world = world(Sts {
            reply: Reply::Hold,
            ..Sts::default()
        });
        world.say(at(6.5), |link| complaint(link, "STREAM_NOT_FOUND", None));
        let act = move |sts: &mut Sts, now, agenda: &mut Agenda<Sts>| {
            let (link, id, ..) = sts.sent[0];
            let id = if foreign {
                String::new()
            } else {
                id.to_string()
            };
            agenda.tell(now, complaint(link, "INVALID_CONFIG", Some(&id)));
        };
        // Before the second session is ready.
        world.agenda.put(at(6.51), Item::Act(Box::new(act)));
        world.segments(2, SEGMENT);
        world.run();
        world.reference.finish();
        assert_eq!(schedule(&world).0.len(), usize::from(foreign));
    }
}

fn complaint(link: LinkId, code: &str, id: Option<&str>) -> SessionFact {
    SessionFact::StsError {
        link,
        code: code.to_owned(),
        retryable: true,
        fatal: false,
        id: id.map(str::to_owned),
        message: "token expired".to_owned(),
    }
}

fn auth_failed(link: LinkId) -> SessionFact {
    complaint(link, "AUTH_FAILED", None)
}

#[test]
fn auth_failed_in_the_first_session_is_final_until_something_has_worked() {
    let script = || Sts {
        latency: ms(5_000),
        ..Sts::default()
    };
    let mut first = world(script());
    first.segments(3, SEGMENT);
    first.say(at(9.0), auth_failed);
    tell("auth_failed_at_first", first);
    // A fragment was dubbed by then: the token may be renewed.
    let mut later = world(script());
    later.segments(3, SEGMENT);
    later.say(at(13.0), auth_failed);
    tell("auth_failed", later);
}

#[test]
fn a_handshake_is_no_proof_and_the_schedule_goes_on() {
    let mut world = world(Sts {
        reply: Reply::Hold,
        ..Sts::default()
    });
    // A second after each time it was ready.
    for seconds in [1.0, 4.0, 9.0, 18.0, 35.0, 68.0] {
        world.disconnect(at(seconds), Door::Open);
    }
    world.segments(14, SEGMENT);
    tell("ready_then_drop", world);
}

/// Delays before the attempts, in seconds, and whether the session ended for want of the service.
fn schedule(world: &World<Sts>) -> (Vec<u64>, bool) {
    let timeline = world
        .timeline
        .as_ref()
        .expect("a scripted world keeps its timeline");
    let delays = timeline.iter().filter_map(|line| {
        let scheduled = line.contains("reconnect_scheduled");
        let ms = line.split("delay_ms=").nth(1).filter(|_| scheduled)?;
        ms.parse::<u64>().ok()
    });
    let gone = timeline
        .iter()
        .any(|line| line.contains("drained end=gone"));
    (delays.map(|ms| ms / 1000).collect(), gone)
}

#[test]
fn ready_then_drop_for_three_minutes_never_starts_the_schedule_anew() {
    let config = SessionConfig {
        gone: Gone::Original,
        ..SessionConfig::default()
    };
    let script = Sts {
        reply: Reply::Hold,
        ..Sts::default()
    };
    let mut world = World::scripted(&config, script);
    for seconds in [1.0, 4.0, 9.0, 18.0, 35.0, 68.0, 101.0, 134.0, 167.0] {
        world.disconnect(at(seconds), Door::Open);
    }
    world.segments(30, SEGMENT);
    world.run();
    world.reference.finish();
    let delays = vec![2, 4, 8, 16, 32, 32, 32, 32, 32];
    assert_eq!(schedule(&world), (delays, false));
}

#[test]
fn a_refusal_after_something_worked_follows_the_schedule() {
    let mut world = world(Sts::default());
    // The first segment was dubbed by then.
    world.disconnect(at(7.0), Door::Forbidden);
    world.segments(14, SEGMENT);
    world.run();
    world.reference.finish();
    assert_eq!(schedule(&world), (vec![2, 4, 8, 16, 32], true));
    let reasons = reasons(&world);
    assert!(reasons[0] == "dubbed" && reasons[1..].iter().all(|reason| *reason == "disconnected"));
}

#[test]
fn a_minute_of_quiet_life_is_proof() {
    let mut world = world(Sts {
        reply: Reply::Hold,
        ..Sts::default()
    });
    world.disconnect(at(1.0), Door::Open);
    world.disconnect(at(4.0), Door::Open);
    // Ready at 8.05 s: proof at 68.05 s.
    world.disconnect(at(68.1), Door::Open);
    world.segments(13, SEGMENT);
    tell("quiet_life", world);
}

#[test]
fn on_request_the_stream_goes_on_without_the_service_and_finds_it_again() {
    let config = SessionConfig {
        gone: Gone::Original,
        ..SessionConfig::default()
    };
    let mut world = World::scripted(&config, Sts::default());
    world.disconnect(at(6.5), Door::Refused);
    world.change(at(140.0), |sts| sts.door = Door::Open);
    world.segments(28, SEGMENT);
    tell("gone_original", world);
}

#[test]
fn a_limit_on_messages_is_found_out_and_costs_two_links() {
    let mut world = world(Sts {
        reply: Reply::Hold,
        ..Sts::default()
    });
    for seconds in [6.002, 12.002] {
        world.say(at(seconds - 0.001), |link| SessionFact::MessageCut {
            link,
            bytes: 160_000,
            certain: false,
        });
        world.disconnect(at(seconds), Door::Open);
    }
    for (batch, bytes) in [(0, 160_000), (1, 161_000), (2, 159_000), (3, 20_000)] {
        world.agenda.tell(
            at(6.0 * (batch as f64 + 1.0)),
            SessionFact::SegmentReady {
                batch,
                sendable: true,
                bytes,
            },
        );
    }
    world.agenda.tell(at(25.0), SessionFact::InputEnded);
    tell("message_limit", world);
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
