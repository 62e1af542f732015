//! Pacing in virtual time: pairs become ready, and the moments they leave are looked at.

mod input;

use dub_engine::{At, Event, Pair, Playout, PlayoutConfig, Pts};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

const SEGMENT: i64 = 6_000;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What one run looked like, pair by pair.
#[derive(Default)]
struct Run {
    begins: Vec<At>,
    latencies: Vec<Duration>,
    /// Pair and duration.
    stalls: Vec<(u64, Duration)>,
    events: Vec<String>,
    most_remembered: usize,
}

impl Run {
    fn latency_ms(&self, pair: usize) -> i64 {
        self.latencies[pair].as_millis() as i64
    }

    /// The pairs from which on latency was won back.
    fn catch_up_starts(&self) -> Vec<u64> {
        let batch = |event: &String| {
            let rest = event.strip_prefix("catch_up_started batch=")?;
            rest.split(' ').next()?.parse().ok()
        };
        self.events.iter().filter_map(batch).collect()
    }

    fn stalls_after(&self, pair: u64) -> Vec<(u64, Duration)> {
        self.stalls
            .iter()
            .filter(|(batch, _)| *batch > pair)
            .copied()
            .collect()
    }
}

/// A pair as the world makes it: where it lies and when things happened to it, all in ms.
struct Made {
    start: i64,
    length: i64,
    captured: i64,
    ready: i64,
}

/// Pairs of 6 s, each answered after its latency (ms); results are handed on in order.
fn pairs(latencies: impl IntoIterator<Item = i64>) -> Vec<Made> {
    let mut newest = 0;
    let make = |(n, latency): (usize, i64)| {
        let start = n as i64 * SEGMENT;
        newest = newest.max(start + SEGMENT + latency);
        Made {
            start,
            length: SEGMENT,
            captured: start,
            ready: newest,
        }
    };
    latencies.into_iter().enumerate().map(make).collect()
}

/// Pairs of 3 to 10 s, cut where somebody pauses: each is there when the longest would be over.
fn spoken(seed: u64, latencies: impl IntoIterator<Item = i64>) -> Vec<Made> {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut start, mut newest) = (0, 0);
    let make = |latency: i64| {
        let length = rng.random_range(3_000..=10_000);
        newest = newest.max(start + 10_000 + latency);
        let made = Made {
            start,
            length,
            captured: start,
            ready: newest,
        };
        start += length;
        made
    };
    latencies.into_iter().map(make).collect()
}

/// Plays pairs and checks on the way what must hold in any run: real time at its normal pace or at
/// most 4 % faster, no unit before the one in front of it, no jump but for a stall.
fn play(made: Vec<Made>) -> Run {
    play_with(PlayoutConfig::default(), made)
}

fn play_with(config: PlayoutConfig, made: Vec<Made>) -> Run {
    let mut playout = Playout::new(config);
    let mut run = Run::default();
    let mut before: Option<(i64, At)> = None;
    for (batch, made) in made.into_iter().enumerate() {
        let at = |ms: i64| At::from_millis(u64::try_from(ms).expect("positive"));
        let batch = batch as u64;
        let (start, end) = (made.start, made.start + made.length);
        assert_eq!(
            playout.due(Pts::from_millis(start)),
            None,
            "due before it is ready"
        );
        playout.pair_ready(
            at(made.ready),
            Pair {
                batch,
                start: Pts::from_millis(start),
                end: Pts::from_millis(end),
                captured: at(made.captured),
                worked: Duration::ZERO,
            },
        );
        let mut stall = Duration::ZERO;
        while let Some(event) = playout.poll_event() {
            if let Event::Stall { batch, duration } = event {
                stall = duration;
                run.stalls.push((batch, duration));
            }
            run.events.push(event.to_string());
        }
        for pts in (start..end).step_by(40) {
            let due = playout
                .due(Pts::from_millis(pts))
                .expect("its pair is ready");
            assert!(due >= at(made.ready), "due before its pair was ready");
            if let Some((last_pts, last_due)) = before {
                assert!(due >= last_due, "{pts} leaves before {last_pts}");
                let (media, wall) = (
                    (pts - last_pts) as f64,
                    due.since(last_due).as_secs_f64() * 1e3,
                );
                let slowest = media + 20.0 + stall.as_secs_f64() * 1e3 + 0.001;
                assert!(
                    wall >= media / 1.0401,
                    "{pts}: {wall} ms for {media} ms is a jump"
                );
                assert!(
                    wall <= slowest,
                    "{pts}: {wall} ms for {media} ms is a stall untold"
                );
                stall = Duration::ZERO;
            }
            before = Some((pts, due));
        }
        let begin = playout.due(Pts::from_millis(start));
        run.begins.push(begin.expect("just made"));
        run.latencies.push(playout.latency());
        assert_eq!(playout.latency_of(batch), Some(playout.latency()));
        let remembered = |batch: &u64| playout.latency_of(*batch).is_some();
        let remembered = (batch.saturating_sub(99)..=batch)
            .filter(remembered)
            .count();
        assert!(
            remembered >= 2.min(batch as usize + 1),
            "the pair before may still be leaving"
        );
        run.most_remembered = run.most_remembered.max(remembered);
    }
    run
}

