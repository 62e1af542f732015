//! What the adapter needs to know, checked once.

use std::fmt;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use dub_engine::redact::{self, SHORTEST_SECRET};
use percent_encoding::percent_decode_str;
use sts_protocol::limits;
use url::Url;

/// What stands where a secret was.
pub(super) const HIDDEN: &str = "[redacted]";
/// A token is a secret wherever it stands, also within a word; a shorter one protects nothing.
const SHORTEST_TOKEN: usize = 3;
/// So much of a secret's beginning is hidden where a text is cut off within it.
const BEGUN: usize = 4;

/// A secret that no log line can show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `secret`.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself, for the wire.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// `config` and limits of `stream:init`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitParams {
    /// Language spoken in the input.
    pub source_language: String,
    /// Language of the dub.
    pub target_language: String,
    /// Voice of the dub.
    pub voice_profile: String,
    /// Nominal fragment length, ms; a hint.
    pub chunk_ms: u32,
    /// Hz. The protocol knows four rates and each fragment carries its own, so another rate is
    /// announced as the nearest of these.
    pub rate: u32,
    /// 1 or 2.
    pub channels: u32,
    /// How many fragments may be unanswered at once.
    pub max_inflight: u32,
    /// How long a fragment may stay unanswered, ms.
    pub timeout_ms: u32,
}

impl Default for InitParams {
    fn default() -> Self {
        Self {
            source_language: limits::DEFAULT_SOURCE_LANGUAGE.to_owned(),
            target_language: limits::DEFAULT_TARGET_LANGUAGE.to_owned(),
            voice_profile: limits::DEFAULT_VOICE_PROFILE.to_owned(),
            chunk_ms: limits::DEFAULT_CHUNK_DURATION_MS,
            rate: limits::DEFAULT_SAMPLE_RATE_HZ,
            channels: limits::DEFAULT_CHANNELS,
            max_inflight: limits::DEFAULT_MAX_INFLIGHT,
            timeout_ms: limits::DEFAULT_TIMEOUT_MS,
        }
    }
}

/// One segment's audio on its way out.
#[derive(Clone)]
pub struct OutgoingFragment {
    /// UUID.
    pub id: String,
    /// 0-based, from 0 again after every init.
    pub sequence: u64,
    /// Start on the output timeline, ns.
    pub pts_ns: i64,
    /// Start on the input's own timeline, ns.
    pub source_pts_ns: i64,
    /// Length, ms.
    pub duration_ms: u64,
    /// Hz.
    pub sample_rate: u32,
    /// 1 or 2.
    pub channels: u32,
    /// AAC in MP4.
    pub m4a: Bytes,
}

/// Where the service is, who we are, and how long anything may take.
///
/// Deaths are noticed within: `stuck_timeout` when the peer takes nothing; the handshake's ping
/// interval and timeout plus 300 ms when it is silent; at once in every other case.
#[derive(Clone)]
pub struct StsClientConfig {
    /// `http`, `https`, `ws` or `wss`. A path is what comes before `/socket.io/`, or all of it;
    /// credentials go into the `Authorization` header.
    pub url: String,
    /// `X-Stream-ID`, and `stream_id` of every message.
    pub stream_id: String,
    /// `X-Worker-ID`.
    pub worker_id: String,
    /// Sent as the Socket.IO `auth` payload.
    pub token: Option<Secret>,
    /// From `connect` to the joined namespace.
    pub connect_timeout: Duration,
    /// Without the peer taking a single byte of a message; longer means that the link is dead.
    pub stuck_timeout: Duration,
    /// Silence that is put up with at most, whatever the handshake says.
    pub max_silence: Duration,
    /// Certificates that are trusted besides the system's.
    pub ca: Ca,
    /// For what is queued and the goodbye to leave, once a link is to be closed.
    pub close_timeout: Duration,
    /// What `stream:init` asks for.
    pub init: InitParams,
}

impl StsClientConfig {
    /// A configuration with the protocol's times.
    pub fn new(
        url: impl Into<String>,
        stream_id: impl Into<String>,
        worker_id: impl Into<String>,
    ) -> Self {
        Self {
            url: url.into(),
            stream_id: stream_id.into(),
            worker_id: worker_id.into(),
            token: None,
            connect_timeout: Duration::from_secs(10),
            // Services are known to stand still for 15 s.
            stuck_timeout: Duration::from_secs(20),
            max_silence: Duration::from_mins(5),
            ca: Ca::default(),
            close_timeout: Duration::from_millis(500),
            init: InitParams::default(),
        }
    }

    /// Checks what the wire depends on and returns the URL to connect to.
    pub(super) fn check(&self) -> Result<Url, StsConfigError> {
        let url = Url::parse(&self.url).map_err(|_| StsConfigError::Url("not a URL"))?;
        if !matches!(url.scheme(), "http" | "https" | "ws" | "wss") {
            return Err(StsConfigError::Url(
                "the scheme must be http, https, ws or wss",
            ));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(StsConfigError::Url("there is no host"));
        }
        for (header, value) in [
            (limits::STREAM_ID_HEADER, &self.stream_id),
            (limits::WORKER_ID_HEADER, &self.worker_id),
        ] {
            sts_protocol::check_header_id(header, value)
                .map_err(|_| StsConfigError::Header(header))?;
        }
        Ok(url)
    }

