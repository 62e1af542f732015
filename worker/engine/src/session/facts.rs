//! What a session is told and what it orders.

use crate::event::Event;
use crate::fragment_id::FragmentId;
use crate::words::{
    AckStatus, BackpressureAction, BadAudio, Fatal, LinkId, OriginalReason, Outcome,
    ProtocolErrorKind,
};
use std::time::Duration;

/// The rules of one session.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// `false`: passthrough; every segment keeps its original audio and nothing ever connects.
    pub enabled: bool,
    /// Fragments that may be out at once; the server may confirm fewer. At least 1.
    pub max_inflight: u32,
    /// How long a fragment may wait to be sent, to be answered, and to be checked (each).
    pub fragment_timeout: Duration,
    /// Consecutive retryable failures that open the breaker. At least 1.
    pub breaker_failures: u32,
    /// How long the breaker stays open.
    pub breaker_cooldown: Duration,
    /// Delays before the retries of a lost or failed connection.
    pub backoff: Vec<Duration>,
    /// What follows the last of these delays.
    pub gone: Gone,
    /// How long a session must live quietly, without a dubbed fragment, to count as proof that the
    /// service is there.
    pub quiet_life: Duration,
    /// Largest message the protocol allows.
    pub max_message: usize,
    /// Wait for `stream:ready` after `stream:init`.
    pub ready_timeout: Duration,
    /// Wait for `stream:complete` after `stream:end`.
    pub complete_timeout: Duration,
    /// Seed of the fragment ids; differs per run, fixed in tests.
    pub id_seed: u64,
}

/// What becomes of the stream when the service stays away through all retries.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Gone {
    /// The session is over.
    Exit,
    /// The stream goes on with original audio, and the last delay is repeated for ever.
    Original,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            max_inflight: 3,
            fragment_timeout: Duration::from_secs(8),
            breaker_failures: 5,
            breaker_cooldown: Duration::from_secs(30),
            backoff: [2, 4, 8, 16, 32].map(Duration::from_secs).to_vec(),
            gone: Gone::Exit,
            quiet_life: Duration::from_mins(1),
            max_message: usize::MAX,
            ready_timeout: Duration::from_secs(10),
            complete_timeout: Duration::from_secs(5),
            id_seed: 0,
        }
    }
}

/// A fact the session is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SessionFact {
    /// The worker runs: connect now.
    Start,
    /// A segment is complete. Batches come in increasing order; a repeated one is ignored.
    SegmentReady {
        /// Number of the segment.
        batch: u64,
        /// `false` for a tail too short to be sent.
        sendable: bool,
        /// Size of the message it would be sent in.
        bytes: usize,
    },
    /// A segment is complete, and there is no sound in it to dub.
    SegmentSilent {
        /// Number of the segment.
        batch: u64,
    },
    /// The connection is up; nothing was said on it yet.
    Connected {
        /// Which attempt.
        link: LinkId,
    },
    /// The attempt failed.
    ConnectFailed {
        /// Which attempt.
        link: LinkId,
        /// What the transport said.
        reason: String,
        /// Set when trying again is pointless.
        fatal: Option<Fatal>,
    },
    /// The connection is gone: closed, broken, or silent for too long.
    Disconnected {
        /// Which connection.
        link: LinkId,
        /// What the transport said.
        reason: String,
    },
    /// The connection is about to be told lost, right after this message, which nothing answered.
    MessageCut {
        /// Which connection.
        link: LinkId,
        /// Size of the message.
        bytes: usize,
        /// The service said that this is why.
        certain: bool,
    },
    /// `stream:ready`.
    Ready {
        /// On which connection.
        link: LinkId,
        /// The limit the server confirmed, as it came.
        max_inflight: Option<i64>,
    },
    /// `fragment:ack` of the server.
    Acked {
        /// On which connection.
        link: LinkId,
        /// The id as it came.
        id: String,
        /// How far the fragment is.
        status: AckStatus,
    },
    /// `fragment:processed`.
    Processed {
        /// On which connection.
        link: LinkId,
        /// The id as it came.
        id: String,
        /// The sequence number as it came.
        sequence: Option<u64>,
        /// What came back.
        outcome: Outcome,
    },
    /// The answer to [`SessionOrder::Decode`].
    AudioChecked {
        /// Which segment.
        batch: u64,
        /// Whether the audio can be used.
        ok: Result<(), BadAudio>,
    },
    /// `backpressure`.
    Backpressure {
        /// On which connection.
        link: LinkId,
        /// What is asked.
        action: BackpressureAction,
        /// `recommended_delay_ms`.
        delay: Option<Duration>,
    },
    /// `error`.
    StsError {
        /// On which connection.
        link: LinkId,
        /// The code as it came.
        code: String,
        /// The `retryable` flag; decides for unknown codes only.
        retryable: bool,
        /// Severity `fatal`; decides for unknown codes only.
        fatal: bool,
        /// The fragment it is about, as it came.
        id: Option<String>,
        /// The server's words.
        message: String,
    },
    /// `stream:complete`.
    StreamComplete {
        /// On which connection.
        link: LinkId,
    },
    /// Something arrived that could not be read. If its fragment is known, tell
    /// [`SessionFact::Processed`] with [`Outcome::Failed`] as well, so that it falls back at once.
    Malformed {
        /// On which connection.
        link: LinkId,
        /// What was wrong.
        kind: ProtocolErrorKind,
        /// How many events this stands for; more than 1 for a flood.
        count: u64,
        /// Where, for people.
        detail: String,
    },
    /// No further [`SessionFact::SegmentReady`]; finish and end the stream.
    InputEnded,
}

