//! A scenario that does not hold makes the suite end with another exit code than 0, and says so in all
//! of its reports. This program is both: the suite, with scenarios made to fail, and its judge.

use std::path::Path;
use std::process::{Command, ExitCode, Output};

use anyhow::{Result, bail, ensure};
use e2e::failure;
use e2e::failure::Skipped;
use e2e::runner::{self, Context, Scenario};

/// Set: this is the suite.
const SUITE_ENV: &str = "RED_SUITE";
/// libtest's exit code for failed tests.
const RED: i32 = 101;

fn main() -> ExitCode {
    if std::env::var_os(SUITE_ENV).is_some() {
        let scenario = |name, run| Scenario {
            name,
            about: "made to end this way",
            run,
        };
        return runner::main(&[
            scenario("green", |_| Ok(())),
            scenario("error", |_| failure::equal("pictures", &3, &4)),
            scenario("panic", |_| panic!("boom")),
            scenario("told", |context| {
                context.told(failure::equal("answers", &3, &4))
            }),
            scenario("parts", parts),
            scenario("snapshots", |context| {
                context.snapshot("no_such_snapshot", &1);
                context.snapshot("full_pipeline__output_streams", &["another"]);
                Ok(())
            }),
            scenario("skipped", |_| {
                Err(Skipped::because("nothing to run it with").into())
            }),
        ]);
    }
    match judge() {
        Ok(()) => {
            println!("test result: ok. every red scenario was told by exit code and reports");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("test result: FAILED. {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parts(context: &Context) -> Result<()> {
    context.parts(&[
        ("good", &|| Ok(())),
        ("bad", &|| bail!("segment 3 is not there")),
        ("worse", &|| panic!("boom")),
    ])
}

fn suite(scenario: &str, artifacts: &Path, ci: bool) -> Result<Output> {
    let programs = artifacts.join("programs");
    std::fs::create_dir_all(&programs)?;
    for name in ["worker", "echo-sts", "camera"] {
        // Nothing here starts them; the suite only wants to know that they are there.
        std::fs::write(programs.join(name), "")?;
    }
    let reaper = programs.join("reaper");
    if !reaper.exists() {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_reaper"), &reaper)?;
    }
    let mut command = Command::new(std::env::current_exe()?);
    command
        .env(SUITE_ENV, "1")
        .env("E2E_SCENARIOS", scenario)
        .env("E2E_ARTIFACTS_DIR", artifacts)
        .env("E2E_BIN_DIR", programs)
        .env("E2E_MEDIA_SERVER", "default")
        .env("INSTA_UPDATE", "no")
        .env_remove("CI");
    if ci {
        command.env("CI", "1");
    }
    Ok(command.output()?)
}

fn judge() -> Result<()> {
    let root = tempfile::tempdir()?;
    // Scenario, whether in CI, exit code, and what terminal and reports must say.
    let cases: [(&str, bool, i32, &[&str]); 8] = [
        ("green", false, 0, &[]),
        ("error", false, RED, &["pictures: expected 4, found 3"]),
        ("panic", false, RED, &["boom"]),
        ("told", false, RED, &["answers: expected 4, found 3"]),
        (
            "parts",
            false,
            RED,
            &["bad: segment 3 is not there", "worse: boom"],
        ),
        (
            "snapshots",
            false,
            RED,
            &[
                "snapshot no_such_snapshot differs",
                "snapshot full_pipeline__output_streams differs",
            ],
        ),
        ("skipped", false, 0, &[]),
        ("skipped", true, RED, &["in CI nothing is skipped"]),
    ];
    for (scenario, ci, code, said) in cases {
        let artifacts = root.path().join(scenario);
        let output = suite(scenario, &artifacts, ci)?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let ended = output.status.code();
        ensure!(
            ended == Some(code),
            "{scenario} ended with {ended:?}, not {code}:\n{text}"
        );
        let read = |name: &str| std::fs::read_to_string(artifacts.join(name));
        let (junit, list, index) = (
            read("junit.xml")?,
            read("report.json")?,
            read("index.html")?,
        );
        let red = code != 0;
        ensure!(
            junit.contains("<failure") == red,
            "{scenario}: junit.xml says {junit}"
        );
        ensure!(
            list.contains("\"failed\"") == red,
            "{scenario}: report.json says {list}"
        );
        for words in said {
            ensure!(
                text.contains(words),
                "{scenario} does not say {words:?}:\n{text}"
            );
            // There a part is a line of its own, and what was expected another.
            let what = words.split(": expected ").next().unwrap_or(words);
            let what = what.split(": ").last().unwrap_or(what);
            ensure!(index.contains(what), "the index misses {what:?}");
        }
        let (directory, part) = match scenario {
            "parts" => ("parts-bad", " --part bad\n"),
            name => (name, "\n"),
        };
        let page = read(&format!("{directory}/report.html"))?;
        ensure!(
            page.contains("\"verdict\":\"failed\"") == red,
            "{scenario}: its page does not say so"
        );
        let again = format!("cargo xtask e2e {scenario} --media-server default{part}");
        let repro = read(&format!("{directory}/repro.txt"))?;
        ensure!(
            repro.starts_with(&again),
            "{scenario} is run again by {repro}"
        );
    }
    Ok(())
}
