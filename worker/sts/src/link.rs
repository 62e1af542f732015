//! One connection, from the attempt to the last byte: a task that owns the socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dub_engine::{Fatal, Input, LinkId, ProtocolErrorKind};
use sts_protocol::heard::{self, clip};
use sts_protocol::{Auth, ErrorCode, limits};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::config::StsClientConfig;
use super::connect::{self, OpenError, Opened, Stream};
use super::fact::StsFact;
use super::frames::{FrameError, Incoming, Reader, text};
use super::hear::{self, malformed};
use super::outbox::Outbox;
use super::outgoing::Order;
use super::packet::{self, MAX_ATTACHMENTS, Packet};
use super::queue::Queue;

/// Beyond ping interval + timeout: a ping may be late by as much as a busy machine is.
const SILENCE_GRACE: Duration = Duration::from_millis(300);
/// Bytes taken from the socket at once.
const READ_SIZE: usize = 64 * 1024;

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

/// The reading half of the socket.
struct Wire {
    stream: ReadHalf<Box<dyn Stream>>,
    input: BytesMut,
    reader: Reader,
    /// When the last byte came.
    heard: Instant,
}

/// An event whose attachments are still to come.
struct Partial {
    json: String,
    ours: bool,
    missing: u64,
    parts: Vec<Bytes>,
}

/// The service's side of a live link.
struct Ear {
    link: LinkId,
    config: Arc<StsClientConfig>,
    queue: Queue,
    partial: Option<Partial>,
    /// Attachments of an event that was given up.
    to_skip: u64,
}

impl Wire {
    /// The next thing from the service; giving up in between loses nothing.
    async fn receive(&mut self) -> Result<Incoming, String> {
        loop {
            match self.reader.next(&mut self.input) {
                Ok(Some(incoming)) => return Ok(incoming),
                Ok(None) => {}
                Err(error) => return Err(format!("the service sent {error}")),
            }
            self.input.reserve(READ_SIZE);
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) => return Err("the service closed the connection".to_owned()),
                Ok(_) => self.heard = Instant::now(),
                Err(error) => return Err(format!("the connection broke: {error}")),
            }
        }
    }
}

impl Link {
    /// Runs the connection to its end.
    pub(super) async fn run(mut self) {
        let link = self.id;
        let limit = self.config.connect_timeout;
        let deadline = Instant::now() + limit;
        let config = Arc::clone(&self.config);
        let opened = tokio::select! {
            biased;
            result = timeout_at(deadline, join(&config, deadline)) => result.unwrap_or_else(|_| {
                Err(format!("no answer within {} ms", limit.as_millis()).into())
            }),
            () = told_to_stop(&mut self.orders) => {
                Err("given up before it was there".to_owned().into())
            }
        };
        match opened {
            Ok((wire, writer, silence)) => {
                self.tell(Input::Connected { link }.into()).await;
                let (reason, cut) = self.live(wire, writer, silence).await;
                if let Some((bytes, certain)) = cut {
                    let cut = Input::MessageCut {
                        link,
                        bytes,
                        certain,
                    };
                    self.tell(cut.into()).await;
                }
                let reason = self.config.redact(&reason);
                self.tell(Input::Disconnected { link, reason }.into()).await;
            }
            Err(OpenError { reason, fatal }) => {
                let failed = Input::ConnectFailed {
                    link,
                    reason: config.redact(&reason),
                    fatal: fatal.map(|fatal| Fatal {
                        message: config.redact(&fatal.message),
                        ..fatal
                    }),
                };
                self.tell(failed.into()).await;
            }
        }
    }

