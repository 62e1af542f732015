//! Live dubbing worker: RTSP in, speech-to-speech over Socket.IO, RTMP out.
//!
//! ```text
//! main ─▶ driver ─▶ dub-media   (crate, the only one that knows GStreamer)
//!              ├──▶ sts-client  (crate, the only one that knows Socket.IO)
//!              ├──▶ observe     (events ─▶ logs + metrics)
//!              └──▶ dub-engine  (pure; decides)
//! ```
//!
//! The program's interface is `worker --help`; this library exists for its tests.

pub mod captions;
pub mod cli;
pub mod config;
pub mod driver;
pub mod error;
pub mod exit;
pub mod observe;
pub mod telemetry;

/// Version of the program, and the commit it was built from.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("WORKER_COMMIT"), ")");
