//! What readers ask, and what they are answered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rtsp_types::headers::{
    self, Public, RtpLowerTransport, RtpTransport, RtpTransportParameters, Session as SessionId,
    Transport, Transports,
};
use rtsp_types::{Message, Method, ParseError, Request, Response, StatusCode, Version};

use super::connection::{self, Connection};
use super::{Event, Shared, lock};
use crate::description::control;
use crate::login;
use crate::manner::Login;
use crate::plan::Plan;
use crate::sent::Played;

/// Bytes of one request at most.
const LARGEST: usize = 64 * 1024;

/// One reader's session.
struct Session<'a> {
    connection: &'a Arc<Connection>,
    shared: &'a Arc<Shared>,
    id: String,
    /// First interleaved channel per medium.
    channels: Vec<Option<u8>>,
    playing: bool,
    /// Requests that were allowed.
    allowed: u64,
    /// The last one that was not was signed with an old nonce.
    stale: bool,
}

/// What answering comes to: the answer, or the code of a refusal.
type Answer = Result<Response<Vec<u8>>, StatusCode>;

/// Answers a connection's requests until it ends.
pub(super) fn serve(connection: &Arc<Connection>, shared: &Arc<Shared>) {
    let mut session = Session {
        connection,
        shared,
        id: format!("{:08X}", rand::random::<u32>()),
        channels: vec![None; shared.description.media.len()],
        playing: false,
        allowed: 0,
        stale: false,
    };
    let (mut buffer, mut chunk) = (Vec::new(), [0; 4096]);
    while !connection.is_over() {
        match Message::<Vec<u8>>::parse(&buffer) {
            Ok((Message::Request(request), used)) => {
                buffer.drain(..used);
                if !connection.mute.load(Ordering::Relaxed) {
                    session.handle(&request);
                }
            }
            // Receiver reports.
            Ok((_, used)) => drop(buffer.drain(..used)),
            Err(ParseError::Error) => return connection.end("no RTSP", false),
            Err(ParseError::Incomplete(_)) if buffer.len() > LARGEST => {
                return connection.end("a flood", false);
            }
            Err(ParseError::Incomplete(_)) => match connection.read(&mut chunk) {
                Some(read) => buffer.extend(&chunk[..read]),
                None => return connection.end("closed by the reader", false),
            },
        }
    }
}

