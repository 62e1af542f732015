//! One run of the suite: its directory, its mark on every process it starts, and its cleaning up.
//!
//! Everything a run creates is inside one directory (`$TMPDIR/dub-e2e/run-*`), which is locked while
//! the run lives, and every process it starts carries that directory in its environment
//! ([`MARK_ENV`]; grandchildren inherit it). So one rule cleans up after a run that could not do it
//! itself: kill what carries the mark, then remove the directory. Three things apply the rule:
//!
//! - the run itself when it ends or is told to (Ctrl-C, SIGTERM),
//! - the `reaper` program, a child in its own process group that waits for its standard input to
//!   close, which the kernel does even when the run dies of SIGKILL,
//! - the next run, for directories whose lock nobody holds (reaper killed too, machine reset).

use std::{
    fs::File,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::{Mutex, Once, OnceLock, PoisonError, Weak, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    programs,
    wait::{self, Look},
};

/// Environment variable that marks every process of a run; its value is the run's directory.
pub const MARK_ENV: &str = "DUB_E2E_RUN";

/// How long killed processes may take to disappear; the kernel needs milliseconds.
const REAP_PATIENCE: Duration = Duration::from_secs(5);

/// Grace that processes get between SIGTERM and SIGKILL when the whole run is told to stop.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Prefix of a run's directory before it is locked.
const NEW_PREFIX: &str = "new-";

static CURRENT: OnceLock<Run> = OnceLock::new();

/// Held while the run of this process is made: a signal waits for that.
static STARTING: Mutex<()> = Mutex::new(());

/// What is stopped when the run is told to stop.
pub(crate) trait Stop: std::fmt::Debug + Send + Sync {
    /// Ends all of it, with `grace` between asking and killing.
    fn stop_all(&self, grace: Duration);
}

/// A run of the suite; there is one per process, made when first needed.
#[derive(Debug)]
pub struct Run {
    dir: PathBuf,
    groups: Mutex<Vec<Weak<dyn Stop>>>,
    stopping: AtomicBool,
    /// Held, not read: the lock tells other runs that this one lives.
    _lock: File,
    reaper: Mutex<Option<Child>>,
}

impl Run {
    /// The run of this process. The first call makes its directory, cleans up after dead runs,
    /// starts the reaper and takes over Ctrl-C and SIGTERM.
    ///
    /// # Errors
    /// When the run's directory cannot be made.
    pub fn current() -> Result<&'static Self> {
        let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(run) = CURRENT.get() {
            return Ok(run);
        }
        // First of all: whatever is made below is cleaned up also when the signal comes at once.
        stop_on_signals();
        let root = root();
        std::fs::create_dir_all(&root)
            .with_context(|| format!("cannot create {}", root.display()))?;
        clean_dead_runs(&root);
        let run = Self::create(&root)?;
        Ok(CURRENT.get_or_init(|| run))
    }

    fn create(root: &Path) -> Result<Self> {
        // It gets its final name only when it is locked, so that another run that starts now cannot
        // take it for a dead one.
        let new = tempfile::Builder::new()
            .prefix(NEW_PREFIX)
            .tempdir_in(root)
            .with_context(|| format!("cannot create a directory in {}", root.display()))?
            .keep();
        let lock = File::create(lock_path(&new)).context("cannot create the run's lock")?;
        lock.try_lock().context("cannot lock the run's directory")?;
        let dir = root.join(unique_name());
        std::fs::rename(&new, &dir).context("cannot name the run's directory")?;
        let reaper = match start_reaper(&dir) {
            Ok(reaper) => Some(reaper),
            Err(error) => {
                // Unit tests of the library can run before the programs are built.
                eprintln!(
                    "e2e: if this run is killed, only the next one cleans up after it: {error:#}"
                );
                None
            }
        };
        Ok(Self {
            dir,
            groups: Mutex::default(),
            stopping: AtomicBool::new(false),
            _lock: lock,
            reaper: Mutex::new(reaper),
        })
    }

    /// Directory of this run; gone when it ends.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A new directory inside the run's, named after `name`.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn scratch(&self, name: &str) -> Result<tempfile::TempDir> {
        tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .tempdir_in(&self.dir)
            .with_context(|| format!("cannot create a directory in {}", self.dir.display()))
    }

    /// Whether the run was told to stop; nothing is started from then on.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Stops `group` too when the run is told to stop.
    pub(crate) fn enrol(&self, group: Weak<dyn Stop>) {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.retain(|known| known.strong_count() > 0);
        groups.push(group);
    }

    /// Ends the run: stops what is left, removes the directory and lets the reaper go.
    ///
    /// # Errors
    /// When processes of this run were still there, that is, when something was not stopped by the
    /// environment that started it. They are killed all the same.
    pub fn finish(&self) -> Result<()> {
        self.stopping.store(true, Ordering::SeqCst);
        let left = marked(&self.dir);
        clean(&self.dir);
        if let Some(mut reaper) = self
            .reaper
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            drop(reaper.stdin.take());
            reaper.wait().context("cannot wait for the reaper")?;
        }
        if !left.is_empty() {
            bail!(
                "processes were left behind (and killed now): {}",
                describe(&left)
            );
        }
        Ok(())
    }

    fn stop_now(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        let groups: Vec<_> = {
            let groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
            groups.iter().filter_map(Weak::upgrade).collect()
        };
        std::thread::scope(|scope| {
            for group in &groups {
                scope.spawn(|| group.stop_all(STOP_GRACE));
            }
        });
        clean(&self.dir);
    }
}

/// A process that carries a run's mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// Process id.
    pub pid: i32,
    /// Its command line, for messages.
    pub command: String,
}

