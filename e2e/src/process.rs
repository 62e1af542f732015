//! Child processes that are always stopped.
//!
//! Each child gets its own process group, its own log file and a cleared environment. A thread per
//! child waits for its death and publishes it, so that whoever waits for a line or a fact hears "the
//! child died" at once, with its last lines. Stopping is SIGTERM to the group, grace, SIGKILL to the
//! group, collect; a [`Group`] does it in reverse start order, also when it is dropped by a panic.

mod child;

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, Result};

pub use self::child::{Line, Process, Source, exit_text};
use crate::cleanup::{MARK_ENV, Run};
use crate::threads::lock;

/// Grace of a child that is stopped because its group was dropped.
const DROP_GRACE: Duration = Duration::from_secs(2);

/// Variables every child keeps: programs are found, temporary files land, libraries load (a Nix
/// shell or a test machine may need them); everything else of the harness's environment is cleared.
const KEPT_ENV: [&str; 9] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "GST_PLUGIN_PATH",
    "GST_PLUGIN_SYSTEM_PATH_1_0",
    "GST_REGISTRY",
    "GST_DEBUG",
    "RUST_BACKTRACE",
];

/// What to start.
#[derive(Debug)]
pub struct Spawn {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    log: PathBuf,
    listens: bool,
}

impl Spawn {
    /// A child called `name` (in messages and as the prefix of its lines) that runs `program` and
    /// writes its output to `log`.
    pub fn new(
        name: impl Into<String>,
        program: impl Into<PathBuf>,
        log: impl Into<PathBuf>,
    ) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            dir: None,
            log: log.into(),
            listens: false,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets one environment variable; the rest of the environment is cleared (but see the kept ones
    /// in the module's source).
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Gives the child a standard input for [`Process::say`]; without it, it reads an empty one.
    #[must_use]
    pub fn listening(mut self) -> Self {
        self.listens = true;
        self
    }

    /// The command as a person would type it, for `repro.txt`.
    pub fn command_line(&self) -> String {
        let vars = self.env.iter().map(|(name, value)| {
            format!(
                "{}={}",
                name.to_string_lossy(),
                quoted(&value.to_string_lossy())
            )
        });
        let program = std::iter::once(quoted(&self.program.to_string_lossy()));
        let args = self.args.iter().map(|arg| quoted(&arg.to_string_lossy()));
        vars.chain(program)
            .chain(args)
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// The children of one environment in the order they were started.
///
/// Dropping it stops them in reverse order; what then is left, also of a run that is stopped or killed,
/// falls to the run's reaper ([`crate::cleanup`]).
#[derive(Debug)]
pub struct Group {
    started: Mutex<Vec<Process>>,
    commands: Mutex<Vec<String>>,
    run: &'static Run,
    mark: PathBuf,
}

impl Group {
    /// An empty group.
    pub fn new() -> Result<Arc<Self>> {
        Self::marked(Run::current()?.dir())
    }

    /// An empty group whose children carry `mark`, a directory inside the run's, by which they can be found.
    pub fn marked(mark: &Path) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            started: Mutex::default(),
            commands: Mutex::default(),
            run: Run::current()?,
            mark: mark.to_owned(),
        }))
    }

    /// Starts a child.
    ///
    /// # Errors
    /// When the program cannot be started, its log cannot be created, or the run is being stopped.
    pub fn spawn(&self, spawn: &Spawn) -> Result<Process> {
        let mut command = Command::new(&spawn.program);
        command.args(&spawn.args).env_clear();
        command.envs(
            KEPT_ENV
                .iter()
                .filter_map(|name| Some((name, std::env::var_os(name)?))),
        );
        command.envs(spawn.env.iter().map(|(name, value)| (name, value)));
        command.env(MARK_ENV, &self.mark);
        if let Some(dir) = &spawn.dir {
            command.current_dir(dir);
        }
        command
            .stdin(if spawn.listens {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.process_group(0);

        let log = File::options()
            .create(true)
            .append(true)
            .open(&spawn.log)
            .with_context(|| format!("cannot create {}", spawn.log.display()))?;
        let about = || format!("cannot start {} ({})", spawn.name, spawn.program.display());
        let starting = self.run.starting().with_context(about)?;
        let child = command.spawn().with_context(about)?;
        drop(starting);
        let process = Process::watch(&spawn.name, &spawn.log, child, log)?;
        lock(&self.started).push(process.clone());
        lock(&self.commands).push(format!("# {}\n{}", spawn.name, spawn.command_line()));
        Ok(process)
    }

    /// Every command that was started, as a person would type it, in order.
    pub fn commands(&self) -> Vec<String> {
        lock(&self.commands).clone()
    }

    /// Stops every child that still runs, the last started first.
    pub fn stop_all(&self, grace: Duration) {
        let next = || lock(&self.started).pop();
        while let Some(last) = next() {
            last.stop(grace);
        }
    }

    /// The last `count` lines of every child, prefixed with its name: what a failure shows.
    pub fn last_lines(&self, count: usize) -> String {
        let started = lock(&self.started);
        started.iter().map(|child| child.told(count)).collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.stop_all(DROP_GRACE);
    }
}

fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
