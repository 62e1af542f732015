//! Where a scenario leaves what a person wants to look at: logs, metrics, journal, recording.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// Directory of all artifacts; unset: `target/e2e` of the workspace.
pub const DIR_ENV: &str = "E2E_ARTIFACTS_DIR";

/// More runs of one scenario than this do not happen at once on one machine.
const MOST_AT_ONCE: usize = 16;

/// The artifacts of one scenario: `target/e2e/<scenario>/`, emptied when claimed.
#[derive(Debug)]
pub struct Artifacts {
    dir: PathBuf,
    /// Held, not read: another run of the scenario at the same time takes another directory.
    _lock: File,
}

impl Artifacts {
    /// Claims and empties the directory of a scenario. When another run holds it, `<scenario>-2` and
    /// so on is taken, so that runs side by side do not overwrite each other.
    ///
    /// # Errors
    /// When no directory can be made.
    pub fn claim(scenario: &str) -> Result<Self> {
        Self::claim_in(&root(), scenario)
    }

    fn claim_in(root: &Path, scenario: &str) -> Result<Self> {
        let locks = root.join(".locks");
        std::fs::create_dir_all(&locks)
            .with_context(|| format!("cannot create {}", locks.display()))?;
        for number in 1..=MOST_AT_ONCE {
            let name = match number {
                1 => scenario.to_owned(),
                _ => format!("{scenario}-{number}"),
            };
            let lock = File::create(locks.join(&name)).context("cannot create a lock")?;
            if lock.try_lock().is_err() {
                continue;
            }
            let dir = root.join(name);
            match std::fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot empty {}", dir.display()));
                }
                _ => {}
            }
            std::fs::create_dir_all(&dir)
                .with_context(|| format!("cannot create {}", dir.display()))?;
            return Ok(Self { dir, _lock: lock });
        }
        bail!(
            "{MOST_AT_ONCE} runs of {scenario} at once: no directory left in {}",
            root.display()
        )
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Path of an artifact.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes an artifact.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path(name);
        std::fs::write(&path, contents)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Copies a file here under another name.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn keep(&self, file: &Path, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        std::fs::copy(file, &path)
            .with_context(|| format!("cannot copy {} to {}", file.display(), path.display()))?;
        Ok(path)
    }
}

/// Directory of all artifacts.
pub fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let default = || package.parent().unwrap_or(package).join("target/e2e");
    std::env::var_os(DIR_ENV).map_or_else(default, PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_directory_is_empty_and_exclusive() {
        let root = tempfile::tempdir().unwrap();
        let first = Artifacts::claim_in(root.path(), "s").unwrap();
        first.write("old.log", "x").unwrap();
        let second = Artifacts::claim_in(root.path(), "s").unwrap();
        assert_eq!(second.dir(), root.path().join("s-2"));
        assert!(first.path("old.log").exists());
        drop(first);
        let again = Artifacts::claim_in(root.path(), "s").unwrap();
        assert_eq!(again.dir(), root.path().join("s"));
        assert!(!again.path("old.log").exists());
    }

    #[test]
    fn files_are_kept_by_name() {
        let root = tempfile::tempdir().unwrap();
        let source = root.path().join("out-123.flv");
        std::fs::write(&source, "flv").unwrap();
        let artifacts = Artifacts::claim_in(root.path(), "s").unwrap();
        let kept = artifacts.keep(&source, "output.flv").unwrap();
        assert_eq!(std::fs::read_to_string(kept).unwrap(), "flv");
        assert!(artifacts.keep(Path::new("/no/such/file"), "x").is_err());
    }
}
