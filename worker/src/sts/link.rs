//! One connection, from the attempt to the last byte: a task that owns the library's client, its
//! runtime and everything that may go wrong with either.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rust_socketio::TransportType;
use rust_socketio::asynchronous::{Client, ClientBuilder};
use sts_protocol::{Auth, limits};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::config::StsClientConfig;
use super::fact::{FactKind, LinkId, MalformedKind, Outcome, Refused, StsFact};
use super::inbox::{Inbox, RawEvent, inbox};
use super::outgoing::{Order, encoded_len};
use super::runtime::LinkRuntime;
use super::socket::Socket;
use super::watchdog::{Loss, Pulse, TICK, Watchdog};
use super::wire::{self, malformed};

/// Orders that may wait to be sent, by number and by bytes.
const MAX_WAITING: usize = 256;
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;
/// A message this large, unanswered before the peer goes, is named as a possible cause.
const LARGE: usize = 256 * 1024;
const LARGE_BLAME: Duration = Duration::from_secs(5);
/// A library error that has not ended the reader by now was only an odd event.
const ERROR_SETTLES: Duration = Duration::from_millis(300);
/// The last byte came before whatever it was that ended the reader.
const NOT_JUST_NOW: Duration = Duration::from_millis(150);
/// What the library says of every error below it; its cause does not come along.
const GENERIC_ERROR: &str = "EngineIO Error";
const NO_EVENT_NAME: &str = "Error while parsing an incomplete packet";

/// What a link's task needs.
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) config: Arc<StsClientConfig>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) facts: mpsc::Sender<StsFact>,
    /// `true` once nobody listens to facts any more.
    pub(super) muted: watch::Receiver<bool>,
    /// Set when an order found the queue full.
    pub(super) overrun: Arc<AtomicBool>,
}

/// Why there is no connection.
struct OpenError {
    reason: String,
    fatal: Option<Refused>,
}

/// How a connection ended.
struct Ending {
    reason: String,
    /// The peer is there and may hear a goodbye.
    graceful: bool,
}

impl Ending {
    fn lost(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            graceful: false,
        }
    }
}

impl Link {
    /// Runs the connection to its end.
    pub(super) async fn run(mut self) {
        let runtime = match LinkRuntime::start() {
            Ok(runtime) => runtime,
            Err(error) => {
                let reason = format!("no thread for the connection: {error}");
                return self
                    .tell(FactKind::ConnectFailed {
                        reason,
                        fatal: None,
                    })
                    .await;
            }
        };
        let (inlet, mut inbox) = inbox();
        let builder = inlet.install(self.builder());
        match self.open(builder, &runtime, &inbox).await {
            Ok(client) => {
                let socket = Socket::find(runtime.handle());
                if let Some(socket) = &socket {
                    socket.set_user_timeout(self.config.silence());
                }
                self.tell(FactKind::Connected).await;
                let ending = self
                    .live(&client, &runtime, socket.as_ref(), &mut inbox)
                    .await;
                let reason = self.config.redact(&ending.reason);
                self.tell(FactKind::Disconnected { reason }).await;
                if ending.graceful {
                    let _ = timeout(self.config.close_timeout, client.disconnect()).await;
                }
                drop(client);
                if let Some(socket) = socket {
                    socket.shutdown();
                }
            }
            Err(error) => {
                let reason = self.config.redact(&error.reason);
                let fatal = error.fatal.map(|refused| Refused {
                    message: self.config.redact(&refused.message),
                    ..refused
                });
                self.tell(FactKind::ConnectFailed { reason, fatal }).await;
            }
        }
        drop(runtime);
    }

    fn builder(&self) -> ClientBuilder {
        let builder = ClientBuilder::new(self.config.url.clone())
            .transport_type(TransportType::Websocket)
            .reconnect(false)
            .reconnect_on_disconnect(false)
            .opening_header(limits::STREAM_ID_HEADER, self.config.stream_id.as_str())
            .opening_header(limits::WORKER_ID_HEADER, self.config.worker_id.as_str());
        match &self.config.token {
            Some(token) => {
                let auth = Auth {
                    token: token.expose().to_owned(),
                };
                builder.auth(serde_json::json!(auth))
            }
            None => builder,
        }
    }

