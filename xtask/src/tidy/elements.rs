//! Every GStreamer element the code makes is in `requirements`, and so has a Debian package and an
//! attribute in flake.nix; and nothing is listed that nobody needs.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Literal, Source, is_word};
use super::{Tree, Violation};
use crate::requirements::{Fact, MadeBy, REQUIREMENTS};

const LIST: &str = "xtask/src/requirements.rs";
const FLAKE: &str = "flake.nix";
/// Where code may touch GStreamer at all (see `confined`), launch lines for tools included.
const LOOKED_AT: &[&str] = &["worker/src/", "e2e/src/", "e2e/tests/", "worker/tests/"];
/// Calls whose first argument is an element's name.
const MAKERS: &[&str] = &["make", "find", "make_with_name"];

/// An element's name in the code.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Made {
    file: String,
    line: usize,
    element: String,
}

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

/// All element names in the code, and the places where a name cannot be seen.
fn elements_made(tree: &Tree) -> (Vec<Made>, Vec<Violation>) {
    let sources: BTreeMap<&str, Source> = tree
        .with_extension("rs")
        .filter(|(path, _)| LOOKED_AT.iter().any(|prefix| path.starts_with(prefix)))
        .map(|(path, text)| (path, Source::parse(text)))
        .collect();
    let constants = constants(&sources);
    let makers = makers(&sources);
    let (mut made, mut violations) = (Vec::new(), Vec::new());
    for (&file, source) in &sources {
        let mut note = |line: usize, element: &str| {
            made.push(Made {
                file: file.to_owned(),
                line,
                element: element.to_owned(),
            });
        };
        for literal in listed_literals(source) {
            note(literal.line, &literal.value);
        }
        for call in calls(source, &makers[crate_of(file)]) {
            match &call.argument {
                Argument::Literal(name) => note(call.line, name),
                Argument::Other(name) if is_loop_variable(source, call.offset, name) => {}
                Argument::Other(name) => {
                    if let Some(value) = constants.get(name) {
                        note(call.line, value);
                    } else if enclosing_function(source, call.offset, name).is_none() {
                        let message = format!(
                            "tidy cannot see which element `{name}` names here; use a literal or \
                             a string constant"
                        );
                        violations.push(Violation::new(file, call.line, message));
                    }
                }
            }
        }
        for literal in &source.literals {
            for element in launch_elements(&literal.value) {
                note(literal.line, element);
            }
        }
    }
    (made, violations)
}

/// The first component of a path: helpers of one crate are not those of another.
fn crate_of(path: &str) -> &str {
    path.split('/').next().unwrap_or_default()
}

/// By crate, the functions that hand their own argument to a maker: they are makers themselves.
fn makers<'a>(sources: &BTreeMap<&'a str, Source>) -> BTreeMap<&'a str, BTreeSet<String>> {
    let mut makers: BTreeMap<&str, BTreeSet<String>> = sources
        .keys()
        .map(|path| (crate_of(path), BTreeSet::new()))
        .collect();
    loop {
        let mut found = makers.clone();
        for (&file, source) in sources {
            for call in calls(source, &makers[crate_of(file)]) {
                if let Argument::Other(name) = &call.argument
                    && let Some(function) = enclosing_function(source, call.offset, name)
                {
                    found.entry(crate_of(file)).or_default().insert(function);
                }
            }
        }
        if found == makers {
            return makers;
        }
        makers = found;
    }
}

/// The strings of constants such as `ELEMENTS: [&str; 3] = ["a", "b", "c"]`.
fn listed_literals(source: &Source) -> Vec<&Literal> {
    let mut literals = Vec::new();
    for word in source
        .words()
        .iter()
        .filter(|word| word.text.contains("ELEMENTS"))
    {
        if !source.before(word.offset).ends_with("const") {
            continue;
        }
        let end = source.code[word.offset..]
            .find("];")
            .map_or(0, |n| word.offset + n);
        let inside = word.offset..end;
        literals.extend(
            source
                .literals
                .iter()
                .filter(|l| inside.contains(&l.offset)),
        );
    }
    literals
}

