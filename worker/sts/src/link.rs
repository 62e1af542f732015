//! One connection, from the attempt to the last byte: a task that owns the library's client, its
//! runtime and everything that may go wrong with either.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rust_socketio::TransportType;
use rust_socketio::asynchronous::{Client, ClientBuilder};
use sts_protocol::{Auth, limits};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::config::StsClientConfig;
use super::fact::{FactKind, LinkId, MalformedKind, Outcome, Refused, StsFact};
use super::fields::malformed;
use super::inbox::{Inbox, RawEvent, Signals, inbox};
use super::outbox::{Ending, GENERIC_ERROR, Outbox, cause, too_large};
use super::outgoing::Order;
use super::runtime::LinkRuntime;
use super::socket::Socket;
use super::watchdog::{Loss, Pulse, TICK, Watchdog};
use super::wire;

/// A library error that has not ended the reader by now was only an odd event.
const ERROR_SETTLES: Duration = Duration::from_millis(300);
/// The last byte came before whatever it was that ended the reader.
const NOT_JUST_NOW: Duration = Duration::from_millis(150);
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
            Ok((client, socket)) => {
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
    ) -> Result<(Client, Option<Socket>), OpenError> {
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
            // Before waiting: the namespace request is still held back by Nagle's algorithm.
            let socket = Socket::find(runtime.handle());
            if let Some(socket) = &socket {
                socket.tune(self.config.silence());
            }
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
                // Even if it is over by now: what was said in between is told by the live link.
                if signals.connected {
                    return Ok((client, socket));
                }
                if signals.closed || reader_gone {
                    return Err(failed(
                        "the service closed the connection during the handshake".into(),
                    ));
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
                () = bell.changed() => if let Some(ending) = told_to_end(&inbox.signals()) {
                    break ending;
                },
                _ = tick.tick() => {
                    // The bell may have rung before this link was live.
                    if let Some(ending) = told_to_end(&inbox.signals()) {
                        break ending;
                    }
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
            self.tell(self.discreet(fact)).await;
        }
    }

    /// A service may quote the token back at us.
    fn discreet(&self, mut fact: FactKind) -> FactKind {
        if let FactKind::Error { message: text, .. }
        | FactKind::Malformed { detail: text, .. }
        | FactKind::Processed {
            outcome: Outcome::Failed { message: text, .. },
            ..
        } = &mut fact
        {
            *text = self.config.redact(text);
        }
        fact
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

    /// Hands a fact over. The channel is small on purpose: a driver that does not keep up slows
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

fn closed_by_service() -> Ending {
    Ending::lost("the service ended the session")
}

/// What the service said about the connection itself, if that was its end.
fn told_to_end(signals: &Signals) -> Option<Ending> {
    if signals.closed {
        Some(closed_by_service())
    } else if signals.refused.is_some() {
        Some(Ending::lost("the service withdrew the connection"))
    } else {
        None
    }
}

/// Waits for the order to stop, or for its sender to be gone.
async fn told_to_stop(orders: &mut mpsc::Receiver<Order>) {
    while let Some(order) = orders.recv().await {
        if matches!(order, Order::Disconnect) {
            return;
        }
    }
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