    /// Connects and joins the namespace, all within the connect timeout.
    async fn open(
        &mut self,
        builder: ClientBuilder,
        runtime: &LinkRuntime,
        inbox: &Inbox,
    ) -> Result<Client, OpenError> {
        let bell = inbox.bell();
        let failed = |reason: String| OpenError {
            reason,
            fatal: None,
        };
        let connecting = runtime.handle().spawn(builder.connect());
        let join = async {
            let client = match connecting.await {
                Ok(Ok(client)) => client,
                Ok(Err(error)) => return Err(open_error(&error)),
                Err(_) => return Err(failed("the Socket.IO client panicked".into())),
            };
            loop {
                let reader_gone = runtime.live_tasks() == 0;
                let signals = inbox.signals();
                if let Some(payload) = signals.refused {
                    let (refused, retryable) = wire::read_refusal(&payload);
                    let reason = format!(
                        "refused by the service: {}: {}",
                        refused.code, refused.message
                    );
                    return Err(OpenError {
                        reason,
                        fatal: (!retryable).then_some(refused),
                    });
                }
                if signals.closed || reader_gone {
                    return Err(failed(
                        "the service closed the connection during the handshake".into(),
                    ));
                }
                if signals.connected {
                    return Ok(client);
                }
                // The tick is for a reader that ends without a word.
                let _ = timeout(TICK, bell.changed()).await;
            }
        };
        let limit = self.config.connect_timeout;
        tokio::select! {
            biased;
            result = join => result,
            () = sleep(limit) => Err(failed(format!("no answer within {} ms", limit.as_millis()))),
            () = told_to_stop(&mut self.orders) => Err(failed("given up before it was there".into())),
        }
    }

    /// Serves the connection until it ends.
    async fn live(
        &mut self,
        client: &Client,
        runtime: &LinkRuntime,
        socket: Option<&Socket>,
        inbox: &mut Inbox,
    ) -> Ending {
        let mut watchdog = Watchdog::new(self.config.silence());
        let mut sender = Outbox::new(client.clone(), Arc::clone(&self.config));
        let bell = inbox.bell();
        let mut closing: Option<Instant> = None;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ending = loop {
            sender.start_next();
            if closing.is_some() && sender.is_idle() {
                break Ending {
                    reason: "closed by the worker".into(),
                    graceful: true,
                };
            }
            tokio::select! {
                order = self.orders.recv(), if closing.is_none() => match order {
                    Some(Order::Disconnect) | None => {
                        if self.overrun.load(Ordering::Relaxed) {
                            break Ending::lost("more orders than the link could take");
                        }
                        closing = Some(Instant::now());
                    }
                    Some(order) => {
                        if let Some(fact) = too_large(&order) {
                            self.tell(fact).await;
                        } else if let Err(ending) = sender.push(order) {
                            break ending;
                        }
                    }
                },
                ended = sender.emitted() => if let Err(ending) = ended {
                    // The library's own word on why, if it has one, comes right behind.
                    let _ = timeout(TICK, bell.changed()).await;
                    break if inbox.signals().closed { closed_by_service() } else { ending };
                },
                Some(event) = inbox.next() => {
                    sender.answered();
                    self.deliver(event).await;
                }
                () = bell.changed() => {
                    let signals = inbox.signals();
                    if signals.closed {
                        break closed_by_service();
                    }
                    if signals.refused.is_some() {
                        break Ending::lost("the service withdrew the connection");
                    }
                }
                _ = tick.tick() => {
                    self.report_flood(inbox).await;
                    if let Some(at) = closing && at.elapsed() >= self.config.close_timeout {
                        break Ending::lost("closed by the worker with messages unsent");
                    }
                    let state = socket.and_then(Socket::state);
                    let pulse = Pulse {
                        reader_alive: runtime.live_tasks() > 0,
                        silent: state.map(|state| state.silent),
                        open: state.map(|state| state.open),
                    };
                    if let Some(loss) = watchdog.check(Instant::now(), pulse) {
                        break self.explain(loss, pulse, inbox).await;
                    }
                    self.settle_error(inbox).await;
                }
            }
        };
        // What arrived before the end is told before the end.
        while let Some(event) = inbox.try_next() {
            sender.answered();
            self.deliver(event).await;
        }
        self.report_flood(inbox).await;
        if ending.graceful {
            ending
        } else {
            sender.blame(ending)
        }
    }

