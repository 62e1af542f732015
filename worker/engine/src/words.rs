//! Words that more than one part or crate speaks. Each exists here and nowhere else.

use std::fmt;

/// Number of a connection attempt, 1-based. Facts of an older link are stale.
pub type LinkId = u32;

/// What came back in `fragment:processed`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Audio; the driver holds the payload under the fragment's id.
    Audio,
    /// The service failed on this fragment.
    Failed {
        /// The code as it came.
        code: String,
        /// The flag as it came; decides for unknown codes only.
        retryable: bool,
        /// The server's words.
        message: String,
    },
}

/// `status` of the server's `fragment:ack`.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum AckStatus {
    /// Waiting on the server.
    Queued,
    /// Being worked on.
    Processing,
}

/// The `action` of a `backpressure` event.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub enum BackpressureAction {
    /// Send nothing until `None`.
    Pause,
    /// Wait before each fragment until `None`.
    SlowDown,
    /// Send as usual.
    None,
}

impl BackpressureAction {
    /// The word used on the wire and as a metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::SlowDown => "slow_down",
            Self::None => "none",
        }
    }
}

impl fmt::Display for BackpressureAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Why returned audio cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadAudio {
    /// For the log.
    pub reason: String,
}

/// A refusal that no retry can change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fatal {
    /// The code, such as `AUTH_FAILED`.
    pub code: String,
    /// The server's words.
    pub message: String,
}

/// Why a segment keeps its original audio.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub enum OriginalReason {
    /// No answer, or no room to send it, in time.
    Timeout,
    /// The service said it failed.
    Error,
    /// The breaker refused the call.
    BreakerOpen,
    /// There was no session.
    Disconnected,
    /// The service asked us to hold back for too long.
    Backpressure,
    /// What came back cannot be used.
    BadAudio,
    /// There was no sound to dub: all of it is silence that was put where nothing came.
    NoAudio,
    /// Too short to be sent. Not a fallback.
    NotSent,
    /// Dubbing is off. Not a fallback.
    Passthrough,
}

impl OriginalReason {
    /// The reasons that are fallbacks, which are the label values of `worker_fallback_total`.
    pub const FALLBACKS: [Self; 7] = [
        Self::Timeout,
        Self::Error,
        Self::BreakerOpen,
        Self::Disconnected,
        Self::Backpressure,
        Self::BadAudio,
        Self::NoAudio,
    ];

    /// The word used in logs and as a metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Error => "error",
            Self::BreakerOpen => "breaker_open",
            Self::Disconnected => "disconnected",
            Self::Backpressure => "backpressure",
            Self::BadAudio => "bad_audio",
            Self::NoAudio => "no_audio",
            Self::NotSent => "not_sent",
            Self::Passthrough => "passthrough",
        }
    }

    /// Whether dubbing was wanted and did not happen.
    pub const fn is_fallback(self) -> bool {
        !matches!(self, Self::NotSent | Self::Passthrough)
    }
}

impl fmt::Display for OriginalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// What was wrong with something the service said. Small and closed: it is a metric label.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub enum ProtocolErrorKind {
    /// Not JSON, or not one object.
    BadJson,
    /// A field of the wrong type.
    WrongType,
    /// A required field is absent.
    MissingField,
    /// An event name we do not know.
    UnknownEvent,
    /// An id we never sent, or so long ago that it was forgotten.
    UnknownFragment,
    /// Said twice.
    Duplicate,
    /// An answer for a fragment already given up.
    Late,
    /// Audio that came after that of a later fragment.
    OutOfOrder,
    /// Said on a connection already given up.
    StaleLink,
    /// Larger than the limits of the protocol.
    Oversize,
    /// A value outside its range.
    BadValue,
    /// More events than can be taken in; some were dropped.
    Flood,
    /// A known event that has no place in this state.
    Unexpected,
    /// An `error` event about no fragment and without consequence.
    SessionError,
}

impl ProtocolErrorKind {
    /// Every kind, for metrics that exist from the start.
    pub const ALL: [Self; 14] = [
        Self::BadJson,
        Self::WrongType,
        Self::MissingField,
        Self::UnknownEvent,
        Self::UnknownFragment,
        Self::Duplicate,
        Self::Late,
        Self::OutOfOrder,
        Self::StaleLink,
        Self::Oversize,
        Self::BadValue,
        Self::Flood,
        Self::Unexpected,
        Self::SessionError,
    ];

    /// The word used in logs and as a metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::BadJson => "bad_json",
            Self::WrongType => "wrong_type",
            Self::MissingField => "missing_field",
            Self::UnknownEvent => "unknown_event",
            Self::UnknownFragment => "unknown_fragment",
            Self::Duplicate => "duplicate",
            Self::Late => "late",
            Self::OutOfOrder => "out_of_order",
            Self::StaleLink => "stale_link",
            Self::Oversize => "oversize",
            Self::BadValue => "bad_value",
            Self::Flood => "flood",
            Self::Unexpected => "unexpected",
            Self::SessionError => "session_error",
        }
    }
}

impl fmt::Display for ProtocolErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}
