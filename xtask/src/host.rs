//! What is on this machine: looked up by running the same programs a person would.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::requirements::{Fact, Requirement};

/// A machine as the commands see it. Tests build one with a `PATH` of their own.
#[derive(Debug)]
pub(crate) struct Host {
    path: OsString,
    env: BTreeMap<String, String>,
    /// `/`, or a directory that plays it in a test.
    root: PathBuf,
    /// Elements GStreamer knows; empty when `gst-inspect-1.0` is missing.
    elements: BTreeSet<String>,
}

/// Looked through after `PATH`: servers are installed where an ordinary user's `PATH` does not look.
const SYSTEM_DIRECTORIES: &[&str] = &["usr/local/sbin", "usr/sbin", "sbin"];

/// The variables that change what is found.
const READ_FROM_ENV: &[&str] = &["IN_NIX_SHELL", "MEDIAMTX_BIN", "GIO_EXTRA_MODULES"];

impl Host {
    /// This machine, now.
    pub(crate) fn detect() -> Self {
        let env = READ_FROM_ENV
            .iter()
            .filter_map(|&name| Some((name.to_owned(), std::env::var(name).ok()?)))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        Self::new(
            std::env::var_os("PATH").unwrap_or_default(),
            env,
            PathBuf::from("/"),
        )
    }

    fn new(path: OsString, env: BTreeMap<String, String>, root: PathBuf) -> Self {
        let mut host = Self {
            path,
            env,
            root,
            elements: BTreeSet::new(),
        };
        host.elements = host
            .output("gst-inspect-1.0", &[])
            .map(|listing| element_names(&listing))
            .unwrap_or_default();
        host
    }

    /// Inside `nix develop` (or a build of the flake) the flake provides everything.
    pub(crate) fn in_nix_shell(&self) -> bool {
        self.env.contains_key("IN_NIX_SHELL")
    }

    /// Where a program is, the way a shell would find it.
    pub(crate) fn find(&self, program: &str) -> Option<PathBuf> {
        if program.contains('/') {
            let path = PathBuf::from(program);
            return is_executable(&path).then_some(path);
        }
        std::env::split_paths(&self.path)
            .chain(
                SYSTEM_DIRECTORIES
                    .iter()
                    .map(|directory| self.root.join(directory)),
            )
            .map(|directory| directory.join(program))
            .find(|candidate| is_executable(candidate))
    }

    /// MediaMTX: `MEDIAMTX_BIN` first, then `PATH`.
    pub(crate) fn mediamtx(&self) -> Option<PathBuf> {
        match self.env.get("MEDIAMTX_BIN") {
            Some(path) => self.find(path),
            None => self.find("mediamtx"),
        }
    }

    /// The value of `MEDIAMTX_BIN`, whether or not something is there.
    pub(crate) fn mediamtx_bin(&self) -> Option<&str> {
        self.env.get("MEDIAMTX_BIN").map(String::as_str)
    }

    /// Whether the fact holds here.
    pub(crate) fn has(&self, requirement: &Requirement) -> bool {
        match requirement.fact {
            Fact::Program("mediamtx") => self.mediamtx().is_some(),
            Fact::Program(name) => self.find(name).is_some(),
            Fact::Library(name) => self.output("pkg-config", &["--exists", name]).is_some(),
            Fact::Element { name, .. } => self.elements.contains(name),
            Fact::NginxModule(file) => self.nginx_module(file).is_some(),
            Fact::GioModule(file) => self.gio_module(file).is_some(),
            Fact::PythonModule(name) => {
                let import = format!("import {name}");
                self.output("python3", &["-c", &import]).is_some()
            }
        }
    }

    /// The first line a program prints about its version, if it runs at all.
    pub(crate) fn version(&self, program: &str, arguments: &[&str]) -> Option<String> {
        let text = self.output(program, arguments)?;
        text.lines()
            .map(str::trim)
            .find(|line| !line.is_empty())
            .map(str::to_owned)
    }

