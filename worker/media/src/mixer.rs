//! From resolved segments to one continuous AAC stream: decode, choose, join, slew, encode.
//!
//! A thread of its own, fed in batch order. How dubbed and original audio meet is arithmetic of
//! its own: [`Splicer`] where the dub replaces the original, [`VoiceOver`] where it lies above it.

use std::sync::mpsc::{self, SyncSender};
use std::time::Duration;

use dub_engine::{AvSync, AvSyncConfig, Event, Pts};

use super::aac::{AacFormat, FRAME_SAMPLES};
use super::audio::{self, Budget, Pcm};
use super::duck::VoiceOver;
use super::encoder::Encoder;
use super::fit;
use super::splice::Splicer;
use super::{AacFrame, m4a};

/// A resolved segment.
pub struct MixJob {
    /// Number of the segment.
    pub batch: u64,
    /// Media time of the segment.
    pub start: Pts,
    /// End of the segment.
    pub end: Pts,
    /// Media time of the first audio frame.
    pub audio_start: Option<Pts>,
    /// The segment's own audio.
    pub frames: Vec<AacFrame>,
    /// The frame before them in the same stream.
    pub preroll: Option<AacFrame>,
    /// Dubbed audio, as long as `frames`; `None` keeps the original.
    pub dubbed: Option<Pcm>,
    /// Whether a file with the dubbed audio is wanted.
    pub keep: bool,
}

/// What became of a segment.
pub struct Mixed {
    /// Number of the segment; `None` for what was left at the end.
    pub batch: Option<u64>,
    /// Frames of the output with their PTS in nanoseconds of media time.
    pub frames: Vec<(i64, AacFrame)>,
    /// Audio minus video at the start of the pair, in nanoseconds.
    pub delta: i64,
    /// What the A/V control had to say.
    pub events: Vec<Event>,
    /// The dubbed audio as it went out, as a file.
    pub dubbed_m4a: Option<Vec<u8>>,
    /// Original audio that could not be decoded (silence went out instead), or a failure of
    /// the encoder, which ends the stream.
    pub trouble: Option<MixTrouble>,
}

/// What may go wrong on the way.
#[derive(Debug)]
pub enum MixTrouble {
    /// The input's own audio is damaged; this segment is silent.
    Original(String),
    /// No audio can be made any more.
    Encoder(String),
}

enum Order {
    Mix(Box<MixJob>),
    Finish,
}

/// The mixer's thread.
pub struct Mixer {
    orders: SyncSender<Order>,
}

/// Segments that may wait: more than the playout ever buffers.
const QUEUE: usize = 64;

impl Mixer {
    /// Starts the thread; each order is answered by one [`Mixed`] on `results`. With `duck_db`
    /// the original stays under the dub at that level (negative: quieter).
    pub fn start(
        format: AacFormat,
        sync: AvSyncConfig,
        duck_db: Option<f64>,
        results: tokio::sync::mpsc::Sender<Mixed>,
    ) -> Result<Self, String> {
        let (orders, queue) = mpsc::sync_channel(QUEUE);
        let mut state = State::new(format, sync, duck_db)?;
        std::thread::Builder::new()
            .name("mixer".to_owned())
            .spawn(move || {
                for order in queue {
                    let mixed = match order {
                        Order::Mix(job) => state.mix(*job),
                        Order::Finish => state.finish(),
                    };
                    if results.blocking_send(mixed).is_err() {
                        return; // The worker is gone.
                    }
                }
            })
            .map_err(|error| error.to_string())?;
        Ok(Self { orders })
    }

    /// Hands over a segment; fails if the thread is stuck or gone.
    pub fn mix(&self, job: MixJob) -> Result<(), String> {
        self.order(Order::Mix(Box::new(job)))
    }

    /// Nothing follows: what is held back comes out.
    pub fn finish(&self) -> Result<(), String> {
        self.order(Order::Finish)
    }

    fn order(&self, order: Order) -> Result<(), String> {
        self.orders
            .try_send(order)
            .map_err(|_| "the audio mixer does not keep up".to_owned())
    }
}

struct State {
    format: AacFormat,
    sync: AvSync,
    /// Audio that ends this much before its video is a hole; less is left to the slew.
    hole: i64,
    encoder: Encoder,
    /// Media time of the first output sample, once there is one.
    origin: Option<i64>,
    /// AAC frames returned so far.
    encoded: u64,
    last_frame: Option<AacFrame>,
    sound: Sound,
}

/// How dubbed audio goes out.
enum Sound {
    /// In place of the original.
    Replace(Splicer),
    /// Above the original.
    Duck(VoiceOver),
}

impl Sound {
    /// Puts `silence` frames and a segment behind what came before; returns what is final.
    fn push(&mut self, silence: usize, dub: Option<Pcm>, original: Pcm) -> Vec<f32> {
        match self {
            Self::Replace(splicer) => {
                let dubbed = dub.is_some();
                let chosen = dub.unwrap_or_else(|| original.clone());
                splicer.push(silence, chosen, &original, dubbed)
            }
            Self::Duck(voice_over) => voice_over.push(silence, dub, original),
        }
    }

