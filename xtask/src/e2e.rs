//! Runs the end-to-end scenarios.

use std::path::Path;
use std::process::Command;

use crate::failure::Interrupted;
use crate::flags::{E2e, MediaOptions, MediaServer};
use crate::host::Host;
use crate::process::run;
use crate::programs::Profile;
use crate::requirements::Need;
use crate::{preflight, programs, python};

/// `cargo xtask e2e`.
pub(crate) fn command(options: &E2e) -> anyhow::Result<()> {
    preflight::ensure_media(&options.media)?;
    python::prepare_for(&options.scenarios)?;
    prepare_fleet(&options.scenarios)?;
    build()?;
    run_suite(options, None)
}

/// Makes sure that there is a scheduler if one of these scenarios (none: all) needs it.
pub(crate) fn prepare_fleet(scenarios: &[String]) -> anyhow::Result<()> {
    const SCENARIO: &str = "fleet";
    if !scenarios.is_empty() && !scenarios.iter().any(|name| name == SCENARIO) {
        return Ok(());
    }
    if Host::detect().in_nix_shell() {
        return Ok(());
    }
    // In CI too: the scenario says by itself that it is skipped.
    match preflight::ensure(&[Need::Fleet]) {
        Err(error) if !error.is::<Interrupted>() => {
            crate::say::tell!("warning: the scenario fleet is skipped: {error:#}");
            Ok(())
        }
        result => result,
    }
}

/// Builds the scenarios and the programs they start.
pub(crate) fn build() -> anyhow::Result<()> {
    programs::build(Profile::Dev)?;
    programs::build_scenarios()
}

/// One run of the suite; everything is built already. `artifacts` is where reports and logs go
/// instead of `target/e2e`.
pub(crate) fn run_suite(options: &E2e, artifacts: Option<&Path>) -> anyhow::Result<()> {
    let mut command = suite(options)?;
    if let Some(artifacts) = artifacts {
        command.env("E2E_ARTIFACTS_DIR", artifacts);
    }
    run("the end-to-end suite", &mut command)
}

/// The command that runs the suite. The harness reads from the environment what libtest has no
/// flag for.
pub(crate) fn suite(options: &E2e) -> anyhow::Result<Command> {
    let mut command = programs::scenarios();
    if let Some(jobs) = options.jobs {
        command
            .arg("--")
            .args(["--test-threads", &jobs.to_string()]);
    }
    media_environment(&mut command, &options.media)?;
    if !options.scenarios.is_empty() {
        command.env("E2E_SCENARIOS", options.scenarios.join(","));
    }
    if let Some(part) = &options.part {
        command.env("E2E_PART", part);
    }
    if options.bless {
        command.env("INSTA_UPDATE", "always");
    }
    Ok(command)
}

/// Which media server and which clip, for the suite and the demo alike.
pub(crate) fn media_environment(command: &mut Command, media: &MediaOptions) -> anyhow::Result<()> {
    if let Some(server) = media.media_server {
        let name = match server {
            MediaServer::Mediamtx => "mediamtx",
            MediaServer::Default => "default",
        };
        command.env("E2E_MEDIA_SERVER", name);
    }
    if let Some(fixture) = &media.fixture {
        command.env("E2E_FIXTURE", std::path::absolute(fixture)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn options_reach_the_harness() {
        let options = E2e {
            scenarios: vec!["full_pipeline".into(), "av_sync".into()],
            media: MediaOptions {
                media_server: Some(MediaServer::Mediamtx),
                fixture: Some("/clips/a.mp4".into()),
            },
            jobs: Some(3),
            part: Some("gap".into()),
            bless: true,
        };
        let command = suite(&options).expect("made");
        let arguments: Vec<_> = command.get_args().collect();
        assert!(arguments.ends_with(&["--", "--test-threads", "3"].map(OsStr::new)));
        for (name, value) in [
            ("E2E_SCENARIOS", "full_pipeline,av_sync"),
            ("E2E_MEDIA_SERVER", "mediamtx"),
            ("E2E_FIXTURE", "/clips/a.mp4"),
            ("E2E_PART", "gap"),
            ("INSTA_UPDATE", "always"),
        ] {
            let set = command.get_envs().find(|(key, _)| *key == name);
            assert_eq!(set, Some((OsStr::new(name), Some(OsStr::new(value)))));
        }
    }

    #[test]
    fn without_options_the_harness_decides() {
        let command = suite(&E2e::default()).expect("made");
        assert_eq!(command.get_envs().count(), 0);
        assert!(!command.get_args().any(|argument| argument == "--"));
    }
}
