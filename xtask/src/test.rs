//! Everything CI runs, cheapest first, and a table at the end.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::flags::{E2e, MediaOptions, MediaServer, Test};
use crate::process::{cargo, run};
use crate::requirements::Need;
use crate::{e2e, failure, fixtures, preflight, tidy};

/// One part of the whole.
struct Part {
    name: &'static str,
    run: fn(MediaServer) -> anyhow::Result<()>,
}

const PARTS: &[Part] = &[
    Part {
        name: "format",
        run: |_| {
            run(
                "cargo fmt --check",
                &mut cargo(&["fmt", "--all", "--check"]),
            )
        },
    },
    Part {
        name: "tidy",
        run: |_| tidy::command(),
    },
    Part {
        name: "clippy",
        run: |_| clippy(),
    },
    Part {
        name: "unit and simulation tests",
        run: |_| unit_tests(),
    },
    Part {
        name: "fixtures",
        run: |_| fixtures::make_or_check(true),
    },
];

const E2E: &[Part] = &[
    Part {
        name: "end-to-end",
        run: end_to_end,
    },
    Part {
        name: "unused snapshots",
        run: |_| unused_snapshots(),
    },
];

/// `cargo xtask test`: goes on after a part that failed, so that one run tells everything.
pub(crate) fn command(options: &Test) -> anyhow::Result<()> {
    let server = if options.no_e2e {
        preflight::ensure(&[Need::Build, Need::Run])?;
        MediaServer::Default
    } else {
        preflight::ensure_media(&MediaOptions::default())?
    };
    start_snapshot_record()?;
    let parts = PARTS.iter().chain(if options.no_e2e { &[] } else { E2E });
    let mut rows = Vec::new();
    for part in parts {
        eprintln!("\n==> {}", part.name);
        let start = Instant::now();
        let result = (part.run)(server);
        if let Err(error) = &result {
            if error.is::<failure::Interrupted>() {
                return result;
            }
            eprintln!("error: {error:#}");
        }
        rows.push((part.name, start.elapsed(), result));
    }
    eprintln!("\n{}", table(&rows));
    verdict(rows.into_iter().map(|(_, _, result)| result))
}

/// The worst of all: a broken promise outweighs "could not run here".
fn verdict(results: impl Iterator<Item = anyhow::Result<()>>) -> anyhow::Result<()> {
    let errors: Vec<_> = results.filter_map(Result::err).collect();
    let count = errors.len();
    match errors.into_iter().min_by_key(failure::exit_code) {
        None => Ok(()),
        Some(worst) if count == 1 => Err(worst),
        Some(worst) => Err(worst.context(format!("{count} parts failed, the gravest"))),
    }
}

fn table(rows: &[(&str, Duration, anyhow::Result<()>)]) -> String {
    let lines: Vec<_> = rows
        .iter()
        .map(|(name, time, result)| {
            let word = match result {
                Ok(()) => "ok",
                Err(error) if failure::exit_code(error) == failure::CANNOT_RUN => "could not run",
                Err(_) => "FAILED",
            };
            format!("{word:<14} {name:<26} {:>6.1} s", time.as_secs_f64())
        })
        .collect();
    lines.join("\n")
}

fn clippy() -> anyhow::Result<()> {
    let arguments = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ];
    run("clippy", &mut cargo(&arguments))
}

fn unit_tests() -> anyhow::Result<()> {
    // The scenarios of e2e take minutes of real time and have a part of their own.
    let mut all = cargo(&["test", "--workspace", "--exclude", "e2e", "--no-fail-fast"]);
    let mut harness = cargo(&[
        "test",
        "--package",
        "e2e",
        "--no-fail-fast",
        "--lib",
        "--bins",
    ]);
    for test in harness_tests(&crate::root().join("e2e/tests"))? {
        harness.args(["--test", &test]);
    }
    let first = run(
        "the unit and simulation tests",
        with_snapshot_record(&mut all),
    );
    let second = run(
        "the harness's own tests",
        with_snapshot_record(&mut harness),
    );
    verdict([first, second].into_iter())
}

/// The harness's own integration tests: the files beside the scenarios' directory.
fn harness_tests(directory: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".rs").map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

fn end_to_end(server: MediaServer) -> anyhow::Result<()> {
    e2e::build()?;
    let mut suite = e2e::suite(&E2e::default(), server)?;
    run("the end-to-end suite", with_snapshot_record(&mut suite))
}

/// Where insta notes every snapshot file a test looked at.
fn snapshot_record() -> std::path::PathBuf {
    crate::root().join("target/xtask/snapshots-used.txt")
}

fn start_snapshot_record() -> anyhow::Result<()> {
    let path = snapshot_record();
    fs::create_dir_all(path.parent().expect("has a parent"))?;
    fs::write(path, "")?;
    Ok(())
}

fn with_snapshot_record(command: &mut std::process::Command) -> &mut std::process::Command {
    command.env("INSTA_SNAPSHOT_REFERENCES_FILE", snapshot_record())
}

/// A snapshot that no test of a whole run looked at proves nothing and misleads its readers.
fn unused_snapshots() -> anyhow::Result<()> {
    let used = fs::read_to_string(snapshot_record())?;
    let unused = tidy::unused_snapshots(&crate::root(), &used)?;
    anyhow::ensure!(
        unused.is_empty(),
        "no test uses these snapshots, delete them:\n  {}",
        unused.join("\n  ")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{CannotRun, exit_code};

    #[test]
    fn a_broken_promise_outweighs_a_missing_tool() {
        let results = [
            Ok(()),
            Err(CannotRun("no nginx".into()).into()),
            Err(anyhow::anyhow!("a test failed")),
        ];
        let error = verdict(results.into_iter()).expect_err("two parts failed");
        assert_eq!(exit_code(&error), 1);
        assert_eq!(
            format!("{error:#}"),
            "2 parts failed, the gravest: a test failed"
        );
        let only = verdict([Err(CannotRun("no nginx".into()).into())].into_iter());
        assert_eq!(exit_code(&only.expect_err("failed")), 3);
        assert!(verdict([Ok(()), Ok(())].into_iter()).is_ok());
    }

    #[test]
    fn the_harness_has_tests_beside_the_scenarios() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for name in ["process_guard.rs", "a.rs"] {
            fs::write(directory.path().join(name), "").expect("write");
        }
        fs::create_dir(directory.path().join("e2e")).expect("mkdir");
        assert_eq!(
            harness_tests(directory.path()).expect("readable"),
            ["a", "process_guard"]
        );
    }

    #[test]
    fn the_table_tells_failed_from_could_not_run() {
        let rows = [
            ("tidy", Duration::from_millis(120), Ok(())),
            (
                "clippy",
                Duration::from_secs(61),
                Err(anyhow::anyhow!("no")),
            ),
            (
                "end-to-end",
                Duration::ZERO,
                Err(CannotRun("no".into()).into()),
            ),
        ];
        assert_eq!(
            table(&rows),
            "ok             tidy                          0.1 s\n\
             FAILED         clippy                       61.0 s\n\
             could not run  end-to-end                    0.0 s"
        );
    }
}
