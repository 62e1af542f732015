//! Evidence from outside the worker, parsed into types a scenario can ask.

pub mod audio;
pub mod captions;
pub mod clock;
pub mod ffprobe;
pub mod format;
pub mod frames;
pub mod journal;
pub mod logs;
pub mod metrics;
pub mod nal;
pub mod rules;

/// Why a segment may fall back, as metric and log name it.
pub const FALLBACK_REASONS: [&str; 7] = [
    "timeout",
    "error",
    "breaker_open",
    "disconnected",
    "backpressure",
    "bad_audio",
    "no_audio",
];
