//! RTMP out: untouched H.264 and AAC frames into one FLV stream.
//!
//! The caller paces. `flvmux` runs without a clock (`is-live=false` sources), because a
//! live one rewrites time stamps of units that come late.

use std::time::Duration;

use gst::prelude::*;
use tokio::sync::mpsc;

use super::aac::AacFormat;
use super::bus::{self, BusFact};
use super::{AacFrame, AccessUnit, audio, make};
use crate::url::MediaUrl;

/// What the output tells.
#[derive(Debug)]
pub enum EgressFact {
    /// Refused, lost or stuck.
    Failed {
        /// GStreamer's error domain, for the metric.
        kind: &'static str,
        /// What the sink said.
        reason: String,
    },
    /// Everything has been handed to the server.
    Finished,
    /// Something odd, for the log.
    Warning(String),
}

/// A published stream. Dropping it closes the connection.
pub struct Egress {
    pipeline: gst::Pipeline,
    video: gst_app::AppSrc,
    audio: gst_app::AppSrc,
    sink: gst::Element,
    video_caps: Option<gst::Caps>,
    /// Time stamps of the last units, video and audio.
    last: (i64, i64),
}

impl Egress {
    /// Connects to `url` and publishes. Failures come through `facts`.
    pub fn start(
        url: &MediaUrl,
        format: &AacFormat,
        facts: mpsc::Sender<EgressFact>,
    ) -> Result<Self, String> {
        let text = |error: gst::glib::BoolError| error.to_string();
        let pipeline = gst::Pipeline::new();
        let (video, audio) = (source(None)?, source(Some(&audio::aac_caps(format)))?);
        let mux = make("flvmux")?;
        mux.set_property("streamable", true);
        mux.set_property("encoder", concat!("dub-worker ", env!("CARGO_PKG_VERSION")));
        if mux.has_property("enforce-increasing-timestamps") {
            // Since 1.26; it would rewrite what is right already.
            mux.set_property("enforce-increasing-timestamps", false);
        }
        let sink = make("rtmp2sink")?;
        sink.set_property("location", url.secret());
        sink.set_property("sync", false);
        sink.set_property("timeout", 5_u32);
        pipeline
            .add_many([&video, &audio, &mux, &sink])
            .map_err(text)?;
        video
            .link_pads(Some("src"), &mux, Some("video"))
            .map_err(text)?;
        audio
            .link_pads(Some("src"), &mux, Some("audio"))
            .map_err(text)?;
        mux.link(&sink).map_err(text)?;
        bus::watch(&pipeline, url, move |fact| {
            let fact = match fact {
                BusFact::Error { kind, text } => EgressFact::Failed { kind, reason: text },
                BusFact::Eos => EgressFact::Finished,
                BusFact::Warning { text } => EgressFact::Warning(text),
                BusFact::Progress { .. } => return,
            };
            // Bounded; the first failure is what counts.
            let _ = facts.try_send(fact);
        });
        let egress = Self {
            pipeline,
            video: video.downcast().map_err(|_| "appsrc is no AppSrc")?,
            audio: audio.downcast().map_err(|_| "appsrc is no AppSrc")?,
            sink,
            video_caps: None,
            last: (0, 0),
        };
        // Failures also come over the bus, with a better text.
        let _ = egress.pipeline.set_state(gst::State::Playing);
        Ok(egress)
    }

    /// Hands over an access unit; times are nanoseconds on the output timeline.
    pub fn video(&mut self, unit: AccessUnit, pts: i64, dts: i64) {
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
        // Fails only when the pipeline has failed, which the bus reports.
        let _ = self.video.push_buffer(buffer);
    }

    /// Hands over an AAC frame.
    pub fn audio(&mut self, frame: AacFrame, pts: i64, duration: i64) {
        self.last.1 = pts;
        let mut buffer = gst::Buffer::from_slice(frame);
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(time(pts));
            buffer.set_dts(time(pts));
            buffer.set_duration(time(duration));
        }
        let _ = self.audio.push_buffer(buffer);
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

    /// How much media waits in front of the muxer: grows when the server stops reading.
    pub fn backlog(&self) -> Duration {
        let bytes = self.video.property::<u64>("current-level-bytes");
        let time = self
            .video
            .property::<Option<gst::ClockTime>>("current-level-time");
        if bytes == 0 {
            Duration::ZERO
        } else {
            time.map_or(Duration::ZERO, Duration::from)
        }
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

fn source(caps: Option<&gst::Caps>) -> Result<gst::Element, String> {
    let source = make("appsrc")?;
    source.set_property_from_str("format", "time");
    source.set_property("is-live", false);
    source.set_property("max-bytes", 0_u64);
    if let Some(caps) = caps {
        source.set_property("caps", caps);
    }
    Ok(source)
}

fn time(nanos: i64) -> gst::ClockTime {
    gst::ClockTime::from_nseconds(nanos.max(0) as u64)
}

/// Checks that something listens where `url` points, so that a wrong output is known
/// before the first segment is ready.
pub async fn reachable(url: &MediaUrl, patience: Duration) -> Result<(), String> {
    let parsed = url::Url::parse(url.secret()).map_err(|error| error.to_string())?;
    let host = parsed
        .host_str()
        .ok_or("the URL has no host")?
        .trim_matches(['[', ']'])
        .to_owned();
    let port = parsed.port().unwrap_or(if parsed.scheme() == "rtmps" {
        443
    } else {
        1935
    });
    match tokio::time::timeout(
        patience,
        tokio::net::TcpStream::connect((host.as_str(), port)),
    )
    .await
    {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("cannot connect: {error}")),
        Err(_) => Err(format!("cannot connect: no answer within {patience:?}")),
    }
}
