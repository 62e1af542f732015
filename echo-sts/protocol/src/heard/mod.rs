//! Events from the wire into facts: strict about what it acts on, indifferent to the rest.
//!
//! A rule that is broken is named once per event as [`Fact::Malformed`]. Where the fragment
//! can still be told, its outcome follows, so that it falls back at once instead of waiting for
//! its timeout. Fields the worker does not use are not looked at.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use crate::{BackpressureAction, ErrorCode, StsAckStatus, event};

mod audio;
mod fact;
mod fields;
mod json;
#[cfg(test)]
mod tests;

pub use fact::{BrokenRule, CompleteStats, DubbedAudio, Fact, MAX_DELAY, Outcome, Refused};
use fields::{
    Broken, MAX_ID, Object, bad_value, id, integer, malformed, missing, note, required, soft, text,
    type_name, wrong_type,
};
pub use fields::{clip, one_line};

/// Code of an error that came without one.
const UNKNOWN: &str = "UNKNOWN";

/// Reads one event from the JSON array that Socket.IO makes of it. `attachments` are the binary
/// parts that came with it; `stream_id` is ours: events that name another stream are refused.
///
/// JSON that is not quite JSON (`NaN`, half a surrogate pair, as Python writes them) is named and
/// read around. Of an event that cannot be read at all its fragment is told as failed, where its
/// id can be found.
pub fn read_event(json: &str, attachments: &[Bytes], stream_id: &str) -> Vec<Fact> {
    let (complaint, fixed);
    let read = match json::event(json) {
        Ok(read) => return read_parts(read, attachments, stream_id),
        Err(error) => {
            complaint = one_line(&error.to_string());
            fixed = json::fix(json);
            fixed.as_deref().and_then(|json| json::event(json).ok())
        }
    };
    let mut facts = vec![malformed(BrokenRule::BadJson, complaint.as_str())];
    match read {
        Some(read) => facts.extend(read_parts(read, attachments, stream_id)),
        None => facts.extend(unreadable(json, &complaint)),
    }
    facts
}

/// What is left of an event that cannot be read: its fragment fails now, not at its timeout.
pub fn unreadable(json: &str, why: &str) -> Option<Fact> {
    let (_, answer) = json.split_once(event::FRAGMENT_PROCESSED)?;
    let (_, rest) = answer.split_once("\"fragment_id\"")?;
    let id: String = rest
        .trim_start_matches([':', ' ', '"'])
        .chars()
        .take(36)
        .collect();
    uuid::Uuid::try_parse(&id).ok()?;
    Some(Fact::Processed {
        id,
        sequence: None,
        outcome: Outcome::BadAudio {
            reason: format!("the answer cannot be read: {why}"),
        },
    })
}

fn read_parts(read: json::Event, attachments: &[Bytes], stream_id: &str) -> Vec<Fact> {
    match read {
        json::Event::Nameless => vec![malformed(
            BrokenRule::MissingField,
            "an event without a name",
        )],
        json::Event::Named {
            name,
            payload,
            extra,
        } => read_named(&name, payload, extra, attachments, stream_id),
    }
}

/// Reads the event `name`; the protocol has exactly one value after the name, `extra` is how many
/// there are besides.
fn read_named(
    name: &str,
    payload: Option<Value>,
    extra: usize,
    attachments: &[Bytes],
    stream_id: &str,
) -> Vec<Fact> {
    let mut facts = Vec::with_capacity(2);
    if !event::FROM_STS.contains(&name) {
        facts.push(malformed(BrokenRule::UnknownEvent, clip(name, 64)));
        return facts;
    }
    let mut object = match payload {
        Some(Value::Object(object)) => object,
        None | Some(Value::Null) => {
            facts.push(malformed(
                BrokenRule::MissingField,
                format!("{name}: no payload"),
            ));
            return facts;
        }
        Some(other) => {
            let found = type_name(&other);
            facts.push(malformed(
                BrokenRule::WrongType,
                format!("{name}: payload is {found}"),
            ));
            return facts;
        }
    };
    if extra > 0 {
        let detail = format!("{name}: {extra} values after the payload");
        facts.push(malformed(BrokenRule::BadValue, detail));
    }
    let result = match foreign(&object, stream_id) {
        Some(broken) => Err(broken),
        None => match name {
            event::STREAM_READY => Ok(ready(&object, &mut facts)),
            event::FRAGMENT_ACK => ack(&object),
            event::FRAGMENT_PROCESSED => processed(&mut object, attachments, &mut facts),
            event::STREAM_COMPLETE => Ok(complete(&object, &mut facts)),
            event::BACKPRESSURE => backpressure(&object, &mut facts),
            _ => Ok(error(&object, &mut facts)),
        },
    };
    facts
        .push(result.unwrap_or_else(|(kind, detail)| malformed(kind, format!("{name}: {detail}"))));
    facts
}

