//! A scriptable RTSP camera: plays a clip, in real time, to whoever asks, over TCP interleaved.
//!
//! ```text
//! clip (pictures, audio frames) ─┐
//! manner (everything that bends) ┴▶ lane (one track: when, stamped how) ─▶ plan (packets in order of time)
//!                                └▶ description (SDP)                          │
//!                                   server (sessions, requests, refusals) ◀────┘ ─▶ sent (evidence)
//! ```
//!
//! The clip begins with the first PLAY, so nothing is lost at the start; once it is over the camera has no
//! such stream any more (404). Coded frames are never changed.
//!
//! # As a process
//! ```sh
//! cargo run -p camera -- fixtures/clock-60s.mp4 --listen 127.0.0.1:8554 --sent sent.json \
//!     --manner '{"video":{"jumps":[{"at":7,"ms":10000}]},"audio":{"jumps":[{"at":7,"ms":10000}]}}'
//! ffprobe -rtsp_transport tcp rtsp://127.0.0.1:8554/live/test/in
//! WORKER_INPUT_URL=rtsp://127.0.0.1:8554/live/test/in cargo run -p worker
//! ```
//! Any path is served. Each line on standard output is an [`Event`] as JSON; `--sent` gets what was sent
//! ([`Sent`]) whenever a session ends. What can be bent is listed in [`manner`]; some manners by name:
//! `--manner mediamtx` (what MediaMTX makes of ffmpeg), or `@file.json`.
//!
//! # In a program
//! [`Camera::start`].

pub mod clip;
pub mod description;
mod lane;
mod login;
pub mod manner;
mod payload;
pub mod plan;
pub mod sent;
mod server;

pub use clip::Clip;
pub use manner::Manner;
pub use sent::Sent;
pub use server::{Camera, Event, Tell};
