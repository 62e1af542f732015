//! What the service said, in the engine's words.

use bytes::Bytes;
use dub_engine::{AckStatus, BackpressureAction, LinkId, Outcome, ProtocolErrorKind, SessionFact};
use sts_protocol::heard::{self, BrokenRule, Fact};
use sts_protocol::{BackpressureAction as Asked, ErrorCode, StsAckStatus};

use super::config::{HIDDEN, StsClientConfig};
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

/// A service may quote a secret back at us, so its words are looked through, ids, codes and formats too: what
/// is unknown is logged.
pub(crate) fn told(link: LinkId, fact: Fact, config: &StsClientConfig) -> StsFact {
    let mut audio = None;
    let input = match fact {
        Fact::Ready { max_inflight, .. } => SessionFact::Ready { link, max_inflight },
        Fact::Acked { id, status } => SessionFact::Acked {
            link,
            id: shown_id(id, config),
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
            id: shown_id(id, config),
            sequence,
            outcome: match outcome {
                heard::Outcome::Audio(mut answer) => {
                    answer.format = config.redact(&answer.format);
                    audio = Some(Ok(answer));
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
                    code: shown_code(code, config),
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
            code: shown_code(code, config),
            retryable,
            fatal,
            id: id.map(|id| shown_id(id, config)),
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

/// An id is told in the log where it is none of ours. A part of one that is may look like a secret.
fn shown_id(id: String, config: &StsClientConfig) -> String {
    let hidden = config.redact(&id);
    if hidden != HIDDEN && uuid::Uuid::try_parse(&id).is_ok() {
        return id;
    }
    hidden
}

/// A code without secrets. The protocol's own are none, whatever a secret is called: they decide.
fn shown_code(code: String, config: &StsClientConfig) -> String {
    if ErrorCode::KNOWN.iter().any(|known| known.as_str() == code) {
        code
    } else {
        config.redact(&code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    /// No answer quotes anything there today; it is looked through all the same.
    #[test]
    fn why_there_is_no_audio_is_told_without_secrets() {
        let mut config = StsClientConfig::new("http://h", "s", "w");
        config.token = Some(Secret::new("s3cret-t0ken"));
        let outcome = heard::Outcome::BadAudio {
            reason: "what is s3cret-t0ken?".to_owned(),
        };
        let (id, sequence) = (String::new(), None);
        let processed = Fact::Processed {
            id,
            sequence,
            outcome,
        };
        let reason = told(1, processed, &config).audio;
        assert_eq!(reason, Some(Err("what is [redacted]?".to_owned())));
    }

    /// Whose answer it is hangs on it.
    #[test]
    fn an_id_of_ours_is_told_whole_unless_it_is_the_secret() {
        const OURS: &str = "00000000-0000-4000-8000-000000000001";
        let shown = |token: &str, id: &str| {
            let mut config = StsClientConfig::new("http://h", "s", "w");
            config.token = Some(Secret::new(token));
            shown_id(id.to_owned(), &config)
        };
        assert_eq!(shown("-4000-", OURS), OURS);
        assert_eq!(shown(OURS, OURS), HIDDEN);
        assert_eq!(shown("-4000-", "no-4000-uuid"), "no[redacted]uuid");
    }

    /// What follows from them depends on their words.
    #[test]
    fn the_protocols_own_codes_are_no_secrets() {
        let config = StsClientConfig::new("http://h/?mode=TIMEOUT&key=ODDS", "s", "w");
        for (code, expected) in [("TIMEOUT", "TIMEOUT"), ("ODDS", "[redacted]")] {
            assert_eq!(shown_code(code.to_owned(), &config), expected);
        }
    }
}
