//! What the service is told and what it orders.

use sts_protocol::{
    Audio, ControlAck, ControlMessage, JournalEntry, Refusal, StsMessage, WorkerMessage,
};

use crate::{audio::Job, session::Allowance};

/// A connection's number, from 1.
pub type LinkId = u64;

/// What happened.
#[derive(Debug)]
pub enum Fact {
    /// A client connected.
    Connected {
        /// Its connection.
        link: LinkId,
        /// Its `X-Stream-ID`.
        stream_header: Option<String>,
        /// Its `X-Worker-ID`.
        worker_header: Option<String>,
        /// Why it is not welcome: a bad header or token.
        refusal: Option<Refusal>,
    },
    /// The client has been told that it is connected: it can be talked to.
    Opened {
        /// The connection.
        link: LinkId,
    },
    /// A well-formed message of the protocol.
    Worker {
        /// The connection.
        link: LinkId,
        message: WorkerMessage,
    },
    /// A message of the protocol that cannot be read.
    Malformed {
        /// The connection.
        link: LinkId,
        /// The event's name.
        event: String,
        /// What is wrong with it.
        refusal: Refusal,
        /// `sequence_number`, if that much could be read.
        sequence: Option<u64>,
        /// `fragment_id`, if that much could be read.
        fragment_id: Option<String>,
    },
    /// A control event.
    Control {
        /// The connection it came on.
        link: LinkId,
        /// The event's name.
        event: String,
        /// The event, or what is wrong with it.
        message: Result<ControlMessage, Refusal>,
    },
    /// An event the protocol does not know.
    Unknown {
        /// The connection.
        link: LinkId,
        /// The event's name.
        event: String,
    },
    /// An answer's audio has been made.
    Rendered {
        /// The connection.
        link: LinkId,
        /// The session that asked for it.
        session: u64,
        /// The fragment.
        sequence: u64,
        /// The audio, or why there is none.
        result: Result<Audio, String>,
    },
    /// The connection is gone.
    Disconnected {
        /// The connection.
        link: LinkId,
        /// Why.
        reason: String,
    },
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Order {
    /// Send this.
    Emit {
        /// To this connection.
        link: LinkId,
        message: StsMessage,
    },
    /// Answer a control event.
    Answer {
        /// The connection it came on.
        link: LinkId,
        /// The event that is answered.
        event: String,
        /// The answer.
        ack: ControlAck,
    },
    /// Make an answer's audio, then report [`Fact::Rendered`].
    Render {
        /// The connection.
        link: LinkId,
        session: u64,
        /// The fragment.
        sequence: u64,
        audio: Box<Audio>,
        /// What to make of it.
        job: Job,
    },
    /// Disconnect, then close the transport.
    Close {
        /// The connection.
        link: LinkId,
    },
    /// Write this to the journal.
    Record(JournalEntry),
}

/// What the server allows as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions at once.
    pub max_sessions: usize,
    /// What each session may have.
    pub session: Allowance,
}
