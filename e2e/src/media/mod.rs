//! The harness's own media code: reading clips and recordings sample by sample.
//!
//! ```text
//! clip ◀── mp4, flv, ts        samples with exact times, straight from the file
//!   └──▶ probe::frames         what was in the input, what is in the recording
//! ```
//!
//! Files are read here without GStreamer or ffmpeg on purpose: both drop, move or merge samples in
//! corner cases (edit lists, timestamp gaps), and both are what the evidence is about.

pub mod aac;
mod bytes;
pub mod clip;
pub mod flv;
pub mod mp4;
pub mod nal;
#[cfg(test)]
pub(crate) mod testclip;
pub mod ts;
