//! The page as a whole: what is on it, what it needs, and that no text can break it.

use std::{path::Path, sync::Arc};

use super::{model::story, *};
use crate::probe::{journal::Journal, logs::Log, metrics::Scrape};

fn evidence(directory: &Path, log: Log, journal: Journal) -> Evidence {
    Evidence {
        kind: Kind::Default,
        directory: directory.to_owned(),
        clip: "/fixtures/clock-60s.mp4".into(),
        recording: Err("nothing was published".to_owned()),
        journal,
        log,
        metrics: Arc::new(Scrape::default()),
        samples: Vec::new(),
        sent: None,
        reading_after: Duration::from_millis(700),
        first_packet_ms: story::ZERO_MS,
        late: None,
        peak_kib: 0,
        took: Duration::from_secs(45),
    }
}

fn page(log: Log, journal: Journal) -> String {
    html(
        &evidence(Path::new("/no/such/place"), log, journal),
        "a story",
    )
}

#[test]
fn the_page_is_written_beside_the_artifacts_and_links_to_them() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("worker.log"), "x").unwrap();
    let evidence = evidence(directory.path(), story::log(), story::journal());
    let path = write(&evidence, "a story").unwrap();
    assert_eq!(path, directory.path().join("report.html"));
    let html = std::fs::read_to_string(path).unwrap();
    assert!(html.contains("<h1>a story</h1>") && html.contains("href=\"./worker.log\""));
    let gone = Evidence {
        directory: directory.path().join("gone"),
        ..evidence
    };
    assert!(format!("{:#}", write(&gone, "x").unwrap_err()).contains("cannot write"));
}

#[test]
fn every_fragment_and_every_log_line_is_there_without_the_script() {
    let html = page(story::log(), story::journal());
    assert_eq!(html.matches("<tr id=\"f").count(), 5);
    assert_eq!(
        html.matches(" data-level=").count(),
        story::log().records.len()
    );
    assert_eq!(
        html.matches("data-level=\"3\"").count(),
        story::log().problems().len()
    );
    // Nothing is hidden but the filter, which would do nothing.
    assert_eq!(html.matches(" hidden").count(), 1);
    for expected in [
        "timeout (answered at 24.400 s)",
        "breaker_open",
        "disconnected",
        "12.030",
        "batch=1",
    ] {
        assert!(html.contains(expected), "{expected}");
    }
}

#[test]
fn the_page_needs_nothing_from_anywhere() {
    let html = page(story::log(), story::journal());
    for reference in ["http://", "https://", " src=", "@import", "url(", "<link"] {
        assert!(!html.contains(reference), "{reference}");
    }
    assert_eq!(html.matches("<script").count(), 1);
    // An attribute of style or an event handler would not pass the policy.
    assert!(!html.contains(" style="));
    let handler = |word: &str| {
        let name = word.split('=').next().unwrap_or_default();
        word.contains("=\"")
            && name.starts_with("on")
            && name.bytes().all(|byte| byte.is_ascii_lowercase())
    };
    assert_eq!(
        html.split_ascii_whitespace().find(|word| handler(word)),
        None
    );
}

#[test]
fn nothing_at_all_is_a_page_too() {
    let html = page(Log::default(), Journal::default());
    for expected in [
        "The worker logged nothing",
        "No segment was cut",
        "no pair on air",
        "not to the end",
    ] {
        assert!(html.contains(expected), "{expected}");
    }
    assert!(!html.contains("NaN"));
}

#[test]
fn hostile_text_stays_text_wherever_it_is_shown() {
    const EVIL: &str =
        "\"></title></text></script><script>alert(1)</script><img src=x onerror=y> \u{202e}\u{0}";
    let evil = serde_json::to_string(EVIL).unwrap();
    let fields = format!(
        "\"fragment_id\":{evil},\"reason\":{evil},\"error\":{evil},\"code\":{evil},\"kind\":{evil},\"run_id\":{evil},\
         \"from\":{evil},\"to\":{evil},\"action\":{evil},\"batch\":0,\"sequence\":0,\"duration_ms\":1000"
    );
    let events = [
        "segment_ready",
        "fragment_sent",
        "fragment_failed",
        "fallback",
        "sts_disconnected",
        "input_lost",
        "breaker",
        "backpressure",
        "av_correction",
        "pair_started",
        "stall",
        "sts_refused",
        "<b>",
    ];
    let mut lines: Vec<String> = events
        .iter()
        .map(|event| {
            format!(
                "{{\"timestamp\":\"2026-01-01T00:00:01Z\",\"level\":\"ERROR\",\"message\":{evil},\"event\":\"{event}\",{fields}}}"
            )
        })
        .collect();
    lines.push(EVIL.to_owned());
    let log = Log::parse(lines.iter().map(String::as_str));
    assert_eq!((log.records.len(), log.strays.len()), (events.len(), 1));
    let entry = |direction: &str, event: &str| {
        format!(
            "{{\"time_ms\":{},\"direction\":\"{direction}\",\"event\":\"{event}\",\"fragment_id\":{evil},\
             \"code\":{evil},\"status\":{evil},\"detail\":{evil}}}\n",
            story::ZERO_MS + 2_000.0
        )
    };
    let journal =
        entry("in", "fragment:data") + &entry("out", "error") + &entry("local", "disconnect");
    let journal = Journal::parse(&journal).unwrap();
    let evil_page = {
        let mut evidence = evidence(Path::new("/no/such/place"), log, journal);
        evidence.clip = format!("/x/{}", EVIL.replace(['/', '\0'], "")).into();
        html(&evidence, EVIL)
    };
    assert_eq!(
        evil_page.matches("<script").count(),
        1,
        "a script of somebody else"
    );
    assert!(!evil_page.contains("<img") && !evil_page.contains("<b>"));
    assert!(!evil_page.contains('\u{202e}') && !evil_page.contains('\0'));
    // It is shown, though: as text, in the places where it was said.
    assert!(
        evil_page
            .matches("&lt;script&gt;alert(1)&lt;/script&gt;")
            .count()
            > 20
    );
    // The drawing is still well formed.
    let from = evil_page.find("<svg id=\"chart\"").unwrap();
    let to = from + evil_page[from..].find("</svg>").unwrap() + "</svg>".len();
    roxmltree::Document::parse(&evil_page[from..to]).unwrap();
}

#[test]
fn an_endless_log_is_cut_in_the_middle() {
    let line = "{\"timestamp\":\"2026-01-01T00:00:01Z\",\"level\":\"INFO\",\"message\":\"again\"}";
    let log = Log::parse(std::iter::repeat_n(line, 50_000));
    let html = page(log, Journal::default());
    assert_eq!(html.matches(" data-level=").count(), 6_000);
    assert!(html.contains("44000 lines left out here"));
}

#[test]
fn the_policy_names_the_script_and_the_style_that_are_there() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use sha2::{Digest as _, Sha256};
    let html = page(story::log(), story::journal());
    for element in ["script", "style"] {
        let from = html.find(&format!("<{element}>")).unwrap() + element.len() + 2;
        let to = from + html[from..].find(&format!("</{element}>")).unwrap();
        let hash = STANDARD.encode(Sha256::digest(&html[from..to]));
        assert!(
            html.contains(&format!("{element}-src 'sha256-{hash}'")),
            "{element}"
        );
    }
}
