//! What was understood, in plain types.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::{BackpressureAction, StsAckStatus};

/// One thing that a service said, or got wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// `stream:ready`.
    Ready {
        /// The confirmed limit as sent, unchecked; `None` if the service gave none.
        max_inflight: Option<i64>,
        /// The service's name for the session.
        session_id: Option<String>,
    },
    /// `fragment:ack`.
    Acked {
        /// The fragment.
        id: String,
        /// How far the service is with it.
        status: StsAckStatus,
    },
    /// `fragment:processed`.
    Processed {
        /// The fragment.
        id: String,
        /// Its number as sent back, where that was a number.
        sequence: Option<u64>,
        /// What came of it.
        outcome: Outcome,
    },
    /// `backpressure`.
    Backpressure {
        /// What the service asks for.
        action: BackpressureAction,
        /// `recommended_delay_ms`, at most [`MAX_DELAY`].
        delay: Option<Duration>,
    },
    /// `error`.
    Error {
        /// The code as sent, `UNKNOWN` if there was none.
        code: String,
        /// Whether it counts for the breaker: as sent, else what the protocol says of the code.
        retryable: bool,
        /// The stream cannot go on (severity `fatal`, or `AUTH_FAILED`).
        fatal: bool,
        /// The fragment it is about.
        id: Option<String>,
        /// For people: one line, bounded.
        message: String,
    },
    /// `stream:complete`.
    Complete {
        /// What the service counted.
        stats: CompleteStats,
    },
    /// The service sent something the protocol does not allow.
    Malformed {
        /// Which rule it broke.
        kind: BrokenRule,
        /// Where; short, one line, no payload.
        detail: String,
    },
}

/// Longest `recommended_delay_ms` taken at its word; a longer one is cut to this.
pub const MAX_DELAY: Duration = Duration::from_mins(1);

/// The service's refusal of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The protocol code if the service gave one, else `UNKNOWN`.
    pub code: String,
    /// The service's message: one line, bounded.
    pub message: String,
}

/// What came of a fragment.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Dubbed audio, base64 already undone, content unchecked.
    Audio(DubbedAudio),
    /// The service says it failed.
    Failed {
        /// The code as sent, `UNKNOWN` if there was none.
        code: String,
        /// For people: one line, bounded.
        message: String,
        /// Whether it counts for the breaker: as sent, else what the protocol says of the code.
        retryable: bool,
    },
    /// The answer held no usable audio: absent, empty, too large, not base64, or mislabelled.
    BadAudio {
        /// For people; short.
        reason: String,
    },
}

/// Audio as it came back.
#[derive(Clone, PartialEq, Eq)]
pub struct DubbedAudio {
    /// Format label, lower case: `m4a`, `adts`, `wav`, `pcm_s16le`, `mp3`, `ogg`, …
    pub format: String,
    /// Hz as labelled; `None` if absent.
    pub sample_rate: Option<u32>,
    /// 1 or 2 as labelled; `None` if absent.
    pub channels: Option<u32>,
    /// ms as labelled; `None` if absent.
    pub duration_ms: Option<u64>,
    /// The encoded audio, never empty.
    pub bytes: Bytes,
    /// What was said, in the language of the input; empty if not told.
    pub transcript: String,
    /// What the dub says; empty if not told.
    pub translated_text: String,
}

impl fmt::Debug for DubbedAudio {
    // Audio never reaches a log, so its bytes never reach `Debug`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DubbedAudio")
            .field("format", &self.format)
            .field("sample_rate", &self.sample_rate)
            .field("channels", &self.channels)
            .field("duration_ms", &self.duration_ms)
            .field("bytes", &format_args!("<{} bytes>", self.bytes.len()))
            .finish()
    }
}

/// What the service counted over the stream; fields it left out are `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompleteStats {
    /// Fragments taken.
    pub total: Option<u64>,
    /// Of these, done.
    pub success: Option<u64>,
    /// Of these, done in part.
    pub partial: Option<u64>,
    /// Of these, failed.
    pub failed: Option<u64>,
}

/// Which rule a malformed event broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BrokenRule {
    /// A packet that is not Socket.IO, or JSON that does not parse.
    BadJson,
    /// A field, or the payload, has another type than the protocol says.
    WrongType,
    /// A required field, or the payload, is absent or `null`.
    MissingField,
    /// The type is right, the value is not allowed.
    BadValue,
    /// No such event in the protocol.
    UnknownEvent,
    /// More data than the protocol allows.
    Oversize,
}
