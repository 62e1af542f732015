//! One child: what it prints, how it ends, and how it is stopped.

use std::{
    collections::VecDeque,
    fs::File,
    io::{BufRead as _, BufReader, Read, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ExitStatus},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Error, Result, anyhow};
use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};

use crate::{threads::lock, wait::Deadline};

/// Lines kept in memory per child; older ones are only in the log file.
const KEPT_LINES: usize = 20_000;
/// A longer line is cut into pieces of this size.
const LONGEST_LINE: u64 = 256 * 1024;
/// Lines of a child that go into an error message.
const LINES_IN_ERRORS: usize = 12;
/// After a child's death: how long its output may take to arrive. Its group is dead, so the pipes
/// close at once unless something left the group.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(1);

/// Which stream of the child a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line a child printed.
#[derive(Debug, Clone)]
pub struct Line {
    /// When the harness read it.
    pub at: Instant,
    /// Where the child printed it.
    pub source: Source,
    /// The line without its end; bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// Handle of a child. Dropping it does nothing: the [`Group`](super::Group) owns the child's life.
#[derive(Debug, Clone)]
pub struct Process(Arc<Inner>);

impl Process {
    /// Follows a child that was just started; its output goes to `log` too, which is at `path`.
    pub(super) fn watch(name: &str, path: &Path, mut child: Child, log: File) -> Result<Self> {
        let process = Self(Arc::new(Inner {
            name: name.to_owned(),
            pid: Pid::from_raw(child.id() as i32),
            log: path.to_owned(),
            started: Instant::now(),
            input: Mutex::new(child.stdin.take()),
            state: Mutex::new(State {
                open: 2,
                ..State::default()
            }),
            changed: Condvar::new(),
        }));
        let stdout = child.stdout.take().context("no standard output")?;
        let stderr = child.stderr.take().context("no standard error")?;
        let copy = log.try_clone().context("cannot share a log")?;
        process.thread("read", |process| process.read(stdout, Source::Stdout, log))?;
        process.thread("read", |process| process.read(stderr, Source::Stderr, copy))?;
        process.thread("wait", |process| process.wait_for_death(child))?;
        Ok(process)
    }

    fn thread(&self, what: &str, run: impl FnOnce(&Self) + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new().name(format!("{what} {}", self.0.name));
        let process = self.clone();
        thread.spawn(move || run(&process))?;
        Ok(())
    }

    /// The most memory it has had at once so far, in KiB; `None` if it is gone.
    pub fn peak_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.split_whitespace().next()?.parse().ok()
    }

    /// Name the child was given.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Process id, also the id of its process group.
    pub fn pid(&self) -> i32 {
        self.0.pid.as_raw()
    }

    /// File that holds everything the child printed.
    pub fn log(&self) -> &Path {
        &self.0.log
    }

    /// When the child was started.
    pub fn started(&self) -> Instant {
        self.0.started
    }

    /// How the child ended, if it has.
    pub fn exit(&self) -> Option<ExitStatus> {
        self.state().exit
    }

    /// Fails with the child's last lines if it is dead: for loops that wait for a fact of it.
    ///
    /// # Errors
    /// When the child has ended.
    pub fn alive(&self) -> Result<()> {
        self.death(&self.state()).map_or(Ok(()), Err)
    }

    /// Lines printed so far, oldest first (bounded; older ones are only in the log).
    pub fn lines(&self) -> Vec<Line> {
        self.lines_since(&mut 0)
    }

    /// Lines printed since `seen` of them had been; moves `seen` on. For readers that come back.
    pub fn lines_since(&self, seen: &mut usize) -> Vec<Line> {
        self.state().since(seen).cloned().collect()
    }

    /// Its state and its last lines, each with its name before it.
    pub(super) fn told(&self, count: usize) -> String {
        let state = self.state();
        let status = state.exit.map_or_else(|| "running".to_owned(), exit_text);
        let name = self.name();
        let mut text = format!("── {name} ({status}), {}\n", self.0.log.display());
        let lines = state.last(count);
        text.extend(lines.map(|line| format!("   {name} | {line}\n")));
        text
    }

