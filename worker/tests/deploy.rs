//! What `deploy/` names exists: metrics, options, pages; and the tools of each place accept its files.
#![expect(
    clippy::unwrap_used,
    reason = "a test may fail where its preparations fail"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::CommandFactory as _;
use worker::telemetry::names;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn read(file: &str) -> String {
    fs::read_to_string(deploy().join(file)).unwrap()
}

/// Words of a text that begin with `prefix`.
fn words<'a>(text: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with(prefix))
        .collect()
}

/// Runs a tool of the place that a file is for; where it is missing that is said, and fails in CI.
fn tool(program: &str, arguments: &[&str], dir: &Path) -> Option<String> {
    let output = match Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .output()
    {
        Ok(output) => output,
        Err(error) => {
            eprintln!("SKIPPED: {program}: {error}");
            return None;
        }
    };
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{program} {arguments:?}:\n{text}");
    Some(text)
}

#[test]
fn every_metric_that_is_asked_for_exists() {
    let suffixes = ["", "_bucket", "_count", "_sum"];
    let known: BTreeSet<String> = names::all()
        .iter()
        .flat_map(|metric| suffixes.map(|suffix| format!("{}{suffix}", metric.name)))
        .collect();
    for file in [
        "prometheus/rules.yml",
        "prometheus/rules_test.yml",
        "grafana/dub-worker.json",
    ] {
        let text = read(file);
        let named = words(&text, "worker_");
        assert!(!named.is_empty(), "{file}");
        for name in named {
            assert!(known.contains(name), "{file}: there is no {name}");
        }
    }
}

#[test]
fn every_option_that_is_set_exists() {
    let command = worker::cli::Cli::command();
    let known: BTreeSet<_> = command
        .get_arguments()
        .filter_map(|arg| arg.get_env()?.to_str())
        // The MediaMTX script's own.
        .chain(["WORKER_BIN"])
        .collect();
    for file in [
        "systemd/dub-worker@.service",
        "mediamtx/dub-worker-on-ready",
        "nomad/dub-worker.nomad.hcl",
        "kubernetes/dub-worker.yaml",
    ] {
        let text = read(file);
        let named = words(&text, "WORKER_");
        assert!(named.len() >= 3, "{file}");
        for name in named {
            assert!(known.contains(name), "{file}: there is no {name}");
        }
    }
}

#[test]
fn the_dashboard_is_json_and_every_panel_asks_for_something() {
    let board: serde_json::Value = serde_json::from_str(&read("grafana/dub-worker.json")).unwrap();
    let panels = board["panels"].as_array().unwrap();
    assert!(panels.len() >= 8);
    for panel in panels {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{}", panel["title"]);
        for target in targets {
            let query = target["expr"].as_str().unwrap();
            assert!(query.contains("stream_id=~\"$stream_id\""), "{query}");
        }
    }
}

#[test]
fn prometheus_accepts_its_files() {
    let dir = deploy().join("prometheus");
    for arguments in [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "rules.yml"],
        ["test", "rules", "rules_test.yml"],
    ] {
        tool("promtool", &arguments, &dir);
    }
}

#[test]
fn systemd_accepts_its_unit_and_finds_it_hardened() {
    let dir = tempfile::tempdir().unwrap();
    let unit = read("systemd/dub-worker@.service");
    let (before, rest) = unit.split_once("ExecStart=").unwrap();
    let arguments = rest.split_once(' ').unwrap().1;
    let worker = env!("CARGO_BIN_EXE_worker");
    let unit = format!("{before}ExecStart={worker} {arguments}");
    let path = dir.path().join("dub-worker@news.service");
    fs::write(&path, unit).unwrap();
    let path = path.to_str().unwrap();
    if let Some(said) = tool("systemd-analyze", &["verify", path], dir.path()) {
        assert!(said.trim().is_empty(), "{said}");
        let hardened = ["security", "--offline=true", "--threshold=20", path];
        tool("systemd-analyze", &hardened, dir.path());
    }
}

/// The script that MediaMTX starts: which exit code is tried again, and that a signal drains.
#[test]
fn the_mediamtx_script_tries_again_only_what_may_get_well() {
    let dir = tempfile::tempdir().unwrap();
    let tried = dir.path().join("tried");
    let fake = dir.path().join("worker");
    let run = |body: &str| {
        fs::write(
            &fake,
            format!(
                "#!/bin/sh\necho \"$WORKER_STREAM_ID\" >> {}\n{body}\n",
                tried.display()
            ),
        )
        .unwrap();
        let _ = fs::remove_file(&tried);
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).unwrap();
        let script = deploy().join("mediamtx/dub-worker-on-ready");
        let mut command = Command::new("timeout");
        let status = command
            .args(["-s", "TERM", "-k", "10", "2"])
            .arg(script)
            .env("WORKER_BIN", &fake)
            .env("G1", "news")
            .status()
            .unwrap();
        (status.code().unwrap(), fs::read_to_string(&tried).unwrap())
    };
    for code in [0, 1, 2, 11, 14] {
        assert_eq!(run(&format!("exit {code}")), (code, "news\n".to_owned()));
    }
    // `timeout` says 124 when it had to send its signal.
    let wait = "trap 'echo drained >> $0.end; exit 0' TERM; while :; do sleep 0.1; done";
    assert_eq!(run(wait).0, 124);
    assert!(
        dir.path().join("worker.end").exists(),
        "the worker has drained"
    );
    assert_eq!(
        run("exit 10").0,
        124,
        "waits for its next try until it is stopped"
    );
}
