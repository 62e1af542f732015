//! Why nobody answers. GStreamer says the same ("Generic error") of a host that is not known and of a
//! port that is closed; whoever has to fix it needs to know which.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use url::Url;

/// For name and address together: the next attempt is due soon.
const PATIENCE: Duration = Duration::from_secs(3);
const CONNECTING: Duration = Duration::from_secs(1);
const MOST_ADDRESSES: usize = 4;

/// Hands `tell` the reason why there is no connection to `url`, else `said`, within [`PATIENCE`].
pub(super) fn find(url: &str, said: String, tell: impl FnOnce(String) + Send + 'static) {
    let Some((host, port)) = address(url) else {
        return tell(said);
    };
    // A resolver cannot be interrupted, only left alone.
    let (found, reason) = mpsc::channel();
    thread::spawn(move || found.send(examine(&host, port)));
    thread::spawn(move || {
        let reason = reason.recv_timeout(PATIENCE).ok().flatten();
        tell(reason.unwrap_or(said));
    });
}

fn address(url: &str) -> Option<(String, u16)> {
    let url = Url::parse(url).ok()?;
    let usual = if url.scheme() == "rtsps" { 322 } else { 554 };
    Some((url.host_str()?.to_owned(), url.port().unwrap_or(usual)))
}

/// What is wrong with an address; nothing if somebody is there.
fn examine(host: &str, port: u16) -> Option<String> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = match (bare, port).to_socket_addrs() {
        Ok(addresses) => addresses.take(MOST_ADDRESSES),
        Err(error) => return Some(format!("unknown host {host}: {error}")),
    };
    let mut reason = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECTING) {
            Ok(_) => return None,
            Err(error) => reason = Some(format!("cannot connect to {host}:{port}: {error}")),
        }
    }
    reason
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_unknown_host_a_closed_port_and_a_server_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(examine("127.0.0.1", port), None);
        drop(listener);
        let refused = examine("127.0.0.1", port).unwrap();
        assert!(refused.contains("refused"), "{refused}");
        let unknown = examine("no-such-host.invalid", port).unwrap();
        assert!(
            unknown.starts_with("unknown host no-such-host.invalid"),
            "{unknown}"
        );
    }

    #[test]
    fn usual_ports_and_addresses_in_brackets() {
        assert_eq!(address("rtsp://u:p@cam/x"), Some(("cam".to_owned(), 554)));
        assert_eq!(address("rtsps://cam/x"), Some(("cam".to_owned(), 322)));
        assert_eq!(
            address("rtsp://[::1]:8554/x"),
            Some(("[::1]".to_owned(), 8554))
        );
    }
}
