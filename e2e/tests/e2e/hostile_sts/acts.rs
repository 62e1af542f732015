//! What the server says for each offence.

use std::time::Duration;

use anyhow::Result;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sts_protocol::event;

use super::SEGMENT;
use super::offences::{FLOOD, SHOUTED_DBFS, TOO_LATE, WHISPERED_DBFS};
use super::server::{Fragment, Wire};

const STRANGER: &str = "00000000-0000-4000-8000-000000000000";

pub(super) fn good(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    wire.processed(&fragment.good())
}

pub(super) fn empty(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    wire.processed(&fragment.answer_with("m4a", ""))
}

pub(super) fn not_base64(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    wire.processed(&fragment.answer_with("m4a", "*** not base64 ***"))
}

pub(super) fn truncated(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    let half = &fragment.audio[..fragment.audio.len() / 8 * 4];
    wire.processed(&fragment.answer_with("m4a", half))
}

pub(super) fn noise(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    wire.processed(&fragment.answer_with("mp3", &"QUJD".repeat(4_000)))
}

/// A WAV file of 32-bit floats, all of them NaN: the encoder once gave nothing any more.
pub(super) fn no_numbers(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    wire.processed(&fragment.answer_with("wav", &fragment.not_a_number()))
}

pub(super) fn mislabelled(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    wire.processed(&fragment.answer_with("mp3", &fragment.marker()))
}

pub(super) fn no_audio(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    wire.processed(&fragment.answer(&Value::Null))
}

pub(super) fn listed(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    wire.processed(&fragment.answer(&json!([fragment.marker()])))
}

pub(super) fn wrong_types(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    wire.processed(&json!({ "fragment_id": 7, "status": [] }))?;
    wire.emit(
        event::FRAGMENT_ACK,
        &json!({ "fragment_id": fragment.id, "status": 5 }),
    )?;
    let mut answer = fragment.good();
    answer["sequence_number"] = json!("zero");
    wire.processed(&answer)
}

pub(super) fn payloads(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    for payload in [json!("a word"), json!([1, 2]), json!(7), Value::Null] {
        wire.processed(&payload)?;
    }
    good(wire, fragment)
}

pub(super) fn missing(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    wire.processed(&json!({ "status": "success" }))?;
    wire.emit(event::FRAGMENT_ACK, &json!({ "fragment_id": fragment.id }))?;
    good(wire, fragment)
}

pub(super) fn no_status(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    let mut answer = fragment.good();
    answer["status"] = Value::Null;
    wire.processed(&answer)
}

pub(super) fn odd_status(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    let mut answer = fragment.good();
    answer["status"] = json!("perhaps");
    wire.processed(&answer)
}

pub(super) fn nulls(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    let mut answer = fragment.good();
    for field in [
        "stream_id",
        "sequence_number",
        "processing_time_ms",
        "transcript",
        "translated_text",
        "stage_timings",
        "error",
        "metadata",
    ] {
        answer[field] = Value::Null;
    }
    for field in ["sample_rate_hz", "channels", "duration_ms"] {
        answer["dubbed_audio"][field] = Value::Null;
    }
    wire.processed(&answer)
}

