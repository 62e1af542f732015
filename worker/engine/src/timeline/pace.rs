//! Whether a track's RTP time goes on as time does.
//!
//! Some cameras count pictures instead of time: at night they send twelve a second, and each still says
//! that it lasts a 25th. Some audio counts at another rate than its description says. Nothing steps, so
//! each unit looks right, and the track runs away from the other.
//!
//! A congested network looks the same from here, but for both tracks. So a track is put right only
//! while the other's time goes on as it should, and what is wrong with it is the same for some seconds.

use std::collections::VecDeque;

use crate::time::{At, nanos_of};

/// The quickest unit of such a time stands for all of it.
const WINDOW: i64 = 2_000_000_000;
/// So many windows must be off alike.
const WINDOWS: usize = 5;
/// A track that is off by more is wrong, one that is off by less is right.
const WRONG: f64 = 0.05;
const RIGHT: f64 = 0.02;
/// How alike.
const STEADY: f64 = 0.03;
/// Cameras are off by simple ratios: 25 pictures said to be 30, half the sampling rate.
const SIMPLE: i64 = 6;
const NEAR: f64 = 0.01;
/// Further off, it is no clock at all.
const FURTHEST: f64 = 8.0;

/// The pace of one track.
#[derive(Debug)]
pub(super) struct Pace {
    /// What RTP time is multiplied by, as a fraction.
    ratio: (i64, i64),
    /// From here on: RTP time, and what was made of it.
    from: (i64, i64),
    /// Begin, and the least of arrival minus time; the last one is not complete.
    windows: VecDeque<(i64, i64)>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            ratio: (1, 1),
            from: (0, 0),
            windows: VecDeque::new(),
        }
    }

    /// What is made of an RTP time.
    pub(super) fn time(&self, rtp: i64) -> i64 {
        let (times, by) = self.ratio;
        let gone = i128::from(rtp) - i128::from(self.from.0);
        let time = i128::from(self.from.1) + gone * i128::from(times) / i128::from(by);
        time.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    /// A unit of that time came; tells whether a window begins.
    pub(super) fn note(&mut self, at: At, time: i64) -> bool {
        let at = nanos_of(at.as_duration());
        let transit = at.saturating_sub(time);
        match self.windows.back_mut() {
            Some((begin, least)) if at - *begin < WINDOW => {
                *least = (*least).min(transit);
                return false;
            }
            _ => {}
        }
        if self.windows.len() > WINDOWS {
            self.windows.pop_front();
        }
        self.windows.push_back((at, transit));
        true
    }

    /// By how much arrival goes on faster than this time, as a share, if it has done so steadily.
    fn off(&self) -> Option<f64> {
        let complete = self.windows.len().checked_sub(1)?;
        let slope = |from: (i64, i64), to: (i64, i64)| {
            to.1.saturating_sub(from.1) as f64 / (to.0 - from.0) as f64
        };
        let windows = || self.windows.iter().copied().take(complete);
        let whole = slope(windows().next()?, windows().next_back()?);
        let pairs = windows().zip(windows().skip(1));
        let steady = pairs
            .map(|(from, to)| slope(from, to))
            .all(|slope| (slope - whole).abs() < STEADY);
        (complete == WINDOWS && steady).then_some(whole)
    }

    /// Puts the pace right from this RTP time on if it is wrong and the other track's is right; returns
    /// what it is multiplied by now.
    pub(super) fn put_right(&mut self, other: &Self, rtp: i64) -> Option<f64> {
        let off = self.off().filter(|off| off.abs() > WRONG)?;
        other.off().filter(|off| off.abs() < RIGHT)?;
        let (times, by) = self.ratio;
        let ratio = times as f64 / by as f64 / (1.0 - off);
        if !(1.0 / FURTHEST..=FURTHEST).contains(&ratio) {
            return None;
        }
        self.from = (rtp, self.time(rtp));
        self.ratio = simple(ratio);
        self.windows.clear();
        Some(self.ratio.0 as f64 / self.ratio.1 as f64)
    }
}

