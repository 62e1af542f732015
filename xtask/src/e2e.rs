//! Runs the end-to-end scenarios.

use std::path::Path;
use std::process::Command;

use crate::flags::{E2e, MediaServer};
use crate::process::run;
use crate::programs::Profile;
use crate::{preflight, programs};

/// `cargo xtask e2e`.
pub(crate) fn command(options: &E2e) -> anyhow::Result<()> {
    let server = preflight::ensure_media(&options.media)?;
    build()?;
    run_suite(options, server, None)
}

/// Builds the scenarios and the programs they start.
pub(crate) fn build() -> anyhow::Result<()> {
    programs::build(Profile::Dev)?;
    programs::build_scenarios()
}

/// One run of the suite; everything is built already.
/// `artifacts` is where reports and logs go instead of `target/e2e`.
pub(crate) fn run_suite(
    options: &E2e,
    server: MediaServer,
    artifacts: Option<&Path>,
) -> anyhow::Result<()> {
    let mut command = suite(options, server)?;
    if let Some(artifacts) = artifacts {
        command.env("E2E_ARTIFACTS_DIR", artifacts);
    }
    run("the end-to-end suite", &mut command)
}

/// The command that runs the suite. The harness reads its settings from the environment, so that
/// a plain `cargo test --package e2e` works as well.
pub(crate) fn suite(options: &E2e, server: MediaServer) -> anyhow::Result<Command> {
    let mut command = programs::scenarios();
    command.arg("--").args(&options.scenarios);
    command.env("E2E_MEDIA_SERVER", server_name(server));
    if let Some(fixture) = &options.media.fixture {
        command.env("E2E_FIXTURE", std::path::absolute(fixture)?);
    }
    if let Some(jobs) = options.jobs {
        command.env("E2E_JOBS", jobs.to_string());
    }
    if options.keep {
        command.env("E2E_KEEP", "1");
    }
    if options.bless {
        command.env("INSTA_UPDATE", "always");
    }
    Ok(command)
}

/// The name the harness and the demo use.
pub(crate) fn server_name(server: MediaServer) -> &'static str {
    match server {
        MediaServer::Mediamtx => "mediamtx",
        MediaServer::Default => "default",
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::flags::MediaOptions;

    fn env_of(command: &Command, name: &str) -> Option<String> {
        command
            .get_envs()
            .find(|(key, _)| *key == OsStr::new(name))
            .and_then(|(_, value)| Some(value?.to_string_lossy().into_owned()))
    }

    #[test]
    fn options_reach_the_harness_through_its_environment() {
        let options = E2e {
            scenarios: vec!["full_pipeline".into()],
            media: MediaOptions {
                media_server: None,
                fixture: Some("/clips/a.mp4".into()),
            },
            jobs: Some(3),
            keep: true,
            bless: true,
        };
        let command = suite(&options, MediaServer::Mediamtx).expect("made");
        assert_eq!(command.get_args().last(), Some(OsStr::new("full_pipeline")));
        for (name, value) in [
            ("E2E_MEDIA_SERVER", "mediamtx"),
            ("E2E_FIXTURE", "/clips/a.mp4"),
            ("E2E_JOBS", "3"),
            ("E2E_KEEP", "1"),
            ("INSTA_UPDATE", "always"),
        ] {
            assert_eq!(env_of(&command, name).as_deref(), Some(value), "{name}");
        }
    }

    #[test]
    fn without_options_only_the_server_is_said() {
        let command = suite(&E2e::default(), MediaServer::Default).expect("made");
        assert_eq!(
            env_of(&command, "E2E_MEDIA_SERVER").as_deref(),
            Some("default")
        );
        assert_eq!(
            command
                .get_envs()
                .filter(|(key, _)| *key != "E2E_MEDIA_SERVER")
                .count(),
            0
        );
    }
}
