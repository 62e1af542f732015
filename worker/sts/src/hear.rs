//! What the service said, in the engine's words.

use bytes::Bytes;
use dub_engine::{AckStatus, BackpressureAction, LinkId, Outcome, ProtocolErrorKind, SessionFact};
use sts_protocol::heard::{self, BrokenRule, Fact};
use sts_protocol::{BackpressureAction as Asked, StsAckStatus};

use super::config::StsClientConfig;
use super::fact::StsFact;

/// Something odd that no event can be blamed for.
pub(crate) fn malformed(
    link: LinkId,
    kind: ProtocolErrorKind,
    count: u64,
    detail: impl Into<String>,
) -> StsFact {
    StsFact::from(SessionFact::Malformed {
        link,
        kind,
        count,
        detail: detail.into(),
    })
}

/// Reads an event.
pub(crate) fn event(
    link: LinkId,
    json: &str,
    attachments: &[Bytes],
    config: &StsClientConfig,
) -> impl Iterator<Item = StsFact> {
    let facts = heard::read_event(json, attachments, &config.stream_id);
    facts.into_iter().map(move |fact| told(link, fact, config))
}

/// A service may quote a secret back at us, so its words are looked through.
pub(crate) fn told(link: LinkId, fact: Fact, config: &StsClientConfig) -> StsFact {
    let mut audio = None;
    let input = match fact {
        Fact::Ready { max_inflight, .. } => SessionFact::Ready { link, max_inflight },
        Fact::Acked { id, status } => SessionFact::Acked {
            link,
            id,
            status: match status {
                StsAckStatus::Queued => AckStatus::Queued,
                StsAckStatus::Processing => AckStatus::Processing,
            },
        },
        Fact::Processed {
            id,
            sequence,
            outcome,
        } => SessionFact::Processed {
            link,
            id,
            sequence,
            outcome: match outcome {
                heard::Outcome::Audio(bytes) => {
                    audio = Some(Ok(bytes));
                    Outcome::Audio
                }
                heard::Outcome::BadAudio { reason } => {
                    audio = Some(Err(config.redact(&reason)));
                    Outcome::Audio
                }
                heard::Outcome::Failed {
                    code,
                    message,
                    retryable,
                } => Outcome::Failed {
                    code,
                    retryable,
                    message: config.redact(&message),
                },
            },
        },
        Fact::Backpressure { action, delay } => SessionFact::Backpressure {
            link,
            action: match action {
                Asked::None => BackpressureAction::None,
                Asked::SlowDown => BackpressureAction::SlowDown,
                Asked::Pause => BackpressureAction::Pause,
            },
            delay,
        },
        Fact::Error {
            code,
            retryable,
            fatal,
            id,
            message,
        } => SessionFact::StsError {
            link,
            code,
            retryable,
            fatal,
            id,
            message: config.redact(&message),
        },
        Fact::Complete { .. } => SessionFact::StreamComplete { link },
        Fact::Malformed { kind, detail } => SessionFact::Malformed {
            link,
            kind: match kind {
                BrokenRule::BadJson => ProtocolErrorKind::BadJson,
                BrokenRule::WrongType => ProtocolErrorKind::WrongType,
                BrokenRule::MissingField => ProtocolErrorKind::MissingField,
                BrokenRule::BadValue => ProtocolErrorKind::BadValue,
                BrokenRule::UnknownEvent => ProtocolErrorKind::UnknownEvent,
                BrokenRule::Oversize => ProtocolErrorKind::Oversize,
            },
            count: 1,
            detail: config.redact(&detail),
        },
    };
    StsFact { input, audio }
}
