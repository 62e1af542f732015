//! Chains of elements that turn bytes into samples: one per kind, chosen by us.
//!
//! Nothing here looks for a decoder by itself (`decodebin` does, and follows a playlist to wherever
//! it points), nothing has a queue or a thread besides the source's own, and every element reads
//! only what is pushed into it: no connection, no file.

use std::time::Instant;

use gst::prelude::*;

use super::aac::AacFormat;
use super::audio::{AudioError, AudioKind, Budget, pcm_caps, samples_of};
use super::element::{Element, cast, make};
use super::error::MediaError;
use super::meter::{self, Meter, Thread};

/// In errors.
const PLACE: &str = "audio decoder";

/// Elements that take a file of this kind apart, the last of which gives samples or has pads later.
fn chain(kind: AudioKind) -> Result<Vec<gst::Element>, MediaError> {
    Ok(match kind {
        AudioKind::Mp4 => vec![make(Element::Qtdemux)?],
        AudioKind::Ogg => vec![make(Element::Oggdemux)?],
        AudioKind::Wav | AudioKind::RawPcm => vec![make(Element::Wavparse)?],
        AudioKind::Adts => vec![make(Element::Aacparse)?, make(Element::AvdecAac)?],
        AudioKind::Mp3 => vec![make(Element::Mpegaudioparse)?, make(Element::AvdecMp3)?],
        AudioKind::Flac => vec![make(Element::Flacparse)?, make(Element::AvdecFlac)?],
    })
}

/// Elements between a container's pad and samples; `None` for what is no audio we know.
fn behind(caps: &gst::StructureRef) -> Result<Option<Vec<gst::Element>>, MediaError> {
    let version = caps.get::<i32>("mpegversion");
    Ok(Some(match (caps.name().as_str(), version) {
        ("audio/x-raw", _) => vec![],
        ("audio/mpeg", Ok(2 | 4)) => vec![make(Element::Aacparse)?, make(Element::AvdecAac)?],
        ("audio/mpeg", _) => vec![make(Element::Mpegaudioparse)?, make(Element::AvdecMp3)?],
        ("audio/x-opus", _) => vec![make(Element::Opusdec)?],
        ("audio/x-vorbis", _) => vec![make(Element::Vorbisdec)?],
        ("audio/x-flac", _) => vec![make(Element::Flacparse)?, make(Element::AvdecFlac)?],
        ("audio/x-mulaw", _) => vec![make(Element::Mulawdec)?],
        ("audio/x-alaw", _) => vec![make(Element::Alawdec)?],
        _ => return Ok(None),
    }))
}

/// Puts what decodes it between a container's `pad` and `input`. A pad of something else stays
/// unlinked; if no other comes, the job ends with an error on the bus.
fn link(pipeline: &gst::Pipeline, pad: &gst::Pad, input: &gst::Pad) -> Result<(), MediaError> {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    let Some(caps) = caps.structure(0).filter(|_| !input.is_linked()) else {
        return Ok(());
    };
    let Some(elements) = behind(caps)? else {
        return Ok(());
    };
    let failed = || MediaError::at::<gst::glib::BoolError>(PLACE);
    let unlinked = || MediaError::at::<gst::PadLinkError>(PLACE);
    pipeline.add_many(&elements).map_err(failed())?;
    let mut pad = pad.clone();
    for element in &elements {
        let (Some(sink), Some(source)) = (element.static_pad("sink"), element.static_pad("src"))
        else {
            return Err(MediaError::at(PLACE)("a decoder without pads"));
        };
        pad.link(&sink).map_err(unlinked())?;
        element.sync_state_with_parent().map_err(failed())?;
        pad = source;
    }
    pad.link(input).map_err(unlinked())?;
    Ok(())
}

/// How long is waited for samples at once.
const WAIT: gst::ClockTime = gst::ClockTime::from_mseconds(20);

/// `source ! … ! audioconvert ! audioresample ! appsink`, from start to finish.
pub(crate) struct Job {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
    sink: gst_app::AppSink,
    channels: usize,
}

impl Job {
    /// A job on a whole file.
    pub(crate) fn whole(
        kind: AudioKind,
        data: Vec<u8>,
        format: &AacFormat,
    ) -> Result<Self, AudioError> {
        let source = make(Element::Appsrc)?;
        source.set_property_from_str("format", "bytes");
        source.set_property("max-bytes", 0_u64);
        source.set_property("size", data.len() as i64);
        let job = Self::new(&source, chain(kind)?, format)?;
        job.push(gst::Buffer::from_mut_slice(data));
        Ok(job)
    }

