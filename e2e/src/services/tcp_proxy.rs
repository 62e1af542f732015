//! A TCP proxy between two programs that can cut their connections or stall them.
//!
//! Each connection has two threads, one per direction, with one buffer each: what one end does not take
//! stays with the other's kernel. While it stalls nothing passes in either direction and nothing is lost;
//! both ends only see that the other says nothing.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::threads::lock;
use crate::wait::{self, Look};

/// Connections at once; one more is refused.
const MAX_CONNECTIONS: usize = 16;
/// What may be on its way in one direction.
const BUFFER: usize = 64 * 1024;
/// How often a thread that waits for bytes looks whether it has been cut.
const TICK: Duration = Duration::from_millis(10);
/// How long connecting to upstream may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// How long a cut may take.
const CUT_PATIENCE: Duration = Duration::from_secs(5);

/// How a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Both ends are told that the other has closed (FIN).
    Close,
    /// Both ends are told that the other knows of no connection (RST).
    Reset,
}

/// Forwards connections to one address.
#[derive(Debug)]
pub struct TcpProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    over: AtomicBool,
    stalled: AtomicBool,
    connections: Mutex<Vec<Arc<Connection>>>,
}

/// The sockets are shared, never duplicated, so that closing them ends the connection.
#[derive(Debug)]
struct Connection {
    client: TcpStream,
    upstream: TcpStream,
    cut: AtomicBool,
    /// Directions that are not over.
    open: AtomicU8,
}

impl TcpProxy {
    /// Starts a proxy from a free local port to `upstream`, which need not be there yet.
    ///
    /// # Errors
    /// When there is no port.
    pub fn start(upstream: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no port for a TCP proxy")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let acceptor = std::thread::Builder::new()
            .name("tcp-proxy".to_owned())
            .spawn(move || accept(&listener, upstream, &theirs))?;
        Ok(Self {
            address,
            shared,
            acceptor: Some(acceptor),
        })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections there are.
    pub fn connections(&self) -> usize {
        self.shared.connections().len()
    }

    /// Lets nothing pass from now on, in both directions. Connections stay, new ones are accepted.
    pub fn stall(&self) {
        self.shared.stalled.store(true, Ordering::Relaxed);
    }

    /// Lets everything pass again, first what was held.
    pub fn restore(&self) {
        self.shared.stalled.store(false, Ordering::Relaxed);
    }

    /// Cuts every connection there is and says how many; what is on its way is lost. New ones are
    /// accepted at once.
    ///
    /// # Errors
    /// When one does not end.
    pub fn cut(&self, how: Cut) -> Result<usize> {
        let cut: Vec<_> = self.shared.connections().clone();
        for connection in &cut {
            connection.cut(how);
        }
        // The last owner closes the sockets.
        let (count, ending): (_, Vec<_>) = (cut.len(), cut.iter().map(Arc::downgrade).collect());
        drop(cut);
        wait::until("cut connections to be gone", CUT_PATIENCE, || {
            let left = ending.iter().filter(|one| one.strong_count() > 0).count();
            Ok(Look::when(
                left == 0,
                format!("{left} of {count} are there"),
            ))
        })?;
        Ok(count)
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        for connection in self.shared.connections().iter() {
            connection.cut(Cut::Close);
        }
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        lock(&self.connections)
    }

    /// Waits while it stalls.
    fn pass(&self, connection: &Connection) {
        while self.stalled.load(Ordering::Relaxed) && !connection.is_cut() {
            std::thread::park_timeout(TICK);
        }
    }
}

impl Connection {
    fn cut(&self, how: Cut) {
        if how == Cut::Reset {
            for socket in [&self.client, &self.upstream] {
                // With nothing to linger for, closing resets.
                let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
            }
        }
        self.cut.store(true, Ordering::Relaxed);
    }

    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }
}

fn accept(listener: &TcpListener, upstream: SocketAddr, shared: &Arc<Shared>) {
    while !shared.over.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((client, _)) => {
                // Whatever goes wrong drops the socket, which is what the client end then sees.
                let _ = connect(client, upstream, shared);
            }
            Err(_) => std::thread::park_timeout(TICK),
        }
    }
}

fn connect(client: TcpStream, upstream: SocketAddr, shared: &Arc<Shared>) -> std::io::Result<()> {
    if shared.connections().len() >= MAX_CONNECTIONS {
        return Ok(());
    }
    let upstream = TcpStream::connect_timeout(&upstream, CONNECT_PATIENCE)?;
    for socket in [&client, &upstream] {
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(TICK))?;
        socket.set_write_timeout(Some(TICK))?;
    }
    let connection = Arc::new(Connection {
        client,
        upstream,
        cut: AtomicBool::new(false),
        open: AtomicU8::new(2),
    });
    shared.connections().push(Arc::clone(&connection));
    // Half of it without the other would be no connection.
    let back = spawn(&connection, shared, Direction::Back);
    let forth = back.and_then(|()| spawn(&connection, shared, Direction::Forth));
    if forth.is_err() {
        connection.cut(Cut::Close);
        forget(&connection, shared);
    }
    forth
}

#[derive(Clone, Copy)]
enum Direction {
    Forth,
    Back,
}

