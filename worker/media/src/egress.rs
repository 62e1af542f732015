//! RTMP out: untouched H.264 and AAC frames into one FLV stream.
//!
//! The caller paces. `flvmux` runs without a clock (`is-live=false` sources), because a
//! live one rewrites time stamps of units that come late.

use std::time::Duration;

use gst::prelude::*;
use tokio::sync::mpsc;

use super::aac::AacFormat;
use super::bus::{self, BusFact};
use super::element::{Element, make};
use super::{AacFrame, AccessUnit, MediaError, RtmpTarget, audio, socket_queue};

/// What this part is called in errors.
const PLACE: &str = "RTMP output";
/// `rtmp2sink` cuts messages into chunks of this many bytes. Its default of 128 costs more work
/// than a 100 Mbit/s stream leaves time for: 182 MB took 30 s, with this 0.5 s.
const CHUNK_SIZE: u32 = 65_536;
/// Patience of the socket with a server that takes or gives nothing, in seconds.
const SOCKET_TIMEOUT: u32 = 5;
/// In the sink's words when another publisher has the stream's name.
const BAD_NAME: &str = "NetStream.Publish.BadName";

/// What the output tells.
#[derive(Debug)]
pub enum EgressFact {
    /// Refused, lost or stuck.
    Failed(EgressError),
    /// Everything has been handed to the server.
    Finished,
    /// Bytes that the server's machine has not taken yet; see [`Egress::look`].
    Waiting(u64),
    /// Something odd, for the log.
    Warning(String),
}

/// Why a connection failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct EgressError {
    /// GStreamer's error domain, for the metric.
    pub kind: &'static str,
    /// Another publisher has the stream's name.
    pub name_taken: bool,
    /// What the sink said.
    pub text: String,
}

/// A published stream. Dropping it closes the connection and may take some milliseconds.
pub struct Egress {
    pipeline: gst::Pipeline,
    video: gst_app::AppSrc,
    audio: gst_app::AppSrc,
    sink: gst::Element,
    port: u16,
    connection: u32,
    facts: mpsc::Sender<(u32, EgressFact)>,
    video_caps: Option<gst::Caps>,
    /// Time stamps of the last units, video and audio.
    last: (i64, i64),
    /// Bytes sent at the last [`Egress::is_quiet`].
    seen: u64,
}

impl Egress {
    /// Connects to `target` and publishes. Failures come through `facts`, tagged with `connection`.
    pub fn start(
        target: &RtmpTarget,
        format: &AacFormat,
        connection: u32,
        facts: mpsc::Sender<(u32, EgressFact)>,
    ) -> Result<Self, MediaError> {
        let text = MediaError::at::<gst::glib::BoolError>(PLACE);
        let pipeline = gst::Pipeline::new();
        let (video, audio) = (source(None)?, source(Some(&audio::aac_caps(format)))?);
        let mux = make(Element::Flvmux)?;
        mux.set_property("streamable", true);
        mux.set_property("encoder", concat!("dub-worker ", env!("CARGO_PKG_VERSION")));
        if mux.has_property("enforce-increasing-timestamps") {
            // Since 1.26; it would rewrite what is right already.
            mux.set_property("enforce-increasing-timestamps", false);
        }
        let sink = sink(target)?;
        let parts = [video.upcast_ref(), audio.upcast_ref(), &mux, &sink];
        pipeline.add_many(parts).map_err(&text)?;
        video
            .link_pads(Some("src"), &mux, Some("video"))
            .map_err(&text)?;
        audio
            .link_pads(Some("src"), &mux, Some("audio"))
            .map_err(&text)?;
        mux.link(&sink).map_err(&text)?;
        let told = facts.clone();
        bus::watch(&pipeline, &target.url, move |fact| {
            let fact = match fact {
                BusFact::Error { kind, text } => EgressFact::Failed(EgressError {
                    kind,
                    name_taken: text.contains(BAD_NAME),
                    text,
                }),
                BusFact::Eos => EgressFact::Finished,
                BusFact::Warning { text } => EgressFact::Warning(text),
                BusFact::Progress { .. } => return,
            };
            // Bounded; the first failure is what counts.
            let _ = told.try_send((connection, fact));
        });
        // Failures also come over the bus, with a better text.
        let _ = pipeline.set_state(gst::State::Playing);
        Ok(Self {
            pipeline,
            video,
            audio,
            sink,
            port: target.port,
            connection,
            facts,
            video_caps: None,
            last: (0, 0),
            seen: 0,
        })
    }

    /// Hands over an access unit; times are nanoseconds on the output timeline.
    pub fn video(&mut self, unit: AccessUnit, pts: i64, dts: i64) -> Result<(), EgressError> {
        if self.video_caps.as_ref() != Some(&unit.caps) {
            self.video.set_caps(Some(&unit.caps));
            self.video_caps = Some(unit.caps);
        }
        self.last.0 = dts;
        let mut buffer = unit.buffer;
        // Copies the buffer's description, not the coded data.
        let writable = buffer.make_mut();
        writable.set_pts(time(pts));
        writable.set_dts(time(dts));
        pushed("video", self.video.push_buffer(buffer))
    }

