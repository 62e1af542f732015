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
pub mod rules;

/// What follows `name` up to the next space in a line of ffmpeg's filters, which pad some values on the left.
pub(crate) fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_once(name)?.1.split_whitespace().next()
}

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
