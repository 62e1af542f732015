//! What may be named where: the boundaries of docs/architecture.md.

use super::source::{Source, Word};
use super::{Tree, Violation};

/// Names that only some files may use.
struct Confined {
    what: &'static str,
    matches: fn(&Source, Word<'_>) -> bool,
    /// Path prefixes.
    allowed: &'static [&'static str],
    /// What to do about a breach.
    instead: &'static str,
}

const CONFINED: &[Confined] = &[
    Confined {
        what: "GStreamer",
        matches: |source, word| {
            matches!(
                word.text,
                "gst" | "gst_app" | "gst_audio" | "gst_video" | "gstreamer" | "gstreamer_app"
            ) && is_path_root(source, word)
        },
        allowed: &["worker/media/", "e2e/src/media/"],
        instead: "move it under worker/media/src/ (the harness: e2e/src/media/) and call that",
    },
    Confined {
        what: "the Socket.IO client",
        matches: |_, word| word.text == "rust_socketio",
        allowed: &["worker/sts/tests/", "e2e/src/control.rs", "echo-sts/tests/"],
        instead: "it is the tests' control client only; the worker's own is worker/sts",
    },
    Confined {
        what: "the Socket.IO server",
        matches: |_, word| word.text == "socketioxide",
        allowed: &["echo-sts/src/server.rs", "echo-sts/src/server/"],
        instead: "move it to echo-sts/src/server.rs and call that",
    },
    Confined {
        what: "a metrics macro",
        matches: |source, word| {
            matches!(
                word.text,
                "counter"
                    | "gauge"
                    | "histogram"
                    | "describe_counter"
                    | "describe_gauge"
                    | "describe_histogram"
            ) && source.after(word).starts_with('!')
        },
        allowed: &["worker/src/telemetry/", "worker/src/observe/"],
        instead: "report an event and let worker/src/observe count it",
    },
];

/// This crate talks about all of these names.
const EXEMPT: &str = "xtask/";

/// GStreamer, Socket.IO and metrics stay where they belong.
pub(super) fn names_stay_where_they_belong(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (path, text) in tree
        .with_extension("rs")
        .filter(|(path, _)| !path.starts_with(EXEMPT))
    {
        let source = Source::parse(text);
        for word in source.words() {
            for rule in CONFINED {
                if (rule.matches)(&source, word)
                    && !rule.allowed.iter().any(|a| path.starts_with(a))
                {
                    let message = format!("{} does not belong here; {}", rule.what, rule.instead);
                    violations.push(Violation::new(path, word.line, message));
                }
            }
        }
    }
    violations
}

/// What starts ffmpeg knows its options, and they change from release to release.
pub(super) fn ffmpeg_is_called_in_one_place(tree: &Tree) -> Vec<Violation> {
    const PLACE: &str = "e2e/ffmpeg/";
    let mut violations = Vec::new();
    let elsewhere = |path: &str| !path.starts_with(PLACE) && !path.starts_with("xtask/src/tidy");
    for (path, text) in tree
        .with_extension("rs")
        .filter(|(path, _)| elsewhere(path))
    {
        let source = Source::parse(text);
        for literal in &source.literals {
            let before = source.before(literal.offset);
            let starts = ["Command::new(", "tool("]
                .iter()
                .any(|call| before.ends_with(call));
            if starts && matches!(literal.value.as_str(), "ffmpeg" | "ffprobe") {
                let message = format!(
                    "{} is started here; add what it is to do to {PLACE} and call that",
                    literal.value
                );
                violations.push(Violation::new(path, literal.line, message));
            }
        }
    }
    violations
}

/// A build sandbox has `/bin/sh` and nothing else at a known place.
pub(super) fn programs_are_looked_for(tree: &Tree) -> Vec<Violation> {
    const GUESSED: [&str; 4] = ["/usr/bin/", "/usr/local/bin/", "/bin/", "#!/usr/bin/"];
    let mut violations = Vec::new();
    for (path, text) in tree
        .with_extension("rs")
        .filter(|(path, _)| !path.starts_with(EXEMPT))
    {
        for literal in Source::parse(text).literals {
            let value = literal.value.as_str();
            if value != "/bin/sh" && GUESSED.iter().any(|start| value.starts_with(start)) {
                let message =
                    format!("{value} is not everywhere; name the program and let PATH find it");
                violations.push(Violation::new(path, literal.line, message));
            }
        }
    }
    violations
}

