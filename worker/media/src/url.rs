//! URLs of inputs, outputs and services, with their secrets hidden.

use std::fmt;

use dub_engine::redact::{self, SHORTEST_SECRET};
use percent_encoding::percent_decode_str;
use url::form_urlencoded;

/// What stands where a secret was.
const HIDDEN: &str = "***";

/// A URL that may hold credentials. `Display` and `Debug` hide them; only
/// [`MediaUrl::secret`] gives the whole text, for the program that connects.
///
/// Hidden are user and password, the query, the fragment, and of an RTMP URL everything behind
/// the application: `rtmp://host/live/KEY` is how most services take their stream key.
#[derive(Clone, PartialEq, Eq)]
pub struct MediaUrl {
    secret: String,
    shown: String,
    /// Pieces that must not be seen in other texts, longest first.
    pieces: Vec<String>,
}

impl MediaUrl {
    /// Wraps a URL.
    pub fn new(url: impl Into<String>) -> Self {
        let url = url.into();
        let keyed = url.starts_with("rtmp");
        Self::with_key(url, keyed)
    }

    /// Wraps a URL of an output, whose path holds a stream key whatever its scheme.
    pub fn output(url: impl Into<String>) -> Self {
        Self::with_key(url.into(), true)
    }

    fn with_key(secret: String, keyed: bool) -> Self {
        let parsed = url::Url::parse(&secret)
            .ok()
            .filter(|url| url.has_host() && secret.contains("://"));
        let Some(url) = parsed else {
            return Self {
                shown: shown_of_no_url(&secret, keyed),
                pieces: vec![secret.clone()],
                secret,
            };
        };
        let key = keyed.then(|| key_of(url.path()));
        let pieces = pieces_of(&url, key.unwrap_or_default());
        let shown = shown_of(&url, key);
        Self {
            secret,
            shown,
            pieces,
        }
    }

    /// The URL with its credentials.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// `text` without what must not be seen of this URL: other programs' messages may quote it.
    pub fn redact(&self, text: &str) -> String {
        let mut text = text.replace(&self.secret, &self.shown);
        for piece in &self.pieces {
            text = redact::hide(&text, piece, HIDDEN);
        }
        text
    }
}

impl fmt::Display for MediaUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for MediaUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What cannot be taken apart is shown only if no secret can be in it.
fn shown_of_no_url(text: &str, keyed: bool) -> String {
    if !keyed && !text.contains(['@', '?', '#']) {
        return text.to_owned();
    }
    match text.split_once("://") {
        Some((scheme, _)) if scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            format!("{scheme}://{HIDDEN}")
        }
        _ => HIDDEN.to_owned(),
    }
}

/// The part of an RTMP path that names the stream: everything behind the application.
fn key_of(path: &str) -> &str {
    let path = path.trim_start_matches('/');
    path.split_once('/').map_or(path, |(_, key)| key)
}

fn shown_of(url: &url::Url, key: Option<&str>) -> String {
    let mut shown = url.clone();
    if !url.username().is_empty() || url.password().is_some() {
        // Fails only for URLs without a host.
        let _ = shown.set_password(None);
        let _ = shown.set_username(HIDDEN);
    }
    if url.query().is_some() {
        shown.set_query(Some(HIDDEN));
    }
    if url.fragment().is_some() {
        shown.set_fragment(Some(HIDDEN));
    }
    if let Some(key) = key.filter(|key| !key.is_empty()) {
        let application = url.path().strip_suffix(key).unwrap_or("/");
        shown.set_path(&format!("{application}{HIDDEN}"));
    }
    shown.to_string()
}

