//! Events from the wire into facts: strict about what it acts on, indifferent to the rest.
//!
//! A rule that is broken is named once per event as [`FactKind::Malformed`]. Where the fragment
//! can still be told, its outcome follows, so that it falls back at once instead of waiting for
//! its timeout. Fields the worker does not use are not looked at.

use std::time::Duration;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde_json::Value;
use sts_protocol::{ErrorCode, event, limits};

use super::fact::{
    AckStatus, BackpressureAction, CompleteStats, DubbedAudio, FactKind, MAX_DELAY, MalformedKind,
    Outcome, Refused,
};
use super::fields::{
    Broken, MAX_ID, Object, bad_value, clip, id, integer, malformed, missing, note, one_line,
    required, soft, text, type_name, wrong_type,
};

/// Sample rates any decoder here could make sense of, Hz.
const RATES: std::ops::RangeInclusive<u32> = 4_000..=192_000;
/// Code of an error that came without one.
const UNKNOWN: &str = "UNKNOWN";

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads one event. `args` are the values after the event name; the protocol has exactly one.
/// `stream_id` is ours: events that name another stream are refused.
pub(super) fn read(name: &str, args: Vec<Value>, stream_id: &str) -> Vec<FactKind> {
    let mut facts = Vec::with_capacity(2);
    if !event::FROM_STS.contains(&name) {
        facts.push(malformed(MalformedKind::UnknownEvent, clip(name, 64)));
        return facts;
    }
    let extra = args.len().saturating_sub(1);
    let mut object = match args.into_iter().next() {
        Some(Value::Object(object)) => object,
        None | Some(Value::Null) => {
            facts.push(malformed(
                MalformedKind::MissingField,
                format!("{name}: no payload"),
            ));
            return facts;
        }
        Some(other) => {
            let found = type_name(&other);
            facts.push(malformed(
                MalformedKind::WrongType,
                format!("{name}: payload is {found}"),
            ));
            return facts;
        }
    };
    if extra > 0 {
        let detail = format!("{name}: {extra} values after the payload");
        facts.push(malformed(MalformedKind::BadValue, detail));
    }
    let result = match foreign(&object, stream_id) {
        Some(broken) => Err(broken),
        None => match name {
            event::STREAM_READY => Ok(ready(&object, &mut facts)),
            event::FRAGMENT_ACK => ack(&object),
            event::FRAGMENT_PROCESSED => processed(&mut object, &mut facts),
            event::STREAM_COMPLETE => Ok(complete(&object, &mut facts)),
            event::BACKPRESSURE => backpressure(&object, &mut facts),
            _ => Ok(error(&object, &mut facts)),
        },
    };
    facts
        .push(result.unwrap_or_else(|(kind, detail)| malformed(kind, format!("{name}: {detail}"))));
    facts
}

/// Reads the payload of a refused namespace, and whether trying again may help (`QUEUE_FULL` and
/// the like). A refusal without a code counts as `AUTH_FAILED`: that is what servers refuse
/// connections for.
pub(super) fn read_refusal(payload: &str) -> (Refused, bool) {
    let value = serde_json::from_str::<Value>(payload).unwrap_or(Value::Null);
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
        Some(Value::String(code)) => ErrorCode::from(clip(code, 64).as_str()),
        // A bare code, or "CODE: text", as message.
        _ => ErrorCode::KNOWN
            .into_iter()
            .find(|known| {
                outer
                    .strip_prefix(known.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with([':', ' ']))
            })
            .unwrap_or(ErrorCode::AuthFailed),
    };
    let flag = find("retryable").and_then(Value::as_bool);
    let retryable = code.retryable().or(flag).unwrap_or(false);
    (
        Refused {
            code: code.as_str().to_owned(),
            message,
        },
        retryable,
    )
}

fn ready(o: &Object, facts: &mut Vec<FactKind>) -> FactKind {
    let max_inflight = soft(facts, event::STREAM_READY, integer(o, "max_inflight"));
    let session_id = soft(facts, event::STREAM_READY, text(o, "session_id"));
    FactKind::Ready {
        max_inflight,
        session_id: session_id.map(|id| clip(id, MAX_ID)),
    }
}

fn ack(o: &Object) -> Result<FactKind, Broken> {
    let id = required(id(o)?, "fragment_id")?;
    let status = match required(text(o, "status")?, "status")? {
        "queued" => AckStatus::Queued,
        "processing" => AckStatus::Processing,
        other => return Err(bad_value("status", other)),
    };
    Ok(FactKind::Acked { id, status })
}