fn spawn(
    connection: &Arc<Connection>,
    shared: &Arc<Shared>,
    direction: Direction,
) -> std::io::Result<()> {
    let (connection, shared) = (Arc::clone(connection), Arc::clone(shared));
    let pump = move || {
        let (from, to) = match direction {
            Direction::Forth => (&connection.client, &connection.upstream),
            Direction::Back => (&connection.upstream, &connection.client),
        };
        if pump(from, to, &connection, &shared).is_none() {
            // An end is gone without a goodbye, or it was cut: so is the other direction.
            connection.cut(Cut::Close);
        }
        // The connection is over when both directions are.
        if connection.is_cut() || connection.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            forget(&connection, &shared);
        }
    };
    let thread = std::thread::Builder::new().name("tcp-proxy-pump".to_owned());
    thread.spawn(pump).map(drop)
}

fn forget(connection: &Arc<Connection>, shared: &Shared) {
    let mut connections = shared.connections();
    connections.retain(|known| !Arc::ptr_eq(known, connection));
}

/// Forwards one direction up to its end, which it passes on; `None` if it broke or was cut.
fn pump(
    mut from: &TcpStream,
    mut to: &TcpStream,
    connection: &Connection,
    shared: &Shared,
) -> Option<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = patiently(connection, || from.read(&mut buffer))?;
        shared.pass(connection);
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            let written = patiently(connection, || to.write(rest))?;
            rest = &rest[written..];
        }
        if read == 0 {
            return to.shutdown(Shutdown::Write).ok();
        }
    }
}

/// Tries until it works; `None` if it fails for good, or the connection was cut meanwhile.
fn patiently<T>(
    connection: &Connection,
    mut attempt: impl FnMut() -> std::io::Result<T>,
) -> Option<T> {
    while !connection.is_cut() {
        match attempt() {
            Ok(done) => return Some(done),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(_) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// Upstream, a proxy, and both ends of a connection over it.
    fn connected() -> (TcpProxy, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = TcpProxy::start(listener.local_addr().unwrap()).unwrap();
        let client = TcpStream::connect(proxy.address()).unwrap();
        let (upstream, _) = listener.accept().unwrap();
        for end in [&client, &upstream] {
            end.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        wait_connections(&proxy, 1);
        (proxy, client, upstream)
    }

    fn receive(mut end: &TcpStream, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        end.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn wait_connections(proxy: &TcpProxy, count: usize) {
        let look = || Ok(Look::when(proxy.connections() == count, "another number"));
        wait::until("connections", CUT_PATIENCE, look).unwrap();
    }

    #[test]
    fn bytes_pass_both_ways_whole_and_in_order() {
        let (proxy, mut client, mut upstream) = connected();
        let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let copy = sent.clone();
        let writer = std::thread::spawn(move || {
            client.write_all(&copy).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            client
        });
        let mut got = Vec::new();
        upstream.read_to_end(&mut got).unwrap();
        assert!(got == sent);
        // The other direction is open still.
        let client = writer.join().unwrap();
        upstream.write_all(b"back").unwrap();
        assert_eq!(receive(&client, 4), b"back");
        drop(upstream);
        wait_connections(&proxy, 0);
    }

    #[test]
    fn a_stalled_proxy_holds_everything_and_loses_nothing() {
        let (proxy, mut client, mut upstream) = connected();
        proxy.stall();
        client.write_all(b"forth").unwrap();
        upstream.write_all(b"back").unwrap();
        upstream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let error = upstream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert_eq!(proxy.connections(), 1);
        proxy.restore();
        assert_eq!(receive(&upstream, 5), b"forth");
        assert_eq!(receive(&client, 4), b"back");
    }

    #[test]
    fn a_cut_is_seen_at_both_ends_as_what_it_is() {
        let reset = Err(ErrorKind::ConnectionReset);
        for (how, seen) in [(Cut::Close, Ok(0)), (Cut::Reset, reset)] {
            for stalled in [false, true] {
                let (proxy, mut client, mut upstream) = connected();
                if stalled {
                    proxy.stall();
                }
                let started = Instant::now();
                assert_eq!(proxy.cut(how).unwrap(), 1);
                assert!(started.elapsed() < Duration::from_secs(1));
                for end in [&mut client, &mut upstream] {
                    let read = end.read(&mut [0]).map_err(|error| error.kind());
                    assert_eq!(read, seen, "{how:?}");
                }
                assert_eq!(proxy.cut(how).unwrap(), 0);
            }
        }
    }

    #[test]
    fn a_cut_ends_a_connection_whose_far_end_takes_nothing() {
        let (proxy, mut client, _upstream) = connected();
        client
            .set_write_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        while client.write(&[0; 4096]).is_ok() {}
        assert_eq!(proxy.cut(Cut::Reset).unwrap(), 1);
    }

    #[test]
    fn connections_are_bounded_and_a_far_end_that_is_not_there_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = TcpProxy::start(listener.local_addr().unwrap()).unwrap();
        let ends: Vec<_> = (0..=MAX_CONNECTIONS)
            .map(|_| TcpStream::connect(proxy.address()).unwrap())
            .collect();
        let mut last = &ends[MAX_CONNECTIONS];
        last.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(last.read(&mut [0]).unwrap(), 0);
        assert_eq!(proxy.connections(), MAX_CONNECTIONS);

        let address = listener.local_addr().unwrap();
        drop(listener);
        let proxy = TcpProxy::start(address).unwrap();
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        assert_eq!(proxy.connections(), 0);
    }
}
