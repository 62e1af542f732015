//! The publisher's end of an RTSP 1.0 connection: ANNOUNCE, SETUP, RECORD, interleaved media, TEARDOWN.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream, ToSocketAddrs as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine as _;
use rtsp_types::headers::{
    AUTHORIZATION, CONTENT_TYPE, CSEQ, RANGE, SESSION, TRANSPORT, USER_AGENT, WWW_AUTHENTICATE,
};
use rtsp_types::{Message, Method, ParseError, Request, Response, StatusCode, Version};

use super::address::{PublishError, RtspUrl};
use super::run::Cue;

/// A server that does not answer within this time is not there.
const ANSWER: Duration = Duration::from_secs(5);
/// A server that takes nothing for this long has stopped reading.
const WRITE: Duration = Duration::from_secs(10);

/// A connection on which a session is set up.
pub(super) struct Connection {
    url: RtspUrl,
    socket: TcpStream,
    cues: Receiver<Cue>,
    reader: Option<JoinHandle<()>>,
    cseq: u32,
    session: Option<String>,
    authorization: Option<String>,
    /// The interleaved channel of each track's RTP; its RTCP has the next one.
    channels: Vec<u8>,
    /// What arrived from elsewhere while an answer was awaited.
    early: VecDeque<Cue>,
}

