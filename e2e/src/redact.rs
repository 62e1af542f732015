//! Typed redactions for snapshots: what differs between runs and machines gets a fixed name.
//!
//! Values that the harness knows (its directories, ports, ids) are replaced by what they are, most
//! specific first, and repeated ids are numbered so that "the same one again" stays visible. Shapes
//! that nobody knows in advance (UUIDs, times) are recognised by their form. Counts, order, reasons
//! and codes are never touched: they are what a snapshot is for.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

/// Lengths of the groups of a hyphenated UUID.
const UUID_GROUPS: [usize; 5] = [8, 4, 4, 4, 12];

/// Replaces what differs between runs.
#[derive(Debug, Clone, Default)]
pub struct Redactor {
    /// Longest first, so that a path inside another is replaced as a whole.
    known: Vec<(String, String)>,
    ids: BTreeMap<String, String>,
}

impl Redactor {
    /// A redactor that knows nothing but shapes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces this directory by `[TMP]`.
    #[must_use]
    pub fn directory(self, dir: &Path) -> Self {
        self.known(dir.display().to_string(), "[TMP]")
    }

    /// Replaces this name of a stream by `[STREAM]`.
    #[must_use]
    pub fn stream_id(self, id: &str) -> Self {
        self.known(id.to_owned(), "[STREAM]")
    }

    /// Replaces exactly this text.
    #[must_use]
    pub fn known(mut self, text: String, placeholder: &str) -> Self {
        if !text.is_empty() {
            self.known.push((text, placeholder.to_owned()));
            self.known
                .sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        }
        self
    }

    /// Redacts a text: known values, ports of the loopback interface, UUIDs (numbered), RFC 3339
    /// times.
    pub fn text(&mut self, text: &str) -> String {
        let mut out = text.to_owned();
        for (known, placeholder) in &self.known {
            out = out.replace(known.as_str(), placeholder);
        }
        let out = ports(&out);
        let out = self.uuids(&out);
        times(&out)
    }

    /// Redacts a JSON value: [`text`](Self::text) on every string, and by key where the key says
    /// what a number is (`…_ms` and `at`: `[DURATION]`, `pid`: `[PID]`, `time_ms`, `timestamp`:
    /// `[TIMESTAMP]`).
    pub fn json(&mut self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => items.iter().map(|item| self.json(item)).collect(),
            Value::Object(fields) => fields
                .iter()
                .map(|(key, value)| {
                    let redacted = match (by_key(key), value) {
                        (Some(placeholder), Value::Number(_)) => Value::String(placeholder.into()),
                        _ => self.json(value),
                    };
                    (key.clone(), redacted)
                })
                .collect(),
            other => other.clone(),
        }
    }

    /// `[UUID-1]` for the first id seen, the same again for the same id.
    fn uuids(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, id, after)) = next_uuid(rest) {
            out += before;
            let number = self.ids.len() + 1;
            out += self
                .ids
                .entry(id.to_owned())
                .or_insert_with(|| format!("[UUID-{number}]"));
            rest = after;
        }
        out + rest
    }
}

fn by_key(key: &str) -> Option<&'static str> {
    match key {
        "pid" => Some("[PID]"),
        "time_ms" | "timestamp" => Some("[TIMESTAMP]"),
        "at" => Some("[DURATION]"),
        key if key.ends_with("_ms") => Some("[DURATION]"),
        _ => None,
    }
}

/// `127.0.0.1:4711` becomes `127.0.0.1:[PORT]`.
fn ports(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let next = |rest: &str| {
        let found = ["127.0.0.1:", "localhost:"]
            .iter()
            .filter_map(|host| Some((rest.find(host)?, host.len())));
        found.min()
    };
    while let Some((at, length)) = next(rest) {
        let (before, after) = rest.split_at(at + length);
        out += before;
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 {
            out += "[PORT]";
        }
        rest = &after[digits..];
    }
    out + rest
}

