//! How loud AAC frames are, for cutting where speakers pause.
//!
//! A decoder between two pads of ours: a frame goes in and its samples come out within the call, in the
//! caller's thread. A frame takes about 50 µs (60 s in 0.15 s), so this needs no thread, no queue and no clock.

use std::sync::{Arc, Mutex, PoisonError};

use dub_engine::pause::{FrameLevel, SILENCE};
use gst::prelude::*;

use super::MediaError;
use super::audio::samples_of;
use super::element::{Element, make};

/// Where it fails, in errors.
const PLACE: &str = "audio levels";

/// Hears frames one after the other.
pub(crate) struct Ear {
    decoder: gst::Element,
    input: gst::Pad,
    /// Kept, or the decoder's output has nowhere to go.
    _output: gst::Pad,
    heard: Power,
    /// What the decoder has been told is coming.
    caps: Option<gst::Caps>,
}

/// Power and number of the samples that have come out.
type Power = Arc<Mutex<(f64, usize)>>;

impl Ear {
    /// A decoder that is ready for frames.
    pub(crate) fn new() -> Result<Self, MediaError> {
        let decoder = make(Element::AvdecAac)?;
        let heard = Power::default();
        let input = gst::Pad::builder(gst::PadDirection::Src).build();
        let output = output(&heard);
        let failed = |reason: &str| MediaError::at(PLACE)(reason);
        let pad = |name| decoder.static_pad(name).ok_or_else(|| failed("no pad"));
        for (from, to) in [(&input, &pad("sink")?), (&pad("src")?, &output)] {
            from.link(to).map_err(MediaError::at(PLACE))?;
        }
        for pad in [&input, &output] {
            pad.set_active(true).map_err(MediaError::at(PLACE))?;
        }
        decoder
            .set_state(gst::State::Playing)
            .map_err(MediaError::at(PLACE))?;
        Ok(Self {
            decoder,
            input,
            _output: output,
            heard,
            caps: None,
        })
    }

    /// The level of the next frame; `None` if it cannot be decoded.
    pub(crate) fn level(&mut self, sample: &gst::Sample) -> Option<FrameLevel> {
        let (buffer, caps) = (sample.buffer_owned()?, sample.caps_owned()?);
        if self.caps.as_ref() != Some(&caps) {
            if self.caps.is_none() {
                self.input.push_event(gst::event::StreamStart::new("ear"));
            }
            self.input.push_event(gst::event::Caps::new(&caps));
            if self.caps.is_none() {
                let segment = gst::FormattedSegment::<gst::ClockTime>::new();
                self.input.push_event(gst::event::Segment::new(&segment));
            }
            self.caps = Some(caps);
        }
        *self.heard() = (0.0, 0);
        let pushed = self.input.push(buffer);
        let (power, samples) = *self.heard();
        (pushed.is_ok() && samples > 0).then(|| level_of(power / samples as f64))
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, (f64, usize)> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let _ = self.decoder.set_state(gst::State::Null);
    }
}

/// Where the samples come out: `avdec_aac` gives 32-bit floats. Whether the channels lie one behind the
/// other or alternate makes no difference to their power.
fn output(heard: &Power) -> gst::Pad {
    let heard = heard.clone();
    gst::Pad::builder(gst::PadDirection::Sink)
        .chain_function(move |_, _, buffer| {
            if let Ok(map) = buffer.map_readable() {
                let samples = samples_of(&map);
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                heard.1 += samples.len();
                heard.0 += samples.map(|it| f64::from(it).powi(2)).sum::<f64>();
            }
            Ok(gst::FlowSuccess::Ok)
        })
        .event_function(|_, _, _| true)
        .build()
}

