//! Puts the sound of one segment behind that of the one before, so that no join is heard.
//!
//! The last few milliseconds of every segment are held back until the next one is known: a change
//! between dubbed and original audio fades over in both directions.

use super::audio::Pcm;
use super::fit;

/// Where a dub is heard in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voice {
    /// At its start.
    pub starts: bool,
    /// At its end.
    pub ends: bool,
}

impl Voice {
    /// All the way, or nowhere.
    pub fn throughout(dubbed: bool) -> Self {
        Self {
            starts: dubbed,
            ends: dubbed,
        }
    }
}

/// One sound, segment by segment.
#[derive(Debug)]
pub struct Splicer {
    rate: u32,
    held: Option<HeldBack>,
}

/// The end of the last segment, both ways it can sound.
#[derive(Debug)]
struct HeldBack {
    chosen: Vec<f32>,
    original: Vec<f32>,
    dubbed: bool,
}

impl Splicer {
    /// Nothing has been heard yet.
    pub fn new(rate: u32) -> Self {
        Self { rate, held: None }
    }

    /// Samples per second.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Puts `silence` frames and then `chosen` behind what is held back, holds its end back in
    /// turn, and returns what is final.
    ///
    /// `original` is what is heard instead where the sound changes between dubbed and not; it is
    /// as long as `chosen`.
    pub fn push(
        &mut self,
        silence: usize,
        mut chosen: Pcm,
        original: &Pcm,
        voice: Voice,
    ) -> Vec<f32> {
        let channels = chosen.channels;
        let hold = fit::fade_frames(self.rate).min(chosen.frames() / 2) * channels;
        let silence = vec![0.0; silence * channels];
        let mut output = Vec::with_capacity(chosen.samples.len() + silence.len() + hold);
        if let Some(held) = self.held.take() {
            let mut tail = held.chosen;
            if !silence.is_empty() {
                let zeros = vec![0.0; tail.len()];
                let from = std::mem::replace(&mut tail, zeros);
                fit::cross_fade(&from, &mut tail, channels);
                fit::fade_in(&mut chosen, hold / channels);
            } else if held.dubbed && !voice.starts {
                let from = std::mem::replace(&mut tail, held.original);
                fit::cross_fade(&from, &mut tail, channels);
            } else if !held.dubbed && voice.starts {
                fit::cross_fade(&original.samples[..hold], &mut chosen.samples, channels);
            } else {
                fit::join(&tail, &mut chosen.samples, channels, self.rate);
            }
            output.extend(tail);
        }
        output.extend(silence);
        let end = chosen.samples.len() - hold;
        output.extend(&chosen.samples[..end]);
        self.held = Some(HeldBack {
            chosen: chosen.samples[end..].to_vec(),
            original: original.samples[end..].to_vec(),
            dubbed: voice.ends,
        });
        output
    }

    /// Nothing follows: what is held back.
    pub fn finish(&mut self) -> Vec<f32> {
        self.held.take().map(|held| held.chosen).unwrap_or_default()
    }
}
