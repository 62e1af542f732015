//! What `deploy/` names exists: metrics, options, pages; and the tools of each place accept its files.
#![expect(
    clippy::unwrap_used,
    reason = "a test may fail where its preparations fail"
)]

mod tools;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::CommandFactory as _;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
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

/// A tool of the place that a file is for accepts it; what it said.
fn accepts(program: impl AsRef<OsStr>, arguments: &[&str], promised: bool) -> Option<String> {
    let program = program.as_ref();
    let (content, said) = tools::judge(program, arguments, "", promised)?;
    assert!(content, "{} {arguments:?}:\n{said}", program.display());
    Some(said)
}

/// The Python that `cargo xtask setup` makes, and one of its programs: they do not start by themselves,
/// because the environment was moved to where it is.
fn of_python(name: &str) -> (PathBuf, String) {
    let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../python/bin/python3");
    let given = std::env::var_os("E2E_PYTHON").filter(|value| !value.is_empty());
    let python = given.map_or(made, PathBuf::from);
    let program = python.with_file_name(name).display().to_string();
    (python, program)
}

fn path(file: &str) -> String {
    deploy().join(file).display().to_string()
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
        // The scripts' own.
        .chain(["WORKER_BIN"])
        .collect();
    for file in [
        "systemd/dub-worker@.service",
        "mediamtx/dub-worker-on-ready",
        "nomad/dub-worker.nomad.hcl",
        "kubernetes/dub-worker.yaml",
        "slurm/dub-worker.sbatch",
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
    let heard = panels
        .iter()
        .find(|it| it["title"] == "Segments by what is heard");
    let heard = heard.unwrap()["targets"][0]["expr"].as_str().unwrap();
    // Answers of the service are not heard yet.
    assert!(heard.contains(names::ON_AIR), "{heard}");
    for panel in panels {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{}", panel["title"]);
        for target in targets {
            let query = target["expr"].as_str().unwrap();
            assert!(query.contains("stream_id=~\"$stream_id\""), "{query}");
            // Empty where a worker is scraped once a minute.
            assert!(!query.contains("[1m]"), "{query}");
        }
    }
}

#[test]
fn prometheus_accepts_its_files() {
    for (arguments, file) in [
        (["check", "config"], "prometheus/prometheus.yml"),
        (["check", "rules"], "prometheus/rules.yml"),
        (["test", "rules"], "prometheus/rules_test.yml"),
    ] {
        accepts("promtool", &[&arguments[..], &[&path(file)]].concat(), true);
    }
}

#[test]
fn kubernetes_accepts_its_file() {
    let file = path("kubernetes/dub-worker.yaml");
    let (python, program) = of_python("kubernetes-validate");
    accepts(python, &[&program, "--strict", "--quiet", &file], true);
}

/// The file is HCL, with one job of one group of one task, and what the task runs drains and waits.
#[test]
fn nomads_file_is_read_and_its_command_drains_and_waits_for_a_person() {
    let file = path("nomad/dub-worker.nomad.hcl");
    let (python, reader) = of_python("hcl2tojson");
    if let Some((content, said)) = tools::judge(python, &[&reader, &file], "", true) {
        assert!(content, "{said}");
        // What it says on standard error comes behind it.
        let mut values = serde_json::Deserializer::from_str(&said).into_iter();
        let job: serde_json::Value = values.next().expect("a job").unwrap();
        let job = &job["job"][0]["\"dub-worker\""];
        // Another stream is another job, and reads its own variable.
        let id = "dub-${var.stream}";
        assert_eq!(job["id"], format!("\"{id}\""));
        let group = &job["group"][0]["\"worker\""];
        // A worker that is refused at once ends every 5 s.
        assert!(
            group["restart"][0]["attempts"].as_u64() > Some(60),
            "{group}"
        );
        let task = &group["task"][0]["\"worker\""];
        let data = task["template"][0]["data"].as_str().unwrap_or_default();
        assert!(data.contains(&format!("nomad/jobs/{id}\\\"")), "{data}");
        assert_eq!(task["kill_signal"], "\"SIGTERM\"");
    }

    let text = read("nomad/dub-worker.nomad.hcl");
    let (_, script) = text.split_once("<<-EOF\n").unwrap();
    let (script, _) = script.split_once("EOF\n").unwrap();
    let shell = Shell::of(script);
    for code in [0, 10, 12, 13] {
        assert_eq!(shell.run(&format!("exit {code}"), 1).0, code);
    }
    for code in [2, 11, 14] {
        let (code_then, _) = shell.run(&format!("exit {code}"), 1);
        assert_eq!(code_then, 124, "{code} waits for a person");
    }
    assert_eq!(shell.stopped(To::One, 1), (Some(0), "drained\n".to_owned()));

    // Whenever the signal comes, it is the end: behind a line of the script while the worker runs, and later.
    for (body, told) in [
        ("exec sleep 60", ["TERM\n", "/worker &\n"].as_slice()),
        ("exit 2", &["; done\n", "\"$stop\" ]; do ", "sleep 0.2 & "]),
    ] {
        for text in told {
            let code = shell.told(body, text);
            assert!([2, 143].contains(&code), "{code} when told behind {text}");
        }
    }
}

/// What a pod runs: tried again inside it, or told to Kubernetes, and the drain of a node is no end of the Job.
#[test]
fn a_pod_goes_on_until_it_is_told_and_never_completes_its_job() {
    let text = read("kubernetes/dub-worker.yaml");
    let (_, script) = text.split_once("- |\n").unwrap();
    let lines = script
        .lines()
        .map_while(|line| line.strip_prefix("              "));
    let shell = Shell::of(&lines.collect::<Vec<_>>().join("\n"));
    for code in [0, 10, 12, 13] {
        let (ended, tries) = shell.run(&format!("exit {code}"), 2);
        assert!(ended == 124 && tries >= 2, "{code}: {ended} after {tries}");
    }
    for code in [1, 2, 11, 14, 139] {
        assert_eq!(shell.run(&format!("exit {code}"), 2), (code, 1));
    }
    assert_eq!(
        shell.stopped(To::One, 1),
        (Some(143), "drained\n".to_owned())
    );
    for (body, told) in [
        (
            "exec sleep 60",
            ["TERM\n", "/worker &\n", "pid=$!\n", "|| tell\n"].as_slice(),
        ),
        (
            "exit 10",
            &[
                "code=$?\n",
                "; done\n",
                "pid=\n",
                "[ \"$stop\" ] || { ",
                "sleep 0.2 & ",
            ],
        ),
    ] {
        for text in told {
            assert_eq!(shell.told(body, text), 143, "told behind {text:?}");
        }
    }
}

/// A shell script that runs a worker, with one that does as the test says, and shorter waits.
struct Shell {
    dir: tempfile::TempDir,
    script: String,
}

impl Shell {
    fn of(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fake = dir.path().join("worker").display().to_string();
        let mut words = script.split(|c: char| !c.is_ascii_alphanumeric() && c != '/');
        let installed = words.find(|word| word.ends_with("/worker")).unwrap();
        let script = script.replace(installed, &fake);
        let script = script.replace("sleep 5", "sleep 0.2");
        Self { dir, script }
    }

    fn fake(&self) -> PathBuf {
        self.dir.path().join("worker")
    }

    fn command(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    /// For so many seconds at most, with a worker that does this: the exit code, and how often it was started.
    fn run(&self, body: &str, seconds: u32) -> (i32, usize) {
        let tried = self.dir.path().join("tried");
        let _ = fs::remove_file(&tried);
        let note = format!("echo >> {}", tried.display());
        program(&self.fake(), &format!("{note}\n{body}"));
        let code = timeout(&Self::command(&self.script), seconds, To::One);
        (code, fs::read_to_string(&tried).unwrap().len())
    }

    /// Told to stop while its worker runs.
    fn stopped(&self, to: To, signals: u32) -> (Option<i32>, String) {
        // Longer than the script takes to pass a signal on.
        program(&self.fake(), &DRAINS.replace("sleep 0.4", "sleep 2"));
        let mut command = Self::command(&self.script);
        stopped(&mut command, &self.fake(), to, signals)
    }

    /// The exit code when it is told behind `text`, 124 if that is lost.
    fn told(&self, body: &str, text: &str) -> i32 {
        program(&self.fake(), body);
        let place = self.script.find(text).expect(text) + text.len();
        timeout(&told_at(&self.script, place), 5, To::One)
    }
}

/// A shell script that is sent SIGTERM at this place of its text.
fn told_at(script: &str, at: usize) -> Command {
    let mut command = Command::new("sh");
    let script = format!("{}kill -TERM $$; {}", &script[..at], &script[at..]);
    command.args(["-c", &script]);
    command
}

#[test]
fn every_place_treats_exit_codes_the_same() {
    use worker::exit::{INPUT, OK, OUTPUT, STS_GONE, STS_REFUSED, UNSUITABLE_INPUT, USAGE};
    let again = [INPUT, OUTPUT, STS_GONE];
    let person = [USAGE, UNSUITABLE_INPUT, STS_REFUSED];
    let list = |codes: [u8; 3], between: &str| codes.map(|code| code.to_string()).join(between);
    for (file, wanted) in [
        (
            "systemd/dub-worker@.service",
            format!("RestartPreventExitStatus={}\n", list(person, " ")),
        ),
        // No publisher for a while ends with 0, and a permanent stream comes back all the same.
        ("systemd/dub-worker@.service", "Restart=always\n".to_owned()),
        // Its publisher starts it again.
        (
            "mediamtx/dub-worker-on-ready",
            format!("{OK}) exit {OK} ;;"),
        ),
        (
            "nomad/dub-worker.nomad.hcl",
            "type = \"service\"\n".to_owned(),
        ),
        (
            "kubernetes/dub-worker.yaml",
            format!("{OK} | {}) [", list(again, " | ")),
        ),
        (
            "slurm/dub-worker.sbatch",
            format!("[ \"$code\" = {OK} ] || exit"),
        ),
        (
            "mediamtx/dub-worker-on-ready",
            format!("{})", list(again, " | ")),
        ),
        (
            "nomad/dub-worker.nomad.hcl",
            format!("{})", list(person, " | ")),
        ),
        (
            "kubernetes/dub-worker.yaml",
            format!("[{}]", list(person, ", ")),
        ),
        (
            "slurm/slurm.conf.part",
            format!("RequeueExit={}\n", list(again, ",")),
        ),
        (
            "slurm/slurm.conf.part",
            format!("RequeueExitHold={}\n", list(person, ",")),
        ),
    ] {
        assert!(read(file).contains(&wanted), "{file} has no {wanted:?}");
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
    if let Some(said) = accepts("systemd-analyze", &["verify", path], false) {
        assert!(said.trim().is_empty(), "{said}");
        let hardened = ["security", "--offline=true", "--threshold=20", path];
        accepts("systemd-analyze", &hardened, false);
    }
}

/// The unit's directives.
fn directives() -> Vec<(String, String)> {
    let unit = read("systemd/dub-worker@.service");
    let lines = unit.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once('='));
    pairs
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// A server that refuses for an hour is no reason to give up.
#[test]
fn systemd_starts_a_worker_again_however_often() {
    let limit = ("StartLimitIntervalSec".to_owned(), "0".to_owned());
    assert!(directives().contains(&limit));
}

/// `process_start_time_seconds` comes from `/proc/stat`.
#[test]
fn systemd_leaves_the_worker_what_it_tells_of_itself() {
    let subset = directives().into_iter().find(|it| it.0 == "ProcSubset");
    assert!(subset.is_none_or(|it| it.1 == "all"));
}

/// systemd hands a directory that several units name to the user of each that starts, with all that is in it.
#[test]
fn streams_of_a_host_that_share_a_directory_share_its_owner() {
    let unit = directives();
    let has = |name: &str, value: &str| unit.contains(&(name.to_owned(), value.to_owned()));
    assert!(has("CacheDirectory", "dub-worker") && has("User", "dub-worker"));
}

/// With the default address the second stream of a host would answer under the first one's.
#[test]
fn each_stream_of_a_host_has_a_metrics_address_of_its_own_or_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("news.toml");
    fs::write(&config, "stream-id = 'news'\n").unwrap();
    let unit = directives();
    let (_, start) = unit.iter().find(|it| it.0 == "ExecStart").unwrap();
    let variable = "${WORKER_METRICS_ADDR}";
    let arguments = start.split(' ').skip(1).map(|word| match word {
        // What systemd makes of a variable that nobody set.
        word if word == variable => "",
        "/etc/dub-worker/%i.toml" => config.to_str().unwrap(),
        word => word,
    });
    let mut worker = Command::new(env!("CARGO_BIN_EXE_worker"));
    let refused = worker.args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("--metrics-addr"), "{said}");

    let scraped = read("prometheus/prometheus.yml");
    let targets: BTreeSet<_> = scraped
        .split('"')
        .filter(|word| word.starts_with("127.0.0.1:"))
        .collect();
    assert!(targets.len() >= 2, "{targets:?}");
}

/// Makes a program of a shell script, by a process of its own: a file that this one has open for writing is
/// inherited by what tests beside it start just then, and cannot be run meanwhile ("text file busy").
fn program(path: &Path, body: &str) {
    let written = Command::new("/bin/sh")
        .args(["-c", r#"printf '%s' "$1" > "$0" && chmod 755 "$0""#])
        .arg(path)
        .arg(format!("#!/bin/sh\n{body}\n"))
        .status();
    assert!(written.is_ok_and(|it| it.success()), "{}", path.display());
}

/// Who is sent a signal.
#[derive(Debug, Clone, Copy, PartialEq)]
enum To {
    One,
    Group,
}

/// Says how often it was told to stop, which takes it a moment.
const DRAINS: &str = "stop() { trap 'echo again >> $0.end' TERM; sleep 0.4 & wait $!; echo drained >> $0.end; exit 0; }
trap stop TERM; echo up > $0.up; while :; do sleep 0.1; done";

/// Starts a script, waits for its worker [`DRAINS`] at `fake`, and sends signals to it: its exit code, and
/// what the worker says of its end.
fn stopped(script: &mut Command, fake: &Path, to: To, signals: u32) -> (Option<i32>, String) {
    let [up, end] = ["up", "end"].map(|kind| fake.with_extension(kind));
    for left in [&up, &end] {
        let _ = fs::remove_file(left);
    }
    let mut script = script.process_group(0).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !up.exists() {
        assert!(Instant::now() < deadline, "the worker does not start");
        sleep(Duration::from_millis(20));
    }
    let pid = Pid::from_raw(script.id() as i32);
    for _ in 0..signals {
        match to {
            To::One => kill(pid, Signal::SIGTERM).unwrap(),
            To::Group => killpg(pid, Signal::SIGTERM).unwrap(),
        }
        // The drain takes four times as long.
        sleep(Duration::from_millis(100));
    }
    let status = loop {
        if let Some(status) = script.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            let _ = killpg(pid, Signal::SIGKILL);
            panic!("it does not end");
        }
        sleep(Duration::from_millis(20));
    };
    (status.code(), fs::read_to_string(end).unwrap_or_default())
}

/// Runs a command for so many seconds at most, then sends SIGTERM: its exit code, 124 if that was needed.
fn timeout(command: &Command, seconds: u32, to: To) -> i32 {
    let mut limited = Command::new("timeout");
    if to == To::One {
        limited.arg("--foreground");
    }
    limited.args(["-s", "TERM", "-k", "10", &seconds.to_string()]);
    limited.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        limited.env(name, value.unwrap_or_default());
    }
    limited.status().unwrap().code().unwrap()
}

/// The script that MediaMTX starts: which exit code is tried again, and that a signal drains.
#[test]
fn the_mediamtx_script_tries_again_only_what_may_recover() {
    let dir = tempfile::tempdir().unwrap();
    let tried = dir.path().join("tried");
    let fake = dir.path().join("worker");
    let run = |body: &str, to| {
        let note = format!("echo \"$WORKER_STREAM_ID\" >> {}", tried.display());
        program(&fake, &format!("{note}\n{body}"));
        let _ = fs::remove_file(&tried);
        let mut script = Command::new(deploy().join("mediamtx/dub-worker-on-ready"));
        script.env("WORKER_BIN", &fake).env("G1", "news");
        (timeout(&script, 2, to), fs::read_to_string(&tried).unwrap())
    };
    for code in [0, 1, 2, 11, 14] {
        let body = format!("exit {code}");
        assert_eq!(run(&body, To::One), (code, "news\n".to_owned()));
    }
    // MediaMTX sends its signal to the whole group; a person may send another.
    for (to, signals) in [(To::One, 1), (To::Group, 1), (To::One, 2)] {
        program(&fake, DRAINS);
        let mut script = Command::new(deploy().join("mediamtx/dub-worker-on-ready"));
        script.env("WORKER_BIN", &fake).env("G1", "news");
        let ended = stopped(&mut script, &fake, to, signals);
        assert_eq!(
            ended,
            (Some(0), "drained\n".to_owned()),
            "{to:?}, {signals}"
        );
    }
    program(&fake, "exec sleep 60");
    let script = read("mediamtx/dub-worker-on-ready");
    for place in ["while [", "pid=$!", "# The signal may", "wait \"$pid\""] {
        let mut script = told_at(&script, script.find(place).unwrap());
        script.env("WORKER_BIN", &fake).env("G1", "news");
        let code = timeout(&script, 5, To::One);
        assert!([0, 143].contains(&code), "{code} when told before {place}");
    }
    assert_eq!(
        run("exit 10", To::One).0,
        124,
        "waits for its next try until it is stopped"
    );
}

/// Slurm signals the shell alone (`scancel --batch`) or all processes of the job.
#[test]
fn a_job_of_slurm_waits_for_its_publisher_and_drains_once_whoever_is_told() {
    let shell = Shell::of(&read("slurm/dub-worker.sbatch"));
    for (code, tries) in [(1, 1), (2, 1), (10, 1), (14, 1)] {
        assert_eq!(shell.run(&format!("exit {code}"), 2), (code, tries));
    }
    let (ended, tries) = shell.run("exit 0", 2);
    assert!(ended == 124 && tries >= 2, "{ended} after {tries}");
    for (to, signals) in [(To::One, 1), (To::One, 2), (To::Group, 1)] {
        let ended = shell.stopped(to, signals);
        let drained = (Some(0), "drained\n".to_owned());
        assert_eq!(ended, drained, "{to:?}, {signals}");
    }
    for (body, told) in [
        (
            "exec sleep 60",
            ["TERM\n", "stop\" ]; do\n", "toml\" &\n", "pid=$!\n"].as_slice(),
        ),
        (
            "exit 0",
            &["code=$?\n", "; done\n", "|| exit 0\n", "sleep 0.2 & "],
        ),
    ] {
        for text in told {
            assert_eq!(shell.told(body, text), 0, "told behind {text:?}");
        }
    }
}