/// A name that runs over a list (`|name|`, `for name in`): the list itself is looked at.
fn is_loop_variable(source: &Source, offset: usize, name: &str) -> bool {
    let start = source.code[..offset].rfind("fn ").unwrap_or(0);
    let before = &source.code[start..offset];
    [
        format!("|{name}|"),
        format!("|&{name}|"),
        format!("for {name} in"),
        format!("for &{name} in"),
    ]
    .iter()
    .any(|binding| before.contains(binding))
}

struct Call {
    line: usize,
    offset: usize,
    argument: Argument,
}

enum Argument {
    Literal(String),
    /// An identifier.
    Other(String),
}

/// Calls of `ElementFactory::make` and its kin, and of the project's own helpers around them.
fn calls(source: &Source, helpers: &BTreeSet<String>) -> Vec<Call> {
    let mut calls = Vec::new();
    for word in source.words() {
        let before = source.before(word.offset);
        let of_factory = MAKERS.contains(&word.text) && before.ends_with("ElementFactory::");
        let of_helper = helpers.contains(word.text) && !before.ends_with("fn");
        if !(of_factory || of_helper) {
            continue;
        }
        let rest = &source.code[word.offset + word.text.len()..];
        let Some(open) = rest.find('(').filter(|&at| rest[..at].trim().is_empty()) else {
            continue;
        };
        let start = word.offset + word.text.len() + open + 1;
        let argument = source.code[start..].trim_start();
        let at = source.code.len() - argument.len();
        let argument = if argument.starts_with('"') {
            let literal = source.literals.iter().find(|l| l.offset == at);
            literal.map(|l| Argument::Literal(l.value.clone()))
        } else {
            let argument = argument.trim_start_matches('&');
            let end = argument
                .bytes()
                .position(|b| !is_word(b))
                .unwrap_or(argument.len());
            // Anything but a plain name (a call, a path) is left to the caller's own literal.
            (end > 0).then(|| Argument::Other(argument[..end].to_owned()))
        };
        if let Some(argument) = argument {
            calls.push(Call {
                line: word.line,
                offset: word.offset,
                argument,
            });
        }
    }
    calls
}

/// The function around an offset, if `name` is its first parameter.
fn enclosing_function(source: &Source, offset: usize, name: &str) -> Option<String> {
    let words = source.words();
    let at = words
        .iter()
        .rposition(|word| word.text == "fn" && word.offset < offset)?;
    let function = words.get(at + 1)?;
    let rest = source.after(*function);
    let parameters = &rest[rest.find('(')? + 1..];
    let first = parameters.split(':').next()?.trim();
    (first == name).then(|| function.text.to_owned())
}

/// `const NAME: &str = "value"` of all files.
fn constants(sources: &BTreeMap<&str, Source>) -> BTreeMap<String, String> {
    let mut constants = BTreeMap::new();
    for source in sources.values() {
        for literal in &source.literals {
            let before = source.before(literal.offset);
            let Some(declaration) = before.strip_suffix('=').map(str::trim_end) else {
                continue;
            };
            let Some(start) = declaration.rfind("const ") else {
                continue;
            };
            let declaration = &declaration[start + "const ".len()..];
            if let Some((name, kind)) = declaration.split_once(':')
                && kind.trim_start().starts_with('&')
                && kind.trim_end().ends_with("str")
            {
                constants.insert(name.trim().to_owned(), literal.value.clone());
            }
        }
    }
    constants
}