    /// Hands over an AAC frame.
    pub fn audio(&mut self, frame: AacFrame, pts: i64, duration: i64) -> Result<(), EgressError> {
        self.last.1 = pts;
        let mut buffer = gst::Buffer::from_slice(frame);
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(time(pts));
            buffer.set_dts(time(pts));
            buffer.set_duration(time(duration));
        }
        pushed("audio", self.audio.push_buffer(buffer))
    }

    /// No more media, but the stream stays open: the muxer, which waits for both tracks, lets go
    /// of what it holds.
    ///
    /// A server may throw away what it has queued when its publisher leaves (MediaMTX does), so
    /// the last units need a moment before [`Egress::finish`].
    pub fn drain(&self) {
        let (video, audio) = self.last;
        // The track that ends first must not be waited for; the other one flows out by itself.
        let _ = if video < audio {
            self.video.end_of_stream()
        } else {
            self.audio.end_of_stream()
        };
    }

    /// No more media: [`EgressFact::Finished`] follows once all of it is out.
    pub fn finish(&self) {
        let _ = self.video.end_of_stream();
        let _ = self.audio.end_of_stream();
    }

    /// Bytes the server has been sent so far; 0 until it has accepted the stream.
    pub fn bytes_sent(&self) -> u64 {
        let stats = self.sink.property::<Option<gst::Structure>>("stats");
        stats
            .and_then(|stats| stats.get::<u64>("out-bytes-total").ok())
            .unwrap_or(0)
    }

    /// Whether nothing has been sent since the last call and nothing waits in the socket: after
    /// [`EgressFact::Finished`], when the connection may be closed. The sink says that it has seen the
    /// end while its last messages are still in its hands, and closing throws them away.
    pub fn is_quiet(&mut self) -> bool {
        let sent = self.bytes_sent();
        sent == std::mem::replace(&mut self.seen, sent) && socket_queue::unsent(self.port) == 0
    }

    /// How much media waits in front of the muxer: grows when the server stops reading.
    pub fn backlog(&self) -> Duration {
        let time = self
            .video
            .property::<Option<gst::ClockTime>>("current-level-time");
        if self.waiting_bytes() == 0 {
            Duration::ZERO
        } else {
            time.map_or(Duration::ZERO, Duration::from)
        }
    }

    /// Looks how much waits for the server altogether; [`EgressFact::Waiting`] follows.
    pub fn look(&self) {
        let (port, queued) = (self.port, self.waiting_bytes());
        let (connection, facts) = (self.connection, self.facts.clone());
        tokio::task::spawn_blocking(move || {
            let waiting = queued + socket_queue::unsent(port);
            // The next look is a second away.
            let _ = facts.try_send((connection, EgressFact::Waiting(waiting)));
        });
    }

    fn waiting_bytes(&self) -> u64 {
        self.video.property::<u64>("current-level-bytes")
    }
}

impl Drop for Egress {
    fn drop(&mut self) {
        if let Some(bus) = self.pipeline.bus() {
            bus.unset_sync_handler();
        }
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// The bus has said more about it already, unless the pipeline is being taken down.
fn pushed(
    track: &str,
    result: Result<gst::FlowSuccess, gst::FlowError>,
) -> Result<(), EgressError> {
    result.map(drop).map_err(|error| EgressError {
        kind: "stream",
        name_taken: false,
        text: format!("{PLACE} takes no more {track}: {error}"),
    })
}

fn sink(target: &RtmpTarget) -> Result<gst::Element, MediaError> {
    let sink = make(Element::Rtmp2sink)?;
    sink.set_property_from_str("scheme", if target.tls { "rtmps" } else { "rtmp" });
    sink.set_property("host", &target.host);
    sink.set_property("port", i32::from(target.port));
    sink.set_property("application", &target.application);
    sink.set_property("stream", &target.stream);
    if let Some((user, password)) = &target.login {
        sink.set_property("username", user);
        sink.set_property("password", password);
    }
    sink.set_property("chunk-size", CHUNK_SIZE);
    sink.set_property("sync", false);
    sink.set_property("timeout", SOCKET_TIMEOUT);
    Ok(sink)
}

fn source(caps: Option<&gst::Caps>) -> Result<gst_app::AppSrc, MediaError> {
    let source = make(Element::Appsrc)?
        .downcast::<gst_app::AppSrc>()
        .map_err(|_| MediaError::at(PLACE)("appsrc is no AppSrc"))?;
    source.set_format(gst::Format::Time);
    source.set_is_live(false);
    source.set_max_bytes(0);
    source.set_caps(caps);
    Ok(source)
}

fn time(nanos: i64) -> gst::ClockTime {
    gst::ClockTime::from_nseconds(nanos.max(0) as u64)
}

/// Checks that something listens at `target`, so that a wrong output is known before the first
/// segment is ready.
pub async fn reachable(target: &RtmpTarget, patience: Duration) -> Result<(), EgressError> {
    let failed = |text: String| EgressError {
        kind: "resource",
        name_taken: false,
        text: format!("cannot connect: {text}"),
    };
    let connect = tokio::net::TcpStream::connect((target.host.as_str(), target.port));
    match tokio::time::timeout(patience, connect).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("no answer within {patience:?}"))),
    }
}

#[cfg(test)]
pub(crate) mod tests;
