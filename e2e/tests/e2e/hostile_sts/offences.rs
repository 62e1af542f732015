//! Everything an STS service may say wrong, one fragment each, and what it must come to.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::clock::{self, ClipSpec};
use e2e::pipeline::Evidence;
use e2e::probe::audio::segments;
use e2e::probe::logs::Level;
use e2e::runner::Context;
use serde_json::{Value, json};
use sts_protocol::{event, mark};

#[allow(clippy::wildcard_imports, reason = "the table names them all")]
use super::acts::*;
use super::server::{Act, Played, Server, Wire};
use super::{Fate, SEGMENT, complete, count, fates, watch_memory};
use crate::stage::Stage as _;
use crate::wire::number;

/// Long enough for all offences and the reconnections they force.
const CLIP: u32 = 54;
/// After this a fragment is given up.
const TIMEOUT: Duration = Duration::from_secs(3);
pub(super) const TOO_LATE: Duration = Duration::from_millis(3_400);
/// Peaks of tones that are far louder and far quieter than the original.
pub(super) const SHOUTED_DBFS: f64 = -0.1;
pub(super) const WHISPERED_DBFS: f64 = -50.0;
/// Events of the flood, and how long sending them may take.
pub(super) const FLOOD: u64 = 10_000;
const FLOOD_TIME: Duration = Duration::from_millis(1_500);

/// One offence: what the server does, which protocol errors must be counted for it, and what
/// becomes of the segment: `dubbed`, or the reason of its fallback.
struct Offence(&'static str, Act, Kinds, &'static str);
type Kinds = &'static [(&'static str, u64)];

/// In the order they are played. Where the fragment's answer is not the offence itself, a good
/// answer comes behind it: the offence may cost nothing.
const OFFENCES: &[Offence] = &[
    Offence("none", good, &[], "dubbed"),
    Offence("empty audio", empty, &[("bad_value", 1)], "bad_audio"),
    Offence("not base64", not_base64, &[("bad_value", 1)], "bad_audio"),
    Offence("truncated audio", truncated, &[], "bad_audio"),
    Offence("noise called MP3", noise, &[], "bad_audio"),
    Offence("samples that are no numbers", no_numbers, &[], "bad_audio"),
    Offence("WAV called MP3", mislabelled, &[], "dubbed"),
    Offence("no audio", no_audio, &[("missing_field", 1)], "bad_audio"),
    Offence("audio is a list", listed, &[("wrong_type", 1)], "bad_audio"),
    Offence(
        "fields of wrong types",
        wrong_types,
        &[("wrong_type", 3)],
        "dubbed",
    ),
    Offence(
        "payloads of wrong types",
        payloads,
        &[("wrong_type", 3), ("missing_field", 1)],
        "dubbed",
    ),
    Offence("fields missing", missing, &[("missing_field", 2)], "dubbed"),
    Offence("no status", no_status, &[("missing_field", 1)], "error"),
    Offence(
        "a status never heard of",
        odd_status,
        &[("bad_value", 1)],
        "error",
    ),
    Offence("null for all that is optional", nulls, &[], "dubbed"),
    Offence(
        "unknown events",
        unknown_events,
        &[("unknown_event", 3)],
        "dubbed",
    ),
    Offence(
        "another stream's event",
        foreign,
        &[("bad_value", 1)],
        "dubbed",
    ),
    Offence(
        "unknown ids",
        unknown_ids,
        &[("unknown_fragment", 3)],
        "dubbed",
    ),
    Offence("repeated answers", repeated, &[("duplicate", 2)], "dubbed"),
    Offence("an answer held back", hold, &[], "dubbed"),
    Offence(
        "… comes after the next",
        overtaken,
        &[("out_of_order", 1), ("duplicate", 1)],
        "dubbed",
    ),
    Offence("a late answer", late, &[("late", 1)], "timeout"),
    Offence("an error code never heard of", odd_code, &[], "error"),
    Offence(
        "a failure of wrong types",
        odd_failure,
        &[("wrong_type", 2)],
        "error",
    ),
    Offence(
        "errors about nothing",
        errors,
        &[("session_error", 3), ("missing_field", 1), ("bad_value", 1)],
        "dubbed",
    ),
    Offence(
        "odd backpressure",
        backpressure,
        &[("bad_value", 3), ("missing_field", 1)],
        "dubbed",
    ),
    Offence(
        "wrong number, unasked events",
        unasked,
        &[("bad_value", 1), ("unexpected", 1), ("duplicate", 1)],
        "dubbed",
    ),
    Offence("a binary event", binary, &[("missing_field", 1)], "dubbed"),
    Offence("bytes for base64", bytes, &[], "dubbed"),
    Offence("base64 of every kind", base64_of_every_kind, &[], "dubbed"),
    Offence("a dub that shouts", shouted, &[], "dubbed"),
    Offence("a dub that whispers", whispered, &[], "dubbed"),
    Offence("a label never heard of", odd_label, &[], "bad_audio"),
    Offence("not JSON", not_json, &[("bad_json", 1)], "dubbed"),
    Offence("NaN in JSON", nan, &[("bad_json", 1)], "dubbed"),
    Offence("half a character", half_pair, &[("bad_json", 1)], "dubbed"),
    Offence("10,000 events in a second", flood, &[], "dubbed"),
    Offence("14 MB of audio", too_large, &[("oversize", 1)], "bad_audio"),
    Offence("a message of 20 MB", huge, &[("oversize", 1)], "bad_audio"),
    Offence(
        "a message announced with 60 MB",
        beyond,
        &[("oversize", 1)],
        "disconnected",
    ),
    // From here on another connection.
    Offence(
        "an answer from before",
        from_before,
        &[("late", 1)],
        "dubbed",
    ),
    Offence("the session ended", end_session, &[], "disconnected"),
    // And another.
    Offence("none", good, &[], "dubbed"),
];

