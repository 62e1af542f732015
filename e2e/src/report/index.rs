//! All runs: `index.html` for people, `report.json` and `junit.xml` for machines.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{FILE, Numbers, PART_FILE, Part, Verdict, build, page, save};

/// One part, as the lists have it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Run {
    /// Name of its directory.
    pub name: String,
    /// Its page, relative to the list.
    pub page: String,
    /// What the harness knows of it.
    #[serde(flatten)]
    pub part: Part,
    pub numbers: Numbers,
}

impl Run {
    /// The part whose artifacts are in `directory`.
    pub fn new(directory: &Path, mut part: Part, numbers: Numbers) -> Self {
        let name = directory
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        part.latency.clear();
        Self {
            page: format!("{name}/{FILE}"),
            name,
            part,
            numbers,
        }
    }
}

/// Makes every page of a directory of artifacts again, and its lists; or the one page of a part.
///
/// # Errors
/// When there is nothing to report in it, or something cannot be written.
pub fn rebuild(directory: &Path) -> Result<std::path::PathBuf> {
    if directory.join(PART_FILE).is_file() {
        build(directory)?;
        return Ok(directory.join(FILE));
    }
    let entries = std::fs::read_dir(directory)
        .with_context(|| format!("there is no report in {}", directory.display()))?;
    let mut runs = Vec::new();
    for entry in entries
        .flatten()
        .filter(|entry| entry.path().join(PART_FILE).is_file())
    {
        let (part, numbers) = build(&entry.path())?;
        runs.push(Run::new(&entry.path(), part, numbers));
    }
    ensure!(
        !runs.is_empty(),
        "no run has left a report in {}",
        directory.display()
    );
    lists(directory, runs)?;
    Ok(directory.join("index.html"))
}

/// Puts what has just run into the lists of a directory; what ran before and is still there stays in
/// `index.html` and `report.json`, while `junit.xml` is about this time only.
pub fn update(directory: &Path, runs: Vec<Run>) -> Result<()> {
    save(&directory.join("junit.xml"), &junit(&runs))?;
    let before = std::fs::read_to_string(directory.join("report.json")).unwrap_or_default();
    let mut all: Vec<Run> = serde_json::from_str(&before).unwrap_or_default();
    all.retain(|old| {
        let gone = !directory.join(&old.page).is_file() && old.part.verdict != Verdict::Skipped;
        !gone && runs.iter().all(|new| new.name != old.name)
    });
    all.extend(runs);
    lists(directory, all)
}

fn lists(directory: &Path, mut runs: Vec<Run>) -> Result<()> {
    runs.sort_by(|a, b| a.name.cmp(&b.name));
    let text = serde_json::to_string_pretty(&runs).context("runs as JSON")?;
    save(&directory.join("report.json"), &text)?;
    save(
        &directory.join("index.html"),
        &page("All scenarios", &json!({ "runs": runs })),
    )
}

/// What CI systems read.
fn junit(runs: &[Run]) -> String {
    let count = |verdict| {
        runs.iter()
            .filter(|run| run.part.verdict == verdict)
            .count()
    };
    let took: f64 = runs.iter().map(|run| run.part.took_s).sum();
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites><testsuite name=\"e2e\" tests=\"{}\" failures=\"{}\" \
         skipped=\"{}\" time=\"{took:.3}\">\n",
        runs.len(),
        count(Verdict::Failed),
        count(Verdict::Skipped)
    );
    for run in runs {
        let (scenario, name) = (xml(&run.part.scenario), xml(&run.name));
        let _ = write!(
            out,
            "<testcase classname=\"{scenario}\" name=\"{name}\" time=\"{:.3}\">",
            run.part.took_s
        );
        if let Some(reason) = &run.part.skipped {
            let _ = write!(out, "<skipped message=\"{}\"/>", xml(reason));
        }
        for failure in &run.part.failures {
            let _ = write!(
                out,
                "<failure message=\"{}\">{}</failure>",
                xml(&failure.what),
                xml(&failure.to_string())
            );
        }
        out.push_str("</testcase>\n");
    }
    out + "</testsuite></testsuites>\n"
}

/// Text of an XML element or attribute; characters that XML does not know are shown as such.
fn xml(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                let _ = write!(out, "\\u{{{:x}}}", c as u32);
            }
            c => out.push(c),
        }
    }
    out
}
