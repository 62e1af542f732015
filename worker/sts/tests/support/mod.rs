//! Raw Socket.IO peers: each test scripts the server byte for byte.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test binary uses its own part"
)]

use std::time::{Duration, Instant};

use dub_engine::SessionFact;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use sts_client::{DubbedAudio, StsClient, StsClientConfig, StsFact};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

/// Nothing a test waits for may take longer, unless it says so.
pub const PATIENCE: Duration = Duration::from_secs(10);
pub const STREAM: &str = "stream-1";
pub const WORKER: &str = "worker-1";

/// A listener on a free port, and its URL.
pub async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    (listener, url)
}

/// A configuration with short bounds: 500 ms of silence is a death.
pub fn config(url: &str) -> StsClientConfig {
    StsClientConfig {
        connect_timeout: Duration::from_secs(1),
        stuck_timeout: Duration::from_millis(700),
        max_silence: Duration::from_millis(500),
        ..StsClientConfig::new(url, STREAM, WORKER)
    }
}

/// For what something announces: the worker's tick, and a loaded machine.
pub const AT_ONCE: Duration = Duration::from_millis(800);

/// [`config`], with pings as the protocol has them: no silence in a test is long enough.
pub fn patient(url: &str) -> StsClientConfig {
    StsClientConfig {
        max_silence: Duration::from_secs(35),
        ..config(url)
    }
}

/// The server's end of a connection.
pub struct Peer {
    pub socket: WebSocketStream<TcpStream>,
    pub path: String,
    pub headers: Vec<(String, String)>,
    /// The Socket.IO auth payload.
    pub auth: Option<Value>,
}

impl Peer {
    /// Accepts one connection as far as the namespace request. The handshake announces pings
    /// every `ping` ms.
    pub async fn accept(listener: &TcpListener, ping: (u64, u64)) -> Self {
        let (stream, _) = listener.accept().await.expect("accept");
        Self::upgraded(stream, ping).await
    }

