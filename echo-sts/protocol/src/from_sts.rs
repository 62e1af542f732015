//! What an STS service sends.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    Audio, ErrorCode, Refusal, Severity, event,
    read::{object, parse, whole, whole_opt, whole_or_zero},
};

/// What a service says it can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Takes several fragments at once.
    #[serde(default)]
    pub batch_processing: bool,
    /// Answers without being asked again.
    #[serde(default)]
    pub async_delivery: bool,
}

/// `stream:ready`: the stream is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamReady {
    /// The stream.
    pub stream_id: String,
    /// The service's name for this connection's session.
    pub session_id: String,
    /// The confirmed limit of unanswered fragments; may be lower than asked.
    pub max_inflight: u32,
    /// What the service can do.
    #[serde(default, deserialize_with = "crate::read::null_default")]
    pub capabilities: Capabilities,
}

/// How far a service has got with a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StsAckStatus {
    /// Waiting its turn.
    Queued,
    /// Being worked on.
    Processing,
}

/// `fragment:ack` from the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StsAck {
    /// The fragment.
    pub fragment_id: String,
    /// How far it got.
    pub status: StsAckStatus,
    /// How many fragments are before it.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "whole_opt"
    )]
    pub queue_position: Option<u64>,
    /// Expected time until `fragment:processed`, in ms.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "whole_opt"
    )]
    pub estimated_completion_ms: Option<u64>,
}

/// Outcome of one fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessedStatus {
    /// `dubbed_audio` is there.
    Success,
    /// Some stage failed; there may be `dubbed_audio`.
    Partial,
    /// No result; see `error`.
    Failed,
}

/// Time spent per stage, in ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageTimings {
    /// Speech recognition.
    #[serde(default, deserialize_with = "whole_or_zero")]
    pub asr_ms: u64,
    /// Translation.
    #[serde(default, deserialize_with = "whole_or_zero")]
    pub translation_ms: u64,
    /// Speech synthesis.
    #[serde(default, deserialize_with = "whole_or_zero")]
    pub tts_ms: u64,
}

/// `error` of [`FragmentProcessed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "RawFragmentError")]
pub struct FragmentError {
    /// What failed.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// `asr`, `translation`, `tts`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Whether it counts for the circuit breaker. Where the service left it out:
    /// the code's own value, `false` for an unknown code.
    pub retryable: bool,
}

#[derive(Deserialize)]
struct RawFragmentError {
    code: ErrorCode,
    message: Option<String>,
    stage: Option<String>,
    retryable: Option<bool>,
}

impl From<RawFragmentError> for FragmentError {
    fn from(raw: RawFragmentError) -> Self {
        let retryable = raw.retryable.or(raw.code.retryable()).unwrap_or(false);
        Self {
            code: raw.code,
            message: raw.message.unwrap_or_default(),
            stage: raw.stage,
            retryable,
        }
    }
}

/// `fragment:processed`: a fragment's outcome, in `sequence_number` order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FragmentProcessed {
    /// The fragment.
    pub fragment_id: String,
    /// The stream.
    pub stream_id: String,
    /// The fragment's number.
    pub sequence_number: u64,
    /// The outcome.
    pub status: ProcessedStatus,
    /// Time spent, in ms.
    #[serde(deserialize_with = "whole")]
    pub processing_time_ms: u64,
    /// The result; always there on success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dubbed_audio: Option<Audio>,
    /// What was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcript: Option<String>,
    /// What is said now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub translated_text: Option<String>,
    /// Where the time went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage_timings: Option<StageTimings>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<FragmentError>,
    /// Model names, `gpu_utilization`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
}

impl FragmentProcessed {
    /// Checks that a success carries audio.
    ///
    /// # Errors
    /// `INVALID_CONFIG` when it does not.
    pub fn validate(&self) -> Result<(), Refusal> {
        match (self.status, &self.dubbed_audio) {
            (ProcessedStatus::Success, None) => Err(Refusal::invalid(
                "dubbed_audio: missing although status is success",
            )),
            _ => Ok(()),
        }
    }
}

/// `statistics` of [`StreamComplete`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Statistics {
    /// Fragments with status `success`.
    #[serde(deserialize_with = "whole_or_zero")]
    pub success_count: u64,
    /// Fragments with status `partial`.
    #[serde(deserialize_with = "whole_or_zero")]
    pub partial_count: u64,
    /// Fragments with status `failed`.
    #[serde(deserialize_with = "whole_or_zero")]
    pub failed_count: u64,
    /// Mean processing time, in ms.
    #[serde(deserialize_with = "crate::read::null_default")]
    pub avg_processing_time_ms: f64,
    /// 95th percentile of the processing time (nearest rank), in ms.
    #[serde(deserialize_with = "crate::read::null_default")]
    pub p95_processing_time_ms: f64,
}

/// `stream:complete`: everything is answered, the server closes soon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamComplete {
    /// The stream.
    pub stream_id: String,
    /// Fragments taken.
    #[serde(deserialize_with = "whole")]
    pub total_fragments: u64,
    /// Audio taken, in ms.
    #[serde(deserialize_with = "whole")]
    pub total_duration_ms: u64,
    /// How they fared.
    #[serde(default, deserialize_with = "crate::read::null_default")]
    pub statistics: Statistics,
}

