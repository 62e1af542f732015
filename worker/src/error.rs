//! Failures that end the worker, each knowing its exit code.

use crate::exit;

/// Why the worker stopped before the end of its input.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The input could not be reached, or was lost for good.
    #[error("input {url}: {reason} (gave up after {attempts} attempts)")]
    Input {
        /// RTSP URL without credentials.
        url: String,
        /// What the last attempt ended with.
        reason: String,
        /// How many connections were tried in a row.
        attempts: u32,
    },
    /// The input lacks a track the worker cannot do without.
    #[error("input {url}: {reason}")]
    UnsuitableInput {
        /// RTSP URL without credentials.
        url: String,
        /// Which track is missing.
        reason: String,
    },
    /// The output was refused, lost or stuck.
    #[error("output {url}: {reason}")]
    Output {
        /// RTMP URL without credentials.
        url: String,
        /// What the sink said.
        reason: String,
    },
    /// Reconnecting to the STS service failed as often as allowed.
    #[error("STS service {url}: gone, no reconnection attempt succeeded")]
    StsGone {
        /// STS URL without credentials.
        url: String,
    },
    /// The STS service refused this stream; trying again is pointless.
    #[error("STS service {url} refused the stream: {code}: {message}")]
    StsRefused {
        /// STS URL without credentials.
        url: String,
        /// Error code of the protocol.
        code: String,
        /// The server's own words.
        message: String,
    },
    /// An option's value turned out to be unusable.
    #[error("{0}")]
    Usage(String),
    /// A bug or a broken installation, such as a missing GStreamer plugin.
    #[error("{0}")]
    Unexpected(String),
}

impl WorkerError {
    /// The process exit code for this failure.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Input { .. } => exit::INPUT,
            Self::UnsuitableInput { .. } => exit::UNSUITABLE_INPUT,
            Self::Output { .. } => exit::OUTPUT,
            Self::StsGone { .. } => exit::STS_GONE,
            Self::StsRefused { .. } => exit::STS_REFUSED,
            Self::Usage(_) => exit::USAGE,
            Self::Unexpected(_) => exit::UNEXPECTED,
        }
    }
}
