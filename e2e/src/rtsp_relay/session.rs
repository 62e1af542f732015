//! What an RTSP request means: the protocol state of one connection, without its sockets.

use std::sync::Arc;

use rtsp_types::{
    Method, Request, Response, StatusCode, Version,
    headers::{
        self, Public, RtpLowerTransport, RtpProfile, RtpTransport, RtpTransportParameters,
        Session as SessionId, Transport, Transports,
    },
};
use tokio::sync::mpsc;

use super::{
    hub::{Frame, Half, Hub, Stream},
    sdp::{Description, control_of},
    timing::Position,
};

/// Session timeout told to clients, in seconds. Nothing expires here (a TCP reader that is only
/// receiving need not send anything), but clients choose their keep-alive interval by it.
const TOLD_TIMEOUT: u64 = 60;

/// One connection's part in the protocol.
#[derive(Debug)]
pub(super) struct Session {
    connection: u64,
    id: String,
    role: Role,
}

#[derive(Debug)]
enum Role {
    /// Nothing said yet.
    New,
    /// Announced a path; `channels` is the first interleaved channel per track.
    Publisher {
        stream: Arc<Stream>,
        url: String,
        channels: Vec<Option<u8>>,
        recording: bool,
    },
    /// Set up tracks of a path.
    Reader {
        stream: Arc<Stream>,
        channels: Vec<Option<u8>>,
        playing: bool,
    },
}

/// What the connection has to do after the reply.
#[derive(Debug)]
pub(super) enum Then {
    /// Go on with the next request.
    GoOn,
    /// Send these frames until they end, then close.
    Send(mpsc::Receiver<Frame>),
    /// Stop sending frames.
    StopSending,
    /// Close the connection.
    Close,
}

type Reply = (Response<Vec<u8>>, Then);

impl Session {
    pub(super) fn new(connection: u64) -> Self {
        Self {
            connection,
            id: format!("{:016x}", rand::random::<u64>()),
            role: Role::New,
        }
    }

    /// Answers one request.
    pub(super) fn handle(&mut self, hub: &Hub, request: &Request<Vec<u8>>) -> Reply {
        let answer = match request.method() {
            Method::Options => Ok((self.options(), Then::GoOn)),
            Method::GetParameter | Method::SetParameter => Ok((self.ok(), Then::GoOn)),
            Method::Announce => self.announce(hub, request),
            Method::Describe => describe(hub, request),
            Method::Setup => self.setup(hub, request),
            Method::Record => self.record(),
            Method::Play => self.play(request),
            Method::Pause => self.pause(),
            Method::Teardown => {
                self.end(hub);
                Ok((self.ok(), Then::Close))
            }
            _ => Err(StatusCode::MethodNotAllowed),
        };
        let (mut response, then) = answer.unwrap_or_else(|status| {
            tracing::info!(id = self.connection, method = ?request.method(), ?status, "refused");
            (
                Response::builder(Version::V1_0, status).build(Vec::new()),
                Then::GoOn,
            )
        });
        if let Some(cseq) = request.header(&headers::CSEQ) {
            response.insert_header(headers::CSEQ, cseq.clone());
        }
        (response, then)
    }

    /// Forwards an interleaved frame of a publisher. What readers send back (receiver reports) ends
    /// here: the publisher's sender asks for none.
    pub(super) fn on_data(&self, channel: u8, payload: &[u8]) {
        let Role::Publisher {
            stream,
            channels,
            recording: true,
            ..
        } = &self.role
        else {
            return;
        };
        let track = channels.iter().position(|first| {
            first.is_some_and(|first| channel == first || channel == first.wrapping_add(1))
        });
        if let Some(track) = track {
            let half = if channels[track] == Some(channel) {
                Half::Rtp
            } else {
                Half::Rtcp
            };
            stream.forward(track, half, payload);
        }
    }

    /// Ends the connection's part: also when it closes without a word.
    pub(super) fn end(&mut self, hub: &Hub) {
        match std::mem::replace(&mut self.role, Role::New) {
            Role::New => {}
            Role::Publisher { stream, .. } => {
                tracing::info!(id = self.connection, path = stream.path, "publisher ended");
                hub.end(&stream);
            }
            Role::Reader { stream, .. } => stream.detach(self.connection),
        }
    }

