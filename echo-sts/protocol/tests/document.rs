//! `docs/protocol.md` names every event, field, word and code of the types, and no others.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde::de::value::Error;
use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};
use sts_protocol::{
    Audio, AudioConfig, Backpressure, BackpressureConfig, Capabilities, ControlAck, ErrorCode,
    ErrorEvent, ErrorRule, ErrorSimulation, FragmentData, FragmentError, FragmentProcessed,
    LatencyConfig, Severity, SimulateBackpressure, SimulateDisconnect, SimulateSessionLoss,
    StageTimings, Statistics, StreamComplete, StreamConfig, StreamInit, StreamReady, StreamSignal,
    StsAck, WorkerAck, event,
};

/// Asked for a struct it answers with the names of its fields.
struct Names;

impl<'de> Deserializer<'de> for Names {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("not a struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        Err(Error::custom(fields.join(" ")))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Names of the fields of `T`; for each of `inner`, those of what lies in it instead.
fn fields<T: DeserializeOwned>(inner: &[(&str, Vec<String>)]) -> Vec<String> {
    let Err(names) = T::deserialize(Names) else {
        panic!("nothing was there to read")
    };
    let names = names.to_string();
    let mut all = vec![];
    for name in names.split(' ') {
        match inner.iter().find(|(field, _)| *field == name) {
            Some((_, inner)) => all.extend(inner.iter().map(|field| format!("{name}.{field}"))),
            None => all.push(name.to_owned()),
        }
    }
    all
}

fn document() -> String {
    fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/protocol.md"
    ))
    .unwrap()
}

/// The words in backticks of a text, in order.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// First cells of the tables below each heading that names something.
fn sections(text: &str) -> BTreeMap<&str, BTreeSet<String>> {
    let mut sections = BTreeMap::new();
    for section in text.split("\n### ").skip(1) {
        let (title, body) = section.split_once('\n').unwrap();
        let body = body.split("\n## ").next().unwrap();
        let rows = body.lines().filter_map(|line| line.split('|').nth(1));
        sections.insert(title, rows.flat_map(quoted).map(str::to_owned).collect());
    }
    sections
}

#[test]
fn the_document_names_every_event_and_field() {
    let signal = || fields::<StreamSignal>(&[]);
    let mut rules: Vec<_> = fields::<ErrorSimulation>(&[]);
    rules.extend(
        fields::<ErrorRule>(&[])
            .iter()
            .map(|name| format!("rules[].{name}")),
    );
    // Its fields beside those that anybody may add cannot be asked for.
    let metadata = ["pts_ns", "source_pts_ns"].map(str::to_owned).to_vec();
    let wanted = [
        (
            "`stream:init`",
            fields::<StreamInit>(&[("config", fields::<StreamConfig>(&[]))]),
        ),
        (
            "`fragment:data`",
            fields::<FragmentData>(&[("metadata", metadata)]),
        ),
        ("`fragment:ack` of the worker", fields::<WorkerAck>(&[])),
        ("`stream:pause`, `stream:resume`, `stream:end`", signal()),
        (
            "`stream:ready`",
            fields::<StreamReady>(&[("capabilities", fields::<Capabilities>(&[]))]),
        ),
        ("`fragment:ack` of the service", fields::<StsAck>(&[])),
        (
            "`fragment:processed`",
            fields::<FragmentProcessed>(&[
                ("stage_timings", fields::<StageTimings>(&[])),
                ("error", fields::<FragmentError>(&[])),
            ]),
        ),
        ("`audio` and `dubbed_audio`", fields::<Audio>(&[])),
        (
            "`stream:complete`",
            fields::<StreamComplete>(&[("statistics", fields::<Statistics>(&[]))]),
        ),
        ("`backpressure`", fields::<Backpressure>(&[])),
        ("`error`", fields::<ErrorEvent>(&[])),
        ("`EVENT:ack`", fields::<ControlAck>(&[])),
        ("`config:error_simulation`", rules),
        ("`config:latency`", fields::<LatencyConfig>(&[])),
        ("`config:backpressure`", fields::<BackpressureConfig>(&[])),
        (
            "`simulate:backpressure`",
            fields::<SimulateBackpressure>(&[]),
        ),
        ("`config:audio`", fields::<AudioConfig>(&[])),
        ("`simulate:disconnect`", fields::<SimulateDisconnect>(&[])),
        (
            "`simulate:session_loss`",
            fields::<SimulateSessionLoss>(&[]),
        ),
    ];
    let text = document();
    let found = sections(&text);
    for (title, fields) in &wanted {
        let named = found.get(title);
        let named = named.unwrap_or_else(|| panic!("no section {title}"));
        assert_eq!(
            *named,
            fields.iter().cloned().collect(),
            "fields of {title}"
        );
    }
    assert_eq!(found.len(), wanted.len(), "sections of something else");
    let titles: BTreeSet<_> = found.keys().flat_map(|title| quoted(title)).collect();
    for name in event::FROM_WORKER
        .iter()
        .chain(&event::FROM_STS)
        .chain(&event::CONTROL)
    {
        assert!(titles.contains(name), "no section of {name}");
    }
}

#[test]
fn the_document_has_the_table_of_codes() {
    let text = document();
    for code in ErrorCode::KNOWN {
        let severity = match code.severity() {
            Severity::Warning => "warning",
            Severity::Error => "error",
            Severity::Fatal => "fatal",
        };
        let retryable = if code.retryable() == Some(true) {
            "yes"
        } else {
            "no"
        };
        let row = format!("| `{}` | {severity} | {retryable} |", code.as_str());
        assert!(text.contains(&row), "no row {row}");
    }
}