    /// The same of a connection that is there.
    pub async fn upgraded(stream: TcpStream, ping: (u64, u64)) -> Self {
        stream.set_nodelay(true).expect("nodelay");
        let mut path = String::new();
        let mut headers = vec![];
        #[allow(clippy::result_large_err, reason = "tungstenite's signature")]
        let note = |request: &Request, response: Response| {
            path = request.uri().to_string();
            headers.extend(request.headers().iter().map(|(name, value)| {
                (
                    name.to_string(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            }));
            Ok(response)
        };
        let mut socket = accept_hdr_async(stream, note).await.expect("websocket");
        let open = json!({ "sid": "engine-1", "upgrades": [], "pingInterval": ping.0,
                           "pingTimeout": ping.1, "maxPayload": 1_000_000 });
        socket
            .send(Message::text(format!("0{open}")))
            .await
            .expect("open");
        let mut peer = Self {
            socket,
            path,
            headers,
            auth: None,
        };
        let join = peer.packet().await.expect("a namespace request");
        let rest = join.strip_prefix("40").expect("a namespace request");
        peer.auth = (!rest.is_empty()).then(|| serde_json::from_str(rest).expect("auth"));
        peer
    }

    /// Accepts and joins the namespace; pings are announced every 25 s.
    pub async fn joined(listener: &TcpListener) -> Self {
        let mut peer = Self::accept(listener, (25_000, 10_000)).await;
        peer.join().await;
        peer
    }

    pub async fn join(&mut self) {
        self.raw("40{\"sid\":\"socket-1\"}").await;
    }

    pub async fn raw(&mut self, text: impl Into<String>) {
        self.socket
            .send(Message::text(text.into()))
            .await
            .expect("send");
    }

    pub async fn event(&mut self, name: &str, payload: &Value) {
        self.raw(format!("42{}", json!([name, payload]))).await;
    }

    pub async fn ping(&mut self) {
        self.raw("2").await;
    }

    /// The next packet that is no pong; `None` once the worker has closed.
    pub async fn packet(&mut self) -> Option<String> {
        loop {
            match timeout(PATIENCE, self.socket.next())
                .await
                .expect("a packet in time")?
            {
                Ok(Message::Text(text)) if text.as_str() == "3" => {}
                Ok(Message::Text(text)) => return Some(text.to_string()),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    /// The next event.
    pub async fn received(&mut self) -> (String, Value) {
        let packet = self.packet().await.expect("an event, not the end");
        let event = packet
            .strip_prefix("42")
            .unwrap_or_else(|| panic!("not an event: {packet}"));
        let mut event: Vec<Value> = serde_json::from_str(event).expect("an array");
        assert_eq!(event.len(), 2, "exactly one payload");
        let payload = event.remove(1);
        assert!(payload.is_object(), "the payload is an object");
        (event[0].as_str().expect("a name").to_owned(), payload)
    }

    /// Closes like a server that shuts down cleanly: close frame, answer, end of TCP.
    pub async fn close(mut self) {
        self.socket.close(None).await.expect("close");
        let _ = timeout(PATIENCE, async {
            while let Some(Ok(_)) = self.socket.next().await {}
        })
        .await;
    }

    /// Ends the TCP connection with a reset, like a killed process.
    pub fn reset(self) {
        rustix::net::sockopt::set_socket_linger(self.socket.get_ref(), Some(Duration::ZERO))
            .expect("linger");
    }
}

/// The worker's end: a client and what it says.
pub struct Worker {
    pub client: StsClient,
    facts: mpsc::Receiver<StsFact>,
    /// The audio that came with the last fact, or why there was none to use.
    pub audio: Option<Result<DubbedAudio, String>>,
}

impl Worker {
    pub fn new(config: StsClientConfig) -> Self {
        let (client, facts) = StsClient::new(config).expect("a valid configuration");
        Self {
            client,
            facts,
            audio: None,
        }
    }

    /// Starts link 1.
    pub fn connect(config: StsClientConfig) -> Self {
        let mut worker = Self::new(config);
        worker.client.connect(1);
        worker
    }

    /// The next fact, whatever it is.
    pub async fn fact(&mut self) -> SessionFact {
        let fact = timeout(PATIENCE, self.facts.recv())
            .await
            .expect("a fact in time")
            .expect("a fact");
        self.audio = fact.audio;
        fact.input
    }

    pub async fn kind(&mut self, link: u32) -> SessionFact {
        let fact = self.fact().await;
        assert_eq!(link_of(&fact), link, "{fact:?}");
        fact
    }

    pub async fn connected(&mut self, link: u32) {
        let kind = self.kind(link).await;
        assert_eq!(kind, SessionFact::Connected { link });
    }

    /// Reads facts up to the end of the link, then makes sure that it is the only end.
    pub async fn ended(&mut self, link: u32) -> Ended {
        let start = Instant::now();
        let mut before = vec![];
        let reason = loop {
            match self.kind(link).await {
                SessionFact::Disconnected { link: _, reason } => break reason,
                SessionFact::ConnectFailed { .. } => panic!("failed after it was connected"),
                other => before.push(other),
            }
        };
        let after = start.elapsed();
        self.silent(Duration::from_millis(300)).await;
        Ended {
            reason,
            before,
            after,
        }
    }

    /// No fact for this long.
    pub async fn silent(&mut self, time: Duration) {
        if let Ok(fact) = timeout(time, self.facts.recv()).await {
            panic!("unexpected: {fact:?}");
        }
    }

    /// How many facts wait.
    pub fn waiting(&self) -> usize {
        self.facts.len()
    }
}

/// The link a fact is about.
pub fn link_of(fact: &SessionFact) -> u32 {
    match fact {
        SessionFact::Connected { link }
        | SessionFact::ConnectFailed { link, .. }
        | SessionFact::Disconnected { link, .. }
        | SessionFact::MessageCut { link, .. }
        | SessionFact::Ready { link, .. }
        | SessionFact::Acked { link, .. }
        | SessionFact::Processed { link, .. }
        | SessionFact::Backpressure { link, .. }
        | SessionFact::StsError { link, .. }
        | SessionFact::StreamComplete { link }
        | SessionFact::Malformed { link, .. } => *link,
        other => panic!("no fact of a link: {other:?}"),
    }
}

/// How a link ended.
#[derive(Debug)]
pub struct Ended {
    pub reason: String,
    /// What it said before, in order.
    pub before: Vec<SessionFact>,
    /// How long it took from the call.
    pub after: Duration,
}

impl Ended {
    /// The death was noticed within `bound`, for a reason that says `text`.
    pub fn within(self, bound: Duration, text: &str) -> Self {
        assert!(
            self.after <= bound,
            "noticed after {:?}, allowed {bound:?}: {self:?}",
            self.after
        );
        assert!(self.reason.contains(text), "expected {text:?} in {self:?}");
        self
    }
}

/// A fragment with `bytes` of audio.
pub fn fragment(sequence: u64, bytes: usize) -> sts_client::OutgoingFragment {
    sts_client::OutgoingFragment {
        id: format!("00000000-0000-4000-8000-{sequence:012}"),
        sequence,
        pts_ns: i64::try_from(sequence).expect("small") * 6_000_000_000,
        source_pts_ns: 0,
        duration_ms: 6_000,
        sample_rate: 48_000,
        channels: 2,
        m4a: vec![0x5a; bytes].into(),
    }
}
