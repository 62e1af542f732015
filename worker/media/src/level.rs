//! Keeps a dub from being far louder or quieter than what it replaces.

use super::audio::Pcm;
use super::limiter::Limiter;

/// A dub may be this much louder than the original over the segment, dB.
pub const LOUDER: f64 = 6.0;
/// And this much quieter, dB.
pub const QUIETER: f64 = 20.0;
/// Below this there is nothing to compare with, or nothing to bring up, dB of full scale.
const SILENCE: f64 = -60.0;
const DIGITAL_SILENCE: f64 = -75.0;
/// Peaks of the samples stay this far under full scale, so that those in between do too (1 dB).
const CEILING: f32 = 0.89;

/// Level over the whole sound, dB of full scale.
fn level(pcm: &Pcm) -> f64 {
    let sum: f64 = pcm.samples.iter().map(|x| f64::from(*x).powi(2)).sum();
    10.0 * (sum / pcm.samples.len().max(1) as f64).log10()
}

/// Brings `dub` within [`LOUDER`] and [`QUIETER`] of `original`; the change in dB, if there was one.
/// The length stays what it is.
pub fn match_to(dub: &mut Pcm, original: &Pcm, rate: u32) -> Option<f64> {
    let (ours, theirs) = (level(original), level(dub));
    if ours < SILENCE || theirs < DIGITAL_SILENCE {
        return None;
    }
    let change = theirs.clamp(ours - QUIETER, ours + LOUDER) - theirs;
    // A rounding is no change.
    if change.abs() < 0.1 {
        return None;
    }
    let gain = 10_f64.powf(change / 20.0) as f32;
    let peak = dub
        .samples
        .iter()
        .fold(0.0_f32, |peak, x| peak.max(x.abs()));
    if peak * gain <= CEILING {
        dub.samples.iter_mut().for_each(|x| *x *= gain);
        return Some(change);
    }
    let raised: Vec<f32> = dub.samples.iter().map(|x| x * gain / CEILING).collect();
    let mut limiter = Limiter::new(rate, dub.channels);
    let mut limited = limiter.push(&raised);
    limited.extend(limiter.finish());
    dub.samples = limited.into_iter().map(|x| x * CEILING).collect();
    Some(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(db: f64) -> Pcm {
        let amplitude = 10_f64.powf(db / 20.0) * 2_f64.sqrt();
        let samples = (0..96_000).map(|n| {
            let phase = f64::from(n / 2) * 0.05;
            (amplitude * phase.sin()) as f32
        });
        Pcm {
            samples: samples.collect(),
            channels: 2,
        }
    }

    #[test]
    fn a_dub_is_brought_within_and_no_further() {
        for (original, dub, expected) in [
            (-20.0, -20.0, -20.0),
            (-20.0, -14.1, -14.1),
            (-20.0, -8.0, -14.0),
            (-30.0, -3.1, -24.0),
            (-20.0, -39.9, -39.9),
            (-20.0, -55.0, -40.0),
            // Nothing to compare with, and nothing to bring up.
            (-70.0, -20.0, -20.0),
            (-20.0, -90.0, -90.0),
        ] {
            let mut sound = tone(dub);
            let change = match_to(&mut sound, &tone(original), 48_000);
            let got = level(&sound);
            assert!(
                (got - expected).abs() < 0.2,
                "{dub} against {original}: {got}"
            );
            assert_eq!(
                change.is_some(),
                (expected - dub).abs() > 0.1,
                "{dub} against {original}"
            );
            assert_eq!(sound.frames(), 48_000);
        }
    }

    #[test]
    fn what_is_brought_up_stays_under_full_scale() {
        // Clicks in near silence: hardly any level, full peaks.
        let mut sound = tone(-50.0);
        for at in (0..sound.samples.len()).step_by(40_001) {
            sound.samples[at] = 0.9;
        }
        assert!(match_to(&mut sound, &tone(-6.0), 48_000).is_some_and(|change| change > 5.0));
        let peak = sound
            .samples
            .iter()
            .fold(0.0_f32, |peak, x| peak.max(x.abs()));
        assert!(peak <= CEILING + 1e-3, "{peak}");
        assert_eq!(sound.frames(), 48_000);
    }
}