/// Protocol errors in what the server says to each `stream:init`, and the limit that then holds.
const WELCOMES: [(Kinds, u64); 3] = [
    (&[("bad_value", 1), ("duplicate", 1)], 3),
    (&[("bad_value", 1), ("duplicate", 1)], 1),
    (&[("wrong_type", 1)], 3),
];

/// `stream:ready` twice, with limits that are none, both ways round; then with no number at all.
fn welcome(wire: &mut Wire<'_>, connection: usize) -> Result<()> {
    let (none, huge, word) = (json!(0), json!(1_000_000_000), json!("three"));
    let limits: &[&Value] = match connection {
        0 => &[&huge, &none],
        1 => &[&none, &huge],
        _ => &[&word],
    };
    limits.iter().try_for_each(|limit| {
        wire.emit(
            event::STREAM_READY,
            &json!({ "stream_id": "test", "session_id": null, "max_inflight": limit,
                "capabilities": { "batch_processing": null } }),
        )
    })
}

pub(super) fn run(context: &Context) -> Result<()> {
    let spec = ClipSpec::clock(CLIP).small();
    let acts = OFFENCES.iter().map(|offence| offence.1).collect();
    let server = Server::start(welcome, acts, &[])?;
    let url = server.url.clone();
    let evidence = context
        .part(
            "hostile",
            clock::cached(&spec)?,
            Duration::from_secs(CLIP.into()),
        )
        .worker(move |options| {
            options.sts_url = url;
            options.segment_duration = Some(SEGMENT);
            options.set("WORKER_STS_TIMEOUT_MS", TIMEOUT.as_millis());
            options.set("WORKER_BREAKER_FAILURES", 1000);
        })
        .extra_time(Duration::from_secs(30))
        .run(watch_memory)?;
    complete(&evidence, &spec)?;
    let played = server.played();
    ensure!(
        played.fragments.len() > OFFENCES.len() && played.connections == WELCOMES.len(),
        "only {} fragments came over {} connections",
        played.fragments.len(),
        played.connections
    );
    protocol_errors(&evidence, &played)?;
    limits(&evidence)?;
    let fates = fates(&evidence, CLIP.into())?;
    outcomes(&evidence, &played, &fates)?;
    levels(&evidence)
}

