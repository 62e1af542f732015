//! The page: head, timeline, tables, log. One file, nothing from the network, nothing to run but its
//! own script, which it names by hash so that no text on the page can become another.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

use super::{
    chart,
    facts::{Count, Facts},
    files::FileLink,
    model::{Timeline, Zero},
    tables,
    text::{Text, millis, plural, size, span},
};
use crate::probe::logs::Log;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Everything on the page.
pub(super) struct Page<'a> {
    /// Name of the scenario.
    pub(super) title: &'a str,
    /// Facts in words: a name and a value each.
    pub(super) about: Vec<(&'static str, String)>,
    /// What lies beside the page.
    pub(super) files: Vec<FileLink>,
    /// What happened when.
    pub(super) timeline: &'a Timeline,
    /// The run in numbers.
    pub(super) facts: &'a Facts,
    /// Counts by side.
    pub(super) counts: &'a [Count],
    /// The worker's log.
    pub(super) log: &'a Log,
    /// The worker's last metrics.
    pub(super) metrics: Vec<(String, f64)>,
}

impl Page<'_> {
    /// The page as HTML.
    pub(super) fn render(&self) -> String {
        let mut out = String::with_capacity(1 << 18);
        self.open(&mut out);
        self.head(&mut out);
        self.tiles(&mut out);
        out.push_str("<main>");
        self.timeline(&mut out);
        tables::fragments(&mut out, self.timeline);
        tables::counts(&mut out, self.counts);
        tables::log(&mut out, self.log, &self.timeline.axis);
        tables::metrics(&mut out, &self.metrics);
        out.push_str("</main>");
        let _ = writeln!(out, "<script>{SCRIPT}</script></body></html>");
        out
    }

    fn open(&self, out: &mut String) {
        let _ = write!(
            out,
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; base-uri 'none'; \
             form-action 'none'; style-src '{}'; script-src '{}'\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta name=\"color-scheme\" content=\"light dark\">\
             <title>{} – run report</title><style>{STYLE}</style></head><body>",
            hash(STYLE),
            hash(SCRIPT),
            Text(self.title)
        );
    }

    fn head(&self, out: &mut String) {
        let _ = write!(
            out,
            "<header><p class=\"kicker\">End-to-end run</p><h1>{}</h1><dl class=\"about\">",
            Text(self.title)
        );
        for (name, value) in &self.about {
            let _ = write!(
                out,
                "<div><dt>{}</dt><dd>{}</dd></div>",
                Text(name),
                Text(value)
            );
        }
        out.push_str("</dl><nav><ul class=\"files\">");
        for file in &self.files {
            let _ = write!(
                out,
                "<li><a href=\"{}\">{}</a> <span>{}{}</span></li>",
                Text(&file.href),
                Text(&file.name),
                Text(file.about),
                Text(&format!(", {}", size(file.bytes)))
            );
        }
        out.push_str("</ul></nav></header>");
    }

    fn tiles(&self, out: &mut String) {
        let facts = self.facts;
        out.push_str("<section class=\"tiles\" aria-label=\"Result in numbers\">");
        let mut tile = |name: &str, value: String, note: String, class: &str| {
            let _ = write!(
                out,
                "<div class=\"tile {class}\"><h3>{}</h3><p class=\"value\">{}</p><p class=\"note\">{}</p></div>",
                Text(name),
                Text(&value),
                Text(&note)
            );
        };
        let lit = |on: bool, class: &'static str| if on { class } else { "" };
        tile(
            "Segments",
            facts.segments.to_string(),
            format!("{} of media", span(facts.media_ms)),
            "",
        );
        let kept = match facts.original {
            0 => String::new(),
            count => format!(", {count} original as intended"),
        };
        tile(
            "Dubbed",
            format!("{} of {}", facts.dubbed, facts.segments),
            format!("on air with the answer of STS{kept}"),
            "dubbed",
        );
        let reasons: Vec<_> = facts
            .fallback
            .iter()
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        let note = if reasons.is_empty() {
            "none".to_owned()
        } else {
            reasons.join(", ")
        };
        tile(
            "Fallback",
            facts.fallbacks().to_string(),
            note,
            lit(facts.fallbacks() > 0, "fallback"),
        );
        let (stalls, waited) = facts.stalls;
        let note = if stalls == 0 {
            "output never waited".to_owned()
        } else {
            format!("{} in all", span(waited))
        };
        tile("Stalls", stalls.to_string(), note, lit(stalls > 0, "warn"));
        let (back, failed) = facts.reconnects;
        let note = format!("{} to STS", plural(failed, "failed attempt"));
        tile(
            "Reconnects",
            back.to_string(),
            note,
            lit(back + failed > 0, "warn"),
        );
        match &facts.delta {
            Some(delta) => {
                let over = delta.worst > chart::THRESHOLD_MS;
                let note = format!("worst, median {} ms", millis(delta.median));
                tile(
                    "A/V delta",
                    format!("{} ms", millis(delta.worst)),
                    note,
                    lit(over, "bad"),
                );
            }
            None => tile("A/V delta", "–".to_owned(), "no pair on air".to_owned(), ""),
        }
        match facts.latency {
            Some((first, most)) => {
                tile(
                    "Latency",
                    format!("{first:.2} s"),
                    format!("at the start, most {most:.2} s"),
                    "",
                );
            }
            None => tile("Latency", "–".to_owned(), "no output".to_owned(), ""),
        }
        match &facts.rtt {
            Some(rtt) => {
                let note = format!("median, most {}", span(rtt.worst));
                tile("STS round trip", span(rtt.median), note, "");
            }
            None => tile(
                "STS round trip",
                "–".to_owned(),
                "no answer with audio".to_owned(),
                "",
            ),
        }
        let (most, limit) = facts.in_flight;
        let over = limit.is_some_and(|limit| most as u64 > limit);
        let note = limit.map_or("no limit known".to_owned(), |limit| {
            format!("most at once, limit {limit}")
        });
        tile("In flight", most.to_string(), note, lit(over, "bad"));
        let (warnings, errors) = facts.trouble;
        let class = if errors > 0 {
            "bad"
        } else {
            lit(warnings > 0, "warn")
        };
        let exit = facts.exit.map_or("no exit logged".to_owned(), |code| {
            format!("exit code {code}")
        });
        let (value, note) = match warnings + errors {
            0 => ("clean".to_owned(), format!("no warning, {exit}")),
            all => (
                all.to_string(),
                format!(
                    "{}, {}, {exit}",
                    plural(warnings, "warning"),
                    plural(errors, "error")
                ),
            ),
        };
        tile("Worker log", value, note, class);
        out.push_str("</section>");
    }

    fn timeline(&self, out: &mut String) {
        let zero = match self.timeline.axis.zero() {
            Zero::FirstPacket => "the first media packet was sent",
            Zero::FirstLine => "the worker logged its first line",
            Zero::FirstEntry => "echo-sts saw its first event",
            Zero::Nothing => "nothing: no event of this run has a time",
        };
        let _ = write!(
            out,
            "<section class=\"timeline\"><h2>Timeline</h2><p class=\"hint\">0 s is when {zero}. Point at anything for its story, \
             select a fragment for its row below.</p><div class=\"chart\">{}</div>{LEGEND}</section>",
            chart::draw(self.timeline)
        );
    }
}

