//! Live dubbing worker: RTSP in, speech-to-speech over Socket.IO, RTMP out.
//!
//! ```text
//! main ─▶ runner ─▶ media/   (the only place that knows GStreamer)
//!              ├──▶ sts/     (the only place that knows Socket.IO)
//!              ├──▶ observe  (events ─▶ logs + metrics)
//!              └──▶ dub-engine (pure; decides)
//! ```
//!
//! The program's interface is `worker --help`; this library exists for its tests.

pub mod cli;
pub mod config;
pub mod error;
pub mod exit;
pub mod media;
pub mod observe;
pub mod runner;
pub mod sts;
pub mod telemetry;
