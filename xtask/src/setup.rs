//! Installs the system packages that are missing, on Debian and Ubuntu.
//!
//! What went wrong with plain `apt-get install` on a bare machine, and what is done about it:
//! recommended packages pulled in a systemd upgrade (they are left out, and nothing may be
//! removed); that upgrade's clean-up of /tmp took the files of the running installation with it
//! (TMPDIR lies elsewhere); another package manager held the lock (retried until a deadline);
//! nginx, wanted only for its module, started as a service on port 80 (kept from starting).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::failure::CannotRun;
use crate::flags::Setup;
use crate::host::Host;
use crate::preflight;
use crate::process;
use crate::python;
use crate::requirements::{Need, Requirement};

/// Another `apt` may hold its lock this long before we give up.
const LOCK_PATIENCE: Duration = Duration::from_mins(10);
const LOCK_RETRY: Duration = Duration::from_secs(5);
/// Where Debian's service helpers ask whether a package may start its service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Whether packages may be installed, and how.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Permission {
    Granted(Privilege),
    /// Why not, to be read after "missing here, and …".
    Denied(String),
}

/// How a command becomes root's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privilege {
    Root,
    /// `sudo -n`: it never asks for a password.
    Sudo,
}

/// `cargo xtask setup`.
pub(crate) fn command(options: &Setup) -> anyhow::Result<()> {
    let host = Host::detect();
    if host.in_nix_shell() {
        crate::say::say!("inside `nix develop`: the flake provides everything, nothing to install");
        return Ok(());
    }
    // MediaMTX has no package; without it the default server is used, so that one must be whole.
    let mut needs = vec![Need::Build, Need::Run];
    needs.extend(Need::OPTIONAL);
    if host.mediamtx().is_none() {
        needs.push(Need::DefaultServer);
    }
    let absent = preflight::missing(&host, &needs);
    if absent.is_empty() {
        if !options.dry_run {
            python::make()?;
        }
        crate::say::say!("everything is here, nothing to install");
        return Ok(());
    }
    if options.dry_run {
        crate::say::say!("{}", preflight::table(&absent));
        crate::say::say!("{}", command_line(&packages(&absent)));
        return Ok(());
    }
    preflight::ensure(&needs)?;
    python::make()?;
    crate::say::say!("everything is here now");
    Ok(())
}

/// May we install packages here?
pub(crate) fn permission(host: &Host) -> Permission {
    if host.in_nix_shell() {
        return Permission::Denied(
            "inside `nix develop` it is the flake that must provide it (leave and enter the shell \
             again; if that does not help, flake.nix is behind xtask/src/requirements.rs)"
                .into(),
        );
    }
    if !host.is_debian_like() {
        return Permission::Denied("packages can only be installed on Debian and Ubuntu".into());
    }
    if host
        .output("id", &["-u"])
        .is_some_and(|uid| uid.trim() == "0")
    {
        return Permission::Granted(Privilege::Root);
    }
    if host.output("sudo", &["-n", "true"]).is_some() {
        return Permission::Granted(Privilege::Sudo);
    }
    Permission::Denied("installing packages takes root or a sudo that asks for no password".into())
}

/// The packages for these requirements, each once, in order.
pub(crate) fn packages(absent: &[&Requirement]) -> Vec<&'static str> {
    let mut packages: Vec<_> = absent.iter().filter_map(|r| r.debian).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// What a person would type.
pub(crate) fn command_line(packages: &[&str]) -> String {
    format!(
        "sudo apt-get update && sudo apt-get install --no-install-recommends --yes {}",
        packages.join(" ")
    )
}

/// Installs what is missing, and nothing else.
pub(crate) fn install(privilege: Privilege, absent: &[&Requirement]) -> anyhow::Result<()> {
    let packages = packages(absent);
    let work = WorkDirectory::create()?;
    let apt = Apt {
        privilege,
        tmp: work.0.clone(),
    };
    if let Err(error) = apt.run(&["update"]) {
        process::check_interrupted()?;
        // Old lists may still do; if they do not, the installation says so.
        crate::say::tell!("warning: {error:#}; going on with the package lists that are here");
    }
    let services = packages
        .contains(&"nginx")
        .then(|| QuietServices::begin(privilege))
        .transpose()?;
    let mut arguments = vec!["install", "--no-install-recommends", "--no-remove", "--yes"];
    arguments.extend(&packages);
    let result = apt.run(&arguments);
    drop(services);
    result
}

/// `apt-get` with our precautions.
struct Apt {
    privilege: Privilege,
    tmp: PathBuf,
}

