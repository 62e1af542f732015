//! An event as one stable line.

use super::Event;
use crate::session::End;
use crate::words::AckStatus;
use std::fmt;

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::StsConnecting { link }
            | Self::StsConnected { link }
            | Self::SessionLost { link }
            | Self::StreamEnding { link } => write!(f, " link={link}"),
            Self::StsReady { link, max_inflight } => {
                write!(f, " link={link} max_inflight={max_inflight}")
            }
            Self::StsConnectFailed { link, reason } => {
                write!(f, " link={link} reason={reason:?}")
            }
            Self::StsDisconnected {
                link,
                reason,
                in_flight,
            } => {
                write!(f, " link={link} reason={reason:?} in_flight={in_flight}")
            }
            Self::ReconnectScheduled { attempt, delay } => {
                write!(f, " attempt={attempt} delay_ms={}", delay.as_millis())
            }
            Self::ReconnectAttempt { attempt, success } => {
                write!(f, " attempt={attempt} success={success}")
            }
            Self::Reconnected { link, away } => {
                write!(f, " link={link} away_ms={}", away.as_millis())
            }
            Self::StsGone { attempts, stays } => {
                write!(
                    f,
                    " attempts={attempts}{}",
                    if *stays { " stays" } else { "" }
                )
            }
            Self::MessageLimit { bytes } => write!(f, " bytes={bytes}"),
            Self::TooLarge { batch, bytes } => write!(f, " batch={batch} bytes={bytes}"),
            Self::StsRefused { code, message } => {
                write!(f, " code={code} message={message:?}")
            }
            // Ids are left out: a timeline names fragments by batch and sequence.
            Self::FragmentSent {
                batch,
                sequence,
                in_flight,
                ..
            } => {
                write!(
                    f,
                    " batch={batch} sequence={sequence} in_flight={in_flight}"
                )
            }
            Self::FragmentAcked {
                batch,
                sequence,
                status,
                ..
            } => {
                let status = match status {
                    AckStatus::Queued => "queued",
                    AckStatus::Processing => "processing",
                };
                write!(f, " batch={batch} sequence={sequence} status={status}")
            }
            Self::FragmentProcessed {
                batch,
                sequence,
                rtt,
                ..
            } => {
                write!(
                    f,
                    " batch={batch} sequence={sequence} rtt_ms={}",
                    rtt.as_millis()
                )
            }
            Self::FragmentFailed {
                batch,
                sequence,
                code,
                retryable,
                message,
                ..
            } => write!(
                f,
                " batch={batch} sequence={sequence} code={code} retryable={retryable} \
                 message={message:?}"
            ),
            Self::FragmentTimeout {
                batch,
                sequence,
                after,
                ..
            } => {
                write!(
                    f,
                    " batch={batch} sequence={sequence} after_ms={}",
                    after.as_millis()
                )
            }
            Self::BadAudio { batch, reason, .. } => write!(f, " batch={batch} reason={reason:?}"),
            Self::SegmentDubbed { batch } => write!(f, " batch={batch}"),
            Self::SegmentOriginal { batch, reason } | Self::Fallback { batch, reason } => {
                write!(f, " batch={batch} reason={reason}")
            }
            Self::Breaker { from, to } => write!(f, " from={from} to={to}"),
            Self::Backpressure {
                action,
                delay,
                changed,
            } => {
                write!(f, " action={action}")?;
                if let Some(delay) = delay {
                    write!(f, " delay_ms={}", delay.as_millis())?;
                }
                f.write_str(if *changed { "" } else { " again" })
            }
            Self::ProtocolError {
                kind,
                first,
                count,
                detail,
            } => {
                write!(f, " kind={kind} first={first}")?;
                if *count != 1 {
                    write!(f, " count={count}")?;
                }
                write!(f, " detail={detail:?}")
            }
            Self::StreamComplete { link, confirmed } => {
                write!(f, " link={link} confirmed={confirmed}")
            }
            Self::Drained { end } => match end {
                End::Complete => f.write_str(" end=complete"),
                End::Gone => f.write_str(" end=gone"),
                End::Refused { code, .. } => write!(f, " end=refused code={code}"),
            },
            Self::DubFitted {
                batch,
                how,
                speed_permille,
                spill,
                cut,
            } => write!(
                f,
                " batch={batch} how={} speed_permille={speed_permille} spill_ms={} cut_ms={}",
                how.label(),
                spill.as_millis(),
                cut.as_millis()
            ),
            Self::DubLevelled {
                batch,
                change,
                difference_tenths,
                gain_tenths,
            } => write!(
                f,
                " batch={batch} change={} difference_db={} gain_db={}",
                change.label(),
                Tenths(*difference_tenths),
                Tenths(*gain_tenths)
            ),
            Self::OutputStarted {
                batch,
                latency,
                head_room,
            } => write!(
                f,
                " batch={batch} latency_ms={} head_room_ms={}",
                latency.as_millis(),
                head_room.as_millis()
            ),
            Self::OutputNameTaken { delay } => write!(f, " delay_ms={}", delay.as_millis()),
            Self::OutputLost { reason } => write!(f, " reason={reason}"),
            Self::OutputReconnected { away, video, audio } => write!(
                f,
                " away_ms={} skipped_video={video} skipped_audio={audio}",
                away.as_millis()
            ),
            Self::CatchUpDone { batch, latency } => {
                write!(f, " batch={batch} latency_ms={}", latency.as_millis())
            }
            Self::Stall { batch, duration } => {
                write!(f, " batch={batch} duration_ms={}", duration.as_millis())
            }
            Self::CatchUpStarted { batch, excess } => {
                write!(f, " batch={batch} excess_ms={}", excess.as_millis())
            }
            Self::AvCorrection {
                batch,
                delta_ns,
                slewed_ns,
            } => write!(
                f,
                " batch={batch} delta_ms={} slewed_ms={}",
                Millis(*delta_ns),
                Millis(*slewed_ns)
            ),
            Self::AvGapFilled { batch, silence } => {
                write!(f, " batch={batch} silence_ms={}", silence.as_millis())
            }
            Self::AvOverThreshold { batch, delta_ns } => {
                write!(f, " batch={batch} delta_ms={}", Millis(*delta_ns))
            }
        }
    }
}

/// Signed nanoseconds printed as milliseconds with one decimal, truncated towards zero.
struct Millis(i64);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Tenths((self.0 / 100_000) as i32).fmt(f)
    }
}

/// A number with one decimal.
struct Tenths(i32);

impl fmt::Display for Tenths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{}.{}", self.0.abs() / 10, self.0.abs() % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanoseconds_are_told_as_milliseconds_and_only_what_is_less_than_nothing_has_a_sign() {
        for (nanos, told) in [
            (-1_250_000, "-1.2"),
            (-100_000, "-0.1"),
            (-99_999, "0.0"),
            (0, "0.0"),
            (120_990_000, "120.9"),
        ] {
            assert_eq!(Millis(nanos).to_string(), told);
        }
    }
}
