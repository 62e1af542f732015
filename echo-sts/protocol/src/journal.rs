//! One line of `echo-sts`'s journal: what was seen or done, never the audio.

use serde::{Deserialize, Serialize};

/// Which way an event went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From a client.
    In,
    /// To a client.
    Out,
    /// The server's own doing, or the connection's fate.
    #[default]
    Local,
}

/// One journal line. Absent keys are left out of the JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JournalEntry {
    /// Unix time in ms.
    pub time_ms: f64,
    /// Time since the server started, in ms, from a clock that never steps.
    pub at_ms: f64,
    /// Which way.
    pub direction: Direction,
    /// Event name; for [`Direction::Local`] `connect`, `disconnect`, `refused` or `simulated_…`.
    pub event: String,
    /// The stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<String>,
    /// Which session, from 1, in the order of their `stream:init`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// The fragment's `sequence_number`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// The fragment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fragment_id: Option<String>,
    /// `status` of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Error code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Backpressure action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Size of the audio on the wire: characters of base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Length of the audio in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Anything else worth reading.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}
