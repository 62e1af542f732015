//! The engine's events, counted and logged.

use dub_engine::timeline::DropReason;
use dub_engine::{DubFitHow, End, Event};
use metrics::{counter, gauge, histogram};

use super::{Observer, line, ms, round};
use crate::telemetry::names;

impl Observer {
    /// Logs and counts an event of the engine.
    pub fn event(&self, event: &Event) {
        Self::count(event);
        self.heard().event(event);
        self.note(event);
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
            Event::ProtocolError { kind, count, .. } => {
                counter!(names::PROTOCOL_ERRORS, "kind" => kind.label()).increment(*count);
            }
            Event::DubFitted {
                how,
                speed_permille,
                ..
            } => {
                counter!(names::DUB_FIT, "how" => how.label()).increment(1);
                if *how != DubFitHow::Refused {
                    histogram!(names::DUB_SPEED).record(f64::from(*speed_permille) / 1e3);
                }
            }
            Event::DubLevelled { change, .. } => {
                counter!(names::DUB_LOUDNESS, "change" => change.label()).increment(1);
            }
            Event::OutputReconnected { video, audio, .. } => {
                counter!(names::MEDIA_DROPPED, "reason" => DropReason::OutputLost.label())
                    .increment(video + audio);
            }
            Event::Stall { .. } => counter!(names::OUTPUT_STALLS).increment(1),
            Event::AvCorrection { .. } => counter!(names::AV_SYNC_CORRECTIONS).increment(1),
            _ => {}
        }
    }

    /// Keeps the status page and the connection's gauge up to date.
    fn note(&self, event: &Event) {
        let connected = |connected: bool| {
            gauge!(names::STS_CONNECTED).set(f64::from(u8::from(connected)));
        };
        self.board.status(|status| match event {
            Event::StsConnected { .. } => {
                connected(true);
                status.sts.connected = true;
            }
            Event::StsReady { .. } => status.sts.ready = true,
            Event::StsConnectFailed { reason, .. } | Event::StsDisconnected { reason, .. } => {
                connected(false);
                status.sts.connected = false;
                status.sts.ready = false;
                status.sts.last_error = Some(reason.clone());
            }
            Event::Drained { .. } => {
                connected(false);
                status.sts.connected = false;
                status.sts.ready = false;
            }
            Event::Breaker { to, .. } => status.sts.breaker = to.label(),
            Event::Fallback { batch, reason } => {
                status.fallbacks.insert(*batch, reason.label());
            }
            _ => {}
        });
    }

    fn log(&self, event: &Event) {
        let name = event.name();
        match event {
            Event::StsConnecting { link } => line! {
                self, info, name, "connecting to the STS service", link
            },
            Event::StsConnected { link } => {
                line! { self, info, name, "STS service connected", link }
            }
            Event::StsReady { link, max_inflight } => line! {
                self, info, name, "STS session is ready", link, max_inflight
            },
            Event::StsConnectFailed { link, reason } => line! {
                self, warn, name, "STS service cannot be reached", link, reason
            },
            Event::StsDisconnected {
                link,
                reason,
                in_flight,
            } => line! { self, warn, name, "STS connection lost", link, reason, in_flight },
            Event::ReconnectScheduled { attempt, delay } => line! {
                self, warn, name, "trying the STS service again", attempt, delay_ms = ms(*delay),
                reason = self.board.status(|status| status.sts.last_error.clone())
            },
            Event::ReconnectAttempt {
                attempt,
                success: true,
            } => line! { self, info, name, "STS reconnection succeeded", attempt, success = true },
            Event::ReconnectAttempt {
                attempt,
                success: false,
            } => line! { self, warn, name, "STS reconnection failed", attempt, success = false },
            Event::Reconnected { link, away } => line! {
                self, info, name, "STS session is back", link, away_ms = ms(*away)
            },
            Event::SessionLost { link } => line! {
                self, warn, name, "STS service lost the session, starting another", link
            },
            Event::StsGone {
                attempts,
                stays: false,
            } => line! {
                self, error, name, "STS service stays unreachable, publishing what is buffered", attempts
            },
            Event::StsGone {
                attempts,
                stays: true,
            } => line! {
                self, error, name, "STS service stays unreachable, going on with original audio and trying on",
                attempts
            },
            Event::MessageLimit { bytes } => line! {
                self, warn, name,
                "STS service cuts the connection over messages of this size, its message size limit is lower; \
                 such segments keep their original audio",
                bytes
            },
            Event::TooLarge { batch, bytes } => line! {
                self, debug, name, "segment is larger than the STS service takes", batch, bytes
            },
            Event::StsRefused { code, message } => line! {
                self, error, name, "STS service refuses the stream", code, error = message
            },
            Event::FragmentSent {
                batch,
                sequence,
                fragment_id,
                in_flight,
            } => line! {
                self, info, name, "fragment sent", batch, sequence, fragment_id = fragment_id.to_string(),
                in_flight
            },
            Event::FragmentAcked {
                batch,
                sequence,
                fragment_id,
                ..
            } => line! {
                self, debug, name, "fragment acknowledged", batch, sequence,
                fragment_id = fragment_id.to_string()
            },
            Event::FragmentProcessed {
                batch,
                sequence,
                fragment_id,
                rtt,
            } => line! {
                self, info, name, "dubbed audio arrived", batch, sequence,
                fragment_id = fragment_id.to_string(), rtt_ms = ms(*rtt)
            },
            Event::FragmentFailed {
                batch,
                sequence,
                fragment_id,
                code,
                retryable,
                message,
            } => line! {
                self, warn, name, "STS service failed on a fragment", batch, sequence,
                fragment_id = fragment_id.to_string(), code, retryable, error = message
            },
            Event::FragmentTimeout {
                batch,
                sequence,
                fragment_id,
                after,
            } => line! {
                self, warn, name, "STS service did not answer in time", batch, sequence,
                fragment_id = fragment_id.to_string(), after_ms = ms(*after)
            },
            Event::BadAudio {
                batch,
                fragment_id,
                reason,
            } => line! {
                self, warn, name, "dubbed audio cannot be used", batch,
                fragment_id = fragment_id.to_string(), reason
            },
            Event::SegmentDubbed { batch } => {
                line! { self, debug, name, "segment is dubbed", batch }
            }
            Event::SegmentOriginal { batch, reason } => line! {
                self, info, name, "segment keeps its audio", batch, reason = reason.label()
            },
            Event::Fallback { batch, reason } => line! {
                self, warn, name, "segment falls back to its original audio", batch, reason = reason.label()
            },
            Event::Breaker { from, to } if to.label() == "open" => line! {
                self, warn, name, "circuit breaker opens", from = from.label(), to = to.label()
            },
            Event::Breaker { from, to } => line! {
                self, info, name, "circuit breaker", from = from.label(), to = to.label()
            },
            // A service that repeats itself every millisecond fills no disk.
            Event::Backpressure { changed: false, .. } => {}
            Event::Backpressure { action, delay, .. } => line! {
                self, info, name, "STS service asks for a different pace", action = action.label(),
                delay_ms = delay.map(ms)
            },
            Event::ProtocolError {
                kind,
                first: true,
                count,
                detail,
            } => line! {
                self, warn, name,
                "STS service broke the protocol, further ones of this kind are only counted",
                kind = kind.label(), count, detail
            },
            Event::ProtocolError {
                kind,
                first: false,
                count,
                detail,
            } => line! {
                self, debug, name, "STS service broke the protocol", kind = kind.label(), count, detail
            },
            Event::StreamEnding { link } => {
                line! { self, info, name, "ending the STS stream", link }
            }
            Event::StreamComplete {
                link,
                confirmed: true,
            } => line! { self, info, name, "STS stream is complete", link },
            Event::StreamComplete {
                link,
                confirmed: false,
            } => line! { self, warn, name, "STS service did not confirm the end", link },
            Event::Drained { end: End::Complete } => {
                line! { self, info, name, "every segment is resolved" }
            }
            Event::Drained { end: End::Gone } => line! {
                self, error, name, "every segment is resolved, the STS connection is lost"
            },
            Event::Drained {
                end: End::Refused { code, .. },
            } => line! { self, error, name, "STS service refused the stream", code },
            Event::DubFitted {
                batch,
                how: how @ (DubFitHow::Stretched | DubFitHow::Spilled),
                speed_permille,
                spill,
                cut,
            } => line! {
                self, info, name, "dub is heard at another speed", batch, how = how.label(),
                speed = f64::from(*speed_permille) / 1e3, spill_ms = ms(*spill), cut_ms = ms(*cut)
            },
            Event::DubFitted { batch, how, .. } => line! {
                self, debug, name, "dub is fitted", batch, how = how.label()
            },
            Event::DubLevelled {
                batch,
                change,
                difference_tenths,
                gain_tenths,
            } => line! {
                self, info, name, "dub is heard at another level", batch, change = change.label(),
                difference_db = f64::from(*difference_tenths) / 10.0, gain_db = f64::from(*gain_tenths) / 10.0
            },
            Event::OutputStarted {
                batch,
                latency,
                head_room,
            } => line! {
                self, info, name, "output starts", batch, latency_ms = ms(*latency), head_room_ms = ms(*head_room)
            },
            Event::OutputNameTaken { delay } => line! {
                self, warn, name, "another publisher has the output's name, trying again", delay_ms = ms(*delay)
            },
            Event::OutputLost { reason } => line! {
                self, warn, name, "output lost, reconnecting", error = reason
            },
            Event::OutputReconnected { away, video, audio } => line! {
                self, info, name, "output reconnected, going on with a keyframe", away_ms = ms(*away),
                skipped_video = video, skipped_audio = audio
            },
            Event::Stall { batch, duration } => line! {
                self, warn, name, "output waited for a late pair", batch, duration_ms = ms(*duration)
            },
            Event::CatchUpStarted { batch, excess } => line! {
                self, info, name, "reducing latency again", batch, excess_ms = ms(*excess)
            },
            Event::CatchUpDone { batch, latency } => line! {
                self, info, name, "latency is as low as the service allows", batch, latency_ms = ms(*latency)
            },
            Event::AvCorrection {
                batch,
                delta_ns,
                slewed_ns,
            } => line! {
                self, info, name, "audio is slewed to meet the video", batch,
                delta_ms = round(*delta_ns as f64 / 1e6), slewed_ms = round(*slewed_ns as f64 / 1e6)
            },
            Event::AvGapFilled { batch, silence } => line! {
                self, warn, name, "a gap in the audio is filled with silence", batch, silence_ms = ms(*silence)
            },
            Event::AvOverThreshold { batch, delta_ns } => line! {
                self, warn, name, "audio and video are out of sync", batch,
                delta_ms = round(*delta_ns as f64 / 1e6)
            },
        }
    }
}
