//! What the adapter needs to know, checked once.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use sts_protocol::limits;
use url::Url;

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
        f.write_str("[redacted]")
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

impl fmt::Debug for OutgoingFragment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutgoingFragment")
            .field("id", &self.id)
            .field("sequence", &self.sequence)
            .field("m4a", &format_args!("<{} bytes>", self.m4a.len()))
            .finish_non_exhaustive()
    }
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
        let mut text = text.to_owned();
        let mut hide = |secret: &str| {
            // A very short secret would shred the text; such a one protects nothing.
            if secret.len() >= 3 {
                text = text.replace(secret, "[redacted]");
            }
        };
        if let Some(token) = &self.token {
            hide(token.expose());
        }
        if let Ok(url) = Url::parse(&self.url) {
            url.password().into_iter().for_each(&mut hide);
            url.query().into_iter().for_each(&mut hide);
        }
        text
    }
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
