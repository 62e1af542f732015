//! What the process guard is for: whatever happens to a run, nothing of it stays.
#![expect(
    clippy::unwrap_used,
    reason = "a test may fail where its preparations fail"
)]

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use e2e::{
    cleanup::{MARK_ENV, Run, marked},
    process::{Group, Process, Source, Spawn},
    wait::{self, Look},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const PATIENCE: Duration = Duration::from_secs(10);

fn shell(log_dir: &Path, name: &str, script: &str) -> Spawn {
    Spawn::new(name, "/bin/sh", log_dir.join(format!("{name}.log"))).args(["-c", script])
}

fn is_alive(pid: i32) -> bool {
    // A zombie still has an entry; its state tells.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .starts_with(" Z")
    })
}

fn wait_gone(pids: &[i32]) {
    wait::until("processes to be gone", PATIENCE, || {
        let left: Vec<_> = pids.iter().filter(|pid| is_alive(**pid)).collect();
        Ok(Look::when(left.is_empty(), format!("{left:?}")))
    })
    .unwrap();
}

/// Pids that a script printed as `pid NUMBER`.
fn printed_pids(process: &Process, count: usize) -> Vec<i32> {
    let mut pids = Vec::new();
    process
        .wait_line("its pids", PATIENCE, |line| {
            pids.extend(
                line.text
                    .strip_prefix("pid ")
                    .and_then(|pid| pid.parse::<i32>().ok()),
            );
            (pids.len() == count).then_some(())
        })
        .unwrap();
    pids
}

#[test]
fn output_goes_to_the_log_and_to_whoever_waits() {
    let dir = Run::current().unwrap().scratch("guard").unwrap();
    let group = Group::new().unwrap();
    let script = "echo one; echo two >&2; echo ready 4711; printf 'no newline'";
    let child = group.spawn(&shell(dir.path(), "talker", script)).unwrap();
    let port: u16 = child
        .wait_line("the ready line", PATIENCE, |line| {
            line.text
                .strip_prefix("ready ")
                .and_then(|port| port.parse().ok())
        })
        .unwrap();
    assert_eq!(port, 4711);
    assert!(child.wait_exit(PATIENCE).unwrap().success());
    // The two streams are read side by side: order holds within each.
    let lines = child.lines().into_iter();
    let stdout: Vec<_> = lines
        .filter(|line| line.source == Source::Stdout)
        .map(|line| line.text)
        .collect();
    assert_eq!(stdout, ["one", "ready 4711", "no newline"]);
    let log = std::fs::read_to_string(child.log()).unwrap();
    let mut lines: Vec<_> = log.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["no newline", "one", "ready 4711", "two"]);
    assert!(group.last_lines(10).contains("talker | two"));
}

#[test]
fn a_child_that_dies_before_it_is_ready_is_said_at_once() {
    let dir = Run::current().unwrap().scratch("guard").unwrap();
    let group = Group::new().unwrap();
    let child = group
        .spawn(&shell(
            dir.path(),
            "loser",
            "echo 'no such device' >&2; exit 3",
        ))
        .unwrap();
    let started = Instant::now();
    let error = child
        .wait_line("the ready line", Duration::from_mins(1), |_| None::<()>)
        .unwrap_err();
    let text = format!("{error:#}");
    assert!(started.elapsed() < PATIENCE, "waited for a dead child");
    assert!(
        text.starts_with("while waiting for the ready line: loser died (exit code 3)"),
        "{text}"
    );
    assert!(text.ends_with("| no such device"), "{text}");
    assert!(child.alive().is_err());
}

