//! The media half of the engine: cutting, decode times, pacing, and the audio grid.

mod av_sync;
mod dts;
mod dub_fit;
mod limits;
mod pause;
mod playout;
mod segment;
