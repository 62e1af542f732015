//! Where an RTMP URL points: host, application, stream.

use std::fmt;

use percent_encoding::percent_decode_str;
use url::form_urlencoded;

use super::MediaUrl;

/// An RTMP URL taken apart, as `rtmp2sink` wants it.
///
/// The application is the path up to its last part, which names the stream together with the query
/// (`rtmp2sink` itself splits at the last `/` of both, so a `/` in a key would end up in the
/// application). Path and query go out as they were written.
#[derive(Clone, PartialEq, Eq)]
pub struct RtmpTarget {
    /// The whole of it, to hide what is secret in the sink's words.
    pub url: MediaUrl,
    /// `rtmps`.
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// Default 1935, with TLS 443.
    pub port: u16,
    /// `live` or `live/match7`.
    pub application: String,
    /// Stream name with its query.
    pub stream: String,
    /// User and password, for a server that asks for them by Adobe's method.
    pub login: Option<(String, String)>,
}

impl fmt::Debug for RtmpTarget {
    /// Without what may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.host, self.port, self.application)
    }
}

impl RtmpTarget {
    /// Takes `url` apart; `None` if it is no RTMP URL with host, application and stream.
    ///
    /// User and password also become `user=` and `pass=` of the query, because `MediaMTX` takes them
    /// from there and asks in no other way.
    pub fn parse(url: &str) -> Option<Self> {
        let parsed = url::Url::parse(url).ok()?;
        let tls = match parsed.scheme() {
            "rtmp" => false,
            "rtmps" => true,
            _ => return None,
        };
        let host = parsed.host_str()?.trim_matches(['[', ']']).to_owned();
        // As written: the parsed URL has normalised path and query.
        let (_, rest) = url.split_once("://")?;
        let (authority, path_and_query) = rest.split_once('/')?;
        if authority.contains('?') {
            return None;
        }
        let (path, query) = match path_and_query.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path_and_query, None),
        };
        let path = path.trim_end_matches('/');
        let (application, name) = path.rsplit_once('/')?;
        let application = application.trim_matches('/');
        if host.is_empty() || application.is_empty() || name.is_empty() {
            return None;
        }
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let login = (!parsed.username().is_empty()).then(|| {
            let password = parsed.password().unwrap_or_default();
            (decode(parsed.username()), decode(password))
        });
        let mut query = query.map(str::to_owned);
        let named = |query: &String| query.split('&').any(|pair| pair.starts_with("user="));
        if let Some((user, password)) = &login
            && !query.as_ref().is_some_and(named)
        {
            let pair = form_urlencoded::Serializer::new(String::new())
                .append_pair("user", user)
                .append_pair("pass", password)
                .finish();
            query = Some(query.map_or(pair.clone(), |query| format!("{query}&{pair}")));
        }
        Some(Self {
            url: MediaUrl::output(url),
            tls,
            host,
            port: parsed.port().unwrap_or(if tls { 443 } else { 1935 }),
            application: application.to_owned(),
            stream: query.map_or(name.to_owned(), |query| format!("{name}?{query}")),
            login,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_hidden_as_it_is_sent() {
        let target = RtmpTarget::parse("rtmp://anna:p%20w!rd@h/a/key1").unwrap();
        assert!(target.stream.contains("p+w%21rd"), "{}", target.stream);
        let said = target.url.redact(&format!("no {} for you", target.stream));
        assert!(!said.contains("p+w%21rd"), "{said}");
    }

    #[test]
    fn a_url_is_taken_apart_as_written() {
        for (url, host, port, application, stream) in [
            ("rtmp://h/live/out", "h", 1935, "live", "out"),
            ("rtmp://h:19350/live/t/out/", "h", 19_350, "live/t", "out"),
            ("rtmps://[::1]/app/key", "::1", 443, "app", "key"),
            (
                "rtmp://h/live/k?a=b/c+d%2Fe&f=/",
                "h",
                1935,
                "live",
                "k?a=b/c+d%2Fe&f=/",
            ),
            ("rtmp://h/live/k%20y+z", "h", 1935, "live", "k%20y+z"),
            ("rtmp://h/live/k?a=b?c#d", "h", 1935, "live", "k?a=b?c#d"),
            ("rtmp://H/live/../k?x=é", "H", 1935, "live/..", "k?x=é"),
        ] {
            let target = RtmpTarget::parse(url).unwrap();
            assert!(
                target.host.eq_ignore_ascii_case(host),
                "{url}: {}",
                target.host
            );
            assert_eq!(target.port, port, "{url}");
            assert_eq!(target.application, application, "{url}");
            assert_eq!(target.stream, stream, "{url}");
            assert_eq!(target.login, None, "{url}");
        }
    }

    #[test]
    fn user_and_password_are_told_in_both_ways() {
        for (url, stream, user, password) in [
            ("rtmp://u:p@h/a/s", "s?user=u&pass=p", "u", "p"),
            (
                "rtmp://u:p%40%2F+%26@h/a/s?k=1",
                "s?k=1&user=u&pass=p%40%2F%2B%26",
                "u",
                "p@/+&",
            ),
            ("rtmp://u@h/a/s", "s?user=u&pass=", "u", ""),
            (
                "rtmp://u:p@h/a/s?user=x&pass=y",
                "s?user=x&pass=y",
                "u",
                "p",
            ),
        ] {
            let target = RtmpTarget::parse(url).unwrap();
            assert_eq!(target.stream, stream, "{url}");
            assert_eq!(
                target.login,
                Some((user.to_owned(), password.to_owned())),
                "{url}"
            );
        }
    }

    #[test]
    fn what_names_no_stream_is_no_target() {
        for url in [
            "rtmp://h/only-app",
            "rtmp://h/app/",
            "rtmp://h//s",
            "rtmp://h",
            "rtmp:///app/s",
            "http://h/app/s",
            "rtmp://h?x=/app/s",
            "",
        ] {
            assert!(RtmpTarget::parse(url).is_none(), "{url}");
        }
    }
}
