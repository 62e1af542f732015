//! The STS service as the worker sees it. The only place that knows Socket.IO.
//!
//! [`StsClient`] takes orders that never block (connect, init, send, …) and answers with
//! [`StsFact`]s, in the engine's words, on a bounded channel. It decides nothing: when to connect, send, retry or give
//! up is the engine's business.
//!
//! What it guarantees:
//!
//! - Every `connect` ends in exactly one `ConnectFailed`, or in `Connected` and later exactly one
//!   `Disconnected`, whoever ended the link and however it died.
//! - A death is noticed within a stated bound ([`StsClientConfig`] has the numbers).
//! - Whatever the peer sends: no panic, no unbounded memory, and each broken rule is named.
//! - What cannot be read costs one event, not the link.
//! - A link leaves no task or descriptor behind.
//!
//! ```text
//! driver ──orders──▶ StsClient ──▶ link (a task per connection) ──▶ outbox ──▶ socket
//!    ◀──facts (bounded)── queue ◀── hear ◀── packet ◀── frames ◀────────────────┘
//! ```
#![warn(missing_docs)]

mod client;
mod config;
mod connect;
mod dial;
mod fact;
mod frames;
mod hear;
mod join;
mod link;
mod outbox;
mod outgoing;
mod packet;
mod queue;
mod target;

pub use client::StsClient;
pub use config::{Ca, InitParams, OutgoingFragment, Secret, StsClientConfig, StsConfigError};
pub use fact::{DubbedAudio, StsFact};
pub use outgoing::{MAX_MESSAGE, message_len};

/// The readers of bytes from outside, for `fuzz/`.
pub mod readers {
    pub use super::frames::{FrameError, Incoming, Reader};
    pub use super::packet::{Open, Packet, read};
}
