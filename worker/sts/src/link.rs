//! One connection, from the attempt to the last byte: a task that owns the socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dub_engine::{Fatal, LinkId, ProtocolErrorKind, SessionFact};
use sts_protocol::heard;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::config::StsClientConfig;
use super::connect::{OpenError, Stream};
use super::fact::StsFact;
use super::frames::{FrameError, Incoming, Reader};
use super::hear::{self, malformed};
use super::join::{Joined, join};
use super::outbox::Outbox;
use super::outgoing::LinkOrder;
use super::packet::{self, MAX_ATTACHMENTS, Packet};
use super::queue::Queue;

/// Beyond ping interval + timeout: a ping may be late by as much as a busy machine is.
const SILENCE_GRACE: Duration = Duration::from_millis(300);
/// Bytes taken from the socket at once.
const READ_SIZE: usize = 64 * 1024;
/// For what waits in the socket already, before a link is given up over silence.
const LAST_LOOK: Duration = Duration::from_millis(25);

/// Why a link is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkEnd {
    /// The service has gone. A message over its limit may be why; `certain`: it said so.
    #[error("{why}")]
    Gone { why: String, certain: bool },
    /// It said what cannot be read any further.
    #[error("the service sent {0}")]
    Unreadable(#[from] FrameError),
    /// Nothing that a message of ours can be to blame for.
    #[error("{0}")]
    Other(String),
}

impl LinkEnd {
    pub(super) fn gone(why: impl Into<String>) -> Self {
        Self::Gone {
            why: why.into(),
            certain: false,
        }
    }

    fn other(why: impl Into<String>) -> Self {
        Self::Other(why.into())
    }

    /// The service has closed the connection, with this code and in these words.
    pub(super) fn closed(code: Option<u16>, said: &str) -> Self {
        let mut why = "the service closed the connection".to_owned();
        if let Some(code) = code.filter(|code| !matches!(code, 1000 | 1001 | 1005)) {
            why = format!("{why} (code {code})");
        }
        if !said.is_empty() {
            why = format!("{why}: {}", heard::one_line(said));
        }
        match code {
            // It shuts down, restarts, has failed, has too much to do, or has a reason of its own.
            Some(1001 | 1008 | 1011..=1013 | 3000..=4999) => Self::Other(why),
            _ => Self::Gone {
                why,
                certain: code == Some(1009),
            },
        }
    }
}

/// What a link's task needs.
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) config: Arc<StsClientConfig>,
    pub(super) orders: mpsc::Receiver<LinkOrder>,
    pub(super) facts: mpsc::Sender<StsFact>,
    /// `true` once nobody listens to facts any more.
    pub(super) muted: watch::Receiver<bool>,
    /// Set when an order found the queue full.
    pub(super) overrun: Arc<AtomicBool>,
}

/// The reading half of the socket.
pub(super) struct Wire {
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
struct Listener {
    link: LinkId,
    config: Arc<StsClientConfig>,
    queue: Queue,
    partial: Option<Partial>,
    /// Attachments of an event that was given up.
    to_skip: u64,
}

impl Wire {
    pub(super) fn new(stream: ReadHalf<Box<dyn Stream>>, input: BytesMut) -> Self {
        Self {
            stream,
            input,
            reader: Reader::default(),
            heard: Instant::now(),
        }
    }

    /// When it counts as dead, should nothing else be heard.
    fn lost_at(&self, silence: Duration) -> Instant {
        self.heard + silence + SILENCE_GRACE
    }

    /// The next thing from the service; giving up in between loses nothing.
    pub(super) async fn receive(&mut self) -> Result<Incoming, LinkEnd> {
        loop {
            if let Some(incoming) = self.reader.next(&mut self.input)? {
                return Ok(incoming);
            }
            self.input.reserve(READ_SIZE);
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) => return Err(LinkEnd::gone("the service closed the connection")),
                Ok(_) => self.heard = Instant::now(),
                Err(error) => return Err(LinkEnd::gone(format!("the connection broke: {error}"))),
            }
        }
    }
}

