//! A small RTMP server for one connection.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use rml_rtmp::sessions::{
    ServerSession, ServerSessionConfig, ServerSessionEvent, ServerSessionResult,
};

/// What the server does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Everything.
    Takes,
    /// Says that somebody else publishes under the name.
    NameTaken,
    HangsUpAtConnect,
    /// After so many video messages.
    HangsUpAfter(usize),
    /// Once the stream is accepted.
    StopsReading,
}

/// What it saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// Application and stream.
    Published(String, String),
    Video {
        at: u32,
        data: Vec<u8>,
    },
    /// Bytes of the FLV tag.
    Audio(usize),
}

pub(super) struct Server {
    pub(super) port: u16,
    seen: Receiver<Seen>,
}

impl Server {
    pub(super) fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, seen) = channel();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut peer = Peer {
                stream,
                manner,
                seen: sender,
                videos: 0,
            };
            peer.run();
        });
        Self { port, seen }
    }

    /// All it saw until the client left.
    pub(super) fn finish(self) -> Vec<Seen> {
        let mut all = Vec::new();
        while let Ok(seen) = self.seen.recv_timeout(Duration::from_secs(10)) {
            all.push(seen);
        }
        all
    }
}

struct Peer {
    stream: TcpStream,
    manner: Manner,
    seen: Sender<Seen>,
    videos: usize,
}

impl Peer {
    /// `None` once the connection is over.
    fn run(&mut self) -> Option<()> {
        let mut buffer = vec![0; 1 << 16];
        let mut handshake = Handshake::new(PeerType::Server);
        let rest = loop {
            let length = self.read(&mut buffer)?;
            match handshake.process_bytes(&buffer[..length]).unwrap() {
                HandshakeProcessResult::InProgress { response_bytes } => {
                    self.stream.write_all(&response_bytes).ok()?;
                }
                HandshakeProcessResult::Completed {
                    response_bytes,
                    remaining_bytes,
                } => {
                    self.stream.write_all(&response_bytes).ok()?;
                    break remaining_bytes;
                }
            }
        };
        let (mut session, results) = ServerSession::new(ServerSessionConfig::new()).unwrap();
        self.answer(&mut session, results)?;
        let results = session.handle_input(&rest).unwrap();
        self.answer(&mut session, results)?;
        loop {
            let length = self.read(&mut buffer)?;
            let results = session.handle_input(&buffer[..length]).unwrap();
            self.answer(&mut session, results)?;
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        self.stream.read(buffer).ok().filter(|length| *length > 0)
    }

    fn answer(
        &mut self,
        session: &mut ServerSession,
        results: Vec<ServerSessionResult>,
    ) -> Option<()> {
        for result in results {
            match result {
                ServerSessionResult::OutboundResponse(packet) => {
                    self.stream.write_all(&packet.bytes).ok()?;
                }
                ServerSessionResult::RaisedEvent(event) => self.event(session, event)?,
                ServerSessionResult::UnhandleableMessageReceived(_) => {}
            }
        }
        Some(())
    }

    fn event(&mut self, session: &mut ServerSession, event: ServerSessionEvent) -> Option<()> {
        use ServerSessionEvent as E;
        let mut accepted = None;
        let seen = match event {
            E::ConnectionRequested { .. } if self.manner == Manner::HangsUpAtConnect => {
                return None;
            }
            E::ConnectionRequested { request_id, .. } => {
                let results = session.accept_request(request_id).unwrap();
                return self.answer(session, results);
            }
            E::PublishStreamRequested { .. } if self.manner == Manner::NameTaken => {
                self.stream.write_all(&name_taken()).ok()?;
                return Some(());
            }
            E::PublishStreamRequested {
                request_id,
                app_name,
                stream_key,
                ..
            } => {
                accepted = Some(session.accept_request(request_id).unwrap());
                Seen::Published(app_name, stream_key)
            }
            E::VideoDataReceived {
                data, timestamp, ..
            } => {
                self.videos += 1;
                if self.manner == Manner::HangsUpAfter(self.videos) {
                    return None;
                }
                Seen::Video {
                    at: timestamp.value,
                    data: data.to_vec(),
                }
            }
            E::AudioDataReceived { data, .. } => Seen::Audio(data.len()),
            _ => return Some(()),
        };
        // The test may have seen enough.
        let _ = self.seen.send(seen);
        if let Some(results) = accepted {
            self.answer(session, results)?;
            if self.manner == Manner::StopsReading {
                // As long as the test keeps its end open.
                while self.stream.peek(&mut [0]).is_ok_and(|n| n > 0) {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
        Some(())
    }
}

/// `onStatus` as nginx sends it: one chunk on a stream of its own.
fn name_taken() -> Vec<u8> {
    fn text(out: &mut Vec<u8>, text: &str) {
        out.extend((text.len() as u16).to_be_bytes());
        out.extend(text.as_bytes());
    }
    let mut body = vec![2];
    text(&mut body, "onStatus");
    body.push(0);
    body.extend(0_f64.to_be_bytes());
    body.extend([5, 3]);
    for (key, value) in [
        ("level", "error"),
        ("code", "NetStream.Publish.BadName"),
        ("description", "Already publishing"),
    ] {
        text(&mut body, key);
        body.push(2);
        text(&mut body, value);
    }
    body.extend([0, 0, 9]);
    let mut chunk = vec![5, 0, 0, 0, 0];
    chunk.extend(&(body.len() as u16).to_be_bytes());
    chunk.push(20);
    chunk.extend(1_u32.to_le_bytes());
    chunk.extend(body);
    chunk
}
