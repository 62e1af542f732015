//! Sizes, and snapshots that somebody still looks at.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Tree, Violation};

/// At this length a file holds two things; see docs/architecture.md.
const MOST_LINES: usize = 700;

/// No Rust file is longer than a person reads at one go.
pub(super) fn files_stay_readable(tree: &Tree) -> Vec<Violation> {
    tree.with_extension("rs")
        .filter_map(|(path, text)| {
            let lines = text.lines().count();
            let message =
                format!("{lines} lines, over {MOST_LINES}; find the second thing that wants out");
            (lines > MOST_LINES).then(|| Violation::new(path, MOST_LINES + 1, message))
        })
        .collect()
}

/// The test a snapshot names as its source still exists.
pub(super) fn snapshots_have_a_source(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (path, text) in tree.with_extension("snap") {
        let source = text.lines().enumerate().find_map(|(index, line)| {
            Some((
                index + 1,
                line.strip_prefix("source: ")?.trim().trim_matches('"'),
            ))
        });
        match source {
            None => violations.push(Violation::new(
                path,
                1,
                "no `source:` line; make it with insta",
            )),
            Some((line, source)) if !tree.paths.contains(source) => {
                violations.push(Violation::new(
                    path,
                    line,
                    format!(
                        "its source {source} is gone; delete the snapshot or move it with its test"
                    ),
                ));
            }
            Some(_) => {}
        }
    }
    violations
}

/// Snapshots of the tree that do not occur in insta's record of the files it looked at.
pub(super) fn unused_snapshots(tree: &Tree, root: &Path, record: &str) -> Vec<String> {
    let used: BTreeSet<String> = record
        .lines()
        .filter_map(|line| normal(root, line))
        .collect();
    tree.with_extension("snap")
        .map(|(path, _)| path.to_owned())
        .filter(|path| !used.contains(path))
        .collect()
}

/// A path from the record relative to the root; insta writes `/root/crate/src/../tests/x.snap`.
fn normal(root: &Path, line: &str) -> Option<String> {
    let mut parts: Vec<String> = Vec::new();
    let path = Path::new(line.trim()).strip_prefix(root).ok()?;
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(parts.pop()),
            std::path::Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            _ => {}
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_has_grown_too_long_is_told() {
        let long = "x\n".repeat(MOST_LINES + 1);
        let fits = "x\n".repeat(MOST_LINES);
        let tree = Tree::planted([("a/long.rs", long.as_str()), ("a/fits.rs", fits.as_str())]);
        let violations = files_stay_readable(&tree);
        assert_eq!(violations.len(), 1);
        assert_eq!(violations[0].file, "a/long.rs");
    }

    #[test]
    fn a_snapshot_whose_test_is_gone_is_told() {
        let tree = Tree::planted([
            ("e2e/tests/e2e/main.rs", ""),
            (
                "e2e/tests/e2e/snapshots/a.snap",
                "---\nsource: e2e/tests/e2e/main.rs\n---\nx\n",
            ),
            (
                "e2e/tests/e2e/snapshots/b.snap",
                "---\nsource: e2e/tests/e2e/old.rs\n---\nx\n",
            ),
        ]);
        let violations = snapshots_have_a_source(&tree);
        assert_eq!(violations.len(), 1);
        assert_eq!(
            (violations[0].file.as_str(), violations[0].line),
            ("e2e/tests/e2e/snapshots/b.snap", 2)
        );
    }

    #[test]
    fn a_snapshot_no_test_looked_at_is_told() {
        let tree = Tree::planted([
            ("e2e/tests/e2e/snapshots/a.snap", ""),
            ("e2e/tests/e2e/snapshots/b.snap", ""),
        ]);
        let record = "/co/e2e/tests/e2e/snapshots/../snapshots/a.snap\n/elsewhere/b.snap\n";
        assert_eq!(
            unused_snapshots(&tree, Path::new("/co"), record),
            ["e2e/tests/e2e/snapshots/b.snap"]
        );
    }
}