/// Reads the payload of a refused namespace.
pub fn read_refusal(payload: &str) -> Refused {
    let value = json::known(payload).unwrap_or(Value::Null);
    let object = value.as_object();
    // `{"message", "data": {"code", "retryable"}}` is the shape of Socket.IO middleware errors;
    // some servers put the code beside the message.
    let data = object
        .and_then(|o| o.get("data"))
        .and_then(Value::as_object);
    let find = |key: &str| {
        data.and_then(|d| d.get(key))
            .or_else(|| object.and_then(|o| o.get(key)))
    };
    let message = match find("message").or(Some(&value)) {
        Some(Value::String(text)) if !text.is_empty() => one_line(text),
        _ => "connection refused without a message".to_owned(),
    };
    let outer = object
        .and_then(|o| o.get("message"))
        .and_then(Value::as_str)
        .unwrap_or_default();
    let code = match find("code") {
        Some(Value::String(code)) => clip(code, 64),
        // A bare code, or "CODE: text", as message.
        _ => ErrorCode::KNOWN
            .into_iter()
            .find(|known| {
                outer
                    .strip_prefix(known.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with([':', ' ']))
            })
            .map_or_else(|| UNKNOWN.to_owned(), |code| code.as_str().to_owned()),
    };
    Refused { code, message }
}

fn ready(o: &Object, facts: &mut Vec<Fact>) -> Fact {
    let max_inflight = soft(facts, event::STREAM_READY, integer(o, "max_inflight"));
    let session_id = soft(facts, event::STREAM_READY, text(o, "session_id"));
    Fact::Ready {
        max_inflight,
        session_id: session_id.map(|id| clip(id, MAX_ID)),
    }
}

fn ack(o: &Object) -> Result<Fact, Broken> {
    let id = required(id(o)?, "fragment_id")?;
    let status = match required(text(o, "status")?, "status")? {
        "queued" => StsAckStatus::Queued,
        "processing" => StsAckStatus::Processing,
        other => return Err(bad_value("status", other)),
    };
    Ok(Fact::Acked { id, status })
}

fn processed(o: &mut Object, attachments: &[Bytes], facts: &mut Vec<Fact>) -> Result<Fact, Broken> {
    const NAME: &str = event::FRAGMENT_PROCESSED;
    let id = required(id(o)?, "fragment_id")?;
    let sequence = match integer(o, "sequence_number") {
        Ok(Some(n)) if n < 0 => {
            note(facts, NAME, bad_value("sequence_number", "negative"));
            None
        }
        other => soft(facts, NAME, other).and_then(|n| u64::try_from(n).ok()),
    };
    let status = text(o, "status")
        .and_then(|status| required(status, "status"))
        .map(str::to_owned);
    let outcome = match status.as_deref() {
        Ok("success") => dubbed(o, attachments, facts),
        // Part of the work may be audio good enough to use; without it, it is a failure.
        Ok("partial") if o.get("dubbed_audio").is_some_and(|audio| !audio.is_null()) => {
            dubbed(o, attachments, facts)
        }
        Ok("partial" | "failed") => failed(o, facts),
        other => {
            let broken = match other {
                Ok(value) => bad_value("status", value),
                Err(broken) => broken.clone(),
            };
            let reason = broken.1.clone();
            note(facts, NAME, broken);
            Outcome::Failed {
                code: UNKNOWN.to_owned(),
                message: reason,
                retryable: false,
            }
        }
    };
    Ok(Fact::Processed {
        id,
        sequence,
        outcome,
    })
}

fn dubbed(o: &mut Object, attachments: &[Bytes], facts: &mut Vec<Fact>) -> Outcome {
    audio::read(o, attachments).map_or_else(
        |(kind, reason)| {
            facts.push(malformed(
                kind,
                format!("{}: {reason}", event::FRAGMENT_PROCESSED),
            ));
            Outcome::BadAudio { reason }
        },
        Outcome::Audio,
    )
}

