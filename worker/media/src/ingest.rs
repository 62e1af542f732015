//! RTSP in: H.264 access units and AAC frames with RTP time, as facts.
//!
//! `rtspsrc` time stamps by arrival and, once sender reports allow, by its own idea of
//! synchronisation, with jumps in between. So the time stamps are replaced right behind it
//! by the packets' RTP time, and the sender reports are passed on for
//! [`super::timeline`] to put both tracks on one line.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use gst::prelude::*;
use tokio::sync::mpsc;

use super::aac::{AacFormat, FRAME_SAMPLES};
use super::bus::{self, BusFact};
use super::rtp::{RtpClock, SenderReport, rtp_header};
use super::{AacFrame, AccessUnit, make};
use crate::url::MediaUrl;

/// Which track a fact is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Track {
    /// H.264 video.
    Video,
    /// The audio track.
    Audio,
}

/// What one RTSP connection tells. Times are nanoseconds of RTP time since the track's
/// first packet.
#[expect(missing_docs, reason = "the fields say what they are")]
#[derive(Debug)]
pub enum IngestFact {
    /// The server accepted PLAY; media may take its time.
    Connected,
    /// The audio's format, before its first frame.
    AudioFormat(AacFormat),
    /// An access unit, in decoding order.
    Video {
        time: i64,
        keyframe: bool,
        unit: AccessUnit,
    },
    /// An AAC frame; `time` is `None` where the depayloader could not tell.
    Audio { time: Option<i64>, frame: AacFrame },
    /// A sender report: `time` on the track is `ntp` on the sender's clock.
    Report { track: Track, time: i64, ntp: i64 },
    /// The server closed the stream. It may have ended, or may come back.
    Ended { reason: String },
    /// The connection failed.
    Failed { error: IngestError },
    /// GStreamer said something odd, for the log.
    Warning { text: String },
}

/// Why a connection failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IngestError {
    /// The server answers, but has no such stream (any more).
    #[error("{0}")]
    NotFound(String),
    /// Refused, unreachable, silent, or broken on the way.
    #[error("{0}")]
    Broken(String),
    /// A track is missing; trying again does not help.
    #[error("{0}")]
    Unsuitable(String),
    /// This installation of GStreamer lacks something.
    #[error("{0}")]
    Installation(String),
}

/// One RTSP connection. Dropping it stops it.
pub struct Ingest {
    pipeline: gst::Pipeline,
}

/// What is known of a track while packets run.
#[derive(Default)]
struct Tracks {
    clocks: BTreeMap<u32, (Track, RtpClock)>,
    /// Reports that came before their track's first packet.
    early: BTreeMap<u32, SenderReport>,
    offered: Vec<(String, String)>,
}

type Shared = Arc<Mutex<Tracks>>;

/// Where facts go. A full channel means that the worker does not keep up at all (it holds
/// more than ten seconds); the loss is reported as a broken connection, never waited for.
#[derive(Clone)]
struct Out {
    sender: mpsc::Sender<(u32, IngestFact)>,
    connection: u32,
}

impl Out {
    fn send(&self, fact: IngestFact) {
        // An error means that the worker is gone or drowned; the driver notices both.
        let _ = self.sender.try_send((self.connection, fact));
    }
}

/// How many facts may wait for the driver: over ten seconds of media.
pub const CHANNEL_CAPACITY: usize = 2048;

impl Ingest {
    /// Connects to `url`. Everything that follows, failures included, comes through
    /// `sender`, tagged with `connection`.
    pub fn start(
        url: &MediaUrl,
        latency: std::time::Duration,
        connection: u32,
        sender: mpsc::Sender<(u32, IngestFact)>,
    ) -> Result<Self, String> {
        let out = Out { sender, connection };
        let pipeline = gst::Pipeline::new();
        let source = make("rtspsrc")?;
        source.set_property("location", url.secret());
        source.set_property_from_str("protocols", "tcp");
        source.set_property("latency", latency.as_millis() as u32);
        // Time stamps must step as RTP time does, not as packets arrive.
        source.set_property_from_str("buffer-mode", "none");
        source.set_property("tcp-timeout", 5_000_000_u64);
        source.set_property("teardown-timeout", 100_000_000_u64);
        source.set_property(
            "user-agent",
            concat!("dub-worker/", env!("CARGO_PKG_VERSION")),
        );
        pipeline.add(&source).map_err(|error| error.to_string())?;

        let tracks = Shared::default();
        watch_offer(&source, &tracks, &out);
        watch_reports(&source, &tracks, &out);
        watch_pads(&source, &pipeline, &tracks, &out);
        watch_bus(&pipeline, url, &tracks, &out);

        let ingest = Self { pipeline };
        // Failures also come over the bus, with a better text.
        let _ = ingest.pipeline.set_state(gst::State::Playing);
        Ok(ingest)
    }

