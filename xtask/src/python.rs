//! A Python with python-socketio, for the tests against STS services as others write them.
//!
//! A virtual environment in `target/python`, made once with pip. It is optional: where it cannot be
//! made, those tests say that they are skipped. In CI it is not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::failure::{CannotRun, Interrupted};
use crate::preflight;
use crate::process::run;
use crate::programs::target_directory;
use crate::requirements::Need;

/// The scenario that needs it.
const SCENARIO: &str = "python_sts";
/// What is installed, for pip; a change installs anew.
const PACKAGES: &str = "e2e/tests/e2e/python_sts/requirements.txt";
/// A Python that has the packages already; the flake sets it.
const INTERPRETER_ENV: &str = "E2E_PYTHON";

/// Makes it for these scenarios (none: all), if one of them needs it.
pub(crate) fn prepare_for(scenarios: &[String]) -> anyhow::Result<()> {
    let wanted = scenarios.is_empty() || scenarios.iter().any(|name| name == SCENARIO);
    if wanted { prepare() } else { Ok(()) }
}

/// Makes it if it is not here. Outside CI only an interruption is an error.
pub(crate) fn prepare() -> anyhow::Result<()> {
    match make() {
        Err(error) if !in_ci() && !error.is::<Interrupted>() => {
            eprintln!("warning: without python-socketio, tests against it are skipped: {error:#}");
            Ok(())
        }
        made => made,
    }
}

/// Makes it if it is not here.
pub(crate) fn make() -> anyhow::Result<()> {
    if given().is_some() {
        return Ok(());
    }
    let wanted = fs::read_to_string(crate::root().join(PACKAGES)).context(PACKAGES)?;
    let place = Place::of(&target_directory()?);
    if place.has(&wanted) {
        return Ok(());
    }
    preflight::ensure(&[Need::Python])?;
    eprintln!("installing {PACKAGES} into {}", place.directory.display());
    place.fill(&wanted)
}

/// What is here, for a person.
pub(crate) fn version() -> String {
    let version = || {
        let python = match given() {
            Some(python) => python,
            None => interpreter(&Place::of(&target_directory().ok()?).directory),
        };
        let script = "import importlib.metadata as m; print(m.version('python-socketio'))";
        let output = Command::new(&python)
            .args(["-c", script])
            .stdin(Stdio::null())
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Some(format!("python-socketio {version} ({})", python.display()))
    };
    version().unwrap_or_else(|| {
        "no python-socketio: tests against it are skipped; `cargo xtask setup` installs it".into()
    })
}

/// The Python somebody else has made.
fn given() -> Option<PathBuf> {
    std::env::var_os(INTERPRETER_ENV)
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}

fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty())
}

/// Where it is.
#[derive(Debug)]
struct Place {
    directory: PathBuf,
}

impl Place {
    fn of(target: &Path) -> Self {
        Self {
            directory: target.join("python"),
        }
    }

    /// Whether these packages are in it and the Python they were installed for still runs.
    fn has(&self, wanted: &str) -> bool {
        let installed = fs::read_to_string(stamp(&self.directory));
        let imports = || {
            Command::new(interpreter(&self.directory))
                .args(["-c", "import socketio, uvicorn, websockets"])
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .status()
        };
        installed.is_ok_and(|installed| installed == wanted)
            && imports().is_ok_and(|status| status.success())
    }

    /// Makes it anew, beside where it goes: what is there is always whole.
    fn fill(&self, wanted: &str) -> anyhow::Result<()> {
        let new = self.directory.with_extension("new");
        remove(&new)?;
        let mut venv = Command::new("python3");
        run("python3 -m venv", venv.args(["-m", "venv"]).arg(&new)).map_err(cannot)?;
        let mut pip = Command::new(interpreter(&new));
        pip.args(["-m", "pip", "install", "--quiet", "--requirement"])
            .arg(crate::root().join(PACKAGES))
            .args([
                "--disable-pip-version-check",
                "--timeout",
                "20",
                "--retries",
                "2",
            ]);
        run("pip install", &mut pip).map_err(cannot)?;
        fs::write(stamp(&new), wanted)?;
        remove(&self.directory)?;
        fs::rename(&new, &self.directory).with_context(|| self.directory.display().to_string())
    }
}

/// A virtual environment's Python.
fn interpreter(directory: &Path) -> PathBuf {
    directory.join("bin/python3")
}

/// What was installed, as it was asked for.
fn stamp(directory: &Path) -> PathBuf {
    directory.join("installed")
}

fn remove(directory: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| directory.display().to_string())
        }
        _ => Ok(()),
    }
}

/// A package index out of reach is no broken promise.
fn cannot(error: anyhow::Error) -> anyhow::Error {
    if error.is::<Interrupted>() {
        return error;
    }
    CannotRun(format!("{error:#}; its own words are above")).into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn it_is_here_when_the_same_was_installed_and_still_imports() {
        let target = tempfile::tempdir().expect("a temporary directory");
        let place = Place::of(target.path());
        assert!(!place.has("a==1\n"));
        let python = |script: &str| {
            let path = interpreter(&place.directory);
            fs::create_dir_all(path.parent().expect("has a parent")).expect("mkdir");
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("write");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
        };
        python(r#"case "$2" in *socketio*) exit 0; esac; exit 1"#);
        fs::write(stamp(&place.directory), "a==1\n").expect("write");
        assert!(place.has("a==1\n"));
        assert!(!place.has("a==2\n"), "another version is wanted");
        python("exit 1");
        assert!(!place.has("a==1\n"), "it does not run any more");
    }

    #[test]
    fn the_tests_look_where_it_is_made() {
        for path in ["worker/tests/sts_python.rs", "e2e/tests/e2e/python_sts.rs"] {
            let text = fs::read_to_string(crate::root().join(path)).expect(path);
            assert!(text.contains(r#""../python/bin/python3""#), "{path}");
            assert!(text.contains(INTERPRETER_ENV), "{path}");
        }
    }

    #[test]
    fn only_scenarios_that_need_it_ask_for_it() {
        // Anything else would try to install something.
        prepare_for(&["full_pipeline".to_owned()]).expect("nothing to do");
        let scenarios = fs::read_to_string(crate::root().join("e2e/tests/e2e/main.rs"));
        assert!(
            scenarios
                .expect("readable")
                .contains(&format!("\"{SCENARIO}\""))
        );
    }
}
