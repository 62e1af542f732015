//! Evidence from outside the worker, parsed into types a scenario can ask.

pub mod audio;
pub mod clock;
pub mod ffprobe;
pub mod frames;
pub mod journal;
pub mod logs;
pub mod metrics;