fn random_latency(seed: u64, pairs_wanted: usize, most: i64) -> Run {
    let mut rng = StdRng::seed_from_u64(seed);
    play(pairs((0..pairs_wanted).map(|_| rng.random_range(0..=most))))
}

#[test]
fn output_starts_with_the_first_pair_and_then_keeps_real_time() {
    let run = play(pairs([300; 20]));
    assert_eq!(run.begins[0], At::from_millis(6_300));
    for (n, begin) in run.begins.iter().enumerate() {
        assert_eq!(*begin, At::from_millis(6_300 + n as u64 * 6_000));
    }
    assert_eq!(
        run.events,
        ["output_started batch=0 latency_ms=6300 head_room_ms=0"]
    );
}

fn head_room(least: u64, most: u64) -> PlayoutConfig {
    PlayoutConfig {
        head_room: (ms(least), ms(most)),
        ..PlayoutConfig::default()
    }
}

#[test]
fn head_room_holds_the_first_pair_and_is_kept_while_the_service_swings() {
    // Up to half a second later than the first: no stall. A real stall is won back.
    let latencies = (0..80).map(|n| if n == 9 { 4_300 } else { 300 + (n * 97) % 499 });
    let run = play_with(head_room(500, 500), pairs(latencies));
    assert_eq!(run.begins[0], At::from_millis(6_800));
    assert_eq!(run.latency_ms(0), 6_800);
    assert_eq!(run.stalls, [(9, ms(3_500))]);
    assert!(
        run.latencies.iter().all(|latency| *latency >= ms(6_800)),
        "head room was spent"
    );
    assert!(run.latency_ms(79) <= 7_050, "{}", run.latency_ms(79));
}

#[test]
fn head_room_is_what_the_machine_needed_at_the_start() {
    for (worked, late, expected) in [
        (0, 0, 50),
        (60, 5, 70),
        (60, 100, 260),
        (150, 20, 190),
        (2_000, 40, 500),
    ] {
        let mut playout = Playout::new(head_room(50, 500));
        playout.machine_was_late(ms(late));
        playout.machine_was_late(ms(late / 2));
        playout.pair_ready(
            At::from_millis(6_300),
            Pair {
                batch: 0,
                start: Pts::from_millis(0),
                end: Pts::from_millis(SEGMENT),
                captured: At::ZERO,
                worked: ms(worked),
            },
        );
        let told = playout.poll_event().map(|event| event.to_string());
        let latency = 6_300 + expected;
        assert_eq!(
            told.as_deref(),
            Some(
                format!("output_started batch=0 latency_ms={latency} head_room_ms={expected}")
                    .as_str()
            )
        );
    }
}