#[test]
fn the_environment_of_a_child_is_clean_and_marked() {
    let dir = Run::current().unwrap().scratch("guard").unwrap();
    let group = Group::new().unwrap();
    let child = group
        .spawn(&shell(dir.path(), "env", "export -p").env("WANTED", "yes"))
        .unwrap();
    child.wait_exit(PATIENCE).unwrap();
    let lines: Vec<_> = child.lines().into_iter().map(|line| line.text).collect();
    // dash says `export NAME='value'`, bash `declare -x NAME="value"`.
    let has = |name: &str, value: &str| {
        let said = [format!("{name}='{value}'"), format!("{name}=\"{value}\"")];
        lines
            .iter()
            .any(|line| said.iter().any(|said| line.ends_with(said.as_str())))
    };
    assert!(has("WANTED", "yes"), "{lines:?}");
    let dir = Run::current().unwrap().dir().display().to_string();
    assert!(has(MARK_ENV, &dir), "{lines:?}");
    assert!(
        !lines.iter().any(|line| line.contains("CARGO")),
        "{lines:?}"
    );
}

#[test]
fn stopping_reaches_grandchildren_and_what_ignores_sigterm() {
    let dir = Run::current().unwrap().scratch("guard").unwrap();
    let group = Group::new().unwrap();
    let script = "trap '' TERM; sleep 1000 & echo pid $!; echo pid $$; while :; do sleep 0.1; done";
    let child = group.spawn(&shell(dir.path(), "stubborn", script)).unwrap();
    let pids = printed_pids(&child, 2);
    let started = Instant::now();
    let exit = child.stop(Duration::from_millis(300));
    assert!(
        started.elapsed() >= Duration::from_millis(300),
        "no grace was given"
    );
    assert_eq!(e2e::process::exit_text(exit), "killed by SIGKILL");
    wait_gone(&pids);
}

#[test]
fn a_leader_that_exits_takes_its_group_with_it() {
    let dir = Run::current().unwrap().scratch("guard").unwrap();
    let group = Group::new().unwrap();
    let child = group
        .spawn(&shell(
            dir.path(),
            "parent",
            "sleep 1000 & echo pid $!; exit 0",
        ))
        .unwrap();
    let pids = printed_pids(&child, 1);
    assert!(child.wait_exit(PATIENCE).unwrap().success());
    wait_gone(&pids);
}

#[test]
fn children_are_stopped_in_reverse_order_also_by_a_panic() {
    let dir = Run::current().unwrap().scratch("guard").unwrap();
    let order = dir.path().join("order");
    let script = |name: &str| {
        format!(
            "trap 'echo {name} >> {}; exit 0' TERM; echo up; while :; do sleep 0.02; done",
            order.display()
        )
    };
    let panicked = std::panic::catch_unwind(|| {
        let group = Group::new().unwrap();
        for name in ["first", "second", "third"] {
            let child = group
                .spawn(&shell(dir.path(), name, &script(name)))
                .unwrap();
            child
                .wait_line("up", PATIENCE, |line| (line.text == "up").then_some(()))
                .unwrap();
        }
        panic!("on purpose");
    });
    assert!(panicked.is_err());
    assert_eq!(
        std::fs::read_to_string(&order).unwrap(),
        "third\nsecond\nfirst\n"
    );
}

/// Signals at any moment of a start: nothing stays, and from the first thing that is made on the exit code
/// says what happened.
#[test]
fn a_hundred_early_signals_are_handled() {
    for round in 0..100 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "run_that_only_starts", "--nocapture"])
            .env(OTHER_RUN, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let dir = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("fact ").map(PathBuf::from))
            .expect("it says its directory");
        kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "round {round}");
        assert!(!dir.exists(), "round {round}: {}", dir.display());
    }
}

/// Not a test by itself: the body of the hundred.
#[test]
fn run_that_only_starts() {
    if std::env::var_os(OTHER_RUN).is_some() {
        println!("fact {}", Run::current().unwrap().dir().display());
        std::thread::sleep(Duration::from_mins(1));
    }
}

/// A run of the suite as another process: `run_for_others` below, started again from this binary.
struct OtherRun {
    child: Child,
    dir: PathBuf,
    pids: Vec<i32>,
}

const OTHER_RUN: &str = "E2E_TEST_OTHER_RUN";

