//! The sockets: HTTP and Socket.IO around the pure [`Service`].
//!
//! One task owns the service. Socket.IO callbacks only read what arrived and pass
//! it on, synchronously (bodies of async handlers are spawned and would reorder
//! messages); everything that is sent leaves through that task, in order.

mod gate;
mod listener;
mod task;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::Value;
use socketioxide::{
    SocketIo, TransportType,
    extract::{Event, SocketRef, TryData},
    handler::ConnectHandler,
    socket::DisconnectReason,
};
use sts_protocol::{
    Auth, ControlMessage, ErrorCode, Refusal, WorkerMessage, check_header_id, limits,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::{
    audio::check_base64,
    config::Config,
    journal::Journal,
    service::{Fact, LinkId, Service},
    simulation::{Scope, Simulation},
};
use listener::{ClosableListener, Transport, Transports};
use task::{Input, Inputs, Task};

/// Packets waiting to be written to one client; more and the connection is closed.
const SEND_QUEUE: usize = 4_096;
/// Facts waiting for the service; more and the client that brings one is closed.
const INPUT_QUEUE: usize = 8_192;
/// How long a shutdown waits for clients to be told.
const GOODBYE: Duration = Duration::from_millis(300);

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken or not ours.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The journal file cannot be written.
    #[error("cannot write the journal to {path}: {source}")]
    Journal {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The configuration contradicts the protocol.
    #[error("configuration: {0}")]
    Config(#[from] Refusal),
}

/// Starts servers.
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Starts a server on the current tokio runtime; it is ready when this returns.
    ///
    /// # Errors
    /// When the address or the journal cannot be used or the settings make no sense.
    pub async fn start(config: Config) -> Result<Running, StartError> {
        let mut simulation = Simulation::default();
        for setting in config.settings() {
            simulation.set(&Scope::Everyone, &setting)?;
        }
        config.audio.validate()?;
        config.backpressure.validate()?;
        let journal =
            Journal::create(config.journal.as_deref()).map_err(|source| StartError::Journal {
                path: config.journal.clone().unwrap_or_default(),
                source,
            })?;
        let transports = Transports::default();
        let refused = |source| StartError::Listen {
            addr: config.listen,
            source,
        };
        let listener = ClosableListener::bind(config.listen, transports.clone())
            .await
            .map_err(refused)?;
        let addr = listener.addr().map_err(refused)?;

        let (sender, receiver) = mpsc::channel(INPUT_QUEUE);
        let inputs = Inputs::new(sender);
        let service = Service::new(config.limits(), simulation);
        let task = tokio::spawn(Task::new(service, journal.clone(), inputs.clone()).run(receiver));
        let (app, io) = app(&config, &inputs);
        let serving = axum::serve(
            listener,
            app.into_make_service_with_connect_info::<Transport>(),
        );
        let serving = tokio::spawn(async move { serving.await.map_err(|error| error.to_string()) });
        Ok(Running {
            addr,
            journal,
            transports,
            io,
            task,
            serving,
        })
    }
}

/// A server that runs until it is shut down or dropped.
#[derive(Debug)]
pub struct Running {
    addr: SocketAddr,
    journal: Journal,
    transports: Transports,
    io: SocketIo,
    task: JoinHandle<()>,
    serving: JoinHandle<Result<(), String>>,
}

impl Running {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where clients connect to: `http://IP:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What it has seen.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Stops listening, tells every client and closes every connection; takes well
    /// under a second.
    pub async fn shutdown(self) {
        self.serving.abort();
        // Tells clients and waits for their transports, which may never come to an end.
        let _ = tokio::time::timeout(GOODBYE, self.io.close()).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.serving.abort();
        self.task.abort();
        self.transports.close_all();
    }
}

/// The HTTP side: `/health`, and Socket.IO behind the gate.
fn app(config: &Config, inputs: &Inputs) -> (Router, SocketIo) {
    let (layer, io) = SocketIo::builder()
        .transports([TransportType::Websocket])
        .ping_interval(config.ping_interval)
        .ping_timeout(config.ping_timeout)
        .max_buffer_size(SEND_QUEUE)
        .max_payload(limits::MAX_MESSAGE as u64)
        .ws_max_message_size(limits::MAX_MESSAGE)
        .ws_max_frame_size(limits::MAX_MESSAGE)
        .build_layer();
    let token = config.auth_token.clone().map(Arc::<str>::from);
    let connecting = inputs.clone();
    let opening = inputs.clone();
    // The middleware runs before the client learns that it is connected, so no
    // message can come before its handlers are there.
    let connect = async move |socket: SocketRef, TryData(auth): TryData<Auth>| {
        admit(socket, token.as_deref(), auth.ok(), &connecting).await
    };
    let opened = async move |socket: SocketRef| {
        if let Some(link) = link_of(&socket) {
            opening.tell(Fact::Opened { link }).await;
        }
        // From here on the client can be answered, so it may be heard.
        if let Some(ConnectInfo(transport)) = socket
            .req_parts()
            .extensions
            .get::<ConnectInfo<Transport>>()
        {
            transport.open();
        }
    };
    io.ns("/", opened.with(connect));
    let app = Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .layer(layer)
        .layer(middleware::from_fn_with_state(inputs.clone(), gate));
    (app, io)
}

/// Answers 503 to connection requests while `simulate:disconnect` refuses them.
async fn gate(State(inputs): State<Inputs>, request: Request, next: Next) -> Response {
    if request
        .uri()
        .path()
        .starts_with(limits::PATH.trim_end_matches('/'))
    {
        let stream = header(request.headers(), limits::STREAM_ID_HEADER)
            .ok()
            .flatten();
        let (reply, answer) = oneshot::channel();
        if !inputs.send(Input::Knock { stream, reply }).await || !answer.await.unwrap_or(false) {
            return (
                StatusCode::SERVICE_UNAVAILABLE,
                "connections are refused for now\n",
            )
                .into_response();
        }
    }
    next.run(request).await
}

/// The number given to a client's connection, kept with its socket.
#[derive(Clone, Copy, Debug)]
struct Link(LinkId);

fn link_of(socket: &SocketRef) -> Option<LinkId> {
    socket.extensions.get::<Link>().map(|link| link.0)
}

/// Registers a client's handlers and announces it.
async fn admit(
    socket: SocketRef,
    token: Option<&str>,
    auth: Option<Auth>,
    inputs: &Inputs,
) -> Result<(), &'static str> {
    let parts = socket.req_parts();
    let Some(ConnectInfo(transport)) = parts.extensions.get::<ConnectInfo<Transport>>().cloned()
    else {
        return Err("not accepted by this server's listener");
    };
    let stream_header = header(&parts.headers, limits::STREAM_ID_HEADER);
    let worker_header = header(&parts.headers, limits::WORKER_ID_HEADER);
    let refusal = if token.is_some_and(|token| auth.is_none_or(|auth| auth.token != token)) {
        let message = "the auth payload has no valid token";
        Some(Refusal::new(ErrorCode::AuthFailed, message))
    } else {
        let headers = [&stream_header, &worker_header];
        headers
            .into_iter()
            .find_map(|header| header.as_ref().err().cloned())
    };
    let link = inputs.next_link();
    socket.extensions.insert(Link(link));

    let (events, flooded) = (inputs.clone(), transport.clone());
    socket.on_fallback(
        move |Event(event): Event, TryData(payload): TryData<Value>| {
            let fact = read(link, event, payload.map_err(|error| error.to_string()));
            if !events.push(fact) {
                tracing::warn!(
                    event = "overload",
                    link,
                    "closed: it sends faster than it is served"
                );
                flooded.close();
            }
            std::future::ready(())
        },
    );
    let (ends, closing) = (inputs.clone(), transport.clone());
    socket.on_disconnect(async move |reason: DisconnectReason| {
        let reason = reason.to_string();
        ends.tell(Fact::Disconnected { link, reason }).await;
        // The packet that says so is on its way; then the transport goes too.
        tokio::time::sleep(task::LINGER).await;
        closing.close();
    });
    inputs
        .send(Input::Socket {
            link,
            socket,
            transport,
        })
        .await;
    let (stream_header, worker_header) =
        (stream_header.ok().flatten(), worker_header.ok().flatten());
    inputs
        .tell(Fact::Connected {
            link,
            stream_header,
            worker_header,
            refusal,
        })
        .await;
    Ok(())
}

/// A header's value, if it is there and within the rules.
fn header(headers: &HeaderMap, name: &str) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let value = value.to_str().unwrap_or_default();
    check_header_id(name, value)?;
    Ok(Some(value.to_owned()))
}

/// Turns an event into a fact. Runs in the client's own reader task, so that big
/// fragments are parsed beside each other.
fn read(link: LinkId, event: String, payload: Result<Value, String>) -> Fact {
    let payload = match payload {
        Ok(payload) => payload,
        Err(error) => {
            let refusal = Refusal::invalid(format!("not one JSON object: {error}"));
            return Fact::Malformed {
                link,
                event,
                refusal,
                sequence: None,
                fragment_id: None,
            };
        }
    };
    let sequence = payload.get("sequence_number").and_then(Value::as_u64);
    let fragment_id = payload
        .get("fragment_id")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let malformed = |event, refusal| Fact::Malformed {
        link,
        event,
        refusal,
        sequence,
        fragment_id,
    };
    if sts_protocol::event::CONTROL.contains(&event.as_str()) {
        return match ControlMessage::parse(&event, payload) {
            Some(message) => Fact::Control {
                link,
                event,
                message,
            },
            None => Fact::Unknown { link, event },
        };
    }
    match WorkerMessage::parse(&event, payload) {
        None => Fact::Unknown { link, event },
        Some(Err(refusal)) => malformed(event, refusal),
        Some(Ok(WorkerMessage::Data(data))) => {
            let text = &data.audio.data_base64;
            // Too large is the session's to refuse; it need not be looked at first.
            match (text.len() <= limits::MAX_AUDIO_BASE64).then(|| check_base64(text)) {
                Some(Err(error)) => {
                    let why = format!("audio.data_base64: not base64: {error}");
                    malformed(event, Refusal::invalid(why))
                }
                _ => Fact::Worker {
                    link,
                    message: WorkerMessage::Data(data),
                },
            }
        }
        Some(Ok(message)) => Fact::Worker { link, message },
    }
}
