//! Where copied audio frames lie in the output.
//!
//! Coded frames are all of one length, so a copied stream is a grid of its own: time stamps of the
//! input that scatter by less than half a frame are put back onto it. Where the input has a hole, or
//! its clock has drifted half a frame away, the grid begins anew at the input's time stamp.

use crate::time::{Pts, nanos_of};
use std::time::Duration;

/// Places copied frames. See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct CopyGrid {
    next: Option<Pts>,
}

impl CopyGrid {
    /// Where the frame that the input has at `pts` lies; never before the end of the last one.
    pub fn place(&mut self, pts: Pts, duration: Duration) -> Pts {
        let half = nanos_of(duration / 2);
        let place = match self.next {
            Some(next) if pts.offset_from(next) < half => next,
            _ => pts,
        };
        self.next = Some(place + duration);
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Duration = Duration::from_micros(21_333);

    fn micros(n: i64) -> Pts {
        Pts::from_nanos(n * 1_000)
    }

    #[test]
    fn scatter_is_put_back_and_holes_stay() {
        let mut grid = CopyGrid::default();
        for (input, output) in [
            (0, 0),
            (21_000, 21_333),
            (44_000, 42_666),
            // Half a frame and more is no scatter.
            (75_000, 75_000),
            (96_333, 96_333),
            // A hole of a second.
            (1_117_666, 1_117_666),
            // Early: nothing lies on top of anything.
            (1_118_000, 1_138_999),
            (1_100_000, 1_160_332),
        ] {
            assert_eq!(grid.place(micros(input), FRAME), micros(output), "{input}");
        }
    }

    #[test]
    fn a_clock_that_drifts_is_followed() {
        let mut grid = CopyGrid::default();
        let mut worst = 0;
        for n in 0..100_000_i64 {
            let input = micros(n * 21_333 + n * 21_333 / 10_000);
            let delta = grid.place(input, FRAME).offset_from(input);
            worst = worst.max(delta.abs());
        }
        assert!(worst < nanos_of(FRAME / 2) + 3_000, "{worst}");
    }
}