    /// A job on what is pushed into `source`.
    pub(crate) fn new(
        source: &gst::Element,
        mut chain: Vec<gst::Element>,
        format: &AacFormat,
    ) -> Result<Self, MediaError> {
        let failed = || MediaError::at::<gst::glib::BoolError>(PLACE);
        let pipeline = gst::Pipeline::new();
        let (convert, resample, sink) = (
            make(Element::Audioconvert)?,
            make(Element::Audioresample)?,
            make(Element::Appsink)?,
        );
        sink.set_property("sync", false);
        sink.set_property("max-buffers", 64_u32);
        sink.set_property("caps", pcm_caps(format.rate, format.channels)?);
        chain.insert(0, source.clone());
        pipeline.add_many(&chain).map_err(failed())?;
        pipeline
            .add_many([&convert, &resample, &sink])
            .map_err(failed())?;
        gst::Element::link_many(&chain).map_err(failed())?;
        gst::Element::link_many([&convert, &resample, &sink]).map_err(failed())?;
        let last = chain.last().unwrap_or(source);
        let input = convert
            .static_pad("sink")
            .ok_or("audioconvert has no sink")
            .map_err(MediaError::at(PLACE))?;
        let late = pipeline.downgrade();
        let plug = move |pad: &gst::Pad| {
            if let Some(pipeline) = late.upgrade()
                && let Err(error) = link(&pipeline, pad, &input)
            {
                let message =
                    gst::message::Error::builder(gst::CoreError::Pad, &error.to_string()).build();
                let _ = pipeline.post_message(message);
            }
        };
        match last.static_pad("src") {
            // Only a WAV's header says what its one pad will give.
            Some(pad) if pad.current_caps().is_none() && last.type_().name() == "GstWavParse" => {
                pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |pad, info| {
                    if let Some(gst::EventView::Caps(_)) = info.event().map(|event| event.view()) {
                        plug(pad);
                    }
                    gst::PadProbeReturn::Ok
                });
            }
            Some(_) => last.link(&convert).map_err(failed())?,
            None => {
                last.connect_pad_added(move |_, pad| plug(pad));
            }
        }
        Ok(Self {
            pipeline,
            source: cast(source.clone())?,
            sink: cast(sink)?,
            channels: format.channels as usize,
        })
    }

    pub(crate) fn push(&self, buffer: gst::Buffer) {
        // Fails only when the pipeline has failed, which `run` reports.
        let _ = self.source.push_buffer(buffer);
    }

    pub(crate) fn run(self, budget: Budget) -> Result<Vec<f32>, AudioError> {
        let thread = Thread::default();
        self.watch(&thread);
        let mut meter = Meter::start(thread, budget.time, Instant::now());
        let _ = self.source.end_of_stream();
        let result = match self.pipeline.set_state(gst::State::Playing) {
            Ok(_) => self.collect(&mut meter, budget),
            Err(_) => Err(AudioError::Undecodable(
                self.failure()
                    .unwrap_or_else(|| "it does not start".to_owned()),
            )),
        };
        let pipeline = self.pipeline;
        if matches!(result, Err(AudioError::TooSlow(_))) {
            // An element that hangs may hang in its shutdown too: that must not be waited for.
            std::thread::spawn(move || {
                let _ = pipeline.set_state(gst::State::Null);
            });
        } else {
            let _ = pipeline.set_state(gst::State::Null);
        }
        result
    }

    /// Finds out which thread decodes: the source's, which says so from itself when it starts.
    fn watch(&self, thread: &Thread) {
        let Some(bus) = self.pipeline.bus() else {
            return;
        };
        let thread = thread.clone();
        bus.set_sync_handler(move |_, message| {
            if let gst::MessageView::StreamStatus(status) = message.view()
                && status.get().0 == gst::StreamStatusType::Enter
            {
                meter::note(&thread);
            }
            gst::BusSyncReply::Pass
        });
    }

    fn collect(&self, meter: &mut Meter, budget: Budget) -> Result<Vec<f32>, AudioError> {
        let mut samples = Vec::new();
        loop {
            if let Some(failure) = self.failure() {
                return Err(AudioError::Undecodable(failure));
            }
            if meter.is_over(Instant::now()) {
                return Err(AudioError::TooSlow(budget.time));
            }
            // Short waits, so that an error on the bus ends the job at once.
            match self.sink.try_pull_sample(WAIT) {
                Some(sample) => {
                    meter.delivered();
                    if let Some(map) = sample
                        .buffer()
                        .and_then(|buffer| buffer.map_readable().ok())
                    {
                        samples.extend(samples_of(&map));
                    }
                    if samples.len() > budget.frames * self.channels {
                        return Err(AudioError::TooLong(budget.frames));
                    }
                }
                None if self.sink.is_eos() => {
                    return match self.failure() {
                        Some(failure) => Err(AudioError::Undecodable(failure)),
                        None => Ok(samples),
                    };
                }
                None => {}
            }
        }
    }

    fn failure(&self) -> Option<String> {
        let message = self
            .pipeline
            .bus()?
            .pop_filtered(&[gst::MessageType::Error])?;
        match message.view() {
            gst::MessageView::Error(error) => {
                Some(error.error().message().trim_end_matches('.').to_owned())
            }
            _ => None,
        }
    }
}
