//! What a scenario gets: its name, its settings, a way to say how far it is.

use std::{
    path::Path,
    sync::{Arc, PoisonError},
};

use super::{progress::Progress, settings::Settings};
use crate::{
    environment::{Builder, Environment, SharedTrace, Trace},
    services::media_server::Kind,
    story::Tell,
};

/// Handed to each scenario.
#[derive(Debug)]
pub struct Context {
    name: &'static str,
    settings: Arc<Settings>,
    progress: Arc<Progress>,
    trace: SharedTrace,
}

impl Context {
    pub(super) fn new(
        name: &'static str,
        settings: Arc<Settings>,
        progress: Arc<Progress>,
    ) -> Self {
        Self {
            name,
            settings,
            progress,
            trace: SharedTrace::default(),
        }
    }

    /// Name of the scenario.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The clip to publish.
    pub fn fixture(&self) -> &Path {
        self.settings.fixture()
    }

    /// Whether the clip is the project's own, which carries a clock that can be read back.
    pub fn is_own_fixture(&self) -> bool {
        self.settings.is_own_fixture()
    }

    /// The media server of this run.
    pub fn media_server(&self) -> Kind {
        self.settings.media_server()
    }

    /// Seed of what is random in a scenario: `own`, unless the run was given another.
    pub fn seed(&self, own: u64) -> u64 {
        self.settings.seed().unwrap_or(own)
    }

    /// A builder for this scenario's environment.
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
    pub fn phase(&self, phase: impl Into<String>) {
        self.progress.phase(self.name, phase.into());
    }

    /// A way to say how far the scenario is that can be kept.
    pub fn teller(&self) -> Tell {
        let (name, progress) = (self.name, Arc::clone(&self.progress));
        Arc::new(move |phase| progress.phase(name, phase.to_owned()))
    }

    /// What is remembered of this scenario's environments.
    pub fn trace(&self) -> SharedTrace {
        Arc::clone(&self.trace)
    }

    /// Settings for `insta` snapshots: files in `tests/e2e/snapshots` under the given names alone.
    /// Use as `context.snapshots().bind(|| insta::assert_snapshot!("name", text))`.
    pub fn snapshots(&self) -> insta::Settings {
        let mut settings = insta::Settings::clone_current();
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/snapshots");
        settings.set_snapshot_path(dir);
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings
    }

    pub(super) fn traces(&self) -> Vec<Trace> {
        std::mem::take(&mut *self.trace.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