/// A mean power as a level.
pub(crate) fn level_of(power: f64) -> FrameLevel {
    // Also what is no number is silence.
    let hundredths = (1_000.0 * power.log10()).max(f64::from(SILENCE));
    hundredths.round() as FrameLevel
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_becomes_hundredths_of_a_decibel() {
        assert_eq!(level_of(1.0), 0);
        assert_eq!(level_of(0.5), -301);
        assert_eq!(level_of(1e-6), -6_000);
        assert_eq!(level_of(0.0), SILENCE);
        assert_eq!(level_of(f64::NAN), SILENCE);
        assert_eq!(level_of(4.0), 602);
        assert_eq!(level_of(f64::INFINITY), FrameLevel::MAX);
    }

    /// AAC of 200 ms each of tone, silence, tone, as samples with caps.
    fn sound(channels: i32) -> Vec<gst::Sample> {
        let pipeline = gst::parse::launch(&format!(
            "appsrc name=in format=time caps=audio/x-raw,format=F32LE,rate=48000,layout=interleaved,channels={channels} \
             ! audioconvert ! voaacenc bitrate=128000 ! aacparse ! audio/mpeg,stream-format=raw ! appsink name=out sync=false"
        ))
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
        let source = pipeline
            .by_name("in")
            .unwrap()
            .downcast::<gst_app::AppSrc>()
            .unwrap();
        let sink = pipeline
            .by_name("out")
            .unwrap()
            .downcast::<gst_app::AppSink>()
            .unwrap();
        let samples = (0..3 * 10 * 1024_u32).flat_map(|n| {
            let loud = n / (10 * 1024) != 1;
            let tone = 0.5 * (f64::from(n) * 997.0 * std::f64::consts::TAU / 48_000.0).sin();
            let value = if loud { tone as f32 } else { 0.0 };
            std::iter::repeat_n(value, channels as usize)
        });
        let bytes: Vec<u8> = samples.flat_map(f32::to_le_bytes).collect();
        let mut buffer = gst::Buffer::from_mut_slice(bytes);
        buffer.get_mut().unwrap().set_pts(gst::ClockTime::ZERO);
        source.push_buffer(buffer).unwrap();
        source.end_of_stream().unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let frames =
            std::iter::from_fn(|| sink.try_pull_sample(gst::ClockTime::from_seconds(5))).collect();
        pipeline.set_state(gst::State::Null).unwrap();
        frames
    }

    #[test]
    fn every_frame_has_its_own_level_within_the_call() {
        crate::init().unwrap();
        for channels in [1, 2] {
            let mut ear = Ear::new().unwrap();
            let levels: Vec<_> = sound(channels)
                .iter()
                .map(|frame| ear.level(frame).expect("decodable"))
                .collect();
            // The first frame is the encoder's priming; at the edges the windows overlap.
            assert!(levels.len() >= 30, "{levels:?}");
            for at in [3..10, 23..30] {
                let off = |level: &FrameLevel| (level + 903).abs();
                assert!(
                    levels[at.clone()].iter().all(|l| off(l) < 50),
                    "{at:?} {levels:?}"
                );
            }
            assert!(levels[13..20].iter().all(|l| *l < -6_000), "{levels:?}");
        }
    }

    #[test]
    fn a_broken_frame_has_no_level_and_the_next_has() {
        crate::init().unwrap();
        let mut ear = Ear::new().unwrap();
        let frames = sound(2);
        let caps = frames[5].caps().unwrap();
        for frame in &frames[..5] {
            ear.level(frame);
        }
        for bytes in [&[][..], &[0xff; 40], &[0x21, 0x00, 0x49]] {
            let buffer = gst::Buffer::from_slice(bytes.to_vec());
            let broken = gst::Sample::builder()
                .buffer(&buffer)
                .caps(&caps.to_owned())
                .build();
            ear.level(&broken);
        }
        let levels: Vec<_> = frames[5..10].iter().map(|frame| ear.level(frame)).collect();
        let level = levels[4].expect("decodable");
        assert!((level + 903).abs() < 50, "{levels:?}");
    }
}
