//! What libraries say and what breaks, on the way into the log.

use std::collections::BTreeSet;
use std::sync::{Mutex, OnceLock};

use dub_media::MediaUrl;
use dub_media::messages::Severity;

/// Different complaints that are told; later ones are only seen at `debug`.
const DIFFERENT: usize = 64;

/// What no text from outside may show: libraries quote URLs as they were given.
static HIDDEN: OnceLock<Vec<MediaUrl>> = OnceLock::new();

/// From here on the credentials and keys of `urls` are hidden in every text from outside. Only the first
/// call has an effect.
pub fn hide(urls: Vec<MediaUrl>) {
    let _ = HIDDEN.set(urls);
}

fn shown(text: &str) -> String {
    let urls = HIDDEN.get().into_iter().flatten();
    urls.fold(text.to_owned(), |text, url| url.redact(&text))
}

/// Complaints that were told.
#[derive(Debug)]
struct Told(BTreeSet<String>);

impl Told {
    /// Whether it is to be told now.
    fn is_new(&mut self, source: &str, text: &str) -> bool {
        // The settings database has nothing to do with us; it complains where there is no home.
        source != "dconf" && self.0.len() < DIFFERENT && self.0.insert(format!("{source}: {text}"))
    }
}

/// A message of GLib or one of its users: each complaint once, everything else at `debug`.
pub fn library_message(severity: Severity, source: &str, text: &str) {
    static TOLD: Mutex<Told> = Mutex::new(Told(BTreeSet::new()));
    let text = shown(text);
    let new = severity == Severity::Warning
        && TOLD.lock().is_ok_and(|mut told| told.is_new(source, &text));
    if new {
        tracing::warn!(
            event = "library_message",
            source,
            text,
            "a library complains"
        );
    } else {
        tracing::debug!(
            event = "library_message",
            source,
            text,
            "a library says something"
        );
    }
}

/// GStreamer's own debug output, which somebody asked for with `GST_DEBUG`.
pub fn debug_output(source: &str, text: &str) {
    let text = shown(text);
    tracing::info!(
        event = "gstreamer_debug",
        source,
        text,
        "GStreamer debug output"
    );
}

/// Something that was printed to stderr past the log.
pub fn raw_output(text: &str) {
    let text = shown(text);
    tracing::info!(event = "raw_output", text, "printed to stderr by a library");
}

/// A panic anywhere in the process.
pub fn panicked(place: &str, message: &str) {
    let message = shown(message);
    tracing::error!(event = "panic", place, message, "a bug: please report it");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that repeats itself, and one that never does, fill no log.
    #[test]
    fn each_complaint_is_told_once_and_not_for_ever() {
        let mut told = Told(BTreeSet::new());
        assert!(!told.is_new("dconf", "no home"));
        assert!(told.is_new("GLib", "odd") && !told.is_new("GLib", "odd"));
        let more = (0..200).filter(|n| told.is_new("GLib", &n.to_string()));
        assert_eq!(more.count(), DIFFERENT - 1);
    }
}