    async fn deliver(&mut self, event: RawEvent) {
        let facts = match event.args {
            Some(args) => wire::read(&event.name, args, &self.config.stream_id),
            None => vec![malformed(
                MalformedKind::WrongType,
                format!("{}: binary attachments", event.name),
            )],
        };
        for fact in facts {
            self.tell(fact).await;
        }
    }

    async fn report_flood(&mut self, inbox: &Inbox) {
        let count = inbox.take_dropped();
        if count > 0 {
            let detail = format!("{count} events dropped");
            self.tell(FactKind::Malformed {
                kind: MalformedKind::Flood,
                count,
                detail,
            })
            .await;
        }
    }

    /// An error the reader survived was an event the library could not make sense of.
    async fn settle_error(&mut self, inbox: &Inbox) {
        if let Some((text, at)) = inbox.signals().error
            && at.elapsed() >= ERROR_SETTLES
        {
            inbox.clear_error();
            self.tell(if text == NO_EVENT_NAME {
                malformed(MalformedKind::MissingField, "an event without a name")
            } else {
                malformed(MalformedKind::WrongType, "error: payload is a string")
            })
            .await;
        }
    }

    /// Puts a loss into words, and names what the service sent if that is what ended the reader.
    async fn explain(&mut self, loss: Loss, pulse: Pulse, inbox: &Inbox) -> Ending {
        let silent = pulse.silent.unwrap_or_default();
        let quiet = |silent: Duration| format!("nothing heard for {} ms", silent.as_millis());
        Ending::lost(match (loss, inbox.signals().error) {
            (Loss::Silent(silent), _) => quiet(silent),
            (Loss::PeerClosed, _) | (Loss::ReaderGone, None) => {
                "the service closed the connection".to_owned()
            }
            (Loss::ReaderGone, Some(_)) if pulse.open == Some(false) => {
                "the connection broke".to_owned()
            }
            // The library gave up on a connection that stands: silence by the handshake's
            // numbers, or something it cannot read.
            (Loss::ReaderGone, Some((text, _))) if text == GENERIC_ERROR => {
                if silent >= NOT_JUST_NOW {
                    quiet(silent)
                } else {
                    let detail = "a message over 16 MiB, or not Engine.IO";
                    self.tell(malformed(MalformedKind::Oversize, detail)).await;
                    format!("the service sent {detail}")
                }
            }
            (Loss::ReaderGone, Some((text, _))) => {
                self.tell(malformed(MalformedKind::BadJson, text.as_str()))
                    .await;
                format!("the service sent something unreadable: {text}")
            }
        })
    }

    /// Hands a fact over. The channel is small on purpose: a runner that does not keep up slows
    /// this task down, and the inbox bounds what piles up behind it.
    async fn tell(&mut self, kind: FactKind) {
        let fact = StsFact {
            link: self.id,
            kind,
        };
        tokio::select! {
            biased;
            _ = self.muted.wait_for(|muted| *muted) => {}
            _ = self.facts.send(fact) => {}
        }
    }
}

/// What waits to be sent and what is being sent. One message at a time: order is part of the
/// protocol.
struct Outbox {
    client: Client,
    config: Arc<StsClientConfig>,
    waiting: VecDeque<Order>,
    waiting_bytes: usize,
    current: Option<BoxFuture<'static, Result<(), String>>>,
    /// Size of the last message, and when it had left; `None` once the peer has answered.
    last: Option<(usize, Option<Instant>)>,
}

impl Outbox {
    fn new(client: Client, config: Arc<StsClientConfig>) -> Self {
        Self {
            client,
            config,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            current: None,
            last: None,
        }
    }

    fn push(&mut self, order: Order) -> Result<(), Ending> {
        self.waiting_bytes += order.weight();
        self.waiting.push_back(order);
        if self.waiting.len() > MAX_WAITING || self.waiting_bytes > MAX_WAITING_BYTES {
            return Err(Ending::lost("more messages than the service takes"));
        }
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.current.is_none() && self.waiting.is_empty()
    }

