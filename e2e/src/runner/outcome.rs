//! What is left to do when a scenario has ended: look for secrets in what it left, tell which part
//! failed and why, and write a page for every part.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::{Scenario, table, verdict::Outcome};
use crate::artifacts::Artifacts;
use crate::environment::{Trace, repro, unix_ms};
use crate::failure::Failure;
use crate::report::{self, Numbers, Part, Run, Verdict};
use crate::{secrets, threads};

/// A scenario that has ended.
#[derive(Debug, Default)]
pub(super) struct Ended {
    pub(super) name: &'static str,
    pub(super) verdict: Verdict,
    pub(super) skipped: Option<String>,
    /// From its first stream to its end; it may have waited for its turn before.
    pub(super) took: Duration,
    /// What a failure shows on the terminal.
    pub(super) message: String,
    /// One for each part.
    pub(super) runs: Vec<Run>,
}

impl Ended {
    pub(super) fn of(
        scenario: Scenario,
        outcome: Outcome,
        again: &str,
        (mut traces, mut failures): (Vec<Trace>, Vec<Failure>),
    ) -> Self {
        let mut skipped = None;
        match outcome {
            Outcome::Passed => {}
            Outcome::Skipped(reason) => skipped = Some(reason),
            Outcome::Failed(why) => failures.extend(why),
        }
        for trace in &traces {
            let shown = secrets::shown(&trace.artifacts).into_iter();
            failures.extend(shown.map(|failure| Failure {
                part: trace.part.part.clone(),
                ..failure
            }));
        }
        for failure in &mut failures {
            failure.hide(secrets::hidden);
        }
        let verdict = match (&skipped, failures.is_empty()) {
            (_, false) => Verdict::Failed,
            (Some(_), true) => Verdict::Skipped,
            (None, true) => Verdict::Passed,
        };
        add_missing(scenario, again, &failures, &mut traces);
        let mut runs = Vec::new();
        for trace in &mut traces {
            // The page says which part it is about by its name.
            let concerns = |it: &&Failure| it.part.is_none() || it.part == trace.part.part;
            let own: Vec<Failure> = failures.iter().filter(concerns).cloned().collect();
            trace.part.verdict = match verdict {
                Verdict::Failed if own.is_empty() => Verdict::Passed,
                verdict => verdict,
            };
            trace.part.failures = own
                .into_iter()
                .map(|it| Failure { part: None, ..it })
                .collect();
            trace.part.skipped.clone_from(&skipped);
            scenario.name.clone_into(&mut trace.part.scenario);
            scenario.about.clone_into(&mut trace.part.about);
            let (directory, part) = (trace.artifacts.clone(), trace.part.clone());
            let numbers = threads::quietly(move || report::write(&directory, &part));
            let numbers = numbers.unwrap_or_else(|error| {
                eprintln!("e2e: no report of {}: {error:#}", trace.artifacts.display());
                Numbers::default()
            });
            runs.push(Run::new(&trace.artifacts, trace.part.clone(), numbers));
        }
        let began = runs.iter().map(|run| run.part.began_ms);
        let first = began.filter(|&ms| ms > 0.0).min_by(f64::total_cmp);
        let now = unix_ms(Instant::now());
        Self {
            name: scenario.name,
            verdict,
            skipped,
            took: Duration::from_secs_f64((now - first.unwrap_or(now)).max(0.0) / 1e3),
            message: message(scenario, &failures, &traces),
            runs,
        }
    }
}

/// What ended before it had an environment has a page, too.
fn add_missing(scenario: Scenario, again: &str, failures: &[Failure], traces: &mut Vec<Trace>) {
    let parts: BTreeSet<_> = failures
        .iter()
        .map(|failure| failure.part.clone())
        .collect();
    let known = |part: &Option<String>| traces.iter().any(|trace| trace.part.part == *part);
    let mut missing: Vec<_> = parts
        .into_iter()
        .filter(|part| part.is_some() && !known(part))
        .collect();
    if traces.is_empty() && missing.is_empty() {
        missing.push(None);
    }
    for part in missing {
        let name = match &part {
            Some(part) if part != super::MAIN => format!("{}-{part}", scenario.name),
            _ => scenario.name.to_owned(),
        };
        let artifacts = Artifacts::claim(&name).and_then(|artifacts| {
            artifacts.write("repro.txt", repro(again, part.as_deref(), &[]))?;
            Ok(artifacts)
        });
        match artifacts {
            Ok(artifacts) => traces.push(Trace {
                artifacts: artifacts.dir().to_owned(),
                last_lines: None,
                part: Part {
                    part,
                    tools: report::tools().to_vec(),
                    ..Part::default()
                },
            }),
            Err(error) => eprintln!("e2e: no report of {name}: {error:#}"),
        }
    }
}

fn message(scenario: Scenario, failures: &[Failure], traces: &[Trace]) -> String {
    let mut message = String::new();
    for failure in failures {
        let part = failure.part.as_ref().map(|part| format!("{part}: "));
        let _ = writeln!(message, "{}{failure}\n", part.unwrap_or_default());
    }
    let _ = writeln!(message, "{}: {}", scenario.name, scenario.about);
    for trace in traces
        .iter()
        .filter(|trace| trace.part.verdict == Verdict::Failed)
    {
        message += &secrets::hidden(trace.last_lines.as_deref().unwrap_or_default());
        let _ = writeln!(
            message,
            "report: {}",
            table::short(&trace.artifacts.join(report::FILE))
        );
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_among_the_artifacts_fails_what_passed() {
        let dir = tempfile::tempdir().unwrap();
        let scenario = Scenario {
            name: "quiet",
            about: "",
            run: |_| Ok(()),
        };
        let ended = || {
            let trace = Trace {
                artifacts: dir.path().to_owned(),
                last_lines: None,
                part: Part::default(),
            };
            Ended::of(scenario, Outcome::Passed, "", (vec![trace], Vec::new()))
        };
        assert_eq!(ended().verdict, Verdict::Passed);
        let shown = format!("publishing to {}\n", secrets::KEY);
        std::fs::write(dir.path().join("worker.log"), shown).unwrap();
        let ended = ended();
        assert_eq!(ended.verdict, Verdict::Failed);
        assert!(
            ended.message.contains("shows a secret"),
            "{}",
            ended.message
        );
        assert!(!ended.message.contains(secrets::KEY));
    }
}
