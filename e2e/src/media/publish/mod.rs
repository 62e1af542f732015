//! Publishes a clip over RTSP as a live source would, faults included.
//!
//! ```text
//! options ─▶ lane (one track: when, stamped how) ─▶ stream (packets in order of time) ─▶ run (sleeps and writes)
//!                                                                                        └─▶ rtsp (the connection)
//! ```

mod address;
mod drifted;
mod lane;
mod options;
mod rtsp;
mod run;
mod stream;
#[cfg(test)]
mod tests;

pub use address::{PublishError, RtspUrl};
pub use drifted::record_with_drift;
pub use lane::Media;
pub use options::{Drift, Options, StepReports};
pub use run::{Cue, Summary, publish};
pub use stream::{Outgoing, Stream, select};
