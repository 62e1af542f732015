//! What a run of the suite can be told, and whether it can run here at all.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::{Context as _, Result, bail};

use super::Scenario;
use crate::{programs, services::media_server::Kind};

/// `mediamtx` or `default`; unset: MediaMTX if it is installed.
pub const MEDIA_SERVER_ENV: &str = "E2E_MEDIA_SERVER";
/// Path of the clip to publish; unset: the project's own.
pub const FIXTURE_ENV: &str = "E2E_FIXTURE";
/// Exact names of scenarios, separated by commas; unset: all (libtest takes one filter only).
pub const SCENARIOS_ENV: &str = "E2E_SCENARIOS";
/// Name of the one part of a scenario that is to run; unset: all.
pub const PART_ENV: &str = "E2E_PART";
/// Set by whatever runs tests for others to rely on: there nothing is skipped.
const CI_ENV: &str = "CI";
/// Seed of what is random in a scenario; unset: each scenario's own.
pub const SEED_ENV: &str = "E2E_SEED";

/// Programs of this project that scenarios start.
const OWN_PROGRAMS: [&str; 4] = ["worker", "echo-sts", "camera", "reaper"];
/// System tools that scenarios use whatever the media server is.
const TOOLS: [&str; 2] = ["ffmpeg", "ffprobe"];

/// Settings of one run.
#[derive(Debug)]
pub struct Settings {
    asked: Option<Kind>,
    chosen: OnceLock<Kind>,
    /// The clip to publish, and whether it is the project's own.
    pub(super) fixture: PathBuf,
    pub(super) own_fixture: bool,
    scenarios: Option<Vec<String>>,
    /// The one part that is to run, if not all are.
    pub(super) part: Option<String>,
    /// Nothing is skipped.
    pub(super) ci: bool,
    /// Seed of what is random, if it was given.
    pub(super) seed: Option<u64>,
}

impl Settings {
    /// Reads the environment.
    ///
    /// # Errors
    /// When a value is not one that is allowed; the message names the variable and what is.
    pub fn from_env(known: &[Scenario]) -> Result<Self> {
        Self::read(|name| std::env::var_os(name), known)
    }

