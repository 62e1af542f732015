//! The fixture's own clock: a test card that says which frame it is, and a
//! soundtrack that says which second it is.
//!
//! ```text
//! ClipSpec ─▶ render ─▶ picture (layout)             ─▶ raw frames  ─┐
//!                   └─▶ sound   (sound, music, talk) ─▶ raw samples ─┴▶ ffmpeg ─▶ clip.mp4
//! ```
//!
//! Geometry and pitches live in [`layout`] and [`sound`] and nowhere else: the
//! generator draws with them and [`crate::probe::clock`] reads with them.

mod clip;
pub mod layout;
mod music;
mod picture;
pub mod sound;
pub mod talk;

pub use clip::{
    AudioKind, AudioSpec, ClipSpec, cached, cached_in, fixture, render, render_edited, samples,
};
