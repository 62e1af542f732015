//! A scheduler with nodes, all on this machine: Slurm as Debian has it, one controller, a daemon per node,
//! each in the foreground and a child of its environment. No cgroups; runs as whoever runs the suite.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, getuid};

use super::{Place, READY_PATIENCE, STOP_GRACE};
use crate::cleanup;
use crate::failure::Skipped;
use crate::ports::{Lease, with_leases};
use crate::process::Process;
use crate::programs;
use crate::wait::{self, Look};

/// What it consists of, by Debian package.
const PROGRAMS: [&str; 6] = [
    "slurmctld",
    "slurmd",
    "sbatch",
    "scontrol",
    "scancel",
    "munged",
];
const NODES: usize = 3;
/// For the controller to take a job.
const ANSWER: Duration = Duration::from_secs(20);
/// Between two questions about the same: each starts a program.
const BETWEEN: Duration = Duration::from_millis(300);

/// A running scheduler; its environment stops it.
#[derive(Debug)]
pub struct Fleet {
    place: Place,
    dir: PathBuf,
    nodes: BTreeMap<String, Process>,
    _leases: [Lease; NODES + 1],
}

/// What the scheduler says of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// `PENDING`, `RUNNING`, `SPECIAL_EXIT`, …
    pub state: String,
    /// Where it runs.
    pub node: Option<String>,
    /// How often it was started again.
    pub restarts: u32,
    /// Exit code of its last run.
    pub exit: String,
}

