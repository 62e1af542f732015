//! The HTML report of a run: one self-contained page, readable offline.
//!
//! ```text
//! log, journal, metrics ─▶ model (what happened when) ─▶ chart (SVG)   ─┐
//!                     └──▶ facts (the run in numbers) ─▶ page, tables  ─┴▶ report.html
//! ```
//!
//! The model is pure and knows nothing of HTML; what draws knows nothing of logs.

mod chart;
mod facts;
mod files;
mod model;
mod page;
mod svg;
mod tables;
#[cfg(test)]
mod tests;
mod text;

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};

use crate::{services::media_server::Kind, story::Evidence};
use facts::Facts;
use model::{Run, Timeline};
use page::Page;

/// Name of the page in the artifacts.
pub const FILE: &str = "report.html";

/// Writes `report.html` beside the run's artifacts and returns its path.
///
/// # Errors
/// When it cannot be written.
pub fn write(evidence: &Evidence, title: &str) -> Result<PathBuf> {
    let path = evidence.directory.join(FILE);
    std::fs::write(&path, html(evidence, title))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn html(evidence: &Evidence, title: &str) -> String {
    let latency = latency(evidence);
    let timeline = Timeline::of(&Run {
        first_packet_ms: evidence.first_packet_ms,
        log: &evidence.log,
        journal: &evidence.journal,
        latency: &latency,
    });
    let facts = Facts::of(&timeline, &evidence.log);
    let counts = facts::counts(&evidence.metrics, &evidence.log, &evidence.journal);
    let page = Page {
        title,
        about: about(evidence, &timeline),
        files: files::list(&evidence.directory, FILE),
        timeline: &timeline,
        facts: &facts,
        counts: &counts,
        log: &evidence.log,
        metrics: evidence.metrics.series().collect(),
    };
    page.render()
}

/// Output latency over time, by the wall clock: Unix ms and seconds.
fn latency(evidence: &Evidence) -> Vec<(f64, f64)> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
        * 1e3;
    let samples = evidence.samples.iter().filter_map(|sample| {
        let value = sample
            .scrape
            .value("worker_output_latency_seconds", &[])
            .ok()?;
        Some((now - sample.asked.elapsed().as_secs_f64() * 1e3, value))
    });
    samples.collect()
}

fn about(evidence: &Evidence, timeline: &Timeline) -> Vec<(&'static str, String)> {
    let mut about = Vec::new();
    let begun = timeline.axis.zero_ms();
    if begun > 0.0 {
        let wall = UNIX_EPOCH + Duration::from_secs_f64(begun / 1e3);
        let wall = humantime::format_rfc3339_seconds(wall).to_string();
        about.push(("run at", wall.replace('T', " ").replace('Z', " UTC")));
    }
    about.push(("took", text::span(evidence.took.as_secs_f64() * 1e3)));
    let server = match evidence.kind {
        Kind::MediaMtx => "MediaMTX",
        Kind::Default => "default: nginx with its RTMP module",
    };
    about.push(("media server", server.to_owned()));
    let clip = evidence
        .clip
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    about.push(("clip", clip));
    about.push((
        "published",
        match &evidence.sent {
            Some(sent) => format!(
                "{} pictures, {} audio frames",
                sent.pictures(),
                sent.audio_frames()
            ),
            None => "not to the end".to_owned(),
        },
    ));
    about.push((
        "worker reading after",
        text::span(evidence.reading_after.as_secs_f64() * 1e3),
    ));
    if let Some(late) = &evidence.late {
        about.push((
            "late player",
            format!(
                "first picture after {} ({}), {} errors",
                text::span(late.first_picture_after.as_secs_f64() * 1e3),
                if late.first_picture_is_key {
                    "a keyframe"
                } else {
                    "not a keyframe"
                },
                late.errors.len()
            ),
        ));
    }
    let first = evidence.log.records.first();
    if let Some(run_id) = first.and_then(|record| record.text("run_id")) {
        about.push(("run id", run_id.to_owned()));
    }
    about
}