    pub fn last_lines(&self, count: usize) -> Vec<String> {
        self.state().last(count).map(str::to_owned).collect()
    }

    /// Waits for a line for which `pick` returns something, among those already printed and those to
    /// come, and returns that.
    ///
    /// # Errors
    /// When the child ends without such a line (said at once) or `patience` runs out; both messages
    /// hold the child's last lines.
    pub fn wait_line<T>(
        &self,
        what: &str,
        patience: Duration,
        mut pick: impl FnMut(&Line) -> Option<T>,
    ) -> Result<T> {
        let mut seen = 0;
        let look = |state: &State| {
            let found = state.since(&mut seen).find_map(&mut pick);
            let dead = || self.death(state).map(Err);
            found.map(Ok).or_else(dead)
        };
        self.wait(patience, &format!("did not show {what} within"), look)?
            .with_context(|| format!("while waiting for {what}"))
    }

    /// Waits for the child to end by itself.
    ///
    /// # Errors
    /// When it still runs after `patience`; the message holds its last lines. It is not stopped.
    pub fn wait_exit(&self, patience: Duration) -> Result<ExitStatus> {
        self.wait(patience, "still runs after", |state| state.exit)
    }

    fn wait<T>(
        &self,
        patience: Duration,
        failed: &str,
        mut look: impl FnMut(&State) -> Option<T>,
    ) -> Result<T> {
        let deadline = Deadline::within(patience);
        let mut state = self.state();
        loop {
            if let Some(found) = look(&state) {
                return Ok(found);
            }
            if deadline.is_over() {
                let (name, last) = (self.name(), state.quote(&self.0.log));
                let seconds = patience.as_secs_f64();
                return Err(anyhow!("{name} {failed} {seconds:.1} s{last}"));
            }
            state = self.wait_change(state, deadline.remaining());
        }
    }

    /// Reads nothing more of what the child prints until [`read_again`](Self::read_again), as a log
    /// collector that hangs.
    pub fn stop_reading(&self) {
        self.state().deaf = true;
    }

    /// Goes on reading.
    pub fn read_again(&self) {
        self.state().deaf = false;
        self.0.changed.notify_all();
    }

    /// Writes one line to the child's standard input.
    ///
    /// # Errors
    /// When the child is dead or was not started with [`Spawn::listening`](super::Spawn::listening).
    pub fn say(&self, line: &str) -> Result<()> {
        let mut input = lock(&self.0.input);
        let input = input
            .as_mut()
            .with_context(|| format!("{} does not listen", self.name()))?;
        // One write: a line is far smaller than a pipe's buffer, so this cannot block.
        let written = input.write_all(format!("{line}\n").as_bytes());
        written.with_context(|| format!("cannot say {line:?} to {}", self.name()))
    }

    /// Closes the child's standard input.
    pub fn hush(&self) {
        *lock(&self.0.input) = None;
    }

    /// Sends a signal to the child's group; a child that is gone already is no error.
    pub fn signal(&self, signal: Signal) {
        self.signal_if_there(&self.state(), signal);
    }

    /// `state` proves that the child is not collected while the signal is sent.
    fn signal_if_there(&self, state: &State, signal: Signal) {
        if state.exit.is_none() {
            // ESRCH: everything in the group died between two looks; nothing to do.
            let _ = killpg(self.0.pid, signal);
        }
    }

    /// SIGTERM, `grace`, SIGKILL to the group, collect. Returns how it ended.
    pub fn stop(&self, grace: Duration) -> ExitStatus {
        let mut state = self.state();
        if !grace.is_zero() {
            self.signal_if_there(&state, Signal::SIGTERM);
            // A stopped (SIGSTOP) child does not see SIGTERM before it continues.
            self.signal_if_there(&state, Signal::SIGCONT);
        }
        let deadline = Deadline::within(grace);
        loop {
            if let Some(exit) = state.exit {
                return exit;
            }
            if deadline.is_over() {
                self.signal_if_there(&state, Signal::SIGKILL);
            }
            // SIGKILL cannot be refused; the waiter thread reports within milliseconds.
            let patience = deadline.remaining().max(Duration::from_millis(100));
            state = self.wait_change(state, patience);
        }
    }

