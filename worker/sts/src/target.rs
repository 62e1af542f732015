//! What a URL asks for: paths, the query, and where redirects may lead.

use sts_protocol::heard::clip;
use url::{Position, Url};

const SOCKET_IO: &str = "socket.io";
/// What the transport says of itself in a query. A URL copied from somewhere may have them too, and
/// python-engineio refuses what comes twice.
const TRANSPORTS_OWN: [&str; 5] = ["EIO", "transport", "sid", "t", "b64"];

/// Paths to ask for, in this order: a path is a prefix, or it is the whole.
pub(super) fn requests(url: &Url) -> Vec<String> {
    let path = url.path().trim_end_matches('/');
    let mut query: Vec<&str> = pairs(url).collect();
    query.push("EIO=4&transport=websocket");
    let query = query.join("&");
    if path.ends_with(SOCKET_IO) {
        return vec![format!("{}?{query}", url.path())];
    }
    let mut all = vec![format!("{path}/{SOCKET_IO}/?{query}")];
    if !path.is_empty() {
        all.push(format!("{}?{query}", url.path()));
    }
    all
}

/// The query without what the transport adds by itself.
fn pairs(url: &Url) -> impl Iterator<Item = &str> {
    let all = url.query().unwrap_or_default().split('&');
    all.filter(|pair| !pair.is_empty() && !TRANSPORTS_OWN.contains(&key(pair)))
}

fn key(pair: &str) -> &str {
    pair.split('=').next().unwrap_or_default()
}

/// Where a redirect leads, if it may be followed: the same host, and never away from TLS. What is
/// sent along is meant for nobody else.
pub(super) fn follow(from: &Url, to: &str) -> Result<Url, String> {
    let named = |why: &str| {
        let to = Url::parse(to).map_or_else(
            |_| clip(to, 200),
            |to| clip(&to[Position::BeforeScheme..Position::AfterPath], 200),
        );
        format!("redirected to {to}, {why}; set it as URL")
    };
    let mut next = from.join(to).map_err(|_| named("which is no URL"))?;
    let tls = |url: &Url| matches!(url.scheme(), "https" | "wss");
    if !matches!(next.scheme(), "http" | "https" | "ws" | "wss") {
        return Err(named("which is no HTTP"));
    }
    if next.host() != from.host() || (tls(from) && !tls(&next)) {
        return Err(named("which is not followed by itself"));
    }
    // The query of ours may come back in it, or something instead of it, or not.
    let missing = |pair: &&str| pairs(&next).all(|other| key(other) != key(pair));
    let query: Vec<&str> = pairs(&next).chain(pairs(from).filter(missing)).collect();
    let query = query.join("&");
    next.set_query((!query.is_empty()).then_some(&query));
    // Fails for URLs without a host only.
    let _ = next.set_username(from.username());
    let _ = next.set_password(from.password());
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn a_path_is_a_prefix_or_the_whole() {
        const END: &str = "EIO=4&transport=websocket";
        for (given, expected) in [
            ("http://h", vec!["/socket.io/?"]),
            ("http://h/?key=1", vec!["/socket.io/?key=1&"]),
            // Copied from a browser.
            (
                "http://h/socket.io/?EIO=4&transport=websocket&sid=x&t=O9&b64=1",
                vec!["/socket.io/?"],
            ),
            (
                "http://h/a?EIO=3&key=1&&transport=polling&to=de",
                vec!["/a/socket.io/?key=1&to=de&", "/a?key=1&to=de&"],
            ),
            ("http://h/sts", vec!["/sts/socket.io/?", "/sts?"]),
            (
                "http://h/a/b/?x=y",
                vec!["/a/b/socket.io/?x=y&", "/a/b/?x=y&"],
            ),
            ("http://h/dub/socket.io/", vec!["/dub/socket.io/?"]),
            ("http://h/dub/socket.io", vec!["/dub/socket.io?"]),
        ] {
            let expected: Vec<_> = expected.iter().map(|path| format!("{path}{END}")).collect();
            assert_eq!(requests(&url(given)), expected, "{given}");
        }
    }

    #[test]
    fn redirects_lead_to_the_same_host_and_never_away_from_tls() {
        let from = url("http://user:pass@h:80/?key=1");
        let to = |from: &Url, to: &str| follow(from, to);
        assert_eq!(
            to(&from, "https://h/socket.io/?EIO=4").unwrap().as_str(),
            "https://user:pass@h/socket.io/?key=1"
        );
        assert_eq!(
            to(&from, "/x/").unwrap().as_str(),
            "http://user:pass@h/x/?key=1"
        );
        // A balancer's own word counts, ours is added where it has none, the transport's is not.
        for (location, query) in [
            (
                "/socket.io/?EIO=4&transport=websocket&node=b",
                "node=b&key=1",
            ),
            ("/socket.io/?key=2&sid=y&node=b", "key=2&node=b"),
            ("/socket.io/?key=1&EIO=4&transport=websocket", "key=1"),
        ] {
            let next = to(&from, location).unwrap();
            assert_eq!(next.query(), Some(query), "{location}");
        }
        let bare = url("http://h/?EIO=4");
        assert_eq!(to(&bare, "/x/?t=1").unwrap().as_str(), "http://h/x/");
        let named = to(&from, "https://other/socket.io/?token=s").unwrap_err();
        assert!(
            named.contains("https://other/socket.io/, ") && !named.contains("token"),
            "{named}"
        );
        assert!(to(&url("https://h"), "http://h/").is_err());
        assert!(to(&from, "ftp://h/").is_err());
    }
}