    /// Stops the connection. Blocks for up to a second; not for async code.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if let Some(bus) = self.pipeline.bus() {
            bus.unset_sync_handler();
        }
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

fn lock(tracks: &Shared) -> std::sync::MutexGuard<'_, Tracks> {
    tracks.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes which streams the server offers, before any is set up.
fn watch_offer(source: &gst::Element, tracks: &Shared, out: &Out) {
    let (tracks, out) = (tracks.clone(), out.clone());
    source.connect("select-stream", false, move |args| {
        let caps = args.get(2).and_then(|value| value.get::<gst::Caps>().ok());
        let (media, encoding) = caps.as_ref().map(media_of).unwrap_or_default();
        let wanted = match media.as_str() {
            "video" => encoding == "H264",
            "audio" => true,
            _ => false,
        };
        let first = {
            let mut tracks = lock(&tracks);
            let first = !tracks
                .offered
                .iter()
                .any(|(m, e)| *m == media && (media != "video" || e == "H264"));
            tracks.offered.push((media.clone(), encoding.clone()));
            first
        };
        // Known before the first packet: time to prepare the dubbing.
        if wanted
            && first
            && media == "audio"
            && encoding != "MP4A-LATM"
            && let Some(caps) = &caps
        {
            let format = copied_format(&encoding, caps).unwrap_or_else(converted_format);
            out.send(IngestFact::AudioFormat(format));
        }
        Some((wanted && first).to_value())
    });
}

/// The format of audio that is copied as it comes.
fn copied_format(encoding: &str, caps: &gst::Caps) -> Option<AacFormat> {
    let config = caps.structure(0)?.get::<String>("config").ok()?;
    (encoding == "MPEG4-GENERIC")
        .then(|| AacFormat::from_config(&unhex(&config)?))
        .flatten()
}

/// The format that any other audio is converted to.
fn converted_format() -> AacFormat {
    AacFormat::lc(48_000, 2)
}

fn media_of(caps: &gst::Caps) -> (String, String) {
    let Some(structure) = caps.structure(0) else {
        return Default::default();
    };
    let field = |name| structure.get::<String>(name).unwrap_or_default();
    (field("media"), field("encoding-name").to_uppercase())
}

/// What an offer lacks, in words an operator can act on.
fn missing_track(offered: &[(String, String)]) -> Option<String> {
    let video: Vec<&str> = offered
        .iter()
        .filter(|(m, _)| m == "video")
        .map(|(_, e)| e.as_str())
        .collect();
    if !video.contains(&"H264") {
        return Some(if video.is_empty() {
            "H.264 video track required, the input has no video".to_owned()
        } else {
            format!(
                "H.264 video track required, the input has {}",
                video.join(", ")
            )
        });
    }
    let audio = offered.iter().any(|(media, _)| media == "audio");
    (!audio).then(|| "audio track required for dubbing".to_owned())
}

/// Passes sender reports on as soon as the jitter buffer has seen them.
fn watch_reports(source: &gst::Element, tracks: &Shared, out: &Out) {
    let (tracks, out) = (tracks.clone(), out.clone());
    source.connect("new-manager", false, move |args| {
        let manager = args.get(1)?.get::<gst::Element>().ok()?;
        let (tracks, out) = (tracks.clone(), out.clone());
        manager.connect("new-jitterbuffer", false, move |args| {
            let buffer = args.get(1)?.get::<gst::Element>().ok()?;
            let (tracks, out) = (tracks.clone(), out.clone());
            buffer.connect("handle-sync", false, move |args| {
                let structure = args.get(1)?.get::<gst::Structure>().ok()?;
                let packet = structure.get::<gst::Buffer>("sr-buffer").ok()?;
                let report = SenderReport::parse(packet.map_readable().ok()?.as_slice())?;
                on_report(&tracks, &out, report);
                None
            });
            None
        });
        None
    });
}

