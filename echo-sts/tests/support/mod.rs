//! A Socket.IO client for the tests: `rust_socketio`, its events in a channel.
#![allow(dead_code, reason = "each test file uses its own part")]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use echo_sts::{Config, Running, Server};
use futures_util::FutureExt;
use rust_socketio::{
    Event, Payload, TransportType,
    asynchronous::{Client as Socket, ClientBuilder},
};
use serde_json::{Value, json};
use sts_protocol::{
    Audio, ControlAck, ControlMessage, ControlStatus, ErrorEvent, FragmentData, FragmentProcessed,
    StreamInit, StreamReady, StreamSignal, StsMessage, WorkerMessage, event,
};
use tokio::sync::mpsc;

/// No single step of a test takes longer than this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A server of its own for a test.
pub(crate) async fn server(config: Config) -> Running {
    Server::start(config).await.unwrap()
}

/// How a client introduces itself.
#[derive(Clone, Copy, Default)]
pub(crate) struct Hello<'a> {
    pub(crate) stream: Option<&'a str>,
    pub(crate) worker: Option<&'a str>,
    pub(crate) token: Option<&'a str>,
}

/// What arrived; `None` as payload for events of the connection itself.
pub(crate) type Arrival = (String, Option<Value>);

pub(crate) struct Client {
    socket: Socket,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    pub(crate) stream: String,
    next: u64,
}

impl Client {
    /// Connects and waits until the server says so.
    pub(crate) async fn connect(server: &Running, hello: Hello<'_>) -> Result<Self, String> {
        let (sender, arrivals) = mpsc::unbounded_channel();
        let mut builder = ClientBuilder::new(server.url())
            .transport_type(TransportType::Websocket)
            .reconnect(false);
        for (name, value) in [("X-Stream-ID", hello.stream), ("X-Worker-ID", hello.worker)] {
            if let Some(value) = value {
                builder = builder.opening_header(name, value);
            }
        }
        if let Some(token) = hello.token {
            builder = builder.auth(json!({ "token": token }));
        }
        for own in [Event::Connect, Event::Close] {
            let (sender, name) = (sender.clone(), own.as_str().to_owned());
            builder = builder.on(own, move |_, _| {
                let _ = sender.send((name.clone(), None));
                async {}.boxed()
            });
        }
        // `error` is this client's own event too, so it does not reach `on_any`.
        let errors = sender.clone();
        builder = builder.on(Event::Error, move |payload, _| {
            let _ = errors.send(("error".to_owned(), first(payload)));
            async {}.boxed()
        });
        let builder = builder.on_any(move |event, payload, _| {
            if let Event::Custom(name) = event {
                let _ = sender.send((name, first(payload)));
            }
            async {}.boxed()
        });
        let socket = tokio::time::timeout(PATIENCE, builder.connect())
            .await
            .unwrap()
            .map_err(|error| error.to_string())?;
        let stream = hello.stream.unwrap_or("plain").to_owned();
        let mut client = Self {
            socket,
            arrivals,
            stream,
            next: 0,
        };
        client.wait_for("connect").await;
        Ok(client)
    }

    /// Connects as a worker would and opens its stream.
    pub(crate) async fn worker(server: &Running, stream: &str) -> Self {
        let hello = Hello {
            stream: Some(stream),
            worker: Some("w"),
            token: None,
        };
        let mut client = Self::connect(server, hello).await.unwrap();
        client.init().await;
        client
    }

    /// A client that only controls.
    pub(crate) async fn controller(server: &Running) -> Self {
        Self::connect(server, Hello::default()).await.unwrap()
    }

    pub(crate) async fn send_raw(&self, event: &str, payload: Value) {
        self.socket.emit(event, payload).await.unwrap();
    }

    pub(crate) async fn send(&self, message: &WorkerMessage) {
        self.send_raw(message.event(), message.payload().unwrap())
            .await;
    }

    pub(crate) async fn init(&mut self) -> StreamReady {
        let init = StreamInit::new(self.stream.clone(), "w");
        self.send(&WorkerMessage::Init(init)).await;
        self.next = 0;
        serde_json::from_value(self.wait_for(event::STREAM_READY).await.unwrap()).unwrap()
    }