/// Two dubs were far too loud and too quiet: brought within the limits, which is told and heard.
fn levels(evidence: &Evidence) -> Result<()> {
    let sound = evidence.sound()?;
    let told: Vec<_> = evidence.log.events("dub_levelled").collect();
    ensure!(told.len() == 2, "{} dubs were changed in level", told.len());
    for (record, (change, peak, allowed)) in told.into_iter().zip([
        ("lowered", SHOUTED_DBFS, 5.0..=6.0),
        ("raised", WHISPERED_DBFS, -20.0..=-19.0),
    ]) {
        let field = |name: &str| record.number(name).with_context(|| format!("no {name}"));
        let (difference, gain) = (field("difference_db")?, field("gain_db")?);
        ensure!(
            record.text("change") == Some(change) && allowed.contains(&(difference + gain)),
            "{change}: {difference:+.1} dB, changed by {gain:+.1} dB"
        );
        let counted = evidence.count("worker_dub_loudness_total", &[("change", change)])?;
        ensure!(counted == 1, "{counted} dubs were {change}");
        let start = number(record, "batch")? as f64 * SEGMENT.as_secs_f64();
        let stretch = [(start, start + SEGMENT.as_secs_f64())];
        let heard = segments(&sound, &stretch, mark::TONE_HZ)[0].marker_db;
        ensure!(
            (heard - (peak + gain)).abs() < 1.0,
            "{change}: a tone of {peak:.1} dB, changed by {gain:+.1} dB, is heard at {heard:.1} dB"
        );
    }
    Ok(())
}

/// Each kind is counted as often as it was planted, and logged once, as a warning.
fn protocol_errors(evidence: &Evidence, played: &Played) -> Result<()> {
    let mut planted: BTreeMap<&str, u64> = BTreeMap::new();
    let offences = OFFENCES.iter().map(|offence| offence.2);
    for (kind, count) in offences.chain(WELCOMES.map(|welcome| welcome.0)).flatten() {
        *planted.entry(kind).or_default() += count;
    }
    let counted = |kind| evidence.count("worker_protocol_errors_total", &[("kind", kind)]);
    // Half of the flood is of an unknown event, half known. Nothing of it goes uncounted.
    let named = counted("unknown_event")? - planted["unknown_event"];
    let pace = |action| evidence.count("worker_backpressure_events_total", &[("action", action)]);
    let (taken, dropped) = (pace("none")? - 1, counted("flood")?);
    println!(
        "hostile_sts-hostile: {FLOOD} events sent in {:?}: {named} named, {taken} taken, {dropped} dropped",
        played.floods
    );
    ensure!(
        named + taken + dropped == FLOOD,
        "of {FLOOD} events {named} were named, {taken} taken and {dropped} dropped"
    );
    ensure!(
        played.floods.len() == 1 && played.floods[0] < FLOOD_TIME,
        "the flood took {:?}",
        played.floods
    );
    ensure!(
        pace("slow_down")? == 2 && pace("pause")? == 0,
        "another pace was counted"
    );
    planted.insert("unknown_event", planted["unknown_event"] + named);
    if dropped > 0 {
        planted.insert("flood", dropped);
    }
    let mut differ = Vec::new();
    for kind in [
        "bad_json",
        "bad_value",
        "duplicate",
        "flood",
        "late",
        "missing_field",
        "out_of_order",
        "oversize",
        "session_error",
        "stale_link",
        "unexpected",
        "unknown_event",
        "unknown_fragment",
        "wrong_type",
    ] {
        let (planted, counted) = (planted.remove(kind).unwrap_or(0), counted(kind)?);
        let of_kind = evidence
            .log
            .events("protocol_error")
            .filter(|record| record.text("kind") == Some(kind));
        let logged: Vec<_> = of_kind.map(|record| record.level).collect();
        let wanted: &[Level] = if planted > 0 { &[Level::Warn] } else { &[] };
        if planted != counted || logged != wanted {
            differ.push(format!(
                "{kind}: planted {planted}, counted {counted}, logged {logged:?}"
            ));
        }
    }
    ensure!(
        differ.is_empty(),
        "protocol errors:\n  {}",
        differ.join("\n  ")
    );
    ensure!(planted.is_empty(), "kinds nobody has heard of: {planted:?}");
    Ok(())
}

