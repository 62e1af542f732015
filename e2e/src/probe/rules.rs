//! The alert rules of `deploy/prometheus`, tried by Prometheus' own tester on what a worker said while it ran.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::metrics::ScrapeSample;
use crate::failure::Skipped;
use crate::programs;

/// Questions without labels in their answers, and the answers at the end of a run.
pub type Answers<'a> = &'a [(&'a str, f64)];

/// Fails unless the rules give these answers on `samples`, told as if they had been scraped every second.
/// What is needed beside is written into `directory`.
///
/// # Errors
/// With what the tester says, or [`Skipped`] where it is not installed.
pub fn require(samples: &[ScrapeSample], directory: &Path, answers: Answers<'_>) -> Result<()> {
    let Some(tester) = programs::find("promtool") else {
        // `cargo xtask test` sees to it that it is; stacks without network have none.
        let why = "promtool is not installed (Debian: prometheus), rules are not tried on this run";
        return Err(Skipped::here(why).into());
    };
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus/rules.yml");
    let file = directory.join("rules_test.yml");
    std::fs::write(&file, test(&rules.canonicalize()?, samples, answers)?)?;
    let output = std::process::Command::new(tester)
        .args(["test", "rules"])
        .arg(&file)
        .output()
        .context("cannot run promtool")?;
    ensure!(
        output.status.success(),
        "the rules say something else of this run ({}): {}{}",
        file.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// A test as the tester reads it.
fn test(rules: &Path, samples: &[ScrapeSample], answers: Answers<'_>) -> Result<String> {
    let end = samples.last().context("there are no metrics")?.at.as_secs();
    let mut series: BTreeMap<String, String> = BTreeMap::new();
    series.insert(
        r#"up{job="dub-worker",instance="test"}"#.to_owned(),
        format!("1x{end}"),
    );
    for second in 0..=end {
        // The newest that a scrape in this second could have seen.
        let known = samples.iter().rev().find(|it| it.at.as_secs() <= second);
        let Some(sample) = known else { continue };
        for (name, value) in sample.scrape.all() {
            let values = series.entry(name).or_insert_with(|| {
                // Not there before.
                "_ ".repeat(usize::try_from(second).unwrap_or_default())
            });
            write!(values, "{value} ")?;
        }
    }
    let mut text = format!(
        "rule_files: [{:?}]\nevaluation_interval: 1s\ntests:\n  - interval: 1s\n    input_series:\n",
        rules.display().to_string()
    );
    for (name, values) in &series {
        writeln!(
            text,
            "      - {{ series: '{name}', values: \"{}\" }}",
            values.trim_end()
        )?;
    }
    text += "    promql_expr_test:\n";
    for (question, answer) in answers {
        writeln!(
            text,
            "      - {{ expr: '{question}', eval_time: {end}s, exp_samples: [{{ labels: '{{}}', value: {answer} }}] }}"
        )?;
    }
    Ok(text)
}
