//! Exit codes: one per kind of failure, so an orchestrator can decide without reading logs.
//!
//! The table for operators is `docs/ref/exit-codes.md`.

/// The stream ended and everything was published.
pub const OK: u8 = 0;
/// Something this program did not foresee; the log has the chain of causes.
pub const UNEXPECTED: u8 = 1;
/// An option has a value that is not allowed.
pub const USAGE: u8 = 2;
/// The RTSP input was not there, or was lost and did not come back.
pub const INPUT: u8 = 10;
/// The input has no audio track or no H.264 video.
pub const UNSUITABLE_INPUT: u8 = 11;
/// The RTMP output was refused or lost.
pub const OUTPUT: u8 = 12;
/// The STS service stayed unreachable; what was buffered has been published.
pub const STS_GONE: u8 = 13;
/// The STS service refused the stream (`AUTH_FAILED`, `INVALID_CONFIG`).
pub const STS_REFUSED: u8 = 14;