fn on_report(tracks: &Shared, out: &Out, report: SenderReport) {
    let fact = {
        let mut tracks = lock(tracks);
        let known = tracks
            .clocks
            .get(&report.ssrc)
            .and_then(|(track, clock)| Some((*track, clock.other(report.rtp)?)));
        if known.is_none() {
            // Bounded: one entry per source, and a handful of sources.
            if tracks.early.len() < 8 || tracks.early.contains_key(&report.ssrc) {
                tracks.early.insert(report.ssrc, report);
            }
        }
        known.map(|(track, time)| IngestFact::Report {
            track,
            time,
            ntp: report.ntp,
        })
    };
    if let Some(fact) = fact {
        out.send(fact);
    }
}

fn watch_bus(pipeline: &gst::Pipeline, url: &MediaUrl, tracks: &Shared, out: &Out) {
    let (tracks, out) = (tracks.clone(), out.clone());
    bus::watch(pipeline, url, move |fact| match fact {
        BusFact::Error { text, .. } if text.contains("(404)") || text.contains("(454)") => {
            out.send(IngestFact::Failed {
                error: IngestError::NotFound(text),
            });
        }
        BusFact::Error { text, .. } => out.send(IngestFact::Failed {
            error: IngestError::Broken(text),
        }),
        // The only warning of a healthy life: the server has closed the connection. It is
        // followed by the end of the stream.
        BusFact::Warning { text } if text.contains("Could not read from resource") => {}
        BusFact::Warning { text } => out.send(IngestFact::Warning { text }),
        BusFact::Eos => out.send(IngestFact::Ended {
            reason: "the server closed the stream".to_owned(),
        }),
        BusFact::Progress { code } if code == "open" => {
            let missing = missing_track(&lock(&tracks).offered);
            if let Some(reason) = missing {
                out.send(IngestFact::Failed {
                    error: IngestError::Unsuitable(reason),
                });
            }
        }
        BusFact::Progress { code } if code == "request" => out.send(IngestFact::Connected),
        BusFact::Progress { .. } => {}
    });
}

fn watch_pads(source: &gst::Element, pipeline: &gst::Pipeline, tracks: &Shared, out: &Out) {
    let (pipeline, tracks, out) = (pipeline.downgrade(), tracks.clone(), out.clone());
    source.connect_pad_added(move |_, pad| {
        let Some(pipeline) = pipeline.upgrade() else {
            return;
        };
        let Some(caps) = pad.current_caps().or_else(|| Some(pad.query_caps(None))) else {
            return;
        };
        let (media, encoding) = media_of(&caps);
        let linked = match (media.as_str(), encoding.as_str()) {
            ("video", "H264") => {
                restamp(pad, Track::Video, &caps, &tracks, &out);
                link_video(&pipeline, pad, &out)
            }
            ("audio", encoding) => {
                restamp(pad, Track::Audio, &caps, &tracks, &out);
                link_audio(&pipeline, pad, encoding, &caps, &out)
            }
            _ => Ok(()),
        };
        if let Err(error) = linked {
            out.send(IngestFact::Failed {
                error: IngestError::Installation(error),
            });
        }
    });
}

