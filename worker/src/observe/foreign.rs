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

/// A message of GLib or one of its users: each complaint once, everything else at `debug`.
pub fn library_message(severity: Severity, source: &str, text: &str) {
    let text = shown(text);
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    // The settings database has nothing to do with us; it complains where there is no home.
    let matters = severity == Severity::Warning && source != "dconf";
    let new = matters
        && TOLD.lock().is_ok_and(|mut told| {
            told.len() < DIFFERENT && told.insert(format!("{source}: {text}"))
        });
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
