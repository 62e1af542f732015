//! Tools of other people that judge what is ours, where they are installed.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Whether the machine must have what `cargo xtask test` installs: in CI, but for the flake's sandbox,
/// which does without these tools.
fn must_have() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    set("CI") && !set("NIX_BUILD_TOP")
}

/// Says that something is not checked here; fails where nothing may be skipped.
fn skip(why: &str, promised: bool) {
    assert!(
        !(promised && must_have()),
        "in CI nothing is skipped: {why}"
    );
    // Not by `eprintln`, which a test that passes keeps to itself.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// What a tool said, and whether it was content; nothing where it is missing. `promised`: the list of
/// requirements has it.
pub(crate) fn judge(
    program: impl AsRef<OsStr>,
    arguments: &[&str],
    input: &str,
    promised: bool,
) -> Option<(bool, String)> {
    let program = program.as_ref();
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            skip(&format!("{}: {error}", program.display()), promised);
            return None;
        }
    };
    let mut stdin = child.stdin.take().expect("it is a pipe");
    let input = input.to_owned();
    // A tool may end before it has read everything.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().expect("it was started");
    writer.join().expect("it does not panic");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Some((output.status.success(), text))
}
