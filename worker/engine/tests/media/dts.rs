//! Decode times: strictly increasing, never after presentation.

use dub_engine::{DtsAssigner, Pts};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const FRAME: i64 = 40_000_000;

fn assign(dts: &mut DtsAssigner, frames: &[i64]) -> Vec<i64> {
    let pts: Vec<Pts> = frames.iter().map(|n| Pts::from_nanos(n * FRAME)).collect();
    dts.assign(&pts).iter().map(|dts| dts.nanos()).collect()
}

fn in_frames(dts: &[i64]) -> Vec<f64> {
    dts.iter()
        .map(|nanos| *nanos as f64 / FRAME as f64)
        .collect()
}

#[test]
fn without_b_frames_decode_time_is_presentation_time() {
    let mut dts = DtsAssigner::new();
    assert_eq!(
        in_frames(&assign(&mut dts, &[0, 1, 2, 3])),
        [0.0, 1.0, 2.0, 3.0]
    );
    assert_eq!(in_frames(&assign(&mut dts, &[4, 5, 6])), [4.0, 5.0, 6.0]);
    assert!(assign(&mut dts, &[]).is_empty());
}

#[test]
fn with_b_frames_decode_runs_ahead_by_the_reorder_depth() {
    let mut dts = DtsAssigner::new();
    // I0 P3 B1 B2 P6 B4 B5: one frame is decoded before its turn.
    let got = assign(&mut dts, &[0, 3, 1, 2, 6, 4, 5]);
    assert_eq!(in_frames(&got), [-1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    // The same depth goes on over the cut.
    assert_eq!(in_frames(&assign(&mut dts, &[9, 7, 8])), [6.0, 7.0, 8.0]);
}

#[test]
fn the_depth_once_learnt_is_kept() {
    let mut dts = DtsAssigner::new();
    assert_eq!(
        in_frames(&assign(&mut dts, &[0, 3, 1, 2])),
        [-1.0, 0.0, 1.0, 2.0]
    );
    // A segment without reordering: decoding does not get nearer to presentation.
    assert_eq!(in_frames(&assign(&mut dts, &[4, 5, 6])), [3.0, 4.0, 5.0]);
}

#[test]
fn a_pyramid_needs_a_depth_of_two() {
    let mut dts = DtsAssigner::new();
    let got = assign(&mut dts, &[0, 4, 2, 1, 3, 8, 6, 5, 7]);
    assert_eq!(
        in_frames(&got),
        [-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    );
}

#[test]
fn a_depth_that_grows_in_mid_stream_goes_on_increasing() {
    let mut dts = DtsAssigner::new();
    assert_eq!(in_frames(&assign(&mut dts, &[0, 1, 2])), [0.0, 1.0, 2.0]);
    // Two frames of depth all at once: the first units are squeezed in after the last DTS.
    let pts = [3, 7, 5, 4, 6];
    let got = assign(&mut dts, &pts);
    assert_eq!(got[..3], [2 * FRAME + 1, 2 * FRAME + 2, 3 * FRAME]);
    assert_eq!(in_frames(&got[2..]), [3.0, 4.0, 5.0]);
    assert!(got.iter().zip(pts).all(|(dts, pts)| *dts <= pts * FRAME));
}

#[test]
fn any_gop_structure_decodes_in_order_and_in_time() {
    for seed in 0..2_000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut dts = DtsAssigner::new();
        let mut next = 0;
        let mut last = i64::MIN;
        for _ in 0..20 {
            // Mini-GOPs: the last frame first, the others in any order after it.
            let mut frames = Vec::new();
            for _ in 0..rng.random_range(1..30) {
                let size = rng.random_range(1..6);
                let mut group: Vec<i64> = (next..next + size).collect();
                group.rotate_right(1);
                if size > 2 {
                    let (a, b) = (rng.random_range(1..size), rng.random_range(1..size));
                    group.swap(a as usize, b as usize);
                }
                frames.extend(group);
                next += size;
            }
            for (dts, pts) in assign(&mut dts, &frames).into_iter().zip(frames) {
                assert!(dts > last, "seed {seed}: {dts} after {last}");
                assert!(dts <= pts * FRAME, "seed {seed}: decoded after it is shown");
                last = dts;
            }
        }
    }
}

#[test]
fn a_broken_timeline_still_increases() {
    let mut dts = DtsAssigner::new();
    let mut all = assign(&mut dts, &[100, 101, 102]);
    all.extend(assign(&mut dts, &[5, 5, 5, 4]));
    all.extend(assign(&mut dts, &[i64::MAX / FRAME, 7]));
    assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "{all:?}");
}