    fn read(get: impl Fn(&str) -> Option<OsString>, known: &[Scenario]) -> Result<Self> {
        let text = |name: &str| {
            let value = get(name).map(OsString::into_string).transpose();
            let value = value.map_err(|_| anyhow::anyhow!("{name} is not text"))?;
            anyhow::Ok(value.filter(|value| !value.is_empty()))
        };
        let asked = text(MEDIA_SERVER_ENV)?
            .map(|value| {
                value
                    .parse()
                    .with_context(|| format!("{MEDIA_SERVER_ENV}={value}"))
            })
            .transpose()?;
        let seed = text(SEED_ENV)?
            .map(|value| {
                let number = value.parse();
                number.with_context(|| format!("{SEED_ENV}={value}: allowed is a whole number"))
            })
            .transpose()?;
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/clock-60s.mp4");
        let given = get(FIXTURE_ENV)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from);
        let scenarios = text(SCENARIOS_ENV)?.map(|value| {
            value
                .split(',')
                .map(|name| name.trim().to_owned())
                .collect::<Vec<_>>()
        });
        for name in scenarios.iter().flatten() {
            if !known.iter().any(|scenario| scenario.name == name) {
                let known: Vec<_> = known.iter().map(|scenario| scenario.name).collect();
                bail!(
                    "{SCENARIOS_ENV}: no scenario {name:?}, there are: {}",
                    known.join(", ")
                );
            }
        }
        Ok(Self {
            asked,
            chosen: OnceLock::new(),
            own_fixture: given.is_none(),
            fixture: given.unwrap_or(own),
            scenarios,
            part: text(PART_ENV)?,
            ci: get(CI_ENV).is_some_and(|value| !value.is_empty()),
            seed,
        })
    }

    /// Whether this scenario was asked for.
    pub fn is_chosen(&self, name: &str) -> bool {
        self.scenarios
            .as_ref()
            .is_none_or(|names| names.iter().any(|known| known == name))
    }

    /// Fails with what is missing and how to get it; says which media server it will be.
    pub fn check(&self) -> Result<()> {
        for program in OWN_PROGRAMS {
            programs::own(program)?;
        }
        for tool in TOOLS {
            programs::tool(tool)?;
        }
        if !self.fixture.is_file() {
            let hint = if self.own_fixture {
                "`cargo xtask fixtures` makes it"
            } else {
                "check E2E_FIXTURE or --fixture"
            };
            bail!("there is no clip {}: {hint}", self.fixture.display());
        }
        let kind = Kind::choose(self.asked)?;
        let note = match (kind, self.asked) {
            (Kind::MediaMtx, _) => "MediaMTX",
            (Kind::Default, Some(_)) => "default (nginx)",
            (Kind::Default, None) => "default (nginx), because MediaMTX is not installed",
        };
        eprintln!("media server: {note}");
        self.chosen.get_or_init(|| kind);
        Ok(())
    }

    /// The media server of this run.
    pub fn media_server(&self) -> Kind {
        // `check` has chosen; the fallback is for a scenario that needs none.
        *self
            .chosen
            .get_or_init(|| self.asked.unwrap_or(Kind::Default))
    }

    /// The command that runs a scenario again as it is run now.
    pub fn command(&self, scenario: &str) -> String {
        let mut command = format!(
            "cargo xtask e2e {scenario} --media-server {}",
            self.media_server()
        );
        if !self.own_fixture {
            let path = std::path::absolute(&self.fixture).unwrap_or_else(|_| self.fixture.clone());
            command += &format!(" --fixture '{}'", path.display());
        }
        match self.seed {
            Some(seed) => format!("{SEED_ENV}={seed} {command}"),
            None => command,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<Scenario> {
        let scenario = |name| Scenario {
            name,
            about: "",
            run: |_| Ok(()),
        };
        ["full_pipeline", "av_sync"].map(scenario).to_vec()
    }

    fn read(values: &[(&str, &str)]) -> Result<Settings> {
        let get = |name: &str| {
            values
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| OsString::from(value))
        };
        Settings::read(get, &known())
    }

    #[test]
    fn nothing_set_means_everything_with_the_own_clip() {
        let settings = read(&[(FIXTURE_ENV, "")]).unwrap();
        assert!(settings.is_chosen("av_sync") && settings.own_fixture);
        assert!(!settings.ci && read(&[(CI_ENV, "true")]).unwrap().ci);
        assert!(settings.fixture.ends_with("fixtures/clock-60s.mp4"));
    }

    #[test]
    fn scenarios_are_chosen_by_exact_name() {
        let settings = read(&[(SCENARIOS_ENV, "av_sync, full_pipeline")]).unwrap();
        assert!(settings.is_chosen("av_sync") && settings.is_chosen("full_pipeline"));
        let one = read(&[(SCENARIOS_ENV, "av_sync")]).unwrap();
        assert!(!one.is_chosen("full_pipeline"));
        let error = read(&[(SCENARIOS_ENV, "sync")]).unwrap_err().to_string();
        assert_eq!(
            error,
            "E2E_SCENARIOS: no scenario \"sync\", there are: full_pipeline, av_sync"
        );
    }

    #[test]
    fn a_seed_is_a_whole_number() {
        assert_eq!(read(&[]).unwrap().seed, None);
        assert_eq!(read(&[(SEED_ENV, "7")]).unwrap().seed, Some(7));
        let error = format!("{:#}", read(&[(SEED_ENV, "-1")]).unwrap_err());
        assert!(
            error.starts_with("E2E_SEED=-1: allowed is a whole number"),
            "{error}"
        );
    }

    #[test]
    fn a_wrong_media_server_names_the_variable_and_what_is_allowed() {
        let error = format!("{:#}", read(&[(MEDIA_SERVER_ENV, "vlc")]).unwrap_err());
        assert_eq!(
            error,
            "E2E_MEDIA_SERVER=vlc: media server \"vlc\" is not known, allowed: mediamtx, default"
        );
        let settings = read(&[(MEDIA_SERVER_ENV, "mediamtx")]).unwrap();
        assert_eq!(settings.media_server(), Kind::MediaMtx);
    }
}
