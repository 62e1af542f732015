//! The media half of the engine: cutting, decode times, pacing, and the audio grid.

mod av_sync;
mod dts;
mod playout;
mod segment;
