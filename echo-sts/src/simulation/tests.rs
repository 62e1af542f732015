//! Each setting alone, then scopes and counts.

use sts_protocol::{ErrorCode, ReplyFormat, Trigger};

use super::*;
use crate::audio::Work;

fn fragment(sequence: u64) -> Subject<'static> {
    Subject {
        fragment_id: "the-id",
        sequence,
        nth: sequence + 1,
    }
}

fn errors(rules: Vec<ErrorRule>) -> Setting {
    Setting::Errors(ErrorSimulation {
        stream_id: None,
        enabled: true,
        rules,
    })
}

fn audio(mode: AudioMode, count: Option<u64>) -> Setting {
    Setting::Audio(AudioConfig {
        count,
        ..AudioConfig::new(mode)
    })
}

fn latency(base_ms: u64, jitter_ms: u64, seed: u64) -> Setting {
    Setting::Latency(LatencyConfig {
        stream_id: None,
        base_ms,
        jitter_ms: Some(jitter_ms),
        seed: Some(seed),
    })
}

fn set(settings: &[Setting]) -> Simulation {
    let mut simulation = Simulation::default();
    for setting in settings {
        simulation.set(&Scope::Everyone, setting).unwrap();
    }
    simulation
}

/// Error codes of the first `n` fragments; `-` where none.
fn codes(simulation: &mut Simulation, n: u64) -> String {
    let code = |sequence| match simulation.plan("s", fragment(sequence)).fate {
        Fate::Fail(error) => error.code.to_string(),
        _ => "-".to_owned(),
    };
    (0..n).map(code).collect::<Vec<_>>().join(" ")
}

#[test]
fn without_settings_a_fragment_is_echoed_at_once() {
    let plan = Simulation::default().plan("s", fragment(0));
    assert_eq!(
        plan,
        Plan {
            delay: Duration::ZERO,
            fate: Fate::Echo
        }
    );
}

#[test]
fn the_first_matching_rule_fails_the_fragment_and_counts_are_bounds() {
    let nth = |n: u64| ErrorRule {
        trigger: Trigger::NthFragment,
        value: Some(n.into()),
        ..ErrorRule::always(ErrorCode::GpuOom)
    };
    let mut simulation = set(&[errors(vec![
        ErrorRule::sequence(1, ErrorCode::Timeout),
        nth(2).times(2),
        ErrorRule::always(ErrorCode::QueueFull).times(1),
    ])]);
    assert_eq!(
        codes(&mut simulation, 7),
        "QUEUE_FULL TIMEOUT - GPU_OOM - GPU_OOM -"
    );
}

#[test]
fn a_rule_can_name_a_fragment_by_its_id() {
    let rule = |id: &str| ErrorRule {
        trigger: Trigger::FragmentId,
        value: Some(id.into()),
        ..ErrorRule::always(ErrorCode::ModelError)
    };
    assert_eq!(
        codes(&mut set(&[errors(vec![rule("the-id")])]), 1),
        "MODEL_ERROR"
    );
    assert_eq!(codes(&mut set(&[errors(vec![rule("another")])]), 1), "-");
}

#[test]
fn a_rule_says_what_the_error_looks_like() {
    let mut simulation = set(&[errors(vec![ErrorRule {
        error_message: Some("the model fell over".to_owned()),
        retryable: Some(false),
        stage: Some("tts".to_owned()),
        ..ErrorRule::always(ErrorCode::ModelError)
    }])]);
    let Fate::Fail(error) = simulation.plan("s", fragment(0)).fate else {
        panic!("must fail")
    };
    assert_eq!(
        error,
        FragmentError {
            code: ErrorCode::ModelError,
            message: "the model fell over".to_owned(),
            stage: Some("tts".to_owned()),
            retryable: false,
        }
    );
}

#[test]
fn without_a_word_on_it_retryable_is_the_codes_own() {
    for (code, retryable) in [
        (ErrorCode::Timeout, true),
        (ErrorCode::InvalidConfig, false),
        (ErrorCode::from("SOLAR_FLARE"), false),
    ] {
        let mut simulation = set(&[errors(vec![ErrorRule::always(code)])]);
        let Fate::Fail(error) = simulation.plan("s", fragment(0)).fate else {
            panic!()
        };
        assert_eq!(error.retryable, retryable, "{error:?}");
    }
}

#[test]
fn disabled_rules_do_nothing() {
    let off = Setting::Errors(ErrorSimulation {
        stream_id: None,
        enabled: false,
        rules: vec![ErrorRule::always(ErrorCode::Timeout)],
    });
    assert_eq!(codes(&mut set(&[off]), 2), "- -");
}

#[test]
fn jitter_is_repeatable_bounded_and_spread() {
    let series = |seed| -> Vec<u64> {
        let mut simulation = set(&[latency(200, 300, seed)]);
        (0..1_000)
            .map(|n| simulation.plan("s", fragment(n)).delay.as_millis() as u64)
            .collect()
    };
    assert_eq!(series(7), series(7));
    assert_ne!(series(7), series(8));
    let delays = series(7);
    assert!(delays.iter().all(|ms| (200..=500).contains(ms)));
    let mean = delays.iter().sum::<u64>() / 1_000;
    assert!((335..=365).contains(&mean), "mean {mean}");
}

#[test]
fn extreme_latencies_do_not_overflow() {
    let mut simulation = set(&[latency(u64::MAX, u64::MAX, 1)]);
    assert_eq!(
        simulation.plan("s", fragment(3)).delay,
        Duration::from_millis(u64::MAX)
    );
}

