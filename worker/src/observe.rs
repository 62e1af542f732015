//! Events become log lines and metrics here, and nowhere else.

use std::time::Duration;

use dub_engine::{End, Event};
use metrics::{counter, gauge, histogram};

use crate::telemetry::names;

/// What the driver itself has to tell, beside the engine's events.
#[expect(missing_docs, reason = "the fields say what they are")]
#[derive(Debug)]
pub enum Fact<'a> {
    /// The RTSP server accepted PLAY.
    InputConnected { connection: u32 },
    /// Both tracks are on one timeline.
    InputAligned {
        by: &'a str,
        rate: u32,
        channels: u32,
    },
    /// The input went away; it may come back.
    InputLost { error: &'a str },
    /// Another attempt is scheduled.
    InputRetry { attempt: u32, delay: Duration },
    /// The input is over.
    InputEnded { reason: &'a str },
    /// GStreamer said something odd.
    MediaWarning { text: &'a str },
    /// A pipeline failed.
    BusError { kind: &'static str, text: &'a str },
    /// A segment was cut.
    SegmentReady {
        batch: u64,
        kind: &'a str,
        duration: Duration,
        video: usize,
        audio: usize,
    },
    /// The first unit of a pair left.
    PairStarted {
        batch: u64,
        delta: i64,
        latency: Duration,
        dubbed: bool,
    },
    /// The segment's own audio is damaged.
    OriginalUndecodable { batch: Option<u64>, reason: &'a str },
    /// A segment file is missing.
    SegmentFileFailed { batch: u64, reason: &'a str },
    /// A signal asks to stop.
    StopRequested { signal: &'a str },
    /// The output has everything.
    OutputFinished { bytes: u64 },
}

/// Logs and counts with the run's identity.
#[derive(Debug, Clone)]
pub struct Observer {
    stream_id: String,
    run_id: String,
}

/// One log line with the fields every line has.
macro_rules! line {
    ($self:ident, $level:ident, $name:expr, $message:literal $(, $field:ident = $value:expr)* $(,)?) => {
        tracing::$level!(
            event = $name, stream_id = $self.stream_id, run_id = $self.run_id $(, $field = $value)*, $message
        )
    };
}

impl Observer {
    /// An observer for one run of one stream.
    pub fn new(stream_id: &str, run_id: &str) -> Self {
        Self {
            stream_id: stream_id.to_owned(),
            run_id: run_id.to_owned(),
        }
    }

    /// Logs and counts what the driver tells.
    pub fn fact(&self, fact: &Fact<'_>) {
        match *fact {
            Fact::InputConnected { connection } => line!(
                self,
                info,
                "input_connected",
                "input connected",
                connection = connection
            ),
            Fact::InputAligned { by, rate, channels } => {
                line!(
                    self,
                    info,
                    "input_aligned",
                    "both tracks are on one timeline",
                    by = by,
                    sample_rate = rate,
                    channels = channels
                );
            }
            Fact::InputLost { error } => {
                line!(self, info, "input_lost", "input is gone", error = error);
            }
            Fact::InputRetry { attempt, delay } => {
                line!(
                    self,
                    info,
                    "input_retry",
                    "trying the input again",
                    attempt = attempt,
                    delay_ms = delay.as_millis() as u64
                );
            }
            Fact::InputEnded { reason } => line!(
                self,
                info,
                "input_ended",
                "input has ended",
                reason = reason
            ),
            Fact::MediaWarning { text } => {
                line!(self, warn, "media_warning", "GStreamer warns", text = text);
            }
            Fact::BusError { kind, text } => {
                counter!(names::GST_BUS_ERRORS, "error_type" => kind).increment(1);
                line!(
                    self,
                    warn,
                    "bus_error",
                    "a pipeline failed",
                    error_type = kind,
                    error = text
                );
            }
            Fact::SegmentReady {
                batch,
                kind,
                duration,
                video,
                audio,
            } => {
                if video > 0 {
                    counter!(names::SEGMENTS, "kind" => "video").increment(1);
                }
                if audio > 0 {
                    counter!(names::SEGMENTS, "kind" => "audio").increment(1);
                }
                line!(
                    self,
                    info,
                    "segment_ready",
                    "segment is complete",
                    batch = batch,
                    kind = kind,
                    duration_ms = duration.as_millis() as u64,
                    video_units = video,
                    audio_frames = audio,
                );
            }
            Fact::PairStarted {
                batch,
                delta,
                latency,
                dubbed,
            } => {
                let delta_ms = delta as f64 / 1e6;
                gauge!(names::AV_SYNC_DELTA).set(delta_ms);
                histogram!(names::AV_SYNC_ABS_DELTA).record(delta_ms.abs());
                gauge!(names::OUTPUT_LATENCY).set(latency.as_secs_f64());
                line!(
                    self,
                    info,
                    "pair_started",
                    "pair is on air",
                    batch = batch,
                    av_delta_ms = round(delta_ms),
                    latency_ms = latency.as_millis() as u64,
                    dubbed = dubbed,
                );
            }
            Fact::OriginalUndecodable { batch, reason } => {
                line!(
                    self,
                    warn,
                    "original_undecodable",
                    "the input's own audio is damaged, the segment is silent",
                    batch = batch,
                    error = reason
                );
            }
            Fact::SegmentFileFailed { batch, reason } => {
                counter!(names::SEGMENT_FILE_ERRORS).increment(1);
                line!(
                    self,
                    warn,
                    "segment_file_failed",
                    "segment file is missing",
                    batch = batch,
                    error = reason
                );
            }
            Fact::StopRequested { signal } => line!(
                self,
                info,
                "stop_requested",
                "finishing, a second signal stops at once",
                signal = signal
            ),
            Fact::OutputFinished { bytes } => line!(
                self,
                info,
                "output_finished",
                "everything is published",
                bytes = bytes
            ),
        }
    }

    /// Sets the gauge that moves between pairs.
    pub fn latency(&self, latency: Duration) {
        gauge!(names::OUTPUT_LATENCY).set(latency.as_secs_f64());
    }

    /// Sets the number of fragments on their way.
    pub fn in_flight(&self, fragments: usize) {
        gauge!(names::INFLIGHT).set(fragments as f64);
    }

    /// Logs and counts an event of the engine.
    pub fn event(&self, event: &Event) {
        Self::count(event);
        self.log(event);
    }

    fn count(event: &Event) {
        let fragments = |status: &'static str| {
            counter!(names::AUDIO_FRAGMENTS, "status" => status).increment(1);
        };
        match event {
            Event::FragmentSent { .. } => fragments("sent"),
            Event::FragmentProcessed { rtt, .. } => {
                fragments("processed");
                histogram!(names::STS_RTT).record(rtt.as_secs_f64() * 1e3);
            }
            Event::FragmentFailed { .. } | Event::FragmentTimeout { .. } => fragments("failed"),
            Event::Fallback { reason, .. } => {
                fragments("fallback");
                counter!(names::FALLBACK, "reason" => reason.label()).increment(1);
            }
            Event::Breaker { to, .. } => gauge!(names::BREAKER_STATE).set(f64::from(to.gauge())),
            Event::Backpressure { action, .. } => {
                counter!(names::BACKPRESSURE_EVENTS, "action" => action.label()).increment(1);
            }
            Event::Reconnected { .. } => counter!(names::RECONNECTION).increment(1),
            Event::ReconnectAttempt { success, .. } => {
                let outcome = if *success { "success" } else { "failure" };
                counter!(names::RECONNECTION_ATTEMPTS, "outcome" => outcome).increment(1);
            }
            Event::ProtocolError { kind, .. } => {
                counter!(names::PROTOCOL_ERRORS, "kind" => kind.label()).increment(1);
            }
            Event::Stall { .. } => counter!(names::OUTPUT_STALLS).increment(1),
            Event::AvCorrection { .. } => counter!(names::AV_SYNC_CORRECTIONS).increment(1),
            _ => {}
        }
    }

    fn log(&self, event: &Event) {
        let name = event.name();
        match event {
            Event::StsConnecting { link } => line!(
                self,
                info,
                name,
                "connecting to the STS service",
                link = link
            ),
            Event::StsConnected { link } => {
                line!(self, info, name, "STS service connected", link = link);
            }
            Event::StsReady { link, max_inflight } => {
                line!(
                    self,
                    info,
                    name,
                    "STS session is ready",
                    link = link,
                    max_inflight = max_inflight
                );
            }
            Event::StsConnectFailed { link, reason } => {
                line!(
                    self,
                    warn,
                    name,
                    "STS service cannot be reached",
                    link = link,
                    reason = reason
                );
            }
            Event::StsDisconnected {
                link,
                reason,
                in_flight,
            } => {
                line!(
                    self,
                    warn,
                    name,
                    "STS service is gone",
                    link = link,
                    reason = reason,
                    in_flight = in_flight
                );
            }
            Event::ReconnectScheduled { attempt, delay } => {
                line!(
                    self,
                    warn,
                    name,
                    "trying the STS service again",
                    attempt = attempt,
                    delay_ms = ms(*delay)
                );
            }
            Event::ReconnectAttempt {
                attempt,
                success: true,
            } => {
                line!(
                    self,
                    info,
                    name,
                    "STS reconnection succeeded",
                    attempt = attempt,
                    success = true
                );
            }
            Event::ReconnectAttempt {
                attempt,
                success: false,
            } => {
                line!(
                    self,
                    warn,
                    name,
                    "STS reconnection failed",
                    attempt = attempt,
                    success = false
                );
            }
            Event::Reconnected { link, away } => {
                line!(
                    self,
                    info,
                    name,
                    "STS session is back",
                    link = link,
                    away_ms = ms(*away)
                );
            }
            Event::SessionLost { link } => {
                line!(
                    self,
                    warn,
                    name,
                    "STS service forgot the session, starting another",
                    link = link
                );
            }
            Event::StsGone { attempts } => {
                line!(
                    self,
                    error,
                    name,
                    "STS service stays unreachable, publishing what is buffered",
                    attempts = attempts
                );
            }
            Event::StsRefused { code, message } => {
                line!(
                    self,
                    error,
                    name,
                    "STS service refuses the stream",
                    code = code,
                    error = message
                );
            }
            Event::FragmentSent {
                batch,
                sequence,
                fragment_id,
                in_flight,
            } => line!(
                self,
                info,
                name,
                "fragment sent",
                batch = batch,
                sequence = sequence,
                fragment_id = fragment_id.to_string(),
                in_flight = in_flight,
            ),
            Event::FragmentAcked {
                batch,
                sequence,
                fragment_id,
                ..
            } => {
                line!(
                    self,
                    debug,
                    name,
                    "fragment acknowledged",
                    batch = batch,
                    sequence = sequence,
                    fragment_id = fragment_id.to_string()
                );
            }
            Event::FragmentProcessed {
                batch,
                sequence,
                fragment_id,
                rtt,
            } => line!(
                self,
                info,
                name,
                "dubbed audio arrived",
                batch = batch,
                sequence = sequence,
                fragment_id = fragment_id.to_string(),
                rtt_ms = ms(*rtt),
            ),
            Event::FragmentFailed {
                batch,
                sequence,
                fragment_id,
                code,
                retryable,
                message,
            } => line!(
                self,
                warn,
                name,
                "STS service failed on a fragment",
                batch = batch,
                sequence = sequence,
                fragment_id = fragment_id.to_string(),
                code = code,
                retryable = retryable,
                error = message,
            ),
            Event::FragmentTimeout {
                batch,
                sequence,
                fragment_id,
                after,
            } => line!(
                self,
                warn,
                name,
                "STS service did not answer in time",
                batch = batch,
                sequence = sequence,
                fragment_id = fragment_id.to_string(),
                after_ms = ms(*after),
            ),
            Event::BadAudio {
                batch,
                fragment_id,
                reason,
            } => {
                line!(
                    self,
                    warn,
                    name,
                    "dubbed audio cannot be used",
                    batch = batch,
                    fragment_id = fragment_id.to_string(),
                    reason = reason
                );
            }
            Event::SegmentDubbed { batch } => {
                line!(self, debug, name, "segment is dubbed", batch = batch);
            }
            Event::SegmentOriginal { batch, reason } => {
                line!(
                    self,
                    info,
                    name,
                    "segment keeps its audio",
                    batch = batch,
                    reason = reason.label()
                );
            }
            Event::Fallback { batch, reason } => {
                line!(
                    self,
                    warn,
                    name,
                    "segment falls back to its original audio",
                    batch = batch,
                    reason = reason.label()
                );
            }
            Event::Breaker { from, to } if to.label() == "open" => {
                line!(
                    self,
                    warn,
                    name,
                    "circuit breaker opens",
                    from = from.label(),
                    to = to.label()
                );
            }
            Event::Breaker { from, to } => {
                line!(
                    self,
                    info,
                    name,
                    "circuit breaker",
                    from = from.label(),
                    to = to.label()
                );
            }
            Event::Backpressure { action, delay } => {
                line!(
                    self,
                    info,
                    name,
                    "STS service asks for another pace",
                    action = action.label(),
                    delay_ms = delay.map(ms)
                );
            }
            Event::ProtocolError {
                kind,
                first: true,
                detail,
            } => line!(
                self,
                warn,
                name,
                "STS service broke the protocol, further ones of this kind are only counted",
                kind = kind.label(),
                detail = detail,
            ),
            Event::ProtocolError {
                kind,
                first: false,
                detail,
            } => {
                line!(
                    self,
                    debug,
                    name,
                    "STS service broke the protocol",
                    kind = kind.label(),
                    detail = detail
                );
            }
            Event::StreamEnding { link } => {
                line!(self, info, name, "ending the STS stream", link = link);
            }
            Event::StreamComplete {
                link,
                confirmed: true,
            } => line!(self, info, name, "STS stream is complete", link = link),
            Event::StreamComplete {
                link,
                confirmed: false,
            } => {
                line!(
                    self,
                    warn,
                    name,
                    "STS service did not confirm the end",
                    link = link
                );
            }
            Event::Drained { end: End::Complete } => {
                line!(self, info, name, "every segment is resolved");
            }
            Event::Drained { end: End::Gone } => line!(
                self,
                error,
                name,
                "every segment is resolved, STS service is gone"
            ),
            Event::Drained {
                end: End::Refused { code, .. },
            } => {
                line!(
                    self,
                    error,
                    name,
                    "STS service refused the stream",
                    code = code
                );
            }
            Event::OutputStarted { batch, latency } => {
                line!(
                    self,
                    info,
                    name,
                    "output starts",
                    batch = batch,
                    latency_ms = ms(*latency)
                );
            }
            Event::Stall { batch, duration } => {
                line!(
                    self,
                    warn,
                    name,
                    "output waited for a late pair",
                    batch = batch,
                    duration_ms = ms(*duration)
                );
            }
            Event::CatchUpStarted { batch, excess } => {
                line!(
                    self,
                    info,
                    name,
                    "winning back lost latency",
                    batch = batch,
                    excess_ms = ms(*excess)
                );
            }
            Event::CatchUpDone { batch, latency } => {
                line!(
                    self,
                    info,
                    name,
                    "latency is as low as the answers allow",
                    batch = batch,
                    latency_ms = ms(*latency)
                );
            }
            Event::AvCorrection {
                batch,
                delta_ns,
                slewed_ns,
            } => line!(
                self,
                info,
                name,
                "audio is slewed to meet the video",
                batch = batch,
                delta_ms = round(*delta_ns as f64 / 1e6),
                slewed_ms = round(*slewed_ns as f64 / 1e6),
            ),
            Event::AvGapFilled { batch, silence } => {
                line!(
                    self,
                    warn,
                    name,
                    "a hole in the audio is silent",
                    batch = batch,
                    silence_ms = ms(*silence)
                );
            }
            Event::AvOverThreshold { batch, delta_ns } => {
                line!(
                    self,
                    warn,
                    name,
                    "audio and video are apart",
                    batch = batch,
                    delta_ms = round(*delta_ns as f64 / 1e6)
                );
            }
        }
    }
}

fn ms(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

/// A thousandth of a millisecond is enough for a log.
fn round(ms: f64) -> f64 {
    (ms * 1e3).round() / 1e3
}