fn processed(o: &mut Object, facts: &mut Vec<FactKind>) -> Result<FactKind, Broken> {
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
        Ok("success") => dubbed(o, facts),
        // Part of the work may be audio good enough to use; without it, it is a failure.
        Ok("partial") if o.get("dubbed_audio").is_some_and(|audio| !audio.is_null()) => {
            dubbed(o, facts)
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
    Ok(FactKind::Processed {
        id,
        sequence,
        outcome,
    })
}

/// Characters of a transcript that are kept.
const MAX_WORDS: usize = 4_000;

fn dubbed(o: &mut Object, facts: &mut Vec<FactKind>) -> Outcome {
    audio(o).map_or_else(
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

fn audio(o: &mut Object) -> Result<DubbedAudio, Broken> {
    let mut audio = match o.remove("dubbed_audio") {
        Some(Value::Object(audio)) => audio,
        None | Some(Value::Null) => return Err(missing("dubbed_audio")),
        Some(other) => return Err(wrong_type("dubbed_audio", &other)),
    };
    let format = required(text(&audio, "format")?, "dubbed_audio.format")?;
    let format = clip(format, 32).to_ascii_lowercase();
    let sample_rate = match integer(&audio, "sample_rate_hz")? {
        None => None,
        Some(rate) => Some(
            u32::try_from(rate)
                .ok()
                .filter(|rate| RATES.contains(rate))
                .ok_or_else(|| bad_value("dubbed_audio.sample_rate_hz", &rate.to_string()))?,
        ),
    };
    let channels = match integer(&audio, "channels")? {
        None => None,
        Some(1) => Some(1),
        Some(2) => Some(2),
        Some(other) => return Err(bad_value("dubbed_audio.channels", &other.to_string())),
    };
    // Raw samples do not say what they are.
    if format.starts_with("pcm") && (sample_rate.is_none() || channels.is_none()) {
        return Err(missing("dubbed_audio.sample_rate_hz or channels"));
    }
    // Only a label: the real length is measured when it is decoded.
    let duration_ms = integer(&audio, "duration_ms")?.and_then(|ms| u64::try_from(ms).ok());
    let encoded = match audio.remove("data_base64") {
        Some(Value::String(encoded)) => encoded,
        None | Some(Value::Null) => return Err(missing("dubbed_audio.data_base64")),
        Some(other) => return Err(wrong_type("dubbed_audio.data_base64", &other)),
    };
    if encoded.is_empty() {
        return Err((
            MalformedKind::BadValue,
            "dubbed_audio.data_base64 is empty".to_owned(),
        ));
    }
    if encoded.len() > limits::MAX_AUDIO_BASE64 {
        let detail = format!(
            "dubbed_audio.data_base64 has {} bytes, {} are allowed",
            encoded.len(),
            limits::MAX_AUDIO_BASE64
        );
        return Err((MalformedKind::Oversize, detail));
    }
    let bytes = BASE64.decode(encoded).map_err(|_| {
        (
            MalformedKind::BadValue,
            "dubbed_audio.data_base64 is not base64".to_owned(),
        )
    })?;
    // Nothing hangs on the words: what is no text is none.
    let words = |field| clip(text(o, field).ok().flatten().unwrap_or_default(), MAX_WORDS);
    Ok(DubbedAudio {
        transcript: words("transcript"),
        translated_text: words("translated_text"),
        format,
        sample_rate,
        channels,
        duration_ms,
        bytes: Bytes::from(bytes),
    })
}

fn failed(o: &Object, facts: &mut Vec<FactKind>) -> Outcome {
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

fn error(o: &Object, facts: &mut Vec<FactKind>) -> FactKind {
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
    FactKind::Error {
        code,
        retryable,
        fatal,
        id,
        message,
    }
}

/// Code, message and retryable flag of an error object, each bounded.
fn what_failed(o: &Object, name: &str, facts: &mut Vec<FactKind>) -> (String, String, bool) {
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

fn backpressure(o: &Object, facts: &mut Vec<FactKind>) -> Result<FactKind, Broken> {
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
    Ok(FactKind::Backpressure { action, delay })
}

fn complete(o: &Object, facts: &mut Vec<FactKind>) -> FactKind {
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
    FactKind::Complete {
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