/// The simplest fraction near `ratio`.
fn simple(ratio: f64) -> (i64, i64) {
    (1..=SIMPLE)
        .map(|by| ((ratio * by as f64).round() as i64, by))
        .find(|(times, by)| (ratio * *by as f64 / *times as f64 - 1.0).abs() < NEAR)
        .unwrap_or(((ratio * 1_000.0).round() as i64, 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const MS: i64 = 1_000_000;
    const SECOND: i64 = 1_000 * MS;

    /// Notes a unit each 40 ms of arrival with that RTP time, and tells when windows began.
    fn hear(pace: &mut Pace, arrivals: std::ops::Range<i64>, rtp: impl Fn(i64) -> i64) -> Vec<i64> {
        arrivals
            .step_by(40_000_000)
            .filter(|at| {
                let time = pace.time(rtp(*at));
                pace.note(At::new(Duration::from_nanos(at.unsigned_abs())), time)
            })
            .collect()
    }

    /// A track heard for long enough, of which so many thousandths of the time that goes by are missing.
    fn off(thousandths: i64) -> Pace {
        let mut pace = Pace::new();
        let rtp = |at| at - at / 1_000 * thousandths;
        hear(&mut pace, 0..10 * SECOND + 1, rtp);
        pace
    }

    #[test]
    fn five_windows_of_two_seconds_tell_what_a_clock_is_worth() {
        let mut pace = Pace::new();
        let began = hear(&mut pace, 0..10 * SECOND, |at| at / 2);
        assert_eq!(began, [0, 2, 4, 6, 8].map(|at| at * SECOND));
        assert_eq!(pace.put_right(&off(0), 0), None);
        hear(&mut pace, 10 * SECOND..10 * SECOND + 1, |at| at / 2);
        assert_eq!(pace.put_right(&off(0), 0), Some(2.0));
        // What went before no longer counts.
        assert_eq!(pace.put_right(&off(0), 0), None);
    }

    #[test]
    fn a_track_is_wrong_beyond_5_percent_and_judged_only_by_one_that_is_right_within_2() {
        for (own, other, put_right) in [
            (50, 0, false),
            (51, 0, true),
            (-50, 0, false),
            (-51, 0, true),
            (500, 19, true),
            (500, 20, false),
            (500, -19, true),
            (500, -20, false),
            (500, 500, false),
        ] {
            let ratio = off(own).put_right(&off(other), 0);
            assert_eq!(ratio.is_some(), put_right, "{own} {other}");
        }
    }

    #[test]
    fn a_track_that_is_sent_only_while_somebody_speaks_is_judged_all_the_same() {
        let mut speech = Pace::new();
        for from in (0..=30).step_by(6).map(|second| second * SECOND) {
            hear(&mut speech, from..from + SECOND, |at| at);
        }
        assert_eq!(off(500).put_right(&speech, 0), Some(2.0));
    }

    #[test]
    fn what_is_not_the_same_for_five_windows_or_off_more_than_eight_times_is_no_clock() {
        let swings = |by: i64| {
            let mut pace = Pace::new();
            let rtp = |at| at - at / (2 * SECOND) % 2 * by;
            hear(&mut pace, 0..10 * SECOND + 1, rtp);
            pace
        };
        assert_eq!(off(500).put_right(&swings(60 * MS), 0), None);
        assert_eq!(off(500).put_right(&swings(60 * MS - 1), 0), Some(2.0));
        for (thousandths, ratio) in [
            (875, Some(8.0)),
            (876, None),
            (1_000, None),
            (1_500, None),
            (-7_000, Some(0.125)),
            (-7_001, None),
        ] {
            assert_eq!(off(thousandths).put_right(&off(0), 0), ratio);
        }
    }

    /// At dusk 25 pictures a second are said to be 30, at dawn they are 30 again.
    #[test]
    fn time_goes_on_without_a_step_at_the_new_pace_and_at_the_old_one_again() {
        let mut pace = Pace::new();
        hear(&mut pace, 0..10 * SECOND + 1, |at| at * 5 / 6);
        let dusk = 10 * SECOND * 5 / 6;
        let time = pace.time(dusk);
        assert_eq!(pace.put_right(&off(0), dusk), Some(1.2));
        assert_eq!(pace.time(dusk), time);
        assert_eq!(pace.time(dusk + 5 * SECOND), time + 6 * SECOND);
        assert_eq!(pace.time(dusk - 5 * SECOND), time - 6 * SECOND);
        assert_eq!(pace.time(i64::MAX), i64::MAX);
        assert_eq!(pace.time(i64::MIN), i64::MIN);

        let rtp = |at| at - 10 * SECOND + dusk;
        hear(&mut pace, 12 * SECOND..22 * SECOND + 1, rtp);
        let dawn = rtp(22 * SECOND);
        let time = pace.time(dawn);
        assert_eq!(pace.put_right(&off(0), dawn), Some(1.0));
        assert_eq!(pace.time(dawn + SECOND), time + SECOND);
    }

    #[test]
    fn the_simplest_fraction_within_a_hundredth_or_thousandths() {
        for (ratio, fraction) in [
            (2.0, (2, 1)),
            (2.018, (2, 1)),
            (2.022, (2_022, 1_000)),
            (1.982, (2, 1)),
            (1.978, (1_978, 1_000)),
            (0.5, (1, 2)),
            (1.2, (6, 5)),
            (5.0 / 6.0, (5, 6)),
            (0.918_75, (919, 1_000)),
            (0.125, (125, 1_000)),
        ] {
            assert_eq!(simple(ratio), fraction, "{ratio}");
        }
    }
}
