//! Where the programs that an environment starts are found, and what to do when one is missing.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Directory that holds the project's own binaries; unset: beside the running test binary.
pub const BIN_DIR_ENV: &str = "E2E_BIN_DIR";

/// Directories searched after `PATH`: Debian installs servers where an ordinary user's `PATH` does
/// not look.
const EXTRA_DIRS: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/sbin"];

/// Path of one of the project's own binaries (`worker`, `echo-sts`, or one of this crate's).
///
/// # Errors
/// When it has not been built; the message holds the command that builds it.
pub fn own(name: &str) -> Result<PathBuf> {
    let dir = bin_dir()?;
    let path = dir.join(name);
    if path.is_file() {
        return Ok(path);
    }
    let package = match name {
        "worker" | "echo-sts" | "camera" => name,
        _ => "e2e",
    };
    bail!(
        "{name} is not in {}: build it with `cargo build -p {package}` (or point {BIN_DIR_ENV} at the \
         directory that holds it)",
        dir.display()
    )
}

/// Path of a system tool (`ffmpeg`, `ffprobe`, `nginx`) from `PATH` and the system directories.
///
/// # Errors
/// When it is not installed; the message says which package brings it.
pub fn tool(name: &str) -> Result<PathBuf> {
    find(name).with_context(|| match package_of(name) {
        Some(package) => format!(
            "{name} is not installed: `apt-get install --no-install-recommends {package}`, or work inside \
             `nix develop`"
        ),
        None => format!("{name} is not in PATH"),
    })
}

/// Path of a program in `PATH` or the system directories, if it is there.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(EXTRA_DIRS.iter().map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| is_executable(candidate))
}

/// Whether `path` is a file this user may run.
pub fn is_executable(path: &Path) -> bool {
    path.is_file() && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok()
}

fn package_of(tool: &str) -> Option<&'static str> {
    match tool {
        "ffmpeg" | "ffprobe" => Some("ffmpeg"),
        "nginx" => Some("nginx-light libnginx-mod-rtmp"),
        _ => None,
    }
}

/// Test binaries live in `target/<profile>/deps`, programs one level up.
fn bin_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os(BIN_DIR_ENV) {
        return Ok(PathBuf::from(dir));
    }
    let exe = std::env::current_exe().context("cannot tell where this program is")?;
    let dir = exe.parent().context("this program has no directory")?;
    let above = if dir.ends_with("deps") {
        dir.parent().unwrap_or(dir)
    } else {
        dir
    };
    Ok(above.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_every_system_has() {
        assert!(is_executable(&tool("sh").unwrap()));
    }

    #[test]
    fn a_missing_tool_is_named_with_its_package() {
        assert!(find("no-such-tool-anywhere").is_none());
        assert_eq!(package_of("ffprobe"), Some("ffmpeg"));
        let error = own("no-such-binary").unwrap_err().to_string();
        assert!(error.contains("cargo build -p e2e"), "{error}");
    }
}
