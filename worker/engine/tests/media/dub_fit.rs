//! Answers of every length, fitted to their slots.

use dub_engine::dub_fit::MisfitRule;
use dub_engine::{Answer, DubFit, DubFitConfig, DubFitHow, DubFitMode, Placement};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

const RATE: u32 = 48_000;
/// 2 s.
const SLOT: u64 = 96_000;

fn fit(mode: DubFitMode, spill_ms: u64) -> DubFit {
    DubFit::new(DubFitConfig {
        mode,
        max_speed: 1.4,
        spill: Duration::from_millis(spill_ms),
        rate: RATE,
    })
}

fn share(ratio: f64) -> u64 {
    (SLOT as f64 * ratio).round() as u64
}

/// `ratio` of a slot in all, with silence at the ends, in thousandths of a slot.
fn answer(ratio: f64, head: f64, tail: f64) -> Answer {
    Answer {
        frames: share(ratio),
        head: share(head),
        tail: share(tail),
    }
}

fn place(fit: &mut DubFit, answer: Answer) -> Result<Placement, MisfitRule> {
    let judged = fit.judge(answer, SLOT).map_err(|misfit| misfit.rule);
    let placed = fit.place(answer, SLOT, SLOT).map_err(|misfit| misfit.rule);
    assert_eq!(judged.is_ok(), placed.is_ok());
    placed
}

/// `how`, speed, start and end in thousandths of the slot.
fn told(placed: Result<Placement, MisfitRule>) -> String {
    use DubFitHow::{Spilled, Stretched};
    match placed {
        Ok(placed) => {
            let stretched = matches!(placed.how, Stretched | Spilled);
            assert_eq!(placed.is_untouched(), !stretched, "{placed:?}");
            format!(
                "{} x{:.2} {}..{}",
                placed.how.label(),
                f64::from(placed.speed_permille()) / 1000.0,
                placed.at * 1000 / SLOT,
                (placed.at + placed.frames) * 1000 / SLOT,
            )
        }
        Err(rule) => format!("refused: {rule:?}"),
    }
}

#[test]
fn every_length_alone() {
    for (length, refuse, stretch, spill) in [
        (0.0, "refused: Empty", "refused: Empty", "refused: Empty"),
        (
            0.4,
            "refused: Tolerance",
            "padded x1.00 0..400",
            "padded x1.00 0..400",
        ),
        (
            0.6,
            "refused: Tolerance",
            "padded x1.00 0..600",
            "padded x1.00 0..600",
        ),
        (
            0.84,
            "refused: Tolerance",
            "padded x1.00 0..840",
            "padded x1.00 0..840",
        ),
        (
            0.85,
            "refused: Tolerance",
            "stretched x0.85 0..1000",
            "stretched x0.85 0..1000",
        ),
        (
            0.92,
            "padded x1.00 0..920",
            "stretched x0.92 0..1000",
            "stretched x0.92 0..1000",
        ),
        (
            0.98,
            "padded x1.00 0..980",
            "padded x1.00 0..980",
            "padded x1.00 0..980",
        ),
        (
            1.0,
            "exact x1.00 0..1000",
            "exact x1.00 0..1000",
            "exact x1.00 0..1000",
        ),
        (
            1.02,
            "trimmed x1.00 0..1000",
            "trimmed x1.00 0..1000",
            "trimmed x1.00 0..1000",
        ),
        (
            1.08,
            "trimmed x1.00 0..1000",
            "stretched x1.08 0..1000",
            "stretched x1.08 0..1000",
        ),
        (
            1.2,
            "refused: Tolerance",
            "stretched x1.20 0..1000",
            "stretched x1.20 0..1000",
        ),
        (
            1.35,
            "refused: Tolerance",
            "stretched x1.35 0..1000",
            "stretched x1.35 0..1000",
        ),
        (
            1.6,
            "refused: Tolerance",
            "refused: Speed(1400)",
            "spilled x1.40 0..1142",
        ),
        (
            1.8,
            "refused: Tolerance",
            "refused: Speed(1400)",
            "refused: Speed(1400)",
        ),
    ] {
        let told = |mode, spill| told(place(&mut fit(mode, spill), answer(length, 0.0, 0.0)));
        assert_eq!(told(DubFitMode::Refuse, 500), refuse, "{length}");
        assert_eq!(told(DubFitMode::Stretch, 0), stretch, "{length}");
        assert_eq!(told(DubFitMode::Stretch, 500), spill, "{length}");
    }
}