impl Apt {
    /// Runs one `apt-get` command, again while somebody else holds its lock.
    fn run(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let what = format!("apt-get {}", arguments.join(" "));
        crate::say::tell!("$ {what}");
        let end = Instant::now() + LOCK_PATIENCE;
        loop {
            let (status, errors) = process::run_watched(&what, &mut self.command(arguments))?;
            if status.success() {
                return Ok(());
            }
            if !is_lock_trouble(&errors) || Instant::now() >= end {
                return Err(CannotRun(format!("{what} failed; its own words are above")).into());
            }
            crate::say::tell!(
                "another package manager holds the lock; trying again in {LOCK_RETRY:?}"
            );
            process::pause(LOCK_RETRY)?;
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut tmp = std::ffi::OsString::from("TMPDIR=");
        tmp.push(&self.tmp);
        // `env` on root's side of sudo, which drops the caller's variables.
        let mut command = self.privilege.command("env");
        command
            .args(["DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"])
            .arg(tmp)
            .args([
                "apt-get",
                "-o",
                "Acquire::Retries=3",
                "-o",
                "DPkg::Lock::Timeout=120",
            ])
            .args(["-o", "Dpkg::Use-Pty=0", "-q"])
            .args(arguments);
        command
    }
}

impl Privilege {
    fn command(self, program: &str) -> Command {
        match self {
            Self::Root => Command::new(program),
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.args(["-n", program]);
                command
            }
        }
    }

    fn shell(self, script: &str) -> anyhow::Result<()> {
        let status = self
            .command("sh")
            .args(["-c", script])
            .status()
            .context("sh")?;
        anyhow::ensure!(status.success(), "`{script}` failed");
        Ok(())
    }
}

fn is_lock_trouble(errors: &str) -> bool {
    [
        "Could not get lock",
        "Unable to acquire the dpkg frontend lock",
        "Unable to lock directory",
    ]
    .iter()
    .any(|sign| errors.contains(sign))
}

/// A temporary directory outside /tmp; gone when dropped.
struct WorkDirectory(PathBuf);

impl WorkDirectory {
    fn create() -> anyhow::Result<Self> {
        let path = PathBuf::from(format!("/var/tmp/xtask-setup.{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// While it lives, packages do not start their services; nginx also stays off after a reboot.
struct QuietServices {
    privilege: Privilege,
    policy_is_ours: bool,
}

impl QuietServices {
    fn begin(privilege: Privilege) -> anyhow::Result<Self> {
        // Somebody else's policy (containers have one) already decides.
        let policy_is_ours = !Path::new(POLICY).exists();
        if policy_is_ours {
            privilege.shell(&format!(
                "printf '#!/bin/sh\\nexit 101\\n' > {POLICY} && chmod 755 {POLICY}"
            ))?;
        }
        Ok(Self {
            privilege,
            policy_is_ours,
        })
    }
}

impl Drop for QuietServices {
    fn drop(&mut self) {
        if self.policy_is_ours {
            let _ = self.privilege.shell(&format!("rm -f {POLICY}"));
        }
        // Where there is no systemd nothing starts nginx at boot either.
        let disable = "command -v systemctl >/dev/null && systemctl --quiet disable nginx.service";
        if self.privilege.shell(disable).is_ok() {
            crate::say::tell!("nginx is there for its rtmp module; its system service stays off");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeMachine;

    #[test]
    fn inside_nix_nothing_is_installed() {
        let host = FakeMachine::bare_debian()
            .env("IN_NIX_SHELL", "impure")
            .host();
        assert!(
            matches!(permission(&host), Permission::Denied(reason) if reason.contains("nix develop"))
        );
    }

    #[test]
    fn other_distributions_are_left_alone() {
        let machine = FakeMachine::bare_debian();
        machine.file("etc/os-release", "ID=fedora\n");
        assert!(
            matches!(permission(&machine.host()), Permission::Denied(reason) if reason.contains("Debian"))
        );
    }

    #[test]
    fn root_may_and_others_only_with_a_silent_sudo() {
        let machine = FakeMachine::bare_debian().program("id", "echo 0");
        assert_eq!(
            permission(&machine.host()),
            Permission::Granted(Privilege::Root)
        );
        let machine = machine.program("id", "echo 1000");
        assert!(matches!(permission(&machine.host()), Permission::Denied(_)));
        let machine = machine.program("sudo", "exit 1");
        assert!(matches!(permission(&machine.host()), Permission::Denied(_)));
        let machine = machine.program("sudo", r#"[ "$1" = -n ]"#);
        assert_eq!(
            permission(&machine.host()),
            Permission::Granted(Privilege::Sudo)
        );
    }

    #[test]
    fn each_package_is_asked_for_once() {
        let host = FakeMachine::bare_debian().host();
        let absent = preflight::missing(&host, &[Need::Build, Need::Run, Need::DefaultServer]);
        assert_eq!(
            packages(&absent),
            [
                "ffmpeg",
                "glib-networking",
                "gstreamer1.0-libav",
                "gstreamer1.0-plugins-bad",
                "gstreamer1.0-plugins-base",
                "gstreamer1.0-plugins-good",
                "gstreamer1.0-tools",
                "libgstreamer-plugins-base1.0-dev",
                "libgstreamer1.0-0",
                "libgstreamer1.0-dev",
                "libnginx-mod-rtmp",
                "libssl-dev",
                "nginx",
                "pkg-config",
            ]
        );
    }

    #[test]
    fn a_held_lock_is_told_from_other_trouble() {
        assert!(is_lock_trouble(
            "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 1 (apt-get)"
        ));
        assert!(!is_lock_trouble(
            "E: Unable to locate package libnginx-mod-rtmp"
        ));
    }
}
