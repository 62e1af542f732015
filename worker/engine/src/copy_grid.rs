//! Where copied audio frames lie in the output.
//!
//! Coded frames are all of one length, so a copied stream is a grid of its own: time stamps of the
//! input that scatter by less than half a frame are put back onto it. Where the input has a hole, or
//! its clock has drifted half a frame away, the grid begins anew at the input's time stamp. Where its
//! frames come closer together than they last, one that has fallen a whole frame behind is left out.

use crate::time::{Pts, nanos_of};
use std::time::Duration;

/// Places copied frames. See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct CopyGrid {
    next: Option<Pts>,
}

impl CopyGrid {
    /// Where the frame that the input has at `pts` lies, never before the end of the last one; `None`
    /// where there is no room for it.
    pub fn place(&mut self, pts: Pts, duration: Duration) -> Option<Pts> {
        let place = match self.next {
            Some(next) => match pts.offset_from(next) {
                behind if behind <= -nanos_of(duration) => return None,
                near if near < nanos_of(duration / 2) => next,
                _ => pts,
            },
            None => pts,
        };
        self.next = Some(place + duration);
        Some(place)
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
            (75_000, 75_000),
            (96_333, 96_333),
            // A hole of a second.
            (1_117_666, 1_117_666),
            // Early: nothing lies on top of anything.
            (1_118_000, 1_138_999),
        ] {
            assert_eq!(
                grid.place(micros(input), FRAME),
                Some(micros(output)),
                "{input}"
            );
        }
        // Two steps back by a tenth of a second, which stay.
        for step in [1, 2] {
            let frames = (10 * (step - 1)..10 * step).map(|n| 1_160_332 + n * 21_333);
            let places: Vec<_> = frames
                .map(|input| grid.place(micros(input - step * 100_000), FRAME))
                .collect();
            let left_out = places.iter().filter(|place| place.is_none()).count();
            assert!((4..=5).contains(&left_out), "{places:?}");
            assert!(places[5..].iter().all(Option::is_some), "{places:?}");
        }
    }

    #[test]
    fn scatter_is_less_than_half_a_frame() {
        let frame = Duration::from_millis(20);
        for (input, output) in [(29_999, 20_000), (30_000, 30_000)] {
            let mut grid = CopyGrid::default();
            grid.place(Pts::ZERO, frame);
            assert_eq!(grid.place(micros(input), frame), Some(micros(output)));
        }
    }

    #[test]
    fn a_clock_that_drifts_is_followed() {
        for (sign, most, left_out) in [(1, FRAME / 2, 0), (-1, FRAME, 9)] {
            let mut grid = CopyGrid::default();
            let mut last = None;
            let (mut worst, mut missing) = (0, 0);
            for n in 0..100_000_i64 {
                let input = micros(n * 21_333 + sign * n * 21_333 / 10_000);
                let Some(place) = grid.place(input, FRAME) else {
                    missing += 1;
                    continue;
                };
                assert!(last.is_none_or(|last| place >= last + FRAME), "{n}");
                last = Some(place);
                worst = worst.max(place.offset_from(input).abs());
            }
            assert!(worst < nanos_of(most) + 3_000, "{worst}");
            assert_eq!(missing, left_out);
        }
    }
}
