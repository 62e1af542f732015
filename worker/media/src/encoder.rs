//! One AAC encode for the whole life of a stream.
//!
//! A fresh encoder per segment would put a seam at every join. This one runs on; its
//! frames are counted instead of trusting its time stamps, which are a frame late.

use std::sync::{Arc, Mutex, PoisonError};

use gst::prelude::*;

use super::aac::{AacFormat, FRAME_SAMPLES};
use super::element::{Element, make};
use super::{AacFrame, MediaError, audio};

/// What this part is called in errors.
const PLACE: &str = "audio encoder";

/// Bit rate per channel.
const BITRATE_PER_CHANNEL: u32 = 96_000;

/// Samples by which `voaacenc` is late; with [`LEAD`] more in front that is [`PRIMING`] whole frames.
const DELAY: u32 = 1600;
const LEAD: u32 = PRIMING as u32 * FRAME_SAMPLES - DELAY;
/// Frames that hold nothing of what was to be encoded.
const PRIMING: u64 = 2;

/// The running encoder. It works in the thread that calls it; one second of stereo takes 8 ms.
pub struct Encoder {
    /// Keeps the elements running.
    pipeline: gst::Pipeline,
    input: gst::Pad,
    /// Takes the frames; linked to the encoder.
    _output: gst::Pad,
    frames: Arc<Mutex<Vec<AacFrame>>>,
    format: AacFormat,
    /// Samples per channel that went in.
    pushed: u64,
    /// Frames that came out, those of the priming among them.
    taken: u64,
}