/// Every live process whose environment carries the mark of `dir`, found in `/proc`.
///
/// The mark itself is the proof that this run started it, so a recycled process id cannot be taken
/// for ours. The run itself and its reaper do not carry it.
pub fn marked(dir: &Path) -> Vec<Marked> {
    let wanted = format!("{MARK_ENV}={}", dir.display());
    carrying(wanted.as_bytes())
}

/// Every live process with exactly this `NAME=value` in its environment.
pub(crate) fn carrying(variable: &[u8]) -> Vec<Marked> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: i32| {
        // A zombie has no environment any more: it is dead, only not yet collected.
        let environ = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        environ
            .split(|byte| *byte == 0)
            .any(|var| var == variable)
            .then(|| Marked {
                pid,
                command: std::fs::read(format!("/proc/{pid}/cmdline"))
                    .map(|raw| {
                        String::from_utf8_lossy(&raw)
                            .replace('\0', " ")
                            .trim()
                            .to_owned()
                    })
                    .unwrap_or_default(),
            })
    })
    .collect()
}

/// Processes as one line of a message.
pub(crate) fn describe(processes: &[Marked]) -> String {
    let each: Vec<_> = processes
        .iter()
        .map(|p| format!("{} ({})", p.pid, p.command))
        .collect();
    each.join(", ")
}

/// Kills every process that carries the mark of `dir`, then removes `dir`.
///
/// Used on runs that are over, so there is nothing to be gentle for; processes that fork meanwhile
/// are caught by looking again.
pub fn clean(dir: &Path) {
    let outcome = wait::until("killed processes to disappear", REAP_PATIENCE, || {
        let left = marked(dir);
        for process in &left {
            match kill(Pid::from_raw(process.pid), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => bail!("cannot kill {}: {error}", process.pid),
            }
        }
        Ok(if left.is_empty() {
            Look::Done(())
        } else {
            Look::NotYet(describe(&left))
        })
    });
    if let Err(error) = outcome {
        eprintln!("e2e: {error:#}");
    }
    if let Err(error) = std::fs::remove_dir_all(dir)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        eprintln!("e2e: cannot remove {}: {error}", dir.display());
    }
}

/// The `reaper` program: waits for standard input to close, then cleans up after the run in `dir`.
pub fn reaper_main(dir: &Path) -> ExitCode {
    let mut input = std::io::stdin();
    // Nothing is ever written to it; only its end means something.
    let _ = std::io::copy(&mut input, &mut std::io::sink());
    // A run that ended by itself has removed its directory and left no process. Anything that does
    // not look like a run's directory is not ours to remove.
    if lock_path(dir).exists() && dir.parent() == Some(&root()) {
        clean(dir);
    }
    ExitCode::SUCCESS
}

fn start_reaper(dir: &Path) -> Result<Child> {
    Command::new(programs::own("reaper")?)
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        // Its own group: the terminal's Ctrl-C is for the run.
        .process_group(0)
        .spawn()
        .context("cannot start the reaper")
}

/// Directory that holds the directories of all runs of this user.
fn root() -> PathBuf {
    std::env::temp_dir().join(format!("dub-e2e-{}", nix::unistd::getuid()))
}

/// Names directories of one process apart (tests make several) and of processes that get the same
/// id one after the other.
fn unique_name() -> String {
    let since = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap_or_default();
    format!("run-{}-{}", std::process::id(), since.as_micros())
}

fn lock_path(dir: &Path) -> PathBuf {
    dir.join("lock")
}

/// Cleans up after runs that died together with their reaper.
fn clean_dead_runs(root: &Path) {
    let Ok(entries) = std::fs::read_dir(root) else {
        return;
    };
    for entry in entries.flatten() {
        let dir = entry.path();
        let half_made = entry.file_name().to_string_lossy().starts_with(NEW_PREFIX);
        let dead = if half_made {
            is_old(&dir)
        } else {
            File::open(lock_path(&dir)).is_ok_and(|lock| lock.try_lock().is_ok())
        };
        if dead {
            eprintln!(
                "e2e: cleaning up after a run that was killed: {}",
                dir.display()
            );
            clean(&dir);
        }
    }
}

fn is_old(dir: &Path) -> bool {
    let modified = dir.metadata().and_then(|meta| meta.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > Duration::from_mins(1)))
}

/// On the first Ctrl-C or SIGTERM everything is stopped in order; on the second at once (the reaper
/// does the rest). The handlers are there when this returns; only the waiting is left to a thread.
fn stop_on_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Err(error) = try_stop_on_signals() {
            eprintln!("e2e: Ctrl-C cannot be handled, the reaper will clean up: {error:#}");
        }
    });
}

fn try_stop_on_signals() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut interrupt, mut terminate) = {
        let _within = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        )
    };
    let listen = move || {
        runtime.block_on(async {
            let first = tokio::select! {
                _ = interrupt.recv() => Signal::SIGINT,
                _ = terminate.recv() => Signal::SIGTERM,
            };
            let _ = writeln!(std::io::stderr(), "e2e: {first}, stopping everything");
            let stopped = tokio::task::spawn_blocking(|| {
                let _made_or_not = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(run) = CURRENT.get() {
                    run.stop_now();
                }
            });
            tokio::select! {
                _ = stopped => {}
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            exit(128 + first as i32);
        });
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(listen)?;
    Ok(())
}

#[expect(
    clippy::exit,
    reason = "scenario threads cannot be told to return; everything is stopped by now"
)]
fn exit(code: i32) {
    std::process::exit(code)
}