/// How loaded a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackpressureSeverity {
    /// Normal.
    Low,
    /// Getting full.
    Medium,
    /// Full.
    High,
}

/// What a service asks of the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackpressureAction {
    /// Send as usual.
    None,
    /// Wait `recommended_delay_ms` before each fragment.
    SlowDown,
    /// Send nothing until a `none`.
    Pause,
}

/// `backpressure`: a load report with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backpressure {
    /// The stream.
    pub stream_id: String,
    /// How loaded.
    pub severity: BackpressureSeverity,
    /// Fragments taken and not answered.
    #[serde(deserialize_with = "whole")]
    pub current_inflight: u64,
    /// Fragments waiting.
    #[serde(deserialize_with = "whole")]
    pub queue_depth: u64,
    /// What is asked.
    pub action: BackpressureAction,
    /// For `slow_down`: wait before each fragment, in ms.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "whole_opt"
    )]
    pub recommended_delay_ms: Option<u64>,
}

/// `error`: something was refused or broke.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "RawErrorEvent")]
pub struct ErrorEvent {
    /// The service's number for this error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_id: Option<String>,
    /// The stream it concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<String>,
    /// The fragment it concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fragment_id: Option<String>,
    /// What.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// How bad; where the service left it out: the code's own value.
    pub severity: Severity,
    /// Whether it counts for the circuit breaker. Where the service left it out:
    /// the code's own value, `false` for an unknown code.
    pub retryable: bool,
    /// Anything else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
}

// Only `code` is needed to act, so a sloppy service's error is still understood.
#[derive(Deserialize)]
struct RawErrorEvent {
    error_id: Option<String>,
    stream_id: Option<String>,
    fragment_id: Option<String>,
    code: ErrorCode,
    message: Option<String>,
    severity: Option<Severity>,
    retryable: Option<bool>,
    metadata: Option<Map<String, Value>>,
}

impl From<RawErrorEvent> for ErrorEvent {
    fn from(raw: RawErrorEvent) -> Self {
        let severity = raw.severity.unwrap_or(raw.code.severity());
        let retryable = raw.retryable.or(raw.code.retryable()).unwrap_or(false);
        Self {
            error_id: raw.error_id,
            stream_id: raw.stream_id,
            fragment_id: raw.fragment_id,
            code: raw.code,
            message: raw.message.unwrap_or_default(),
            severity,
            retryable,
            metadata: raw.metadata,
        }
    }
}

impl ErrorEvent {
    /// An error with the severity and the retryable flag its code implies.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            error_id: None,
            stream_id: None,
            fragment_id: None,
            severity: code.severity(),
            retryable: code.retryable().unwrap_or(false),
            code,
            message: message.into(),
            metadata: None,
        }
    }
}

impl From<Refusal> for ErrorEvent {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code, refusal.message)
    }
}

/// Anything an STS service sends.
#[derive(Clone, Debug, PartialEq)]
pub enum StsMessage {
    /// `stream:ready`
    Ready(StreamReady),
    /// `fragment:ack`
    Ack(StsAck),
    /// `fragment:processed`
    Processed(Box<FragmentProcessed>),
    /// `stream:complete`
    Complete(StreamComplete),
    /// `backpressure`
    Backpressure(Backpressure),
    /// `error`
    Error(ErrorEvent),
}

impl StsMessage {
    /// Reads the payload of event `name`; `None` if no STS event has that name.
    pub fn parse(name: &str, payload: Value) -> Option<Result<Self, Refusal>> {
        if !event::FROM_STS.contains(&name) {
            return None;
        }
        Some(object(&payload).and_then(|()| {
            Ok(match name {
                event::STREAM_READY => Self::Ready(parse(payload)?),
                event::FRAGMENT_ACK => Self::Ack(parse(payload)?),
                event::FRAGMENT_PROCESSED => Self::Processed(Box::new(parse(payload)?)),
                event::STREAM_COMPLETE => Self::Complete(parse(payload)?),
                event::BACKPRESSURE => Self::Backpressure(parse(payload)?),
                _ => Self::Error(parse(payload)?),
            })
        }))
    }

    /// The event name this goes under.
    pub fn event(&self) -> &'static str {
        match self {
            Self::Ready(_) => event::STREAM_READY,
            Self::Ack(_) => event::FRAGMENT_ACK,
            Self::Processed(_) => event::FRAGMENT_PROCESSED,
            Self::Complete(_) => event::STREAM_COMPLETE,
            Self::Backpressure(_) => event::BACKPRESSURE,
            Self::Error(_) => event::ERROR,
        }
    }

    /// The JSON object for the wire.
    ///
    /// # Errors
    /// Never for the types of this crate; `serde_json`'s signature.
    pub fn payload(&self) -> serde_json::Result<Value> {
        match self {
            Self::Ready(m) => serde_json::to_value(m),
            Self::Ack(m) => serde_json::to_value(m),
            Self::Processed(m) => serde_json::to_value(m),
            Self::Complete(m) => serde_json::to_value(m),
            Self::Backpressure(m) => serde_json::to_value(m),
            Self::Error(m) => serde_json::to_value(m),
        }
    }
}
