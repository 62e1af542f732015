//! The report of a run: for each part of a scenario one self-contained page, readable offline, and for
//! all of them `index.html`, `report.json` and `junit.xml`.
//!
//! ```text
//! part.json (verdict, facts), log, journal, metrics, recording ─▶ model ─▶ JSON ─▶ report.html draws it
//! ```
//!
//! A page is made of nothing but the files of its directory, after the checks: it knows the verdict,
//! and can be made again at any time (`cargo xtask report`).

mod counts;
mod index;
mod lanes;
mod media;
mod model;
mod rows;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::failure::Failure;
use crate::probe::{
    journal::Journal,
    logs::{Log, Record},
    metrics::Scrape,
};
use crate::programs;
pub use counts::Numbers;
pub use index::{Run, rebuild, update};

/// Name of the page in the artifacts.
pub const FILE: &str = "report.html";
/// Name of the file with what only the harness knows of a run.
const PART_FILE: &str = "part.json";
/// Lines of the log on the page; the file has all.
const MOST_LINES: usize = 6_000;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// How a part ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything held.
    Passed,
    /// Something did not.
    Failed,
    /// It could not run here.
    Skipped,
    /// Nobody has judged it.
    #[default]
    Unknown,
}

/// What only the harness knows of one part of a scenario.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Part {
    /// Name of the scenario, and what it proves.
    pub scenario: String,
    /// One line about it.
    pub about: String,
    /// Name of the part, in a scenario that has several.
    pub part: Option<String>,
    /// How it ended.
    pub verdict: Verdict,
    /// Why it was skipped.
    pub skipped: Option<String>,
    /// What did not hold.
    pub failures: Vec<Failure>,
    /// Which media server ran.
    pub media_server: String,
    /// When it began, Unix ms, and how long it took.
    pub began_ms: f64,
    /// Seconds.
    pub took_s: f64,
    /// Wall time of the first media packet, Unix ms; 0 if none was sent.
    pub first_packet_ms: f64,
    /// More facts: a name and a value each.
    pub facts: Vec<(String, String)>,
    /// Output latency over time: Unix ms and seconds.
    pub latency: Vec<(f64, f64)>,
    /// Versions of what ran.
    pub tools: Vec<(String, String)>,
}

/// Keeps what is known of a part in its directory and makes its page.
pub fn write(directory: &Path, part: &Part) -> Result<Numbers> {
    let text = serde_json::to_string_pretty(part).context("a part as JSON")?;
    save(&directory.join(PART_FILE), &text)?;
    build(directory).map(|(_, numbers)| numbers)
}

/// Makes the page of a directory from what is in it.
///
/// # Errors
/// When there is no part in it, or the page cannot be written.
pub fn build(directory: &Path) -> Result<(Part, Numbers)> {
    let path = directory.join(PART_FILE);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("{} is no part of a run", directory.display()))?;
    let part: Part = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    let log = Log::read(&directory.join("worker.log")).unwrap_or_default();
    let metrics = std::fs::read_to_string(directory.join("metrics.txt")).unwrap_or_default();
    let scrape = Scrape::parse(&metrics).unwrap_or_default();
    let journal = journal(directory);
    let timeline = model::Timeline::of(&model::Run {
        first_packet_ms: part.first_packet_ms,
        log: &log,
        journal: &journal,
        latency: &part.latency,
    });
    let numbers = Numbers::of(&timeline, &log);
    let recording = media::recording(directory);
    // A page without pictures is still a page; what is wrong with the recording the checks tell.
    let video = recording
        .as_deref()
        .and_then(|path| media::playable(path).ok());
    let film = recording
        .as_deref()
        .and_then(|path| media::strip(path, &timeline.rows).ok()?);
    let mut head = serde_json::to_value(&part).context("a part as JSON")?;
    for (index, failure) in part.failures.iter().enumerate() {
        let at = failure.place.and_then(|place| timeline.seconds(place));
        head["failures"][index]["at"] = json!(at);
    }
    let shared = shared_fields(&log);
    let (lines, skipped) = lines(&log, &timeline.axis, &shared);
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    let data = json!({
        "name": name, "part": head, "numbers": numbers, "film": film, "video": video, "captions": media::captions(directory),
        "files": files(directory), "counts": counts::counts(&scrape, &log, &journal),
        "log": lines, "skipped": skipped, "shared": shared,
        "strays": log.strays.iter().take(MOST_LINES).collect::<Vec<_>>(),
        "metrics": scrape.series().map(|(name, value)| (name, value.to_string())).collect::<Vec<_>>(),
        "timeline": timeline,
    });
    save(
        &directory.join(FILE),
        &page(&format!("{name} – run report"), &data),
    )?;
    Ok((part, numbers))
}

