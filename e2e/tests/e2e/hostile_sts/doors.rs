//! Services that let nobody in, or not for long: what the worker says of each, when it tries again, what
//! is heard meanwhile, and how it ends.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::clock::{ClipSpec, cached};
use e2e::pipeline::Evidence;
use e2e::probe::audio::Verdict;
use e2e::probe::logs::Record;
use e2e::runner::Context;
use serde_json::json;
use sts_protocol::event;

use super::acts;
use super::server::{Act, Door, Server, Wire};
use super::{SEGMENT, count};
use crate::stage::Stage as _;

/// Longer than 2 + 4 + 8 + 16 + 32 s.
const CLIP: u32 = 76;
const DELAYS_MS: [f64; 5] = [2_000.0, 4_000.0, 8_000.0, 16_000.0, 32_000.0];

const MIDDLEWARE: &str = r#"{"message":"not today","data":{"code":"E_QUOTA"}}"#;
const RETURN_FALSE: &str = r#"{"message":"Connection rejected by server"}"#;
const ELSEWHERE: &str =
    "301 Moved Permanently\r\nLocation: https://sts.example/socket.io/?key=hush";

fn welcome(wire: &mut Wire<'_>, _: usize) -> Result<()> {
    let ready = json!({ "stream_id": "test", "session_id": "s", "max_inflight": 3 });
    wire.emit(event::STREAM_READY, &ready)
}

/// A run against these doors, which ends with this exit code.
fn meet(
    context: &Context,
    part: &'static str,
    seconds: u32,
    exit: i32,
    acts: Vec<Act>,
    doors: &[Door],
) -> Result<Evidence> {
    let spec = ClipSpec::clock(seconds).small();
    let server = Server::start(welcome, acts, doors)?;
    let url = server.url.clone();
    let length = Duration::from_secs(seconds.into());
    let pipeline = context.part(part, cached(&spec)?, length);
    pipeline
        .worker(move |options| {
            options.sts_url = url;
            options.segment_duration = Some(SEGMENT);
        })
        .exit(exit)
        .run(|_| Ok(()))
}

/// 401 at the first session is final: exit code 14.
pub(super) fn unauthorized(context: &Context) -> Result<()> {
    let doors = [Door::Http("401 Unauthorized")];
    let evidence = meet(context, "unauthorized", 6, 14, vec![], &doors)?;
    let refused = evidence.log.first("sts_refused")?;
    let error = refused.text("error").unwrap_or_default();
    ensure!(error.contains("HTTP 401"), "it says {error:?}");
    ensure!(
        count(&evidence, "reconnect_scheduled") == 0,
        "it was tried again"
    );
    Ok(())
}

/// Everything else that says no, at the first session.
pub(super) fn refused(context: &Context) -> Result<()> {
    let doors = [
        Door::Http("403 Forbidden"),
        Door::Http("404 Not Found"),
        Door::Http("502 Bad Gateway"),
        Door::Http(ELSEWHERE),
        Door::Refused(RETURN_FALSE),
        Door::Refused(MIDDLEWARE),
    ];
    let evidence = meet(context, "refused", CLIP, 13, vec![], &doors)?;
    gone(&evidence, 0)?;
    failures(
        &evidence,
        "sts_connect_failed",
        &[
            "HTTP 403 Forbidden: not allowed, or wrong path? (path /socket.io/)",
            "HTTP 404 Not Found: wrong path? (path /socket.io/)",
            "HTTP 502 Bad Gateway (path /socket.io/)",
            "redirected to https://sts.example/socket.io/, which is not followed",
            "Connection rejected by server",
            "not today",
        ],
    )?;
    attempts(&evidence, 0, 5)
}

/// And in the middle of a stream, where 401 and the protocol's own words are not final either.
pub(super) fn refused_later(context: &Context) -> Result<()> {
    let doors = [
        Door::Open,
        Door::Refused(r#"{"message":"AUTH_FAILED: token expired"}"#),
        Door::Http("401 Unauthorized"),
        Door::Http("404 Not Found"),
        Door::Refused(MIDDLEWARE),
        Door::Http(ELSEWHERE),
    ];
    let acts: Vec<Act> = vec![acts::good, acts::end_session];
    let evidence = meet(context, "refused_later", CLIP, 13, acts, &doors)?;
    gone(&evidence, 1)?;
    failures(
        &evidence,
        "sts_connect_failed",
        &[
            "token expired",
            "HTTP 401 Unauthorized",
            "HTTP 404 Not Found",
            "not today",
            "redirected to https://sts.example/socket.io/",
        ],
    )?;
    attempts(&evidence, 0, 5)
}

/// Ready, gone, ready, gone: a handshake proves nothing.
pub(super) fn dropped(context: &Context) -> Result<()> {
    let evidence = meet(context, "dropped", CLIP, 13, vec![], &[Door::Drops; 6])?;
    gone(&evidence, 0)?;
    // Closed, or broken where a fragment was on its way.
    failures(&evidence, "sts_disconnected", &["the "; 6])?;
    attempts(&evidence, 5, 0)
}

/// The whole schedule was gone through; of the segments that came in only the first so many were
/// heard dubbed, and every other one in the original.
fn gone(evidence: &Evidence, dubbed: usize) -> Result<()> {
    let delays = evidence.log.events("reconnect_scheduled");
    let delays: Vec<_> = delays
        .filter_map(|record| record.number("delay_ms"))
        .collect();
    ensure!(delays == DELAYS_MS, "it waited for {delays:?}");
    ensure!(count(evidence, "sts_gone") == 1, "it was not given up once");
    // A tail of some pictures is nobody's to dub.
    let worth_sending = |record: &&Record| record.text("kind") != Some("tail");
    let segments = evidence.log.events("segment_ready").filter(worth_sending);
    let segments = segments.count();
    let heard = evidence.heard(segments, SEGMENT)?;
    let (first, rest) = heard.split_at(dubbed);
    ensure!(
        first.iter().all(|verdict| *verdict == Verdict::Dubbed)
            && rest.iter().all(|verdict| *verdict == Verdict::Original),
        "one hears {heard:?}"
    );
    let fell_back = evidence.count("worker_fallback_total", &[("reason", "disconnected")])?;
    ensure!(
        fell_back as usize == segments - dubbed,
        "{fell_back} of {segments} segments fell back"
    );
    let on_air = evidence.count("worker_segments_on_air_total", &[("audio", "dubbed")])?;
    ensure!(
        on_air as usize == dubbed,
        "{on_air} segments went out dubbed"
    );
    Ok(())
}

/// Each of these was told, in this order, and nothing that the URL keeps secret.
fn failures(evidence: &Evidence, event: &str, said: &[&str]) -> Result<()> {
    let reason = |record: &Record| record.text("reason").unwrap_or_default().to_owned();
    let told: Vec<_> = evidence.log.events(event).map(reason).collect();
    ensure!(
        told.len() == said.len()
            && told
                .iter()
                .zip(said)
                .all(|(told, said)| told.contains(said)),
        "{event} told {told:#?}"
    );
    ensure!(!told.iter().any(|told| told.contains("hush")), "{told:?}");
    Ok(())
}

fn attempts(evidence: &Evidence, success: u64, failure: u64) -> Result<()> {
    for (outcome, wanted) in [("success", success), ("failure", failure)] {
        let name = "worker_reconnection_attempts_total";
        let counted = evidence.count(name, &[("outcome", outcome)])?;
        ensure!(counted == wanted, "{counted} attempts, outcome {outcome}");
    }
    Ok(())
}