impl Session<'_> {
    fn handle(&mut self, request: &Request<Vec<u8>>) {
        *lock(&self.connection.heard) = Instant::now();
        let method: &str = request.method().into();
        *lock(&self.shared.sent)
            .requests
            .entry(method.to_owned())
            .or_default() += 1;
        let settings = &self.shared.manner.session;
        let describes = method == "DESCRIBE";
        let more = if describes {
            settings.describes_after
        } else {
            0.0
        };
        std::thread::sleep(Duration::from_secs_f64(settings.slow + more));
        let answer = self
            .refusal(request, method)
            .map_or_else(|| self.answer(request), Err);
        let mut response = answer.unwrap_or_else(|status| {
            *lock(&self.shared.sent)
                .refused
                .entry(status.into())
                .or_default() += 1;
            let mut response = Response::builder(Version::V1_0, status).build(Vec::new());
            let settings = &self.shared.manner.session;
            match (status, &settings.login, &settings.redirect) {
                (StatusCode::Unauthorized, Some(login), _) => {
                    response.insert_header(
                        headers::WWW_AUTHENTICATE,
                        login::challenge(login, &self.nonce(login), self.stale),
                    );
                }
                (StatusCode::Found, _, Some(path)) => {
                    let mut url = request.request_uri().cloned();
                    if let Some(url) = &mut url {
                        url.set_path(path);
                    }
                    response
                        .insert_header(headers::LOCATION, url.map_or(String::new(), String::from));
                }
                _ => {}
            }
            response
        });
        if let Some(cseq) = request.header(&headers::CSEQ) {
            response.insert_header(headers::CSEQ, cseq.clone());
        }
        let status = response.status();
        let mut bytes = Vec::new();
        let written = response.write(&mut bytes).is_ok();
        let bytes = self.bend(&response, bytes);
        let written = written && self.connection.write(&bytes);
        (self.shared.tell)(&Event::Request {
            method: method.to_owned(),
            status: status.into(),
        });
        if !written || *request.method() == Method::Teardown {
            self.connection.end("teardown", false);
        } else if *request.method() == Method::Play && status == StatusCode::Ok {
            self.connection.paused.store(false, Ordering::Relaxed);
            self.start();
        }
    }

    /// An answer in the manner's own spelling.
    fn bend(&self, response: &Response<Vec<u8>>, bytes: Vec<u8>) -> Vec<u8> {
        let settings = &self.shared.manner.session;
        let end = bytes.windows(2).position(|two| two == b"\r\n");
        let (Some(end), StatusCode::Unauthorized, Some(login)) =
            (end, response.status(), &settings.login)
        else {
            return bytes;
        };
        let others = login.others.iter();
        let others: String = others
            .map(|other| format!("\r\nWWW-Authenticate: {other}"))
            .collect();
        [&bytes[..end], others.as_bytes(), &bytes[end..]].concat()
    }

    fn nonce(&self, login: &Login) -> String {
        let turn = self.allowed.checked_div(login.nonce_lasts).unwrap_or(0);
        format!("{}{turn}", self.shared.nonce)
    }

    /// Why a request is not answered as it should be.
    fn refusal(&mut self, request: &Request<Vec<u8>>, method: &str) -> Option<StatusCode> {
        let settings = &self.shared.manner.session;
        if let Some(login) = settings
            .login
            .as_ref()
            .filter(|_| *request.method() != Method::Options)
        {
            let answer = request.header(&headers::AUTHORIZATION);
            let opens = answer.is_some_and(|answer| {
                login::opens(login, &self.nonce(login), method, answer.as_str())
            });
            self.stale = !opens
                && answer.is_some_and(|answer| {
                    let turns = 0..=self.allowed;
                    turns.into_iter().any(|turn| {
                        let nonce = format!("{}{turn}", self.shared.nonce);
                        login::opens(login, &nonce, method, answer.as_str())
                    })
                });
            if !opens {
                return Some(StatusCode::Unauthorized);
            }
            self.allowed += 1;
        }
        let asked = lock(&self.shared.sent)
            .requests
            .get(method)
            .copied()
            .unwrap_or(0);
        let refused = settings
            .refusals
            .iter()
            .find(|refusal| refusal.method == method && asked <= refusal.times);
        if let Some(refused) = refused {
            return Some(StatusCode::from(refused.status));
        }
        let path = request.request_uri().map_or("", |url| url.path());
        let over = self.shared.finished.load(Ordering::Relaxed);
        if over && *request.method() == Method::Describe {
            return Some(StatusCode::NotFound);
        }
        let elsewhere = settings
            .redirect
            .as_ref()
            .is_some_and(|to| !path.starts_with(to.as_str()));
        (elsewhere && *request.method() == Method::Describe).then_some(StatusCode::Found)
    }

    fn answer(&mut self, request: &Request<Vec<u8>>) -> Answer {
        match request.method() {
            Method::Options => {
                let mut response = self.ok();
                response.insert_typed_header(&Public::from(vec![
                    Method::Options,
                    Method::Describe,
                    Method::Setup,
                    Method::Play,
                    Method::Pause,
                    Method::GetParameter,
                    Method::Teardown,
                ]));
                Ok(response)
            }
            Method::Describe => {
                let url = request.request_uri().ok_or(StatusCode::BadRequest)?;
                let base = format!("{}/", url.as_str().trim_end_matches('/'));
                let mut response = Response::builder(Version::V1_0, StatusCode::Ok)
                    .header(headers::CONTENT_TYPE, "application/sdp");
                // Controls that hold the whole address.
                let sdp = self.shared.description.sdp.replace("BASE/", &base);
                if !self.shared.manner.session.no_base {
                    response = response.header(headers::CONTENT_BASE, base);
                }
                Ok(response.build(sdp.into_bytes()))
            }
            Method::Setup => self.setup(request),
            Method::Play if self.channels.iter().any(Option::is_some) => Ok(self.play(request)),
            Method::Pause if self.playing => {
                self.connection.paused.store(true, Ordering::Relaxed);
                Ok(self.ok())
            }
            Method::GetParameter | Method::SetParameter | Method::Teardown => Ok(self.ok()),
            Method::Play | Method::Pause => Err(StatusCode::MethodNotValidInThisState),
            _ => Err(StatusCode::MethodNotAllowed),
        }
    }

    fn setup(&mut self, request: &Request<Vec<u8>>) -> Answer {
        let url = request.request_uri().ok_or(StatusCode::BadRequest)?;
        let place = (0..self.channels.len()).find(|place| url.as_str().contains(&control(*place)));
        let place = place.ok_or(StatusCode::NotFound)?;
        let offered = request
            .typed_header::<Transports>()
            .ok()
            .flatten()
            .ok_or(StatusCode::BadRequest)?;
        let asked = offered.iter().find_map(|transport| match transport {
            Transport::Rtp(rtp) if rtp.lower_transport == Some(RtpLowerTransport::Tcp) => Some((
                rtp.profile.clone(),
                rtp.params.interleaved.map(|(first, _)| first),
            )),
            _ => None,
        });
        let (profile, channel) = asked.ok_or(StatusCode::UnsupportedTransport)?;
        let first = channel.unwrap_or(2 * place as u8);
        let first = if self.shared.manner.session.other_channels {
            // Swapped, as far as two tracks go.
            first ^ 2
        } else {
            first
        };
        self.channels[place] = Some(first);
        let mut response = self.ok();
        response.insert_typed_header(&Transports::from(vec![Transport::Rtp(RtpTransport {
            profile,
            lower_transport: Some(RtpLowerTransport::Tcp),
            params: RtpTransportParameters {
                unicast: true,
                interleaved: Some((first, first.checked_add(1))),
                ..RtpTransportParameters::default()
            },
        })]));
        Ok(response)
    }

    fn play(&self, request: &Request<Vec<u8>>) -> Response<Vec<u8>> {
        let mut response = self.ok();
        response.insert_header(headers::RANGE, "npt=now-");
        if let Some(url) = request
            .request_uri()
            .filter(|_| self.shared.manner.session.rtp_info)
        {
            let shared = self.shared;
            let plan = Plan::new(
                &shared.clip,
                &shared.manner,
                &shared.description,
                shared.seed,
                0,
            );
            let base = url.as_str().trim_end_matches('/');
            let first = plan.first_packets().into_iter();
            let entry = |(place, seq, rtptime)| {
                let seq = u16::wrapping_add_signed(seq, shared.manner.session.rtp_info_off);
                format!("url={base}/{};seq={seq};rtptime={rtptime}", control(place))
            };
            response.insert_header(
                headers::RTP_INFO,
                first.map(entry).collect::<Vec<_>>().join(","),
            );
        }
        response
    }

    /// Plays from now on, on a thread of its own.
    fn start(&mut self) {
        if std::mem::replace(&mut self.playing, true) {
            return;
        }
        let session = self.shared.played.fetch_add(1, Ordering::Relaxed);
        lock(&self.shared.sent)
            .sessions
            .resize_with(session + 1, Played::default);
        let (connection, shared) = (Arc::clone(self.connection), Arc::clone(self.shared));
        let channels = self.channels.clone();
        let thread = std::thread::Builder::new().name("camera-player".to_owned());
        let play = move || connection::play(&connection, &shared, session, &channels);
        if thread.spawn(play).is_err() {
            self.connection.end("no thread to play on", false);
        }
    }

    fn ok(&self) -> Response<Vec<u8>> {
        let mut response = Response::builder(Version::V1_0, StatusCode::Ok)
            .header(headers::SERVER, "camera")
            .build(Vec::new());
        if self.channels.iter().any(Option::is_some) {
            let settings = &self.shared.manner.session;
            let timeout = settings.timeout;
            if settings.spaced {
                let header = format!(" {} ; timeout = {timeout} ", self.id);
                response.insert_header(headers::SESSION, header);
            } else {
                response.insert_typed_header(&SessionId::with_timeout(self.id.clone(), timeout));
            }
        }
        response
    }
}
