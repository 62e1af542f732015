//! What fails on the media side, where.

use std::time::Duration;

/// A part of the media side that does not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MediaError {
    /// GStreamer itself.
    #[error("GStreamer does not start: {0}")]
    Init(String),
    /// Plugins that are not installed.
    #[error(
        "GStreamer elements are missing: {}; install the plugins with `cargo xtask setup`, or run inside `nix develop`",
        .0.join(", ")
    )]
    MissingElements(Vec<String>),
    /// A pipeline that cannot be built or run.
    #[error("{place}: {reason}")]
    Pipeline {
        /// Which pipeline, such as `RTMP output`.
        place: &'static str,
        /// GStreamer's words.
        reason: String,
    },
    /// A pipeline that takes data and gives none.
    #[error("{place}: nothing came out for {patience:?}")]
    Silent {
        /// Which pipeline.
        place: &'static str,
        /// How long was waited.
        patience: Duration,
    },
    /// A thread that is stuck or gone.
    #[error("{place} does not keep up: {waiting} orders are waiting")]
    Behind {
        /// Which thread.
        place: &'static str,
        /// The limit of its queue.
        waiting: usize,
    },
    /// A thread that could not be started.
    #[error("{place}: {reason}")]
    Thread {
        /// Which thread.
        place: &'static str,
        /// The system's words.
        reason: String,
    },
}

impl MediaError {
    /// For `map_err`: what GStreamer said about the pipeline called `place`.
    pub(crate) fn at<E: ToString>(place: &'static str) -> impl Fn(E) -> Self {
        move |error| Self::Pipeline {
            place,
            reason: error.to_string(),
        }
    }
}
