//! Wire types, limits and error codes of the STS fragment protocol 1.0.
//!
//! The worker (Socket.IO client) and an STS service (Socket.IO server) exchange
//! events that each carry exactly one JSON object. Every such object is a type
//! here, for both directions and for the control events `echo-sts` adds:
//!
//! | direction | types | whole direction as one enum |
//! |---|---|---|
//! | worker → STS | [`StreamInit`], [`FragmentData`], [`WorkerAck`], [`StreamSignal`] | [`WorkerMessage`] |
//! | STS → worker | [`StreamReady`], [`StsAck`], [`FragmentProcessed`], [`StreamComplete`], [`Backpressure`], [`ErrorEvent`] | [`StsMessage`] |
//! | control → `echo-sts` | [`ErrorSimulation`], [`LatencyConfig`], [`BackpressureConfig`], [`SimulateBackpressure`], [`AudioConfig`], [`SimulateDisconnect`], [`SimulateSessionLoss`] | [`ControlMessage`] |
//!
//! Reading follows the protocol: unknown fields are ignored, `null` in an
//! optional field means absent, whole numbers may arrive as floats (Python
//! services send `processing_time_ms: 51.7`). [`parse`] names the offending
//! field in its error. Writing leaves absent fields out.
//!
//! [`heard`] reads what any service says, however sloppy, and names what is wrong with it.
//!
//! Shape errors come from [`parse`]; rules about values (ranges, sizes) from the
//! `validate()` of each type. Both give a [`Refusal`]: the error code that goes
//! on the wire and a sentence saying what was wrong.
#![warn(missing_docs)]

mod code;
mod control;
pub mod event;
mod from_sts;
mod from_worker;
pub mod heard;
mod journal;
pub mod limits;
pub mod mark;
mod read;

pub use code::{ErrorCode, Refusal, Severity};
pub use control::{
    AudioConfig, AudioMode, BackpressureConfig, Condition, ControlAck, ControlMessage,
    ControlStatus, ErrorRule, ErrorSimulation, LatencyConfig, ReplyFormat, SimulateBackpressure,
    SimulateDisconnect, SimulateSessionLoss, Trigger,
};
pub use from_sts::{
    Backpressure, BackpressureAction, BackpressureSeverity, Capabilities, ErrorEvent,
    FragmentError, FragmentProcessed, ProcessedStatus, StageTimings, Statistics, StreamComplete,
    StreamReady, StsAck, StsAckStatus, StsMessage,
};
pub use from_worker::{
    Audio, Auth, FragmentData, FragmentMetadata, StreamConfig, StreamInit, StreamSignal, WorkerAck,
    WorkerAckStatus, WorkerMessage, check_header_id,
};
pub use journal::{Direction, JournalEntry};
pub use read::parse;