/// The engine decides; it does not look at clocks, sockets, threads or anything else outside.
pub(super) fn the_engine_depends_on_nothing(tree: &Tree) -> Vec<Violation> {
    /// Crates and types whose very name in the engine is wrong.
    const NAMES: &[(&str, &str)] = &[
        ("tokio", "the engine does not wait"),
        ("gst", "the engine knows nothing of media frameworks"),
        ("metrics", "report an Event; the worker counts it"),
        ("tracing", "report an Event; the worker logs it"),
        ("rust_socketio", "the engine knows nothing of the network"),
    ];
    const TYPES: &[(&str, &str)] = &[
        ("Instant", "take the time as an argument (At)"),
        ("SystemTime", "take the time as an argument (At)"),
        (
            "HashMap",
            "use BTreeMap: its order is the same on every run",
        ),
        (
            "HashSet",
            "use BTreeSet: its order is the same on every run",
        ),
        ("sleep", "say when to be woken (poll_timeout)"),
    ];
    const STD: &[&str] = &["fs", "net", "thread", "process", "env"];
    let mut violations = Vec::new();
    let own = |path: &str| path.starts_with("worker/engine/src/");
    for (path, text) in tree.with_extension("rs").filter(|(path, _)| own(path)) {
        let source = Source::parse(text);
        for word in source.words() {
            let named = NAMES
                .iter()
                .find(|(name, _)| *name == word.text && is_path_root(&source, word))
                .or_else(|| TYPES.iter().find(|(name, _)| *name == word.text));
            if let Some((name, instead)) = named {
                let message = format!("`{name}` in the pure engine; {instead}");
                violations.push(Violation::new(path, word.line, message));
            }
            if STD.contains(&word.text) && source.before(word.offset).ends_with("std::") {
                let message = format!(
                    "`std::{}` in the pure engine; let the worker do it and report a fact",
                    word.text
                );
                violations.push(Violation::new(path, word.line, message));
            }
        }
    }
    let manifest = "worker/engine/Cargo.toml";
    for (line, name) in dependencies(tree, manifest, &["dependencies"]) {
        if name != "thiserror" {
            let message =
                format!("the engine must not depend on {name}; it may use std and thiserror");
            violations.push(Violation::new(manifest, line, message));
        }
    }
    violations
}

/// The suite starts programs and looks from outside.
pub(super) fn the_suite_looks_from_outside(tree: &Tree) -> Vec<Violation> {
    let manifest = "e2e/Cargo.toml";
    dependencies(
        tree,
        manifest,
        &["dependencies", "dev-dependencies", "build-dependencies"],
    )
    .into_iter()
    .filter(|(_, name)| matches!(name.as_str(), "worker" | "dub-engine"))
    .map(|(line, name)| {
        let message = format!(
            "e2e must not depend on {name}: it starts programs and looks from outside \
                 (shared wire types live in sts-protocol)"
        );
        Violation::new(manifest, line, message)
    })
    .collect()
}

/// `word::…` or `use word`, and not `other::word` or `.word`.
fn is_path_root(source: &Source, word: Word<'_>) -> bool {
    let before = source.before(word.offset);
    if before.ends_with("::") && !leads_with_colons(before) || before.ends_with('.') {
        return false;
    }
    let after = source.after(word);
    after.starts_with("::") || before.ends_with("use") || before.ends_with("crate")
}

/// `::gst::…` starts at the root, too.
fn leads_with_colons(before: &str) -> bool {
    let rest = before.trim_end_matches("::");
    !rest.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '>')
}

