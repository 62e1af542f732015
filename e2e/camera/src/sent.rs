//! What a camera sent: evidence from outside whoever reads it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A picture that was sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Picture {
    /// SHA-256 over its slices with start codes, as ffmpeg's `framehash` tells it of a recording.
    pub slices: String,
    /// When it belongs, in milliseconds of the clip.
    pub pts_ms: f64,
    /// Decoding can start here.
    pub keyframe: bool,
}

/// What was sent to one session that played.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Played {
    /// Wall time of its first packet, milliseconds since the Unix epoch.
    pub first_packet_ms: Option<f64>,
    /// Pictures, all packets of which were sent, in order.
    pub pictures: Vec<Picture>,
    /// Pictures of which packets were lost.
    pub damaged: u64,
    pub audio_frames: u64,
    /// RTP packets.
    pub packets: u64,
    /// RTP packets that got lost.
    pub lost: u64,
    /// Sender reports and farewells.
    pub reports: u64,
    pub bytes: u64,
    /// How late the latest packet left, because the reader took no more or the machine was busy.
    pub latest_ms: f64,
    /// How it ended: `played`, `teardown`, `closed by the reader`, `timed out`, `fault`, …
    pub ended: Option<String>,
}

/// What a camera sent so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// Every session that played, in order.
    pub sessions: Vec<Played>,
    /// Requests by method.
    pub requests: BTreeMap<String, u64>,
    /// Requests that were refused, by status.
    pub refused: BTreeMap<u16, u64>,
}

impl Sent {
    /// Pictures in all sessions.
    pub fn pictures(&self) -> usize {
        self.sessions
            .iter()
            .map(|session| session.pictures.len())
            .sum()
    }

    pub fn audio_frames(&self) -> u64 {
        self.sessions
            .iter()
            .map(|session| session.audio_frames)
            .sum()
    }
}
