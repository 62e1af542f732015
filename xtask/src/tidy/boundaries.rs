//! Who may depend on what, by Cargo's manifests; and what starts programs. What the engine may name
//! of `std` is clippy's business (worker/engine/clippy.toml).

use regex::Regex;
use toml::Table;

use super::{Tree, Violation, pattern};

/// A crate that only some manifests may name.
struct Confined {
    dependency: &'static str,
    /// Manifests and the tables in which they may.
    allowed: &'static [(&'static str, &'static [&'static str])],
    instead: &'static str,
}

const BOTH: &[&str] = &["dependencies", "dev-dependencies"];
const TESTS: &[&str] = &["dev-dependencies"];

const CONFINED: &[Confined] = &[
    Confined {
        dependency: "gst",
        allowed: &[("worker/media/Cargo.toml", BOTH)],
        instead: "GStreamer stays in worker/media; call that",
    },
    Confined {
        dependency: "rust_socketio",
        allowed: &[
            ("worker/sts/Cargo.toml", TESTS),
            ("echo-sts/Cargo.toml", TESTS),
            ("e2e/Cargo.toml", BOTH),
        ],
        instead: "it is the tests' independent client; the worker's own is worker/sts",
    },
    Confined {
        dependency: "socketioxide",
        allowed: &[("echo-sts/Cargo.toml", BOTH)],
        instead: "only echo-sts is a Socket.IO server",
    },
    Confined {
        dependency: "metrics",
        allowed: &[("worker/Cargo.toml", BOTH)],
        instead: "report an event and let worker/src/observe count it",
    },
    Confined {
        dependency: "dub-engine",
        allowed: &[
            ("worker/Cargo.toml", BOTH),
            ("worker/media/Cargo.toml", BOTH),
            ("worker/sts/Cargo.toml", BOTH),
        ],
        instead: "the suite starts programs and looks from outside (wire types: sts-protocol)",
    },
    Confined {
        dependency: "worker",
        allowed: &[],
        instead: "the suite starts programs and looks from outside (wire types: sts-protocol)",
    },
];

/// GStreamer, Socket.IO, metrics and the engine stay where they belong; the engine needs nobody.
pub(super) fn dependencies_stay_where_they_belong(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    let manifests = tree.with_extension("toml");
    for (path, text) in manifests.filter(|(path, _)| path.ends_with("/Cargo.toml")) {
        let manifest: Table = match text.parse() {
            Ok(manifest) => manifest,
            Err(error) => {
                violations.push(Violation::new(path, 0, error.to_string()));
                continue;
            }
        };
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let names = manifest.get(table).and_then(toml::Value::as_table);
            for name in names.into_iter().flat_map(Table::keys) {
                if let Some(message) = refusal(path, table, name) {
                    violations.push(Violation::new(path, line_of(text, name), message));
                }
            }
        }
    }
    violations
}

fn refusal(manifest: &str, table: &str, name: &str) -> Option<String> {
    if manifest == "worker/engine/Cargo.toml" && table == "dependencies" && name != "thiserror" {
        return Some(format!("the engine is pure: it must not depend on {name}"));
    }
    let root = |rule: &&Confined| {
        name == rule.dependency
            || rule.dependency == "gst" && name.starts_with("gst-")
            || rule.dependency == "metrics" && name.starts_with("metrics-")
    };
    let rule = CONFINED.iter().find(root)?;
    let allowed = rule
        .allowed
        .iter()
        .any(|(path, tables)| *path == manifest && tables.contains(&table));
    (!allowed).then(|| {
        format!(
            "{name} does not belong in the {table} here; {}",
            rule.instead
        )
    })
}

fn line_of(text: &str, name: &str) -> usize {
    let mentions = |line: &str| line.trim_start().trim_start_matches('"').starts_with(name);
    text.lines().position(mentions).map_or(0, |index| index + 1)
}