    /// Serves the connection until it ends: why, and the message it may have ended for.
    async fn live(
        &mut self,
        mut wire: Wire,
        mut writer: WriteHalf<Box<dyn Stream>>,
        silence: Duration,
    ) -> (String, Option<(usize, bool)>) {
        let mut out = Outbox::new(Arc::clone(&self.config));
        let mut ear = Ear {
            link: self.id,
            config: Arc::clone(&self.config),
            queue: Queue::default(),
            partial: None,
            to_skip: 0,
        };
        let mut closing: Option<Instant> = None;
        let (mut too_big, mut stuck) = (false, false);
        let reason = loop {
            if let Some(count) = ear.queue.take_dropped() {
                let detail = format!("{count} events dropped");
                let fact = malformed(self.id, ProtocolErrorKind::Flood, count, detail);
                ear.queue.push(fact);
            }
            if out.start_next(closing.is_some()) {
                // Nothing is left to say, the goodbye included.
                let _ = timeout(self.config.close_timeout, writer.shutdown()).await;
                break "closed by the worker".to_owned();
            }
            let resting = ear.queue.rests_until();
            let lost_at = wire.heard + silence + SILENCE_GRACE;
            let stuck_at = out.stuck_at();
            let give_up_at = closing.map(|since| since + self.config.close_timeout);
            let wake = [Some(lost_at), stuck_at, give_up_at, resting];
            let wake = wake.into_iter().flatten().min().unwrap_or(lost_at);
            tokio::select! {
                permit = self.facts.reserve(), if !ear.queue.is_empty() => {
                    if let (Ok(permit), Some(fact)) = (permit, ear.queue.pop()) {
                        permit.send(fact);
                    }
                }
                order = self.orders.recv(), if closing.is_none() => match order {
                    Some(Order::Disconnect) | None => {
                        if self.overrun.load(Ordering::Relaxed) {
                            break "more orders than the link could take".to_owned();
                        }
                        closing = Some(Instant::now());
                    }
                    Some(order) => if let Err(reason) = out.push(order) {
                        break reason;
                    }
                },
                written = writer.write(out.rest()), if !out.rest().is_empty() => match written {
                    Ok(0) => break "the service closed the connection".to_owned(),
                    Ok(len) => out.written(len),
                    Err(error) => {
                        // The service's own word on why, if it has one, is waiting to be read.
                        let last = timeout(Duration::from_millis(25), wire.receive()).await;
                        if let Ok(Ok(incoming)) = last
                            && let Err(reason) = ear.take(incoming, &mut out, &mut too_big)
                        {
                            break reason;
                        }
                        break format!("the connection broke: {error}");
                    }
                },
                incoming = wire.receive(), if resting.is_none() => {
                    let result = match incoming {
                        Ok(incoming) => ear.take(incoming, &mut out, &mut too_big),
                        Err(reason) => {
                            if reason.contains(&FrameError::TooLarge.to_string()) {
                                let kind = ProtocolErrorKind::Oversize;
                                ear.queue.push(malformed(self.id, kind, 1, reason.as_str()));
                            }
                            Err(reason)
                        }
                    };
                    if let Err(reason) = result {
                        break reason;
                    }
                }
                () = sleep_until(wake) => {
                    let now = Instant::now();
                    if give_up_at.is_some_and(|at| at <= now) {
                        break "closed by the worker with messages unsent".to_owned();
                    }
                    if stuck_at.is_some_and(|at| at <= now) {
                        stuck = true;
                        break out.stuck();
                    }
                    if resting.is_none() && lost_at <= now {
                        break format!("nothing heard for {} ms", wire.heard.elapsed().as_millis());
                    }
                }
            }
        };
        // What arrived before the end is told before the end.
        while let Some(fact) = ear.queue.pop() {
            self.tell(fact).await;
        }
        if let Some(count) = ear.queue.take_dropped() {
            let detail = format!("{count} events dropped");
            self.tell(malformed(self.id, ProtocolErrorKind::Flood, count, detail))
                .await;
        }
        match out.blame() {
            // A peer that takes nothing has not refused anything.
            Some(bytes) if closing.is_none() && !stuck => {
                let reason = format!(
                    "{reason}; peer closed right after a {bytes} byte message: its message size limit \
                     may be lower"
                );
                (reason, Some((bytes, too_big)))
            }
            _ => (reason, None),
        }
    }

    /// Hands a fact over. The channel is small on purpose: a driver that does not keep up slows
    /// this task down, and the queue bounds what piles up before it.
    async fn tell(&mut self, fact: StsFact) {
        tokio::select! {
            biased;
            _ = self.muted.wait_for(|muted| *muted) => {}
            _ = self.facts.send(fact) => {}
        }
    }
}

impl Ear {
    /// Takes in what arrived; an error is the end of the link.
    fn take(
        &mut self,
        incoming: Incoming,
        out: &mut Outbox,
        too_big: &mut bool,
    ) -> Result<(), String> {
        match incoming {
            Incoming::Ping(payload) => out.pong_frame(&payload),
            Incoming::Pong => {}
            Incoming::Close(code) => {
                *too_big = code == Some(1009);
                let code = code.filter(|code| !matches!(code, 1000 | 1001 | 1005));
                return Err(match code {
                    Some(code) => format!("the service closed the connection (code {code})"),
                    None => "the service closed the connection".to_owned(),
                });
            }
            Incoming::Binary(bytes) => self.attachment(bytes, out),
            Incoming::Text(bytes) => match String::from_utf8(bytes) {
                Ok(text) => return self.packet(&text, out),
                Err(error) => {
                    let json = String::from_utf8_lossy(error.as_bytes()).into_owned();
                    self.unreadable(ProtocolErrorKind::BadJson, "not UTF-8", &json);
                }
            },
        }
        Ok(())
    }

