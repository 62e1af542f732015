//! From an open WebSocket to the joined namespace, or to the words in which it is refused.

use std::time::Duration;

use dub_engine::Fatal;
use sts_protocol::heard::{self, Refused, clip};
use sts_protocol::{Auth, ErrorCode, limits};
use tokio::io::{AsyncWriteExt as _, WriteHalf};
use tokio::time::{Instant, timeout_at};

use super::config::StsClientConfig;
use super::connect::{self, OpenError, Opened, Stream};
use super::frames::{Incoming, text};
use super::link::{LinkEnd, Wire};
use super::packet::{self, Packet};

/// A joined namespace: both halves of the socket.
pub(super) struct Joined {
    pub(super) wire: Wire,
    pub(super) writer: WriteHalf<Box<dyn Stream>>,
    /// The silence that means death.
    pub(super) silence: Duration,
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
    let mut open = None;
    loop {
        let message = match wire.receive().await.map_err(during)? {
            Incoming::Text(bytes) => {
                String::from_utf8(bytes).map_err(|_| stranger("something that is not UTF-8"))?
            }
            Incoming::Binary(_) => return Err(stranger("something binary first")),
            Incoming::Close(code, said) => {
                return Err(during(LinkEnd::closed(code, &said)));
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
                return Ok(Joined {
                    wire,
                    writer,
                    silence: silence.min(config.max_silence),
                });
            }
            Packet::Refused(payload) => return Err(refused(heard::read_refusal(payload))),
            Packet::Close | Packet::Disconnect => {
                return Err(during(LinkEnd::closed(None, "")));
            }
            _ if open.is_none() => return Err(stranger(&format!("{:?}", clip(&message, 40)))),
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
