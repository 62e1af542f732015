//! Everything CI runs, cheapest first, and a table at the end.

use std::fs;
use std::time::{Duration, Instant};

use crate::flags::{E2e, MediaOptions, Part, Test};
use crate::process::{cargo, run};
use crate::programs::Profile;
use crate::requirements::Need;
use crate::{e2e, failure, fixtures, preflight, programs, python, tidy};

/// Cheapest first.
const ORDER: [Part; 6] = [
    Part::Format,
    Part::Tidy,
    Part::Clippy,
    Part::Unit,
    Part::Fixtures,
    Part::E2e,
];

/// `cargo xtask test`: goes on after a part that failed, so that one run tells everything.
pub(crate) fn command(options: &Test) -> anyhow::Result<()> {
    let parts = chosen(options);
    prepare(&parts)?;
    start_snapshot_record()?;
    let mut rows = Vec::new();
    for part in &parts {
        measure(&mut rows, part.title(), || run_part(*part))?;
    }
    // Only a whole and happy run has looked at every snapshot that is in use.
    if parts == ORDER && rows.iter().all(|(_, _, result)| result.is_ok()) {
        measure(&mut rows, "unused snapshots", unused_snapshots)?;
    }
    crate::say::tell!("\n{}", table(&rows));
    verdict(rows.into_iter().map(|(_, _, result)| result))
}

fn chosen(options: &Test) -> Vec<Part> {
    ORDER
        .into_iter()
        .filter(|part| options.parts.is_empty() || options.parts.contains(part))
        .filter(|part| !(options.no_e2e && *part == Part::E2e))
        .collect()
}

/// Makes sure, before anything runs, that everything the parts need is here.
fn prepare(parts: &[Part]) -> anyhow::Result<()> {
    for (part, tool) in [(Part::Format, "fmt"), (Part::Clippy, "clippy")] {
        if parts.contains(&part) && !has_cargo_tool(tool) {
            let message = format!(
                "`cargo {tool}` is missing; with rustup: rustup component add rustfmt clippy"
            );
            return Err(failure::CannotRun(message).into());
        }
    }
    if parts.contains(&Part::E2e) {
        preflight::ensure_media(&MediaOptions::default())?;
    } else if parts
        .iter()
        .any(|part| !matches!(part, Part::Format | Part::Tidy))
    {
        preflight::ensure(&[Need::Build, Need::Run])?;
    }
    if parts
        .iter()
        .any(|part| matches!(part, Part::Unit | Part::E2e))
    {
        python::prepare()?;
    }
    if parts.contains(&Part::Unit) {
        let otherwise = "files in deploy/ are not checked by their tools";
        preflight::ensure_optional(Need::Deploy, otherwise)?;
        let otherwise = "the report's pages are not opened in a browser";
        preflight::ensure_optional(Need::Browser, otherwise)?;
    }
    if parts.contains(&Part::E2e) {
        e2e::prepare_fleet(&[])?;
    }
    Ok(())
}

/// Whether a part of the Rust toolchain that can be left out is there.
fn has_cargo_tool(tool: &str) -> bool {
    let output = cargo(&[tool, "--version"]).output();
    output.is_ok_and(|output| output.status.success())
}

fn run_part(part: Part) -> anyhow::Result<()> {
    match part {
        Part::Format => run(
            "cargo fmt --check",
            &mut cargo(&["fmt", "--all", "--check"]),
        ),
        Part::Tidy => tidy::command(),
        Part::Clippy => clippy(),
        Part::Unit => unit_tests(),
        Part::Fixtures => {
            programs::build(Profile::Dev)?;
            fixtures::make_or_check(true)
        }
        Part::E2e => end_to_end(),
    }
}

/// Name, time and outcome of a part.
type Row = (&'static str, Duration, anyhow::Result<()>);

/// Runs one part and notes how it went; only an interruption ends the whole.
fn measure(
    rows: &mut Vec<Row>,
    title: &'static str,
    part: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    crate::say::tell!("\n==> {title}");
    let start = Instant::now();
    let result = part();
    if let Err(error) = &result {
        if error.is::<failure::Interrupted>() {
            return result;
        }
        crate::say::tell!("error: {error:#}");
    }
    rows.push((title, start.elapsed(), result));
    Ok(())
}

/// The worst of all: a failed check outweighs "could not run here".
fn verdict(results: impl Iterator<Item = anyhow::Result<()>>) -> anyhow::Result<()> {
    let errors: Vec<_> = results.filter_map(Result::err).collect();
    let count = errors.len();
    match errors.into_iter().min_by_key(failure::exit_code) {
        None => Ok(()),
        Some(worst) if count == 1 => Err(worst),
        Some(worst) => Err(worst.context(format!("{count} parts failed, the gravest"))),
    }
}

fn table(rows: &[Row]) -> String {
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
    let mut tests = programs::unit_tests()?;
    run(
        "the unit and simulation tests",
        with_snapshot_record(&mut tests),
    )
}

fn end_to_end() -> anyhow::Result<()> {
    e2e::build()?;
    let mut suite = e2e::suite(&E2e::default())?;
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
    fn parts_run_in_order_however_they_are_named() {
        let all = Test {
            parts: vec![],
            no_e2e: false,
        };
        assert_eq!(chosen(&all), ORDER);
        let some = Test {
            parts: vec![Part::E2e, Part::Tidy],
            no_e2e: false,
        };
        assert_eq!(chosen(&some), [Part::Tidy, Part::E2e]);
        let quick = Test {
            parts: vec![],
            no_e2e: true,
        };
        assert_eq!(chosen(&quick), ORDER[..5]);
    }

    #[test]
    fn a_tool_cargo_does_not_have_is_noticed() {
        assert!(has_cargo_tool("fmt"));
        assert!(!has_cargo_tool("no-such-tool"));
    }

    #[test]
    fn a_failed_check_outweighs_a_missing_tool() {
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