/// Whatever limit the service names, one that makes sense holds.
fn limits(evidence: &Evidence) -> Result<()> {
    let held = evidence
        .log
        .events("sts_ready")
        .map(|record| number(record, "max_inflight"))
        .collect::<Result<Vec<_>>>()?;
    ensure!(
        held == WELCOMES.map(|welcome| welcome.1),
        "the limits were {held:?}"
    );
    let out = evidence
        .log
        .events("fragment_sent")
        .map(|record| number(record, "in_flight"))
        .collect::<Result<Vec<_>>>()?;
    ensure!(
        out.iter().all(|out| *out <= 3),
        "{out:?} fragments were in flight"
    );
    Ok(())
}

/// Each segment came to what its offence says; those never sent were cut while there was no
/// session. The server heard of every dubbed one, once, and of no other.
fn outcomes(evidence: &Evidence, played: &Played, fates: &[Fate]) -> Result<()> {
    let mut left: BTreeMap<u64, &Fate> = (0..).zip(fates).collect();
    let mut failed = 0;
    for (turn, id) in played.fragments.iter().enumerate() {
        let mut sent = evidence.log.events("fragment_sent");
        let sent = sent.find(|record| record.text("fragment_id") == Some(id));
        let batch = number(
            sent.with_context(|| format!("{id} was never sent"))?,
            "batch",
        )?;
        let fate = left
            .remove(&batch)
            .with_context(|| format!("segment {batch} was sent twice"))?;
        let (name, expected) = OFFENCES
            .get(turn)
            .map_or(("none", "dubbed"), |offence| (offence.0, offence.3));
        let came_to = match fate {
            Fate::Dubbed => "dubbed",
            Fate::Fallback(reason) => reason,
            Fate::Tail => "never sent",
        };
        ensure!(
            came_to == expected,
            "segment {batch}, {name}: {came_to}, not {expected}"
        );
        failed += u64::from(["error", "timeout"].contains(&expected));
        let applied = played.applied.get(id).copied().unwrap_or(0);
        ensure!(
            applied == u32::from(*fate == Fate::Dubbed),
            "segment {batch}, {name}: told {applied} times as applied, and {fate:?}"
        );
        let refused = evidence
            .log
            .events("bad_audio")
            .filter(|record| record.text("fragment_id") == Some(id));
        let warned = refused.filter(|record| record.level == Level::Warn).count();
        ensure!(
            warned == usize::from(expected == "bad_audio"),
            "segment {batch}, {name}: refused {warned} times"
        );
    }
    let away = Fate::Fallback("disconnected".to_owned());
    ensure!(
        left.values()
            .all(|fate| [&away, &Fate::Tail].contains(fate)),
        "never sent, and {left:?}"
    );
    let counted = evidence.count("worker_audio_fragments_total", &[("status", "failed")])?;
    ensure!(
        counted == failed,
        "{counted} fragments were counted as failed, not {failed}"
    );
    let lost = count(evidence, "sts_disconnected");
    ensure!(lost == WELCOMES.len() - 1, "{lost} connections were lost");
    Ok(())
}