/// What starts ffmpeg knows its options, and they change from release to release.
pub(super) fn ffmpeg_is_called_in_one_place(tree: &Tree) -> Vec<Violation> {
    const PLACE: &str = "e2e/ffmpeg/";
    let started = pattern(r#"(?:Command::new|\btool)\(\s*"(ffmpeg|ffprobe)""#);
    in_code(
        tree,
        &started,
        |path| !path.starts_with(PLACE),
        |program| {
            format!("{program} is started here; add what it is to do to {PLACE} and call that")
        },
    )
}

/// A build sandbox has `/bin/sh` and nothing else at a known place.
pub(super) fn programs_are_looked_for(tree: &Tree) -> Vec<Violation> {
    let guessed = pattern(r#""((?:#!)?(?:/usr(?:/local)?)?/bin/[^"\\]*)""#);
    let mut violations = in_code(
        tree,
        &guessed,
        |path| !path.starts_with("xtask/"),
        |path| format!("{path} is not everywhere; name the program and let PATH find it"),
    );
    violations.retain(|violation| !violation.message.starts_with("/bin/sh "));
    violations
}

/// Matches of the pattern in lines of Rust code, comments left out; the message gets group 1.
fn in_code(
    tree: &Tree,
    pattern: &Regex,
    looked_at: impl Fn(&str) -> bool,
    message: impl Fn(&str) -> String,
) -> Vec<Violation> {
    let mut violations = Vec::new();
    let files = tree
        .with_extension("rs")
        .filter(|(path, _)| looked_at(path) && !path.starts_with("xtask/src/tidy/"));
    for (path, text) in files {
        for (number, line) in (1..).zip(text.lines()) {
            let code = line.split("// ").next().unwrap_or_default();
            for found in pattern.captures_iter(code) {
                violations.push(Violation::new(path, number, message(&found[1])));
            }
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(violations: &[Violation]) -> Vec<(&str, usize)> {
        let mut lines: Vec<_> = violations
            .iter()
            .map(|it| (it.file.as_str(), it.line))
            .collect();
        lines.sort_unstable();
        lines
    }

    #[test]
    fn dependencies_in_the_wrong_crate_are_told() {
        let tree = Tree::planted([
            (
                "worker/media/Cargo.toml",
                "[dependencies]\ngst.workspace = true\ngst-app.workspace = true\n",
            ),
            (
                "worker/Cargo.toml",
                "[dependencies]\nmetrics.workspace = true\ngst-app = \"0.25\"\n",
            ),
            (
                "worker/sts/Cargo.toml",
                "[dependencies]\nrust_socketio.workspace = true\n[dev-dependencies]\nrust_socketio.workspace = true\n",
            ),
            (
                "e2e/Cargo.toml",
                "[dependencies]\nrust_socketio.workspace = true\n[dev-dependencies]\nworker = { path = \"../worker\" }\n",
            ),
            (
                "worker/engine/Cargo.toml",
                "[package]\nname = \"x\"\n[dependencies]\nthiserror.workspace = true\nrand = \"1\"\n[dev-dependencies]\nproptest.workspace = true\n[dependencies.tokio]\nversion = \"1\"\n",
            ),
        ]);
        assert_eq!(
            lines(&dependencies_stay_where_they_belong(&tree)),
            [
                ("e2e/Cargo.toml", 4),
                ("worker/Cargo.toml", 3),
                ("worker/engine/Cargo.toml", 0),
                ("worker/engine/Cargo.toml", 5),
                ("worker/sts/Cargo.toml", 2),
            ]
        );
    }

    #[test]
    fn ffmpeg_started_elsewhere_is_told() {
        let tree = Tree::planted([
            ("e2e/ffmpeg/src/call.rs", "Command::new(\"ffmpeg\");\n"),
            (
                "e2e/src/probe/frames.rs",
                "\nlet c = Command::new(\"ffprobe\");\n",
            ),
            ("e2e/tests/e2e/smoke.rs", "programs::tool( \"ffmpeg\")?;\n"),
            (
                "e2e/src/runner/settings.rs",
                "let tools = [\"ffmpeg\"]; // tool(\"ffmpeg\")\n",
            ),
        ]);
        assert_eq!(
            lines(&ffmpeg_is_called_in_one_place(&tree)),
            [
                ("e2e/src/probe/frames.rs", 2),
                ("e2e/tests/e2e/smoke.rs", 1)
            ]
        );
    }

    #[test]
    fn programs_at_a_guessed_place_are_told() {
        let tree = Tree::planted([
            (
                "e2e/tests/guard.rs",
                "Spawn::new(\"env\", \"/usr/bin/env\");\n",
            ),
            (
                "e2e/src/process.rs",
                "Spawn::new(\"x\", \"/bin/sh\"); // \"/bin/true\"\n",
            ),
            (
                "echo-sts/tests/program.rs",
                "\n\"#!/usr/bin/env python3\"\n",
            ),
        ]);
        assert_eq!(
            lines(&programs_are_looked_for(&tree)),
            [("e2e/tests/guard.rs", 1), ("echo-sts/tests/program.rs", 2)]
        );
    }
}
