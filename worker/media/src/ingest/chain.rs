//! From RTP to access units and AAC frames: what is linked behind `rtspsrc`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use dub_engine::Track;
use dub_engine::pause::FrameLevel;
use gst::prelude::*;

use super::super::aac::AacFormat;
use super::super::ear::Ear;
use super::super::element::{Element, make};
use super::super::rtp::{RtpHeader, is_whole_aac};
use super::super::{AacFrame, AccessUnit, MediaError, audio};
use super::convert::{Converted, Converter};
use super::offer::{completed, copied_format, is_found_out, media_of};
use super::picture::{Kinds, marked};
use super::stamp::{Stamps, on_packets, time_of};
use super::telling::{Telling, lock};
use super::{IngestError, IngestFact};

/// A server that changes its SSRC more often than this on one connection is broken.
const MOST_PADS: u32 = 32;

/// The format that audio is converted to if it is not copied.
pub(super) fn converted_format() -> AacFormat {
    AacFormat::lc(48_000, 2)
}

/// Links every stream as it appears.
pub(super) fn watch_pads(
    source: &gst::Element,
    pipeline: &gst::Pipeline,
    stamps: &Stamps,
    telling: &Telling,
    listen: bool,
) {
    let (pipeline, stamps, telling) = (pipeline.downgrade(), stamps.clone(), telling.clone());
    let pads = Arc::new(AtomicU32::new(0));
    source.connect_pad_added(move |_, pad| {
        let Some(pipeline) = pipeline.upgrade() else {
            return;
        };
        if pads.fetch_add(1, Ordering::Relaxed) >= MOST_PADS {
            let reason = "the server changes its SSRC all the time".to_owned();
            return telling.end(IngestFact::Failed {
                error: IngestError::Broken(reason),
            });
        }
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let (media, encoding) = media_of(&caps);
        let chains = Chains {
            pipeline: &pipeline,
            pad,
            stamps: &stamps,
            telling: &telling,
            listen,
        };
        let linked = match (media.as_str(), encoding.as_str()) {
            ("video", "H264") => {
                stamps.replace(pad, Track::Video, &caps, &telling);
                chains.video()
            }
            ("audio", encoding) => {
                stamps.replace(pad, Track::Audio, &caps, &telling);
                chains.audio(encoding, &caps)
            }
            _ => Ok(()),
        };
        if let Err(error) = linked {
            telling.end(IngestFact::Failed {
                error: IngestError::Installation {
                    media,
                    encoding,
                    error,
                },
            });
        }
    });
}

struct Chains<'a> {
    pipeline: &'a gst::Pipeline,
    pad: &'a gst::Pad,
    stamps: &'a Stamps,
    telling: &'a Telling,
    /// Whether the loudness of audio matters.
    listen: bool,
}

