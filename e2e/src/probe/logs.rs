//! The JSON log of the worker, one object per line on standard error.

use std::{fmt, path::Path};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Severity of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// Every little step.
    Trace,
    /// For developers.
    Debug,
    /// Events that matter.
    Info,
    /// Degraded, handled.
    Warn,
    /// Somebody has to act.
    Error,
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// When, as written (RFC 3339).
    pub timestamp: String,
    /// How severe.
    pub level: Level,
    /// Module that said it.
    pub target: String,
    /// What a person reads.
    pub message: String,
    /// All other fields.
    pub fields: Map<String, Value>,
}

impl Record {
    /// Reads a line; `None` if it is not a log line (a panic message, a library that prints).
    pub fn parse(line: &str) -> Option<Self> {
        let Value::Object(mut fields) = serde_json::from_str(line).ok()? else {
            return None;
        };
        let level = serde_json::from_value(fields.remove("level")?).ok()?;
        let mut take = |key: &str| match fields.remove(key) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        Some(Self {
            timestamp: take("timestamp")?,
            level,
            target: take("target").unwrap_or_default(),
            message: take("message").unwrap_or_default(),
            fields,
        })
    }

    /// When it was written, milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// When its timestamp is not RFC 3339.
    pub fn unix_ms(&self) -> Result<f64> {
        let time = humantime::parse_rfc3339(&self.timestamp)
            .with_context(|| format!("'{}' is not a time", self.timestamp))?;
        Ok(time
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64()
            * 1e3)
    }

    /// The stable name of what happened, if the line has one.
    pub fn event(&self) -> Option<&str> {
        self.text("event")
    }

    pub fn text(&self, field: &str) -> Option<&str> {
        self.fields.get(field)?.as_str()
    }

    /// A field that is a number, also one written as a string.
    pub fn number(&self, field: &str) -> Option<f64> {
        match self.fields.get(field)? {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// A field that is true or false.
    pub fn flag(&self, field: &str) -> Option<bool> {
        self.fields.get(field)?.as_bool()
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.level, self.message)?;
        for (name, value) in &self.fields {
            write!(f, " {name}={value}")?;
        }
        Ok(())
    }
}

/// What happened by a line, if it is one of the log and says so.
pub(crate) fn event(line: &str) -> Option<String> {
    Some(Record::parse(line)?.event()?.to_owned())
}

/// A whole log.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// Lines that are log records, in order.
    pub records: Vec<Record>,
    /// Lines that are not.
    pub strays: Vec<String>,
}

impl Log {
    /// Reads a log file.
    pub fn read(path: &Path) -> Result<Self> {
        let raw = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self::parse(String::from_utf8_lossy(&raw).lines()))
    }

    /// Sorts lines into records and strays.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut log = Self::default();
        for line in lines.into_iter().filter(|line| !line.is_empty()) {
            match Record::parse(line) {
                Some(record) => log.records.push(record),
                None => log.strays.push(line.to_owned()),
            }
        }
        log
    }

    /// Records of one event.
    pub fn events<'a>(&'a self, event: &'a str) -> impl Iterator<Item = &'a Record> {
        self.records
            .iter()
            .filter(move |record| record.event() == Some(event))
    }

    /// The first record of an event.
    pub fn first(&self, event: &str) -> Result<&Record> {
        let found = self.records.iter().find(|it| it.event() == Some(event));
        found.with_context(|| format!("no {event} was logged"))
    }

    /// What a clean run has none of: records at WARN or above, and strays (a panic prints one).
    pub fn problems(&self) -> Vec<String> {
        let loud = self
            .records
            .iter()
            .filter(|record| record.level >= Level::Warn);
        loud.map(ToString::to_string)
            .chain(self.strays.iter().cloned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "\
{\"timestamp\":\"2026-01-01T00:00:00Z\",\"level\":\"INFO\",\"target\":\"worker\",\"message\":\"serving\",\"event\":\"metrics_listening\",\"addr\":\"127.0.0.1:9\"}
{\"timestamp\":\"2026-01-01T00:00:01Z\",\"level\":\"WARN\",\"target\":\"worker\",\"message\":\"late\",\"event\":\"stall\",\"batch\":3,\"duration_ms\":\"41.5\",\"dubbed\":true}
thread 'main' panicked at src/main.rs:1:1
{\"no\":\"log\"}
";

    #[test]
    fn records_are_found_by_event_with_their_fields() {
        let log = Log::parse(LINES.lines());
        let listening = log.first("metrics_listening").unwrap();
        assert_eq!(listening.text("addr"), Some("127.0.0.1:9"));
        let stall = log.first("stall").unwrap();
        assert_eq!(
            (stall.number("batch"), stall.number("duration_ms")),
            (Some(3.0), Some(41.5))
        );
        assert_eq!(
            (stall.flag("dubbed"), stall.level),
            (Some(true), Level::Warn)
        );
        assert_eq!(log.events("nothing").count(), 0);
        let error = log.first("nothing").unwrap_err();
        assert_eq!(error.to_string(), "no nothing was logged");
    }

    #[test]
    fn warnings_and_strays_are_problems_and_information_is_not() {
        let problems = Log::parse(LINES.lines()).problems();
        assert_eq!(problems.len(), 3);
        assert_eq!(
            problems[0],
            "Warn late batch=3 dubbed=true duration_ms=\"41.5\" event=\"stall\""
        );
        assert!(problems[1].starts_with("thread 'main' panicked"));
        let clean = Log::parse(LINES.lines().take(1));
        assert!(clean.problems().is_empty());
    }
}
