//! Builds the project's own programs and tests, and finds the results.
//!
//! Every build names the whole workspace. Cargo chooses features of shared crates for the packages
//! it is asked to build; asking for one package here and another there would compile most
//! dependencies two or three times over.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::process::{cargo, run};

/// How programs are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Dev,
    Release,
}

/// All packages but this one: replacing a program while it runs helps nobody.
const PACKAGES: [&str; 3] = ["--workspace", "--exclude", "xtask"];
/// The test target with the scenarios; it takes minutes of real time and is run by itself.
const SCENARIOS: &str = "e2e";

/// Builds every program of the workspace.
pub(crate) fn build(profile: Profile) -> anyhow::Result<()> {
    let mut command = cargo(&["build", "--bins"]);
    command.args(PACKAGES);
    if profile == Profile::Release {
        command.arg("--release");
    }
    run("the build", &mut command)
}

/// A program that `build` has built.
pub(crate) fn program(name: &str, profile: Profile) -> anyhow::Result<Command> {
    let directory = match profile {
        Profile::Dev => "debug",
        Profile::Release => "release",
    };
    let path = target_directory()?.join(directory).join(name);
    anyhow::ensure!(path.is_file(), "{} was not built", path.display());
    let mut command = Command::new(path);
    command.current_dir(crate::root());
    Ok(command)
}

/// Builds the scenarios, so that running them starts at once.
pub(crate) fn build_scenarios() -> anyhow::Result<()> {
    run("the build of the scenarios", scenarios().arg("--no-run"))
}

/// `cargo test` of the scenarios; whatever follows `--` goes to the harness.
pub(crate) fn scenarios() -> Command {
    let mut command = cargo(&["test"]);
    command.args(PACKAGES).args(["--test", SCENARIOS]);
    command
}

/// `cargo test` of everything but the scenarios.
pub(crate) fn unit_tests() -> anyhow::Result<Command> {
    let mut command = cargo(&["test", "--workspace", "--no-fail-fast", "--lib", "--bins"]);
    for name in test_targets(&crate::root())? {
        command.args(["--test", &name]);
    }
    Ok(command)
}

/// The integration tests of all packages, as Cargo names them: `tests/NAME.rs` and
/// `tests/NAME/main.rs`, one or two directories below the root.
fn test_targets(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for package in directories(root)? {
        for place in directories(&package)?.into_iter().chain([package]) {
            if !place.join("Cargo.toml").is_file() || !place.join("tests").is_dir() {
                continue;
            }
            for entry in entries(&place.join("tests"))? {
                let name = entry
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                if entry.join("main.rs").is_file() {
                    names.push(name);
                } else if let Some(name) = name.strip_suffix(".rs") {
                    names.push(name.to_owned());
                }
            }
        }
    }
    names.retain(|name| name != SCENARIOS);
    names.sort();
    names.dedup();
    Ok(names)
}

fn directories(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = entries(path)?;
    found.retain(|entry| entry.is_dir() && !entry.ends_with("target"));
    Ok(found)
}

fn entries(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    fs::read_dir(path)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .with_context(|| path.display().to_string())
}

/// Where Cargo puts what it builds; people move it, with a variable or in a configuration file.
pub(crate) fn target_directory() -> anyhow::Result<PathBuf> {
    let output = cargo(&[
        "metadata",
        "--no-deps",
        "--offline",
        "--format-version",
        "1",
    ])
    .output()
    .context("cargo metadata")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let after = text
        .split_once(r#""target_directory":""#)
        .map(|(_, after)| after);
    let path = after
        .and_then(|after| after.split('"').next())
        .context("cargo metadata says nothing")?;
    Ok(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_integration_tests_but_the_scenarios_are_found() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let file = |path: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("has a parent")).expect("mkdir");
            fs::write(path, "").expect("write");
        };
        for path in [
            "worker/Cargo.toml",
            "worker/tests/sts_link.rs",
            "worker/tests/support/mod.rs",
            "worker/engine/Cargo.toml",
            "worker/engine/tests/sim/main.rs",
            "e2e/Cargo.toml",
            "e2e/tests/e2e/main.rs",
            "e2e/tests/process_guard.rs",
            "target/package/Cargo.toml",
            "target/package/tests/no.rs",
            "docs/tests/no.rs",
        ] {
            file(path);
        }
        assert_eq!(
            test_targets(root.path()).expect("readable"),
            ["process_guard", "sim", "sts_link"]
        );
    }

    #[test]
    fn the_target_directory_is_where_this_test_runs_from() {
        let target = target_directory().expect("cargo says");
        let me = std::env::current_exe().expect("known");
        assert!(
            me.starts_with(&target),
            "{} is not below {}",
            me.display(),
            target.display()
        );
    }
}