    fn announce(&mut self, hub: &Hub, request: &Request<Vec<u8>>) -> Result<Reply, StatusCode> {
        let Role::New = self.role else {
            return Err(StatusCode::MethodNotValidInThisState);
        };
        let (path, url) = target(request)?;
        let description = Description::parse(request.body()).map_err(|error| {
            tracing::warn!(
                id = self.connection,
                path,
                "announcement refused: {error:#}"
            );
            StatusCode::BadRequest
        })?;
        let channels = vec![None; description.tracks.len()];
        let stream = hub
            .publish(&path, description)
            .ok_or(StatusCode::Forbidden)?;
        tracing::info!(id = self.connection, path, "announced");
        self.role = Role::Publisher {
            stream,
            url,
            channels,
            recording: false,
        };
        Ok((self.ok(), Then::GoOn))
    }

    fn setup(&mut self, hub: &Hub, request: &Request<Vec<u8>>) -> Result<Reply, StatusCode> {
        let asked = interleaved(request)?;
        let (path, url) = target(request)?;
        if let Role::New = self.role {
            let (path, _) = split_track(&path).ok_or(StatusCode::NotFound)?;
            let stream = hub.readable(path).ok_or(StatusCode::NotFound)?;
            let channels = vec![None; stream.description.tracks.len()];
            self.role = Role::Reader {
                stream,
                channels,
                playing: false,
            };
        }
        let (track, channels) = match &mut self.role {
            Role::Publisher {
                stream,
                url: announced,
                channels,
                recording: false,
            } => (
                stream.description.published_track(&url, announced),
                channels,
            ),
            Role::Reader {
                stream,
                channels,
                playing: false,
            } => {
                let track = split_track(&path)
                    .filter(|(base, _)| *base == stream.path)
                    .map(|(_, track)| track)
                    .filter(|track| *track < channels.len());
                (track, channels)
            }
            _ => return Err(StatusCode::MethodNotValidInThisState),
        };
        let track = track.ok_or(StatusCode::NotFound)?;
        let first = asked.unwrap_or(track as u8 * 2);
        channels[track] = Some(first);
        let mut response = self.ok();
        response.insert_typed_header(&Transports::from(vec![Transport::Rtp(RtpTransport {
            profile: RtpProfile::Avp,
            lower_transport: Some(RtpLowerTransport::Tcp),
            params: RtpTransportParameters {
                unicast: true,
                interleaved: Some((first, first.checked_add(1))),
                ..RtpTransportParameters::default()
            },
        })]));
        Ok((response, Then::GoOn))
    }

    fn record(&mut self) -> Result<Reply, StatusCode> {
        match &mut self.role {
            Role::Publisher {
                stream,
                channels,
                recording,
                ..
            } if channels.iter().all(Option::is_some) => {
                *recording = true;
                stream.start();
                tracing::info!(id = self.connection, path = stream.path, "publishing");
                Ok((self.ok(), Then::GoOn))
            }
            _ => Err(StatusCode::MethodNotValidInThisState),
        }
    }

    fn play(&mut self, request: &Request<Vec<u8>>) -> Result<Reply, StatusCode> {
        let Role::Reader {
            stream,
            channels,
            playing,
        } = &mut self.role
        else {
            return Err(StatusCode::MethodNotValidInThisState);
        };
        if *playing {
            return Ok((self.ok(), Then::GoOn));
        }
        let (frames, positions) = stream
            .attach(self.connection, channels.clone())
            .ok_or(StatusCode::NotFound)?;
        *playing = true;
        let info = rtp_info(request, channels, &positions);
        tracing::info!(id = self.connection, path = stream.path, ?info, "reading");
        let mut response = self.ok();
        response.insert_header(headers::RANGE, "npt=0-");
        if let Some(info) = info {
            response.insert_header(headers::RTP_INFO, info);
        }
        Ok((response, Then::Send(frames)))
    }

