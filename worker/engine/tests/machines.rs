//! The full transition table of every small machine, legal and not.
//!
//! One line per state and fact: where it leads, `-` for a fact that changes nothing, `invalid` for
//! one that has no place there.

use dub_engine::BackpressureAction;
use dub_engine::backoff::{BackoffFact, BackoffState};
use dub_engine::backpressure::Pace;
use dub_engine::breaker::{BreakerConfig, BreakerFact, Circuit, Verdict};
use dub_engine::in_flight::{FragmentFact, FragmentState};
use dub_engine::machine::Transition;
use dub_engine::session::link::{LinkFact, Phase};
use dub_engine::{At, ProtocolErrorKind};
use std::fmt::Debug;
use std::time::Duration;

fn table<S: Debug + Copy, F: Debug + Copy>(
    states: &[S],
    facts: &[F],
    on: impl Fn(S, F) -> Transition<S>,
) -> String {
    let mut rows = Vec::new();
    for state in states {
        for fact in facts {
            let next = match on(*state, *fact) {
                Transition::To(next) => format!("{next:?}"),
                Transition::NoOp => "-".to_owned(),
                Transition::Invalid => "invalid".to_owned(),
            };
            let (state, fact) = (format!("{state:?}"), format!("{fact:?}"));
            rows.push(format!("{state:40} {fact:30} {next}"));
        }
    }
    rows.join("\n")
}

#[test]
fn breaker() {
    let config = BreakerConfig {
        failures: 3,
        cooldown: Duration::from_secs(30),
    };
    let states = [
        Circuit::Closed { failures: 0 },
        Circuit::Closed { failures: 1 },
        Circuit::Closed { failures: 2 },
        Circuit::Open {
            until: At::from_millis(40_000),
        },
        Circuit::HalfOpen { probing: false },
        Circuit::HalfOpen { probing: true },
    ];
    let facts = [
        BreakerFact::Called,
        BreakerFact::Ended(Verdict::Success),
        BreakerFact::Ended(Verdict::Failure),
        BreakerFact::Ended(Verdict::Neutral),
        BreakerFact::CooledDown,
    ];
    // At 100 s, so a fresh cooldown ends at 130 s and the old one at 40 s.
    let at = At::from_millis(100_000);
    insta::assert_snapshot!(table(&states, &facts, |state, fact| state.on(at, fact, &config)));
}

#[test]
fn backpressure() {
    let ms = Duration::from_millis;
    let states = [
        Pace::Free,
        Pace::Slowed {
            delay: ms(500),
            since: At::from_millis(1_000),
        },
        Pace::Paused,
    ];
    let facts = [
        (BackpressureAction::None, None),
        (BackpressureAction::Pause, None),
        (BackpressureAction::SlowDown, None),
        (BackpressureAction::SlowDown, Some(ms(500))),
        (BackpressureAction::SlowDown, Some(ms(900))),
    ];
    let at = At::from_millis(2_000);
    insta::assert_snapshot!(table(&states, &facts, |state, (action, delay)| {
        state.on(at, action, delay)
    }));
}

#[test]
fn link() {
    let facts = [
        LinkFact::Start,
        LinkFact::Connected,
        LinkFact::Ready,
        LinkFact::SessionLost,
        LinkFact::Lost,
        LinkFact::RetryDue,
        LinkFact::EndSent,
        LinkFact::Over,
    ];
    insta::assert_snapshot!(table(&Phase::ALL, &facts, Phase::on));
}

#[test]
fn fragment() {
    let facts = [
        FragmentFact::AckQueued,
        FragmentFact::AckProcessing,
        FragmentFact::Audio,
        FragmentFact::Failure,
        FragmentFact::Timeout,
        FragmentFact::SessionGone,
        FragmentFact::CheckedGood,
        FragmentFact::CheckedBad,
    ];
    insta::assert_snapshot!(table(&FragmentState::ALL, &facts, FragmentState::on));
}

#[test]
fn backoff() {
    let states = [
        BackoffState::Fresh,
        BackoffState::Retrying { attempt: 1 },
        BackoffState::Retrying { attempt: 4 },
        BackoffState::Retrying { attempt: 5 },
        BackoffState::Exhausted,
    ];
    let facts = [BackoffFact::Failed, BackoffFact::Succeeded];
    insta::assert_snapshot!(table(&states, &facts, |state, fact| state.on(fact, 5)));
    let at_once = BackoffState::Fresh.on(BackoffFact::Failed, 0);
    assert_eq!(at_once, Transition::To(BackoffState::Exhausted));
}

#[test]
fn an_answer_to_a_settled_fragment_has_a_name() {
    let misfits: Vec<(FragmentState, ProtocolErrorKind)> = FragmentState::ALL
        .into_iter()
        .map(|state| (state, state.misfit()))
        .skip(3)
        .collect();
    insta::assert_debug_snapshot!(misfits);
}