#[test]
fn limits_to_the_sample() {
    for (frames, expected) in [
        // 0.85, and a little for what encoders round.
        (81_119, "padded"),
        (81_120, "stretched"),
        // Its slot's length, but for the rounding of a codec.
        (SLOT - 65, "padded"),
        (SLOT - 64, "exact"),
        (SLOT + 64, "exact"),
        (SLOT + 65, "trimmed"),
        // At 1.4 times its speed half a second longer than the slot.
        (167_999, "spilled"),
        (168_001, "refused"),
    ] {
        let answer = Answer {
            frames,
            head: 0,
            tail: 0,
        };
        let placed = place(&mut fit(DubFitMode::Stretch, 500), answer);
        let how = placed.map_or(DubFitHow::Refused, |placed| placed.how);
        assert_eq!(how.label(), expected, "{frames}");
    }
}

#[test]
fn silence_at_the_ends_gives_way_first_and_speech_starts_where_it_did() {
    for (length, head, tail, refuse, stretch) in [
        // Silence behind the speech is all that is too much.
        (
            1.3,
            0.0,
            0.3,
            "trimmed x1.00 0..1000",
            "trimmed x1.00 0..1000",
        ),
        (
            1.5,
            0.0,
            0.2,
            "refused: Tolerance",
            "stretched x1.30 0..1000",
        ),
        // An answer of the right length is left alone, however little speech is in it.
        (1.0, 0.4, 0.4, "exact x1.00 0..1000", "exact x1.00 0..1000"),
        // Speech starts where it did, as long as speed can make up for it.
        (
            1.2,
            0.1,
            0.0,
            "trimmed x1.00 0..1000",
            "stretched x1.22 100..1000",
        ),
        (
            1.4,
            0.1,
            0.0,
            "refused: Tolerance",
            "stretched x1.40 71..1000",
        ),
        (
            1.6,
            0.3,
            0.0,
            "refused: Tolerance",
            "stretched x1.40 71..1000",
        ),
        // Shorter: the silence stays as long as it is.
        (
            0.9,
            0.2,
            0.2,
            "padded x1.00 0..900",
            "stretched x0.90 200..755",
        ),
        (0.7, 0.2, 0.0, "refused: Tolerance", "padded x1.00 0..700"),
        // No speech at all: silence of any length will do.
        (0.5, 0.5, 0.0, "refused: Tolerance", "padded x1.00 0..500"),
        (0.5, 0.5, 0.5, "refused: Tolerance", "padded x1.00 0..500"),
        (
            3.0,
            3.0,
            0.0,
            "trimmed x1.00 0..1000",
            "trimmed x1.00 0..1000",
        ),
    ] {
        let answer = answer(length, head, tail);
        let told = |mode| told(place(&mut fit(mode, 0), answer));
        assert_eq!(told(DubFitMode::Refuse), refuse, "{length} {head} {tail}");
        assert_eq!(told(DubFitMode::Stretch), stretch, "{length} {head} {tail}");
    }
}

#[test]
fn no_speech_is_cut_while_silence_is_kept_in_front_of_it() {
    for (mode, length, head, at, from, take) in [
        (DubFitMode::Refuse, 1.08, 0.08, 0, 80, 1000),
        (DubFitMode::Refuse, 1.08, 0.2, 120, 200, 880),
        (DubFitMode::Refuse, 1.09, 0.05, 0, 50, 1000),
        (DubFitMode::Stretch, 1.02, 0.1, 80, 100, 920),
        (DubFitMode::Stretch, 1.03, 0.01, 0, 10, 1000),
    ] {
        let placed = place(&mut fit(mode, 0), answer(length, head, 0.0)).unwrap();
        assert_eq!(
            [placed.at, placed.from, placed.take, placed.frames]
                .map(|samples| samples * 1_000 / SLOT),
            [at, from, take, take],
            "{length} {head}"
        );
        assert_eq!(placed.how, DubFitHow::Trimmed);
    }
}

#[test]
fn what_runs_on_delays_the_next_only_as_far_as_it_must() {
    let long = answer(1.6, 0.0, 0.0);
    for (next, expected) in [
        // Silence at the start gives way to it.
        (answer(1.0, 0.3, 0.0), "exact x1.00 142..1000"),
        (answer(0.9, 0.05, 0.05), "padded x1.00 142..992"),
        (answer(0.9, 0.1, 0.0), "stretched x0.94 142..991"),
        (answer(0.4, 0.1, 0.0), "padded x1.00 142..442"),
        // Else the speech sets in later and is faster.
        (answer(1.0, 0.0, 0.0), "stretched x1.17 142..1000"),
        (answer(1.19, 0.0, 0.0), "stretched x1.39 142..1000"),
        // Or runs on in turn, as far as is allowed.
        (answer(1.3, 0.0, 0.0), "spilled x1.40 142..1071"),
        // And cuts the one before short where even that is not enough.
        (answer(1.6, 0.0, 0.0), "spilled x1.40 107..1250"),
    ] {
        let mut fit = fit(DubFitMode::Stretch, 500);
        place(&mut fit, long).unwrap();
        let told = told(place(&mut fit, next));
        assert!(
            told.starts_with(expected) || told == expected,
            "{next:?}: {told}, not {expected}"
        );
    }
}

