//! A camera's conversation with a reader, over a real socket.

#![allow(clippy::unwrap_used, reason = "a test says by it what must not fail")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use camera::clip::{Clip, Picture, Video};
use camera::{Camera, Manner, Sent};
use rtsp_types::{Message, ParseError, Response, headers};

const PATIENCE: Duration = Duration::from_secs(10);

/// One second of pictures, ten of them.
fn clip() -> Clip {
    let pictures = (0..10).map(|n| Picture {
        pts: n * 9000,
        dts: n * 9000,
        ticks: 9000,
        keyframe: n == 0,
        nals: vec![vec![0x65, n as u8, 1]],
        sets: 0,
    });
    let sets = vec![vec![vec![0x67, 0x64, 0, 0x1f], vec![0x68, 1]]];
    Clip {
        video: Some(Video {
            sets,
            pictures: pictures.collect(),
        }),
        audio: None,
    }
}

fn camera(manner: &str) -> Camera {
    let manner: Manner = serde_json::from_str(manner).unwrap();
    Camera::start(
        "127.0.0.1:0".parse().unwrap(),
        clip(),
        manner,
        Arc::new(|_| ()),
    )
    .unwrap()
}

/// What it sent, once it knows how every session ended: a reader may see the end of the connection first.
fn sent_at_last(camera: &Camera) -> Sent {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let sent = camera.sent();
        if sent.sessions.iter().all(|session| session.ended.is_some()) {
            return sent;
        }
        assert!(Instant::now() < deadline, "not at its end: {sent:?}");
        std::thread::yield_now();
    }
}

/// A reader that speaks RTSP one message at a time.
struct Reader {
    socket: TcpStream,
    buffer: Vec<u8>,
    base: String,
}

impl Reader {
    fn connect(camera: &Camera) -> Self {
        let socket = TcpStream::connect(camera.address()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            socket,
            buffer: Vec::new(),
            base: format!("rtsp://{}/live/x/in", camera.address()),
        }
    }

    fn ask(&mut self, method: &str, control: &str, header: &str) -> Response<Vec<u8>> {
        let request = format!(
            "{method} {}{control} RTSP/1.0\r\nCSeq: 7\r\n{header}\r\n",
            self.base
        );
        self.socket.write_all(request.as_bytes()).unwrap();
        loop {
            match self.next().expect("no answer") {
                Message::Response(response) => {
                    assert_eq!(response.header(&headers::CSEQ).unwrap().as_str(), "7");
                    return response;
                }
                Message::Data(_) => {}
                Message::Request(request) => panic!("{request:?}"),
            }
        }
    }

    fn play(&mut self) -> Response<Vec<u8>> {
        assert_eq!(u16::from(self.ask("DESCRIBE", "", "").status()), 200);
        let transport = "Transport: RTP/AVP/TCP;unicast;interleaved=4-5\r\n";
        let set_up = self.ask("SETUP", "/trackID=0", transport);
        assert!(
            set_up
                .header(&headers::TRANSPORT)
                .unwrap()
                .as_str()
                .contains("interleaved=4-5")
        );
        let played = self.ask("PLAY", "", "");
        assert_eq!(u16::from(played.status()), 200);
        played
    }

