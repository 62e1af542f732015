//! Runs child programs and never leaves one behind half-way.
//!
//! Every child leads a process group of its own and reads nothing from the terminal. SIGINT,
//! SIGTERM and SIGHUP reach only us; they are passed on to the whole group, and we wait until the
//! group is empty before we go, so that the prompt comes back after the clean-up and not in the
//! middle of it. The third signal kills the group.
//!
//! `cargo` dies at once of a signal while the test program below it is still cleaning up. On
//! Linux we are therefore the subreaper: such a grandchild becomes our child and can be waited for.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::failure::{CANNOT_RUN, CannotRun, Interrupted};

/// How long the rest of a group may take to clean up after its leader has ended.
const GROUP_GRACE: Duration = Duration::from_secs(30);
/// From this signal on the group is killed instead of asked.
const IMPATIENT: usize = 3;
/// How much of a child's error output is kept for a look at it afterwards.
const KEPT_LINES: usize = 60;

static SUPERVISOR: Supervisor = Supervisor::new();

/// Starts passing signals on.
///
/// Handlers, not a blocked mask: a mask is inherited by every program below, and one that blocks
/// SIGTERM cannot be stopped. What is ignored from the start (`nohup`, a script's background job)
/// stays ignored.
pub(crate) fn watch_signals() {
    let ignored = ignored_signals();
    let watched = [SIGINT, SIGTERM, SIGHUP];
    let watched = watched
        .into_iter()
        .filter(|signal| ignored & (1 << (signal - 1)) == 0);
    // Without handlers the default action still ends us; only the orderly way is lost.
    let Ok(mut signals) = Signals::new(watched) else {
        return;
    };
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_child_subreaper(true);
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if let Ok(signal) = Signal::try_from(signal) {
                SUPERVISOR.signal(signal);
            }
        }
    });
}

/// The set of ignored signals, bit 0 for signal 1; empty where the kernel does not tell.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// Ends with `Interrupted` when a signal has arrived.
pub(crate) fn check_interrupted() -> anyhow::Result<()> {
    SUPERVISOR.check()
}

/// Waits, but not longer than until a signal arrives.
pub(crate) fn pause(duration: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        check_interrupted()?;
        std::thread::sleep(Duration::from_millis(50).min(end - Instant::now().min(end)));
    }
    check_interrupted()
}

/// `cargo`, at the root of the checkout.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(crate::root());
    command
}

/// Runs to the end with our own output, and turns an unhappy end into an error.
pub(crate) fn run(what: &str, command: &mut Command) -> anyhow::Result<()> {
    let status = SUPERVISOR.run(command).with_context(|| what.to_owned())?;
    judge(what, status)
}

/// Like `run`, but also returns the last lines of standard error together with the status.
pub(crate) fn run_watched(
    what: &str,
    command: &mut Command,
) -> anyhow::Result<(ExitStatus, String)> {
    let mut kept = Vec::new();
    let status = SUPERVISOR
        .run_with(command.stderr(Stdio::piped()), |child| {
            let Some(stderr) = child.stderr.take() else {
                return;
            };
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                crate::say::tell!("{line}");
                if kept.len() == KEPT_LINES {
                    kept.remove(0);
                }
                kept.push(line);
            }
        })
        .with_context(|| what.to_owned())?;
    Ok((status, kept.join("\n")))
}

/// Turns an unhappy end into an error.
pub(crate) fn judge(what: &str, status: ExitStatus) -> anyhow::Result<()> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) if code == i32::from(CANNOT_RUN) => {
            Err(CannotRun(format!("{what} could not run here")).into())
        }
        (Some(code), _) => anyhow::bail!("{what} failed (exit code {code})"),
        (None, Some(signal)) => anyhow::bail!("{what} was killed by signal {signal}"),
        (None, None) => anyhow::bail!("{what} ended without a status"),
    }
}

/// The child that is running and the signals that have arrived.
#[derive(Debug)]
struct Supervisor {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    group: Option<Pid>,
    first_signal: Option<Signal>,
    signals: usize,
}