/// The element names of a launch line (`a ! b prop=1 ! caps/x ! c`); none for other strings.
fn launch_elements(text: &str) -> Vec<&str> {
    if !text.split_whitespace().any(|token| token == "!") {
        return Vec::new();
    }
    let mut elements = Vec::new();
    let mut first_of_link = true;
    let mut previous = "";
    for token in text.split_whitespace() {
        // A bare name after a pad reference or a property starts a new chain; properties have '='.
        let starts_chain = first_of_link || (previous.ends_with('.') && !token.contains('='));
        let is_name = !token.is_empty()
            && token
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
            && token.starts_with(|c: char| c.is_ascii_lowercase());
        if token == "!" {
            first_of_link = true;
        } else {
            if starts_chain && is_name {
                elements.push(token);
            }
            first_of_link = false;
        }
        previous = token;
    }
    elements
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

    fn made(text: &str) -> Vec<String> {
        let tree = Tree::planted([("worker/src/media/x.rs", text)]);
        elements_made(&tree)
            .0
            .into_iter()
            .map(|m| m.element)
            .collect()
    }

    #[test]
    fn names_are_found_in_factories_and_launch_lines() {
        assert_eq!(
            made("gst::ElementFactory::make(\"appsrc\").build()"),
            ["appsrc"]
        );
        assert_eq!(
            made("gst::ElementFactory::find(\n    \"rtspsrc\",\n)"),
            ["rtspsrc"]
        );
        assert_eq!(
            made(
                "parse(\"appsrc name=a ! audio/x-raw,rate=48000 ! avenc_aac bitrate=1 ! appsink\")"
            ),
            ["appsrc", "avenc_aac", "appsink"]
        );
        assert_eq!(
            made("parse(\"flvmux name=m ! fakesink  appsrc ! m.video queue ! m.audio\")"),
            ["flvmux", "fakesink"]
        );
        assert_eq!(
            made("println!(\"stop! now\"); assert!(a != b, \"not!\")"),
            [""; 0]
        );
    }

    #[test]
    fn helpers_and_constants_are_followed() {
        assert_eq!(
            made(
                "const DECODER: &str = \"avdec_aac\";\nfn f() { make(DECODER); make(\"queue\"); }\n\
                  fn make(name: &str) -> gst::Element { inner(name) }\n\
                  fn inner(kind: &str) -> gst::Element { gst::ElementFactory::make(kind).build() }"
            ),
            ["avdec_aac", "queue"]
        );
    }

    #[test]
    fn helpers_of_one_crate_are_not_those_of_another() {
        let tree = Tree::planted([
            (
                "worker/src/media/a.rs",
                "fn make(name: &str) { gst::ElementFactory::make(name) }",
            ),
            ("e2e/src/report.rs", "fn f() { make(\"table\"); }"),
        ]);
        assert_eq!(elements_made(&tree), (vec![], vec![]));
    }

    #[test]
    fn a_list_of_elements_is_read() {
        assert_eq!(
            made(
                "pub const ELEMENTS: [&str; 2] = [\n \"appsrc\",\n \"queue\",\n];\n\
                  fn f() { ELEMENTS.iter().filter(|name| gst::ElementFactory::find(name).is_none()); }"
            ),
            ["appsrc", "queue"]
        );
    }

    #[test]
    fn an_unlisted_element_is_told() {
        let tree = Tree::planted([(
            "worker/src/media/egress.rs",
            "fn f() {\n    gst::ElementFactory::make(\"x264enc\").build();\n}\n",
        )]);
        let violations = elements_are_listed(&tree);
        let found = violations
            .iter()
            .find(|v| v.file == "worker/src/media/egress.rs")
            .expect("told");
        assert_eq!(found.line, 2);
        assert!(found.message.contains("`x264enc`"));
    }

    #[test]
    fn a_listed_element_that_nothing_makes_is_told() {
        let tree = Tree::planted([
            (
                "worker/src/media/egress.rs",
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
    fn a_name_that_cannot_be_seen_is_told() {
        let tree = Tree::planted([(
            "worker/src/media/audio.rs",
            "fn f(x: u8, name: &str) {\n let chosen = g();\n gst::ElementFactory::make(chosen);\n}\n",
        )]);
        let (_, violations) = elements_made(&tree);
        assert_eq!(violations.len(), 1);
        assert_eq!(violations[0].line, 3);
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
