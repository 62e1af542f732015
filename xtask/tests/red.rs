//! What the scenarios' exit code becomes in each command that runs them: a red scenario makes all of them
//! red. Cargo is a script here: builds are good, and the suite ends as the test says.
#![expect(
    clippy::unwrap_used,
    reason = "a test may fail where its preparations fail"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

/// Notes what it is asked, one line each.
const CARGO: &str = r#"#!/bin/sh
echo "$*" >> "$ASKED"
case "$*" in
  metadata*) echo "{\"target_directory\":\"$TARGET\"}" ;;
  *--no-run*) ;;
  *"--test e2e"*) echo "the suite in ${E2E_ARTIFACTS_DIR:-target/e2e}"; exit "$SUITE_ENDS" ;;
  "test "*"--workspace"*"--lib"*|clippy*"--workspace"*"--deny warnings"*|"fmt --all --check"*) exit "$SUITE_ENDS" ;;
esac
"#;

/// Exit code and words of `cargo xtask` with these arguments while the suite ends with `code`; how often
/// it ran.
fn xtask(arguments: &[&str], code: i32) -> (Option<i32>, String, usize) {
    let root = tempfile::tempdir().unwrap();
    let file = |name: &str| root.path().join(name);
    fs::write(file("cargo"), CARGO).unwrap();
    fs::set_permissions(file("cargo"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(file("xtask")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(arguments)
        .env("CARGO", file("cargo"))
        .env("CARGO_MANIFEST_DIR", file("xtask"))
        .env("E2E_PYTHON", "/bin/true")
        .env("ASKED", file("asked"))
        .env("TARGET", file("target"))
        .env("SUITE_ENDS", code.to_string())
        .output()
        .unwrap();
    let asked = fs::read_to_string(file("asked")).unwrap_or_default();
    let counts = |it: &&str| {
        let prepares = it.contains("--no-run") || it.contains("--version");
        let parts = ["test --workspace", "clippy", "fmt"];
        !prepares && (it.contains("--test e2e") || parts.iter().any(|part| it.starts_with(part)))
    };
    let runs = asked.lines().filter(counts);
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code(), text, runs.count())
}

#[test]
fn a_red_scenario_makes_every_command_red() {
    let commands: [(&[&str], usize, &str); 6] = [
        (
            &["e2e", "full_pipeline"],
            1,
            "the end-to-end suite failed (exit code 101)",
        ),
        (&["test", "e2e"], 1, "FAILED         end-to-end"),
        (&["test", "unit"], 1, "FAILED"),
        (&["test", "clippy"], 1, "FAILED"),
        (&["test", "format"], 1, "FAILED"),
        (
            &["soak", "--runs", "2", "full_pipeline"],
            2,
            "0/2 green; red: 1, 2",
        ),
    ];
    for (command, runs, words) in commands {
        let (code, said, ran) = xtask(command, 0);
        assert_eq!((code, ran), (Some(0), runs), "{command:?}: {said}");
        let (code, said, ran) = xtask(command, 101);
        assert_eq!((code, ran), (Some(1), runs), "{command:?}: {said}");
        assert!(
            said.contains(words),
            "{command:?} does not say {words:?}: {said}"
        );
        // What cannot run here is no bug, and never green.
        let (code, said, _) = xtask(command, 3);
        assert_eq!(code, Some(3), "{command:?}: {said}");
    }
}
