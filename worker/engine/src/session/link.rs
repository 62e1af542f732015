//! The life of the connection to the service.
//!
//! ```text
//!  Idle ─Start─▶ Connecting ─Connected─▶ Initializing ─Ready─▶ Active ─EndSent─▶ Ending ─▶ Closed
//!                  ▲     │                 │      ▲               │
//!           RetryDue     │ Lost            │ Lost └──SessionLost──┤
//!                  └─── Away ◀─────────────┴──────────────────────┘ Lost
//! ```

use crate::machine::Transition;

/// Where the connection stands.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Phase {
    /// Not started.
    Idle,
    /// An attempt is under way.
    Connecting,
    /// `stream:init` is sent, `stream:ready` is awaited.
    Initializing,
    /// Fragments may flow.
    Active,
    /// Waiting for the next attempt.
    Away,
    /// `stream:end` is sent, `stream:complete` is awaited.
    Ending,
    /// Over, for whatever reason.
    Closed,
}

/// What happens to the connection.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum LinkFact {
    /// The worker runs.
    Start,
    /// The connection is up.
    Connected,
    /// `stream:ready` arrived.
    Ready,
    /// The server no longer knows the session.
    SessionLost,
    /// The connection, or the attempt to make one, failed.
    Lost,
    /// The next attempt is due.
    RetryDue,
    /// `stream:end` was sent.
    EndSent,
    /// The stream is over: completed, given up, refused or stopped.
    Over,
}

impl Phase {
    /// Every phase, for tables.
    pub const ALL: [Self; 7] = [
        Self::Idle,
        Self::Connecting,
        Self::Initializing,
        Self::Active,
        Self::Away,
        Self::Ending,
        Self::Closed,
    ];

    /// The next phase.
    #[expect(
        clippy::match_same_arms,
        reason = "grouped by meaning, each group with its comment"
    )]
    pub fn on(self, fact: LinkFact) -> Transition<Self> {
        use Transition::{Invalid, NoOp, To};
        match (self, fact) {
            (Self::Closed, LinkFact::Lost | LinkFact::Over) => NoOp,
            (Self::Closed, _) => Invalid,
            (_, LinkFact::Over) | (Self::Ending, LinkFact::Lost) => To(Self::Closed),
            (Self::Idle, LinkFact::Start) | (Self::Away, LinkFact::RetryDue) => {
                To(Self::Connecting)
            }
            (_, LinkFact::Start) => NoOp,
            (Self::Connecting, LinkFact::Connected) | (Self::Active, LinkFact::SessionLost) => {
                To(Self::Initializing)
            }
            (Self::Initializing, LinkFact::Ready) => To(Self::Active),
            // The errors of fragments sent before the new init trail in.
            (Self::Initializing | Self::Ending, LinkFact::SessionLost) => NoOp,
            (Self::Active, LinkFact::EndSent) => To(Self::Ending),
            (Self::Connecting | Self::Initializing | Self::Active, LinkFact::Lost) => {
                To(Self::Away)
            }
            _ => Invalid,
        }
    }

    /// Whether there is a connection, or an attempt to make one.
    pub const fn has_link(self) -> bool {
        matches!(
            self,
            Self::Connecting | Self::Initializing | Self::Active | Self::Ending
        )
    }

    /// Whether the service may speak.
    pub const fn is_connected(self) -> bool {
        matches!(self, Self::Initializing | Self::Active | Self::Ending)
    }
}
