//! RTMP out: untouched H.264 and AAC frames into one FLV stream.
//!
//! The caller paces and interleaves, and what it hands over between two [`Egress::send`] goes out in
//! one go. The tags are [`flv`](crate::flv)'s: `flvmux` cost two threads more, and a wake-up of each
//! for every unit.

use std::time::Duration;

use gst::prelude::*;
use tokio::sync::mpsc;

use super::aac::AacFormat;
use super::bus::{self, BusFact};
use super::element::{Element, cast, make};
use super::{AacFrame, AccessUnit, MediaError, RtmpTarget, flv, socket_queue};

/// What this part is called in errors.
const PLACE: &str = "RTMP output";
/// `rtmp2sink` cuts messages into chunks of this many bytes. Its default of 128 costs more work
/// than a 100 Mbit/s stream leaves time for: 182 MB took 30 s, with this 0.5 s.
const CHUNK_SIZE: u32 = 65_536;
/// Patience of the socket with a server that takes or gives nothing, in seconds.
const SOCKET_TIMEOUT: u32 = 5;
/// What the stream says it was made with.
const ENCODER: &str = concat!("dub-worker ", env!("CARGO_PKG_VERSION"));
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
    source: gst_app::AppSrc,
    sink: gst::Element,
    format: AacFormat,
    port: u16,
    connection: u32,
    facts: mpsc::Sender<(u32, EgressFact)>,
    video_caps: Option<gst::Caps>,
    /// Metadata has been sent.
    described: bool,
    /// Time stamp of the first unit, which becomes 0.
    origin: Option<i64>,
    /// What [`Egress::send`] sends.
    tags: Vec<gst::Buffer>,
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
        let (source, sink) = (source()?, sink(target)?);
        pipeline
            .add_many([source.upcast_ref(), &sink])
            .map_err(&text)?;
        source.link(&sink).map_err(&text)?;
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
            source,
            sink,
            format: format.clone(),
            port: target.port,
            connection,
            facts,
            video_caps: None,
            described: false,
            origin: None,
            tags: Vec::new(),
            seen: 0,
        })
    }

    /// Hands over an access unit; times are nanoseconds on the output timeline.
    pub fn video(&mut self, unit: &AccessUnit, pts: i64, dts: i64) {
        let (pts, dts) = (self.millis(pts, dts), self.millis(dts, dts));
        let described = self.video_caps.as_ref() == Some(&unit.caps);
        let structure = unit.caps.structure(0).filter(|_| !described);
        self.video_caps = Some(unit.caps.clone());
        let record = structure.and_then(|caps| caps.get::<gst::Buffer>("codec_data").ok());
        if let Some(record) = record.and_then(|record| record.into_mapped_buffer_readable().ok()) {
            self.tag(flv::video_config(&record, dts), dts);
        }
        let keyframe = !unit.buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        if let Ok(data) = unit.buffer.map_readable() {
            self.tag(flv::picture(&data, keyframe, pts, dts), dts);
        }
    }

    /// Hands over an AAC frame.
    pub fn audio(&mut self, frame: &AacFrame, pts: i64) {
        let pts = self.millis(pts, pts);
        self.tag(flv::sound(frame, pts), pts);
    }

    /// Sends what has been handed over since the last time.
    pub fn send(&mut self) -> Result<(), EgressError> {
        if self.tags.is_empty() {
            return Ok(());
        }
        let units = std::mem::take(&mut self.tags);
        if !std::mem::replace(&mut self.described, true) {
            self.describe();
        }
        let list: gst::BufferList = self.tags.drain(..).chain(units).collect();
        let sent = self.source.push_buffer_list(list);
        // The bus has said more about it already, unless the pipeline is being taken down.
        sent.map(drop).map_err(|error| EgressError {
            kind: "stream",
            name_taken: false,
            text: format!("{PLACE} takes no more: {error}"),
        })
    }

    /// No more media: [`EgressFact::Finished`] follows once all of it is out.
    pub fn finish(&mut self) {
        // A failure comes over the bus.
        let _ = self.send();
        let _ = self.source.end_of_stream();
    }

    /// What comes before the first unit.
    fn describe(&mut self) {
        let caps = self.video_caps.as_ref().and_then(|caps| caps.structure(0));
        let size = caps.and_then(|caps| caps.get("width").ok().zip(caps.get("height").ok()));
        self.tag(flv::metadata(&self.format, size, ENCODER), 0);
        self.tag(flv::audio_config(&self.format, 0), 0);
    }

    /// Milliseconds since the stream's start, which is that of the first unit, at `first`.
    fn millis(&mut self, nanos: i64, first: i64) -> i64 {
        let origin = *self.origin.get_or_insert(first);
        (nanos - origin + 500_000).div_euclid(1_000_000)
    }

    fn tag(&mut self, tag: Vec<u8>, at: i64) {
        let mut buffer = gst::Buffer::from_mut_slice(tag);
        if let Some(buffer) = buffer.get_mut() {
            let at = gst::ClockTime::from_mseconds(at.max(0) as u64);
            buffer.set_pts(at);
            buffer.set_dts(at);
        }
        self.tags.push(buffer);
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

    /// How much media waits in front of the sink: grows when the server stops reading.
    pub fn backlog(&self) -> Duration {
        let time = self
            .source
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
        self.source.property::<u64>("current-level-bytes")
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

fn source() -> Result<gst_app::AppSrc, MediaError> {
    let source: gst_app::AppSrc = cast(make(Element::Appsrc)?)?;
    source.set_format(gst::Format::Time);
    source.set_is_live(false);
    source.set_max_bytes(0);
    source.set_caps(Some(&gst::Caps::new_empty_simple("video/x-flv")));
    Ok(source)
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
