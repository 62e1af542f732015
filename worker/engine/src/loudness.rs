//! How loud a dub may be beside the original it is heard instead of.
//!
//! Services return speech at any level; a viewer who hears dub and original by turns should not have
//! to reach for the volume. Levels are means over the segment: a dub that pauses more is not louder.
//!
//! | the dub is | it is |
//! |---|---|
//! | more than 6 dB louder than the original | lowered to 5.5 dB louder |
//! | more than 20 dB quieter | raised to 19.5 dB quieter |
//! | within that | left as it is |
//!
//! What is heard of a dub stays a decibel under full scale, between the samples too. Only a dub that is
//! not changed and peaks no higher than its original may keep its peaks: an echo stays an echo.
//!
//! An original under -50 dBFS is a pause and says nothing about how loud speech should be: the last
//! one that was none stands for it, so that speech which runs on into a pause is not turned down to
//! the noise of a room; before there was one, the dub stays as it is. In a pause nothing is raised,
//! and a dub in which nothing is louder than -60 dBFS never is: there is no speech in it.

/// Whether dubs are changed in level.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum DubLoudness {
    /// Brought near the original where they are far off.
    Match,
    /// Left as they come.
    Keep,
}

/// A dub may be this much louder, and is brought to a little less, …
const LOUDER_DB: f64 = 6.0;
/// … or this much quieter.
const QUIETER_DB: f64 = 20.0;
/// What is brought within a limit is within it by so much: the encoder adds its share.
const INSIDE_DB: f64 = 0.5;
/// An original quieter than this is a pause.
const PAUSE_DB: f64 = -50.0;
/// A dub that is never louder than this has no speech in it.
const SILENCE_DB: f64 = -60.0;
/// Peaks of what was changed. Encoders overshoot, and so may decoders.
pub const CEILING_DB: f64 = -1.0;
/// Peaks closer than this are those of the same sound.
const SAME_PEAK_DB: f64 = 0.5;

/// A sound as it was measured, in dB of full scale; silence is minus infinity.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Loudness {
    /// Its power, over the whole segment.
    pub mean: f64,
    /// Its power where it is loudest, over some milliseconds.
    pub loudest: f64,
    /// Its peak, between samples too.
    pub peak: f64,
}

/// What was done to a dub's level.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub enum LoudnessChange {
    /// Turned down.
    Lowered,
    /// Turned up.
    Raised,
    /// Only its peaks were turned down.
    Limited,
}

impl LoudnessChange {
    /// Every one of them.
    pub const ALL: [Self; 3] = [Self::Lowered, Self::Raised, Self::Limited];

    /// Value of the label `change`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Lowered => "lowered",
            Self::Raised => "raised",
            Self::Limited => "limited",
        }
    }
}

/// How a dub's level is to be changed.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Correction {
    /// What is done.
    pub change: LoudnessChange,
    /// How much louder than the original it came, in dB.
    pub difference: f64,
    /// In dB. Afterwards, what peaks over [`CEILING_DB`] is limited to it.
    pub gain: f64,
}

/// Decides on dubs in the order of their segments. See the [module](self).
#[derive(Clone, Debug)]
pub struct LoudnessGuard {
    mode: DubLoudness,
    /// Level of the last original that was no pause.
    usual: Option<f64>,
}

impl LoudnessGuard {
    /// Nothing has been heard yet.
    pub fn new(mode: DubLoudness) -> Self {
        Self { mode, usual: None }
    }

