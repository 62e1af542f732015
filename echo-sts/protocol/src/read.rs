//! Lenient reading of what other languages write.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

use crate::Refusal;

/// Largest whole number a JSON float carries exactly (2^53).
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// Reads one message; strings are moved out of `value`, not copied.
///
/// # Errors
/// `INVALID_CONFIG` naming the field, when the shape is wrong.
pub fn parse<T: DeserializeOwned>(value: Value) -> Result<T, Refusal> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let cause = discreet(&error.into_inner().to_string());
        Refusal::invalid(if path == "." {
            cause
        } else {
            format!("{path}: {cause}")
        })
    })
}

/// A reader's complaint without the text it complains about, which may be audio
/// or anything else that does not belong in a log, and of bounded length.
fn discreet(complaint: &str) -> String {
    const QUOTE: &str = "string \"";
    let parts = complaint
        .split_once(QUOTE)
        .and_then(|(before, rest)| Some((before, rest.rsplit_once("\", expected ")?.1)));
    match parts {
        Some((before, expected)) => {
            abbreviate(&format!("{before}string, expected {expected}"), 200)
        }
        None => abbreviate(complaint, 200),
    }
}

/// `null` means the default, like absence.
pub(crate) fn null_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Whole(u64),
    Float(f64),
}

impl Number {
    fn whole<E: serde::de::Error>(self) -> Result<u64, E> {
        match self {
            Self::Whole(n) => Ok(n),
            Self::Float(n) if (0.0..=MAX_EXACT).contains(&n) => Ok(n.round() as u64),
            Self::Float(n) => Err(E::custom(format!("{n} is not a count of zero or more"))),
        }
    }
}

/// A count or duration that may arrive as a float; rounded to the nearest.
pub(crate) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    number(value)?.whole()
}

/// Like [`whole`], `null` meaning absent.
pub(crate) fn whole_opt<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
    match Option::<Value>::deserialize(d)? {
        None => Ok(None),
        Some(value) => number(value)?.whole().map(Some),
    }
}

/// Like [`whole`], `null` meaning zero.
pub(crate) fn whole_or_zero<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    Ok(whole_opt(d)?.unwrap_or(0))
}

fn number<E: serde::de::Error>(value: Value) -> Result<Number, E> {
    let shown = value.to_string();
    Number::deserialize(value).map_err(|_| {
        E::custom(format!(
            "expected a number, found {}",
            abbreviate(&shown, 40)
        ))
    })
}

/// Keeps a hostile value from filling an error message.
fn abbreviate(text: &str, keep: usize) -> String {
    match text.char_indices().nth(keep) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// A JSON object, as Socket.IO events carry; anything else is refused.
pub(crate) fn object(value: &Value) -> Result<(), Refusal> {
    if value.is_object() {
        Ok(())
    } else {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            _ => "an array",
        };
        Err(Refusal::invalid(format!(
            "expected one JSON object, found {kind}"
        )))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{FragmentData, StreamInit};

    #[test]
    fn a_complaint_names_the_field_but_not_the_text_in_it() {
        let audio = format!("SECRET\", expected {}", "A".repeat(10_000));
        let value = json!({ "fragment_id": "f", "stream_id": "s", "sequence_number": 0,
            "timestamp": 0, "audio": audio });
        let refusal = parse::<FragmentData>(value).unwrap_err();
        assert_eq!(
            refusal.message,
            "audio: invalid type: string, expected struct Audio"
        );
        let refusal = parse::<StreamInit>(json!({ "stream_id": 7 })).unwrap_err();
        assert_eq!(
            refusal.message,
            "stream_id: invalid type: integer `7`, expected a string"
        );
    }

    #[test]
    fn numbers_may_be_floats_but_not_negative_or_beyond_what_a_float_holds() {
        let read = |value| whole(value).map_err(|error: serde_json::Error| error.to_string());
        assert_eq!(read(json!(7)), Ok(7));
        assert_eq!(read(json!(51.7)), Ok(52));
        assert_eq!(read(json!(u64::MAX)), Ok(u64::MAX));
        for bad in [
            json!(-1),
            json!(-0.6),
            json!(1e300),
            json!("7"),
            json!(null),
            json!([7]),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
        assert!(read(json!("x".repeat(9_999))).unwrap_err().len() < 100);
    }
}
