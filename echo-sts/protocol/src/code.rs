//! Error codes and what they imply.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How bad an [`ErrorEvent`](crate::ErrorEvent) is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth noting; the stream goes on.
    Warning,
    /// This fragment or request failed.
    Error,
    /// The stream cannot go on.
    Fatal,
}

/// An error code of the protocol. Codes this version does not know are kept as sent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorCode {
    /// `AUTH_FAILED`: bad token.
    AuthFailed,
    /// `STREAM_NOT_FOUND`: fragment before `stream:init`, or the session is gone.
    StreamNotFound,
    /// `INVALID_CONFIG`: malformed payload.
    InvalidConfig,
    /// `FRAGMENT_TOO_LARGE`: audio over [`MAX_AUDIO_BASE64`](crate::limits::MAX_AUDIO_BASE64).
    FragmentTooLarge,
    /// `INVALID_SEQUENCE`: gap or duplicate.
    InvalidSequence,
    /// `TIMEOUT`: processing took too long.
    Timeout,
    /// `MODEL_ERROR`: ASR, translation or TTS failed.
    ModelError,
    /// `GPU_OOM`.
    GpuOom,
    /// `QUEUE_FULL`.
    QueueFull,
    /// `RATE_LIMIT`.
    RateLimit,
    /// Any other code, as sent.
    Other(String),
}

impl ErrorCode {
    /// Every code of protocol 1.0.
    pub const KNOWN: [Self; 10] = [
        Self::AuthFailed,
        Self::StreamNotFound,
        Self::InvalidConfig,
        Self::FragmentTooLarge,
        Self::InvalidSequence,
        Self::Timeout,
        Self::ModelError,
        Self::GpuOom,
        Self::QueueFull,
        Self::RateLimit,
    ];

    /// The code as it stands on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::AuthFailed => "AUTH_FAILED",
            Self::StreamNotFound => "STREAM_NOT_FOUND",
            Self::InvalidConfig => "INVALID_CONFIG",
            Self::FragmentTooLarge => "FRAGMENT_TOO_LARGE",
            Self::InvalidSequence => "INVALID_SEQUENCE",
            Self::Timeout => "TIMEOUT",
            Self::ModelError => "MODEL_ERROR",
            Self::GpuOom => "GPU_OOM",
            Self::QueueFull => "QUEUE_FULL",
            Self::RateLimit => "RATE_LIMIT",
            Self::Other(code) => code,
        }
    }

    /// Severity from the protocol's table; an unknown code counts as an error.
    pub fn severity(&self) -> Severity {
        match self {
            Self::AuthFailed => Severity::Fatal,
            Self::QueueFull | Self::RateLimit => Severity::Warning,
            _ => Severity::Error,
        }
    }

    /// Whether the protocol's table calls this code retryable (it then counts for
    /// the circuit breaker). `None` for an unknown code: the message's own
    /// `retryable` flag decides.
    pub fn retryable(&self) -> Option<bool> {
        match self {
            Self::AuthFailed
            | Self::StreamNotFound
            | Self::InvalidConfig
            | Self::FragmentTooLarge
            | Self::InvalidSequence => Some(false),
            Self::Timeout | Self::ModelError | Self::GpuOom | Self::QueueFull | Self::RateLimit => {
                Some(true)
            }
            Self::Other(_) => None,
        }
    }
}

impl From<&str> for ErrorCode {
    fn from(code: &str) -> Self {
        Self::KNOWN
            .into_iter()
            .find(|known| known.as_str() == code)
            .unwrap_or_else(|| Self::Other(code.to_owned()))
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from(String::deserialize(deserializer)?.as_str()))
    }
}

/// Why a message is not acceptable: the code to answer with and a sentence
/// naming the field, the value and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// The code for the wire.
    pub code: ErrorCode,
    /// What was wrong, for people.
    pub message: String,
}

impl Refusal {
    /// A refusal with `code` and `message`.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// An `INVALID_CONFIG` refusal: the payload is malformed.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidConfig, message)
    }
}
