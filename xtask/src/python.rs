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
use crate::process::{judge, run, run_watched};
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
    let otherwise = "without python-socketio, tests against it are skipped";
    preflight::forgive(make(), otherwise)
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
    crate::say::tell!("installing {PACKAGES} into {}", place.directory.display());
    place.fill(&wanted)
}

/// What is here, for a person.
pub(crate) fn version() -> Option<String> {
    let python = match given() {
        Some(python) => python,
        None => interpreter(&Place::of(&target_directory().ok()?).directory),
    };
    let script = "import socketio, uvicorn, websockets, importlib.metadata as m; \
                  print(m.version('python-socketio'))";
    let output = Command::new(&python)
        .args(["-c", script])
        .stdin(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Some(format!("python-socketio {version} ({})", python.display()))
}

/// The Python somebody else has made.
fn given() -> Option<PathBuf> {
    std::env::var_os(INTERPRETER_ENV)
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
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
        let (status, said) = run_watched("pip install", &mut pip).map_err(cannot)?;
        if let Some(advice) = untrusted(&said).filter(|_| !status.success()) {
            return Err(CannotRun(advice.to_owned()).into());
        }
        judge("pip install", status).map_err(cannot)?;
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

/// What to do when pip does not believe that the package index is who it says, if that is what it says.
fn untrusted(said: &str) -> Option<&'static str> {
    let signs = [
        "CERTIFICATE_VERIFY_FAILED",
        "certificate verify failed",
        "SSLCertVerificationError",
    ];
    signs.iter().any(|sign| said.contains(sign)).then_some(
        "pip does not trust the certificate of the package index. Behind a proxy with a certificate authority \
         of its own, tell pip where that one's certificate is: PIP_CERT=/path/to/ca.pem, or \
         `pip config set global.cert /path/to/ca.pem`. Or let E2E_PYTHON name a Python that has the packages",
    )
}

/// A package index out of reach is no failed check.
fn cannot(error: anyhow::Error) -> anyhow::Error {
    if error.is::<Interrupted>() {
        return error;
    }
    CannotRun(format!("{error:#}; its own words are above")).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::write_program;

    #[test]
    fn it_is_here_when_the_same_was_installed_and_still_imports() {
        let target = tempfile::tempdir().expect("a temporary directory");
        let place = Place::of(target.path());
        assert!(!place.has("a==1\n"));
        let python = |script: &str| {
            write_program(&interpreter(&place.directory), script);
        };
        python(r#"case "$2" in *socketio*) exit 0; esac; exit 1"#);
        fs::write(stamp(&place.directory), "a==1\n").expect("write");
        assert!(place.has("a==1\n"));
        assert!(!place.has("a==2\n"), "another version is wanted");
        python("exit 1");
        assert!(!place.has("a==1\n"), "it does not run any more");
    }

    #[test]
    fn a_certificate_authority_that_pip_does_not_know_is_said() {
        let said = "WARNING: Retrying (Retry(total=1)) after connection broken by 'SSLError(\
                    SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify \
                    failed: self-signed certificate in certificate chain (_ssl.c:992)'))'";
        assert!(untrusted(said).is_some_and(|advice| advice.contains("PIP_CERT")));
        assert_eq!(
            untrusted("ERROR: No matching distribution found for nothing"),
            None
        );
    }

    #[test]
    fn the_tests_look_where_it_is_made() {
        for path in ["worker/sts/tests/python.rs", "e2e/tests/e2e/python_sts.rs"] {
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
