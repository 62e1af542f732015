//! From an open WebSocket to the joined namespace, or to the words in which it is refused.

use std::time::Duration;

use dub_engine::Fatal;
use sts_protocol::heard::{self, Fact, Refused, clip};
use sts_protocol::{Auth, ErrorCode};
use tokio::io::{AsyncWriteExt as _, WriteHalf};
use tokio::time::{Instant, timeout_at};

use super::config::StsClientConfig;
use super::connect::{self, OpenError, Opened, Stream};
use super::frames::{Incoming, text};
use super::link::{LinkEnd, Wire};
use super::packet::{self, Packet};

/// Events kept that come before the namespace is joined, by number and by bytes.
const MAX_EARLY: usize = 8;
const MAX_EARLY_BYTES: usize = 64 * 1024;

/// A joined namespace: both halves of the socket, and what is known by then.
pub(super) struct Joined {
    pub(super) wire: Wire,
    pub(super) writer: WriteHalf<Box<dyn Stream>>,
    /// The silence that means death.
    pub(super) silence: Duration,
    pub(super) early: Early,
}

/// What the service said before it let us in: python-socketio's connect handler may `emit` first.
#[derive(Default)]
pub(super) struct Early {
    /// As JSON.
    pub(super) events: Vec<String>,
    bytes: usize,
    /// How many more there were.
    pub(super) dropped: u64,
}

impl Early {
    fn keep(&mut self, json: &str) {
        let bytes = self.bytes + json.len();
        if self.events.len() < MAX_EARLY && bytes <= MAX_EARLY_BYTES {
            self.bytes = bytes;
            self.events.push(json.to_owned());
        } else {
            self.dropped += 1;
        }
    }

    /// The last error among it.
    fn error(&self, config: &StsClientConfig) -> Option<Refused> {
        let read = |json: &String| heard::read_event(json, &[], &config.stream_id);
        let errors = self
            .events
            .iter()
            .flat_map(read)
            .filter_map(|fact| match fact {
                Fact::Error { code, message, .. } => Some(Refused { code, message }),
                _ => None,
            });
        errors.last()
    }
}

/// Connects and joins the namespace, or says within the time for it why not.
pub(super) async fn join(config: &StsClientConfig) -> Result<Joined, OpenError> {
    let limit = config.connect_timeout;
    let deadline = Instant::now() + limit;
    let opened = connect::open(config, deadline).await?;
    let address = opened.address;
    let joined = timeout_at(deadline, enter(config, opened)).await;
    joined.unwrap_or_else(|_| {
        let ms = limit.as_millis();
        Err(format!("{address}: no answer to the handshake within {ms} ms").into())
    })
}

async fn enter(config: &StsClientConfig, opened: Opened) -> Result<Joined, OpenError> {
    let address = opened.address;
    let (stream, mut writer) = tokio::io::split(opened.stream);
    let mut wire = Wire::new(stream, opened.input);
    let stranger =
        |what: &str| OpenError::from(format!("{address}: not a Socket.IO server: it said {what}"));
    let during = |end: LinkEnd| OpenError::from(format!("{address}: during the handshake: {end}"));
    let (mut open, mut early) = (None, Early::default());
    loop {
        let message = match wire.receive().await.map_err(during)? {
            Incoming::Text(bytes) => {
                String::from_utf8(bytes).map_err(|_| stranger("something that is not UTF-8"))?
            }
            Incoming::Binary(_) | Incoming::TooLarge(_) if open.is_none() => {
                return Err(stranger("something binary or huge first"));
            }
            Incoming::Close(code, said) => {
                let end = during(LinkEnd::closed(code, &said));
                return Err(early.error(config).map_or(end, refused));
            }
            Incoming::TooLarge(_) => {
                early.dropped += 1;
                continue;
            }
            Incoming::Binary(_) | Incoming::Ping(_) | Incoming::Pong => continue,
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
                let silence = open.unwrap_or_default().silence();
                return Ok(Joined {
                    wire,
                    writer,
                    silence: silence.min(config.max_silence),
                    early,
                });
            }
            Packet::Refused(payload) => {
                let refusal = heard::read_refusal(payload);
                // `return False` has no words of its own; what was emitted before it has.
                let said = early.error(config).filter(|_| !is_final(&refusal));
                return Err(refused(said.unwrap_or(refusal)));
            }
            Packet::Close | Packet::Disconnect => {
                let end = during(LinkEnd::closed(None, ""));
                return Err(early.error(config).map_or(end, refused));
            }
            _ if open.is_none() => return Err(stranger(&format!("{:?}", clip(&message, 40)))),
            Packet::Event {
                ours: true, json, ..
            } => {
                early.keep(json);
                continue;
            }
            _ => continue,
        };
        let sent = writer.write_all(&reply).await;
        sent.map_err(|error| during(LinkEnd::gone(format!("the connection broke: {error}"))))?;
    }
}

/// Only what the service says in the protocol's own words is final.
fn is_final(refusal: &Refused) -> bool {
    let known = ErrorCode::from(refusal.code.as_str());
    matches!(known, ErrorCode::AuthFailed | ErrorCode::InvalidConfig)
}

fn refused(refusal: Refused) -> OpenError {
    let is_final = is_final(&refusal);
    let Refused { code, message } = refusal;
    OpenError {
        reason: format!("refused by the service: {code}: {message}"),
        fatal: is_final.then_some(Fatal { code, message }),
    }
}
