//! What `mark` does to the sound, so that a listener or a probe can tell dubbed
//! audio from the original: the original gets quieter and a steady tone is added.

/// Frequency of the marker tone in Hz.
///
/// It lies in the gap the test clip's beeps leave (2300 to 2800 Hz) and a whole
/// number of periods per 90 ms beep away from each of their tones, so neither
/// disturbs the measurement of the other.
pub const TONE_HZ: f64 = 2_600.0;
/// Peak of the marker tone, dB re full scale.
pub const TONE_DBFS: f64 = -18.0;
/// What happens to the original's level, in dB.
pub const ORIGINAL_GAIN_DB: f64 = -12.0;
/// The tone fades in and out over this long at either end of a fragment, in seconds.
pub const RAMP_SECONDS: f64 = 0.01;
