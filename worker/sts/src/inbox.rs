//! Between the library's callbacks and the link's task.
//!
//! Callbacks run one after the other inside the library's reader task, and that task also answers
//! pings: they may only push. Events go through a queue bounded by number and by bytes; what does
//! not fit is counted, not kept. What decides the link's fate (joined, refused, closed, error) is
//! kept apart as flags, so no flood can push it out.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use rust_socketio::asynchronous::ClientBuilder;
use rust_socketio::{Event, Payload};
use serde_json::Value;
use sts_protocol::event;
use tokio::sync::{Notify, mpsc};

/// Events that may wait.
const MAX_EVENTS: usize = 1_024;
/// Of these, kept free for events the protocol knows: junk must not push out an answer.
const RESERVED: usize = MAX_EVENTS / 2;
/// Bytes that may wait, roughly.
const MAX_BYTES: usize = 48 * 1024 * 1024;
/// Above this many events per [`WINDOW`] the reader rests until the window is over, so that TCP
/// slows the peer down before anything has to be dropped. A rest is too short for a pong to be
/// late; a service in its right mind sends a handful per second.
const MAX_PER_WINDOW: u32 = 500;
const WINDOW: Duration = Duration::from_millis(100);
/// How the library announces a refused namespace, before the payload.
const REFUSED: &str = "Received an ConnectError frame: ";

/// An event, not looked at yet.
#[derive(Debug)]
pub(super) struct RawEvent {
    pub(super) name: String,
    /// `None`: binary attachments, which the protocol does not have.
    pub(super) args: Option<Vec<Value>>,
    bytes: usize,
}

/// What the library said about the connection itself.
#[derive(Debug, Default, Clone)]
pub(super) struct Signals {
    /// The namespace is joined.
    pub(super) connected: bool,
    /// The server left the namespace.
    pub(super) closed: bool,
    /// Payload of the refusal.
    pub(super) refused: Option<String>,
    /// The library's last error, and when.
    pub(super) error: Option<(String, Instant)>,
}

struct Shared {
    queue: mpsc::Sender<RawEvent>,
    waiting_bytes: AtomicUsize,
    dropped: AtomicU64,
    signals: Mutex<Signals>,
    changed: Notify,
    window: Mutex<(Instant, u32)>,
}

/// The callbacks' end.
#[derive(Clone)]
pub(super) struct Inlet(Arc<Shared>);

/// The link's end.
pub(super) struct Inbox {
    shared: Arc<Shared>,
    queue: mpsc::Receiver<RawEvent>,
}

pub(super) fn inbox() -> (Inlet, Inbox) {
    let (sender, receiver) = mpsc::channel(MAX_EVENTS);
    let shared = Arc::new(Shared {
        queue: sender,
        waiting_bytes: AtomicUsize::new(0),
        dropped: AtomicU64::new(0),
        signals: Mutex::default(),
        changed: Notify::new(),
        window: Mutex::new((Instant::now(), 0)),
    });
    (
        Inlet(Arc::clone(&shared)),
        Inbox {
            shared,
            queue: receiver,
        },
    )
}

impl Inlet {
    /// Installs the callbacks.
    pub(super) fn install(&self, builder: ClientBuilder) -> ClientBuilder {
        let (connect, close, error, any) = (self.clone(), self.clone(), self.clone(), self.clone());
        builder
            .on(Event::Connect, move |_, _| {
                connect.signal(|signals| signals.connected = true);
                std::future::ready(()).boxed()
            })
            .on(Event::Close, move |payload, _| match payload {
                // An event of that name, not the library's own report, whose text is empty.
                Payload::Text(args) if !is_empty_text(&args) => close.take("close", Some(args)),
                _ => {
                    close.signal(|signals| signals.closed = true);
                    std::future::ready(()).boxed()
                }
            })
            .on(Event::Error, move |payload, _| match payload {
                Payload::Text(args) => match args.first() {
                    // The library's own errors are a single text; the protocol's are objects.
                    Some(Value::String(text)) if args.len() == 1 => {
                        error.library_error(text);
                        std::future::ready(()).boxed()
                    }
                    _ => error.take(event::ERROR, Some(args)),
                },
                _ => error.take(event::ERROR, None),
            })
            .on_any(move |event, payload, _| match (event, payload) {
                // A name without a payload arrives as a "message" that holds the name.
                (Event::Message, Payload::Text(args)) => match args.first() {
                    Some(Value::String(name)) if args.len() == 1 => any.take(name, Some(vec![])),
                    _ => any.take("message", Some(args)),
                },
                (event, Payload::Text(args)) => any.take(event.as_str(), Some(args)),
                (event, _) => any.take(event.as_str(), None),
            })
    }