/// Twenty workers started at once: their first pairs come up to two seconds late, and were taken
/// for the service's latency for ever.
#[test]
fn a_slow_start_is_forgotten_within_two_minutes_without_a_stall() {
    let slow: [&[i64]; 3] = [&[2_300], &[2_300, 1_500], &[2_300, 2_200, 1_200, 700]];
    for slow in slow {
        let latencies =
            (0..40).map(|n: usize| slow.get(n).copied().unwrap_or(300 + (n as i64 * 37) % 60));
        let run = play_with(head_room(50, 500), pairs(latencies));
        assert_eq!(run.stalls, [], "{slow:?}");
        assert!(run.latency_ms(0) >= 8_300, "{slow:?}");
        assert!(run.latency_ms(19) <= 6_500, "{slow:?}: {:?}", run.latencies);
        assert!(
            run.latencies[20..]
                .iter()
                .all(|l| *l >= ms(6_360) && *l <= ms(6_500)),
            "{slow:?}: {:?}",
            run.latencies
        );
    }
}

#[test]
fn the_lead_leaves_at_once_and_the_rest_at_its_time() {
    let config = PlayoutConfig {
        lead: ms(2_300),
        ..head_room(300, 300)
    };
    for segment in [6_000, 1_000_i64] {
        let mut playout = Playout::new(config.clone());
        for batch in 0..3 {
            let start = batch * segment;
            let ready = At::from_millis((start + segment + 300) as u64);
            playout.pair_ready(
                ready,
                Pair {
                    batch: batch as u64,
                    start: Pts::from_millis(start),
                    end: Pts::from_millis(start + segment),
                    captured: At::from_millis(start as u64),
                    worked: Duration::ZERO,
                },
            );
            for pts in (start..start + segment).step_by(20) {
                let due = playout.due(Pts::from_millis(pts)).expect("ready");
                // The head room holds the rest back, not the lead.
                let ready = segment + 300;
                let expected = if pts < 2_300 {
                    ready
                } else {
                    ready + 300 + pts
                };
                assert_eq!(due, At::from_millis(expected as u64), "{segment}: {pts}");
            }
            assert_eq!(playout.latency(), ms(segment as u64 + 600));
        }
    }
}

#[test]
fn jitter_of_a_few_milliseconds_is_no_stall() {
    for (most, stalls) in [(20, vec![]), (21, vec![(8, ms(21))])] {
        let run = play(pairs(
            (0..100).map(|n| if n % 9 == 8 { 300 + most } else { 300 }),
        ));
        assert_eq!(run.stalls, stalls);
        assert_eq!(run.latency_ms(99), 6_300 + most);
    }
}

#[test]
fn less_than_a_tenth_of_a_second_is_not_worth_winning_back() {
    // Twenty milliseconds are kept in any case.
    for (held, kept) in [(120, 120), (121, 20)] {
        let run = play_with(head_room(held, held), pairs([300; 30]));
        assert_eq!(run.latency_ms(29), 6_300 + kept, "{held} ms");
    }
}

/// Latency is won back once four pairs tell how late the service is: not the first three, and none
/// that became ready less than a quarter of a pair after the one in front of it.
#[test]
fn four_pairs_are_evidence_that_latency_can_come_down() {
    let rows: [(&[i64], u64); 3] = [(&[4_800], 3), (&[4_801], 4), (&[2_300, 2_300, 2_300], 6)];
    for (slow, back) in rows {
        let latency = |n: usize| slow.get(n).copied().unwrap_or(300);
        let run = play(pairs((0..20).map(latency)));
        assert_eq!(run.catch_up_starts(), [back], "{slow:?}");
    }
}

#[test]
fn one_answer_seven_seconds_late_is_one_stall_and_is_won_back_within_minutes() {
    let latencies = (0..60).map(|n| if n == 5 { 7_300 } else { 300 });
    let run = play(pairs(latencies));
    assert_eq!(run.stalls, [(5, ms(7_000))]);
    assert_eq!(run.latency_ms(5), 13_300);
    // At 4 % a pair of 6 s wins 231 ms, so 7 s take 31 pairs.
    let back = (5..60)
        .find(|n| run.latency_ms(*n) <= 6_300 + 25)
        .expect("never back");
    assert!((35..=40).contains(&back), "back at pair {back}");
    assert!(
        run.latencies[back..]
            .iter()
            .all(|latency| *latency <= ms(6_325))
    );
    assert_eq!(
        run.events,
        [
            "output_started batch=0 latency_ms=6300 head_room_ms=0",
            "stall batch=5 duration_ms=7000",
            "catch_up_started batch=8 excess_ms=6980",
            "catch_up_done batch=39 latency_ms=6320",
        ]
    );
}

