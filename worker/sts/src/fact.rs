//! What the adapter tells the driver: the engine's own facts, and the audio that came with one.

use dub_engine::SessionFact;
pub use sts_protocol::heard::DubbedAudio;

/// One thing that happened on a link. Facts of one link arrive in the order they happened;
/// [`SessionFact::ConnectFailed`] or [`SessionFact::Disconnected`] is its last one.
#[derive(Debug, Clone, PartialEq)]
pub struct StsFact {
    /// What happened.
    pub input: SessionFact,
    /// With a [`SessionFact::Processed`] that brings audio: its payload, content unchecked, or why there
    /// is none that could be used.
    pub audio: Option<Result<DubbedAudio, String>>,
}

impl From<SessionFact> for StsFact {
    fn from(input: SessionFact) -> Self {
        Self { input, audio: None }
    }
}
