//! Every fact of the engine worth a log line, a count or a line in a snapshot.
//!
//! One typed event feeds logs, metrics and tests. [`Event::name`] is stable and is the `event` field
//! of the log line; [`Display`](std::fmt::Display) is one stable line, used in timeline snapshots.

use crate::breaker::BreakerState;
use crate::dub_fit::DubFitHow;
use crate::fragment_id::FragmentId;
use crate::loudness::LoudnessChange;
use crate::session::End;
use crate::words::{AckStatus, BackpressureAction, LinkId, OriginalReason, ProtocolErrorKind};
use std::time::Duration;

mod display;

/// How loud an event is. A clean run has nothing at `Warn` or above.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub enum Level {
    /// Detail.
    Debug,
    /// Something that matters happened.
    Info,
    /// Degraded, handled.
    Warn,
    /// Someone must act.
    Error,
}

/// A fact of the engine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A connection attempt starts.
    StsConnecting {
        /// Which attempt since the start of the worker.
        link: LinkId,
    },
    /// The connection is up.
    StsConnected {
        /// Which attempt.
        link: LinkId,
    },
    /// The session can be used.
    StsReady {
        /// On which connection.
        link: LinkId,
        /// The limit in force.
        max_inflight: u32,
    },
    /// A connection attempt failed.
    StsConnectFailed {
        /// Which attempt.
        link: LinkId,
        /// Why.
        reason: String,
    },
    /// A connection was lost or given up.
    StsDisconnected {
        /// Which connection.
        link: LinkId,
        /// Why.
        reason: String,
        /// Fragments that were out.
        in_flight: usize,
    },
    /// The next attempt is scheduled.
    ReconnectScheduled {
        /// Number of the retry, 1-based.
        attempt: u32,
        /// From now.
        delay: Duration,
    },
    /// A scheduled retry ended, for `worker_reconnection_attempts_total`.
    ReconnectAttempt {
        /// Number of the retry, 1-based.
        attempt: u32,
        /// Whether the session became usable.
        success: bool,
    },
    /// A session that was usable before is usable again, for `worker_reconnection_total`.
    Reconnected {
        /// On which connection.
        link: LinkId,
        /// Time without a session.
        away: Duration,
    },
    /// The server no longer knows our session; it is initialised again on the same connection.
    SessionLost {
        /// On which connection.
        link: LinkId,
    },
    /// All retries failed.
    StsGone {
        /// How many retries there were.
        attempts: u32,
        /// The stream goes on with original audio, and the attempts go on too.
        stays: bool,
    },
    /// The service cuts the connection over messages of this size.
    MessageLimit {
        /// Size of the message.
        bytes: usize,
    },
    /// A segment is not sent because its message would be larger than the service takes.
    TooLarge {
        /// Which segment.
        batch: u64,
        /// Size of its message.
        bytes: usize,
    },
    /// The service refused us for good.
    StsRefused {
        /// The code.
        code: String,
        /// The server's words.
        message: String,
    },
    /// A fragment went out.
    FragmentSent {
        /// Which segment.
        batch: u64,
        /// Its number since the last init.
        sequence: u64,
        /// Its id.
        fragment_id: FragmentId,
        /// Fragments out now, this one included.
        in_flight: usize,
    },
    /// The server acknowledged a fragment.
    FragmentAcked {
        /// Which segment.
        batch: u64,
        /// Its number since the last init.
        sequence: u64,
        /// Its id.
        fragment_id: FragmentId,
        /// How far it is.
        status: AckStatus,
    },
    /// Audio came back.
    FragmentProcessed {
        /// Which segment.
        batch: u64,
        /// Its number since the last init.
        sequence: u64,
        /// Its id.
        fragment_id: FragmentId,
        /// From sending to this.
        rtt: Duration,
    },
    /// The service failed on a fragment.
    FragmentFailed {
        /// Which segment.
        batch: u64,
        /// Its number since the last init.
        sequence: u64,
        /// Its id.
        fragment_id: FragmentId,
        /// The code as it came, shortened.
        code: String,
        /// Whether it counts for the breaker.
        retryable: bool,
        /// The server's words, shortened.
        message: String,
    },
    /// A fragment was not answered in time.
    FragmentTimeout {
        /// Which segment.
        batch: u64,
        /// Its number since the last init.
        sequence: u64,
        /// Its id.
        fragment_id: FragmentId,
        /// How long it was out.
        after: Duration,
    },
    /// Returned audio cannot be used.
    BadAudio {
        /// Which segment.
        batch: u64,
        /// Its id.
        fragment_id: FragmentId,
        /// Why.
        reason: String,
    },
    /// A segment gets dubbed audio.
    SegmentDubbed {
        /// Which segment.
        batch: u64,
    },
    /// A segment gets original audio, as intended (tail, passthrough).
    SegmentOriginal {
        /// Which segment.
        batch: u64,
        /// Why.
        reason: OriginalReason,
    },
    /// A segment gets original audio because dubbing did not work out.
    Fallback {
        /// Which segment.
        batch: u64,
        /// Why.
        reason: OriginalReason,
    },
    /// The breaker changed.
    Breaker {
        /// State before.
        from: BreakerState,
        /// State now.
        to: BreakerState,
    },
    /// The service asked for another pace.
    Backpressure {
        /// What it asked.
        action: BackpressureAction,
        /// `recommended_delay_ms`, if given.
        delay: Option<Duration>,
        /// It is another pace than before; a repetition is not worth a line in the log.
        changed: bool,
    },
    /// The service said something wrong.
    ProtocolError {
        /// What kind of wrong.
        kind: ProtocolErrorKind,
        /// First of its kind in this run; only that one is worth a line in the log.
        first: bool,
        /// How many of them this event stands for; more than 1 for a flood.
        count: u64,
        /// What it was, shortened.
        detail: String,
    },
    /// `stream:end` was sent.
    StreamEnding {
        /// On which connection.
        link: LinkId,
    },
    /// `stream:complete` arrived, or did not in time.
    StreamComplete {
        /// On which connection.
        link: LinkId,
        /// Whether it arrived.
        confirmed: bool,
    },
    /// Everything is resolved and the stream is closed.
    Drained {
        /// How it ended.
        end: End,
    },
    /// A dub was fitted to its slot, or refused.
    DubFitted {
        /// Which segment.
        batch: u64,
        /// What became of it.
        how: DubFitHow,
        /// Its speed against the answer's own, in thousandths.
        speed_permille: u32,
        /// How long it runs on into the next slot.
        spill: Duration,
        /// What was cut off the end of the dub before, for lack of room.
        cut: Duration,
    },
    /// A dub was much louder or quieter than its original, or over full scale.
    DubLevelled {
        /// Which segment.
        batch: u64,
        /// What was done.
        change: LoudnessChange,
        /// How much louder than the original it came, in tenths of a decibel.
        difference_tenths: i32,
        /// By how much it was turned up, in tenths of a decibel.
        gain_tenths: i32,
    },
    /// The first pair leaves.
    OutputStarted {
        /// Which pair.
        batch: u64,
        /// Content latency the run starts with.
        latency: Duration,
        /// How long the pair is held although it is ready, read off the machine's jitter.
        head_room: Duration,
    },
    /// Another publisher has the output's name; it is tried again.
    OutputNameTaken {
        /// From now.
        delay: Duration,
    },
    /// An output that worked is gone and is connected again.
    OutputLost {
        /// Why.
        reason: String,
    },
    /// The output is back.
    OutputReconnected {
        /// How long it was away.
        away: Duration,
        /// Access units that did not go out.
        video: u64,
        /// Audio frames that did not go out.
        audio: u64,
    },
    /// A pair was late and output waited.
    Stall {
        /// The late pair.
        batch: u64,
        /// How long output waits.
        duration: Duration,
    },
    /// Lost latency begins to be won back.
    CatchUpStarted {
        /// First pair that plays faster.
        batch: u64,
        /// Latency to win back.
        excess: Duration,
    },
    /// Latency is down to what is needed.
    CatchUpDone {
        /// First pair at normal pace again.
        batch: u64,
        /// Content latency now.
        latency: Duration,
    },
    /// Audio of a pair is stretched or compressed to meet video again.
    AvCorrection {
        /// Which pair.
        batch: u64,
        /// Audio minus video at the start of the pair, ns; positive: audio is late.
        delta_ns: i64,
        /// Change of the pair's audio length, ns; positive: longer.
        slewed_ns: i64,
    },
    /// A hole in the audio is filled with silence.
    AvGapFilled {
        /// The pair after the hole.
        batch: u64,
        /// Length of the silence.
        silence: Duration,
    },
    /// Audio and video are further apart than the threshold.
    AvOverThreshold {
        /// Which pair.
        batch: u64,
        /// Audio minus video at the start of the pair, ns; positive: audio is late.
        delta_ns: i64,
    },
}