/// With short pairs a late answer holds up several others. Its latency came back in two goes, the
/// second only when all of them were forgotten, and with a line in between that said it was back.
#[test]
fn pairs_held_up_by_a_late_one_do_not_count_as_late() {
    let mut newest = 0;
    let made = (0..110).map(|n: i64| {
        let start = n * 2_000;
        newest = newest.max(start + 2_000 + if n == 3 { 7_000 } else { 100 });
        // What is handed on at once is mixed one after the other.
        newest += 40;
        Made {
            start,
            length: 2_000,
            captured: start,
            ready: newest,
        }
    });
    let run = play_with(head_room(500, 500), made.collect());
    assert_eq!(run.stalls, [(3, ms(6_400))]);
    let back = (4..110).find(|n| run.latency_ms(*n) <= 2_640 + 25);
    assert!(back.is_some_and(|back| back <= 94), "back at {back:?}");
    let catching_up = run
        .events
        .iter()
        .filter(|event| event.starts_with("catch_up"));
    assert_eq!(catching_up.count(), 2, "{:?}", run.events);
}

#[test]
fn a_second_late_answer_while_winning_back_costs_nothing() {
    let run = play(pairs(
        (0..40).map(|n| if n == 5 || n == 8 { 6_300 } else { 300 }),
    ));
    assert_eq!(run.stalls.len(), 1, "{:?}", run.stalls);
}

#[test]
fn random_latency_settles_instead_of_swinging() {
    let (mut stalls, mut runs_without) = (0, 0);
    for seed in 0..200 {
        // Twenty minutes; the first two find out what the service is like.
        let run = random_latency(seed, 200, 500);
        let later = run.stalls_after(20);
        assert!(later.len() <= 4, "seed {seed}: {later:?}");
        assert!(
            later.iter().all(|(_, duration)| *duration < ms(250)),
            "seed {seed}: {later:?}"
        );
        let settled = &run.latencies[20..];
        let (low, high) = (settled.iter().min(), settled.iter().max());
        let swing = high.zip(low).map(|(high, low)| high.saturating_sub(*low));
        assert!(
            swing.is_some_and(|swing| swing < ms(250)),
            "seed {seed}: swings by {swing:?}"
        );
        assert!(
            high.is_some_and(|high| *high <= ms(6_500)),
            "more than the service ever needed"
        );
        stalls += later.len();
        runs_without += usize::from(later.is_empty());
    }
    println!("{stalls} stalls in 36,000 pairs, {runs_without} of 200 runs without");
    assert!(
        stalls <= 80 && runs_without >= 140,
        "{stalls} stalls, {runs_without} runs without"
    );
}

#[test]
fn a_service_that_swings_between_two_speeds_keeps_its_head_room() {
    let run = play(pairs((0..200).map(|n| if n % 2 == 0 { 100 } else { 600 })));
    assert_eq!(run.stalls_after(1), []);
    assert_eq!(run.latency_ms(199), 6_600);
}

#[test]
fn a_slow_spell_is_followed_by_a_way_back() {
    let run = play(pairs(
        (0..120).map(|n| if (20..40).contains(&n) { 2_500 } else { 200 }),
    ));
    assert_eq!(run.stalls, [(20, ms(2_300))]);
    assert!(
        run.latencies[21..40]
            .iter()
            .all(|latency| *latency == ms(8_500)),
        "stays while needed"
    );
    assert!(run.latency_ms(119) <= 6_225, "{}", run.latency_ms(119));
}

