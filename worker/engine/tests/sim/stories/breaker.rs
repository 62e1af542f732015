//! Stories of a service that fails.

use super::{SEGMENT, dubbed, reasons, tell, world};
use crate::sts::{Reply, Sts, at, ms};

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
