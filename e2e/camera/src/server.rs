//! The camera on the network: connections, requests, and the thread that plays to each reader.

mod connection;
mod requests;

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::clip::Clip;
use crate::description::Description;
use crate::manner::Manner;
use crate::sent::Sent;
use connection::Connection;

/// Connections at once; one more is refused.
const MAX_CONNECTIONS: usize = 32;
/// How often a thread that waits looks whether it is over.
const TICK: Duration = Duration::from_millis(20);

/// Something that happened, for whoever started the camera.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// It can be read.
    Listening { address: SocketAddr },
    /// A request was answered.
    Request {
        method: String,
        /// The answer's code.
        status: u16,
    },
    /// The first packet of a session was sent.
    Playing {
        /// The number of the session, from 0.
        session: usize,
        /// Wall time, milliseconds since the Unix epoch.
        unix_ms: f64,
    },
    /// A session that played has ended.
    Ended {
        /// The number of the session.
        session: usize,
        /// Pictures that were sent to it.
        pictures: usize,
        /// Audio frames that were sent to it.
        audio_frames: u64,
        /// Why it ended.
        why: String,
    },
}

/// Told of every event, from the camera's threads.
pub type Tell = Arc<dyn Fn(&Event) + Send + Sync>;

/// A camera that is on. It is switched off when this is dropped.
pub struct Camera {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    clip: Clip,
    manner: Manner,
    description: Description,
    seed: u64,
    nonce: String,
    tell: Tell,
    over: AtomicBool,
    /// The first packet may be sent.
    go: AtomicBool,
    /// The clip has been played to its end: there is nothing to see any more.
    finished: AtomicBool,
    /// When the clip began, and its wall time in nanoseconds since the Unix epoch.
    begun: Mutex<Option<(Instant, i128)>>,
    connections: Mutex<Vec<Weak<Connection>>>,
    /// Sessions that played.
    played: AtomicUsize,
    sent: Mutex<Sent>,
}

impl Camera {
    /// Switches on a camera that shows `clip` (the splices of `manner` are opened here) at an address;
    /// port 0 is a free one.
    ///
    /// # Errors
    /// When the address is taken, or the manner asks for what cannot be.
    pub fn start(listen: SocketAddr, mut clip: Clip, manner: Manner, tell: Tell) -> Result<Self> {
        for splice in &manner.splices {
            clip.splice(splice.at, Clip::open(&splice.clip, None)?)?;
        }
        let description = Description::new(&clip, &manner)?;
        let listener =
            TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let seed = if manner.seed == 0 {
            rand::random()
        } else {
            manner.seed
        };
        let shared = Arc::new(Shared {
            clip,
            description,
            seed,
            nonce: format!("{:016x}", rand::random::<u64>()),
            tell,
            over: AtomicBool::new(false),
            go: AtomicBool::new(!manner.session.hold),
            finished: AtomicBool::new(false),
            begun: Mutex::new(None),
            connections: Mutex::new(Vec::new()),
            played: AtomicUsize::new(0),
            sent: Mutex::new(Sent::default()),
            manner,
        });
        let theirs = Arc::clone(&shared);
        let acceptor = std::thread::Builder::new()
            .name("camera".to_owned())
            .spawn(move || accept(&listener, &theirs))?;
        (shared.tell)(&Event::Listening { address });
        Ok(Self {
            address,
            shared,
            acceptor: Some(acceptor),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends from now on, if it was to hold its first packet.
    pub fn go(&self) {
        self.shared.go.store(true, Ordering::Relaxed);
    }

    /// What it sent so far.
    pub fn sent(&self) -> Sent {
        lock(&self.shared.sent).clone()
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        for connection in lock(&self.shared.connections)
            .iter()
            .filter_map(Weak::upgrade)
        {
            connection.end("the camera was switched off", false);
        }
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.over.load(Ordering::Relaxed) {
        let Ok((socket, _)) = listener.accept() else {
            std::thread::sleep(TICK);
            continue;
        };
        let mut connections = lock(&shared.connections);
        connections.retain(|known| known.strong_count() > 0);
        if connections.len() >= MAX_CONNECTIONS {
            continue;
        }
        // What fails here drops the socket, which is what the reader then sees.
        let Ok(connection) = Connection::new(socket) else {
            continue;
        };
        connections.push(Arc::downgrade(&connection));
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new().name("camera-reader".to_owned());
        let _ = thread.spawn(move || requests::serve(&connection, &shared));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unix_nanos() -> i128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as i128)
}