/// Replaces the time stamp of every packet by its RTP time, plus a head room so that
/// reordered frames never go below zero.
fn restamp(pad: &gst::Pad, track: Track, caps: &gst::Caps, tracks: &Shared, out: &Out) {
    let rate = caps
        .structure(0)
        .and_then(|s| s.get::<i32>("clock-rate").ok())
        .unwrap_or(90_000);
    let (tracks, out) = (tracks.clone(), out.clone());
    let stamp = move |buffer: &mut gst::BufferRef| {
        let header = buffer.map_readable().ok().and_then(|map| rtp_header(&map));
        let Some((ssrc, timestamp)) = header else {
            return;
        };
        let (time, early) = {
            let mut tracks = lock(&tracks);
            let (_, clock) = tracks
                .clocks
                .entry(ssrc)
                .or_insert_with(|| (track, RtpClock::new(rate.unsigned_abs())));
            let time = clock.packet(timestamp);
            (time, tracks.early.remove(&ssrc))
        };
        if let Some(report) = early {
            on_report(&tracks, &out, report);
        }
        let stamp = gst::ClockTime::from_nseconds((time + HEAD_ROOM).max(0) as u64);
        buffer.set_pts(stamp);
        buffer.set_dts(gst::ClockTime::NONE);
    };
    let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
    pad.add_probe(mask, move |_, info| {
        match &mut info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => stamp(buffer.make_mut()),
            Some(gst::PadProbeData::BufferList(list)) => {
                let list = list.make_mut();
                list.foreach_mut(|mut buffer, _| {
                    stamp(buffer.make_mut());
                    std::ops::ControlFlow::Continue(Some(buffer))
                });
            }
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
}

/// Added to RTP time inside the pipeline, where time cannot be negative.
const HEAD_ROOM: i64 = 1_000_000_000_000;

fn time_of(buffer: &gst::BufferRef) -> Option<i64> {
    buffer.pts().map(|pts| pts.nseconds() as i64 - HEAD_ROOM)
}

fn link_video(pipeline: &gst::Pipeline, pad: &gst::Pad, out: &Out) -> Result<(), String> {
    let caps = gst::Caps::builder("video/x-h264")
        .field("stream-format", "avc")
        .field("alignment", "au")
        .build();
    let (filter, sink) = (make("capsfilter")?, make("appsink")?);
    filter.set_property("caps", &caps);
    let chain = [make("rtph264depay")?, make("h264parse")?, filter, sink];
    let out = out.clone();
    on_sample(&chain[3], move |sample| {
        let Some(buffer) = sample.buffer_owned() else {
            return;
        };
        let Some(caps) = sample.caps_owned() else {
            return;
        };
        let Some(time) = time_of(&buffer) else { return };
        let keyframe = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        out.send(IngestFact::Video {
            time,
            keyframe,
            unit: AccessUnit { buffer, caps },
        });
    });
    link_chain(pipeline, pad, &chain)
}

fn link_audio(
    pipeline: &gst::Pipeline,
    pad: &gst::Pad,
    encoding: &str,
    caps: &gst::Caps,
    out: &Out,
) -> Result<(), String> {
    match (encoding, copied_format(encoding, caps)) {
        ("MPEG4-GENERIC", Some(_)) => {
            let chain = [
                make("rtpmp4gdepay")?,
                make("aacparse")?,
                raw_aac()?,
                make("appsink")?,
            ];
            send_frames(&chain[3], 0, out);
            link_chain(pipeline, pad, &chain)
        }
        // LATM carries the configuration in another form: what the parser finds decides.
        ("MP4A-LATM", _) => {
            let chain = [
                make("rtpmp4adepay")?,
                make("aacparse")?,
                raw_aac()?,
                make("appsink")?,
            ];
            announce_format(&chain[2], out);
            send_frames(&chain[3], 0, out);
            link_chain(pipeline, pad, &chain)
        }
        _ => link_converted(pipeline, pad, out),
    }
}

fn raw_aac() -> Result<gst::Element, String> {
    let filter = make("capsfilter")?;
    let caps = gst::Caps::builder("audio/mpeg")
        .field("mpegversion", 4)
        .field("stream-format", "raw")
        .build();
    filter.set_property("caps", &caps);
    Ok(filter)
}

/// Tells the format found by the parser, or that it cannot be used.
fn announce_format(filter: &gst::Element, out: &Out) {
    let Some(pad) = filter.static_pad("src") else {
        return;
    };
    let out = out.clone();
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if let Some(gst::EventView::Caps(event)) = info.event().map(|event| event.view()) {
            let data = event
                .caps()
                .structure(0)
                .and_then(|s| s.get::<gst::Buffer>("codec_data").ok());
            let config = data.and_then(|data| data.map_readable().ok().map(|map| map.to_vec()));
            match config.as_deref().and_then(AacFormat::from_config) {
                Some(format) => out.send(IngestFact::AudioFormat(format)),
                None => out.send(IngestFact::Failed {
                    error: IngestError::Unsuitable(
                        "audio is AAC of a kind that LATM input is not converted from; use AAC-LC"
                            .to_owned(),
                    ),
                }),
            }
        }
        gst::PadProbeReturn::Ok
    });
}

