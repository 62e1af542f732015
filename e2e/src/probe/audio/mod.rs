//! Sound looked at closely: level, damage, alignment, who spoke.
//!
//! ```text
//! file ─▶ Sound (mono samples with true times)
//!           ├─▶ segments   dubbed, original or silent; level
//!           ├─▶ damage     clicks, dropouts
//!           ├─▶ align      output against input, second by second
//!           ├─▶ identity   is each second and channel the input's
//!           └─▶ tone       how loud a steady tone is, what is left when it is taken away
//! ```
//!
//! Times are seconds on the file's own timeline, as a player would see them.

mod align;
mod damage;
mod decode;
mod identity;
mod segments;
mod tone;

pub(crate) use damage::high_pass;

pub use align::{Alignment, SecondAlignment, align};
pub use damage::{Click, Dropout, clicks, dropouts};
pub use decode::{Break, Sound};
pub use identity::{Stereo, require_identity};
pub use segments::{Segment, Verdict, segments};
pub use tone::{Residual, ToneReport, residual_without_tone, tone_db};

#[cfg(test)]
mod tests;

/// An amplitude as decibels re full scale; silence is -200.
pub fn decibels(amplitude: f64) -> f64 {
    20.0 * amplitude.max(1e-10).log10()
}

/// Root mean square of a stretch of samples; 0 for none.
pub fn rms(samples: &[f32]) -> f64 {
    if samples.is_empty() {
        return 0.0;
    }
    let sum: f64 = samples.iter().map(|&value| f64::from(value).powi(2)).sum();
    (sum / samples.len() as f64).sqrt()
}

/// Where the highest value is; 0 for none.
pub(crate) fn highest<T: Copy + Into<f64>>(values: &[T]) -> usize {
    let values = values.iter().map(|&value| value.into());
    let highest = values.enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
    highest.map_or(0, |(at, _)| at)
}

/// The middle value; 0 for none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}
