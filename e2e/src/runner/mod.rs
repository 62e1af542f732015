//! Runs scenarios side by side, shows how far they are, and ends with a table.
//!
//! The outside is libtest's (names, filter, `--list`, `--test-threads`, the closing line), so that
//! `cargo test` and whoever reads its output feel at home. What libtest has no flag for comes from
//! the environment: [`MEDIA_SERVER_ENV`], [`FIXTURE_ENV`], [`SCENARIOS_ENV`], [`SEED_ENV`].

mod context;
mod outcome;
mod progress;
mod settings;
mod table;
mod verdict;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::{Arc, Mutex},
};

use anyhow::Result;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::{artifacts, cleanup::Run, report, streams, threads::lock};
pub use context::{Context, MAIN, Part};
use outcome::Ended;
use progress::Progress;
pub use settings::{FIXTURE_ENV, MEDIA_SERVER_ENV, PART_ENV, SCENARIOS_ENV, SEED_ENV, Settings};
use verdict::judge;

/// Exit code when the suite cannot run here at all: a tool is missing, an option is wrong. A failed
/// check is another one (libtest's 101), so that CI never takes one for the other.
pub const CANNOT_RUN: u8 = 3;

/// One scenario: something the product must do, proven from outside.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Name, also of its artifacts.
    pub name: &'static str,
    /// What it proves, in one line.
    pub about: &'static str,
    /// The proof; an error that is a [`Skipped`](crate::failure::Skipped) says why there is none.
    pub run: fn(&Context) -> Result<()>,
}

/// Runs what the command line and the environment ask for. The `main` of the suite.
pub fn main(scenarios: &[Scenario]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    let settings = match Settings::from_env(scenarios) {
        Ok(settings) => settings,
        Err(error) => return cannot_run(&error),
    };
    let chosen: Vec<_> = scenarios
        .iter()
        .filter(|scenario| settings.is_chosen(scenario.name))
        .collect();
    // All begin at once; each of their streams waits for its turn.
    let streams = arguments.test_threads.replace(chosen.len().max(1));
    if arguments.list {
        let trials = chosen
            .iter()
            .map(|scenario| Trial::test(scenario.name, || Ok(())))
            .collect();
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    // Only a run that runs something needs anything.
    let wanted = |name: &str| is_wanted(&arguments, name);
    if chosen.iter().any(|scenario| wanted(scenario.name))
        && let Err(error) = settings.check()
    {
        return cannot_run(&error);
    }

    streams::limit(streams, settings.media_server());
    // Takes over Ctrl-C, before the first program is started.
    if let Err(error) = Run::current() {
        return cannot_run(&error);
    }
    let settings = Arc::new(settings);
    let progress = Arc::new(Progress::start());
    let rows: Arc<Mutex<BTreeMap<usize, Ended>>> = Arc::default();
    let trials = chosen.iter().enumerate().map(|(index, scenario)| {
        let (scenario, settings) = (**scenario, Arc::clone(&settings));
        let (progress, rows) = (Arc::clone(&progress), Arc::clone(&rows));
        Trial::ignorable_test(scenario.name, move || {
            let (ended, outcome) = run_one(index, scenario, &settings, &progress);
            lock(&rows).insert(index, ended);
            outcome
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    let rows = lock(&rows);
    if !rows.is_empty() {
        let index = artifacts::root().join("index.html");
        let runs = rows.values().flat_map(|row| row.runs.iter().cloned());
        if let Err(error) = report::update(&artifacts::root(), runs.collect()) {
            eprintln!("e2e: no list of reports: {error:#}");
        }
        let table = table::render(rows.values(), settings.media_server());
        eprint!("{table}");
        eprintln!("report: {}\n", table::short(&index));
    }
    let cleaned = Run::current().and_then(Run::finish);
    match cleaned {
        Ok(()) => conclusion.exit_code(),
        Err(error) => {
            eprintln!("e2e: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_one(
    index: usize,
    scenario: Scenario,
    settings: &Arc<Settings>,
    progress: &Arc<Progress>,
) -> (Ended, Result<Completion, Failed>) {
    streams::rank((index, 0));
    let context = Context::new(
        index,
        scenario.name,
        Arc::clone(settings),
        Arc::clone(progress),
    );
    let outcome = catch_unwind(AssertUnwindSafe(|| (scenario.run)(&context)));
    progress.phase(scenario.name, "writing the report");
    let ended = Ended::of(
        scenario,
        judge(outcome, settings.ci),
        &settings.command(scenario.name),
        context.end(),
    );
    progress.end(scenario.name);
    let outcome = match (ended.verdict, &ended.skipped) {
        (report::Verdict::Failed, _) => Err(Failed::from(&ended.message)),
        (_, Some(reason)) => Ok(Completion::ignored_with(reason)),
        _ => Ok(Completion::Completed),
    };
    (ended, outcome)
}

/// libtest's own rule: by substring, or exactly, and not skipped.
fn is_wanted(arguments: &Arguments, name: &str) -> bool {
    let hit = |pattern: &String| {
        if arguments.exact {
            name == pattern
        } else {
            name.contains(pattern.as_str())
        }
    };
    arguments.filter.as_ref().is_none_or(hit) && !arguments.skip.iter().any(hit)
}

fn cannot_run(error: &anyhow::Error) -> ExitCode {
    eprintln!("e2e cannot run here: {error:#}");
    ExitCode::from(CANNOT_RUN)
}