    fn signal(&self, change: impl FnOnce(&mut Signals)) {
        change(&mut lock(&self.0.signals));
        self.0.changed.notify_one();
    }

    fn library_error(&self, text: &str) {
        if let Some(payload) = text.strip_prefix(REFUSED) {
            self.signal(|signals| signals.refused = Some(payload.to_owned()));
        } else {
            let error = (super::fields::one_line(text), Instant::now());
            self.signal(|signals| signals.error = Some(error));
        }
    }

    fn take(
        &self,
        name: &str,
        args: Option<Vec<Value>>,
    ) -> futures_util::future::BoxFuture<'static, ()> {
        let bytes = name.len() + args.iter().flatten().map(weight).sum::<usize>();
        let before = self.0.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let known = event::FROM_STS.contains(&name);
        let room = self.0.queue.capacity() > if known { 0 } else { RESERVED };
        let fits = room && (before == 0 || before + bytes <= MAX_BYTES);
        let event = RawEvent {
            name: super::fields::clip(name, 64),
            args,
            bytes,
        };
        if !fits || self.0.queue.try_send(event).is_err() {
            self.0.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            self.0.changed.notify_one();
        }
        match self.rest() {
            Some(rest) => tokio::time::sleep(rest).boxed(),
            None => std::future::ready(()).boxed(),
        }
    }

    /// How long the reader has to rest before the next event.
    fn rest(&self) -> Option<Duration> {
        let mut window = lock(&self.0.window);
        let now = Instant::now();
        let spent = now.duration_since(window.0);
        if spent >= WINDOW {
            *window = (now, 0);
            return None;
        }
        window.1 += 1;
        (window.1 > MAX_PER_WINDOW).then(|| WINDOW.saturating_sub(spent))
    }
}

impl Inbox {
    /// The next event. Never `None` while the link's own [`Inlet`] lives.
    pub(super) async fn next(&mut self) -> Option<RawEvent> {
        let event = self.queue.recv().await?;
        self.release(&event);
        Some(event)
    }

    /// An event that waits already.
    pub(super) fn try_next(&mut self) -> Option<RawEvent> {
        let event = self.queue.try_recv().ok()?;
        self.release(&event);
        Some(event)
    }

    fn release(&self, event: &RawEvent) {
        self.shared
            .waiting_bytes
            .fetch_sub(event.bytes, Ordering::Relaxed);
    }

    /// How many events were dropped since the last call.
    pub(super) fn take_dropped(&self) -> u64 {
        self.shared.dropped.swap(0, Ordering::Relaxed)
    }

    /// What the library said so far.
    pub(super) fn signals(&self) -> Signals {
        lock(&self.shared.signals).clone()
    }

    /// Forgets the library's last error.
    pub(super) fn clear_error(&self) {
        lock(&self.shared.signals).error = None;
    }

    /// Rings when the library says something, or events are dropped.
    pub(super) fn bell(&self) -> Bell {
        Bell(Arc::clone(&self.shared))
    }
}

/// Tells that [`Inbox::signals`] or [`Inbox::take_dropped`] has news.
pub(super) struct Bell(Arc<Shared>);

impl Bell {
    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }
}

fn is_empty_text(args: &[Value]) -> bool {
    matches!(args, [Value::String(text)] if text.is_empty())
}

/// What a value costs in memory, roughly; nested arrays cost far more than their text.
fn weight(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(weight).sum(),
            Value::Object(fields) => fields
                .iter()
                .map(|(key, value)| 2 * size_of::<String>() + key.len() + weight(value))
                .sum(),
            _ => 0,
        }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding these; if something did, the data is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