    fn pause(&mut self) -> Result<Reply, StatusCode> {
        match &mut self.role {
            Role::Reader {
                stream, playing, ..
            } => {
                *playing = false;
                stream.detach(self.connection);
                Ok((self.ok(), Then::StopSending))
            }
            // A publisher that pauses simply sends nothing.
            Role::Publisher { .. } => Ok((self.ok(), Then::GoOn)),
            Role::New => Err(StatusCode::MethodNotValidInThisState),
        }
    }

    fn options(&self) -> Response<Vec<u8>> {
        let mut response = self.ok();
        response.insert_typed_header(&Public::from(vec![
            Method::Options,
            Method::Describe,
            Method::Announce,
            Method::Setup,
            Method::Play,
            Method::Record,
            Method::Pause,
            Method::Teardown,
            Method::GetParameter,
        ]));
        response
    }

    fn ok(&self) -> Response<Vec<u8>> {
        let mut response = Response::builder(Version::V1_0, StatusCode::Ok).build(Vec::new());
        if !matches!(self.role, Role::New) {
            response.insert_typed_header(&SessionId::with_timeout(self.id.clone(), TOLD_TIMEOUT));
        }
        response
    }
}

fn describe(hub: &Hub, request: &Request<Vec<u8>>) -> Result<Reply, StatusCode> {
    let (path, url) = target(request)?;
    let stream = hub.readable(&path).ok_or(StatusCode::NotFound)?;
    let response = Response::builder(Version::V1_0, StatusCode::Ok)
        .header(headers::CONTENT_TYPE, "application/sdp")
        .header(
            headers::CONTENT_BASE,
            format!("{}/", url.trim_end_matches('/')),
        )
        .build(stream.description.text.clone().into_bytes());
    Ok((response, Then::GoOn))
}

/// Path without slashes around it, and the whole URL as text.
fn target(request: &Request<Vec<u8>>) -> Result<(String, String), StatusCode> {
    let url = request.request_uri().ok_or(StatusCode::BadRequest)?;
    let path = url.path().trim_matches('/');
    if path.is_empty() {
        return Err(StatusCode::NotFound);
    }
    Ok((path.to_owned(), url.to_string()))
}

/// `live/x/in/trackID=1` is track 1 of `live/x/in`.
fn split_track(path: &str) -> Option<(&str, usize)> {
    let (base, control) = path.rsplit_once('/')?;
    let track = control.strip_prefix("trackID=")?.parse().ok()?;
    Some((base, track))
}

/// First interleaved channel of the first transport that we can serve; `None` inside if the client
/// left the choice to us.
fn interleaved(request: &Request<Vec<u8>>) -> Result<Option<u8>, StatusCode> {
    let offered = request
        .typed_header::<Transports>()
        .map_err(|_| StatusCode::BadRequest)?
        .ok_or(StatusCode::BadRequest)?;
    offered
        .iter()
        .find_map(|transport| match transport {
            Transport::Rtp(rtp)
                if rtp.profile == RtpProfile::Avp
                    && rtp.lower_transport == Some(RtpLowerTransport::Tcp) =>
            {
                Some(rtp.params.interleaved.map(|(first, _)| first))
            }
            _ => None,
        })
        .ok_or(StatusCode::UnsupportedTransport)
}

/// The `RTP-Info` header for a reader that joins a running stream; `None` before the first packet.
fn rtp_info(
    request: &Request<Vec<u8>>,
    channels: &[Option<u8>],
    positions: &[Option<Position>],
) -> Option<String> {
    let base = request.request_uri()?.as_str().trim_end_matches('/');
    let entries: Vec<_> = positions
        .iter()
        .zip(channels)
        .enumerate()
        .filter_map(|(index, (position, channel))| {
            let position = (*position)?;
            (*channel)?;
            let rtptime = position
                .rtptime
                .map(|time| format!(";rtptime={time}"))
                .unwrap_or_default();
            Some(format!(
                "url={base}/{};seq={}{rtptime}",
                control_of(index),
                position.seq
            ))
        })
        .collect();
    (!entries.is_empty()).then(|| entries.join(","))
}
