//! Reading single fields of a payload: `null` is absence, and what breaks a rule says which.

use serde_json::{Map, Value};

use super::fact::{BrokenRule, Fact};

/// Longest id taken; UUIDs are 36.
pub(super) const MAX_ID: usize = 128;
/// Longest text for people taken over from the service, in characters.
const MAX_TEXT: usize = 300;

pub(super) type Object = Map<String, Value>;
/// A broken rule, and where.
pub(super) type Broken = (BrokenRule, String);

pub(super) fn id(o: &Object) -> Result<Option<String>, Broken> {
    match text(o, "fragment_id")? {
        Some(id) if id.is_empty() || id.len() > MAX_ID || id.chars().any(char::is_control) => {
            Err(bad_value("fragment_id", id))
        }
        id => Ok(id.map(str::to_owned)),
    }
}

/// A string field; `null` is absence.
pub(super) fn text<'a>(o: &'a Object, field: &str) -> Result<Option<&'a str>, Broken> {
    match o.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(wrong_type(field, other)),
    }
}

/// A whole number, possibly written as a float (`500.0`); rounded, saturating; `null` is absence.
pub(super) fn integer(o: &Object, field: &str) -> Result<Option<i64>, Broken> {
    match o.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(n)) => Ok(Some(
            n.as_i64()
                .or_else(|| n.as_u64().map(|_| i64::MAX))
                // JSON has no NaN; `as` saturates.
                .or_else(|| n.as_f64().map(|f| f.round() as i64))
                .unwrap_or(i64::MAX),
        )),
        Some(other) => Err(wrong_type(field, other)),
    }
}

pub(super) fn required<T>(value: Option<T>, field: &str) -> Result<T, Broken> {
    value.ok_or_else(|| missing(field))
}

/// Notes a broken rule and goes on without the value.
pub(super) fn soft<T>(
    facts: &mut Vec<Fact>,
    name: &str,
    value: Result<Option<T>, Broken>,
) -> Option<T> {
    value.unwrap_or_else(|broken| {
        note(facts, name, broken);
        None
    })
}

pub(super) fn note(facts: &mut Vec<Fact>, name: &str, (kind, detail): Broken) {
    facts.push(malformed(kind, format!("{name}: {detail}")));
}

pub(super) fn malformed(kind: BrokenRule, detail: impl Into<String>) -> Fact {
    Fact::Malformed {
        kind,
        detail: detail.into(),
    }
}

pub(super) fn missing(field: &str) -> Broken {
    (BrokenRule::MissingField, format!("{field} is absent"))
}

pub(super) fn wrong_type(field: &str, found: &Value) -> Broken {
    (
        BrokenRule::WrongType,
        format!("{field} is {}", type_name(found)),
    )
}

pub(super) fn bad_value(field: &str, found: &str) -> Broken {
    (
        BrokenRule::BadValue,
        format!("{field}: {:?} is not allowed", clip(found, 40)),
    )
}

pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// At most `max` characters, control characters made harmless.
pub fn clip(text: &str, max: usize) -> String {
    let mut out: String = text
        .chars()
        .take(max)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(max).is_some() {
        out.push('…');
    }
    out
}

/// Text from the service, fit for a log line.
pub fn one_line(text: &str) -> String {
    clip(text.trim(), MAX_TEXT)
}