impl Link {
    /// Runs the connection to its end.
    pub(super) async fn run(mut self) {
        let link = self.id;
        let config = Arc::clone(&self.config);
        let opened = tokio::select! {
            biased;
            result = join(&config) => result,
            () = told_to_stop(&mut self.orders) => {
                Err("given up before it was there".to_owned().into())
            }
        };
        match opened {
            Ok(joined) => {
                self.tell(SessionFact::Connected { link }.into()).await;
                let (reason, cut) = self.live(joined).await;
                if let Some((bytes, certain)) = cut {
                    let cut = SessionFact::MessageCut {
                        link,
                        bytes,
                        certain,
                    };
                    self.tell(cut.into()).await;
                }
                let reason = self.config.redact(&reason);
                self.tell(SessionFact::Disconnected { link, reason }.into())
                    .await;
            }
            Err(OpenError { reason, fatal }) => {
                let failed = SessionFact::ConnectFailed {
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
    async fn live(&mut self, joined: Joined) -> (String, Option<(usize, bool)>) {
        let Joined {
            mut wire,
            mut writer,
            silence,
            early,
        } = joined;
        let mut out = Outbox::new(Arc::clone(&self.config));
        let mut ear = Listener {
            link: self.id,
            config: Arc::clone(&self.config),
            queue: Queue::default(),
            partial: None,
            to_skip: 0,
        };
        // Behind `Connected`, which begins a session that knows nothing of before.
        for json in &early.events {
            ear.event(json, true, &[], &mut out);
        }
        if early.dropped > 0 {
            ear.queue.push(self.flood(early.dropped));
        }
        let mut closing: Option<Instant> = None;
        let end = loop {
            if let Some(count) = ear.queue.take_dropped() {
                ear.queue.push(self.flood(count));
            }
            if out.start_next(closing.is_some()) {
                // Nothing is left to say, the goodbye included.
                let _ = timeout(self.config.close_timeout, writer.shutdown()).await;
                break LinkEnd::other("closed by the worker");
            }
            let resting = ear.queue.rests_until(Instant::now());
            let lost_at = wire.lost_at(silence);
            let stuck_at = out.stuck_at();
            let give_up_at = closing.map(|since| since + self.config.close_timeout);
            let wake = [Some(lost_at), stuck_at, give_up_at, resting];
            let wake = wake.into_iter().flatten().min().unwrap_or(lost_at);
            let result = tokio::select! {
                permit = self.facts.reserve(), if !ear.queue.is_empty() => {
                    if let (Ok(permit), Some(fact)) = (permit, ear.queue.pop()) {
                        permit.send(fact);
                    }
                    Ok(())
                }
                order = self.orders.recv(), if closing.is_none() => match order {
                    Some(LinkOrder::Disconnect) | None if self.overrun.load(Ordering::Relaxed) => {
                        Err(LinkEnd::other("more orders than the link could take"))
                    }
                    Some(LinkOrder::Disconnect) | None => {
                        closing = Some(Instant::now());
                        Ok(())
                    }
                    Some(order) => out.push(order).map_err(LinkEnd::Other),
                },
                written = writer.write(out.rest()), if !out.rest().is_empty() => match written {
                    Ok(0) => Err(LinkEnd::gone("the service closed the connection")),
                    Ok(len) => {
                        out.written(len);
                        Ok(())
                    }
                    Err(error) => {
                        // The service's own word on why, if it has one, is waiting to be read.
                        let last = timeout(LAST_LOOK, wire.receive()).await;
                        let said = match last {
                            Ok(Ok(incoming)) => ear.take(Ok(incoming), &mut out),
                            _ => Ok(()),
                        };
                        said.and(Err(LinkEnd::gone(format!("the connection broke: {error}"))))
                    }
                },
                incoming = wire.receive(), if resting.is_none() => ear.take(incoming, &mut out),
                () = sleep_until(wake) => {
                    let is_due = |at: Instant| at <= Instant::now();
                    if give_up_at.is_some_and(is_due) {
                        Err(LinkEnd::other("closed by the worker with messages unsent"))
                    } else if stuck_at.is_some_and(is_due) {
                        // Here and below: on a busy machine it may be this task that was late.
                        match timeout(LAST_LOOK, writer.write(out.rest())).await {
                            Ok(Ok(len)) if len > 0 => {
                                out.written(len);
                                Ok(())
                            }
                            _ => Err(LinkEnd::Other(out.stuck())),
                        }
                    } else if resting.is_none() && is_due(lost_at) {
                        match timeout(LAST_LOOK, wire.receive()).await {
                            Ok(incoming) => ear.take(incoming, &mut out),
                            Err(_) if is_due(wire.lost_at(silence)) => {
                                let silent = wire.heard.elapsed().as_millis();
                                Err(LinkEnd::Other(format!("nothing heard for {silent} ms")))
                            }
                            Err(_) => Ok(()),
                        }
                    } else {
                        Ok(())
                    }
                }
            };
            if let Err(end) = result {
                break end;
            }
        };
        // What arrived before the end is told before the end.
        while let Some(fact) = ear.queue.pop() {
            self.tell(fact).await;
        }
        if let Some(count) = ear.queue.take_dropped() {
            self.tell(self.flood(count)).await;
        }
        match (&end, out.blame(Instant::now())) {
            (LinkEnd::Gone { why, certain }, Some(bytes)) if closing.is_none() => {
                let reason = format!(
                    "{why}; peer closed right after a {bytes} byte message: its message size limit \
                     may be lower"
                );
                (reason, Some((bytes, *certain)))
            }
            _ => (end.to_string(), None),
        }
    }

    fn flood(&self, count: u64) -> StsFact {
        let detail = format!("{count} events dropped");
        malformed(self.id, ProtocolErrorKind::Flood, count, detail)
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

impl Listener {
    /// Takes in what arrived; an error is the end of the link.
    fn take(
        &mut self,
        incoming: Result<Incoming, LinkEnd>,
        out: &mut Outbox,
    ) -> Result<(), LinkEnd> {
        if let Err(end @ LinkEnd::Unreadable(FrameError::TooLarge)) = &incoming {
            let kind = ProtocolErrorKind::Oversize;
            let fact = malformed(self.link, kind, 1, end.to_string());
            self.queue.push(fact);
        }
        // Whatever it is, it costs a turn.
        self.queue.count_event(Instant::now());
        match incoming? {
            Incoming::Ping(payload) => out.pong_frame(&payload),
            Incoming::Pong => {}
            Incoming::Close(code, said) => return Err(LinkEnd::closed(code, &said)),
            Incoming::TooLarge(ends) => {
                let ends = String::from_utf8_lossy(&ends);
                self.unreadable(ProtocolErrorKind::Oversize, "a message over 16 MiB", &ends);
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

    fn packet(&mut self, text: &str, out: &mut Outbox) -> Result<(), LinkEnd> {
        let packet = packet::read(text);
        if !matches!(packet, Packet::Ping(_) | Packet::Nothing)
            && let Some(partial) = self.partial.take()
        {
            // Its attachments will not come any more.
            self.event(&partial.json, partial.ours, &partial.parts, out);
        }
        match packet {
            Packet::Ping(payload) => out.pong_packet(payload),
            Packet::Close => return Err(LinkEnd::gone("the service closed the connection")),
            // A limit acts on the transport and knows no such word.
            Packet::Disconnect => return Err(LinkEnd::other("the service ended the session")),
            Packet::Refused(_) => {
                return Err(LinkEnd::other("the service withdrew the connection"));
            }
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
        partial.parts.push(bytes.into());
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
        }
    }

    fn odd(&mut self, kind: ProtocolErrorKind, what: &str) {
        self.queue.push(malformed(self.link, kind, 1, what));
    }

    fn unreadable(&mut self, kind: ProtocolErrorKind, why: &str, json: &str) {
        self.odd(kind, why);
        if let Some(fact) = heard::unreadable(json, why) {
            self.queue.push(hear::told(self.link, fact, &self.config));
        }
    }
}

/// Waits for the order to stop, or for its sender to be gone.
async fn told_to_stop(orders: &mut mpsc::Receiver<LinkOrder>) {
    while let Some(order) = orders.recv().await {
        if matches!(order, LinkOrder::Disconnect) {
            return;
        }
    }
}
