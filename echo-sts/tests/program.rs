//! The program and its connections as an operator meets them.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use echo_sts::{Config, StartError};
use futures_util::{SinkExt, StreamExt};
use sts_protocol::{JournalEntry, WorkerMessage};
use support::{Client, Hello, PATIENCE, server};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

/// The program, killed when the test is over.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    fn start(args: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_echo-sts"))
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// The address on its first line of output.
    fn addr(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.0.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        line.trim()
            .strip_prefix("listening on http://")
            .unwrap_or_else(|| panic!("{line:?}"))
            .to_owned()
    }

    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        assert!(
            Command::new("kill")
                .args([name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Its exit code and standard error.
    fn end(mut self, within: Duration) -> (i32, String) {
        let deadline = Instant::now() + within;
        let status = loop {
            match self.0.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > deadline => panic!("still running after {within:?}"),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let mut text = String::new();
        self.0
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        (status.code().unwrap(), text)
    }
}

fn get(addr: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn it_is_ready_in_two_seconds_answers_health_and_ends_on_a_signal() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal.jsonl");
    for signal in ["-TERM", "-INT"] {
        let start = Instant::now();
        let mut program = Program::start(&[
            "--listen=127.0.0.1:0",
            "--journal",
            journal.to_str().unwrap(),
            "--log-format=json",
        ]);
        let addr = program.addr();
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
        assert!(get(&addr, "/health").starts_with("HTTP/1.1 200 "));
        assert!(get(&addr, "/nothing").starts_with("HTTP/1.1 404 "));
        // A client that is connected and silent does not hold it up.
        let mut idle = TcpStream::connect(&addr).unwrap();
        write!(idle, "GET /health HTTP/1.1\r\nHost: x\r\n").unwrap();
        program.signal(signal);
        let (code, log) = program.end(Duration::from_secs(2));
        assert_eq!(code, 0, "{log}");
        for line in log.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(
                line["event"].is_string() && line["level"].is_string(),
                "{line}"
            );
        }
    }
    assert_eq!(
        std::fs::read_to_string(journal).unwrap(),
        "",
        "nobody connected"
    );
}

#[test]
fn options_that_are_not_acceptable_end_it_with_2_and_a_reason() {
    let (code, text) = Program::start(&["--audio-mode", "loud"]).end(PATIENCE);
    assert_eq!(code, 2);
    assert!(text.contains("--audio-mode") && text.contains("'loud'") && text.contains("mark"));
}

#[test]
fn an_address_in_use_ends_it_with_1_and_a_reason() {
    let mut first = Program::start(&["--listen=127.0.0.1:0"]);
    let addr = first.addr();
    let (code, text) = Program::start(&["--listen", &addr]).end(PATIENCE);
    assert_eq!(code, 1);
    assert!(text.contains(&format!("cannot listen on {addr}")), "{text}");
    let (code, text) =
        Program::start(&["--listen=127.0.0.1:0", "--journal=/no/where"]).end(PATIENCE);
    assert_eq!(code, 1);
    assert!(
        text.contains("cannot write the journal to /no/where"),
        "{text}"
    );
}

#[tokio::test]
async fn a_journal_file_has_one_line_per_event_and_no_audio() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    let config = Config {
        journal: Some(path.clone()),
        ..Config::default()
    };
    let server = server(config).await;
    let mut client = Client::worker(&server, "s").await;
    client.fragment("SECRETAUDIO+").await;
    client.processed().await;
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<JournalEntry> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let events: Vec<_> = lines.iter().map(|line| line.event.as_str()).collect();
    assert_eq!(
        events,
        [
            "connect",
            "stream:init",
            "stream:ready",
            "fragment:data",
            "fragment:ack",
            "fragment:processed",
        ]
    );
    assert!(!text.contains("SECRETAUDIO"));
    assert_eq!((lines[3].bytes, lines[5].bytes), (Some(12), Some(12)));
    server.shutdown().await;
}

/// A bare WebSocket to a server, for what a Socket.IO client hides.
struct Raw(WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>);

impl Raw {
    async fn connect(addr: &str) -> Self {
        let url = format!("ws://{addr}/socket.io/?EIO=4&transport=websocket");
        Self(tokio_tungstenite::connect_async(url).await.unwrap().0)
    }

    async fn send(&mut self, packet: &str) {
        self.0.send(Message::text(packet)).await.unwrap();
    }

    /// Sends a packet and waits for the one that answers it.
    async fn ask(&mut self, packet: &str, answer: &str) {
        self.send(packet).await;
        let search = tokio::time::timeout(PATIENCE, async {
            loop {
                let message = self.0.next().await.unwrap().unwrap().into_text().unwrap();
                if message.starts_with(answer) {
                    return;
                }
            }
        });
        search
            .await
            .unwrap_or_else(|_| panic!("no {answer} after {packet}"));
    }

    /// Everything but pings until the connection ends, which it must.
    async fn rest(&mut self) -> Vec<String> {
        let mut heard = Vec::new();
        let end = tokio::time::timeout(PATIENCE, async {
            while let Some(Ok(message)) = self.0.next().await {
                heard.push(message.into_text().unwrap().to_string());
            }
        });
        end.await.expect("the connection must end");
        heard.retain(|packet| packet != "2" && !packet.is_empty());
        heard
    }
}

const INIT: &str = r#"42["stream:init",{"stream_id":"s","worker_id":"w"}]"#;

#[tokio::test]
async fn the_transport_is_closed_too_after_a_stream_is_complete() {
    let config = Config {
        close_after: Duration::from_millis(100),
        ..Config::default()
    };
    let server = server(config).await;
    let mut client = Raw::connect(&server.addr().to_string()).await;
    client.ask("40", "40{").await;
    client.ask(INIT, r#"42["stream:ready""#).await;
    client
        .ask(
            r#"42["stream:end",{"stream_id":"s"}]"#,
            r#"42["stream:complete""#,
        )
        .await;
    assert_eq!(client.rest().await, ["41"], "it is told before");
    server.shutdown().await;
}

/// The library announces a connection before it lets anybody emit to it, and works on the CONNECT packet
/// beside what follows: an init close behind it found no socket (the connection was closed), or its
/// `stream:ready` was lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_init_in_one_burst_with_the_connect_packet_is_answered_a_thousand_times() {
    let server = server(Config::default()).await;
    let addr = server.addr().to_string();
    for burst in 0..1_000 {
        let mut client = Raw::connect(&addr).await;
        if burst % 2 == 0 {
            client.0.feed(Message::text("40")).await.unwrap();
            client.ask(INIT, r#"42["stream:ready""#).await;
        } else {
            client.ask("40", "40{").await;
            client.ask(INIT, r#"42["stream:ready""#).await;
        }
        client.0.close(None).await.unwrap();
    }
    server.shutdown().await;
}

#[tokio::test]
async fn not_even_the_most_talkative_log_shows_audio_or_the_token() {
    let mut program = Program::start(&[
        "--listen=127.0.0.1:0",
        "--log-level=trace",
        "--auth-token=SECRETTOKEN",
    ]);
    let mut client = Raw::connect(&program.addr()).await;
    client.ask(r#"40{"token":"SECRETTOKEN"}"#, "40{").await;
    client.ask(INIT, r#"42["stream:ready""#).await;
    let data = serde_json::to_string(&support::fragment("s", 0, "SECRETAUDIO+")).unwrap();
    client
        .ask(
            &format!(r#"42["fragment:data",{data}]"#),
            r#"42["fragment:processed""#,
        )
        .await;
    client
        .ask(
            r#"42["fragment:data",{"audio":"SECRETAUDIO+"}]"#,
            r#"42["error""#,
        )
        .await;
    program.signal("-TERM");
    let (_, log) = program.end(PATIENCE);
    assert!(
        log.contains("fragment:data") && log.contains("fragment:processed"),
        "{log}"
    );
    assert!(!log.contains("SECRET"), "{log}");
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_dropped() {
    let config = Config {
        ping_interval: Duration::from_millis(50),
        ping_timeout: Duration::from_millis(100),
        ..Config::default()
    };
    let server = server(config).await;
    let mut alive = Client::worker(&server, "alive").await;
    let mut silent = Raw::connect(&server.addr().to_string()).await;
    silent.send("40").await;
    let start = Instant::now();
    silent.rest().await;
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    let gone = |entries: &[JournalEntry]| entries.iter().any(|e| e.event == "disconnect");
    let entries = server.journal().wait_for(PATIENCE, gone).await.unwrap();
    let end = entries.iter().find(|e| e.event == "disconnect").unwrap();
    assert_eq!(
        end.stream_id, None,
        "the one that answers pings stays: {end:?}"
    );
    alive.fragment("AAAA").await;
    alive.processed().await;
    server.shutdown().await;
}

#[tokio::test]
async fn long_polling_is_not_offered() {
    let server = server(Config::default()).await;
    let addr = server.addr().to_string();
    let path = "/socket.io/?EIO=4&transport=polling";
    let answer = tokio::task::spawn_blocking(move || get(&addr, path))
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    server.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_tells_clients_and_frees_the_port() {
    let server = server(Config::default()).await;
    let addr = server.addr();
    let mut socket = Raw::connect(&addr.to_string()).await;
    socket.ask("40", "40{").await;
    let client = Client::worker(&server, "s").await;
    client.signal(WorkerMessage::Pause).await;
    let start = Instant::now();
    server.shutdown().await;
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    socket.rest().await;
    let again = server_at(addr).await;
    Client::connect(&again, Hello::default()).await.unwrap();
    again.shutdown().await;
}

/// A server on an address that was just in use.
async fn server_at(listen: std::net::SocketAddr) -> echo_sts::Running {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match echo_sts::Server::start(Config {
            listen,
            ..Config::default()
        })
        .await
        {
            Ok(server) => return server,
            Err(StartError::Listen { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}
