//! Every GStreamer element the code makes is in `requirements`, and so has a Debian package and an
//! attribute in flake.nix; and nothing is listed that nobody needs.

use std::collections::{BTreeMap, BTreeSet};

use super::made::elements_made;
use super::{Tree, Violation};
use crate::requirements::{Fact, MadeBy, REQUIREMENTS};

const LIST: &str = "xtask/src/requirements.rs";
const FLAKE: &str = "flake.nix";

/// Elements made by code are listed, listed elements are made.
pub(super) fn elements_are_listed(tree: &Tree) -> Vec<Violation> {
    let (made, mut violations) = elements_made(tree);
    let names: BTreeSet<&str> = made.iter().map(|m| m.element.as_str()).collect();
    let mut listed = BTreeSet::new();
    for requirement in REQUIREMENTS {
        if let Fact::Element { name, made_by, .. } = requirement.fact {
            listed.insert(name);
            if made_by == MadeBy::Us && !names.contains(name) && !made.is_empty() {
                let line = line_of(tree, LIST, &format!("\"{name}\""));
                let message = format!("no code makes `{name}` any more; take it off the list");
                violations.push(Violation::new(LIST, line, message));
            }
        }
    }
    violations.extend(
        made.iter()
            .filter(|m| !listed.contains(m.element.as_str()))
            .map(|m| {
                let message = format!(
                    "GStreamer element `{}` is not in {LIST}; add it there with its plugin, Debian \
             package and nixpkgs attribute (`gst-inspect-1.0 {}` names the plugin)",
                    m.element, m.element
                );
                Violation::new(&m.file, m.line, message)
            }),
    );
    violations
}

/// Each attribute of the list is named in flake.nix, and each GStreamer package there is needed.
pub(super) fn the_flake_covers_the_list(tree: &Tree) -> Vec<Violation> {
    let Some(flake) = tree.get(FLAKE) else {
        return vec![Violation::new(FLAKE, 0, "there is no flake.nix")];
    };
    let named = nix_identifiers(flake);
    let mut violations = Vec::new();
    let mut needed = BTreeSet::new();
    for requirement in REQUIREMENTS {
        let Some(attribute) = requirement.nix else {
            continue;
        };
        let last = attribute.rsplit('.').next().unwrap_or(attribute);
        needed.insert(last);
        if !named.contains_key(last) {
            let message = format!(
                "{} `{}` needs `{attribute}`, which flake.nix does not name; add it there",
                requirement.kind(),
                requirement.name()
            );
            violations.push(Violation::new(FLAKE, 0, message));
        }
    }
    for (name, line) in &named {
        if is_gst_package(name) && !needed.contains(name.as_str()) {
            let message = format!("nothing in {LIST} needs `{name}`; take it out of the flake");
            violations.push(Violation::new(FLAKE, *line, message));
        }
    }
    violations
}

fn is_gst_package(name: &str) -> bool {
    name.starts_with("gst-plugins-")
        || matches!(
            name,
            "gst-libav" | "gst-rtsp-server" | "gst-editing-services"
        )
}

/// Identifiers of a Nix file outside comments and strings, with the line of their first mention.
fn nix_identifiers(text: &str) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let bytes = text.as_bytes();
    let (mut at, mut line) = (0, 1);
    let skip_to = |from: usize, end: &str| {
        text.get(from..)
            .and_then(|rest| rest.find(end))
            .map_or(text.len(), |n| from + n + end.len())
    };
    while at < bytes.len() {
        let rest = &text[at..];
        let next = if rest.starts_with('#') {
            skip_to(at, "\n") - usize::from(rest.contains('\n'))
        } else if rest.starts_with("/*") {
            skip_to(at + 2, "*/")
        } else if rest.starts_with("''") {
            skip_to(at + 2, "''")
        } else if rest.starts_with('"') {
            skip_to(at + 1, "\"")
        } else {
            let length = bytes[at..]
                .iter()
                .position(|&b| !(b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'\'')))
                .unwrap_or(bytes.len() - at);
            if length > 0 {
                found.entry(rest[..length].to_owned()).or_insert(line);
                at + length
            } else {
                at + rest.chars().next().map_or(1, char::len_utf8)
            }
        };
        line += text[at..next].matches('\n').count();
        at = next;
    }
    found
}

fn line_of(tree: &Tree, path: &str, needle: &str) -> usize {
    let text = tree.get(path).unwrap_or_default();
    text.lines()
        .position(|line| line.contains(needle))
        .map_or(0, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unlisted_element_is_told() {
        let tree = Tree::planted([(
            "worker/media/src/egress.rs",
            "fn f() {\n    gst::ElementFactory::make(\"x264enc\").build();\n}\n",
        )]);
        let violations = elements_are_listed(&tree);
        let found = violations
            .iter()
            .find(|v| v.file == "worker/media/src/egress.rs")
            .expect("told");
        assert_eq!(found.line, 2);
        assert!(found.message.contains("`x264enc`"));
    }

    #[test]
    fn a_listed_element_that_nothing_makes_is_told() {
        let tree = Tree::planted([
            (
                "worker/media/src/egress.rs",
                "gst::ElementFactory::make(\"appsrc\")",
            ),
            (LIST, "x\nmade(\"rtmp2sink\", \"rtmp2\", BAD, \"y\"),\n"),
        ]);
        let violations = elements_are_listed(&tree);
        assert!(
            violations
                .iter()
                .any(|v| v.line == 2 && v.message.contains("`rtmp2sink`"))
        );
        assert!(violations.iter().all(|v| !v.message.contains("`appsrc`")));
    }

    #[test]
    fn a_flake_without_a_needed_package_is_told() {
        let real = std::fs::read_to_string(crate::root().join(FLAKE)).expect("flake.nix");
        let tree = Tree::planted([(FLAKE, real.as_str())]);
        assert_eq!(the_flake_covers_the_list(&tree), []);
        let broken = real.replace("gst-plugins-bad", "gst-plugins-bed");
        let violations = the_flake_covers_the_list(&Tree::planted([(FLAKE, broken.as_str())]));
        assert!(violations.iter().any(|v| {
            v.message
                .contains("`rtmp2sink` needs `gst_all_1.gst-plugins-bad`")
        }));
        assert!(
            violations
                .iter()
                .any(|v| v.line > 0 && v.message.contains("`gst-plugins-bed`"))
        );
    }

    #[test]
    fn a_name_in_a_comment_of_the_flake_does_not_count() {
        let names = nix_identifiers(
            "{ a = 1; # mediamtx\n /* nginx */ b = \"ffmpeg\"; c = ''x y''; d-e = 2; }",
        );
        assert_eq!(
            names.keys().collect::<Vec<_>>(),
            ["1", "2", "a", "b", "c", "d-e"]
        );
        assert_eq!(names["d-e"], 2);
    }
}
