//! flake.nix brings what `requirements` lists, and no GStreamer package that nobody needs.

use std::collections::{BTreeMap, BTreeSet};

use super::{Tree, Violation};
use crate::requirements::requirements;

const LIST: &str = "xtask/src/requirements.rs";
const FLAKE: &str = "flake.nix";

/// Each attribute of the list is named in flake.nix, and each GStreamer package there is needed.
pub(super) fn covers_the_list(tree: &Tree) -> Vec<Violation> {
    let Some(flake) = tree.get(FLAKE) else {
        return vec![Violation::new(FLAKE, 0, "there is no flake.nix")];
    };
    let named = nix_identifiers(flake);
    let mut violations = Vec::new();
    let mut needed = BTreeSet::new();
    for requirement in requirements() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flake_without_a_needed_package_is_told() {
        let real = std::fs::read_to_string(crate::root().join(FLAKE)).expect("flake.nix");
        let tree = Tree::planted([(FLAKE, real.as_str())]);
        assert_eq!(covers_the_list(&tree), []);
        let broken = real.replace("gst-plugins-bad", "gst-plugins-bed");
        let violations = covers_the_list(&Tree::planted([(FLAKE, broken.as_str())]));
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