    /// What a program prints (standard output, else standard error) when it succeeds.
    pub(crate) fn output(&self, program: &str, arguments: &[&str]) -> Option<String> {
        let output = Command::new(self.find(program)?)
            .args(arguments)
            .env("PATH", &self.path)
            .stdin(Stdio::null())
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        let bytes = if output.stdout.is_empty() {
            output.stderr
        } else {
            output.stdout
        };
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// `ID` and `ID_LIKE` of os-release, in lower case.
    pub(crate) fn distributions(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.root.join("etc/os-release")).unwrap_or_default();
        text.lines()
            .filter_map(|line| {
                line.strip_prefix("ID=")
                    .or_else(|| line.strip_prefix("ID_LIKE="))
            })
            .flat_map(|value| value.trim_matches('"').split_whitespace())
            .map(str::to_lowercase)
            .collect()
    }

    /// Debian, Ubuntu and what derives from them, with `apt-get` present.
    pub(crate) fn is_debian_like(&self) -> bool {
        self.distributions()
            .iter()
            .any(|id| id == "debian" || id == "ubuntu")
            && self.find("apt-get").is_some()
    }

    fn nginx_module(&self, file: &str) -> Option<PathBuf> {
        [
            "usr/lib/nginx/modules",
            "usr/lib64/nginx/modules",
            "usr/share/nginx/modules",
        ]
        .iter()
        .map(|directory| self.root.join(directory).join(file))
        .find(|path| path.is_file())
    }

    fn gio_module(&self, file: &str) -> Option<PathBuf> {
        let extra = self
            .env
            .get("GIO_EXTRA_MODULES")
            .map(OsString::from)
            .unwrap_or_default();
        let mut directories: Vec<PathBuf> = std::env::split_paths(&extra).collect();
        if let Some(directory) = self.output("pkg-config", &["--variable=giomoduledir", "gio-2.0"])
        {
            directories.push(PathBuf::from(directory.trim()));
        }
        directories.extend(self.multiarch("gio/modules"));
        directories
            .into_iter()
            .map(|d| d.join(file))
            .find(|path| path.is_file())
    }

    /// `/usr/lib/<triplet>/<tail>` of every architecture present.
    fn multiarch(&self, tail: &str) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.root.join("usr/lib")) else {
            return Vec::new();
        };
        entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().contains("-linux-"))
            .map(|entry| entry.path().join(tail))
            .collect()
    }
}

/// The element names in a listing of `gst-inspect-1.0` (`plugin:  element: Long name`).
fn element_names(listing: &str) -> BTreeSet<String> {
    listing
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(": ").map(str::trim);
            let (_plugin, element) = (fields.next()?, fields.next()?);
            (!element.contains(char::is_whitespace)).then(|| element.to_owned())
        })
        .collect()
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
pub(crate) mod fake {
    //! A machine made of a temporary directory: programs are small shell scripts on its `PATH`.

    use std::fs;

    use super::*;