    /// SIGKILL to the group, collect: for scenarios in which a program dies.
    pub fn kill(&self) -> ExitStatus {
        self.stop(Duration::ZERO)
    }

    /// Forwards one output stream to the log and to whoever waits for a line.
    fn read(&self, stream: impl Read, source: Source, mut log: File) {
        let mut stream = BufReader::new(stream);
        let mut raw = Vec::new();
        loop {
            raw.clear();
            let deaf = self.0.changed.wait_while(self.state(), |state| state.deaf);
            drop(deaf);
            let mut line = stream.by_ref().take(LONGEST_LINE);
            match line.read_until(b'\n', &mut raw) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            if raw.last() != Some(&b'\n') {
                raw.push(b'\n');
            }
            // A full disk must not stop the child by a full pipe. One write, so that lines stay whole.
            let _ = log.write_all(&raw);
            let text = String::from_utf8_lossy(&raw).trim_end().to_owned();
            let mut state = self.state();
            if state.lines.len() == KEPT_LINES {
                state.lines.pop_front();
                state.dropped += 1;
            }
            let at = Instant::now();
            state.lines.push_back(Line { at, source, text });
            self.0.changed.notify_all();
        }
        self.state().open -= 1;
        self.0.changed.notify_all();
    }

    fn wait_for_death(&self, mut child: Child) {
        // Seen but not yet collected: while the dead leader keeps its id, the id of its group cannot
        // be given to anyone else, so killing what is left of the group hits only ours.
        while let Err(Errno::EINTR) = waitid(
            Id::Pid(self.0.pid),
            WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT,
        ) {}
        let deadline = Deadline::within(OUTPUT_PATIENCE);
        let mut state = self.state();
        let _ = killpg(self.0.pid, Signal::SIGKILL);
        while state.open > 0 && !deadline.is_over() {
            state = self.wait_change(state, deadline.remaining());
        }
        let exit = child.wait();
        state.exit = Some(exit.unwrap_or_else(|_| ExitStatus::from_raw(0x7f00)));
        drop(state);
        self.0.changed.notify_all();
    }

    /// What its death is as an error, if it is dead.
    fn death(&self, state: &State) -> Option<Error> {
        let (how, last) = (exit_text(state.exit?), state.quote(&self.0.log));
        Some(anyhow!("{} died ({how}){last}", self.name()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    fn wait_change<'a>(
        &self,
        state: MutexGuard<'a, State>,
        patience: Duration,
    ) -> MutexGuard<'a, State> {
        let waited = self.0.changed.wait_timeout(state, patience);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// How a child ended, in words of exit codes and signal names.
pub fn exit_text(exit: ExitStatus) -> String {
    match (exit.code(), exit.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => match Signal::try_from(signal) {
            Ok(signal) => format!("killed by {signal}"),
            Err(_) => format!("killed by signal {signal}"),
        },
        (None, None) => exit.to_string(),
    }
}

#[derive(Debug)]
struct Inner {
    name: String,
    pid: Pid,
    log: PathBuf,
    started: Instant,
    input: Mutex<Option<ChildStdin>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Line>,
    dropped: usize,
    /// Output streams not yet at their end.
    open: usize,
    exit: Option<ExitStatus>,
    /// Nothing is read meanwhile.
    deaf: bool,
}

impl State {
    /// Lines since `seen` of them had been; the oldest may have been dropped meanwhile.
    fn since(&self, seen: &mut usize) -> impl Iterator<Item = &Line> {
        let skip = (*seen).max(self.dropped) - self.dropped;
        *seen = self.dropped + self.lines.len();
        self.lines.iter().skip(skip)
    }

    fn last(&self, count: usize) -> impl Iterator<Item = &str> {
        let skip = self.lines.len().saturating_sub(count);
        self.lines.iter().skip(skip).map(|line| line.text.as_str())
    }

    fn quote(&self, log: &Path) -> String {
        if self.lines.is_empty() {
            return format!("; it printed nothing ({})", log.display());
        }
        let last: Vec<_> = self
            .last(LINES_IN_ERRORS)
            .map(|line| format!("\n  | {line}"))
            .collect();
        format!("; its last lines ({}):{}", log.display(), last.concat())
    }
}