#[test]
fn a_speed_is_rounded() {
    let how = DubFitHow::Stretched;
    for (take, frames, permille) in [
        (2, 3, 667),
        (1, 3, 333),
        (2, 12, 167),
        (7, 5, 1_400),
        (0, 0, 1_000),
    ] {
        let placed = Placement {
            how,
            at: 0,
            from: 0,
            take,
            frames,
        };
        assert_eq!(placed.speed_permille(), permille);
    }
}

#[test]
fn an_original_segment_ends_what_runs_on() {
    let mut fit = fit(DubFitMode::Stretch, 500);
    let long = place(&mut fit, answer(1.6, 0.0, 0.0)).unwrap();
    assert_eq!(long.frames - SLOT, 13_715);
    fit.pass(13_714);
    assert_eq!(place(&mut fit, answer(1.0, 0.0, 0.0)).unwrap().at, 1);
    place(&mut fit, answer(1.6, 0.0, 0.0)).unwrap();
    fit.pass(SLOT);
    assert_eq!(
        told(place(&mut fit, answer(1.0, 0.0, 0.0))),
        "exact x1.00 0..1000"
    );
}

#[test]
fn every_reason_names_what_helps() {
    let refused = |mode, length| {
        fit(mode, 0)
            .judge(answer(length, 0.0, 0.0), SLOT)
            .unwrap_err()
    };
    let text = refused(DubFitMode::Refuse, 1.2).to_string();
    assert!(
        text.contains("2400 ms where 2000 ms") && text.contains("--dub-fit stretch"),
        "{text}"
    );
    let text = refused(DubFitMode::Stretch, 1.6).to_string();
    assert!(
        text.contains("1.40 times") && text.contains("--dub-max-speed"),
        "{text}"
    );
}

/// Whatever comes: in the slot or as far beyond as allowed, at a speed within limits, nothing of an
/// answer twice, and what was judged good is heard.
#[test]
fn whatever_comes_is_within_limits() {
    for seed in 0..2_000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let stretch = rng.random_bool(0.7);
        let mode = if stretch {
            DubFitMode::Stretch
        } else {
            DubFitMode::Refuse
        };
        let spill_ms = rng.random_range(0..=900) * u64::from(rng.random_bool(0.7));
        let spill = if stretch { spill_ms * 48 } else { 0 };
        let max_speed = rng.random_range(1.0..2.0);
        let mut fit = DubFit::new(DubFitConfig {
            mode,
            max_speed,
            spill: Duration::from_millis(spill_ms),
            rate: RATE,
        });
        let mut carry = 0;
        for _ in 0..20 {
            let want = rng.random_range(48_000..300_000);
            let slot = want + rng.random_range(0..50_000);
            let frames = rng.random_range(1..want * 2);
            let answer = Answer {
                frames,
                head: rng.random_range(0..=frames) / 2,
                tail: rng.random_range(0..=frames) / 2,
            };
            let good = fit.judge(answer, want).is_ok();
            let placed = fit.place(answer, want, slot);
            assert_eq!(
                good,
                placed.is_ok(),
                "seed {seed}: {answer:?} after {carry}"
            );
            let before: u64 = carry;
            let end = placed.map_or(before, |placed| placed.at + placed.frames);
            carry = end.saturating_sub(slot);
            let Ok(placed) = placed else { continue };
            let told = format!("seed {seed}: {answer:?} in {want} after {before}: {placed:?}");
            assert!(placed.from + placed.take <= frames, "{told}");
            assert!(end <= want + spill, "{told}");
            assert_eq!(placed.how == DubFitHow::Spilled, end > want, "{told}");
            assert!(
                placed.at >= before || placed.how == DubFitHow::Spilled,
                "{told}"
            );
            if !placed.is_untouched() {
                let speed = placed.take as f64 / placed.frames as f64;
                assert!(
                    stretch && (0.84..=max_speed + 0.001).contains(&speed),
                    "{told}"
                );
            }
        }
    }
}
