//! The publisher against RTSP servers: a scripted one in this file, and the relay with a real reader.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Instant;

use rtsp_types::{Message, Method, ParseError, Response, StatusCode, Version, headers};

use super::*;
use crate::media::publish::{Cue, PublishError, RtspUrl, Summary, publish};
use crate::probe::ffprobe;

/// What the scripted server saw.
#[derive(Debug)]
enum Seen {
    Request(Method),
    Data(u8, Vec<u8>),
}

/// How the scripted server answers a request; `None` closes the connection.
type Script = fn(&Method, Option<&str>) -> Option<StatusCode>;

const AGREE: Script = |_, _| Some(StatusCode::Ok);

/// Serves one connection; gives its address and, in the end, all that arrived.
fn serve(script: Script) -> (String, JoinHandle<Vec<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let (mut seen, mut pending, mut chunk) = (Vec::new(), Vec::new(), vec![0; 65_536]);
        loop {
            match Message::<Vec<u8>>::parse(&pending) {
                Ok((Message::Data(data), used)) => {
                    seen.push(Seen::Data(data.channel_id(), data.into_body()));
                    pending.drain(..used);
                }
                Ok((Message::Request(request), used)) => {
                    pending.drain(..used);
                    let authorization = request
                        .header(&headers::AUTHORIZATION)
                        .map(|value| value.as_str().to_owned());
                    let answer = script(request.method(), authorization.as_deref());
                    seen.push(Seen::Request(request.method().clone()));
                    let Some(status) = answer else { return seen };
                    respond(&mut socket, &request, status);
                }
                Ok(_) => panic!("the publisher answers nobody"),
                Err(ParseError::Incomplete(_)) => match socket.read(&mut chunk).unwrap() {
                    0 => return seen,
                    count => pending.extend(&chunk[..count]),
                },
                Err(ParseError::Error) => panic!("not RTSP"),
            }
        }
    });
    (format!("rtsp://{address}/live/test/in"), server)
}

fn respond(socket: &mut TcpStream, request: &rtsp_types::Request<Vec<u8>>, status: StatusCode) {
    let cseq = request.header(&headers::CSEQ).unwrap().as_str().to_owned();
    let mut response = Response::builder(Version::V1_0, status).header(headers::CSEQ, cseq);
    if status == StatusCode::Unauthorized {
        response = response.header(headers::WWW_AUTHENTICATE, "Basic realm=\"ipcam\"");
    }
    if *request.method() == Method::Setup {
        // Other channels than those asked for: the server has the last word.
        let asked = request.header(&headers::TRANSPORT).unwrap().as_str();
        let given = asked
            .replace("interleaved=0-1", "interleaved=4-5")
            .replace("interleaved=2-3", "interleaved=6-7");
        response = response
            .header(headers::TRANSPORT, given)
            .header(headers::SESSION, "42;timeout=60");
    }
    let mut bytes = Vec::new();
    response.build(Vec::new()).write(&mut bytes).unwrap();
    socket.write_all(&bytes).unwrap();
}