impl Chains<'_> {
    fn video(&self) -> Result<(), MediaError> {
        // Unit by unit, so that the parser finds the pictures: the marker of RTP may be on every slice.
        let units = filter("video/x-h264", "byte-stream", Some("nal"))?;
        let pictures = filter("video/x-h264", "avc", Some("au"))?;
        let sink = make(Element::Appsink)?;
        let (stamps, telling) = (self.stamps.clone(), self.telling.clone());
        let kinds = Mutex::new(Kinds::default());
        on_sample(&sink, self.telling, move |sample| {
            let (Some(buffer), Some(caps)) = (sample.buffer_owned(), sample.caps_owned()) else {
                return;
            };
            let (time, arrived) = stamps.of_unit(Track::Video, &buffer);
            let keyframe = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
            let picture = match buffer.map_readable() {
                Ok(map) => lock(&kinds).kind(&map, keyframe, arrived),
                Err(_) => return,
            };
            let unit = AccessUnit {
                buffer: marked(buffer, picture),
                caps,
            };
            telling.tell(IngestFact::Video {
                time,
                arrived,
                picture,
                unit,
            });
        });
        let depayloader = make(Element::Rtph264depay)?;
        self.stamps.hide_markers(&depayloader);
        self.link(&[
            depayloader,
            units,
            make(Element::H264parse)?,
            pictures,
            sink,
        ])
    }

    fn audio(&self, encoding: &str, caps: &gst::Caps) -> Result<(), MediaError> {
        if encoding == "MPEG4-GENERIC" {
            complete_caps(self.pad);
            mark_whole_frames(self.pad);
        }
        match (encoding, copied_format(encoding, caps)) {
            ("MPEG4-GENERIC", Some(_)) => self.copied(Element::Rtpmp4gdepay, false),
            ("MP4A-LATM", _) if is_found_out(encoding, caps) => {
                self.copied(Element::Rtpmp4adepay, true)
            }
            _ => self.converted(),
        }
    }

    fn copied(&self, depayloader: Element, announced: bool) -> Result<(), MediaError> {
        let raw = filter("audio/mpeg", "raw", None)?;
        if announced {
            announce_format(&raw, self.telling);
        }
        let sink = make(Element::Appsink)?;
        let (stamps, telling) = (self.stamps.clone(), self.telling.clone());
        let level = self.level()?;
        on_sample(&sink, self.telling, move |sample| {
            let Some((frame, buffer)) = frame_of(&sample) else {
                return;
            };
            let (time, arrived) = stamps.of_unit(Track::Audio, buffer);
            telling.tell(IngestFact::Audio {
                time,
                arrived,
                frame,
                level: level(&sample),
            });
        });
        let depayloader = make(depayloader)?;
        bare_frames(&depayloader);
        self.link(&[depayloader, make(Element::Aacparse)?, raw, sink])
    }

    /// Audio that is not plain AAC-LC is decoded and encoded once, here, so that the rest of
    /// the worker knows one kind of audio only.
    fn converted(&self) -> Result<(), MediaError> {
        let format = converted_format();
        let decoder = make(Element::Decodebin)?;
        let samples = make(Element::Capsfilter)?;
        samples.set_property("caps", audio::pcm_caps(format.rate, format.channels)?);
        let sink = make(Element::Appsink)?;
        let converter = Arc::new(Mutex::new(Converter::new(format)?));
        let (ending, telling, listen) = (Arc::clone(&converter), self.telling.clone(), self.listen);
        let tell = move |converted: Result<Vec<Converted>, MediaError>| match converted {
            Ok(frames) => {
                for (time, frame, level) in frames {
                    telling.tell(IngestFact::Audio {
                        time,
                        arrived: Instant::now(),
                        frame,
                        level: listen.then_some(level),
                    });
                }
            }
            Err(error) => telling.end(IngestFact::Failed {
                error: IngestError::Broken(error.to_string()),
            }),
        };
        let tell_rest = tell.clone();
        on_stream(
            &sink,
            self.telling,
            move |sample| {
                let Some((time, samples)) = samples_of(&sample) else {
                    return;
                };
                tell(lock(&converter).push(time, &samples));
            },
            move || tell_rest(lock(&ending).finish()),
        );
        let chain = [
            make(Element::Audioconvert)?,
            make(Element::Audioresample)?,
            samples,
            sink,
        ];
        self.add(&chain)?;
        self.pipeline.add(&decoder).map_err(failed())?;
        let input = chain[0].clone();
        decoder.connect_pad_added(move |_, pad| {
            if let Some(sink) = input.static_pad("sink").filter(|sink| !sink.is_linked()) {
                // An unlinked pad ends in an error on the bus, which says more than this result.
                let _ = pad.link(&sink);
            }
        });
        self.enter(&decoder)?;
        start(&chain)?;
        start(&[decoder])
    }

    /// What tells the level of each frame, if it matters.
    fn level(
        &self,
    ) -> Result<impl Fn(&gst::Sample) -> Option<FrameLevel> + Send + use<>, MediaError> {
        let ear = self.listen.then(Ear::new).transpose()?.map(Mutex::new);
        Ok(move |sample: &gst::Sample| ear.as_ref()?.lock().ok()?.level(sample))
    }

    fn link(&self, chain: &[gst::Element]) -> Result<(), MediaError> {
        self.add(chain)?;
        self.enter(&chain[0])?;
        start(chain)
    }

    fn add(&self, chain: &[gst::Element]) -> Result<(), MediaError> {
        self.pipeline.add_many(chain).map_err(failed())?;
        gst::Element::link_many(chain).map_err(failed())
    }

    fn enter(&self, first: &gst::Element) -> Result<(), MediaError> {
        let sink = first
            .static_pad("sink")
            .ok_or_else(|| failed()(format!("{} has no sink", first.name())))?;
        self.pad.link(&sink).map_err(failed())?;
        Ok(())
    }
}

/// Sets a chain going, from its end.
fn start(chain: &[gst::Element]) -> Result<(), MediaError> {
    chain
        .iter()
        .rev()
        .try_for_each(|element| element.sync_state_with_parent().map_err(failed()))
}

fn failed<E: ToString>() -> impl Fn(E) -> MediaError {
    MediaError::at("RTSP input")
}

fn filter(media: &str, format: &str, alignment: Option<&str>) -> Result<gst::Element, MediaError> {
    let mut caps = gst::Caps::builder(media).field("stream-format", format);
    if let Some(alignment) = alignment {
        caps = caps.field("alignment", alignment);
    }
    if media == "audio/mpeg" {
        caps = caps.field("mpegversion", 4);
    }
    let filter = make(Element::Capsfilter)?;
    filter.set_property("caps", caps.build());
    Ok(filter)
}