/// A page that carries its data, its look and its script, and names the last two by hash so that no
/// text on it can become another.
fn page(title: &str, data: &Value) -> String {
    let hash = |content: &str| format!("sha256-{}", STANDARD.encode(Sha256::digest(content)));
    let escaped = title.replace('&', "&amp;").replace('<', "&lt;");
    // In a script element only a `<` can begin something else.
    let data = data.to_string().replace('<', "\\u003c");
    let mut page = PAGE.to_owned();
    // From the back to the front: a placeholder in what comes from outside stays text.
    for (name, value) in [
        ("{STYLE_HASH}", hash(STYLE).as_str()),
        ("{SCRIPT_HASH}", &hash(SCRIPT)),
        ("{STYLE}", STYLE),
        ("{SCRIPT}", SCRIPT),
        ("{DATA}", &data),
        ("{TITLE}", &escaped),
    ] {
        page = page.replacen(name, value, 1);
    }
    page
}

fn save(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The journal, with those of a service that was restarted in front of it.
fn journal(directory: &Path) -> Journal {
    let names = (1..).map(|n| format!("journal-{n}.jsonl"));
    let earlier = names
        .map(|name| directory.join(name))
        .take_while(|path| path.is_file());
    let all = earlier.chain([directory.join("journal.jsonl")]);
    let read = all.filter_map(|path| Journal::read(&path).ok());
    read.fold(Journal::default(), Journal::followed_by)
}

/// Files beside the page with their sizes.
fn files(directory: &Path) -> Vec<(String, u64)> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let meta = entry.metadata().ok()?;
            (meta.is_file() && name != FILE && !name.starts_with('.')).then_some((name, meta.len()))
        })
        .collect();
    // The log, the wire and the recording are looked at most.
    let first = [
        "worker.log",
        "journal.jsonl",
        "output.",
        "metrics.txt",
        "repro.txt",
    ];
    let rank = |name: &str| {
        first
            .iter()
            .position(|it| name.starts_with(it))
            .unwrap_or(first.len())
    };
    files.sort_by(|a, b| (rank(&a.0), &a.0).cmp(&(rank(&b.0), &b.0)));
    files
}

/// A line of the log: second, level, event, message, further fields.
type Line<'a> = (Option<f64>, u8, &'a str, &'a str, Map<String, Value>);

/// The lines of the log, and how many are left out in the middle.
fn lines<'a>(
    log: &'a Log,
    axis: &model::Axis,
    shared: &Map<String, Value>,
) -> (Vec<Line<'a>>, usize) {
    let line = |record: &'a Record| {
        let mut fields = record.fields.clone();
        fields.retain(|name, _| name != "event" && !shared.contains_key(name));
        (
            axis.record(record),
            record.level as u8,
            record.event().unwrap_or_default(),
            record.message.as_str(),
            fields,
        )
    };
    let skipped = log.records.len().saturating_sub(MOST_LINES);
    let head = if skipped == 0 {
        log.records.len()
    } else {
        MOST_LINES / 2
    };
    let kept = log.records[..head]
        .iter()
        .chain(&log.records[head + skipped..]);
    (kept.map(line).collect(), skipped)
}

/// Identity that is the same on every line.
fn shared_fields(log: &Log) -> Map<String, Value> {
    let Some(first) = log.records.first() else {
        return Map::new();
    };
    let everywhere = |name: &str, value: &Value| {
        log.records
            .iter()
            .all(|it| it.fields.get(name) == Some(value))
    };
    let mut shared = first.fields.clone();
    shared.retain(|name, value| {
        ["stream_id", "run_id"].contains(&name.as_str()) && everywhere(name, value)
    });
    shared
}

/// Versions of what runs, and the commit it was built from.
pub fn tools() -> &'static [(String, String)] {
    static TOOLS: OnceLock<Vec<(String, String)>> = OnceLock::new();
    TOOLS.get_or_init(|| {
        let said = |program: &Path, arguments: &[&str]| {
            let output = std::process::Command::new(program)
                .args(arguments)
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .output()
                .ok()?;
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text);
            let line = text.lines().next().filter(|_| output.status.success())?;
            Some(line.trim().to_owned())
        };
        let short = |line: String| {
            line.split(" Copyright")
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        let own = |name| said(&programs::own(name).ok()?, &["--version"]);
        let tool = |name, argument| said(&programs::find(name)?, &[argument]);
        let git = |arguments: &[&str]| said(&programs::find("git")?, arguments);
        let changed = git(&["status", "--porcelain", "--untracked-files=no"]);
        let commit = git(&["rev-parse", "--short=12", "HEAD"]).map(|commit| {
            commit
                + if changed.is_some() {
                    " with changes"
                } else {
                    ""
                }
        });
        let mediamtx = std::env::var_os("MEDIAMTX_BIN")
            .map(Into::into)
            .or(programs::find("mediamtx"));
        let all = [
            ("commit", commit),
            ("worker", own("worker")),
            ("ffmpeg", e2e_ffmpeg::version().ok().map(short)),
            ("GStreamer", tool("gst-inspect-1.0", "--version")),
            ("nginx", tool("nginx", "-v")),
            (
                "MediaMTX",
                mediamtx.and_then(|path: std::path::PathBuf| said(&path, &["--version"])),
            ),
        ];
        all.into_iter()
            .filter_map(|(name, version)| Some((name.to_owned(), version?)))
            .collect()
    })
}
