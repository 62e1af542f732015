//! What libraries say and what breaks, on the way into the log.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use dub_media::MediaUrl;
use dub_media::messages::Severity;

/// Different warnings that are told in that time; more are only seen at `debug`.
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

/// How long a warning that repeats itself is only counted.
const QUIET: Duration = Duration::from_mins(1);

/// Warnings from outside that were told: when, and how many more came since. Some come with every packet of
/// a camera.
#[derive(Debug, Default)]
pub(super) struct Warned(BTreeMap<String, (Instant, u64)>);

impl Warned {
    /// How many of its kind were not told since the last that was; `None` if it is not told either.
    pub(super) fn told(&mut self, text: &str, now: Instant) -> Option<u64> {
        if let Some((last, more)) = self.0.get_mut(text) {
            if now.duration_since(*last) < QUIET {
                *more += 1;
                return None;
            }
            *last = now;
            return Some(std::mem::take(more));
        }
        self.0
            .retain(|_, (last, _)| now.duration_since(*last) < QUIET);
        (self.0.len() < DIFFERENT).then(|| {
            self.0.insert(text.to_owned(), (now, 0));
            0
        })
    }
}

/// A message of GLib or one of its users: each warning once a minute, everything else at `debug`.
pub fn library_message(severity: Severity, source: &str, text: &str) {
    static WARNED: Mutex<Warned> = Mutex::new(Warned(BTreeMap::new()));
    let text = shown(text);
    let warned = complains(severity, source).then(|| WARNED.lock().ok());
    let complaint = format!("{source}: {text}");
    if let Some(more) = warned
        .flatten()
        .and_then(|mut it| it.told(&complaint, Instant::now()))
    {
        tracing::warn!(
            event = "library_message",
            source,
            text,
            more,
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

/// The settings database has nothing to do with us; it warns where there is no home.
fn complains(severity: Severity, source: &str) -> bool {
    severity == Severity::Warning && source != "dconf"
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

    #[test]
    fn a_warning_that_repeats_itself_is_told_once_a_minute_with_how_many_more_there_were() {
        let (mut warned, start) = (Warned::default(), Instant::now());
        let mut told =
            |text: &str, seconds| warned.told(text, start + Duration::from_secs(seconds));
        assert_eq!(told("odd packet", 0), Some(0));
        for second in 1..60 {
            assert_eq!(told("odd packet", second), None);
        }
        assert_eq!(told("another", 30), Some(0));
        assert_eq!(told("odd packet", 60), Some(59));
        assert_eq!(told("odd packet", 61), None);
        // One that never repeats itself fills neither the log nor memory.
        let all = (0..1_000).filter_map(|n| told(&n.to_string(), 62));
        assert_eq!(all.count(), DIFFERENT - 2);
        assert_eq!(told("later", 200), Some(0));
    }

    #[test]
    fn only_warnings_of_libraries_that_matter_are_complaints() {
        assert!(complains(Severity::Warning, "GLib"));
        assert!(!complains(Severity::Detail, "GLib"));
        assert!(!complains(Severity::Warning, "dconf"));
    }
}