impl Supervisor {
    const fn new() -> Self {
        Self {
            state: Mutex::new(State {
                group: None,
                first_signal: None,
                signals: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> anyhow::Result<()> {
        match self.lock().first_signal {
            Some(signal) => Err(Interrupted(signal as i32).into()),
            None => Ok(()),
        }
    }

    /// A signal has arrived: remember it, and pass it on.
    fn signal(&self, signal: Signal) {
        let mut state = self.lock();
        state.first_signal.get_or_insert(signal);
        state.signals += 1;
        if let Some(group) = state.group {
            let passed_on = if state.signals < IMPATIENT {
                signal
            } else {
                Signal::SIGKILL
            };
            // The group may be gone already, which is what is wanted.
            let _ = killpg(group, passed_on);
        }
    }

    fn run(&self, command: &mut Command) -> anyhow::Result<ExitStatus> {
        self.run_with(command, |_| ())
    }

    fn run_with(
        &self,
        command: &mut Command,
        during: impl FnOnce(&mut Child),
    ) -> anyhow::Result<ExitStatus> {
        let (mut child, group) = {
            // Held over the start, so that no signal falls between starting and knowing the child.
            let mut state = self.lock();
            if let Some(signal) = state.first_signal {
                return Err(Interrupted(signal as i32).into());
            }
            let child = command
                .stdin(Stdio::null())
                .process_group(0)
                .spawn()
                .map_err(|error| {
                    let program = command.get_program().to_string_lossy().into_owned();
                    match error.kind() {
                        std::io::ErrorKind::NotFound => {
                            anyhow::Error::new(CannotRun(format!("{program} is not installed")))
                        }
                        _ => anyhow::Error::new(error).context(format!("cannot start {program}")),
                    }
                })?;
            let group = Pid::from_raw(i32::try_from(child.id()).expect("process ids fit an i32"));
            state.group = Some(group);
            (child, group)
        };
        during(&mut child);
        let status = child.wait();
        empty_group(group, GROUP_GRACE);
        self.lock().group = None;
        self.check()?;
        Ok(status?)
    }
}

/// Waits until nothing of a group is left among our children; kills what overstays.
fn empty_group(group: Pid, grace: Duration) {
    let end = Instant::now() + grace;
    let mut killed = false;
    // ECHILD: nobody of this group is a child of ours any more.
    while let Ok(status) = waitpid(Pid::from_raw(-group.as_raw()), Some(WaitPidFlag::WNOHANG)) {
        if status != nix::sys::wait::WaitStatus::StillAlive {
            continue;
        }
        if !killed && Instant::now() >= end {
            crate::say::tell!(
                "warning: process group {group} did not end within {grace:?}; killed"
            );
            killed = killpg(group, Signal::SIGKILL).is_ok();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_child_can_be_stopped() {
        // A shell would clean its mask up by itself and hide what it was given.
        watch_signals();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let seen = directory.path().join("status");
        let mut command = Command::new("cp");
        command.args(["/proc/self/status"]).arg(&seen);
        Supervisor::new().run(&mut command).expect("runs");
        let status = std::fs::read_to_string(&seen).expect("copied");
        let mask = |name: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .expect("is there");
            u64::from_str_radix(line.trim(), 16).expect("hexadecimal")
        };
        assert_eq!(
            mask("SigBlk:"),
            0,
            "a blocked signal is inherited by everything below"
        );
        let watched = (1 << (SIGINT - 1)) | (1 << (SIGTERM - 1));
        assert_eq!(mask("SigIgn:") & watched, ignored_signals() & watched);
    }

    #[test]
    fn a_signal_reaches_the_whole_group_and_the_end_is_awaited() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let ready = directory.path().join("ready");
        let cleaned = directory.path().join("cleaned");
        let supervisor = Arc::new(Supervisor::new());
        let runner = Arc::clone(&supervisor);
        // The shell's own child cleans up; the shell waits for it.
        let mut command = sh(&format!(
            "(trap 'touch {1}; exit 0' TERM; touch {0}; while :; do sleep 0.05; done) & \
             trap 'wait; exit 7' TERM; wait",
            ready.display(),
            cleaned.display()
        ));
        command.stderr(Stdio::null()); // The shell reports the end of its child there.
        let run = std::thread::spawn(move || runner.run(&mut command));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !ready.exists() {
            assert!(Instant::now() < deadline, "the child never started");
            std::thread::sleep(Duration::from_millis(10));
        }
        supervisor.signal(Signal::SIGTERM);
        let error = run
            .join()
            .expect("no panic")
            .expect_err("an interruption is no success");
        assert_eq!(crate::failure::exit_code(&error), 143);
        assert!(cleaned.exists(), "came back before the clean-up was done");
    }

    #[test]
    fn the_third_signal_kills() {
        let supervisor = Arc::new(Supervisor::new());
        let runner = Arc::clone(&supervisor);
        let directory = tempfile::tempdir().expect("a temporary directory");
        let ready = directory.path().join("ready");
        let mut command = sh(&format!(
            "trap '' INT; touch {}; exec sleep 60",
            ready.display()
        ));
        let run = std::thread::spawn(move || runner.run(&mut command));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !ready.exists() {
            assert!(Instant::now() < deadline, "the child never started");
            std::thread::sleep(Duration::from_millis(10));
        }
        let start = Instant::now();
        for _ in 0..IMPATIENT {
            supervisor.signal(Signal::SIGINT);
        }
        assert!(run.join().expect("no panic").is_err());
        assert!(start.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn after_a_signal_nothing_new_is_started() {
        let supervisor = Supervisor::new();
        supervisor.signal(Signal::SIGINT);
        let error = supervisor.run(&mut sh("exit 0")).expect_err("refused");
        assert_eq!(crate::failure::exit_code(&error), 130);
    }

    #[test]
    fn exit_codes_of_children_keep_their_meaning() {
        assert!(run("it", &mut sh("exit 0")).is_ok());
        let broken = run("it", &mut sh("exit 101")).expect_err("failed");
        assert_eq!(broken.to_string(), "it failed (exit code 101)");
        assert_eq!(crate::failure::exit_code(&broken), 1);
        let cannot = run("it", &mut sh("exit 3")).expect_err("failed");
        assert_eq!(crate::failure::exit_code(&cannot), 3);
        let missing = run("it", &mut Command::new("/nonexistent/tool")).expect_err("failed");
        assert_eq!(crate::failure::exit_code(&missing), 3);
    }

    #[test]
    fn error_output_is_kept_for_a_second_look() {
        let (status, tail) =
            run_watched("it", &mut sh("echo one >&2; echo two >&2; exit 100")).expect("ran");
        assert_eq!(status.code(), Some(100));
        assert_eq!(tail, "one\ntwo");
    }
}