impl OtherRun {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "run_for_others", "--nocapture"])
            .env(OTHER_RUN, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut facts = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            facts.extend(line.strip_prefix("fact ").map(str::to_owned));
            if facts.len() == 4 {
                break;
            }
        }
        let pids = facts[1..].iter().map(|pid| pid.parse().unwrap()).collect();
        Self {
            child,
            dir: PathBuf::from(&facts[0]),
            pids,
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    fn assert_nothing_left(&self) {
        wait_gone(&self.pids);
        wait::until("the run's directory to be gone", PATIENCE, || {
            let left = marked(&self.dir);
            let gone = left.is_empty() && !self.dir.exists();
            Ok(Look::when(gone, format!("{left:?}")))
        })
        .unwrap();
    }
}

/// Not a test by itself: the body of [`OtherRun`].
#[test]
fn run_for_others() {
    if std::env::var_os(OTHER_RUN).is_none() {
        return;
    }
    let run = Run::current().unwrap();
    let scratch = run.scratch("environment").unwrap();
    let group = Group::new().unwrap();
    let environment = Group::marked(scratch.path()).unwrap();
    // The grandchild has left the group (and so the reach of a signal to it).
    let script = "setsid sleep 1000 & echo pid $!; echo pid $$; while :; do sleep 0.1; done";
    let child = environment.spawn(&shell(run.dir(), "child", script));
    let script = "echo pid $$; while :; do sleep 0.1; done";
    let other = group.spawn(&shell(run.dir(), "other", script)).unwrap();
    println!("fact {}", run.dir().display());
    for pid in [printed_pids(&child.unwrap(), 2), printed_pids(&other, 1)].concat() {
        println!("fact {pid}");
    }
    std::thread::sleep(Duration::from_mins(1));
}

#[test]
fn a_killed_run_is_cleaned_up_by_its_reaper() {
    let mut other = OtherRun::start();
    assert!(other.pids.iter().all(|pid| is_alive(*pid)) && other.dir.exists());
    other.signal(Signal::SIGKILL);
    other.child.wait().unwrap();
    other.assert_nothing_left();
}

#[test]
fn ctrl_c_stops_everything_and_says_so_by_the_exit_code() {
    let mut other = OtherRun::start();
    other.signal(Signal::SIGINT);
    let exit = other.child.wait().unwrap();
    assert_eq!(exit.code(), Some(130));
    other.assert_nothing_left();
}

#[test]
fn the_next_run_cleans_up_when_the_reaper_was_killed_too() {
    let mut other = OtherRun::start();
    // The reaper carries the directory as its argument, not as its mark.
    let wanted = other.dir.to_str().unwrap();
    let reaper = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .find(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.split('\0').nth(1) == Some(wanted))
        })
        .expect("the run has no reaper");
    kill(Pid::from_raw(reaper), Signal::SIGKILL).unwrap();
    other.signal(Signal::SIGKILL);
    other.child.wait().unwrap();
    assert!(
        other.pids.iter().all(|pid| is_alive(*pid)),
        "who cleaned up?"
    );

    let mut next = OtherRun::start();
    other.assert_nothing_left();
    next.signal(Signal::SIGTERM);
    assert_eq!(next.child.wait().unwrap().code(), Some(143));
    next.assert_nothing_left();
}

#[test]
fn a_listening_child_hears_lines_and_the_end() {
    let dir = Run::current().unwrap().scratch("guard").unwrap();
    let group = Group::new().unwrap();
    let script = "while read -r line; do echo heard $line; done; echo over";
    let child = group
        .spawn(&shell(dir.path(), "listener", script).listening())
        .unwrap();
    child.say("go").unwrap();
    child
        .wait_line("an echo", PATIENCE, |line| {
            (line.text == "heard go").then_some(())
        })
        .unwrap();
    child.hush();
    assert!(child.wait_exit(PATIENCE).unwrap().success());
    assert_eq!(child.last_lines(1), ["over"]);
    assert!(child.say("too late").is_err());
}