    /// The next segment's original, and the dub that is heard instead if there is one: `None` if
    /// that stays as it is.
    pub fn judge(&mut self, original: Loudness, dub: Option<Loudness>) -> Option<Correction> {
        let pause = original.mean < PAUSE_DB;
        if !pause {
            self.usual = Some(original.mean);
        }
        let dub = dub.filter(|_| self.mode == DubLoudness::Match)?;
        let difference = self.usual.map_or(0.0, |usual| dub.mean - usual);
        let can_be_raised = !pause && dub.loudest > SILENCE_DB;
        let (change, gain) = if difference > LOUDER_DB {
            (LoudnessChange::Lowered, LOUDER_DB - INSIDE_DB - difference)
        } else if difference < -QUIETER_DB && can_be_raised {
            (LoudnessChange::Raised, INSIDE_DB - QUIETER_DB - difference)
        } else {
            let own = (original.peak + SAME_PEAK_DB).max(0.0);
            if dub.peak <= own {
                return None;
            }
            (LoudnessChange::Limited, 0.0)
        };
        Some(Correction {
            change,
            difference,
            gain,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Speech: peaks 14 dB over its mean.
    fn speech(mean: f64) -> Loudness {
        Loudness {
            mean,
            loudest: mean + 6.0,
            peak: mean + 14.0,
        }
    }

    fn judged(guard: &mut LoudnessGuard, original: f64, dub: Loudness) -> String {
        match guard.judge(speech(original), Some(dub)) {
            None => "as it is".to_owned(),
            Some(Correction {
                change,
                difference,
                gain,
            }) => format!("{} {difference:+.1} {gain:+.1}", change.label()),
        }
    }

    #[test]
    fn a_dub_is_brought_within_and_no_further() {
        for (original, dub, expected) in [
            (-20.0, -20.0, "as it is"),
            (-20.0, -14.0, "as it is"),
            (-20.0, -13.9, "lowered +6.1 -0.6"),
            (-40.0, -10.0, "lowered +30.0 -24.5"),
            (-20.0, -40.0, "as it is"),
            (-20.0, -40.1, "raised -20.1 +0.6"),
            (-20.0, -60.0, "raised -40.0 +20.5"),
            // Nowhere louder than -60 dBFS: no speech. Then nothing at all.
            (-20.0, -65.9, "raised -45.9 +26.4"),
            (-20.0, -66.0, "as it is"),
            (-20.0, f64::NEG_INFINITY, "as it is"),
            // Before anything was heard a pause says nothing.
            (-50.0, -15.0, "lowered +35.0 -29.5"),
            (-50.1, -15.0, "as it is"),
        ] {
            let mut guard = LoudnessGuard::new(DubLoudness::Match);
            let found = judged(&mut guard, original, speech(dub));
            assert_eq!(found, expected, "{dub} for {original}");
            let mut guard = LoudnessGuard::new(DubLoudness::Keep);
            assert_eq!(judged(&mut guard, original, speech(dub)), "as it is");
        }
    }

    #[test]
    fn in_a_pause_the_last_speech_is_what_counts() {
        let mut guard = LoudnessGuard::new(DubLoudness::Match);
        assert_eq!(guard.judge(speech(-22.0), None), None);
        assert_eq!(judged(&mut guard, -55.0, speech(-20.0)), "as it is");
        let loud = judged(&mut guard, f64::NEG_INFINITY, speech(-10.0));
        assert_eq!(loud, "lowered +12.0 -6.5");
        // The echo of a room's noise is not speech that is too quiet.
        assert_eq!(judged(&mut guard, -55.0, speech(-55.0)), "as it is");
        // Another scene.
        assert_eq!(
            judged(&mut guard, -35.0, speech(-20.0)),
            "lowered +15.0 -9.5"
        );
        assert_eq!(
            judged(&mut guard, -55.0, speech(-20.0)),
            "lowered +15.0 -9.5"
        );
    }

    #[test]
    fn peaks_over_full_scale_are_limited_unless_they_are_the_originals_own() {
        let hot = |peak| Loudness {
            peak,
            ..speech(-10.0)
        };
        for (own, dub, expected) in [
            (-3.0, 0.0, None),
            (-3.0, 0.1, Some(LoudnessChange::Limited)),
            (0.8, 1.2, None),
            (0.8, 1.4, Some(LoudnessChange::Limited)),
        ] {
            let found = LoudnessGuard::new(DubLoudness::Match).judge(hot(own), Some(hot(dub)));
            assert_eq!(found.map(|found| found.change), expected, "{dub} for {own}");
            assert!(found.is_none_or(|found| found.gain == 0.0));
        }
    }
}
