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
        let gone = gone * i128::from(times) / i128::from(by);
        let gone = i64::try_from(gone).unwrap_or(if gone < 0 { i64::MIN } else { i64::MAX });
        self.from.1.saturating_add(gone)
    }

    /// A unit of that time came; tells whether a window is complete.
    pub(super) fn note(&mut self, at: At, time: i64) -> bool {
        let at = nanos_of(at.as_duration());
        let transit = at.saturating_sub(time);
        match self.windows.back_mut() {
            Some((begin, least)) if at - *begin < WINDOW => {
                *least = (*least).min(transit);
                return false;
            }
            // Nothing came for a while.
            Some((begin, _)) if at - *begin >= 2 * WINDOW => self.windows.clear(),
            _ => {}
        }
        if self.windows.len() > WINDOWS {
            self.windows.pop_front();
        }
        self.windows.push_back((at, transit));
        self.windows.len() > WINDOWS
    }

    /// By how much arrival goes on faster than this time, as a share, if it has done so steadily.
    fn off(&self) -> Option<f64> {
        let complete = self.windows.len().checked_sub(1)?;
        let slope = |from: (i64, i64), to: (i64, i64)| {
            to.1.saturating_sub(from.1) as f64 / (to.0 - from.0).max(1) as f64
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
        let ratio = times as f64 / by as f64 / (1.0 - off).max(f64::MIN_POSITIVE);
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
        .find(|(times, by)| *times > 0 && (ratio * *by as f64 / *times as f64 - 1.0).abs() < NEAR)
        .unwrap_or(((ratio * 1_000.0).round() as i64, 1_000))
}
