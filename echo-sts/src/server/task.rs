//! The task that owns the service: facts in, orders carried out, one at a time.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use socketioxide::extract::SocketRef;
use sts_protocol::{Direction, JournalEntry, event};
use tokio::sync::{mpsc, oneshot};

use super::listener::Transport;
use crate::{
    audio::render,
    journal::Journal,
    service::{Fact, LinkId, Order, Service},
    session::At,
};

/// Time between a disconnect packet and the end of the transport.
pub(super) const LINGER: Duration = Duration::from_millis(100);
/// The longest the task sleeps without looking; only bounds arithmetic.
const LONGEST_SLEEP: Duration = Duration::from_hours(1);

/// What reaches the task.
pub(super) enum Input {
    /// May a client with this stream header connect?
    Knock {
        stream: Option<String>,
        reply: oneshot::Sender<bool>,
    },
    /// A client's socket; its fact follows.
    Socket {
        link: LinkId,
        socket: SocketRef,
        transport: Transport,
    },
    /// Something happened.
    Fact { when: Instant, fact: Box<Fact> },
}

impl Input {
    fn now(fact: Fact) -> Self {
        Self::Fact {
            when: Instant::now(),
            fact: Box::new(fact),
        }
    }
}

/// The way in.
#[derive(Clone, Debug)]
pub(super) struct Inputs {
    sender: mpsc::Sender<Input>,
    links: Arc<AtomicU64>,
}

impl Inputs {
    pub(super) fn new(sender: mpsc::Sender<Input>) -> Self {
        Self {
            sender,
            links: Arc::default(),
        }
    }

    /// A number no other connection has.
    pub(super) fn next_link(&self) -> LinkId {
        self.links.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Passes a fact on at once, for callbacks that must not wait; `false` if the
    /// service is too far behind.
    pub(super) fn push(&self, fact: Fact) -> bool {
        let result = self.sender.try_send(Input::now(fact));
        !matches!(result, Err(mpsc::error::TrySendError::Full(_)))
    }

    /// Passes a fact on, waiting for room.
    pub(super) async fn tell(&self, fact: Fact) {
        self.send(Input::now(fact)).await;
    }

    /// Passes a fact on from a thread that may block.
    fn tell_blocking(&self, fact: Fact) {
        // Fails only when the server is gone.
        let _ = self.sender.blocking_send(Input::now(fact));
    }

    /// Waits for room; `false` if the task is gone.
    pub(super) async fn send(&self, input: Input) -> bool {
        self.sender.send(input).await.is_ok()
    }
}

/// The service and what it needs to act.
pub(super) struct Task {
    service: Service,
    journal: Journal,
    inputs: Inputs,
    sockets: BTreeMap<LinkId, (SocketRef, Transport)>,
    started: Instant,
    now: At,
    orders: Vec<Order>,
}

impl Task {
    pub(super) fn new(service: Service, journal: Journal, inputs: Inputs) -> Self {
        Self {
            service,
            journal,
            inputs,
            sockets: BTreeMap::new(),
            started: Instant::now(),
            now: At::ZERO,
            orders: Vec::new(),
        }
    }

    pub(super) async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        loop {
            let due = self.service.due(self.now).unwrap_or(LONGEST_SLEEP);
            let wake = self.started + due.min(self.now + LONGEST_SLEEP);
            let input = tokio::time::timeout_at(wake.into(), inputs.recv()).await;
            match input {
                Err(_elapsed) => {
                    self.tick(Instant::now());
                    self.service.advance(self.now, &mut self.orders);
                }
                Ok(None) => return,
                Ok(Some(Input::Knock { stream, reply })) => {
                    self.tick(Instant::now());
                    let welcome =
                        self.service
                            .admits(self.now, stream.as_deref(), &mut self.orders);
                    // The client may have hung up already.
                    let _ = reply.send(welcome);
                }
                Ok(Some(Input::Socket {
                    link,
                    socket,
                    transport,
                })) => {
                    self.sockets.insert(link, (socket, transport));
                }
                Ok(Some(Input::Fact { when, fact })) => {
                    self.tick(when);
                    let gone = match &*fact {
                        Fact::Disconnected { link, .. } => Some(*link),
                        _ => None,
                    };
                    self.service.handle(self.now, *fact, &mut self.orders);
                    if let Some(link) = gone {
                        self.sockets.remove(&link);
                    }
                }
            }
            self.carry_out();
        }
    }

    /// Facts carry the time they happened; it may be a little before the last one's.
    fn tick(&mut self, when: Instant) {
        self.now = self.now.max(when.saturating_duration_since(self.started));
    }

    fn carry_out(&mut self) {
        for order in std::mem::take(&mut self.orders) {
            match order {
                Order::Record(entry) => {
                    log(&entry);
                    self.journal.write(entry);
                }
                Order::Emit { link, message } => {
                    let event = message.event();
                    match message.payload() {
                        Ok(payload) => self.emit(link, event, &payload),
                        Err(error) => tracing::error!(event = "unwritable", name = event, %error),
                    }
                }
                Order::Answer { link, event, ack } => self.emit(link, &event::ack_of(&event), &ack),
                Order::Render {
                    link,
                    session,
                    sequence,
                    audio,
                    job,
                } => {
                    let inputs = self.inputs.clone();
                    tokio::task::spawn_blocking(move || {
                        let result = render(&audio, job).map_err(|error| error.to_string());
                        inputs.tell_blocking(Fact::Rendered {
                            link,
                            session,
                            sequence,
                            result,
                        });
                    });
                }
                Order::Close { link } => self.close(link),
            }
        }
    }

    fn emit(&self, link: LinkId, event: &str, payload: &impl serde::Serialize) {
        let Some((socket, _)) = self.sockets.get(&link) else {
            return;
        };
        if let Err(error) = socket.emit(event, payload) {
            tracing::warn!(event = "emit_failed", link, name = event, %error);
        }
    }

    /// Says goodbye; the transport follows in the disconnect handler.
    fn close(&mut self, link: LinkId) {
        let Some((socket, transport)) = self.sockets.remove(&link) else {
            return;
        };
        if let Err(error) = socket.disconnect() {
            tracing::warn!(event = "disconnect_failed", link, %error);
            transport.close();
        }
    }
}

/// The journal's lines as log lines: what happens to connections is worth knowing,
/// single messages are details.
fn log(entry: &JournalEntry) {
    let JournalEntry {
        event,
        session,
        sequence,
        code,
        detail,
        ..
    } = entry;
    let stream_id = entry.stream_id.as_deref();
    let (code, detail) = (code.as_deref(), detail.as_deref());
    match entry.direction {
        Direction::Local => tracing::info!(event, stream_id, session, sequence, code, detail),
        Direction::In => tracing::debug!(direction = "in", event, stream_id, session, sequence),
        Direction::Out => {
            tracing::debug!(
                direction = "out",
                event,
                stream_id,
                session,
                sequence,
                code,
                detail
            );
        }
    }
}