impl Event {
    /// A dub whose length does not fit its segment.
    pub const fn dub_refused(batch: u64) -> Self {
        Self::DubFitted {
            batch,
            how: DubFitHow::Refused,
            speed_permille: 1000,
            spill: Duration::ZERO,
            cut: Duration::ZERO,
        }
    }

    /// The stable name of this kind of event.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::StsConnecting { .. } => "sts_connecting",
            Self::StsConnected { .. } => "sts_connected",
            Self::StsReady { .. } => "sts_ready",
            Self::StsConnectFailed { .. } => "sts_connect_failed",
            Self::StsDisconnected { .. } => "sts_disconnected",
            Self::ReconnectScheduled { .. } => "reconnect_scheduled",
            Self::ReconnectAttempt { .. } => "reconnect_attempt",
            Self::Reconnected { .. } => "reconnected",
            Self::SessionLost { .. } => "session_lost",
            Self::StsGone { .. } => "sts_gone",
            Self::MessageLimit { .. } => "message_limit",
            Self::TooLarge { .. } => "too_large",
            Self::StsRefused { .. } => "sts_refused",
            Self::FragmentSent { .. } => "fragment_sent",
            Self::FragmentAcked { .. } => "fragment_acked",
            Self::FragmentProcessed { .. } => "fragment_processed",
            Self::FragmentFailed { .. } => "fragment_failed",
            Self::FragmentTimeout { .. } => "fragment_timeout",
            Self::BadAudio { .. } => "bad_audio",
            Self::SegmentDubbed { .. } => "segment_dubbed",
            Self::SegmentOriginal { .. } => "segment_original",
            Self::Fallback { .. } => "fallback",
            Self::Breaker { .. } => "breaker",
            Self::Backpressure { .. } => "backpressure",
            Self::ProtocolError { .. } => "protocol_error",
            Self::StreamEnding { .. } => "stream_ending",
            Self::StreamComplete { .. } => "stream_complete",
            Self::Drained { .. } => "drained",
            Self::DubFitted { .. } => "dub_fitted",
            Self::DubLevelled { .. } => "dub_levelled",
            Self::OutputStarted { .. } => "output_started",
            Self::OutputNameTaken { .. } => "output_name_taken",
            Self::OutputLost { .. } => "output_lost",
            Self::OutputReconnected { .. } => "output_reconnected",
            Self::Stall { .. } => "stall",
            Self::CatchUpStarted { .. } => "catch_up_started",
            Self::CatchUpDone { .. } => "catch_up_done",
            Self::AvCorrection { .. } => "av_correction",
            Self::AvGapFilled { .. } => "av_gap_filled",
            Self::AvOverThreshold { .. } => "av_over_threshold",
        }
    }

    /// How loud this event is.
    pub const fn level(&self) -> Level {
        match self {
            Self::StsGone { .. }
            | Self::StsRefused { .. }
            | Self::Drained {
                end: End::Gone | End::Refused { .. },
            } => Level::Error,

            Self::StsConnectFailed { .. }
            | Self::StsDisconnected { .. }
            | Self::ReconnectScheduled { .. }
            | Self::SessionLost { .. }
            | Self::MessageLimit { .. }
            | Self::FragmentFailed { .. }
            | Self::FragmentTimeout { .. }
            | Self::BadAudio { .. }
            | Self::Fallback { .. }
            | Self::Breaker {
                to: BreakerState::Open,
                ..
            }
            | Self::ProtocolError { first: true, .. }
            | Self::StreamComplete {
                confirmed: false, ..
            }
            | Self::OutputNameTaken { .. }
            | Self::OutputLost { .. }
            | Self::Stall { .. }
            | Self::AvGapFilled { .. }
            | Self::AvOverThreshold { .. } => Level::Warn,

            Self::StsConnecting { .. }
            | Self::StsConnected { .. }
            | Self::StsReady { .. }
            | Self::Reconnected { .. }
            | Self::ReconnectAttempt { .. }
            | Self::FragmentSent { .. }
            | Self::FragmentProcessed { .. }
            | Self::SegmentOriginal { .. }
            | Self::Breaker { .. }
            | Self::Backpressure { .. }
            | Self::StreamEnding { .. }
            | Self::StreamComplete {
                confirmed: true, ..
            }
            | Self::Drained { end: End::Complete }
            | Self::DubFitted {
                how: DubFitHow::Stretched | DubFitHow::Spilled,
                ..
            }
            | Self::DubLevelled { .. }
            | Self::OutputStarted { .. }
            | Self::OutputReconnected { .. }
            | Self::CatchUpStarted { .. }
            | Self::CatchUpDone { .. }
            | Self::AvCorrection { .. } => Level::Info,

            Self::FragmentAcked { .. }
            | Self::TooLarge { .. }
            | Self::SegmentDubbed { .. }
            | Self::DubFitted { .. }
            | Self::ProtocolError { first: false, .. } => Level::Debug,
        }
    }
}

/// Cuts text that came from outside to a length fit for a log line.
pub(crate) fn shorten(text: &str) -> String {
    const LIMIT: usize = 200;
    match text.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
