//! The run in words: fragments, counts, log lines, metrics.

use std::fmt::Write as _;

use serde_json::Value;

use super::{
    chart,
    facts::Count,
    model::{Axis, Row, Timeline},
    text::{Text, millis, plural, seconds, shorten},
};
use crate::probe::logs::{Level, Log, Record};

/// Lines of the log on the page; the file has all.
const MOST_LINES: usize = 6_000;

/// A row for each fragment.
pub(super) fn fragments(out: &mut String, timeline: &Timeline) {
    out.push_str("<section><h2>Fragments</h2>");
    if timeline.rows.is_empty() {
        out.push_str(
            "<p class=\"hint\">No segment was cut and no fragment was sent.</p></section>",
        );
        return;
    }
    out.push_str(
        "<p class=\"hint\">Seconds on the axis of the timeline; lengths in ms. <i>Acked</i> and <i>applied</i> are \
         from the journal of echo-sts, the rest is from the worker’s log.</p>\
         <div class=\"wide\"><table class=\"data\"><thead><tr><th class=n>batch<th class=n>seq<th class=n>session<th>fragment\
         <th>segment<th class=n>ready<th class=n>sent<th class=n>acked<th class=n>processed<th class=n>applied<th class=n>on air\
         <th class=n>rtt<th class=n>stall<th class=n>A/V<th>outcome<th>reason</tr></thead><tbody>",
    );
    for (index, row) in timeline.rows.iter().enumerate() {
        fragment(out, index, row);
    }
    out.push_str("</tbody></table></div></section>");
}

fn fragment(out: &mut String, index: usize, row: &Row) {
    let at = row.ready.or(row.left()).unwrap_or_default();
    let (outcome, why) = row.words();
    let _ = write!(
        out,
        "<tr id=\"{}\" data-at=\"{at:.4}\">",
        chart::row_id(index)
    );
    match row.batch {
        // With the script this shows its lines in the log; without, it leads there.
        Some(batch) => {
            let _ = write!(
                out,
                "<td class=\"n\"><a href=\"#log\" data-find=\"batch={batch}\">{batch}</a>"
            );
        }
        None => out.push_str("<td class=\"n\">–"),
    }
    number(out, row.sequence.map(|n| n.to_string()).as_deref());
    number(out, row.session.map(|n| n.to_string()).as_deref());
    match &row.fragment_id {
        Some(id) => {
            let _ = write!(
                out,
                "<td class=\"id\"><span title=\"{}\">{}</span>",
                Text(id),
                Text(&shorten(id, 9))
            );
        }
        None => out.push_str("<td class=\"id\">–"),
    }
    let kind = row.kind.as_deref().unwrap_or("–");
    let length = row
        .duration_ms
        .map(|ms| format!(" {}", millis(ms)))
        .unwrap_or_default();
    let _ = write!(out, "<td>{}{}", Text(kind), Text(&length));
    for moment in [
        row.ready,
        row.left(),
        row.queued,
        row.processed,
        row.applied,
        row.on_air,
    ] {
        number(out, moment.map(seconds).as_deref());
    }
    for length in [row.rtt_ms, row.stall_ms, row.delta_ms] {
        number(out, length.map(millis).as_deref());
    }
    let late = row
        .late_answer()
        .map(|at| format!(" (answered at {} s)", seconds(at)))
        .unwrap_or_default();
    let class = chart::outcome(&row.outcome);
    let _ = write!(
        out,
        "<td><span class=\"badge {class}\">{outcome}</span><td class=\"why\">{}{}</tr>",
        Text(&why),
        Text(&late)
    );
}

fn number(out: &mut String, value: Option<&str>) {
    let _ = write!(out, "<td class=\"n\">{}", Text(value.unwrap_or("–")));
}

/// The same counts as each side has them.
pub(super) fn counts(out: &mut String, counts: &[Count]) {
    if counts.is_empty() {
        return;
    }
    out.push_str(
        "<section><h2>Counts, seen from three sides</h2><p class=\"hint\">A difference is no fault by \
         itself: an answer may leave the service and come too late.</p><div class=\"halves\">",
    );
    for half in counts.chunks(counts.len().div_ceil(2)) {
        out.push_str(
            "<table class=\"data\"><thead><tr><th>what<th class=n>metrics<th class=n>log\
             <th class=n>journal<th></tr></thead><tbody>",
        );
        for count in half {
            let _ = write!(out, "<tr><td>{}", Text(&count.what));
            for side in [count.metrics, count.log, count.journal] {
                number(out, side.map(|count| count.to_string()).as_deref());
            }
            out.push_str("<td>");
            if !count.agrees() {
                out.push_str("<span class=\"badge warn\">differ</span>");
            }
            out.push_str("</tr>");
        }
        out.push_str("</tbody></table>");
    }
    out.push_str("</div></section>");
}