/// Gives AAC that came without configuration the one of its `rtpmap`.
fn complete_caps(pad: &gst::Pad) {
    // Whether caps are accepted is asked before they come through here.
    pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, |_, info| {
        if let Some(gst::QueryViewMut::AcceptCaps(query)) =
            info.query_mut().map(gst::QueryRef::view_mut)
            && completed(&query.caps_owned()).is_some()
        {
            query.set_result(true);
            return gst::PadProbeReturn::Handled;
        }
        gst::PadProbeReturn::Ok
    });
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |_, info| {
        let caps = match info.event().map(|event| event.view()) {
            Some(gst::EventView::Caps(event)) => completed(&event.caps_owned()),
            _ => None,
        };
        if let Some(caps) = caps {
            info.data = Some(gst::PadProbeData::Event(gst::event::Caps::new(&caps)));
        }
        gst::PadProbeReturn::Ok
    });
}

/// Puts the marker on packets of whole frames: senders leave it out, and without it nothing comes out of the
/// depayloader.
fn mark_whole_frames(pad: &gst::Pad) {
    on_packets(pad, |buffer| {
        let map = buffer.map_readable().ok();
        let whole = map.is_some_and(|map| {
            RtpHeader::parse(&map)
                .is_some_and(|header| !header.marker && is_whole_aac(header.payload_of(&map)))
        });
        if whole && let Ok(mut map) = buffer.map_writable() {
            map[1] |= 0x80;
        }
        true
    });
}

/// Takes the ADTS header off frames that cameras left it on. No raw frame begins so: its first three bits
/// would be the end of it.
fn bare_frames(depayloader: &gst::Element) {
    let Some(pad) = depayloader.static_pad("src") else {
        return;
    };
    pad.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data {
            let header = buffer.map_readable().map_or(0, |map| adts_header(&map));
            if header > 0
                && let Ok(bare) = buffer.copy_region(gst::BufferCopyFlags::all(), header..)
            {
                *buffer = bare;
            }
        }
        gst::PadProbeReturn::Ok
    });
}

/// Length of the ADTS header that a frame begins with.
fn adts_header(frame: &[u8]) -> usize {
    match *frame {
        [0xff, second, ..] if second & 0xf6 == 0xf0 && second & 1 == 1 => 7,
        [0xff, second, ..] if second & 0xf6 == 0xf0 => 9,
        _ => 0,
    }
}

/// Tells the format found by the parser, or that it cannot be used.
fn announce_format(filter: &gst::Element, telling: &Telling) {
    let Some(pad) = filter.static_pad("src") else {
        return;
    };
    let telling = telling.clone();
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if let Some(gst::EventView::Caps(event)) = info.event().map(|event| event.view()) {
            let data = event
                .caps()
                .structure(0)
                .and_then(|s| s.get::<gst::Buffer>("codec_data").ok());
            let config = data.and_then(|data| data.map_readable().ok().map(|map| map.to_vec()));
            match config.as_deref().and_then(AacFormat::from_config) {
                Some(format) => telling.tell(IngestFact::AudioFormat {
                    format,
                    bundled: None,
                }),
                None => telling.end(IngestFact::Failed {
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

fn frame_of(sample: &gst::Sample) -> Option<(AacFrame, &gst::BufferRef)> {
    let buffer = sample.buffer()?;
    let map = buffer.map_readable().ok()?;
    Some((AacFrame::from(map.as_slice()), buffer))
}

fn samples_of(sample: &gst::Sample) -> Option<(Option<i64>, Vec<f32>)> {
    let buffer = sample.buffer()?;
    let map = buffer.map_readable().ok()?;
    Some((time_of(buffer), audio::samples_of(&map).collect()))
}

fn on_sample(
    sink: &gst::Element,
    telling: &Telling,
    on_sample: impl Fn(gst::Sample) + Send + 'static,
) {
    on_stream(sink, telling, on_sample, || ());
}

fn on_stream(
    sink: &gst::Element,
    telling: &Telling,
    on_sample: impl Fn(gst::Sample) + Send + 'static,
    on_end: impl Fn() + Send + 'static,
) {
    let Some(sink) = sink.downcast_ref::<gst_app::AppSink>() else {
        return;
    };
    sink.set_property("sync", false);
    let telling = telling.clone();
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .eos(move |_| {
                on_end();
                telling.chain_ended();
            })
            .new_sample(move |sink| {
                on_sample(sink.pull_sample().map_err(|_| gst::FlowError::Eos)?);
                Ok(gst::FlowSuccess::Ok)
            })
            .build(),
    );
}