/// The names in the given tables of a manifest, with their lines. Reads as much TOML as Cargo
/// manifests here use: one dependency per line, or a table of its own.
fn dependencies(tree: &Tree, manifest: &str, tables: &[&str]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut inside = false;
    for (index, line) in tree.get(manifest).unwrap_or_default().lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(header) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            inside = tables.contains(&header);
            if let Some((table, name)) = header.split_once('.')
                && tables.contains(&table)
            {
                found.push((index + 1, name.to_owned()));
            }
        } else if inside && let Some((key, _)) = line.split_once('=') {
            let name = key
                .split('.')
                .next()
                .unwrap_or_default()
                .trim()
                .trim_matches('"');
            found.push((index + 1, name.to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(violations: &[Violation]) -> Vec<(&str, usize)> {
        violations
            .iter()
            .map(|v| (v.file.as_str(), v.line))
            .collect()
    }

    #[test]
    fn gstreamer_outside_the_media_folder_is_told() {
        let tree = Tree::planted([
            ("worker/media/src/ingest.rs", "use gst::prelude::*;\n"),
            ("e2e/src/media/publisher.rs", "use gst_app::AppSrc;\n"),
            (
                "worker/src/runner.rs",
                "// gst::init is called in media\n\nfn f() { gst::init(); }\n",
            ),
            ("worker/src/main.rs", "use ::gst::Element;\n"),
            ("e2e/src/probe/clock.rs", "extern crate gst;\n"),
            (
                "worker/src/config.rs",
                "let gst = \"gst::x\"; self.gst.x(); media::gst::y();\n",
            ),
        ]);
        assert_eq!(
            lines(&names_stay_where_they_belong(&tree)),
            [
                ("e2e/src/probe/clock.rs", 1),
                ("worker/src/main.rs", 1),
                ("worker/src/runner.rs", 3),
            ]
        );
    }

    #[test]
    fn socket_io_outside_its_folders_is_told() {
        let tree = Tree::planted([
            (
                "worker/sts/src/client.rs",
                "use rust_socketio::asynchronous::Client;\n",
            ),
            ("e2e/src/control.rs", "use rust_socketio::Payload;\n"),
            (
                "worker/src/runner.rs",
                "fn f(c: rust_socketio::asynchronous::Client) {}\n",
            ),
            ("echo-sts/src/server.rs", "use socketioxide::SocketIo;\n"),
            (
                "echo-sts/src/session.rs",
                "\nuse socketioxide::extract::SocketRef;\n",
            ),
        ]);
        assert_eq!(
            lines(&names_stay_where_they_belong(&tree)),
            [("echo-sts/src/session.rs", 2), ("worker/src/runner.rs", 1),]
        );
    }

    #[test]
    fn metrics_outside_observe_are_told() {
        let tree = Tree::planted([
            (
                "worker/src/observe/events.rs",
                "counter!(names::X).increment(1);\n",
            ),
            (
                "worker/src/telemetry/metrics.rs",
                "describe_gauge!(names::X, \"x\");\n",
            ),
            (
                "worker/src/runner.rs",
                "let counter = 1;\nmetrics::counter!(\"x\").increment(1);\n",
            ),
        ]);
        let violations = names_stay_where_they_belong(&tree);
        assert_eq!(lines(&violations), [("worker/src/runner.rs", 2)]);
        assert!(violations[0].message.contains("src/observe"));
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

    #[test]
    fn clocks_and_crates_in_the_engine_are_told() {
        let tree = Tree::planted([
            (
                "worker/engine/src/session.rs",
                "use std::time::Instant;\nfn f() { let now = std::time::SystemTime::now(); }\n\
                 use std::collections::HashMap;\nuse tokio::time;\nuse std::net::TcpStream;\n\
                 let instant = 1; // Instant\nlet metrics = 2;\n",
            ),
            (
                "worker/engine/tests/sim/world.rs",
                "use std::time::Instant;\n",
            ),
            (
                "worker/engine/Cargo.toml",
                "[package]\nname = \"x\"\n[dependencies]\nthiserror.workspace = true\nrand = \"1\"\n[dev-dependencies]\nproptest.workspace = true\n[dependencies.tokio]\nversion = \"1\"\n",
            ),
        ]);
        assert_eq!(
            lines(&the_engine_depends_on_nothing(&tree)),
            [
                ("worker/engine/src/session.rs", 1),
                ("worker/engine/src/session.rs", 2),
                ("worker/engine/src/session.rs", 3),
                ("worker/engine/src/session.rs", 4),
                ("worker/engine/src/session.rs", 5),
                ("worker/engine/Cargo.toml", 5),
                ("worker/engine/Cargo.toml", 8),
            ]
        );
    }

    #[test]
    fn the_suite_importing_the_worker_is_told() {
        let tree = Tree::planted([(
            "e2e/Cargo.toml",
            "[dependencies]\nsts-protocol.workspace = true\n[dev-dependencies]\nworker = { path = \"../worker\" }\n",
        )]);
        assert_eq!(
            lines(&the_suite_looks_from_outside(&tree)),
            [("e2e/Cargo.toml", 4)]
        );
    }
}
