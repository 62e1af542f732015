//! What a scenario gets: its name, its settings, a way to say how far it is.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use anyhow::{Result, bail};
use serde::Serialize;
use similar::{ChangeTag, TextDiff};

use super::{
    progress::Progress,
    settings::Settings,
    verdict::{Outcome, PartsFailed, judge},
};
use crate::{
    environment::{Builder, Environment, SharedTrace, Trace, Traces},
    failure::{self, Failure, Skipped},
    pipeline::Tell,
    services::media_server::Kind,
    streams,
    threads::lock,
};

/// Handed to each scenario.
#[derive(Debug)]
pub struct Context {
    /// Its place in the list of scenarios.
    index: usize,
    name: &'static str,
    settings: Arc<Settings>,
    progress: Arc<Progress>,
    trace: SharedTrace,
    failures: Mutex<Vec<Failure>>,
}

/// A part of a scenario: its name, which is also that of its artifacts, and its proof.
pub type Part<'a> = (&'a str, &'a (dyn Fn() -> Result<()> + Sync));

/// Name of the part whose artifacts bear the scenario's own name.
pub const MAIN: &str = "main";

impl Context {
    pub(super) fn new(
        index: usize,
        name: &'static str,
        settings: Arc<Settings>,
        progress: Arc<Progress>,
    ) -> Self {
        let trace = Arc::new(Traces {
            command: settings.command(name),
            ..Traces::default()
        });
        Self {
            index,
            name,
            settings,
            progress,
            trace,
            failures: Mutex::default(),
        }
    }

    /// Name of the scenario.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The clip to publish.
    pub fn fixture(&self) -> &Path {
        &self.settings.fixture
    }

    /// Whether the clip is the project's own, which carries a clock that can be read back.
    pub fn is_own_fixture(&self) -> bool {
        self.settings.own_fixture
    }

    /// The media server of this run.
    pub fn media_server(&self) -> Kind {
        self.settings.media_server()
    }

    /// Seed of what is random in a scenario: `own`, unless the run was given another.
    pub fn seed(&self, own: u64) -> u64 {
        self.settings.seed.unwrap_or(own)
    }

    pub fn environment(&self) -> Builder {
        self.named_environment(self.name)
    }

    /// A builder for one more environment of this scenario, for example `av_sync-step`.
    pub fn named_environment(&self, name: &str) -> Builder {
        Environment::builder(name)
            .media_server(self.media_server())
            .trace(Arc::clone(&self.trace))
    }

    /// Says how far the scenario is, in a few words such as `segments 2/10, dubbed 1`.
    pub fn phase(&self, phase: &str) {
        self.progress.phase(self.name, phase);
    }

    /// A way to say how far the scenario is that can be kept.
    pub fn teller(&self) -> Tell {
        let (name, progress) = (self.name, Arc::clone(&self.progress));
        Arc::new(move |phase| progress.phase(name, phase))
    }

    /// What is remembered of this scenario's environments.
    pub fn trace(&self) -> SharedTrace {
        Arc::clone(&self.trace)
    }

    /// Runs the parts of this scenario to their ends, whatever becomes of the others; only the one that
    /// was asked for if there is one. How many run at once is a matter of their [`streams`]; the first
    /// are the first to get one.
    ///
    /// # Errors
    /// When one failed, or there is none of the name that was asked for.
    pub fn parts(&self, parts: &[Part<'_>]) -> Result<()> {
        let asked = self.settings.part.as_deref();
        let chosen: Vec<_> = parts
            .iter()
            .filter(|(name, _)| asked.is_none_or(|asked| asked == *name))
            .collect();
        if chosen.is_empty() {
            let names: Vec<_> = parts.iter().map(|(name, _)| *name).collect();
            let (name, names) = (self.name, names.join(", "));
            bail!("{name} has no part {asked:?}, there are: {names}");
        }
        let run = |place: usize, (name, part): &Part<'_>| {
            streams::rank((self.index, place));
            failure::enter(name);
            let outcome = judge(catch_unwind(AssertUnwindSafe(part)), true);
            let Outcome::Failed(why) = outcome else {
                return false;
            };
            if let Some(why) = why {
                self.fail(why);
            }
            true
        };
        let failed = thread::scope(|scope| {
            let all: Vec<_> = chosen
                .into_iter()
                .enumerate()
                .map(|(place, part)| scope.spawn(move || run(place, part)))
                .collect();
            all.into_iter()
                .map(|part| part.join().unwrap_or(true))
                .filter(|failed| *failed)
                .count()
        });
        match failed {
            0 => Ok(()),
            failed => Err(PartsFailed(failed).into()),
        }
    }

    /// What a part of a proof came to. Where it could not be made here that is said, and no failure of the
    /// whole; in CI it is.
    ///
    /// # Errors
    /// What did not hold.
    pub fn told(&self, result: Result<()>) -> Result<()> {
        let skipped = |error: &anyhow::Error| error.downcast_ref::<Skipped>().is_some();
        if !result.as_ref().is_err_and(skipped) {
            return result;
        }
        match judge(Ok(result), self.settings.ci) {
            Outcome::Failed(Some(failure)) => Err(failure.into()),
            Outcome::Skipped(why) => {
                println!("{}: SKIPPED: {why}", self.name);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub fn artifacts_of(&self, part: &str) -> String {
        match part {
            MAIN => self.name.to_owned(),
            _ => format!("{}-{part}", self.name),
        }
    }

    /// Keeps what did not hold, without ending anything.
    fn fail(&self, mut failure: Failure) {
        failure.part = failure.part.or_else(failure::part);
        lock(&self.failures).push(failure);
    }

    /// Compares with the snapshot `tests/e2e/snapshots/NAME.snap`. What differs fails the scenario,
    /// but only at its end, so that all snapshots can be reviewed at once.
    pub fn snapshot<T: Serialize>(&self, name: &str, value: &T) {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/snapshots");
        let known = std::fs::read_to_string(directory.join(format!("{name}.snap")));
        let found = serde_json::to_string_pretty(value).unwrap_or_else(|error| error.to_string());
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(directory);
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        let compare = || settings.bind(|| insta::assert_snapshot!(name, found));
        if catch_unwind(AssertUnwindSafe(compare)).is_err() {
            // Behind a head of its own between two lines of dashes.
            let known = known.unwrap_or_default();
            let known = known.splitn(3, "---\n").nth(2).unwrap_or_default();
            let difference = TextDiff::from_lines(known.trim_end(), &found);
            let lines = |tag: ChangeTag| -> String {
                let changes = difference.iter_all_changes();
                changes
                    .filter(|it| it.tag() == tag)
                    .map(|it| it.value().to_owned())
                    .collect()
            };
            let failure = Failure::new(format!("snapshot {name} differs"));
            let failure = failure.expected(lines(ChangeTag::Delete).trim_end());
            self.fail(failure.actual(lines(ChangeTag::Insert).trim_end()));
        }
    }

    /// The environments there were and what did not hold, at the end.
    pub(super) fn end(&self) -> (Vec<Trace>, Vec<Failure>) {
        let (mut gone, mut failures) = (lock(&self.trace.gone), lock(&self.failures));
        (std::mem::take(&mut gone), std::mem::take(&mut failures))
    }
}