    /// Removes what must not be seen from text that goes into a fact.
    pub(super) fn redact(&self, text: &str) -> String {
        let mut secrets: Vec<String> = Vec::new();
        let mut text = text.to_owned();
        if let Some(token) = self
            .token
            .as_ref()
            .filter(|it| it.expose().len() >= SHORTEST_TOKEN)
        {
            text = text.replace(token.expose(), HIDDEN);
        }
        if let Ok(url) = Url::parse(&self.url) {
            let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
            let user = url.username();
            let password = url.password().unwrap_or_default();
            if !(user.is_empty() && password.is_empty()) {
                let login = format!("{}:{}", decoded(user), decoded(password));
                secrets.push(BASE64_STANDARD.encode(login));
            }
            // A user by itself is a token.
            let secret = url.password().unwrap_or(user);
            secrets.extend([secret.to_owned(), decoded(secret)]);
            let query = url.query().unwrap_or_default();
            secrets.push(query.to_owned());
            for pair in query.split('&') {
                let value = pair.split_once('=').map_or(pair, |(_, value)| value);
                secrets.extend([value.to_owned(), decoded(value)]);
            }
        }
        secrets.retain(|secret| secret.len() >= SHORTEST_SECRET);
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        let hide = |text: String, secret: &String| redact::hide(&text, secret, HIDDEN);
        let text = secrets.iter().fold(text, hide);
        let token = self.token.iter().map(Secret::expose);
        let all = token.chain(secrets.iter().map(String::as_str));
        all.fold(text, |text, secret| hide_begun(&text, secret))
    }
}

/// Hides the beginning of a secret where the text was cut off within it, which an ellipsis says.
fn hide_begun(text: &str, secret: &str) -> String {
    let mut parts = text.split('…').peekable();
    let mut out = String::with_capacity(text.len());
    while let Some(part) = parts.next() {
        let cut = parts.peek().is_some();
        let begins = |len: &usize| {
            secret
                .get(..*len)
                .is_some_and(|begun| part.ends_with(begun))
        };
        match (BEGUN..secret.len()).rev().find(begins).filter(|_| cut) {
            Some(len) => out.extend([&part[..part.len() - len], HIDDEN]),
            None => out.push_str(part),
        }
        if cut {
            out.push('…');
        }
    }
    out
}

impl fmt::Debug for StsClientConfig {
    // The URL may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StsClientConfig")
            .field("stream_id", &self.stream_id)
            .field("worker_id", &self.worker_id)
            .field("token", &self.token)
            .field("init", &self.init)
            .finish_non_exhaustive()
    }
}

/// Certificates that are trusted.
#[derive(Clone, Default)]
pub struct Ca(pub(super) Vec<native_tls::Certificate>);

impl Ca {
    /// The certificates of a PEM file.
    ///
    /// # Errors
    /// When there is none in it.
    pub fn from_pem(pem: &[u8]) -> Result<Self, String> {
        match native_tls::Certificate::stack_from_pem(pem) {
            Ok(found) if !found.is_empty() => Ok(Self(found)),
            Ok(_) => Err("there is no certificate in it".to_owned()),
            Err(error) => Err(format!("not certificates in PEM: {error}")),
        }
    }
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} certificates", self.0.len())
    }
}

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StsConfigError {
    /// The URL cannot be used.
    #[error("STS service URL: {0}")]
    Url(&'static str),
    /// An id does not fit its header.
    #[error("{0}: needs 1 to 64 characters of [A-Za-z0-9_-]")]
    Header(&'static str),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_service_quotes_of_ours_is_hidden() {
        let url = "https://user:p%40ss@h/?api_key=abcd%2D1234&v=2";
        let mut config = StsClientConfig::new(url, "s", "w");
        config.token = Some(Secret::new("t0ken"));
        for (text, hidden) in [
            ("t0ken expired", "[redacted] expired"),
            ("p%40ss and p@ss", "[redacted] and [redacted]"),
            ("Basic dXNlcjpwQHNz", "Basic [redacted]"),
            ("/?api_key=abcd%2D1234&v=2", "/?[redacted]"),
            ("unknown key abcd-1234", "unknown key [redacted]"),
            ("user, v=2, t0ken7", "user, v=2, [redacted]7"),
            ("p@ssing by", "p@ssing by"),
            // Escaped, for a URL and in JSON.
            ("key%3Dabcd-1234%26", "key%3D[redacted]%26"),
            (r"\u0027abcd-1234\u0027", r"\u0027[redacted]\u0027"),
            (r"\u003cabcd-1234\u003e", r"\u003c[redacted]\u003e"),
        ] {
            assert_eq!(config.redact(text), hidden, "{text}");
        }
        // A text is cut before it comes here, perhaps within a secret.
        let token: String = (0..200).map(|n| char::from(b'a' + n % 26)).collect();
        config.token = Some(Secret::new(token.clone()));
        let cut = sts_protocol::heard::clip(&format!("no: {token}"), 100);
        assert!(cut.ends_with('…'), "{cut}");
        assert_eq!(
            config.redact(&format!("{cut}: why?")),
            "no: [redacted]…: why?"
        );
        assert_eq!(config.redact("abcd is no secret"), "abcd is no secret");
        let config = StsClientConfig::new("https://tok-77@h", "s", "w");
        assert_eq!(config.redact("no tok-77"), "no [redacted]");
        assert_eq!(config.redact("Basic dG9rLTc3Og=="), "Basic [redacted]");
    }
}