    fn finish(&mut self) -> Vec<f32> {
        match self {
            Self::Replace(splicer) => splicer.finish(),
            Self::Duck(voice_over) => voice_over.finish(),
        }
    }
}

/// Time to decode a segment; it takes 15 ms on an idle machine.
const DECODE_TIME: Duration = Duration::from_secs(3);

impl State {
    fn new(format: AacFormat, sync: AvSyncConfig, duck_db: Option<f64>) -> Result<Self, String> {
        Ok(Self {
            encoder: Encoder::start(&format)?,
            hole: sync.gap.as_nanos() as i64,
            sync: AvSync::new(sync),
            origin: None,
            encoded: 0,
            last_frame: None,
            sound: match duck_db {
                None => Sound::Replace(Splicer::new(format.rate)),
                Some(level) => {
                    Sound::Duck(VoiceOver::new(level, format.rate, format.channels as usize))
                }
            },
            format,
        })
    }

    fn mix(&mut self, job: MixJob) -> Mixed {
        let (original, mut trouble) = self.original(&job);
        let samples = original.frames();
        let plan = self.sync.plan(
            job.batch,
            job.audio_start.unwrap_or(job.start),
            samples as u64,
        );
        let events: Vec<Event> = std::iter::from_fn(|| self.sync.poll_event()).collect();
        self.origin.get_or_insert(plan.start.nanos());

        let dubbed = job.dubbed.is_some();
        let length = plan.output_samples as usize;
        let dub = job.dubbed.map(|mut dub| {
            // Silence at the end, where the input has no audio, is not the service's to dub.
            dub.samples.resize(original.samples.len(), 0.0);
            fit::stretch(&dub, length)
        });
        let original = fit::stretch(&original, length);
        let output = self.sound.push(plan.silence_before as usize, dub, original);

        let first = self.encoded;
        let preroll = self.last_frame.clone();
        let frames = self.encode(|encoder| encoder.push(&output), &mut trouble);
        let dubbed_m4a = (dubbed && job.keep && !frames.is_empty()).then(|| {
            let frames: Vec<&[u8]> = frames.iter().map(|(_, frame)| &frame[..]).collect();
            m4a::write(
                &self.format,
                preroll.as_deref().filter(|_| first > 0),
                &frames,
            )
        });
        Mixed {
            batch: Some(job.batch),
            frames,
            delta: plan.delta,
            events,
            dubbed_m4a,
            trouble,
        }
    }

    /// The segment's own sound, and silence where it has none.
    fn original(&self, job: &MixJob) -> (Pcm, Option<MixTrouble>) {
        let channels = self.format.channels as usize;
        let coded = job.frames.len() * FRAME_SAMPLES as usize;
        let budget = Budget {
            time: DECODE_TIME,
            frames: coded + 4 * FRAME_SAMPLES as usize,
        };
        let (mut pcm, trouble) =
            match audio::decode_frames(&self.format, job.preroll.as_ref(), &job.frames, budget) {
                Ok(pcm) => (pcm, None),
                Err(error) => (
                    Pcm::silence(coded, channels),
                    Some(MixTrouble::Original(error.to_string())),
                ),
            };
        // Where the audio ends long before the video does, the rest of the segment is
        // silent: a muxer that waits for audio would hold the video back.
        let audio_start = job.audio_start.unwrap_or(job.start).nanos();
        let audio_end = audio_start + self.format.nanos(pcm.frames() as u64);
        let missing = job.end.nanos() - audio_end;
        if missing > self.hole {
            let frames = self.format.samples(missing).max(0) as usize;
            pcm.samples
                .extend(std::iter::repeat_n(0.0, frames * channels));
        }
        (pcm, trouble)
    }

    fn finish(&mut self) -> Mixed {
        let mut trouble = None;
        let held = self.sound.finish();
        let frames = self.encode(
            |encoder| {
                let mut frames = encoder.push(&held)?;
                frames.extend(encoder.finish()?);
                Ok(frames)
            },
            &mut trouble,
        );
        Mixed {
            batch: None,
            frames,
            delta: 0,
            events: Vec::new(),
            dubbed_m4a: None,
            trouble,
        }
    }

    fn encode(
        &mut self,
        encode: impl FnOnce(&mut Encoder) -> Result<Vec<AacFrame>, String>,
        trouble: &mut Option<MixTrouble>,
    ) -> Vec<(i64, AacFrame)> {
        let frames = match encode(&mut self.encoder) {
            Ok(frames) => frames,
            Err(reason) => {
                *trouble = Some(MixTrouble::Encoder(reason));
                return Vec::new();
            }
        };
        if let Some(last) = frames.last() {
            self.last_frame = Some(last.clone());
        }
        let origin = self.origin.unwrap_or(0);
        let first = self.encoded;
        self.encoded += frames.len() as u64;
        let frame = u64::from(FRAME_SAMPLES);
        // Counted, never added up: the grid does not drift.
        let place = |i: usize| origin + self.format.nanos((first + i as u64) * frame);
        frames
            .into_iter()
            .enumerate()
            .map(|(i, frame)| (place(i), frame))
            .collect()
    }
}