    /// The next message; `None` at the end.
    fn next(&mut self) -> Option<Message<Vec<u8>>> {
        loop {
            match Message::parse(&self.buffer) {
                Ok((message, used)) => {
                    self.buffer.drain(..used);
                    return Some(message);
                }
                Err(ParseError::Error) => panic!("no RTSP: {:?}", self.buffer),
                Err(ParseError::Incomplete(_)) => {}
            }
            let mut chunk = [0; 4096];
            match self.socket.read(&mut chunk) {
                Ok(0) => return None,
                Ok(read) => self.buffer.extend(&chunk[..read]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// RTP and RTCP packets up to the end of the connection.
    fn rest(&mut self) -> (usize, usize) {
        let (mut rtp, mut rtcp) = (0, 0);
        while let Some(message) = self.next() {
            let Message::Data(data) = message else {
                panic!("{message:?}")
            };
            match data.channel_id() {
                4 => rtp += 1,
                5 => rtcp += 1,
                other => panic!("channel {other}"),
            }
        }
        (rtp, rtcp)
    }
}

#[test]
fn the_clip_begins_with_the_first_play_and_a_second_reader_joins_it() {
    let camera = camera(r#"{"session": {"rtp_info": true}}"#);
    let mut first = Reader::connect(&camera);
    let played = first.play();
    let info = played
        .header(&headers::RTP_INFO)
        .unwrap()
        .as_str()
        .to_owned();
    assert!(info.contains("/trackID=0;seq="), "{info}");
    let Some(Message::Data(packet)) = first.next() else {
        panic!("no packet")
    };
    let sequence = u16::from_be_bytes([packet.as_slice()[2], packet.as_slice()[3]]);
    assert!(info.contains(&format!("seq={sequence};")), "{info}");
    for _ in 0..4 {
        first.next();
    }
    let mut second = Reader::connect(&camera);
    second.play();
    let (late, _) = second.rest();
    assert!(late < 9, "{late} packets for who came late");
    let (rest, reports) = first.rest();
    assert!(rest + 5 >= 10 && reports >= 1, "{rest} and {reports}");
    let sent = sent_at_last(&camera);
    assert_eq!(
        (
            sent.sessions[0].pictures.len(),
            sent.sessions[1].pictures.len()
        ),
        (10, late)
    );
    assert_eq!(sent.sessions[0].ended.as_deref(), Some("played"));
    assert_eq!(sent.requests["PLAY"], 2);
    let mut third = Reader::connect(&camera);
    assert_eq!(u16::from(third.ask("DESCRIBE", "", "").status()), 404);
}

#[test]
fn refusals_are_said() {
    let plain = camera("{}");
    let mut reader = Reader::connect(&plain);
    assert_eq!(u16::from(reader.ask("PLAY", "", "").status()), 455);
    let udp = "Transport: RTP/AVP;unicast;client_port=5000-5001\r\n";
    assert_eq!(
        u16::from(reader.ask("SETUP", "/trackID=0", udp).status()),
        461
    );
    assert_eq!(
        u16::from(reader.ask("SETUP", "/trackID=7", udp).status()),
        404
    );

    let camera = camera(r#"{"session": {"login": {"user": "u", "password": "p"}}}"#);
    let mut reader = Reader::connect(&camera);
    assert_eq!(u16::from(reader.ask("OPTIONS", "", "").status()), 200);
    let refused = reader.ask("DESCRIBE", "", "");
    assert_eq!(u16::from(refused.status()), 401);
    assert!(
        refused
            .header(&headers::WWW_AUTHENTICATE)
            .unwrap()
            .as_str()
            .starts_with("Digest realm=")
    );
    assert_eq!(camera.sent().refused[&401], 1);
}

#[test]
fn a_refusal_can_be_for_a_while_and_a_path_elsewhere() {
    let camera = camera(
        r#"{"session": {"refusals": [{"method": "DESCRIBE", "status": 404, "times": 2}], "redirect": "/real"}}"#,
    );
    let mut reader = Reader::connect(&camera);
    for expected in [404, 404, 302] {
        let answer = reader.ask("DESCRIBE", "", "");
        assert_eq!(u16::from(answer.status()), expected);
        if expected == 302 {
            let to = format!("rtsp://{}/real", camera.address());
            assert_eq!(answer.header(&headers::LOCATION).unwrap().as_str(), to);
            reader.base = to;
        }
    }
    assert_eq!(u16::from(reader.ask("DESCRIBE", "", "").status()), 200);
}

#[test]
fn connections_fail_as_they_are_told() {
    for how in ["close", "reset"] {
        let camera = camera(&format!(
            r#"{{"faults": [{{"at": 0.35, "how": "{how}"}}]}}"#
        ));
        let mut reader = Reader::connect(&camera);
        reader.play();
        let (rtp, _) = reader.rest();
        assert_eq!(rtp, 4, "{how}");
        // Whoever comes again is not cut.
        let mut reader = Reader::connect(&camera);
        reader.play();
        assert!(reader.rest().0 >= 3);
    }
}

#[test]
fn a_half_open_connection_says_nothing_at_all() {
    let camera = camera(r#"{"faults": [{"at": 0.2, "how": "half_open"}]}"#);
    let mut reader = Reader::connect(&camera);
    reader.play();
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(500) {
        reader
            .socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let _ = reader.socket.read(&mut [0; 4096]);
    }
    reader
        .socket
        .write_all(b"OPTIONS * RTSP/1.0\r\nCSeq: 8\r\n\r\n")
        .unwrap();
    let read = reader
        .socket
        .read(&mut [0; 16])
        .map_err(|error| error.kind());
    assert_eq!(read, Err(ErrorKind::WouldBlock));
}

#[test]
fn a_session_without_requests_is_cut_if_that_is_enforced() {
    let manner = r#"{"repeat": true, "session": {"timeout": 1, "enforced": true}}"#;
    let camera = camera(manner);
    let mut reader = Reader::connect(&camera);
    reader.play();
    let started = Instant::now();
    reader.rest();
    assert!(
        started.elapsed() >= Duration::from_millis(900),
        "{:?}",
        started.elapsed()
    );
    let mut reader = Reader::connect(&camera);
    reader.play();
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(400));
        assert_eq!(u16::from(reader.ask("GET_PARAMETER", "", "").status()), 200);
    }
    let ended: Vec<_> = camera
        .sent()
        .sessions
        .into_iter()
        .map(|session| session.ended)
        .collect();
    assert_eq!(ended, [Some("timed out".to_owned()), None]);
}

#[test]
fn what_is_no_rtsp_is_closed() {
    let camera = camera("{}");
    let mut reader = Reader::connect(&camera);
    reader
        .socket
        .write_all(b"\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n")
        .unwrap();
    assert!(reader.next().is_none());
}
