//! From a host's name to a TCP connection: every address, one a little later than the one before.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use url::Url;

/// How long an address may be silent before the next is tried beside it (RFC 8305).
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;
/// The kernel's send buffer.
const SEND_BUFFER: u32 = 256 * 1024;

/// All addresses of the host, the two families by turns.
pub(super) async fn resolve(url: &Url, deadline: Instant) -> Result<VecDeque<SocketAddr>, String> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_or_known_default().ok_or("the URL has no port")?;
    let found = timeout_at(deadline, lookup_host((host, port))).await;
    let found = found.map_err(|_| format!("{host}: its address is not found in time"))?;
    let found = found.map_err(|error| format!("{host}: {error}"))?;
    let all = by_turns(found.take(64));
    if all.is_empty() {
        return Err(format!("{host} has no address"));
    }
    Ok(all)
}

/// Each address once, the two families by turns, beginning with that of the first.
fn by_turns(found: impl Iterator<Item = SocketAddr>) -> VecDeque<SocketAddr> {
    let (mut these, mut others): (VecDeque<_>, VecDeque<_>) = (VecDeque::new(), VecDeque::new());
    for address in found {
        let first = these.front().unwrap_or(&address);
        let same = SocketAddr::is_ipv6(first) == address.is_ipv6();
        let list = if same { &mut these } else { &mut others };
        if !list.contains(&address) {
            list.push_back(address);
        }
    }
    let mut all = VecDeque::new();
    while all.len() < MAX_ADDRESSES {
        let before = all.len();
        all.extend(these.pop_front().into_iter().chain(others.pop_front()));
        if all.len() == before {
            break;
        }
    }
    all
}

/// What has come of dialling.
pub(super) struct Dialled {
    pub(super) found: Option<(TcpStream, SocketAddr)>,
    /// Addresses that may still be tried.
    pub(super) left: VecDeque<SocketAddr>,
    /// What the others said.
    pub(super) errors: Vec<String>,
}

/// Connects to the addresses one beside the other, each a little later than the one before.
pub(super) async fn first_to_connect(
    mut addresses: VecDeque<SocketAddr>,
    deadline: Instant,
) -> Dialled {
    let mut errors = vec![];
    let mut attempts = FuturesUnordered::new();
    let mut tried: Vec<SocketAddr> = vec![];
    let start = Instant::now();
    let found = loop {
        if attempts.is_empty() || !addresses.is_empty() {
            let Some(address) = addresses.pop_front() else {
                break None;
            };
            tried.push(address);
            attempts.push(async move { (address, connect(address).await) });
        }
        let next = if addresses.is_empty() {
            deadline
        } else {
            deadline.min(Instant::now() + STAGGER)
        };
        match timeout_at(next, attempts.next()).await {
            Ok(Some((address, Ok(stream)))) => {
                // Slower ones get another chance should this one not be what it looks like.
                addresses.extend(tried.into_iter().filter(|other| *other != address));
                break Some((stream, address));
            }
            Ok(Some((address, Err(error)))) => {
                tried.retain(|other| *other != address);
                errors.push(format!("{address}: {error}"));
            }
            Ok(None) => {}
            Err(_) if next < deadline => {}
            Err(_) => {
                let ms = start.elapsed().as_millis();
                let silent = tried.into_iter().chain(std::mem::take(&mut addresses));
                errors.extend(silent.map(|address| format!("{address}: no answer within {ms} ms")));
                break None;
            }
        }
    };
    Dialled {
        found,
        left: addresses,
        errors,
    }
}

async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A full buffer wakes its writer when a third is free: on a slow link, with the megabytes that
    // the kernel would take, that looks like a peer that takes nothing.
    let _ = socket.set_send_buffer_size(SEND_BUFFER);
    socket.connect(address).await
}

#[cfg(test)]
pub(super) mod tests {
    use rustix::net::sockopt::socket_send_buffer_size;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    /// A listener on an address of its own, whose queue holds one connection.
    pub(crate) fn bound(ip: &str) -> (TcpListener, SocketAddr) {
        let socket = TcpSocket::new_v4().unwrap();
        socket
            .bind(SocketAddr::new(ip.parse().unwrap(), 0))
            .unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// An address where nobody listens.
    pub(crate) fn closed(ip: &str) -> SocketAddr {
        bound(ip).1
    }

    /// An address whose queue is full while what comes with it is there: whoever connects hears
    /// nothing any more.
    pub(crate) async fn full(ip: &str) -> ((TcpListener, Vec<TcpStream>), SocketAddr) {
        let (listener, address) = bound(ip);
        let mut waiting = vec![];
        let patience = Duration::from_millis(100);
        while let Ok(Ok(stream)) = timeout(patience, TcpStream::connect(address)).await {
            waiting.push(stream);
        }
        ((listener, waiting), address)
    }

    #[tokio::test]
    async fn one_that_is_slow_to_connect_is_left_for_later_and_given_up_at_the_deadline() {
        let (_full, hangs) = full("127.0.0.20").await;
        let refuses = closed("127.0.0.21");
        let (_listener, works) = bound("127.0.0.22");
        let deadline = Instant::now() + Duration::from_secs(5);
        let dialled = first_to_connect([hangs, refuses, works].into(), deadline).await;
        let (stream, address) = dialled.found.unwrap();
        assert_eq!((address, dialled.left), (works, [hangs].into()));
        let [error] = &dialled.errors[..] else {
            panic!("{:?}", dialled.errors)
        };
        assert!(error.starts_with("127.0.0.21:") && error.contains("refused"));
        // Linux says twice of it, and has a limit of its own.
        let buffer = socket_send_buffer_size(&stream).unwrap();
        assert!((256 << 10..=512 << 10).contains(&buffer), "{buffer}");

        let deadline = Instant::now() + Duration::from_millis(300);
        let dialled = first_to_connect([hangs].into(), deadline);
        let dialled = timeout(Duration::from_secs(5), dialled).await.unwrap();
        assert!(Instant::now() >= deadline && dialled.found.is_none());
        let [error] = &dialled.errors[..] else {
            panic!("{:?}", dialled.errors)
        };
        assert!(error.starts_with("127.0.0.20:") && error.contains("no answer within"));
    }

    #[test]
    fn the_families_take_turns() {
        let address = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 80);
        let found = ["::1", "::2", "::1", "10.0.0.1", "::3", "10.0.0.2"].map(address);
        let turns = ["::1", "10.0.0.1", "::2", "10.0.0.2", "::3"].map(address);
        assert_eq!(Vec::from(by_turns(found.into_iter())), turns);
        let many = (1..30).map(|port| SocketAddr::new("10.0.0.1".parse().unwrap(), port));
        assert_eq!(by_turns(many).len(), MAX_ADDRESSES);
        assert_eq!(by_turns([].into_iter()).len(), 0);
    }
}