/// Audio that is not plain AAC-LC is decoded and encoded once, here, so that the rest of
/// the worker knows one kind of audio only.
fn link_converted(pipeline: &gst::Pipeline, pad: &gst::Pad, out: &Out) -> Result<(), String> {
    let format = converted_format();
    let decoder = make("decodebin")?;
    let filter = make("capsfilter")?;
    let caps = gst::Caps::builder("audio/x-raw")
        .field("rate", format.rate as i32)
        .field("channels", format.channels as i32)
        .build();
    filter.set_property("caps", &caps);
    let encoder = make("avenc_aac")?;
    encoder.set_property("bitrate", 192_000_i32);
    super::encoder::plain(&encoder);
    let chain = [
        make("audioconvert")?,
        make("audioresample")?,
        filter,
        encoder,
        make("aacparse")?,
        raw_aac()?,
        make("appsink")?,
    ];
    // The encoder stamps its output one frame late and gives one frame of nothing first.
    send_frames(&chain[6], format.nanos(u64::from(FRAME_SAMPLES)), out);
    pipeline.add(&decoder).map_err(|error| error.to_string())?;
    pipeline
        .add_many(&chain)
        .map_err(|error| error.to_string())?;
    gst::Element::link_many(&chain).map_err(|error| error.to_string())?;
    let input = chain[0].clone();
    decoder.connect_pad_added(move |_, pad| {
        if let Some(sink) = input.static_pad("sink").filter(|sink| !sink.is_linked()) {
            // An unlinked pad ends in an error on the bus, which says more than this result.
            let _ = pad.link(&sink);
        }
    });
    let sink = decoder.static_pad("sink").ok_or("decodebin has no sink")?;
    pad.link(&sink).map_err(|error| error.to_string())?;
    for element in chain.iter().chain([&decoder]) {
        element
            .sync_state_with_parent()
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn send_frames(sink: &gst::Element, late: i64, out: &Out) {
    let out = out.clone();
    on_sample(sink, move |sample| {
        let Some(buffer) = sample.buffer() else {
            return;
        };
        let Ok(map) = buffer.map_readable() else {
            return;
        };
        let time = time_of(buffer).map(|time| time - late);
        out.send(IngestFact::Audio {
            time,
            frame: AacFrame::from(map.as_slice()),
        });
    });
}

fn on_sample(sink: &gst::Element, on_sample: impl Fn(gst::Sample) + Send + 'static) {
    let Some(sink) = sink.downcast_ref::<gst_app::AppSink>() else {
        return;
    };
    sink.set_property("sync", false);
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                on_sample(sink.pull_sample().map_err(|_| gst::FlowError::Eos)?);
                Ok(gst::FlowSuccess::Ok)
            })
            .build(),
    );
}

fn link_chain(
    pipeline: &gst::Pipeline,
    pad: &gst::Pad,
    chain: &[gst::Element],
) -> Result<(), String> {
    pipeline
        .add_many(chain)
        .map_err(|error| error.to_string())?;
    gst::Element::link_many(chain).map_err(|error| error.to_string())?;
    let sink = chain[0]
        .static_pad("sink")
        .ok_or("depayloader has no sink")?;
    pad.link(&sink).map_err(|error| error.to_string())?;
    for element in chain.iter().rev() {
        element
            .sync_state_with_parent()
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(tracks: &[(&str, &str)]) -> Option<String> {
        let offered: Vec<_> = tracks
            .iter()
            .map(|(m, e)| ((*m).to_owned(), (*e).to_owned()))
            .collect();
        missing_track(&offered)
    }

    #[test]
    fn an_offer_needs_h264_and_audio() {
        assert_eq!(
            offer(&[("video", "H264"), ("audio", "MPEG4-GENERIC")]),
            None
        );
        assert_eq!(
            offer(&[("video", "H264")]).unwrap(),
            "audio track required for dubbing"
        );
        assert_eq!(
            offer(&[("video", "H265"), ("audio", "OPUS")]).unwrap(),
            "H.264 video track required, the input has H265"
        );
        assert_eq!(
            offer(&[("audio", "OPUS")]).unwrap(),
            "H.264 video track required, the input has no video"
        );
    }

    #[test]
    fn configurations_are_hexadecimal() {
        assert_eq!(unhex("1190"), Some(vec![0x11, 0x90]));
        assert_eq!(unhex("119"), None);
        assert_eq!(unhex("zz"), None);
    }
}