/// The worker's log with a filter.
pub(super) fn log(out: &mut String, log: &Log, axis: &Axis) {
    let total = log.records.len();
    let _ = write!(
        out,
        "<section id=\"log\"><h2>Log of the worker</h2>\
         <form id=\"filter\" hidden><label>level <select id=\"level\"><option value=\"0\">all</option>\
         <option value=\"2\">INFO and above</option><option value=\"3\">WARN and above</option>\
         <option value=\"4\">ERROR</option></select></label>\
         <label>text <input id=\"search\" type=\"search\" placeholder=\"words, event, batch=3 …\" autocomplete=\"off\" \
         spellcheck=\"false\"></label><output id=\"shown\">{}</output></form>",
        plural(total as u64, "line")
    );
    strays(out, log);
    if total == 0 {
        out.push_str("<p class=\"hint\">The worker logged nothing.</p></section>");
        return;
    }
    let shared = shared_fields(log);
    if !shared.is_empty() {
        out.push_str("<p class=\"hint\">On every line:");
        for (name, value) in &shared {
            let _ = write!(out, " <code>{}={}</code>", Text(name), Text(&plain(value)));
        }
        out.push_str("</p>");
    }
    out.push_str(
        "<div class=\"wide\"><table class=\"log\"><thead><tr><th class=n>s<th>level<th>event<th>message</tr></thead><tbody>",
    );
    let skipped = total.saturating_sub(MOST_LINES);
    let head = if skipped == 0 { total } else { MOST_LINES / 2 };
    for record in &log.records[..head] {
        line(out, record, axis, &shared);
    }
    if skipped > 0 {
        let _ = write!(
            out,
            "<tr class=\"skipped\"><td colspan=\"4\">{} left out here: worker.log has them</tr>",
            plural(skipped as u64, "line")
        );
        for record in &log.records[total - (MOST_LINES - head)..] {
            line(out, record, axis, &shared);
        }
    }
    out.push_str("</tbody></table></div></section>");
}

/// What a library or a panic printed.
fn strays(out: &mut String, log: &Log) {
    if log.strays.is_empty() {
        return;
    }
    let _ = write!(
        out,
        "<div class=\"strays\"><h3>{} that no logger wrote</h3><pre>",
        plural(log.strays.len() as u64, "line")
    );
    for stray in log.strays.iter().take(MOST_LINES) {
        let _ = writeln!(out, "{}", Text(stray));
    }
    out.push_str("</pre></div>");
}

fn line(out: &mut String, record: &Record, axis: &Axis, shared: &[(&String, &Value)]) {
    let (rank, class, level) = match record.level {
        Level::Trace => (0, "trace", "TRACE"),
        Level::Debug => (1, "debug", "DEBUG"),
        Level::Info => (2, "info", "INFO"),
        Level::Warn => (3, "warn", "WARN"),
        Level::Error => (4, "bad", "ERROR"),
    };
    let at = axis.record(record);
    let data = at
        .map(|at| format!(" data-at=\"{at:.4}\""))
        .unwrap_or_default();
    let _ = write!(
        out,
        "<tr class=\"{class}\" data-level=\"{rank}\"{data}><td class=\"n\" title=\"{}\">{}<td>{level}<td class=\"event\">{}<td>{}",
        Text(&record.timestamp),
        Text(&at.map_or("–".to_owned(), seconds)),
        Text(record.event().unwrap_or_default()),
        Text(&record.message),
    );
    for (name, value) in &record.fields {
        let known = name == "event"
            || shared
                .iter()
                .any(|(shared, same)| *shared == name && *same == value);
        if !known {
            let _ = write!(out, " <code>{}={}</code>", Text(name), Text(&plain(value)));
        }
    }
    out.push_str("</tr>");
}

/// Identity that does not change: fields that the first line with them has, and every line after it.
fn shared_fields(log: &Log) -> Vec<(&String, &Value)> {
    let Some(first) = log.records.first() else {
        return Vec::new();
    };
    let identity = first
        .fields
        .iter()
        .filter(|(name, _)| ["stream_id", "run_id"].contains(&name.as_str()));
    identity
        .filter(|(name, value)| {
            log.records
                .iter()
                .all(|record| record.fields.get(*name) == Some(value))
        })
        .collect()
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The last scrape, folded away.
pub(super) fn metrics(out: &mut String, metrics: &[(String, f64)]) {
    if metrics.is_empty() {
        return;
    }
    let _ = write!(
        out,
        "<section><h2>Metrics at the end</h2><details><summary>{} series</summary><div class=\"wide\">\
         <table class=\"data\"><tbody>",
        metrics.len()
    );
    for (series, value) in metrics {
        let _ = write!(
            out,
            "<tr><td class=\"id\">{}<td class=\"n\">{}</tr>",
            Text(series),
            Text(&value.to_string())
        );
    }
    out.push_str("</tbody></table></div></details></section>");
}
