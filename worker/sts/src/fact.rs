//! What the adapter tells the driver, in plain types: nothing here knows Socket.IO.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

/// Number of a connection attempt, chosen by the caller of
/// [`StsClient::connect`](super::StsClient::connect).
pub type LinkId = u32;

/// One thing that happened on a link. Facts of one link arrive in the order they happened;
/// [`FactKind::ConnectFailed`] or [`FactKind::Disconnected`] is its last one.
#[derive(Debug, Clone, PartialEq)]
pub struct StsFact {
    /// The link it happened on.
    pub link: LinkId,
    /// What happened.
    pub kind: FactKind,
}

/// What can happen on a link.
#[derive(Debug, Clone, PartialEq)]
pub enum FactKind {
    /// The namespace is joined; `stream:init` may be sent.
    Connected,
    /// The attempt ended without [`FactKind::Connected`].
    ConnectFailed {
        /// For people; holds no credentials.
        reason: String,
        /// Set when the service answered and said no: trying again is pointless.
        fatal: Option<Refused>,
    },
    /// The link is gone, exactly once for every [`FactKind::Connected`], whoever ended it.
    Disconnected {
        /// For people; holds no credentials.
        reason: String,
    },
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
        status: AckStatus,
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
        kind: MalformedKind,
        /// How many events this fact stands for: 1, more only for [`MalformedKind::Flood`].
        count: u64,
        /// Where; short, one line, no payload.
        detail: String,
    },
}

/// Longest `recommended_delay_ms` taken at its word; a longer one is cut to this.
pub const MAX_DELAY: Duration = Duration::from_mins(1);

/// The service's refusal of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The protocol code if the service gave one, else `AUTH_FAILED`.
    pub code: String,
    /// The service's message: one line, bounded.
    pub message: String,
}

/// How far the service is with a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckStatus {
    /// Waiting its turn.
    Queued,
    /// Being worked on.
    Processing,
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

/// What a service may ask for under load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackpressureAction {
    /// Send as usual.
    None,
    /// Wait before each fragment.
    SlowDown,
    /// Send nothing until [`BackpressureAction::None`].
    Pause,
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

/// Which rule a malformed event broke. A closed set: it becomes a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MalformedKind {
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
    /// Events came faster than they could be taken, some were dropped.
    Flood,
}

impl MalformedKind {
    /// Stable snake_case name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadJson => "bad_json",
            Self::WrongType => "wrong_type",
            Self::MissingField => "missing_field",
            Self::BadValue => "bad_value",
            Self::UnknownEvent => "unknown_event",
            Self::Oversize => "oversize",
            Self::Flood => "flood",
        }
    }
}