#[test]
fn an_audio_mode_lasts_for_its_count_and_failed_fragments_do_not_use_it_up() {
    let mut simulation = set(&[
        audio(AudioMode::Hold, Some(2)),
        errors(vec![ErrorRule::sequence(0, ErrorCode::Timeout)]),
    ]);
    let fates: Vec<_> = (0..4)
        .map(|n| simulation.plan("s", fragment(n)).fate)
        .collect();
    assert!(matches!(fates[0], Fate::Fail(_)));
    assert_eq!(fates[1..], [Fate::Hold, Fate::Hold, Fate::Echo]);
}

#[test]
fn a_mode_that_changes_the_sound_becomes_a_job() {
    let mut simulation = set(&[Setting::Audio(AudioConfig {
        ratio: Some(0.92),
        format: Some(ReplyFormat::PcmS16le),
        ..AudioConfig::new(AudioMode::Resize)
    })]);
    let job = Job {
        work: Work::Resize(0.92),
        format: ReplyFormat::PcmS16le,
    };
    assert_eq!(simulation.plan("s", fragment(0)).fate, Fate::Render(job));
}

/// Lengths that the first `count` fragments of a stream get.
fn lengths(config: &AudioConfig, count: u64) -> Vec<f64> {
    let mut simulation = set(&[Setting::Audio(config.clone())]);
    let length = |n| match simulation.plan("s", fragment(n)).fate {
        Fate::Render(Job {
            work: Work::Speech { ratio, .. },
            ..
        }) => ratio,
        other => panic!("no speech: {other:?}"),
    };
    (0..count).map(length).collect()
}

#[test]
fn speech_has_the_lengths_its_seed_draws() {
    let speech = |seed| AudioConfig {
        seed: Some(seed),
        ..AudioConfig::new(AudioMode::Speech)
    };
    let drawn = lengths(&speech(1), 2_000);
    let mean = drawn.iter().sum::<f64>() / 2_000.0;
    let spread = (drawn.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / 2_000.0).sqrt();
    assert!((mean - 1.22).abs() < 0.01, "{mean}");
    assert!((spread - 0.12).abs() < 0.01, "{spread}");
    // Two thirds within one deviation, 95 % within two: drawn as real lengths are, not evenly.
    let within = |k: f64| {
        drawn
            .iter()
            .filter(|r| (*r - mean).abs() < k * spread)
            .count()
    };
    assert!((1_280..1_450).contains(&within(1.0)), "{}", within(1.0));
    assert!((1_870..1_940).contains(&within(2.0)), "{}", within(2.0));
    assert_eq!(lengths(&speech(1), 40), drawn[..40], "the same again");
    assert_ne!(lengths(&speech(2), 40), drawn[..40]);
    let other = AudioConfig {
        ratio: Some(0.9),
        spread: Some(0.0),
        ..speech(1)
    };
    assert_eq!(lengths(&other, 3), [0.9; 3]);
}

#[test]
fn lengths_of_a_list_follow_one_another() {
    let list = AudioConfig {
        ratios: vec![0.4, 1.6],
        ..AudioConfig::new(AudioMode::Speech)
    };
    assert_eq!(lengths(&list, 5), [0.4, 1.6, 0.4, 1.6, 0.4]);
}

#[test]
fn a_streams_own_setting_wins_until_everyone_gets_another_of_that_kind() {
    let stream = Scope::Stream("mine".to_owned());
    let mut simulation = set(&[latency(10, 0, 0)]);
    simulation.set(&stream, &latency(20, 0, 0)).unwrap();
    simulation
        .set(&stream, &audio(AudioMode::Mark, None))
        .unwrap();
    let delay = |s: &mut Simulation, stream| s.plan(stream, fragment(0)).delay.as_millis();
    assert_eq!(
        (
            delay(&mut simulation, "mine"),
            delay(&mut simulation, "other")
        ),
        (20, 10)
    );

    simulation
        .set(&Scope::Everyone, &latency(30, 0, 0))
        .unwrap();
    assert_eq!(
        (
            delay(&mut simulation, "mine"),
            delay(&mut simulation, "other")
        ),
        (30, 30)
    );
    let fate = simulation.plan("mine", fragment(0)).fate;
    assert!(
        matches!(fate, Fate::Render(_)),
        "its audio mode is not touched: {fate:?}"
    );
}

#[test]
fn settings_for_single_streams_are_bounded() {
    let mut simulation = Simulation::default();
    for n in 0..MAX_STREAMS {
        simulation
            .set(&Scope::Stream(n.to_string()), &latency(1, 0, 0))
            .unwrap();
    }
    assert!(
        simulation
            .set(&Scope::Stream("more".to_owned()), &latency(1, 0, 0))
            .is_err()
    );
    assert!(
        simulation
            .set(&Scope::Stream("7".to_owned()), &latency(2, 0, 0))
            .is_ok()
    );
}

#[test]
fn levels_are_shares_of_max_inflight() {
    let config = BackpressureConfig::default();
    let levels = |max| -> Vec<Level> {
        (0..=max)
            .map(|n| Level::of(&config, n as usize, max))
            .collect()
    };
    use Level::{Calm, High, Low, Medium};
    assert_eq!(levels(3), [Calm, Calm, Low, High]);
    assert_eq!(levels(4), [Calm, Calm, Low, Medium, High]);
    assert_eq!(
        levels(10),
        [
            Calm, Calm, Calm, Calm, Calm, Low, Low, Medium, Medium, High, High
        ]
    );
}
