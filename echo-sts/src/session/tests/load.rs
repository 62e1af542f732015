//! How much may be in flight, and what is said about it.

use super::*;

#[test]
fn more_than_max_inflight_is_queue_full_and_the_stream_goes_on() {
    let mut world = World::new(&init()).with(&latency(100));
    for sequence in 0..4 {
        world.send(fragment(sequence));
    }
    world.run(100);
    world.send(fragment(4));
    world.run(200);
    assert_eq!(
        world.said[3..],
        [
            "0 QUEUE_FULL: 3 fragments in flight, 3 allowed",
            "100 processed 0 AAA0 in 100",
            "100 processed 1 AAA1 in 100",
            "100 processed 2 AAA2 in 100",
            "100 ack 4 behind 0",
            "200 processed 4 AAA4 in 100",
        ]
    );
}

#[test]
fn fragments_the_worker_has_given_up_do_not_fill_the_queue() {
    // Three held fragments; the worker times them out after 8 s and sends the next.
    let mut world = World::new(&init()).with(&audio(AudioMode::Hold, Some(3)));
    for sequence in 0..3 {
        world.send(fragment(sequence));
    }
    world.run(7_000);
    world.send(fragment(3));
    world.run(8_000);
    world.send(fragment(4));
    assert_eq!(
        world.said[6..],
        [
            "7000 QUEUE_FULL: 3 fragments in flight, 3 allowed",
            "8000 ack 4 behind 0",
            "8000 processed 4 AAA4 in 0",
        ]
    );
}

#[test]
fn latency_beyond_the_timeout_gives_late_answers_and_bounded_memory() {
    let mut world = World::new(&init()).with(&latency(600_000));
    for sequence in 0..200 {
        world.run(sequence * 3_000);
        world.send(fragment(sequence));
    }
    let full = world
        .said
        .iter()
        .filter(|line| line.contains("QUEUE_FULL"))
        .count();
    assert_eq!(full, 200 - MAX_WAITING);
    world.run(2_000_000);
    let late = world
        .said
        .iter()
        .filter(|line| line.contains("in 600000"))
        .count();
    assert_eq!(late, MAX_WAITING);
}

#[test]
fn automatic_load_reports_follow_the_thresholds_up_and_down() {
    let load = BackpressureConfig {
        enabled: true,
        ..BackpressureConfig::default()
    };
    let mut world = World::new(&StreamInit {
        max_inflight: 4,
        ..init()
    })
    .with(&Setting::Backpressure(load));
    latencies(&mut world, &[100, 200, 300, 400]);
    world.run(1_000);
    let reports: Vec<_> = world
        .said
        .iter()
        .filter(|line| line.contains("load"))
        .collect();
    assert_eq!(
        reports,
        [
            "0 load 2 Low None",
            "0 load 3 Medium SlowDown 500",
            "0 load 4 High Pause",
            "100 load 3 Medium SlowDown 500",
            "200 load 2 Low None",
            "300 load 1 Low None",
        ]
    );
}

#[test]
fn switching_load_reports_off_releases_the_worker() {
    let load = |enabled| {
        Setting::Backpressure(BackpressureConfig {
            enabled,
            ..BackpressureConfig::default()
        })
    };
    let mut world = World::new(&StreamInit {
        max_inflight: 1,
        ..init()
    })
    .with(&load(true))
    .with(&latency(1_000));
    world.send(fragment(0));
    world.sim.set(&Scope::Everyone, &load(false)).unwrap();
    let mut out = Vec::new();
    world.session.progress(world.now, &mut world.sim, &mut out);
    world.hear(out);
    assert_eq!(
        world.said[1..],
        ["0 load 1 High Pause", "0 load 1 Low None"]
    );
}

#[test]
fn load_falls_when_held_fragments_get_too_old_to_count() {
    let load = BackpressureConfig {
        enabled: true,
        ..BackpressureConfig::default()
    };
    let mut world = World::new(&StreamInit {
        max_inflight: 1,
        ..init()
    })
    .with(&Setting::Backpressure(load))
    .with(&audio(AudioMode::Hold, None));
    world.send(fragment(0));
    world.run(10_000);
    assert_eq!(
        world.said[2..],
        ["0 load 1 High Pause", "7500 load 0 Low None"]
    );
}
