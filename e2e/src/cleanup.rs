//! One run of the suite: its directory, its mark on every process it starts, and its cleaning up.
//!
//! Everything a run creates is inside one directory (`$TMPDIR/dub-e2e-runs-*/run-*`), which is locked while
//! the run lives, and every process it starts carries that directory, or one inside it, in its
//! environment ([`MARK_ENV`]; grandchildren inherit it). So one rule cleans up: kill what carries the
//! mark, then remove the directory. One program applies it however a run ends: the `reaper`, a child in
//! its own process group that waits for its standard input to close. A run that is over, or is told to
//! stop (Ctrl-C, SIGTERM), closes it; for one that dies of SIGKILL the kernel does. When it starts it
//! also cleans up after runs whose lock nobody holds (reaper killed too, machine reset).

use std::{
    fs::File,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::{Mutex, MutexGuard, Once, OnceLock},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    programs,
    threads::lock,
    wait::{self, Look},
};

/// Environment variable that marks every process of a run; its value is the run's directory, or one in it.
pub const MARK_ENV: &str = "DUB_E2E_RUN";

/// How long killed processes may take to disappear; the kernel needs milliseconds.
const REAP_PATIENCE: Duration = Duration::from_secs(5);

static CURRENT: OnceLock<Run> = OnceLock::new();

/// Held while the run of this process is made: a signal waits for that.
static STARTING: Mutex<()> = Mutex::new(());

/// A run of the suite; there is one per process, made when first needed.
#[derive(Debug)]
pub struct Run {
    dir: PathBuf,
    /// Whether it is over; held while a process is started.
    over: Mutex<bool>,
    /// Held, not read: the lock tells other runs that this one lives.
    _lock: File,
    reaper: Mutex<Option<Child>>,
}

impl Run {
    /// The run of this process. The first call makes its directory, starts the reaper and takes over
    /// Ctrl-C and SIGTERM.
    pub fn current() -> Result<&'static Self> {
        static ONCE: Once = Once::new();
        let _one_at_a_time = lock(&STARTING);
        if let Some(run) = CURRENT.get() {
            return Ok(run);
        }
        // First of all: whatever is made below is cleaned up also when the signal comes at once.
        ONCE.call_once(|| {
            if let Err(error) = end_on_signals() {
                eprintln!("e2e: Ctrl-C cannot be handled, the reaper will clean up: {error:#}");
            }
        });
        let run = Self::create(&root())?;
        Ok(CURRENT.get_or_init(|| run))
    }

    fn create(root: &Path) -> Result<Self> {
        std::fs::create_dir_all(root)
            .with_context(|| format!("cannot create {}", root.display()))?;
        // Nobody takes it for a dead run's before it is locked.
        let all = lock_of(root)?;
        all.lock().context("cannot lock the runs' directory")?;
        let dir = tempfile::Builder::new().prefix("run-").tempdir_in(root);
        let dir = dir
            .with_context(|| format!("cannot create a directory in {}", root.display()))?
            .keep();
        let lock = lock_of(&dir)?;
        lock.try_lock().context("cannot lock the run's directory")?;
        drop(all);
        let reaper = start_reaper(&dir).inspect_err(|error| {
            // Unit tests of the library can run before the programs are built.
            eprintln!("e2e: if this run is killed, only a later one cleans up after it: {error:#}");
        });
        Ok(Self {
            dir,
            over: Mutex::new(false),
            _lock: lock,
            reaper: Mutex::new(reaper.ok()),
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

    /// Leave to start a process, to be held meanwhile.
    ///
    /// # Errors
    /// When the run is over.
    pub(crate) fn starting(&self) -> Result<MutexGuard<'_, bool>> {
        let over = lock(&self.over);
        ensure!(!*over, "the run is being stopped");
        Ok(over)
    }

    /// Ends the run: kills what is left and removes the directory.
    ///
    /// # Errors
    /// When processes of this run were still there, that is, when something was not stopped by the
    /// environment that started it. They are killed all the same.
    pub fn finish(&self) -> Result<()> {
        let left = marked(&self.dir);
        self.end();
        ensure!(
            left.is_empty(),
            "processes were left behind (and killed now): {}",
            describe(&left)
        );
        Ok(())
    }

    fn end(&self) {
        *lock(&self.over) = true;
        match lock(&self.reaper).take() {
            Some(mut reaper) => {
                drop(reaper.stdin.take());
                if let Err(error) = reaper.wait() {
                    eprintln!("e2e: cannot wait for the reaper: {error}");
                }
            }
            None => clean(&self.dir),
        }
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
    carrying(&format!("{MARK_ENV}={}", dir.display()))
}

/// Every live process with this `NAME=value` in its environment, or with a path inside that value.
pub(crate) fn carrying(variable: &str) -> Vec<Marked> {
    let is_it = |found: &[u8]| {
        let rest = found.strip_prefix(variable.as_bytes());
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
    };
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: i32| {
        // A zombie has no environment any more: it is dead, only not yet collected.
        let environ = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        environ.split(|byte| *byte == 0).any(is_it).then(|| Marked {
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
fn clean(dir: &Path) {
    let outcome = wait::until("killed processes to disappear", REAP_PATIENCE, || {
        let left = marked(dir);
        for process in &left {
            match kill(Pid::from_raw(process.pid), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => bail!("cannot kill {}: {error}", process.pid),
            }
        }
        Ok(Look::when(left.is_empty(), describe(&left)))
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
    clean_dead_runs(&root());
    let mut input = std::io::stdin();
    // Nothing is ever written to it; only its end means something.
    let _ = std::io::copy(&mut input, &mut std::io::sink());
    // Anything that does not look like a run's directory is not ours to remove.
    if dir.parent() == Some(&root()) {
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

/// Directory that holds the directories of all runs of this user. Not that of earlier versions, which locked
/// a file inside: their runs look dead from here.
fn root() -> PathBuf {
    std::env::temp_dir().join(format!("dub-e2e-runs-{}", nix::unistd::getuid()))
}

/// A directory, to be locked.
fn lock_of(dir: &Path) -> Result<File> {
    File::open(dir).with_context(|| format!("cannot open {}", dir.display()))
}

/// Cleans up after runs that died together with their reaper.
fn clean_dead_runs(root: &Path) {
    let Ok(all) = lock_of(root) else { return };
    let entries = all.lock().and_then(|()| std::fs::read_dir(root));
    for dir in entries.into_iter().flatten().flatten().map(|it| it.path()) {
        if lock_of(&dir).is_ok_and(|lock| lock.try_lock().is_ok()) {
            eprintln!(
                "e2e: cleaning up after a run that was killed: {}",
                dir.display()
            );
            clean(&dir);
        }
    }
}

/// On Ctrl-C or SIGTERM the run ends. The handlers are there when this returns; only the waiting is left
/// to a thread.
fn end_on_signals() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let within = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    drop(within);
    let listen = move || {
        let first = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => Signal::SIGINT,
                _ = terminate.recv() => Signal::SIGTERM,
            }
        });
        let _ = writeln!(std::io::stderr(), "e2e: {first}, stopping everything");
        let _made_or_not = lock(&STARTING);
        if let Some(run) = CURRENT.get() {
            run.end();
        }
        exit(128 + first as i32);
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
