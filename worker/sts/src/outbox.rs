//! What a link sends: one message at a time, in order, each within its time.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rust_socketio::asynchronous::Client;
use sts_protocol::limits;
use tokio::time::timeout;

use super::config::StsClientConfig;
use super::fact::{FactKind, Outcome};
use super::fields;
use super::outgoing::{Order, encoded_len};

/// Orders that may wait to be sent, by number and by bytes.
const MAX_WAITING: usize = 256;
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;
/// A message this large, unanswered before the peer goes, is named as a possible cause.
const LARGE: usize = 256 * 1024;
const LARGE_BLAME: Duration = Duration::from_secs(5);
/// What the library says of every error below it; its cause does not come along.
pub(super) const GENERIC_ERROR: &str = "EngineIO Error";

/// How a connection ended.
pub(super) struct Ending {
    pub(super) reason: String,
    /// The peer is there and may hear a goodbye.
    pub(super) graceful: bool,
}

impl Ending {
    pub(super) fn lost(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            graceful: false,
        }
    }
}

/// What waits to be sent and what is being sent. One message at a time: order is part of the
/// protocol.
pub(super) struct Outbox {
    client: Client,
    config: Arc<StsClientConfig>,
    waiting: VecDeque<Order>,
    waiting_bytes: usize,
    current: Option<BoxFuture<'static, Result<(), String>>>,
    /// Size of the last message, and when it had left; `None` once the peer has answered.
    last: Option<(usize, Option<Instant>)>,
}

impl Outbox {
    pub(super) fn new(client: Client, config: Arc<StsClientConfig>) -> Self {
        Self {
            client,
            config,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            current: None,
            last: None,
        }
    }

    pub(super) fn push(&mut self, order: Order) -> Result<(), Ending> {
        self.waiting_bytes += order.weight();
        self.waiting.push_back(order);
        if self.waiting.len() > MAX_WAITING || self.waiting_bytes > MAX_WAITING_BYTES {
            return Err(Ending::lost("more messages than the service takes"));
        }
        Ok(())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.current.is_none() && self.waiting.is_empty()
    }

    /// Starts the next message unless one is on its way.
    pub(super) fn start_next(&mut self) {
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
    pub(super) async fn emitted(&mut self) -> Result<(), Ending> {
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
    pub(super) fn answered(&mut self) {
        if self.current.is_none() {
            self.last = None;
        }
    }

    /// Names a large message as the possible cause of a loss right after it: servers drop a peer
    /// over their message limit without saying why (python-socketio's default is 1 MB).
    pub(super) fn blame(&self, ending: Ending) -> Ending {
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

/// A fragment the protocol does not allow fails here, without costing the link.
pub(super) fn too_large(order: &Order) -> Option<FactKind> {
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

/// The library's error, past the layer that only says "EngineIO Error".
pub(super) fn cause(error: &rust_socketio::Error) -> String {
    let mut text = error.to_string();
    if text == GENERIC_ERROR
        && let Some(source) = std::error::Error::source(error)
    {
        text = source.to_string();
    }
    fields::one_line(&text)
}
