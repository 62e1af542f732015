//! The beeps: which second sounds like what.
//!
//! A beep is two pure tones, one of eight low and one of eight high ones, as on
//! a telephone keypad: second `s` is low tone `s / 8` with high tone `s % 8`.
//! Every tone is a whole number of periods apart from its neighbours over a
//! beep's length, so that none leaks into another's measurement, and all lie
//! above the music, whose partials end at [`MUSIC_LIMIT_HZ`].

use std::f64::consts::TAU;

/// Seconds that have a pitch of their own; the sixty-first sounds as the first.
pub const SECONDS: u32 = 60;
pub const BEEP_SECONDS: f64 = 0.09;
/// Peak of each of the two tones, of full scale.
pub const TONE_LEVEL: f64 = 0.15;
/// No partial of the music is above this.
pub const MUSIC_LIMIT_HZ: f64 = 1250.0;

/// How long a beep takes to rise, and to fall: short enough to be an instant,
/// long enough not to click. Alike, so that a beep's middle is where it seems.
const EDGE_SECONDS: f64 = 0.002;

/// The low tones, in hertz.
pub const LOW_HZ: [f64; 8] = [
    1600.0, 1700.0, 1800.0, 1900.0, 2000.0, 2100.0, 2200.0, 2300.0,
];
/// The high tones, in hertz.
pub const HIGH_HZ: [f64; 8] = [
    2800.0, 2900.0, 3000.0, 3100.0, 3200.0, 3300.0, 3400.0, 3500.0,
];

/// The two tones of a second's beep, in hertz.
pub fn pitch(second: u32) -> (f64, f64) {
    let code = (second % SECONDS) as usize;
    (LOW_HZ[code / 8], HIGH_HZ[code % 8])
}

/// The second, 0 to 59, that a pair of tones (indices into [`LOW_HZ`] and
/// [`HIGH_HZ`]) stands for; four of the sixty-four pairs stand for none.
pub fn second_of(low: usize, high: usize) -> Option<u32> {
    let code = (low * 8 + high) as u32;
    (low < 8 && high < 8 && code < SECONDS).then_some(code)
}

/// A second's beep, `time` seconds after its start; silent before and after.
pub fn beep(second: u32, time: f64) -> f64 {
    if !(0.0..BEEP_SECONDS).contains(&time) {
        return 0.0;
    }
    let ramp = |x: f64| 0.5 - 0.5 * (x.clamp(0.0, 1.0) * TAU / 2.0).cos();
    let envelope = ramp(time / EDGE_SECONDS) * ramp((BEEP_SECONDS - time) / EDGE_SECONDS);
    let (low, high) = pitch(second);
    // Cosines, so that both are at their peak where the beep starts.
    TONE_LEVEL * envelope * ((low * time * TAU).cos() + (high * time * TAU).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_has_its_own_pair() {
        for second in 0..SECONDS {
            let (low, high) = pitch(second);
            let place = |tones: &[f64; 8], hz: f64| {
                let found = tones.iter().position(|tone| (tone - hz).abs() < 1e-9);
                found.expect("one of the group")
            };
            let (low, high) = (place(&LOW_HZ, low), place(&HIGH_HZ, high));
            assert_eq!(second_of(low, high), Some(second));
        }
        assert_eq!(second_of(7, 4), None);
        assert_eq!(second_of(0, 8), None);
    }

    #[test]
    fn tones_do_not_leak_into_each_other() {
        for pair in LOW_HZ.windows(2).chain(HIGH_HZ.windows(2)) {
            let periods = (pair[1] - pair[0]) * BEEP_SECONDS;
            assert!((periods - periods.round()).abs() < 1e-9, "{pair:?}");
        }
    }
}
