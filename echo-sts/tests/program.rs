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
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};

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
async fn a_journal_file_has_one_line_per_event_without_audio_even_at_trace_level() {
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

#[tokio::test]
async fn the_transport_is_closed_too_after_a_stream_is_complete() {
    let config = Config {
        close_after: Duration::from_millis(100),
        ..Config::default()
    };
    let server = server(config).await;
    let url = format!(
        "ws://{}/socket.io/?EIO=4&transport=websocket",
        server.addr()
    );
    let request = url.into_client_request().unwrap();
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    // What is sent, and how the answer to it starts.
    let talk = [
        ("40", "40{"),
        (
            r#"42["stream:init",{"stream_id":"s","worker_id":"w"}]"#,
            r#"42["stream:ready""#,
        ),
        (
            r#"42["stream:end",{"stream_id":"s"}]"#,
            r#"42["stream:complete""#,
        ),
    ];
    for (packet, start) in talk {
        socket.send(Message::text(packet)).await.unwrap();
        let answer = tokio::time::timeout(PATIENCE, async {
            loop {
                let message = socket.next().await.unwrap().unwrap().into_text().unwrap();
                if message.starts_with(start) {
                    return;
                }
            }
        });
        answer
            .await
            .unwrap_or_else(|_| panic!("no {start} after {packet}"));
    }
    let mut last = Vec::new();
    let end = tokio::time::timeout(PATIENCE, async {
        while let Some(Ok(message)) = socket.next().await {
            last.push(message.into_text().unwrap().to_string());
        }
    });
    end.await.expect("the connection must end");
    last.retain(|packet| packet != "2" && !packet.is_empty());
    assert_eq!(last, ["41"], "told before");
    server.shutdown().await;
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
    let url = format!(
        "ws://{}/socket.io/?EIO=4&transport=websocket",
        server.addr()
    );
    let (mut silent, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    silent.send(Message::text("40")).await.unwrap();
    let start = Instant::now();
    let ended = tokio::time::timeout(PATIENCE, async {
        while let Some(Ok(_)) = silent.next().await {}
    });
    ended.await.expect("the connection must end");
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
    let url = format!("ws://{addr}/socket.io/?EIO=4&transport=websocket");
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    socket.send(Message::text("40")).await.unwrap();
    let client = Client::worker(&server, "s").await;
    client.signal(WorkerMessage::Pause).await;
    let start = Instant::now();
    server.shutdown().await;
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    let ended = tokio::time::timeout(PATIENCE, async {
        while let Some(Ok(_)) = socket.next().await {}
    });
    ended.await.expect("the connection must end");
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
