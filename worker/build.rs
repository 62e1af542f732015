//! Tells the program which commit it is built from: `WORKER_COMMIT` where the builder knows it
//! (a flake has no `.git`), else what git says, else `unknown`.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=WORKER_COMMIT");
    let commit = std::env::var("WORKER_COMMIT")
        .ok()
        .or_else(from_git)
        .filter(|commit| {
            !commit.is_empty()
                && commit
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=WORKER_COMMIT={commit}");
}

fn from_git() -> Option<String> {
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file])
            && Path::new(&path).exists()
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
