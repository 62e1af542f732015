//! What a session is made of and what it asks for.

use std::time::Duration;

use sts_protocol::{Audio, ErrorCode, FragmentError, StsMessage, limits};

use super::At;
use crate::audio::Job;

/// Where a session is in its life. `initializing` ends before there is a session:
/// it is created by an accepted `stream:init`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Fragments are processed.
    Active,
    /// Fragments are taken, their processing waits for `stream:resume`.
    Paused,
    /// `stream:end` was seen; what is there is finished.
    Ending,
    /// `stream:complete` was sent.
    Completed,
}

/// What a session wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send this to the worker.
    Emit(StsMessage),
    /// Make an answer for this fragment, then call [`Session::rendered`].
    Render {
        /// The fragment.
        sequence: u64,
        audio: Box<Audio>,
        /// What to make of it.
        job: Job,
    },
    /// The simulation interfered with a fragment.
    Simulated {
        /// `simulated_error` or `simulated_hold`.
        event: &'static str,
        /// The fragment's number.
        sequence: u64,
        fragment_id: String,
        /// The simulated error's code.
        code: Option<ErrorCode>,
    },
    /// The session is over: close the connection.
    Close,
}

/// What the server allows any session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Highest `max_inflight` that is confirmed.
    pub max_inflight: u32,
    /// Highest `chunk_duration_ms` that is accepted.
    pub max_chunk_ms: u32,
    /// How long after `stream:complete` the connection is closed.
    pub close_after: Duration,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            max_inflight: *limits::MAX_INFLIGHT.end(),
            max_chunk_ms: *limits::CHUNK_DURATION_MS.end(),
            close_after: limits::CLOSE_AFTER_COMPLETE,
        }
    }
}

/// A fragment between its arrival and its answer.
#[derive(Debug)]
pub(super) struct Fragment {
    pub(super) id: String,
    pub(super) sequence: u64,
    pub(super) nth: u64,
    pub(super) received: At,
    /// Where its sound begins in the stream, if the worker has said so.
    pub(super) from_ms: u64,
    pub(super) length_ms: u64,
    /// The answer says which seconds of the stream it stands for.
    pub(super) speaks: bool,
    pub(super) work: Work,
}

/// How far a fragment has got.
#[derive(Debug)]
pub(super) enum Work {
    /// The session is paused.
    Waiting(Box<Audio>),
    /// The answer is being made.
    Rendering { started: At, due: At },
    /// The answer is there.
    Done {
        started: At,
        due: At,
        outcome: Result<Box<Audio>, FragmentError>,
    },
}