/// The first UUID, with what is around it.
fn next_uuid(text: &str) -> Option<(&str, &str, &str)> {
    const LENGTH: usize = 36;
    let bytes = text.as_bytes();
    let is_word = |at: Option<&u8>| at.is_some_and(u8::is_ascii_alphanumeric);
    let start = (0..bytes.len().saturating_sub(LENGTH - 1)).find(|&start| {
        let free =
            (start == 0 || !is_word(bytes.get(start - 1))) && !is_word(bytes.get(start + LENGTH));
        free && is_uuid(&bytes[start..start + LENGTH])
    })?;
    Some((
        &text[..start],
        &text[start..start + LENGTH],
        &text[start + LENGTH..],
    ))
}

fn is_uuid(bytes: &[u8]) -> bool {
    let groups: Vec<&[u8]> = bytes.split(|byte| *byte == b'-').collect();
    groups.iter().map(|group| group.len()).eq(UUID_GROUPS)
        && groups.concat().iter().all(u8::is_ascii_hexdigit)
}

/// `2026-01-01T00:00:00.123Z` becomes `[TIMESTAMP]`.
fn times(text: &str) -> String {
    const DATE: &[u8] = b"dddd-dd-ddTdd:dd:dd";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let fits = |bytes: &[u8]| {
        DATE.iter().zip(bytes).all(|(shape, byte)| match shape {
            b'd' => byte.is_ascii_digit(),
            other => other == byte,
        })
    };
    while let Some(at) = rest.as_bytes().windows(DATE.len()).position(fits) {
        let after = &rest[at + DATE.len()..];
        let tail = after
            .bytes()
            .take_while(|byte| byte.is_ascii_digit() || b".Z+:".contains(byte))
            .count();
        out += &rest[..at];
        out += "[TIMESTAMP]";
        rest = &after[tail..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";
    const OTHER: &str = "7c9e6679-7425-40de-944b-e07fc1f90ae7";

    #[test]
    fn what_differs_gets_a_name_and_what_matters_stays() {
        let mut redactor = Redactor::new()
            .directory(Path::new("/tmp/run-1/x"))
            .stream_id("test-77");
        assert_eq!(
            redactor.text(
                "2026-11-22T11:13:07.123Z batch 3 of test-77 to http://127.0.0.1:4711/x, 10 sent, \
                 TIMEOUT, /tmp/run-1/x/a.mp4"
            ),
            "[TIMESTAMP] batch 3 of [STREAM] to http://127.0.0.1:[PORT]/x, 10 sent, TIMEOUT, \
             [TMP]/a.mp4"
        );
    }

    #[test]
    fn the_same_id_keeps_its_number() {
        let mut redactor = Redactor::new();
        assert_eq!(
            redactor.text(&format!("{ID} then {OTHER}, {ID} again")),
            "[UUID-1] then [UUID-2], [UUID-1] again"
        );
        assert_eq!(redactor.text(OTHER), "[UUID-2]");
        let longer = format!("a{ID}");
        assert_eq!(
            redactor.text(&longer),
            longer,
            "part of a longer word is no id"
        );
    }

    #[test]
    fn the_longest_known_text_wins() {
        let mut redactor = Redactor::new()
            .known("/tmp".into(), "[ROOT]")
            .known("/tmp/env".into(), "[TMP]");
        assert_eq!(redactor.text("/tmp/env/x /tmp/y"), "[TMP]/x [ROOT]/y");
    }

    #[test]
    fn numbers_are_named_by_their_key_and_counts_stay() {
        let value = json!({
            "rtt_ms": 41.5, "pid": 7, "timestamp": 1_700_000_000_000_u64, "count": 10,
            "fragments": [{ "fragment_id": ID, "sequence": 0 }],
        });
        assert_eq!(
            Redactor::new().json(&value),
            json!({
                "rtt_ms": "[DURATION]", "pid": "[PID]", "timestamp": "[TIMESTAMP]", "count": 10,
                "fragments": [{ "fragment_id": "[UUID-1]", "sequence": 0 }],
            })
        );
    }

    #[test]
    fn text_in_other_scripts_is_left_alone() {
        let text = "→ fragment:data 0 – größer als localhost:";
        assert_eq!(Redactor::new().text(text), text);
    }
}
