//! Where speakers breathe: the quietest moment to cut at.
//!
//! A pause is judged against the speech around it, not by a fixed level: rooms, microphones and
//! encoders differ by 40 dB. Steady noise and music have none.

use crate::segment::AudioFrame;
use crate::time::{Pts, nanos_of};
use std::time::Duration;

/// A level in hundredths of a dB of full scale.
pub type FrameLevel = i16;
/// Digital silence.
pub const SILENCE: FrameLevel = -9600;

/// It must be quiet for so long on both sides of a cut; the closures within words are shorter.
const MARGIN: Duration = Duration::from_millis(80);
/// A pause is at least so much below the speech.
const DEPTH: i32 = 1_500;
/// What is so far below the speech is silence, and no silence is better than another.
const FLOOR: i32 = 4_000;
/// This is a pause whatever it is compared with.
const NOTHING: i32 = -6_000;
/// A pause that is a second nearer to the aim may be so much louder.
const PER_SECOND: i64 = 200;
/// The speech's level: so many percent of the frames are no louder. What is short does not make a
/// noise speech, but half a second in ten is enough.
const LOUD_PERCENT: usize = 95;

/// The start of the frame at which to cut, from `from` to `to` and as near to `aim` as the pauses
/// there allow; `None` where there is no pause. `frames` begin with the segment and are in order;
/// those that were not measured count as loud.
pub(crate) fn quietest<'a, A: 'a>(
    frames: impl Iterator<Item = &'a AudioFrame<A>>,
    from: Pts,
    to: Pts,
    aim: Pts,
) -> Option<Pts> {
    let frames: Vec<(Pts, i32)> = frames
        .map(|frame| (frame.pts, frame.level.map_or(0, i32::from)))
        .collect();
    let mut levels: Vec<i32> = frames.iter().map(|(_, level)| *level).collect();
    levels.sort_unstable();
    let loud = *levels.get(levels.len() * LOUD_PERCENT / 100)?;
    let quiet = (loud - DEPTH).max(NOTHING);
    let candidates = frames.iter().enumerate().filter_map(|(at, (pts, _))| {
        if !(from..=to).contains(pts) {
            return None;
        }
        let around = |(other, _): &&(Pts, i32)| {
            let off = other.offset_from(*pts);
            (-nanos_of(MARGIN)..nanos_of(MARGIN)).contains(&off)
        };
        let before = frames[..at].iter().rev().take_while(around);
        let behind = frames[at..].iter().take_while(around);
        // What is not there yet may be anything.
        let reaches = frames.last()?.0.offset_from(*pts) >= nanos_of(MARGIN);
        let level = before.chain(behind).map(|(_, level)| *level).max()?;
        (level <= quiet && reaches).then(|| {
            let away = pts.offset_from(aim).abs() / 1_000_000;
            let cost = i64::from(level.max(loud - FLOOR)) + away * PER_SECOND / 1_000;
            (cost, away, *pts)
        })
    });
    candidates.min().map(|(_, _, pts)| pts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Duration = Duration::from_millis(20);

    /// Ten seconds: `loud` but for the stretches `(from, to, level)` in ms.
    fn sound(loud: FrameLevel, pauses: &[(i64, i64, FrameLevel)]) -> Vec<AudioFrame<()>> {
        let frame = |n: i64| {
            let ms = n * 20;
            let inside = pauses
                .iter()
                .find(|(from, to, _)| (*from..*to).contains(&ms));
            AudioFrame {
                pts: Pts::from_millis(ms),
                duration: FRAME,
                level: Some(inside.map_or(loud, |(_, _, level)| *level)),
                payload: (),
            }
        };
        (0..500).map(frame).collect()
    }

    fn cut(frames: &[AudioFrame<()>]) -> Option<i64> {
        let ms = Pts::from_millis;
        let cut = quietest(frames.iter(), ms(3_000), ms(10_000), ms(6_000))?;
        Some(cut.nanos() / 1_000_000)
    }

    #[test]
    fn the_pause_nearest_to_the_aim_wins_among_equals() {
        let pauses = [
            (3_400, 3_800, -6_000),
            (6_600, 7_000, -6_000),
            (8_000, 8_600, -6_000),
        ];
        // As near as the margin allows, not in the very moment the speech ends.
        assert_eq!(cut(&sound(-2_000, &pauses)), Some(6_680));
        assert_eq!(cut(&sound(-2_000, &pauses[..1])), Some(3_720));
        // At the aim itself.
        assert_eq!(cut(&sound(-2_000, &[(5_000, 7_000, -6_000)])), Some(6_000));
        // Outside of the limits there is nothing to be found.
        assert_eq!(cut(&sound(-2_000, &[(1_000, 2_900, -6_000)])), None);
    }

    #[test]
    fn the_quieter_pause_wins_where_it_is_not_much_farther() {
        let pauses = |level| [(4_000, 4_400, level), (6_600, 7_000, -4_000)];
        assert_eq!(cut(&sound(-2_000, &pauses(-4_600))), Some(4_320));
        assert_eq!(cut(&sound(-2_000, &pauses(-4_100))), Some(6_680));
        // Below a floor no silence is better than another.
        let deep = [(3_400, 3_800, SILENCE), (6_600, 7_000, -6_000)];
        assert_eq!(cut(&sound(-2_000, &deep)), Some(6_680));
    }

    #[test]
    fn what_is_short_shallow_or_unknown_is_no_pause() {
        assert_eq!(
            cut(&sound(-2_000, &[(6_000, 6_120, -6_000)])),
            None,
            "a closure"
        );
        assert_eq!(
            cut(&sound(-2_000, &[(6_000, 6_400, -3_400)])),
            None,
            "a soft word"
        );
        assert_eq!(cut(&sound(-2_000, &[])), None, "noise");
        let mut unmeasured = sound(-2_000, &[(6_000, 6_400, -6_000)]);
        for frame in &mut unmeasured {
            frame.level = None;
        }
        assert_eq!(cut(&unmeasured), None);
        // The same pause in a quiet recording.
        assert_eq!(cut(&sound(-5_000, &[(6_000, 6_400, -6_600)])), Some(6_080));
    }

    #[test]
    fn half_a_second_in_ten_is_speech_and_what_is_shorter_a_noise() {
        let murmur = |to| sound(-4_000, &[(1_000, to, -2_000)]);
        assert_eq!(cut(&murmur(1_480)), None, "a murmur beside a slammed door");
        assert_eq!(cut(&murmur(1_500)), Some(6_000), "the room beside a word");
    }

    #[test]
    fn a_word_in_long_silence_is_not_cut() {
        let silence = |from, to| (from, to, SILENCE);
        let word = [silence(0, 5_800), silence(6_100, 10_000)];
        assert_eq!(cut(&sound(-2_000, &word)), Some(6_180));
        assert_eq!(
            cut(&sound(SILENCE, &[])),
            Some(6_000),
            "silence is cut at the aim"
        );
    }

    #[test]
    fn nothing_is_said_about_what_is_not_there() {
        assert_eq!(cut(&[]), None);
        // A pause that has only begun may end at once.
        let frames = sound(-2_000, &[(5_940, 10_000, -6_000)]);
        assert_eq!(cut(&frames[..302]), None);
        assert_eq!(cut(&frames[..306]), Some(6_020));
    }
}