impl Fleet {
    /// What is missing here; empty where a fleet can be started.
    pub fn missing() -> Vec<&'static str> {
        let absent = PROGRAMS
            .iter()
            .filter(|name| programs::find(name).is_none());
        absent.copied().collect()
    }

    /// Starts controller and nodes; `lines` is what the controller's configuration says beside where
    /// everything is. Returns when all nodes are idle.
    ///
    /// # Errors
    /// When something is not installed or does not start, or [`Skipped`] where it does not either without
    /// `lines`.
    pub fn start(place: &Place, lines: &str) -> Result<Self> {
        Self::start_in(place, "fleet", lines).map_err(|error| {
            if Self::start_in(place, "bare", "").is_ok() {
                return error.context("the scheduler starts, but not with these lines");
            }
            // As in a sandbox.
            Skipped::here(format!("no scheduler can run here: {error:#}")).into()
        })
    }

    fn start_in(place: &Place, name: &str, lines: &str) -> Result<Self> {
        let dir = place.scratch.join(name);
        std::fs::create_dir_all(dir.join("state")).context("cannot create a directory")?;
        let key: [u8; 64] = rand::random();
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(dir.join("munge.key"))?;
        std::io::Write::write_all(&mut &file, &key)?;
        let at = |name: &str| dir.join(name).display().to_string();
        let munged = place
            .spawn("munged", programs::tool("munged")?)
            .args(["--foreground", "--force"])
            .args([
                format!("--key-file={}", at("munge.key")),
                format!("--socket={}", at("munge.socket")),
                format!("--pid-file={}", at("munge.pid")),
                format!("--seed-file={}", at("munge.seed")),
                format!("--log-file={}", at("munge.log")),
            ]);
        let munged = place.group.spawn(&munged)?;
        wait::until("munge's socket", READY_PATIENCE, || {
            munged.alive()?;
            Ok(Look::when(dir.join("munge.socket").exists(), "none"))
        })?;
        let (leases, nodes) = with_leases(|ports: [u16; NODES + 1]| {
            std::fs::write(dir.join("slurm.conf"), configuration(&dir, &ports, lines)?)?;
            let controller = daemon(place, &dir, "slurmctld", &["-D", "-i", "-c"])?;
            let mut nodes = BTreeMap::new();
            for node in names() {
                let process = daemon(place, &dir, "slurmd", &["-D", "-N", &node])?;
                nodes.insert(node, process);
            }
            controller.alive()?;
            Ok(nodes)
        })?;
        let fleet = Self {
            place: place.clone(),
            dir,
            nodes,
            _leases: leases,
        };
        wait::until_every(BETWEEN, "the nodes to be idle", READY_PATIENCE, || {
            for node in fleet.nodes.values() {
                node.alive()?;
            }
            // The controller may not listen yet.
            let said = fleet.ask("scontrol", &["--oneliner", "show", "node"]);
            let said = said.unwrap_or_else(|error| format!("{error:#}"));
            let idle = said.matches("State=IDLE ").count();
            Ok(Look::when(idle == NODES, said))
        })?;
        Ok(fleet)
    }

    /// Names of the nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(String::as_str)
    }

    /// Hands a job file to the scheduler; the job's output goes to `NAME.log` among the artifacts.
    /// Returns its number.
    ///
    /// # Errors
    /// When it is refused.
    pub fn submit(
        &self,
        name: &str,
        file: &Path,
        argument: &str,
        env: &[(&str, String)],
    ) -> Result<u32> {
        let output = self.place.artifacts.join(format!("{name}.log"));
        let mut spawn = self
            .place
            .spawn("sbatch", programs::tool("sbatch")?)
            .env("SLURM_CONF", self.dir.join("slurm.conf"))
            .args(["--parsable", "--job-name", name, "--output"])
            .arg(output)
            .arg(file)
            .arg(argument);
        for (name, value) in env {
            spawn = spawn.env(name, value);
        }
        let process = self.place.group.spawn(&spawn)?;
        let exit = process.wait_exit(ANSWER)?;
        let said = process.last_lines(3).join("\n");
        ensure!(exit.success(), "sbatch: {said}");
        said.trim()
            .parse()
            .with_context(|| format!("sbatch said {said:?}"))
    }

    /// What the scheduler says of a job.
    ///
    /// # Errors
    /// When it does not answer or knows no such job.
    pub fn job(&self, id: u32) -> Result<Job> {
        let said = self.ask("scontrol", &["--oneliner", "show", "job", &id.to_string()])?;
        let field = |name: &str| {
            let found = said
                .split_whitespace()
                .find_map(|word| word.strip_prefix(name));
            found.map(str::to_owned)
        };
        Ok(Job {
            state: field("JobState=").context("no state")?,
            node: field("NodeList=").filter(|node| node.starts_with('n') && node != "none"),
            restarts: field("Restarts=").context("no restarts")?.parse()?,
            exit: field("ExitCode=").context("no exit code")?,
        })
    }

    /// Waits until a job is as `is_so` says.
    ///
    /// # Errors
    /// When it is not within `patience`.
    pub fn wait_job(
        &self,
        id: u32,
        what: &str,
        patience: Duration,
        is_so: impl Fn(&Job) -> bool,
    ) -> Result<Job> {
        wait::until_every(BETWEEN, what, patience, || {
            let job = self.job(id)?;
            let seen = format!("{job:?}");
            if is_so(&job) {
                return Ok(Look::Done(job));
            }
            Ok(Look::NotYet(seen))
        })
    }

    /// Tells a job to finish, as an operator does.
    ///
    /// # Errors
    /// When the scheduler refuses.
    pub fn drain(&self, id: u32) -> Result<()> {
        self.ask("scancel", &["--batch", "--signal=TERM", &id.to_string()])
            .map(drop)
    }

    /// A node is lost: its daemon and what watches over its jobs die at once, and with `streams` the jobs
    /// too. Without, they go on, and nobody knows. Returns the processes of its jobs.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn lose(&self, node: &str, streams: bool) -> Result<Vec<i32>> {
        let jobs = self.workers(node)?;
        let keepers = jobs.iter().filter_map(|pid| parent(*pid));
        let mut doomed: Vec<_> = keepers.filter(|pid| !jobs.contains(pid)).collect();
        if streams {
            doomed.extend(&jobs);
        }
        self.nodes[node].kill();
        for pid in doomed {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        Ok(jobs)
    }

    /// Processes of the jobs on a node.
    fn workers(&self, node: &str) -> Result<Vec<i32>> {
        let here = format!("SLURM_CONF={}", self.dir.join("slurm.conf").display());
        let ours: Vec<_> = cleanup::carrying(&here).iter().map(|it| it.pid).collect();
        let on = cleanup::carrying(&format!("SLURMD_NODENAME={node}"));
        let pids: Vec<_> = on
            .iter()
            .map(|it| it.pid)
            .filter(|pid| ours.contains(pid))
            .collect();
        ensure!(!pids.is_empty(), "no job runs on {node}");
        Ok(pids)
    }

    /// Asks the controller, which gives up by itself when it is not there.
    fn ask(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = Command::new(programs::tool(program)?)
            .args(arguments)
            .env("SLURM_CONF", self.dir.join("slurm.conf"))
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {program}"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program}: {said}{complaint}");
        Ok(said)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // What watches over a job is in no process group of ours.
        for (name, node) in &self.nodes {
            node.stop(STOP_GRACE);
            let jobs = self.workers(name).unwrap_or_default();
            let keepers: Vec<_> = jobs.iter().filter_map(|pid| parent(*pid)).collect();
            for pid in keepers.into_iter().chain(jobs) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

fn names() -> impl Iterator<Item = String> {
    (1..=NODES).map(|number| format!("n{number}"))
}

fn daemon(place: &Place, dir: &Path, program: &str, arguments: &[&str]) -> Result<Process> {
    let name = [&[program], &arguments[arguments.len() - 1..]]
        .concat()
        .join("-");
    let spawn = place
        .spawn(&name, programs::tool(program)?)
        .args(["-f"])
        .arg(dir.join("slurm.conf"))
        .args(arguments);
    place.group.spawn(&spawn)
}

fn configuration(dir: &Path, ports: &[u16], lines: &str) -> Result<String> {
    let user = User::from_uid(getuid())?
        .context("whoever runs this has no name")?
        .name;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let host = host.trim().split('.').next().unwrap_or_default();
    let here = dir.display();
    let mut text = format!(
        "ClusterName=dub\nSlurmctldHost={host}(127.0.0.1)\nSlurmctldPort={}\n\
         SlurmUser={user}\nSlurmdUser={user}\n\
         AuthType=auth/munge\nAuthInfo=socket={here}/munge.socket,cred_expire=5\nCredType=cred/munge\n\
         MpiDefault=none\nMailProg=/bin/true\nProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\n\
         SwitchType=switch/none\nSelectType=select/cons_tres\nSelectTypeParameters=CR_Core\n\
         CommunicationParameters=NoInAddrAny,NoCtldInAddrAny\n\
         SchedulerParameters=batch_sched_delay=1,sched_interval=2\n\
         StateSaveLocation={here}/state\nSlurmdSpoolDir={here}/spool-%n\n\
         SlurmctldPidFile={here}/slurmctld.pid\nSlurmdPidFile={here}/%n.pid\n\
         SlurmdParameters=config_overrides\nReturnToService=2\n\
         AccountingStorageType=accounting_storage/none\nJobAcctGatherType=jobacct_gather/none\n{lines}\n",
        ports[0]
    );
    for (name, port) in names().zip(&ports[1..]) {
        writeln!(
            text,
            "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=16 State=UNKNOWN"
        )?;
    }
    // Each job goes where the fewest are.
    text += "PartitionName=live Nodes=ALL Default=YES MaxTime=INFINITE State=UP LLN=YES\n";
    Ok(text)
}

/// Whether a process runs: one that is dead and that nobody has collected does not.
pub fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != "Z")
}

/// The process that started another.
fn parent(pid: i32) -> Option<i32> {
    stat(pid)?.1.parse().ok().filter(|pid| *pid > 1)
}

/// State and parent.
fn stat(pid: i32) -> Option<(String, String)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may hold anything.
    let mut words = stat.rsplit_once(')')?.1.split_whitespace();
    Some((words.next()?.to_owned(), words.next()?.to_owned()))
}
