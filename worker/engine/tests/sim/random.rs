//! Random schedules: at least ten thousand worlds, each watched by the reference.
//!
//! `DUB_ENGINE_SEED=123 cargo test -p dub-engine --test sim random` replays one world and prints its
//! timeline; `DUB_ENGINE_SEEDS=1000000` plays more of them.

use crate::chaos;
use crate::world::World;
use dub_engine::{End, Event, OriginalReason, ProtocolErrorKind, Resolution, SessionOrder};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

const SEEDS: u64 = 12_000;

/// How often each path was taken, over all runs.
type Paths = BTreeMap<String, u64>;

#[test]
fn every_rule_holds_in_every_world() {
    if let Some(seed) = number("DUB_ENGINE_SEED") {
        let mut world = chaos::world(seed);
        world.timeline = Some(Vec::new());
        let outcome = catch_unwind(AssertUnwindSafe(|| play(&mut world)));
        println!("{}", world.timeline.take().unwrap_or_default().join("\n"));
        assert!(outcome.is_ok(), "seed {seed}");
        return;
    }
    let seeds = number("DUB_ENGINE_SEEDS").unwrap_or(SEEDS);
    let workers = 2;
    let paths = std::thread::scope(|scope| {
        let run = |worker| move || play_all((worker..seeds).step_by(workers));
        let threads: Vec<_> = (0..workers as u64).map(|n| scope.spawn(run(n))).collect();
        let mut paths = Paths::new();
        for thread in threads {
            for (path, times) in thread.join().expect("a world broke a rule, see above") {
                *paths.entry(path).or_default() += times;
            }
        }
        paths
    });
    println!("{paths:#?}");
    assert_covered(&paths);
}

fn play_all(seeds: impl Iterator<Item = u64>) -> Paths {
    let mut paths = Paths::new();
    for seed in seeds {
        let mut world = chaos::world(seed);
        let outcome = catch_unwind(AssertUnwindSafe(|| play(&mut world)));
        if outcome.is_err() {
            let mut replay = chaos::world(seed);
            replay.timeline = Some(Vec::new());
            let _ = catch_unwind(AssertUnwindSafe(|| play(&mut replay)));
            let timeline = replay.timeline.unwrap_or_default();
            let tail = timeline.len().saturating_sub(40);
            eprintln!("{}", timeline[tail..].join("\n"));
            panic!("replay with DUB_ENGINE_SEED={seed}");
        }
        note(&world, &mut paths);
    }
    paths
}

fn play(world: &mut World<chaos::Chaos>) {
    world.run();
    world.reference.finish();
}

fn note(world: &World<chaos::Chaos>, paths: &mut Paths) {
    let mut add = |path: &str, times: u64| *paths.entry(path.to_owned()).or_default() += times;
    add("steps", world.steps());
    add("openings", world.reference.breaker.openings.into());
    add("probes", world.reference.breaker.probes.into());
    add("reinits", world.reference.reinits.into());
    add(&format!("most out {}", world.reference.most_out), 1);
    for (_, with) in &world.reference.resolved {
        match with {
            Resolution::Dubbed { .. } => add("dubbed", 1),
            Resolution::Original(reason) => add(reason.label(), 1),
        }
    }
    for output in &world.heard {
        match output {
            SessionOrder::Event(Event::ProtocolError { kind, .. }) => add(kind.label(), 1),
            SessionOrder::Event(Event::Reconnected { .. }) => add("reconnected", 1),
            SessionOrder::Drained(End::Complete) => add("complete", 1),
            SessionOrder::Drained(End::Gone) => add("gone", 1),
            SessionOrder::Drained(End::Refused { .. }) => add("refused", 1),
            _ => {}
        }
    }
}

/// A schedule that never gets somewhere proves nothing about it.
fn assert_covered(paths: &Paths) {
    let reasons = OriginalReason::FALLBACKS.map(OriginalReason::label);
    let kinds = [
        ProtocolErrorKind::BadJson,
        ProtocolErrorKind::UnknownFragment,
        ProtocolErrorKind::Duplicate,
        ProtocolErrorKind::Late,
        ProtocolErrorKind::StaleLink,
        ProtocolErrorKind::BadValue,
        ProtocolErrorKind::Unexpected,
        ProtocolErrorKind::SessionError,
    ]
    .map(ProtocolErrorKind::label);
    let others = [
        "dubbed",
        "not_sent",
        "passthrough",
        "openings",
        "probes",
        "reinits",
        "reconnected",
        "complete",
        "gone",
        "refused",
        "most out 5",
    ];
    for path in reasons.into_iter().chain(kinds).chain(others) {
        let times = paths.get(path).copied().unwrap_or_default();
        assert!(times >= 20, "{path} happened only {times} times");
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