/// What the shapes mean.
const LEGEND: &str = "<ul class=\"legend\">\
<li><svg viewBox=\"0 0 26 12\"><rect x=\"1\" y=\"4\" width=\"22\" height=\"4\" class=\"cut\"/><line x1=\"23\" x2=\"23\" y1=\"1\" y2=\"11\" class=\"ready\"/></svg>segment fills, ready</li>\
<li><svg viewBox=\"0 0 26 12\"><rect x=\"1\" y=\"1\" width=\"24\" height=\"10\" class=\"sts dubbed\"/></svg>at STS: sent to processed</li>\
<li><svg viewBox=\"0 0 26 12\"><rect x=\"1\" y=\"1\" width=\"24\" height=\"10\" class=\"sts fallback\"/></svg>at STS: in vain</li>\
<li><svg viewBox=\"0 0 26 12\"><rect x=\"1\" y=\"1\" width=\"24\" height=\"10\" class=\"air dubbed\"/></svg>on air, dubbed</li>\
<li><svg viewBox=\"0 0 26 12\"><rect x=\"1\" y=\"1\" width=\"24\" height=\"10\" class=\"air fallback\"/></svg>on air, fallback</li>\
<li><svg viewBox=\"0 0 26 12\"><rect x=\"1\" y=\"1\" width=\"24\" height=\"10\" class=\"air original\"/></svg>on air, original as intended</li>\
<li><svg viewBox=\"0 0 14 12\"><circle cx=\"7\" cy=\"6\" r=\"2\" class=\"queued\"/></svg>acknowledged (queued)</li>\
<li><svg viewBox=\"0 0 14 12\"><path d=\"M3 6L7 2L11 6L7 10Z\" class=\"applied\"/></svg>applied</li>\
<li><svg viewBox=\"0 0 14 12\"><path d=\"M3 2L11 10M3 10L11 2\" class=\"gave-up\"/></svg>fell back</li>\
<li><svg viewBox=\"0 0 14 12\"><circle cx=\"7\" cy=\"6\" r=\"4\" class=\"late\"/></svg>answered too late</li>\
<li><svg viewBox=\"0 0 26 12\"><rect x=\"9\" y=\"1\" width=\"8\" height=\"10\" class=\"stall\"/></svg>stall</li>\
<li><svg viewBox=\"0 0 26 12\"><rect x=\"1\" y=\"6\" width=\"24\" height=\"3\" class=\"faster\"/></svg>winning back latency</li>\
</ul>";

/// A source for the content security policy.
fn hash(content: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(content)))
}
