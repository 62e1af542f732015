//! The STS service as the worker sees it. The only place that knows Socket.IO.
//!
//! [`StsClient`] takes orders that never block (connect, init, send, …) and answers with
//! [`StsFact`]s on a bounded channel. It decides nothing: when to connect, send, retry or give
//! up is the engine's business.
//!
//! What it guarantees:
//!
//! - Every `connect` ends in exactly one `ConnectFailed`, or in `Connected` and later exactly one
//!   `Disconnected`, whoever ended the link and however it died.
//! - A death is noticed within a stated bound ([`StsClientConfig`] has the numbers), also where
//!   the Socket.IO library stays silent.
//! - Whatever the peer sends: no panic, no unbounded memory, and each broken rule is named.
//! - A link leaves no thread, task or descriptor behind.
//!
//! ```text
//! driver ──orders──▶ StsClient ──▶ link (a task per connection) ──emit──▶ rust_socketio
//!    ◀──facts (bounded)── wire ◀── inbox (bounded, never blocks) ◀─callbacks─┘
//!                                 watchdog: silence, reader gone, peer closed
//! ```

mod client;
mod config;
mod fact;
mod fields;
mod inbox;
mod link;
mod outbox;
mod outgoing;
mod runtime;
mod socket;
mod watchdog;
mod wire;
#[cfg(test)]
mod wire_tests;

pub use client::StsClient;
pub use config::{InitParams, OutgoingFragment, Secret, StsClientConfig, StsConfigError};
pub use fact::{
    AckStatus, BackpressureAction, CompleteStats, DubbedAudio, FactKind, LinkId, MAX_DELAY,
    MalformedKind, Outcome, Refused, StsFact,
};