impl Connection {
    /// Connects; whatever the server says arrives at `cues`, among what others put there.
    pub(super) fn open(
        url: &RtspUrl,
        notes: Sender<Cue>,
        cues: Receiver<Cue>,
    ) -> Result<Self, PublishError> {
        let failed = |reason: String| PublishError::Connect {
            url: url.to_string(),
            reason,
        };
        let host = url
            .plain
            .host_str()
            .unwrap_or_default()
            .trim_matches(['[', ']']);
        let addresses = (host, url.plain.port().unwrap_or(554))
            .to_socket_addrs()
            .map_err(|_| failed(format!("the host '{host}' is not known")))?;
        let mut last = failed("its name has no address".into());
        for address in addresses {
            match TcpStream::connect_timeout(&address, ANSWER) {
                Ok(socket) => return Self::start(url, socket, notes, cues),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    last = failed("connection refused, nothing listens there".into());
                }
                Err(error) => last = failed(error.to_string()),
            }
        }
        Err(last)
    }

    fn start(
        url: &RtspUrl,
        socket: TcpStream,
        notes: Sender<Cue>,
        cues: Receiver<Cue>,
    ) -> Result<Self, PublishError> {
        let failed = |error: std::io::Error| PublishError::Connect {
            url: url.to_string(),
            reason: error.to_string(),
        };
        socket.set_nodelay(true).map_err(failed)?;
        socket.set_write_timeout(Some(WRITE)).map_err(failed)?;
        let incoming = socket.try_clone().map_err(failed)?;
        let reader = std::thread::spawn(move || listen(incoming, &notes));
        Ok(Self {
            url: url.clone(),
            socket,
            cues,
            reader: Some(reader),
            cseq: 0,
            session: None,
            authorization: None,
            channels: Vec::new(),
            early: VecDeque::new(),
        })
    }

    /// Announces a session description and sets up its tracks for recording.
    pub(super) fn record(&mut self, description: &str, tracks: usize) -> Result<(), PublishError> {
        let announce = |connection: &mut Self| {
            let request = connection
                .request(Method::Announce, "")
                .header(CONTENT_TYPE, "application/sdp");
            connection.exchange(&request.build(description.as_bytes().to_vec()))
        };
        let mut answer = announce(self)?;
        if answer.status() == StatusCode::Unauthorized && self.authorize(&answer) {
            answer = announce(self)?;
        }
        self.accepted("ANNOUNCE", &answer)?;
        for track in 0..tracks {
            let channel = track as u8 * 2;
            let transport = format!(
                "RTP/AVP/TCP;unicast;interleaved={channel}-{};mode=record",
                channel + 1
            );
            let request = self
                .request(Method::Setup, &format!("streamid={track}"))
                .header(TRANSPORT, transport);
            let answer = self.exchange(&request.build(Vec::new()))?;
            self.accepted("SETUP", &answer)?;
            if let Some(session) = answer.header(&SESSION) {
                let id = session
                    .as_str()
                    .split(';')
                    .next()
                    .unwrap_or_default()
                    .trim();
                self.session = Some(id.to_owned());
            }
            self.channels.push(
                answer
                    .header(&TRANSPORT)
                    .and_then(|value| interleaved(value.as_str()))
                    .unwrap_or(channel),
            );
        }
        let request = self.request(Method::Record, "").header(RANGE, "npt=0.000-");
        let answer = self.exchange(&request.build(Vec::new()))?;
        self.accepted("RECORD", &answer)
    }

    /// Tells the server that the session is still wanted.
    pub(super) fn keep_alive(&mut self) -> Result<(), PublishError> {
        let request = self.request(Method::Options, "").build(Vec::new());
        self.exchange(&request).map(|_| ())
    }

    /// Sends packets of one track, RTP or RTCP.
    pub(super) fn send(
        &mut self,
        track: usize,
        rtcp: bool,
        packets: &[Vec<u8>],
    ) -> Result<(), PublishError> {
        let channel = self.channels[track] + u8::from(rtcp);
        let mut bytes = Vec::with_capacity(packets.iter().map(|packet| 4 + packet.len()).sum());
        for packet in packets {
            bytes.extend([b'$', channel]);
            bytes.extend((packet.len() as u16).to_be_bytes());
            bytes.extend(packet);
        }
        self.write(&bytes)
    }

    /// What has arrived, waiting at most until `until`.
    pub(super) fn wait(&mut self, until: Instant) -> Option<Cue> {
        self.early.pop_front().or_else(|| self.receive(until))
    }

    fn receive(&self, until: Instant) -> Option<Cue> {
        match self
            .cues
            .recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            Ok(cue) => Some(cue),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                Some(Cue::Closed("closed the connection".into()))
            }
        }
    }

    /// Ends the session in good order; a server that is already gone is as good as one that agrees.
    pub(super) fn tear_down(mut self) {
        let request = self.request(Method::Teardown, "").build(Vec::new());
        let _ = self.exchange(&request);
    }

    fn request(&mut self, method: Method, control: &str) -> rtsp_types::RequestBuilder {
        self.cseq += 1;
        let mut target = self.url.plain.clone();
        if !control.is_empty() {
            target.set_path(&format!(
                "{}/{control}",
                target.path().trim_end_matches('/')
            ));
        }
        let mut request = Request::builder(method, Version::V1_0)
            .request_uri(target)
            .header(CSEQ, self.cseq.to_string())
            .header(USER_AGENT, "e2e-publisher");
        if let Some(session) = &self.session {
            request = request.header(SESSION, session.as_str());
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.as_str());
        }
        request
    }

    fn exchange(&mut self, request: &Request<Vec<u8>>) -> Result<Response<Vec<u8>>, PublishError> {
        let name = <&str>::from(request.method()).to_owned();
        let mut bytes = Vec::new();
        request
            .write(&mut bytes)
            .map_err(|error| self.server(format!("cannot be asked: {error}")))?;
        self.write(&bytes)?;
        let deadline = Instant::now() + ANSWER;
        loop {
            match self.receive(deadline) {
                Some(Cue::Answer(answer)) => {
                    let answers = answer
                        .header(&CSEQ)
                        .and_then(|value| value.as_str().trim().parse().ok());
                    if answers.is_none_or(|cseq: u32| cseq == self.cseq) {
                        return Ok(*answer);
                    }
                }
                Some(Cue::Closed(how)) => {
                    return Err(self.server(format!("{how} instead of answering {name}")));
                }
                Some(cue @ (Cue::Go | Cue::InputEnded)) => self.early.push_back(cue),
                None => {
                    return Err(self.server(format!(
                        "did not answer {name} within {} s",
                        ANSWER.as_secs()
                    )));
                }
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), PublishError> {
        self.socket
            .write_all(bytes)
            .map_err(|error| match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => self.server(format!(
                    "stopped reading: nothing could be sent for {} s",
                    WRITE.as_secs()
                )),
                _ => self.server(format!("closed the connection ({error})")),
            })
    }

    pub(super) fn server(&self, what: String) -> PublishError {
        PublishError::Server {
            url: self.url.to_string(),
            what,
        }
    }

    fn accepted(
        &self,
        method: &'static str,
        answer: &Response<Vec<u8>>,
    ) -> Result<(), PublishError> {
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let hint = match status {
            StatusCode::Unauthorized if self.url.credentials.is_none() => {
                "; put credentials into the URL, rtsp://user:password@host/path"
            }
            StatusCode::Unauthorized => "; the credentials in the URL are wrong",
            StatusCode::NotFound => "; the server does not know this path",
            _ => "",
        };
        let status = format!("{} {}", u16::from(status), answer.reason_phrase());
        Err(PublishError::Refused {
            url: self.url.to_string(),
            method,
            status,
            hint,
        })
    }

    /// Whether there are credentials for what the server asks for.
    fn authorize(&mut self, answer: &Response<Vec<u8>>) -> bool {
        let basic = answer.headers().any(|(name, value)| {
            *name == WWW_AUTHENTICATE && value.as_str().to_ascii_lowercase().contains("basic")
        });
        let Some((user, password)) = self.url.credentials.as_ref().filter(|_| basic) else {
            return false;
        };
        let token = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        self.authorization = Some(format!("Basic {token}"));
        true
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn interleaved(transport: &str) -> Option<u8> {
    let channels = transport
        .split(';')
        .find_map(|part| part.trim().strip_prefix("interleaved="))?;
    channels.split('-').next()?.parse().ok()
}

/// Passes on the server's answers until the connection ends. Its RTCP is read and dropped.
fn listen(mut socket: TcpStream, notes: &Sender<Cue>) {
    let mut pending = Vec::new();
    let mut chunk = [0; 4096];
    let how = 'connection: loop {
        loop {
            match Message::<Vec<u8>>::parse(&pending) {
                Ok((message, used)) => {
                    pending.drain(..used);
                    if let Message::Response(answer) = message
                        && notes.send(Cue::Answer(Box::new(answer))).is_err()
                    {
                        return;
                    }
                }
                Err(ParseError::Incomplete(_)) => break,
                Err(ParseError::Error) => break 'connection "does not speak RTSP".to_owned(),
            }
        }
        match socket.read(&mut chunk) {
            Ok(0) => break "closed the connection".to_owned(),
            Ok(count) => pending.extend(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => break format!("closed the connection ({error})"),
        }
    };
    let _ = notes.send(Cue::Closed(how));
}