fn failed(o: &Object, facts: &mut Vec<Fact>) -> Outcome {
    const NAME: &str = event::FRAGMENT_PROCESSED;
    let empty = Object::new();
    let error = match o.get("error") {
        Some(Value::Object(error)) => error,
        None | Some(Value::Null) => &empty,
        Some(other) => {
            note(facts, NAME, wrong_type("error", other));
            &empty
        }
    };
    let (code, message, retryable) = what_failed(error, NAME, facts);
    Outcome::Failed {
        code,
        message,
        retryable,
    }
}

fn error(o: &Object, facts: &mut Vec<Fact>) -> Fact {
    const NAME: &str = event::ERROR;
    let (code, message, retryable) = what_failed(o, NAME, facts);
    if code == UNKNOWN {
        note(facts, NAME, missing("code"));
    }
    let fatal = match soft(facts, NAME, text(o, "severity")) {
        Some("fatal") => true,
        Some("error" | "warning") | None => false,
        Some(other) => {
            note(facts, NAME, bad_value("severity", other));
            false
        }
    };
    let fatal = fatal || code == ErrorCode::AuthFailed.as_str();
    let id = soft(facts, NAME, id(o));
    Fact::Error {
        code,
        retryable,
        fatal,
        id,
        message,
    }
}

/// Code, message and retryable flag of an error object, each bounded.
fn what_failed(o: &Object, name: &str, facts: &mut Vec<Fact>) -> (String, String, bool) {
    let code = soft(facts, name, text(o, "code"))
        .filter(|code| !code.is_empty())
        .map_or_else(|| UNKNOWN.to_owned(), |code| clip(code, 64));
    let message = soft(facts, name, text(o, "message"))
        .map(one_line)
        .unwrap_or_default();
    let flag = match o.get("retryable") {
        None | Some(Value::Null) => None,
        Some(Value::Bool(flag)) => Some(*flag),
        Some(other) => soft(facts, name, Err(wrong_type("retryable", other))),
    };
    let retryable = flag
        .or(ErrorCode::from(code.as_str()).retryable())
        .unwrap_or(false);
    (code, message, retryable)
}

fn backpressure(o: &Object, facts: &mut Vec<Fact>) -> Result<Fact, Broken> {
    const NAME: &str = event::BACKPRESSURE;
    let action = match required(text(o, "action")?, "action")? {
        "none" => BackpressureAction::None,
        "slow_down" => BackpressureAction::SlowDown,
        "pause" => BackpressureAction::Pause,
        other => return Err(bad_value("action", other)),
    };
    let delay = match soft(facts, NAME, integer(o, "recommended_delay_ms")) {
        None => None,
        Some(ms) => {
            let delay = u64::try_from(ms).map(Duration::from_millis);
            if delay.is_err() || delay.is_ok_and(|delay| delay > MAX_DELAY) {
                let broken = bad_value("recommended_delay_ms", &ms.to_string());
                note(facts, NAME, broken);
            }
            delay.ok().map(|delay| delay.min(MAX_DELAY))
        }
    };
    Ok(Fact::Backpressure { action, delay })
}

fn complete(o: &Object, facts: &mut Vec<Fact>) -> Fact {
    const NAME: &str = event::STREAM_COMPLETE;
    let empty = Object::new();
    let statistics = match o.get("statistics") {
        Some(Value::Object(statistics)) => statistics,
        None | Some(Value::Null) => &empty,
        Some(other) => {
            note(facts, NAME, wrong_type("statistics", other));
            &empty
        }
    };
    let mut count = |o: &Object, field| {
        soft(facts, NAME, integer(o, field)).and_then(|n| u64::try_from(n).ok())
    };
    Fact::Complete {
        stats: CompleteStats {
            total: count(o, "total_fragments"),
            success: count(statistics, "success_count"),
            partial: count(statistics, "partial_count"),
            failed: count(statistics, "failed_count"),
        },
    }
}

/// An event that names another stream is not about us, whatever it says.
fn foreign(o: &Object, stream_id: &str) -> Option<Broken> {
    match o.get("stream_id") {
        None | Some(Value::Null) => None,
        Some(Value::String(id)) if id == stream_id => None,
        Some(Value::String(id)) => Some(bad_value("stream_id", id)),
        Some(other) => Some(wrong_type("stream_id", other)),
    }
}