    /// Makes a program of a shell script, by a process of its own: a file that this one has open for writing
    /// is inherited by what tests beside it start just then, and cannot be run meanwhile ("text file busy").
    pub(crate) fn write_program(path: &Path, script: &str) {
        fs::create_dir_all(path.parent().expect("has a parent")).expect("mkdir");
        let written = Command::new("/bin/sh")
            .args(["-c", r#"printf '%s' "$1" > "$0" && chmod 755 "$0""#])
            .arg(path)
            .arg(format!("#!/bin/sh\n{script}\n"))
            .status();
        assert!(written.is_ok_and(|it| it.success()), "{}", path.display());
    }

    #[derive(Debug)]
    pub(crate) struct FakeMachine {
        root: tempfile::TempDir,
        env: BTreeMap<String, String>,
    }

    impl FakeMachine {
        pub(crate) fn bare_debian() -> Self {
            let machine = Self {
                root: tempfile::tempdir().expect("a temporary directory"),
                env: BTreeMap::new(),
            };
            machine.file("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n");
            machine.program("apt-get", "exit 0")
        }

        pub(crate) fn program(self, name: &str, script: &str) -> Self {
            write_program(&self.root.path().join("bin").join(name), script);
            self
        }

        pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
            self.env.insert(name.into(), value.into());
            self
        }

        pub(crate) fn file(&self, path: &str, text: &str) {
            let path = self.root.path().join(path);
            fs::create_dir_all(path.parent().expect("has a parent")).expect("mkdir");
            fs::write(path, text).expect("write");
        }

        pub(crate) fn path(&self, path: &str) -> String {
            self.root.path().join(path).display().to_string()
        }

        pub(crate) fn host(&self) -> Host {
            Host::new(
                self.root.path().join("bin").into_os_string(),
                self.env.clone(),
                self.root.path().to_path_buf(),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::FakeMachine;
    use super::*;
    use crate::requirements::requirements;

    fn requirement(name: &str) -> &'static Requirement {
        requirements()
            .find(|r| r.name() == name)
            .expect("is in the list")
    }

    #[test]
    fn elements_are_read_from_the_listing_of_gst_inspect() {
        let names = element_names(
            "app:  appsink: AppSink\napp:  appsrc: AppSrc\ntypefindfunctions: video/x-flv: flv\n\
             \nTotal count: 2 plugins, 3 features\n",
        );
        assert!(names.contains("appsink") && names.contains("appsrc"));
        assert!(!names.contains("Total count"));
    }

    #[test]
    fn a_program_counts_only_when_it_can_be_executed() {
        let machine = FakeMachine::bare_debian().program("ffmpeg", "exit 0");
        machine.file("bin/ffprobe", "not executable");
        let host = machine.host();
        assert!(host.has(requirement("ffmpeg")));
        assert!(!host.has(requirement("ffprobe")));
    }

    #[test]
    fn servers_are_found_outside_an_ordinary_path() {
        use std::os::unix::fs::PermissionsExt as _;
        let machine = FakeMachine::bare_debian();
        machine.file("usr/sbin/nginx", "#!/bin/sh\n");
        let nginx = machine.path("usr/sbin/nginx");
        std::fs::set_permissions(&nginx, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        assert_eq!(machine.host().find("nginx"), Some(nginx.into()));
    }

    #[test]
    fn libraries_are_asked_of_pkg_config() {
        let machine = FakeMachine::bare_debian();
        assert!(!machine.host().has(requirement("openssl")));
        let machine = machine.program("pkg-config", r#"[ "$1 $2" = "--exists openssl" ]"#);
        assert!(machine.host().has(requirement("openssl")));
        assert!(!machine.host().has(requirement("gstreamer-1.0")));
    }

    #[test]
    fn elements_are_asked_of_gst_inspect() {
        let machine = FakeMachine::bare_debian().program(
            "gst-inspect-1.0",
            "echo 'rtsp:  rtspsrc: RTSP packet receiver'",
        );
        let host = machine.host();
        assert!(host.has(requirement("rtspsrc")));
        assert!(!host.has(requirement("rtmp2sink")));
    }

    #[test]
    fn mediamtx_bin_wins_over_path_and_must_exist() {
        let machine = FakeMachine::bare_debian().program("mediamtx", "exit 0");
        assert!(machine.host().mediamtx().is_some());
        let elsewhere = machine.path("opt/mediamtx");
        let machine = machine.env("MEDIAMTX_BIN", &elsewhere);
        assert_eq!(machine.host().mediamtx(), None);
    }

    #[test]
    fn module_files_are_found_where_debian_puts_them() {
        let machine = FakeMachine::bare_debian();
        assert!(!machine.host().has(requirement("ngx_rtmp_module.so")));
        machine.file("usr/lib/nginx/modules/ngx_rtmp_module.so", "");
        machine.file("usr/lib/x86_64-linux-gnu/gio/modules/libgiognutls.so", "");
        assert!(machine.host().has(requirement("ngx_rtmp_module.so")));
        assert!(machine.host().has(requirement("libgiognutls.so")));
    }

    #[test]
    fn python_modules_are_asked_of_python() {
        let machine = FakeMachine::bare_debian().program("python3", "exit 1");
        assert!(machine.host().has(requirement("python3")));
        assert!(!machine.host().has(requirement("ensurepip")));
        let machine = machine.program("python3", r#"[ "$1 $2" = "-c import ensurepip" ]"#);
        assert!(machine.host().has(requirement("ensurepip")));
    }

    #[test]
    fn derivatives_of_debian_count_as_debian() {
        let machine = FakeMachine::bare_debian();
        assert!(machine.host().is_debian_like());
        machine.file(
            "etc/os-release",
            "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n",
        );
        assert!(machine.host().is_debian_like());
        machine.file("etc/os-release", "ID=fedora\n");
        assert!(!machine.host().is_debian_like());
    }
}
