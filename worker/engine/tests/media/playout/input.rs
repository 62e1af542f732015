//! Inputs that stop, drift and come in bursts.

use super::*;

#[test]
fn an_input_that_was_away_keeps_its_gap_and_costs_no_stall() {
    let mut made = pairs([300; 30]);
    for pair in &mut made[10..] {
        pair.start += 30_000;
        pair.captured += 30_000;
        pair.ready += 30_000;
    }
    let run = play(made);
    assert_eq!(run.stalls, []);
    assert!(run.latencies.iter().all(|latency| *latency == ms(6_300)));
    assert_eq!(run.begins[10].since(run.begins[9]), ms(36_000));
}

#[test]
fn time_runs_on_evenly_through_a_gap() {
    let mut playout = Playout::new(PlayoutConfig::default());
    let pair = |batch, start: i64, end: i64| Pair {
        batch,
        start: Pts::from_millis(start),
        end: Pts::from_millis(end),
        captured: At::from_millis(start as u64),
        worked: Duration::ZERO,
    };
    playout.pair_ready(At::from_millis(6_100), pair(0, 0, 6_000));
    assert_eq!(playout.due(Pts::from_millis(6_000)), None);
    playout.pair_ready(At::from_millis(14_100), pair(1, 8_000, 14_000));
    let due = |ms| playout.due(Pts::from_millis(ms)).map(At::as_duration);
    assert_eq!(due(5_999), Some(ms(12_099)));
    assert_eq!(due(6_500), Some(ms(12_600)));
    assert_eq!(due(8_000), Some(ms(14_100)));
    assert_eq!(due(13_999), Some(ms(20_099)));
    assert_eq!(due(14_000), None);
    // Stragglers from before the first pair are long due.
    assert_eq!(due(-100), Some(ms(6_000)));
}

/// How the service was before the input went away for more than half a second says nothing any more.
#[test]
fn what_was_learnt_is_void_after_an_absence() {
    for (away, back) in [(500, 33), (501, 18)] {
        let slow = (0..60).map(|n| if (10..15).contains(&n) { 2_300 } else { 300 });
        let mut made = pairs(slow);
        for pair in &mut made[15..] {
            pair.start += away;
            pair.captured += away;
            pair.ready += away;
        }
        assert_eq!(play(made).catch_up_starts(), [back], "{away} ms");
    }
}

#[test]
fn an_input_clock_that_disagrees_with_ours_is_followed_for_hours() {
    for ppm in [-300_i64, 300] {
        // The input delivers its seconds a little faster or slower than we count ours.
        let scale = |ms: i64| ms + ms * ppm / 1_000_000;
        let mut rng = StdRng::seed_from_u64(7);
        let made = (0..3_600).map(|n| {
            let start = n * SEGMENT;
            let answered = scale(start + SEGMENT) + 300 + rng.random_range(0..10);
            Made {
                start,
                length: SEGMENT,
                captured: scale(start),
                ready: answered,
            }
        });
        let run = play(made.collect());
        // Six hours at 300 ppm are 6.5 s; followed, latency stays where it was.
        let settled = &run.latencies[10..];
        assert!(
            settled.iter().all(|l| *l >= ms(6_290) && *l <= ms(6_550)),
            "{ppm} ppm"
        );
        assert_eq!(run.stalls, [], "{ppm} ppm");
    }
}

#[test]
fn capture_that_comes_in_bursts_does_not_fool_the_pacing() {
    let mut rng = StdRng::seed_from_u64(3);
    let mut made = pairs([300; 200]);
    for pair in &mut made {
        pair.captured += rng.random_range(0..400);
    }
    let run = play(made);
    assert_eq!(run.stalls, []);
    let first = run.begins[0];
    let even = |(n, begin): (usize, &At)| *begin == first + ms(6_000) * n as u32;
    assert!(
        run.begins.iter().enumerate().all(even),
        "pace changed without a reason"
    );
}