pub(super) fn unknown_events(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    wire.emit("nobody:knows", &json!({ "this": "event" }))?;
    wire.emit("", &Value::Null)?;
    wire.raw(r#"42["surprise"]"#)?;
    good(wire, fragment)
}

pub(super) fn foreign(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    let mut answer = fragment.answer_with("m4a", &fragment.audio);
    answer["stream_id"] = json!("another");
    wire.processed(&answer)?;
    good(wire, fragment)
}

pub(super) fn unknown_ids(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    wire.emit(
        event::FRAGMENT_ACK,
        &json!({ "fragment_id": STRANGER, "status": "queued" }),
    )?;
    for id in [STRANGER, "42"] {
        let mut answer = fragment.good();
        answer["fragment_id"] = json!(id);
        wire.processed(&answer)?;
    }
    good(wire, fragment)
}

/// What comes again has another sound: at once, and when the segment is on air.
pub(super) fn repeated(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    let again = fragment.answer_with("m4a", &fragment.audio);
    good(wire, fragment)?;
    wire.processed(&again)?;
    wire.later(SEGMENT, again);
    Ok(())
}

pub(super) fn hold(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    wire.emit(event::FRAGMENT_ACK, &fragment.ack())?;
    wire.hold(fragment.good());
    Ok(())
}

/// It waits for its turn, checked, when it comes again with another sound.
pub(super) fn overtaken(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    good(wire, fragment)?;
    let again = fragment.answer_with("m4a", &fragment.audio);
    wire.later(Duration::from_millis(300), again);
    wire.release_later(Duration::from_millis(500));
    Ok(())
}

pub(super) fn late(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    wire.emit(event::FRAGMENT_ACK, &fragment.ack())?;
    wire.later(TOO_LATE, fragment.good());
    Ok(())
}

pub(super) fn odd_code(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    wire.emit(
        event::ERROR,
        &json!({ "code": "NEVER_HEARD_OF", "message": "?", "retryable": true, "severity": "error",
            "fragment_id": fragment.id }),
    )
}

pub(super) fn odd_failure(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    let mut answer = fragment.answer(&Value::Null);
    answer["status"] = json!("failed");
    answer["error"] = json!({ "code": "FULL_MOON", "message": 5, "retryable": "maybe" });
    wire.processed(&answer)
}

pub(super) fn errors(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    for error in [
        json!({ "code": "NEVER_HEARD_OF", "message": "?" }),
        json!({ "message": "there is no code" }),
        json!({ "code": "MODEL_ERROR", "severity": "apocalyptic" }),
    ] {
        wire.emit(event::ERROR, &error)?;
    }
    good(wire, fragment)
}

pub(super) fn backpressure(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    for asked in [
        json!({ "action": "dance" }),
        json!({ "severity": "high" }),
        json!({ "action": "slow_down", "recommended_delay_ms": -5 }),
        json!({ "action": "slow_down", "recommended_delay_ms": 1e12 }),
        json!({ "action": "none" }),
    ] {
        wire.emit(event::BACKPRESSURE, &asked)?;
    }
    good(wire, fragment)
}

pub(super) fn unasked(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    wire.emit(
        event::STREAM_READY,
        &json!({ "stream_id": "test", "max_inflight": 1 }),
    )?;
    wire.emit(event::STREAM_COMPLETE, &json!({ "stream_id": "test" }))?;
    let mut answer = fragment.good();
    answer["sequence_number"] = json!(fragment.sequence + 99);
    wire.processed(&answer)
}

pub(super) fn binary(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    wire.raw(r#"451-["fragment:processed",{"_placeholder":true,"num":0}]"#)?;
    wire.binary(vec![1, 2, 3])?;
    good(wire, fragment)
}

pub(super) fn flood(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    good(wire, fragment)?;
    let known = r#"42["backpressure",{"stream_id":"test","action":"none","severity":null}]"#;
    let unknown = r#"42["who:knows",{"n":[0,1,2,3,4,5,6,7,8,9]}]"#;
    wire.flood((0..FLOOD).map(|n| if n % 2 == 0 { known } else { unknown }))
}

pub(super) fn too_large(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    wire.processed(&fragment.answer_with("wav", &"QUJD".repeat(3_500_000)))
}

/// More than the worker keeps, less than the protocol allows. The fragment's id comes behind it.
pub(super) fn huge(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    wire.processed(&fragment.answer_with("wav", &"QUJD".repeat(5_000_000)))
}

/// The connection breaks on it, and takes the fragment along.
pub(super) fn beyond(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    wire.hold(fragment.good());
    wire.announce(60_000_000)
}

pub(super) fn from_before(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    wire.release()?;
    good(wire, fragment)
}

/// The audio as Node's `Buffer` and Python's `bytes` travel.
pub(super) fn bytes(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    let mut answer = fragment.good();
    answer["dubbed_audio"]["data_base64"] = json!({ "_placeholder": true, "num": 0 });
    wire.raw(&format!(
        "451-{}",
        json!([event::FRAGMENT_PROCESSED, answer])
    ))?;
    wire.binary(fragment.marker_bytes())
}

/// In the alphabet for URLs, without padding, in lines, behind a prefix.
pub(super) fn base64_of_every_kind(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    let encoded = BASE64_URL_SAFE_NO_PAD.encode(fragment.marker_bytes());
    let lines: Vec<&[u8]> = encoded.as_bytes().chunks(76).collect();
    let text = String::from_utf8(lines.join(&b"\r\n"[..]))?;
    wire.processed(&fragment.answer_with("wav", &format!("data:audio/wav;base64,{text}")))
}

pub(super) fn shouted(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    wire.processed(&fragment.good_at(SHOUTED_DBFS))
}

pub(super) fn whispered(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    wire.processed(&fragment.good_at(WHISPERED_DBFS))
}

/// Samples in an order of bytes that the protocol does not have: as noise they may never play.
pub(super) fn odd_label(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    wire.processed(&fragment.answer_with("pcm_s16be", &fragment.marker()))
}

pub(super) fn not_json(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    wire.raw("42[not json")?;
    good(wire, fragment)
}

/// As Python writes a number that is none.
pub(super) fn nan(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    let answer = json!([event::FRAGMENT_PROCESSED, fragment.good()]).to_string();
    let number = r#""processing_time_ms":1"#;
    wire.raw(&format!(
        "42{}",
        answer.replace(number, r#""processing_time_ms":NaN"#)
    ))
}

/// As Python cuts a text in the middle of an emoji.
pub(super) fn half_pair(wire: &mut Wire<'_>, fragment: &Fragment) -> Result<()> {
    let mut answer = fragment.good();
    answer["transcript"] = json!("HALF");
    let answer = json!([event::FRAGMENT_PROCESSED, answer]).to_string();
    wire.raw(&format!("42{}", answer.replace("HALF", r"good \ud83d")))
}

/// The connection goes, and takes the fragment along.
pub(super) fn end_session(wire: &mut Wire<'_>, _: &Fragment) -> Result<()> {
    wire.raw("41")
}