#[test]
fn latency_is_the_age_of_what_is_on_air() {
    let mut playout = Playout::new(PlayoutConfig::default());
    let pair = |batch, start: u64| Pair {
        batch,
        start: Pts::from_millis(start as i64),
        end: Pts::from_millis(start as i64 + SEGMENT),
        captured: At::from_millis(start),
        worked: Duration::ZERO,
    };
    let at = At::from_millis;
    assert_eq!(playout.latency_at(at(6_000)), None, "nothing is on air");
    playout.pair_ready(at(6_300), pair(0, 0));
    assert_eq!(playout.latency_at(at(6_299)), None, "nothing is on air yet");
    assert_eq!(playout.latency_at(at(6_300)), Some(ms(6_300)));
    assert_eq!(playout.latency_at(at(12_300)), Some(ms(6_300)));
    // The next one is 7 s late: what was last on air grows older.
    assert_eq!(playout.latency_at(at(17_300)), Some(ms(11_300)));
    playout.pair_ready(at(19_300), pair(1, 6_000));
    assert_eq!(playout.latency_at(at(19_300)), Some(ms(13_300)));
    // It is ready, and so is the one after, which is not on air yet.
    playout.pair_ready(at(19_400), pair(2, 12_000));
    for moment in [19_400, 25_299, 25_300, 31_300] {
        assert_eq!(playout.latency_at(at(moment)), Some(ms(13_300)), "{moment}");
    }
    // An input that was away for 30 s: the hole is as long as its absence, and nothing is late.
    playout.pair_ready(at(66_300), pair(3, 54_000));
    for moment in [31_301, 45_000, 67_300, 70_000] {
        assert_eq!(playout.latency_at(at(moment)), Some(ms(13_300)), "{moment}");
    }
}

#[test]
fn latency_comes_down_evenly_while_it_is_won_back() {
    let mut playout = Playout::new(PlayoutConfig::default());
    let mut last = Duration::MAX;
    for (batch, made) in (0_u64..).zip(pairs((0..30).map(|n| if n == 1 { 5_300 } else { 300 }))) {
        let ready = At::from_millis(made.ready as u64);
        playout.pair_ready(
            ready,
            Pair {
                batch,
                start: Pts::from_millis(made.start),
                end: Pts::from_millis(made.start + made.length),
                captured: At::from_millis(made.captured as u64),
                worked: Duration::ZERO,
            },
        );
        let begin = playout.due(Pts::from_millis(made.start)).expect("ready");
        if batch >= 2 {
            // A pair takes 5.77 s; 100 ms of it win 4 ms.
            for tenth in 0..57 {
                let now = playout.latency_at(begin + ms(tenth * 100)).expect("on air");
                let won = last.saturating_sub(now);
                assert!(
                    now <= last && (won <= ms(13) || last == Duration::MAX),
                    "{batch}: {now:?} after {last:?}"
                );
                last = now;
            }
        }
    }
    assert!(last < ms(6_400), "{last:?}");
}

#[test]
fn a_short_last_pair_plays_to_its_end() {
    let mut made = pairs([300; 5]);
    made[4].length = 1_500;
    made[4].ready -= 4_500;
    let run = play(made);
    assert_eq!(run.stalls, []);
    assert_eq!(run.begins[4], At::from_millis(6_300 + 4 * 6_000));
}

#[test]
fn little_is_remembered_however_long_it_runs() {
    let mut rng = StdRng::seed_from_u64(1);
    let latencies = (0..5_000).map(|_| if rng.random_bool(0.01) { 20_000 } else { 300 });
    let run = play(pairs(latencies));
    // Behind an answer that is 20 s late wait three others.
    assert!(run.most_remembered <= 5, "{}", run.most_remembered);
}

#[test]
fn any_latency_at_all_keeps_the_rules() {
    // `play` checks monotony, pace and that every wait is told.
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let spread = 1 + rng.random_range(0_i64..8_000);
        let made = pairs((0..60).map(|_| {
            if rng.random_bool(0.05) {
                rng.random_range(0..30_000)
            } else {
                rng.random_range(0..spread)
            }
        }));
        let run = play(made);
        assert_eq!(run.latencies.len(), 60, "seed {seed}");
        let latencies = (0..60).map(|_| rng.random_range(0..spread));
        let run = play(spoken(seed, latencies));
        assert_eq!(run.latencies.len(), 60, "seed {seed}");
    }
}

#[test]
fn segments_of_any_length_leave_evenly() {
    let run = play(spoken(9, [300; 200]));
    assert_eq!(run.stalls, []);
    let even = |latency: &Duration| *latency == run.latencies[0];
    assert!(run.latencies.iter().all(even), "{:?}", run.latencies);
    // Handed out as soon as they are over they would not.
    let mut hasty = spoken(9, [300; 200]);
    for made in &mut hasty {
        made.ready = made.start + made.length + 300;
    }
    assert!(!play(hasty).stalls.is_empty());
}
