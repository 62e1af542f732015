//! JSON of unknown size and making, read so that it costs no more memory than its own text.
//!
//! A tree of everything would cost a hundred times the text (15 MiB of tiny objects took 2.8 GB), so
//! only fields the protocol knows are kept, lists are stepped over, and nothing is built of the rest.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Every field that is looked at, wherever it stands.
const FIELDS: &[&str] = &[
    "_placeholder",
    "action",
    "audio",
    "bytes",
    "channels",
    "code",
    "data",
    "data_base64",
    "dubbed_audio",
    "duration_ms",
    "error",
    "failed_count",
    "format",
    "fragment_id",
    "max_inflight",
    "message",
    "num",
    "partial_count",
    "recommended_delay_ms",
    "retryable",
    "sample_rate_hz",
    "sequence_number",
    "session_id",
    "severity",
    "statistics",
    "status",
    "stream_id",
    "success_count",
    "total_fragments",
    "transcript",
    "translated_text",
];

/// An event, not looked at yet.
pub(super) enum Event {
    /// The array is empty.
    Nameless,
    Named {
        name: String,
        payload: Option<Value>,
        /// Values after the payload.
        extra: usize,
    },
}

/// Reads an event.
pub(super) fn event(json: &str) -> serde_json::Result<Event> {
    read(json, EventSeed)
}

/// Reads a value as far as its fields are known.
pub(super) fn known(json: &str) -> serde_json::Result<Value> {
    read(json, Known)
}

fn read<'a, T: DeserializeSeed<'a>>(json: &'a str, seed: T) -> serde_json::Result<T::Value> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let value = seed.deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

struct EventSeed;

impl<'de> DeserializeSeed<'de> for EventSeed {
    type Value = Event;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Event, D::Error> {
        d.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for EventSeed {
    type Value = Event;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of a name and a payload")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Event, A::Error> {
        let name = match parts.next_element_seed(Known)? {
            None => return Ok(Event::Nameless),
            Some(Value::String(name)) => name,
            Some(other) => other.to_string(),
        };
        let payload = parts.next_element_seed(Known)?;
        let mut extra = 0;
        while parts.next_element::<IgnoredAny>()?.is_some() {
            extra += 1;
        }
        Ok(Event::Named {
            name,
            payload,
            extra,
        })
    }
}

struct Known;

impl<'de> DeserializeSeed<'de> for Known {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Known {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Array(vec![]))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut known = Map::new();
        while let Some(field) = fields.next_key_seed(Field)? {
            match field {
                Some(field) => {
                    let value = fields.next_value_seed(Known)?;
                    known.insert(field.to_owned(), value);
                }
                None => drop(fields.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Value::Object(known))
    }
}

/// A field's name, if it is one of [`FIELDS`].
struct Field;

impl<'de> DeserializeSeed<'de> for Field {
    type Value = Option<&'static str>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        d.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Field {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        let found = FIELDS.binary_search(&name).ok();
        Ok(found.and_then(|at| FIELDS.get(at)).copied())
    }
}

/// What was meant: numbers that are none become `null`, halves of surrogate pairs and control
/// characters become harmless. `None` if there is nothing of the kind.
pub(super) fn fix(json: &str) -> Option<String> {
    let mut out = String::with_capacity(json.len());
    let (mut copied, mut at, mut in_text) = (0, 0, false);
    let bytes = json.as_bytes();
    while let Some(&byte) = bytes.get(at) {
        let rest = &json[at..];
        // Length of what is read at once, and what to write instead.
        let (len, instead) = match byte {
            b'"' => {
                in_text = !in_text;
                (1, None)
            }
            b'\\' if in_text => escape(rest),
            0..0x20 if in_text => (1, Some(" ")),
            b'N' if !in_text && rest.starts_with("NaN") => (3, Some("null")),
            b'I' if !in_text && rest.starts_with("Infinity") => (8, Some("null")),
            b'-' if !in_text && rest.starts_with("-Infinity") => (9, Some("null")),
            b'-' | b'0'..=b'9' if !in_text => number(rest),
            _ => (next_char(rest), None),
        };
        if let Some(instead) = instead {
            out.push_str(&json[copied..at]);
            out.push_str(instead);
            copied = at + len;
        }
        at += len;
    }
    (copied > 0).then(|| {
        out.push_str(&json[copied..]);
        out
    })
}

fn next_char(rest: &str) -> usize {
    rest.chars().next().map_or(1, char::len_utf8)
}

fn escape(rest: &str) -> (usize, Option<&'static str>) {
    let unit = |from: usize| {
        let digits = rest.get(from..from + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    match (unit(0), unit(6)) {
        (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (12, None),
        (Some(0xd800..=0xdfff), _) => (6, Some("\\ufffd")),
        (Some(_), _) => (6, None),
        (None, _) => (1 + next_char(&rest[1..]), None),
    }
}

fn number(rest: &str) -> (usize, Option<&'static str>) {
    let len = rest
        .find(|c: char| !c.is_ascii_digit() && !matches!(c, '-' | '+' | '.' | 'e' | 'E'))
        .unwrap_or(rest.len())
        .max(1);
    let beyond = rest[..len].parse().is_ok_and(f64::is_infinite);
    (len, beyond.then_some("null"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_list_of_fields_can_be_searched() {
        assert!(FIELDS.is_sorted());
    }

    #[test]
    fn only_known_fields_cost_anything() {
        let text = r#"{"code":"X","odd":{"code":"Y"},"data":{"num":1.5,"x":[1]},"error":[[{"code":1}]],"message":null}"#;
        let kept = json!({ "code": "X", "data": { "num": 1.5 }, "error": [], "message": null });
        assert_eq!(known(text).unwrap(), kept);
        assert!(known("{} x").is_err() && known("{").is_err() && known("").is_err());
    }

    #[test]
    fn what_is_not_quite_json_is_fixed() {
        for (odd, fixed) in [
            (
                r#"{"a":NaN,"b":-Infinity,"c":Infinity}"#,
                r#"{"a":null,"b":null,"c":null}"#,
            ),
            (
                r#"{"a":1e999,"b":-1e999,"c":1e9}"#,
                r#"{"a":null,"b":null,"c":1e9}"#,
            ),
            (
                r#"["\ud83d","\ude00x","\ud83d\ud83d\ude00"]"#,
                r#"["\ufffd","\ufffdx","\ufffd\ud83d\ude00"]"#,
            ),
            ("[\"a\nb\"]", "[\"a b\"]"),
        ] {
            assert_eq!(fix(odd).as_deref(), Some(fixed), "{odd}");
            assert!(serde_json::from_str::<Value>(fixed).is_ok(), "{fixed}");
        }
        for sound in [
            r#"{"NaN":"Infinity \" NaN -Infinity","é":[-1.5e3]}"#,
            r#"["\ud83d\ude00","\\ud83d","\""]"#,
            "",
            "\"\\",
            "\"\\u",
        ] {
            assert_eq!(fix(sound), None, "{sound}");
        }
    }
}