/// Tells the test each line as it is printed.
struct Lines(Sender<String>, Vec<u8>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.1.extend(bytes);
        while let Some(end) = self.1.iter().position(|&byte| byte == b'\n') {
            let line = self.1.drain(..=end).collect::<Vec<_>>();
            let _ = self
                .0
                .send(String::from_utf8_lossy(&line).trim().to_owned());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Running {
    cues: Sender<Cue>,
    lines: Receiver<String>,
    publisher: JoinHandle<Result<Summary, PublishError>>,
}

/// Publishes in a thread, holding until told.
fn start(url: &str, arguments: &str) -> Running {
    let (url, options): (RtspUrl, _) = (url.parse().unwrap(), options(arguments));
    let clip = select(clip(testclip::PLAIN), &options).unwrap();
    let (notes, cues) = mpsc::channel();
    let (say, lines) = mpsc::channel();
    let sender = notes.clone();
    let publisher = std::thread::spawn(move || {
        let hold = Some(Duration::from_secs(20));
        publish(
            &clip,
            &url,
            &options,
            hold,
            (notes, cues),
            &mut Lines(say, Vec::new()),
        )
    });
    Running {
        cues: sender,
        lines,
        publisher,
    }
}

impl Running {
    fn line(&self) -> String {
        self.lines.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    fn error(self) -> String {
        self.publisher.join().unwrap().unwrap_err().to_string()
    }
}

fn requests(seen: &[Seen]) -> Vec<&str> {
    let methods = seen.iter().filter_map(|seen| match seen {
        Seen::Request(method) => Some(method.into()),
        Seen::Data(..) => None,
    });
    methods.collect()
}

#[test]
fn media_is_held_until_go_and_everything_arrives() {
    let (url, server) = serve(AGREE);
    let running = start(&url, "--end-at 0.5");
    assert_eq!(running.line(), "announced");
    assert!(
        running
            .lines
            .recv_timeout(Duration::from_millis(200))
            .is_err(),
        "nothing before go"
    );
    let go = Instant::now();
    running.cues.send(Cue::Go).unwrap();
    assert!(running.line().starts_with("first_packet "));
    assert_eq!(running.line(), "done video=15 audio=24");
    let took = go.elapsed().as_secs_f64();
    assert!((0.5..1.0).contains(&took), "real time, not {took} s");
    running.publisher.join().unwrap().unwrap();

    let seen = server.join().unwrap();
    assert_eq!(
        requests(&seen),
        ["ANNOUNCE", "SETUP", "SETUP", "RECORD", "TEARDOWN"]
    );
    let record = seen
        .iter()
        .position(|seen| matches!(seen, Seen::Request(Method::Record)))
        .unwrap();
    assert!(
        seen[..record]
            .iter()
            .all(|seen| matches!(seen, Seen::Request(..)))
    );
    let count = |wanted: u8| {
        seen.iter()
            .filter(|seen| matches!(seen, Seen::Data(channel, _) if *channel == wanted))
            .count()
    };
    assert_eq!((count(5), count(7)), (2, 2), "a report and a farewell each");
    assert_eq!(count(6), 24);
    let farewell = seen.iter().rev().find_map(|seen| match seen {
        Seen::Data(_, packet) => Some(packet[packet.len() - 7]),
        Seen::Request(..) => None,
    });
    assert_eq!(farewell, Some(203));
}

#[test]
fn a_dropped_connection_has_no_farewell() {
    for arguments in ["--stop-at 0.3", "--end-at 0.3 --drop-at-end"] {
        let (url, server) = serve(AGREE);
        let running = start(&url, arguments);
        running.cues.send(Cue::Go).unwrap();
        assert_eq!(
            running.publisher.join().unwrap().unwrap(),
            Summary {
                video: 9,
                audio: 15
            }
        );
        let seen = server.join().unwrap();
        assert_eq!(requests(&seen).last(), Some(&"RECORD"), "{arguments}");
        assert!(!seen.iter().any(
            |seen| matches!(seen, Seen::Data(5 | 7, packet) if packet[packet.len() - 7] == 203)
        ));
    }
}

#[test]
fn credentials_are_given_when_asked_for_and_never_shown() {
    let script: Script = |_, authorization| {
        Some(if authorization == Some("Basic dXNlcjpwQHNz") {
            StatusCode::Ok
        } else {
            StatusCode::Unauthorized
        })
    };
    let (url, server) = serve(script);
    let running = start(
        &url.replace("rtsp://", "rtsp://user:p%40ss@"),
        "--end-at 0.1",
    );
    running.cues.send(Cue::Go).unwrap();
    running.publisher.join().unwrap().unwrap();
    assert_eq!(
        requests(&server.join().unwrap())[..3],
        ["ANNOUNCE", "ANNOUNCE", "SETUP"]
    );

    let (url, _server) = serve(|_, _| Some(StatusCode::Unauthorized));
    let error = start(&url.replace("rtsp://", "rtsp://user:secret@"), "").error();
    assert!(
        error.ends_with("refused ANNOUNCE: 401 Unauthorized; the credentials in the URL are wrong"),
        "{error}"
    );
    assert!(!error.contains("secret"), "{error}");
    let error = "http://user:secret@host/x"
        .parse::<RtspUrl>()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("must begin with rtsp://") && !error.contains("secret"),
        "{error}"
    );
}

#[test]
fn whatever_goes_wrong_is_one_clear_sentence() {
    let (url, _server) = serve(|_, _| Some(StatusCode::NotFound));
    let error = start(&url, "").error();
    assert_eq!(
        error,
        format!("{url} refused ANNOUNCE: 404 Not Found; the server does not know this path")
    );

    let (url, _server) = serve(|method, _| (*method != Method::Record).then_some(StatusCode::Ok));
    assert_eq!(
        start(&url, "").error(),
        format!("{url} closed the connection instead of answering RECORD")
    );

    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let error = start(&format!("rtsp://{free}/x"), "").error();
    assert_eq!(
        error,
        format!("cannot connect to rtsp://{free}/x: connection refused, nothing listens there")
    );

    let (url, _server) = serve(AGREE);
    let running = start(&url, "");
    running.cues.send(Cue::InputEnded).unwrap();
    assert!(
        running
            .error()
            .starts_with("standard input ended before it said 'go'")
    );
}

#[test]
fn a_server_that_leaves_ends_the_publisher_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("rtsp://{}/x", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let (mut pending, mut chunk) = (Vec::new(), vec![0; 65_536]);
        // Answers everything until media flows, then leaves.
        loop {
            match Message::<Vec<u8>>::parse(&pending) {
                Ok((Message::Request(request), used)) => {
                    pending.drain(..used);
                    respond(&mut socket, &request, StatusCode::Ok);
                }
                Ok(_) => return socket.shutdown(Shutdown::Both).unwrap(),
                Err(_) => {
                    let count = socket.read(&mut chunk).unwrap();
                    pending.extend(&chunk[..count]);
                }
            }
        }
    });
    let running = start(&url, "");
    running.cues.send(Cue::Go).unwrap();
    let begin = Instant::now();
    let error = running.error();
    assert!(error.contains("closed the connection"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(2));
    server.join().unwrap();
}

#[test]
fn a_reader_behind_the_relay_gets_every_frame() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let local = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let relay = runtime
        .block_on(crate::rtsp_relay::Relay::bind(local, local))
        .unwrap();
    let url = format!("rtsp://{}/live/test/in", relay.rtsp_addr().unwrap());
    let api = format!(
        "http://{}/v3/paths/get/live/test/in",
        relay.api_addr().unwrap()
    );
    runtime.spawn(relay.serve());

    let running = start(&url, "");
    assert_eq!(running.line(), "announced");
    let reader = {
        let url = url.clone();
        std::thread::spawn(move || ffprobe::packets(&url, "", Duration::from_secs(20)))
    };
    crate::wait::until("a reader at the relay", Duration::from_secs(10), || {
        let answer = ureq::get(&api).call()?.body_mut().read_to_string()?;
        let path: serde_json::Value = serde_json::from_str(&answer)?;
        Ok(
            if path["readers"]
                .as_array()
                .is_some_and(|readers| !readers.is_empty())
            {
                crate::wait::Look::Done(())
            } else {
                crate::wait::Look::NotYet(answer)
            },
        )
    })
    .unwrap();
    running.cues.send(Cue::Go).unwrap();
    let summary = running.publisher.join().unwrap().unwrap();
    assert_eq!(
        summary,
        Summary {
            video: 90,
            audio: 141
        }
    );

    let packets = reader.join().unwrap().unwrap();
    let sent = clip(testclip::PLAIN);
    let sizes = |stream: usize| -> Vec<usize> {
        packets
            .iter()
            .filter(|packet| packet.stream_index == stream)
            .filter_map(|packet| packet.size)
            .collect()
    };
    assert_eq!(sizes(0).len(), 90);
    let audio: Vec<usize> = sent
        .audio
        .as_ref()
        .unwrap()
        .samples
        .iter()
        .map(|sample| sample.range.len())
        .collect();
    assert_eq!(sizes(1), audio);
    runtime.shutdown_timeout(Duration::from_secs(1));
}
