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
    /// The input goes on in a way that only a new start can follow.
    #[error("input {url}: {reason}")]
    InputChanged {
        /// RTSP URL without credentials.
        url: String,
        /// What has changed.
        reason: String,
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
    #[error("STS service {url}: connection lost, no reconnection attempt succeeded")]
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

impl From<dub_media::MediaError> for WorkerError {
    fn from(error: dub_media::MediaError) -> Self {
        Self::Unexpected(error.to_string())
    }
}

impl WorkerError {
    /// The process exit code for this failure.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Input { .. } | Self::InputChanged { .. } => exit::INPUT,
            Self::UnsuitableInput { .. } => exit::UNSUITABLE_INPUT,
            Self::Output { .. } => exit::OUTPUT,
            Self::StsGone { .. } => exit::STS_GONE,
            Self::StsRefused { .. } => exit::STS_REFUSED,
            Self::Usage(_) => exit::USAGE,
            Self::Unexpected(_) => exit::UNEXPECTED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `docs/ref/exit-codes.md` is the operators' table.
    #[test]
    fn every_failure_has_its_code_and_says_where() {
        let (url, reason) = (String::from("scheme://***@host/x"), String::from("why"));
        let (code, message) = (String::from("AUTH_FAILED"), String::from("no"));
        let attempts = 4;
        for (error, exit, text) in [
            (
                WorkerError::Input {
                    url: url.clone(),
                    reason: reason.clone(),
                    attempts,
                },
                10,
                "input scheme://***@host/x: why (gave up after 4 attempts)",
            ),
            (
                WorkerError::InputChanged {
                    url: url.clone(),
                    reason: reason.clone(),
                },
                10,
                "input scheme://***@host/x: why",
            ),
            (
                WorkerError::UnsuitableInput {
                    url: url.clone(),
                    reason: reason.clone(),
                },
                11,
                "input scheme://***@host/x: why",
            ),
            (
                WorkerError::Output {
                    url: url.clone(),
                    reason,
                },
                12,
                "output scheme://***@host/x: why",
            ),
            (
                WorkerError::StsGone { url: url.clone() },
                13,
                "STS service scheme://***@host/x: connection lost, no reconnection attempt succeeded",
            ),
            (
                WorkerError::StsRefused { url, code, message },
                14,
                "STS service scheme://***@host/x refused the stream: AUTH_FAILED: no",
            ),
            (WorkerError::Usage("--x".into()), 2, "--x"),
            (WorkerError::Unexpected("odd".into()), 1, "odd"),
        ] {
            assert_eq!(
                (error.exit_code(), error.to_string().as_str()),
                (exit, text)
            );
        }
        let missing = dub_media::MediaError::MissingElements(vec!["rtmp2sink".to_owned()]);
        let error = WorkerError::from(missing);
        assert_eq!(error.exit_code(), 1);
        assert!(error.to_string().contains("rtmp2sink"), "{error}");
    }
}