    /// Starts the next message unless one is on its way.
    fn start_next(&mut self) {
        while self.current.is_none() {
            let Some(order) = self.waiting.pop_front() else {
                return;
            };
            self.waiting_bytes -= order.weight();
            let Some(message) = order.into_message(&self.config) else {
                continue;
            };
            let bytes = message.bytes;
            // A large one stays in mind behind the small ones that follow it.
            if self
                .last
                .is_none_or(|(last, _)| last < LARGE || bytes >= LARGE)
            {
                self.last = Some((bytes, None));
            }
            let client = self.client.clone();
            let limit = self.config.emit_timeout;
            self.current = Some(
                async move {
                    match timeout(limit, client.emit(message.event, message.payload)).await {
                        Ok(Ok(())) => Ok(()),
                        Ok(Err(error)) => Err(format!("sending failed: {}", cause(&error))),
                        Err(_) => Err(format!(
                            "the service took nothing for {} ms ({} of about {bytes} bytes)",
                            limit.as_millis(),
                            message.event,
                        )),
                    }
                }
                .boxed(),
            );
        }
    }

    /// Waits for the message on its way; for ever if there is none.
    async fn emitted(&mut self) -> Result<(), Ending> {
        let Some(current) = &mut self.current else {
            return pending().await;
        };
        let result = current.await;
        self.current = None;
        if let Some((_, left)) = &mut self.last {
            left.get_or_insert_with(Instant::now);
        }
        result.map_err(Ending::lost)
    }

    /// The peer is alive and well after the last message.
    fn answered(&mut self) {
        if self.current.is_none() {
            self.last = None;
        }
    }

    /// Names a large message as the possible cause of a loss right after it: servers drop a peer
    /// over their message limit without saying why (python-socketio's default is 1 MB).
    fn blame(&self, ending: Ending) -> Ending {
        match self.last {
            Some((bytes, left))
                if bytes >= LARGE && left.is_none_or(|left| left.elapsed() < LARGE_BLAME) =>
            {
                Ending::lost(format!(
                    "{}; peer closed right after a {bytes} byte message: its message size limit may be lower",
                    ending.reason
                ))
            }
            _ => ending,
        }
    }
}

fn closed_by_service() -> Ending {
    Ending::lost("the service ended the session")
}

/// Waits for the order to stop, or for its sender to be gone.
async fn told_to_stop(orders: &mut mpsc::Receiver<Order>) {
    while let Some(order) = orders.recv().await {
        if matches!(order, Order::Disconnect) {
            return;
        }
    }
}

/// A fragment the protocol does not allow fails here, without costing the link.
fn too_large(order: &Order) -> Option<FactKind> {
    let Order::Fragment(fragment) = order else {
        return None;
    };
    let size = encoded_len(fragment.m4a.len());
    (size > limits::MAX_AUDIO_BASE64).then(|| FactKind::Processed {
        id: fragment.id.clone(),
        sequence: Some(fragment.sequence),
        outcome: Outcome::Failed {
            code: sts_protocol::ErrorCode::FragmentTooLarge
                .as_str()
                .to_owned(),
            message: format!(
                "not sent: {size} bytes of base64, {} are allowed",
                limits::MAX_AUDIO_BASE64
            ),
            retryable: false,
        },
    })
}

fn open_error(error: &rust_socketio::Error) -> OpenError {
    let reason = cause(error);
    // An HTTP answer that is final. Others (503 and the like) may pass.
    let fatal = ["401", "403"]
        .iter()
        .any(|code| reason.contains(&format!("HTTP error: {code}")));
    OpenError {
        fatal: fatal.then(|| Refused {
            code: sts_protocol::ErrorCode::AuthFailed.as_str().to_owned(),
            message: reason.clone(),
        }),
        reason,
    }
}

/// The library's error, past the layer that only says "EngineIO Error".
fn cause(error: &rust_socketio::Error) -> String {
    let mut text = error.to_string();
    if text == GENERIC_ERROR
        && let Some(source) = std::error::Error::source(error)
    {
        text = source.to_string();
    }
    wire::one_line(&text)
}
