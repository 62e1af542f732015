//! Names of the Socket.IO events.

/// Worker → STS: opens the stream, [`StreamInit`](crate::StreamInit).
pub const STREAM_INIT: &str = "stream:init";
/// Worker → STS: one segment's audio, [`FragmentData`](crate::FragmentData).
pub const FRAGMENT_DATA: &str = "fragment:data";
/// Both ways: [`WorkerAck`](crate::WorkerAck) up, [`StsAck`](crate::StsAck) down.
pub const FRAGMENT_ACK: &str = "fragment:ack";
/// Worker → STS: stop processing for now, [`StreamSignal`](crate::StreamSignal).
pub const STREAM_PAUSE: &str = "stream:pause";
/// Worker → STS: go on after a pause, [`StreamSignal`](crate::StreamSignal).
pub const STREAM_RESUME: &str = "stream:resume";
/// Worker → STS: no more fragments, [`StreamSignal`](crate::StreamSignal).
pub const STREAM_END: &str = "stream:end";

/// STS → worker: the stream is accepted, [`StreamReady`](crate::StreamReady).
pub const STREAM_READY: &str = "stream:ready";
/// STS → worker: a fragment's outcome, [`FragmentProcessed`](crate::FragmentProcessed).
pub const FRAGMENT_PROCESSED: &str = "fragment:processed";
/// STS → worker: the stream is finished, [`StreamComplete`](crate::StreamComplete).
pub const STREAM_COMPLETE: &str = "stream:complete";
/// STS → worker: load report, [`Backpressure`](crate::Backpressure).
pub const BACKPRESSURE: &str = "backpressure";
/// STS → worker: [`ErrorEvent`](crate::ErrorEvent).
pub const ERROR: &str = "error";

/// Control: fail chosen fragments, [`ErrorSimulation`](crate::ErrorSimulation).
pub const CONFIG_ERROR_SIMULATION: &str = "config:error_simulation";
/// Control: delay answers, [`LatencyConfig`](crate::LatencyConfig).
pub const CONFIG_LATENCY: &str = "config:latency";
/// Control: automatic load reports, [`BackpressureConfig`](crate::BackpressureConfig).
pub const CONFIG_BACKPRESSURE: &str = "config:backpressure";
/// Control: emit one load report now, [`SimulateBackpressure`](crate::SimulateBackpressure).
pub const SIMULATE_BACKPRESSURE: &str = "simulate:backpressure";
/// Control: what comes back as dubbed audio, [`AudioConfig`](crate::AudioConfig).
pub const CONFIG_AUDIO: &str = "config:audio";
/// Control: drop the connection, [`SimulateDisconnect`](crate::SimulateDisconnect).
pub const SIMULATE_DISCONNECT: &str = "simulate:disconnect";

/// Control: forget the session but keep the connection,
/// [`SimulateSessionLoss`](crate::SimulateSessionLoss). Not part of protocol 1.0's
/// list; it makes a `STREAM_NOT_FOUND` happen on demand.
pub const SIMULATE_SESSION_LOSS: &str = "simulate:session_loss";

/// Events a worker sends.
pub const FROM_WORKER: [&str; 6] = [
    STREAM_INIT,
    FRAGMENT_DATA,
    FRAGMENT_ACK,
    STREAM_PAUSE,
    STREAM_RESUME,
    STREAM_END,
];

/// Events an STS service sends.
pub const FROM_STS: [&str; 6] = [
    STREAM_READY,
    FRAGMENT_ACK,
    FRAGMENT_PROCESSED,
    STREAM_COMPLETE,
    BACKPRESSURE,
    ERROR,
];

/// Control events `echo-sts` understands.
pub const CONTROL: [&str; 7] = [
    CONFIG_ERROR_SIMULATION,
    CONFIG_LATENCY,
    CONFIG_BACKPRESSURE,
    SIMULATE_BACKPRESSURE,
    CONFIG_AUDIO,
    SIMULATE_DISCONNECT,
    SIMULATE_SESSION_LOSS,
];

/// Name of the event that answers control event `event`: `<event>:ack`.
pub fn ack_of(event: &str) -> String {
    format!("{event}:ack")
}
