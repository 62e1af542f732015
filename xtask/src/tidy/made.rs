//! Finds the names of the GStreamer elements that code makes: in calls of the element factory, in
//! calls of the project's own helpers around it, in constants, and in launch lines.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Literal, Source, Word, is_word};
use super::{Tree, Violation};

/// Where code may touch GStreamer at all (see `confined`), launch lines for tools included.
const LOOKED_AT: &[&str] = &["worker/media/", "e2e/src/", "e2e/tests/"];
/// Functions of `ElementFactory` whose first argument is an element's name.
const FACTORY: &[&str] = &["make", "find", "make_with_name"];

/// An element's name in the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) file: String,
    pub(super) line: usize,
    pub(super) element: String,
}

/// A function that makes the element its argument names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Maker {
    /// Helpers of one crate are not those of another.
    krate: String,
    /// The type whose `impl` it stands in: `new` alone would be anybody's.
    owner: Option<String>,
    name: String,
    /// Which argument is the element's name, `self` not counted.
    position: usize,
}

struct Call {
    line: usize,
    offset: usize,
    argument: Argument,
}

enum Argument {
    Literal(String),
    /// An identifier.
    Name(String),
}

/// All element names in the code, and the places where a name cannot be seen.
pub(super) fn elements_made(tree: &Tree) -> (Vec<Made>, Vec<Violation>) {
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
        for call in calls(file, source, &makers) {
            match &call.argument {
                Argument::Literal(name) => note(call.line, name),
                Argument::Name(name) => {
                    if let Some(value) = constants.get(name) {
                        note(call.line, value);
                    } else if maker_around(file, source, call.offset, name).is_none()
                        && !is_loop_variable(source, call.offset, name)
                    {
                        let message = format!(
                            "tidy cannot see which element `{name}` names here; use a literal, a \
                             string constant or a parameter"
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

/// The project's own makers: functions that hand one of their parameters to a maker.
fn makers(sources: &BTreeMap<&str, Source>) -> BTreeSet<Maker> {
    let mut makers = BTreeSet::new();
    loop {
        let mut found = makers.clone();
        for (&file, source) in sources {
            for call in calls(file, source, &makers) {
                if let Argument::Name(name) = &call.argument {
                    found.extend(maker_around(file, source, call.offset, name));
                }
            }
        }
        if found.len() == makers.len() {
            return makers;
        }
        makers = found;
    }
}

/// Calls of the element factory and of the project's own makers.
fn calls(file: &str, source: &Source, makers: &BTreeSet<Maker>) -> Vec<Call> {
    let words = source.words();
    let mut calls = Vec::new();
    for (index, &word) in words.iter().enumerate() {
        if !source.after(word).starts_with('(') || source.before(word.offset).ends_with("fn") {
            continue;
        }
        let owner = owner_of_call(source, &words[..index], word);
        let position = if FACTORY.contains(&word.text) && owner.as_deref() == Some("ElementFactory")
        {
            Some(0)
        } else {
            makers
                .iter()
                .find(|m| m.name == word.text && m.owner == owner && m.krate == crate_of(file))
                .map(|m| m.position)
        };
        if let Some(argument) = position.and_then(|position| argument(source, word, position)) {
            calls.push(Call {
                line: word.line,
                offset: word.offset,
                argument,
            });
        }
    }
    calls
}

/// `Type` in `Type::word(`, with `Self` resolved; the module in `module::word(` does not count.
fn owner_of_call(source: &Source, before: &[Word<'_>], word: Word<'_>) -> Option<String> {
    if !source.before(word.offset).ends_with("::") {
        return None;
    }
    let owner = before.last()?.text;
    if owner == "Self" {
        return owner_around(source, word.offset);
    }
    owner
        .starts_with(|c: char| c.is_ascii_uppercase())
        .then(|| owner.to_owned())
}

/// The argument at a position, if it is a literal or a plain name (borrowed or not).
fn argument(source: &Source, word: Word<'_>, position: usize) -> Option<Argument> {
    let open = source.code[word.offset..].find('(')? + word.offset;
    let (start, text) = *list_items(&source.code, open + 1).get(position)?;
    let skipped = text.len()
        - text
            .trim_start_matches(|c: char| c.is_whitespace() || c == '&')
            .len();
    let text = text[skipped..].trim_end();
    if text.starts_with('"') {
        let literal = source
            .literals
            .iter()
            .find(|l| l.offset == start + skipped)?;
        return Some(Argument::Literal(literal.value.clone()));
    }
    let plain = !text.is_empty() && text.bytes().all(is_word);
    plain.then(|| Argument::Name(text.to_owned()))
}

/// The items of a list that starts at an offset and ends with its bracket: where each starts, and
/// its text. Commas inside brackets of any kind do not separate.
fn list_items(code: &str, start: usize) -> Vec<(usize, &str)> {
    let mut items = Vec::new();
    let (mut depth, mut from) = (0_usize, start);
    let bytes = code.as_bytes();
    for (at, &byte) in bytes.iter().enumerate().skip(start) {
        match byte {
            b'(' | b'[' | b'{' | b'<' => depth += 1,
            // The arrow of `fn(A) -> B` and `=>` close nothing.
            b'>' if matches!(bytes[at - 1], b'-' | b'=') => {}
            b')' | b']' | b'}' | b'>' if depth > 0 => depth -= 1,
            b')' | b']' | b'}' => {
                if !code[from..at].trim().is_empty() {
                    items.push((from, &code[from..at]));
                }
                return items;
            }
            b',' if depth == 0 => {
                items.push((from, &code[from..at]));
                from = at + 1;
            }
            _ => {}
        }
    }
    items
}

/// The function around an offset as a maker, if `name` is one of its parameters.
fn maker_around(file: &str, source: &Source, offset: usize, name: &str) -> Option<Maker> {
    let words = source.words();
    let at = words
        .iter()
        .rposition(|word| word.text == "fn" && word.offset < offset)?;
    let function = words.get(at + 1)?;
    let open = source.code[function.offset..].find('(')? + function.offset;
    let parameters: Vec<&str> = list_items(&source.code, open + 1)
        .into_iter()
        .filter_map(|(_, parameter)| parameter.split(':').next())
        .map(|parameter| parameter.trim().trim_start_matches("mut "))
        .filter(|parameter| !parameter.ends_with("self"))
        .collect();
    Some(Maker {
        krate: crate_of(file).to_owned(),
        owner: owner_around(source, function.offset),
        name: function.text.to_owned(),
        position: parameters.iter().position(|parameter| *parameter == name)?,
    })
}

/// The type of the `impl` block around an offset.
fn owner_around(source: &Source, offset: usize) -> Option<String> {
    // Blocks at the margin end there, too: rustfmt sees to that.
    let start = source.code[..offset]
        .rfind("\nimpl")
        .filter(|&start| !source.code[start..offset].contains("\n}"))?;
    let header = source.code[start + "\nimpl".len()..].split('{').next()?;
    let header = header.split(" where").next()?;
    let of = header.rsplit(" for ").next()?.trim();
    // `<T> Type<T>`: generics come first when there is no trait.
    let of = if of.starts_with('<') {
        of.split_once('>')?.1.trim()
    } else {
        of
    };
    let end = of
        .bytes()
        .position(|byte| !is_word(byte))
        .unwrap_or(of.len());
    Some(of[..end].to_owned())
}

/// The first component of a path.
fn crate_of(path: &str) -> &str {
    path.split('/').next().unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn made(text: &str) -> Vec<String> {
        let tree = Tree::planted([("worker/media/src/x.rs", text)]);
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
                "worker/media/src/a.rs",
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
    fn helpers_of_a_type_are_followed_through_any_parameter() {
        assert_eq!(
            made(
                "fn f() { Job::new(&source, \"decodebin\", g(1, 2)); Other::new(x, \"not-an-element\"); }\n\
                 impl<T> Job<T> {\n    fn new(source: &Source<A, B>, decoder: &str, x: u8) -> Self {\n\
                 Self::build(x, decoder)\n    }\n\
                 fn build(x: u8, decoder: &str) { gst::ElementFactory::make(decoder); }\n}\n\
                 fn new(a: u8, b: &str) {}\nfn h() { new(1, \"not-an-element\"); }"
            ),
            ["decodebin"]
        );
    }

    #[test]
    fn a_name_that_cannot_be_seen_is_told() {
        let tree = Tree::planted([(
            "worker/media/src/audio.rs",
            "fn f(x: u8, name: &str) {\n let chosen = g();\n gst::ElementFactory::make(chosen);\n}\n",
        )]);
        let (_, violations) = elements_made(&tree);
        assert_eq!(violations.len(), 1);
        assert_eq!(violations[0].line, 3);
    }
}