/// An order of the session.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SessionOrder {
    /// Open a connection; answer [`SessionFact::Connected`] or [`SessionFact::ConnectFailed`].
    Connect {
        /// Number of the attempt.
        link: LinkId,
    },
    /// Send `stream:init`.
    Init {
        /// On which connection.
        link: LinkId,
    },
    /// Send `fragment:data`.
    Send {
        /// On which connection.
        link: LinkId,
        /// Which segment's audio.
        batch: u64,
        /// Its id.
        id: FragmentId,
        /// Its sequence number since the last [`SessionOrder::Init`].
        sequence: u64,
    },
    /// Send `fragment:ack` with status `applied`.
    Applied {
        /// On which connection.
        link: LinkId,
        /// Which fragment.
        id: FragmentId,
    },
    /// Decode and check the payload held under `id`; answer [`SessionFact::AudioChecked`].
    Decode {
        /// Which segment.
        batch: u64,
        /// Under which id the payload is held.
        id: FragmentId,
        /// The connection it came over.
        link: LinkId,
    },
    /// The payload held under `id` is not wanted. Never said between [`SessionOrder::Decode`] and the
    /// [`SessionOrder::Resolve`] of the same fragment, so take the payload out at `Resolve` at the latest.
    /// Ids that are no UUIDs never get here: hold nothing for them.
    Forget {
        /// Under which id.
        id: FragmentId,
    },
    /// What audio the segment gets. Exactly once per batch, in batch order.
    Resolve {
        /// Which segment.
        batch: u64,
        /// Its audio.
        with: Resolution,
    },
    /// Send `stream:end`.
    End {
        /// On which connection.
        link: LinkId,
    },
    /// Close the connection, or stop trying to open it. Facts of it are ignored from here on.
    Disconnect {
        /// Which connection.
        link: LinkId,
    },
    /// Everything told so far is resolved and the stream is closed. Said once.
    Drained(End),
    /// Something worth a log line, a count or both.
    Event(Event),
}

/// The audio of a segment.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Resolution {
    /// The checked audio held under `id`.
    Dubbed {
        /// Under which id.
        id: FragmentId,
    },
    /// The original audio.
    Original(OriginalReason),
}

/// How the session ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum End {
    /// Input ended and everything is resolved.
    Complete,
    /// The service could not be reached again.
    Gone,
    /// The service refused us.
    Refused {
        /// The code, such as `AUTH_FAILED`.
        code: String,
        /// The server's words.
        message: String,
    },
}