impl Encoder {
    /// Starts an encoder for `format`'s rate and channels.
    pub fn start(format: &AacFormat) -> Result<Self, MediaError> {
        let text = MediaError::at::<gst::glib::BoolError>(PLACE);
        let pipeline = gst::Pipeline::new();
        let (convert, encoder) = (make(Element::Audioconvert)?, make(Element::Voaacenc)?);
        // Noise below 16 bits, which no encoder at this bit rate keeps, costs a tenth of the encoding.
        convert.set_property_from_str("dithering", "none");
        encoder.set_property("bitrate", (BITRATE_PER_CHANNEL * format.channels) as i32);
        pipeline.add_many([&convert, &encoder]).map_err(&text)?;
        convert.link(&encoder).map_err(&text)?;

        let frames = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&frames);
        // Pads of our own at both ends: no source, no sink, no thread.
        let input = gst::Pad::builder(gst::PadDirection::Src).build();
        let output = gst::Pad::builder(gst::PadDirection::Sink)
            .chain_function(move |_, _, buffer| {
                let map = buffer.map_readable().map_err(|_| gst::FlowError::Error)?;
                let mut frames = taken.lock().unwrap_or_else(PoisonError::into_inner);
                frames.push(AacFrame::from(map.as_slice()));
                Ok(gst::FlowSuccess::Ok)
            })
            .build();
        for (from, to) in [
            (Some(&input), convert.static_pad("sink").as_ref()),
            (encoder.static_pad("src").as_ref(), Some(&output)),
        ] {
            let (Some(from), Some(to)) = (from, to) else {
                return Err(MediaError::at(PLACE)("an element without pads"));
            };
            from.link(to).map_err(MediaError::at(PLACE))?;
        }
        output.set_active(true).map_err(&text)?;
        pipeline
            .set_state(gst::State::Playing)
            .map_err(MediaError::at(PLACE))?;
        input.set_active(true).map_err(&text)?;
        let time = gst::FormattedSegment::<gst::ClockTime>::new();
        input.push_event(gst::event::StreamStart::new("audio"));
        let caps = audio::pcm_caps(format.rate, format.channels)?;
        input.push_event(gst::event::Caps::new(&caps));
        input.push_event(gst::event::Segment::new(&time));
        let mut encoder = Self {
            pipeline,
            input,
            _output: output,
            frames,
            format: format.clone(),
            pushed: 0,
            taken: 0,
        };
        encoder.feed(&vec![0.0; (LEAD * format.channels) as usize])?;
        Ok(encoder)
    }

    /// Encodes `samples` (interleaved) and returns the frames that are complete: the frame
    /// that holds input samples `[1024 k, 1024 (k + 1))` is the `k`-th of all returned.
    pub fn push(&mut self, samples: &[f32]) -> Result<Vec<AacFrame>, MediaError> {
        self.feed(samples)?;
        Ok(self.take())
    }

    fn feed(&mut self, samples: &[f32]) -> Result<(), MediaError> {
        let frames = (samples.len() / self.format.channels as usize) as u64;
        if frames > 0 {
            let mut buffer = gst::Buffer::from_mut_slice(audio::bytes_of(samples));
            if let Some(buffer) = buffer.get_mut() {
                let at = |n| gst::ClockTime::from_nseconds(self.format.nanos(n) as u64);
                buffer.set_pts(at(self.pushed));
                buffer.set_duration(at(self.pushed + frames) - at(self.pushed));
            }
            self.input.push(buffer).map_err(|error| {
                self.failure()
                    .unwrap_or_else(|| MediaError::at(PLACE)(error))
            })?;
            self.pushed += frames;
        }
        Ok(())
    }

    /// Pads the last frame with silence and returns what is left.
    pub fn finish(&mut self) -> Result<Vec<AacFrame>, MediaError> {
        let size = u64::from(FRAME_SAMPLES);
        let content = (self.pushed - u64::from(LEAD)).div_ceil(size);
        let before = self.taken;
        let padding = (content + PRIMING + 2) * size - self.pushed;
        let mut frames = self.push(&vec![0.0; padding as usize * self.format.channels as usize])?;
        frames.truncate(content.saturating_sub(before.saturating_sub(PRIMING)) as usize);
        Ok(frames)
    }

    fn take(&mut self) -> Vec<AacFrame> {
        let mut frames =
            std::mem::take(&mut *self.frames.lock().unwrap_or_else(PoisonError::into_inner));
        let priming = PRIMING.saturating_sub(self.taken).min(frames.len() as u64);
        self.taken += frames.len() as u64;
        frames.drain(..priming as usize);
        frames
    }

    /// What the encoder itself has to say about it.
    fn failure(&self) -> Option<MediaError> {
        let message = self
            .pipeline
            .bus()?
            .pop_filtered(&[gst::MessageType::Error])?;
        let gst::MessageView::Error(error) = message.view() else {
            return None;
        };
        Some(MediaError::at(PLACE)(error.error().message().to_owned()))
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        let _ = self.input.set_active(false);
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// One AAC frame of silence, to fill holes of the input with: all its spectrum is zero, which is written
/// the same at every rate (ISO 14496-3, 4.4.2.1).
pub fn silent_frame(channels: u32) -> AacFrame {
    AacFrame::from(match channels {
        1 => &[0x00, 0xc8, 0x00, 0x80, 0x23, 0x80][..],
        _ => &[0x21, 0x00, 0x49, 0x90, 0x02, 0x19, 0x00, 0x23, 0x80][..],
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::aac;
    use crate::audio::{Budget, decode_frames};

    fn budget() -> Budget {
        Budget {
            time: Duration::from_secs(10),
            frames: 1_000_000,
        }
    }

    /// A tone of 997 Hz, the same in all channels.
    fn tone(format: &AacFormat, frames: usize) -> Vec<f32> {
        let step = std::f64::consts::TAU * 997.0 / f64::from(format.rate);
        (0..frames)
            .flat_map(|n| {
                let x = (0.5 * (step * n as f64).sin()) as f32;
                std::iter::repeat_n(x, format.channels as usize)
            })
            .collect()
    }

    #[test]
    fn what_goes_in_comes_out_in_place_at_every_rate_that_is_copied() {
        gst::init().unwrap();
        for rate in aac::SAMPLING_FREQUENCIES {
            for channels in [1, 2] {
                in_place(&AacFormat::lc(rate, channels));
            }
        }
    }

    fn in_place(format: &AacFormat) {
        let channels = format.channels as usize;
        let mut encoder = Encoder::start(format).unwrap();
        let input = tone(format, 100_000);
        let mut frames = Vec::new();
        // Chunks of any size give the same frame grid.
        for chunk in input.chunks(channels * 7_001) {
            frames.extend(encoder.push(chunk).unwrap());
        }
        frames.extend(encoder.finish().unwrap());
        assert_eq!(frames.len(), 100_000_usize.div_ceil(1024), "{format:?}");

        // Decoded as the frame grid says, the tone is where it was.
        let output = decode_frames(format, Some(&frames[0]), &frames[1..], budget()).unwrap();
        let error = input[channels * 4_096..channels * 60_000]
            .iter()
            .zip(&output.samples[channels * (4_096 - 1_024)..])
            .map(|(a, b)| (a - b).abs())
            .fold(0.0_f32, f32::max);
        assert!(error < 0.02, "{format:?}: largest difference {error}");
    }
}