    fn packet(&mut self, text: &str, out: &mut Outbox) -> Result<(), String> {
        let packet = packet::read(text);
        if !matches!(packet, Packet::Ping(_) | Packet::Nothing)
            && let Some(partial) = self.partial.take()
        {
            // Its attachments will not come any more.
            self.event(&partial.json, partial.ours, &partial.parts, out);
        }
        match packet {
            Packet::Ping(payload) => out.pong_packet(payload),
            Packet::Close => return Err("the service closed the connection".to_owned()),
            Packet::Disconnect => return Err("the service ended the session".to_owned()),
            Packet::Refused(_) => return Err("the service withdrew the connection".to_owned()),
            Packet::Odd(what) => self.odd(ProtocolErrorKind::BadJson, what),
            Packet::Open(_) | Packet::Connect | Packet::Nothing => {}
            Packet::Event {
                attachments,
                ours,
                json,
            } => match attachments {
                0 => self.event(json, ours, &[], out),
                1..=MAX_ATTACHMENTS => {
                    self.partial = Some(Partial {
                        json: json.to_owned(),
                        ours,
                        missing: attachments,
                        parts: vec![],
                    });
                }
                _ => {
                    self.to_skip = attachments;
                    self.unreadable(ProtocolErrorKind::Oversize, "too many attachments", json);
                }
            },
        }
        Ok(())
    }

    fn attachment(&mut self, bytes: Vec<u8>, out: &mut Outbox) {
        let Some(partial) = &mut self.partial else {
            if self.to_skip == 0 {
                let what = "a binary message where text is expected";
                return self.odd(ProtocolErrorKind::WrongType, what);
            }
            self.to_skip -= 1;
            return;
        };
        // More than the largest audio is kept of none.
        let keep = if bytes.len() > limits::MAX_AUDIO_BASE64 {
            vec![]
        } else {
            bytes
        };
        partial.parts.push(keep.into());
        partial.missing -= 1;
        if partial.missing == 0
            && let Some(partial) = self.partial.take()
        {
            self.event(&partial.json, partial.ours, &partial.parts, out);
        }
    }

    fn event(&mut self, json: &str, ours: bool, parts: &[Bytes], out: &mut Outbox) {
        // What is said in another namespace is nobody's business.
        if ours {
            out.answered();
            for fact in hear::event(self.link, json, parts, &self.config) {
                self.queue.push(fact);
            }
            self.queue.count_event();
        }
    }

    fn odd(&mut self, kind: ProtocolErrorKind, what: &str) {
        self.queue.push(malformed(self.link, kind, 1, what));
        self.queue.count_event();
    }

    fn unreadable(&mut self, kind: ProtocolErrorKind, why: &str, json: &str) {
        self.odd(kind, why);
        if let Some(fact) = heard::unreadable(json, why) {
            self.queue.push(hear::told(self.link, fact, &self.config));
        }
    }
}

/// A joined namespace: both halves of the socket, and the silence that means death.
type Joined = (Wire, WriteHalf<Box<dyn Stream>>, Duration);

/// Connects and joins the namespace.
async fn join(config: &StsClientConfig, deadline: Instant) -> Result<Joined, OpenError> {
    let Opened { stream, input } = connect::open(config, deadline).await?;
    let (stream, mut writer) = tokio::io::split(stream);
    let mut wire = Wire {
        stream,
        input,
        reader: Reader::default(),
        heard: Instant::now(),
    };
    let stranger = |what: &str| OpenError::from(format!("not a Socket.IO server: it said {what}"));
    let during = |reason: String| OpenError::from(format!("{reason} during the handshake"));
    let mut open = None;
    loop {
        let message = match wire.receive().await.map_err(during)? {
            Incoming::Text(bytes) => {
                String::from_utf8(bytes).map_err(|_| stranger("something that is not UTF-8"))?
            }
            Incoming::Binary(_) => return Err(stranger("something binary first")),
            Incoming::Close(_) => {
                return Err(during("the service closed the connection".to_owned()));
            }
            Incoming::Ping(_) | Incoming::Pong => continue,
        };
        let reply = match packet::read(&message) {
            Packet::Open(said) if open.is_none() => {
                open = Some(said);
                let auth = config.token.as_ref().map(|token| Auth {
                    token: token.expose().to_owned(),
                });
                let auth = auth.and_then(|auth| serde_json::to_string(&auth).ok());
                text(&format!("40{}", auth.unwrap_or_default()))
            }
            Packet::Ping(payload) => text(&format!("3{payload}")),
            Packet::Connect => {
                let usual = limits::PING_INTERVAL + limits::PING_TIMEOUT;
                let silence = open.unwrap_or_default().silence(usual);
                return Ok((wire, writer, silence.min(config.max_silence)));
            }
            Packet::Refused(payload) => return Err(refused(payload)),
            Packet::Close | Packet::Disconnect => {
                return Err(during("the service closed the connection".to_owned()));
            }
            _ if open.is_none() => return Err(stranger(&format!("{:?}", clip(&message, 40)))),
            _ => continue,
        };
        let sent = writer.write_all(&reply).await;
        sent.map_err(|error| during(format!("the connection broke: {error}")))?;
    }
}

/// A refused namespace. Only what the service says in the protocol's own words is final.
fn refused(payload: &str) -> OpenError {
    let heard::Refused { code, message } = heard::read_refusal(payload);
    let known = ErrorCode::from(code.as_str());
    let is_final = matches!(known, ErrorCode::AuthFailed | ErrorCode::InvalidConfig);
    OpenError {
        reason: format!("refused by the service: {code}: {message}"),
        fatal: is_final.then_some(Fatal { code, message }),
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