fn pieces_of(url: &url::Url, key: &str) -> Vec<String> {
    let mut pieces: Vec<&str> = Vec::new();
    pieces.extend([url.username(), url.password().unwrap_or_default(), key]);
    pieces.extend(key.split('/'));
    for query in [url.query(), url.fragment()].into_iter().flatten() {
        pieces.push(query);
        pieces.extend(query.split('&'));
        pieces.extend(
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .map(|(_, v)| v),
        );
    }
    let decoded = |piece: &str| percent_decode_str(piece).decode_utf8_lossy().into_owned();
    let mut pieces: Vec<String> = pieces
        .into_iter()
        .flat_map(|piece| {
            let decoded = decoded(piece);
            // As it stands in a query.
            let encoded = form_urlencoded::byte_serialize(decoded.as_bytes()).collect();
            [piece.to_owned(), decoded, encoded]
        })
        .filter(|piece| piece.len() >= SHORTEST_SECRET)
        .collect();
    if let Some(password) = url.password() {
        // As a header of Basic authorization has both; debug output shows whole requests.
        let login = format!("{}:{}", decoded(url.username()), decoded(password));
        pieces.push(gst::glib::base64_encode(login.as_bytes()).into());
    }
    pieces.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    pieces.dedup();
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_is_not_shown() {
        for (url, shown) in [
            (
                "rtsp://user:pass@host:8554/live/in",
                "rtsp://***@host:8554/live/in",
            ),
            ("rtsp://token@host/live", "rtsp://***@host/live"),
            (
                "rtsps://host/live/in?user=a&pass=b#frag",
                "rtsps://host/live/in?***#***",
            ),
            ("rtmp://host/live/KEY", "rtmp://host/live/***"),
            (
                "rtmp://host:1935/live/test/out",
                "rtmp://host:1935/live/***",
            ),
            (
                "rtmps://u:p@host/app/inst/KEY?x=1",
                "rtmps://***@host/app/***?***",
            ),
            ("rtmp://host/KEY", "rtmp://host/***"),
            ("rtmp://host/live/K%20E Y/", "rtmp://host/live/***"),
            (
                "http://user:pass@sts:80/path?token=t",
                "http://***@sts/path?***",
            ),
            ("rtmp://[::1]:1935/live/KEY", "rtmp://[::1]:1935/live/***"),
            // What is no URL.
            ("rtsp://user:pa/ss@host/x", "rtsp://***"),
            ("rtmp://u:p?ss@host/live/KEY", "rtmp://***"),
            ("user:pass@host/live", "***"),
            ("localhost:8554/live", "localhost:8554/live"),
            ("rtmp:KEY", "***"),
            ("", ""),
        ] {
            let wrapped = MediaUrl::new(url);
            assert_eq!(wrapped.to_string(), shown, "{url}");
            assert_eq!(format!("{wrapped:?}"), shown, "{url}");
            assert_eq!(wrapped.secret(), url);
        }
        assert_eq!(
            MediaUrl::output("http://h/app/KEY").to_string(),
            "http://h/app/***"
        );
        assert_eq!(MediaUrl::output("KEY").to_string(), "***");
    }

    #[test]
    fn what_is_secret_is_not_quoted() {
        let url = MediaUrl::new("rtmp://anna:p%40ss@host/live/abcd-1234/key9?token=tok_77");
        for (text, redacted) in [
            (
                "cannot publish rtmp://anna:p%40ss@host/live/abcd-1234/key9?token=tok_77",
                "cannot publish rtmp://***@host/live/***?***",
            ),
            ("stream 'abcd-1234/key9' exists", "stream '***' exists"),
            ("key9?token=tok_77 refused", "***?*** refused"),
            ("bad password p@ss of anna", "bad password *** of ***"),
            ("(tok_77)", "(***)"),
            (
                "Authorization: Basic YW5uYTpwQHNz, ok",
                "Authorization: Basic ***, ok",
            ),
            (
                "a key99 and annabel are no secrets",
                "a key99 and annabel are no secrets",
            ),
        ] {
            assert_eq!(url.redact(text), redacted, "{text}");
        }
        let short = MediaUrl::new("rtmp://host/live/out");
        assert_eq!(short.redact("Socket I/O timed out"), "Socket I/O timed out");
    }
}
