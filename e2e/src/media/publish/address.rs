//! Where a clip is published to, and why it could not be.

use rtsp_types::Url;

/// Why a clip could not be published. Each message is one sentence for a person, without credentials.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The address is not one that can be published to.
    #[error("cannot publish to '{url}': {reason}")]
    BadUrl {
        /// The address as given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No connection.
    #[error("cannot connect to {url}: {reason}")]
    Connect {
        /// The address.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The server said no.
    #[error("{url} refused {method}: {status}{hint}")]
    Refused {
        /// The address.
        url: String,
        /// The request it refused.
        method: &'static str,
        /// Code and words of the answer.
        status: String,
        /// What to do about it, if that is known.
        hint: &'static str,
    },
    /// The server did not keep to the protocol, or not in time.
    #[error("{url} {what}")]
    Server {
        /// The address.
        url: String,
        /// What it did or failed to do.
        what: String,
    },
    /// Nobody said `go`.
    #[error("{0}")]
    NotStarted(String),
}

/// An RTSP address; shown without its credentials.
#[derive(Debug, Clone)]
pub struct RtspUrl {
    /// Without credentials, as it goes into requests.
    pub(super) plain: Url,
    /// User and password.
    pub(super) credentials: Option<(String, String)>,
}

impl std::fmt::Display for RtspUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.plain.fmt(f)
    }
}

impl std::str::FromStr for RtspUrl {
    type Err = PublishError;

    fn from_str(text: &str) -> Result<Self, PublishError> {
        let bad = |reason: &str| {
            // What stands before an @ may be a password.
            let shown = text
                .rsplit_once('@')
                .map_or(text.to_owned(), |(_, rest)| format!("…@{rest}"));
            PublishError::BadUrl {
                url: shown,
                reason: reason.to_owned(),
            }
        };
        let mut plain: Url = text.parse().map_err(|_| bad("it is not a URL"))?;
        if plain.scheme() != "rtsp" {
            return Err(bad("it must begin with rtsp://"));
        }
        if plain.host_str().is_none_or(str::is_empty) {
            return Err(bad("it names no host"));
        }
        let decode = |text: &str| {
            let form = format!("x={}", text.replace('+', "%2B"));
            url::form_urlencoded::parse(form.as_bytes())
                .next()
                .map_or_else(String::new, |(_, value)| value.into_owned())
        };
        let credentials = (!plain.username().is_empty()).then(|| {
            (
                decode(plain.username()),
                decode(plain.password().unwrap_or("")),
            )
        });
        let _ = plain.set_username("");
        let _ = plain.set_password(None);
        Ok(Self { plain, credentials })
    }
}
