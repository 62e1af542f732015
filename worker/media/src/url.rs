//! URLs of inputs and outputs, with their secrets hidden.

use std::fmt;

/// A URL that may hold credentials. `Display` and `Debug` hide them; only
/// [`MediaUrl::secret`] gives the whole text, for the program that connects.
#[derive(Clone, PartialEq, Eq)]
pub struct MediaUrl(String);

impl MediaUrl {
    /// Wraps a URL that the option parser has validated.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The URL with its credentials.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MediaUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(mut url) = url::Url::parse(&self.0) else {
            return f.write_str("[invalid url]");
        };
        if !url.username().is_empty() || url.password().is_some() {
            // Fails only for URLs without a host, which the option parser refuses.
            let _ = url.set_password(None);
            let _ = url.set_username("***");
        }
        // Stream keys and tokens travel in the query.
        if url.query().is_some() {
            url.set_query(Some("***"));
        }
        f.write_str(url.as_str())
    }
}

impl fmt::Debug for MediaUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