    /// Sends the next fragment with this audio text; gives it back.
    pub(crate) async fn fragment(&mut self, data_base64: &str) -> FragmentData {
        let data = fragment(&self.stream, self.next, data_base64);
        self.next += 1;
        self.send(&WorkerMessage::Data(Box::new(data.clone())))
            .await;
        data
    }

    pub(crate) async fn signal(&self, signal: fn(StreamSignal) -> WorkerMessage) {
        let stream_id = self.stream.clone();
        self.send(&signal(StreamSignal {
            stream_id,
            reason: None,
        }))
        .await;
    }

    /// Sends a control event; gives the answer's message.
    pub(crate) async fn control(&mut self, message: &ControlMessage) -> String {
        let ack = self
            .control_raw(message.event(), message.payload().unwrap())
            .await;
        assert_eq!(ack.status, ControlStatus::Accepted, "{ack:?}");
        ack.message.unwrap()
    }

    pub(crate) async fn control_raw(&mut self, event: &str, payload: Value) -> ControlAck {
        self.send_raw(event, payload).await;
        serde_json::from_value(self.wait_for(&event::ack_of(event)).await.unwrap()).unwrap()
    }

    /// The next arrival, whatever it is.
    pub(crate) async fn arrival(&mut self) -> Arrival {
        tokio::time::timeout(PATIENCE, self.arrivals.recv())
            .await
            .expect("nothing arrived")
            .unwrap()
    }

    /// Everything that arrives within `time`.
    pub(crate) async fn listen(&mut self, time: Duration) -> Vec<Arrival> {
        let mut heard = Vec::new();
        let _ = tokio::time::timeout(time, async {
            while let Some(arrival) = self.arrivals.recv().await {
                heard.push(arrival);
            }
        })
        .await;
        heard
    }

    /// Passes over arrivals up to the first `event`.
    pub(crate) async fn wait_for(&mut self, event: &str) -> Option<Value> {
        let mut passed = Vec::new();
        let search = async {
            loop {
                let (name, payload) = self.arrivals.recv().await.unwrap();
                if name == event {
                    return payload;
                }
                passed.push(name);
            }
        };
        let found = tokio::time::timeout(PATIENCE, search).await;
        found.unwrap_or_else(|_| panic!("{event} did not come, but {passed:?}"))
    }

    pub(crate) async fn processed(&mut self) -> FragmentProcessed {
        let payload = self.wait_for(event::FRAGMENT_PROCESSED).await.unwrap();
        serde_json::from_value(payload).unwrap()
    }

    pub(crate) async fn error(&mut self) -> ErrorEvent {
        serde_json::from_value(self.wait_for(event::ERROR).await.unwrap()).unwrap()
    }

    /// Everything up to `stream:complete`, as messages.
    pub(crate) async fn finish(&mut self) -> Vec<StsMessage> {
        let mut messages = Vec::new();
        loop {
            let (name, payload) = self.arrival().await;
            let message = StsMessage::parse(&name, payload.unwrap()).unwrap().unwrap();
            let last = matches!(message, StsMessage::Complete(_));
            messages.push(message);
            if last {
                return messages;
            }
        }
    }

    pub(crate) async fn disconnect(self) {
        let _ = tokio::time::timeout(PATIENCE, self.socket.disconnect()).await;
    }
}

/// The `n`th fragment of a stream.
pub(crate) fn fragment(stream: &str, n: u64, data_base64: &str) -> FragmentData {
    FragmentData {
        fragment_id: format!("00000000-0000-4000-8000-{n:012}"),
        stream_id: stream.to_owned(),
        sequence_number: n,
        timestamp: 1_732_273_985_000,
        audio: Audio {
            format: "m4a".to_owned(),
            sample_rate_hz: 48_000,
            channels: 2,
            duration_ms: 6_000,
            data_base64: data_base64.to_owned(),
        },
        metadata: None,
    }
}

fn first(payload: Payload) -> Option<Value> {
    match payload {
        Payload::Text(values) => values.into_iter().next(),
        #[expect(deprecated, reason = "still a variant")]
        Payload::String(text) => Some(Value::String(text)),
        Payload::Binary(_) => None,
    }
}
