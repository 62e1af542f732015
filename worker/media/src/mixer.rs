//! From resolved segments to one continuous AAC stream: decode, choose, join, slew, encode.
//!
//! A thread of its own, fed in batch order. How dubbed and original audio meet is arithmetic of
//! its own: [`Splicer`] where the dub replaces the original, [`VoiceOver`] where it lies above it.

use std::collections::VecDeque;
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use dub_engine::{
    AvSync, AvSyncConfig, DubFit, DubFitConfig, DubLoudness, Event, Loudness, LoudnessGuard, Pts,
};

use super::aac::{AacFormat, FRAME_SAMPLES};
use super::audio::{self, AudioError, Budget, Pcm};
use super::duck::VoiceOver;
use super::encoder::Encoder;
use super::fit;
use super::splice::{Splicer, Voice};
use super::{AacFrame, MediaError, loudness, m4a};

/// What this part is called in errors.
const PLACE: &str = "audio mixer";

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
    /// By how much (ns) the timestamps of its audio step inside.
    pub audio_step: i64,
    /// The segment's own audio.
    pub frames: Vec<AacFrame>,
    /// The frame before them in the same stream.
    pub preroll: Option<AacFrame>,
    /// Dubbed audio as it came, of a length that can be fitted; `None` keeps the original.
    pub dubbed: Option<Pcm>,
    /// Whether a file with the dubbed audio is wanted.
    pub keep: bool,
}

/// Which part of the sound is told of.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Part {
    /// The begin of that segment; the rest follows at once.
    Begin(u64),
    /// The rest of that segment.
    End(u64),
    /// What was left at the end of the stream.
    Last,
}

/// What became of a segment.
pub struct Mixed {
    /// Which one, and how far.
    pub part: Part,
    /// Frames of the output with their PTS in nanoseconds of media time.
    pub frames: Vec<(i64, AacFrame)>,
    /// Audio minus video at the start of the pair, in nanoseconds; told with its begin.
    pub delta: i64,
    /// What the A/V control had to say; with the begin.
    pub events: Vec<Event>,
    /// The dubbed audio as it went out, as a file; with the end.
    pub dubbed_m4a: Option<Vec<u8>>,
    /// Original audio that could not be decoded (silence went out instead), or a failure of
    /// the encoder, which ends the stream.
    pub trouble: Option<MixTrouble>,
}

impl Mixed {
    /// Whether the dub, where there was one, is what is heard.
    pub fn is_dubbed(&self) -> bool {
        !matches!(self.trouble, Some(MixTrouble::Dub(_)))
    }

    /// Frames that go on from those before.
    fn rest(part: Part, frames: Vec<(i64, AacFrame)>, trouble: Option<MixTrouble>) -> Self {
        Self {
            part,
            frames,
            delta: 0,
            events: Vec::new(),
            dubbed_m4a: None,
            trouble,
        }
    }
}

/// What may go wrong on the way.
#[derive(Debug)]
pub enum MixTrouble {
    /// The input's own audio is damaged; this segment is silent.
    Original(AudioError),
    /// The dub could not be fitted; the original is heard.
    Dub(AudioError),
    /// No audio can be made any more.
    Encoder(MediaError),
}

/// What the thread is asked for.
enum Task {
    Mix(Box<MixJob>),
    Finish,
}

/// The mixer's thread, and what waits for it.
pub struct Mixer {
    tasks: SyncSender<Task>,
    /// When a service that was silent is given up, minutes of short segments are decided at once. Never
    /// for longer than [`LONGEST_WAIT`], so what comes in a minute is the most that is here.
    waiting: VecDeque<Task>,
    /// Since when something waits.
    waiting_since: Option<Instant>,
}

/// Segments in the thread's own queue.
const QUEUE: usize = 8;
/// A segment is mixed in a fraction of a second: a thread that is behind for so long is stuck, or slower than
/// the stream.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

impl Mixer {
    /// Starts the thread, and the encoder in it; each segment is answered by its begin and its end on
    /// `results`.
    /// With `duck_db` the original stays under the dub at that level (negative: quieter).
    pub fn start(
        format: AacFormat,
        sync: AvSyncConfig,
        fit: DubFitConfig,
        loudness: DubLoudness,
        duck_db: Option<f64>,
        results: tokio::sync::mpsc::Sender<Mixed>,
    ) -> Result<Self, MediaError> {
        let (tasks, queue) = mpsc::sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("mixer".to_owned())
            .spawn(move || {
                let mut state = match Mixing::new(format, sync, fit, loudness, duck_db) {
                    Ok(state) => state,
                    Err(error) => {
                        let trouble = Some(MixTrouble::Encoder(error));
                        return drop(results.blocking_send(Mixed::rest(
                            Part::Last,
                            Vec::new(),
                            trouble,
                        )));
                    }
                };
                for task in queue {
                    let tell = |mixed| results.blocking_send(mixed).ok();
                    let told = match task {
                        Task::Mix(job) => state.mix(*job, tell),
                        Task::Finish => tell(state.finish()),
                    };
                    if told.is_none() {
                        return; // The worker is gone.
                    }
                }
            })
            .map_err(|error| MediaError::Thread {
                place: PLACE,
                reason: error.to_string(),
            })?;
        Ok(Self {
            tasks,
            waiting: VecDeque::new(),
            waiting_since: None,
        })
    }

    /// Hands over a segment; fails if the thread is stuck or gone.
    pub fn mix(&mut self, job: MixJob) -> Result<(), MediaError> {
        self.waiting.push_back(Task::Mix(Box::new(job)));
        self.go_on()
    }

    /// Nothing follows: what is held back comes out.
    pub fn finish(&mut self) -> Result<(), MediaError> {
        self.waiting.push_back(Task::Finish);
        self.go_on()
    }

    /// Hands over what waits, as far as the thread takes it; to be called after each result.
    pub fn go_on(&mut self) -> Result<(), MediaError> {
        while let Some(task) = self.waiting.pop_front() {
            let Err(refused) = self.tasks.try_send(task) else {
                continue;
            };
            let is_gone = matches!(refused, TrySendError::Disconnected(_));
            let (TrySendError::Full(task) | TrySendError::Disconnected(task)) = refused;
            self.waiting.push_front(task);
            let since = *self.waiting_since.get_or_insert_with(Instant::now);
            if is_gone || since.elapsed() > LONGEST_WAIT {
                return Err(MediaError::Behind {
                    place: PLACE,
                    waiting: self.waiting.len(),
                });
            }
            return Ok(());
        }
        self.waiting_since = None;
        Ok(())
    }
}

struct Mixing {
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
    sound: DubSound,
    fit: DubFit,
    /// What of the last dub runs on into the coming segment.
    rest: Vec<f32>,
    guard: LoudnessGuard,
    /// By what factor the last segment's dub was turned up, if there was one.
    gain: Option<f32>,
}

/// What is heard of dubs in a segment.
struct HeardDub {
    /// As long as the segment.
    sound: Pcm,
    /// Frames from which the original is alone.
    until: usize,
}

/// How dubbed audio goes out.
enum DubSound {
    /// In place of the original.
    Replace(Splicer),
    /// Above the original.
    Duck(VoiceOver),
}

impl DubSound {
    /// Puts `silence` frames and a segment behind what came before; returns what is final.
    fn push(&mut self, silence: usize, heard: Option<HeardDub>, original: Pcm) -> Vec<f32> {
        match self {
            Self::Replace(splicer) => match heard {
                None => splicer.push(
                    silence,
                    original.clone(),
                    &original,
                    Voice::throughout(false),
                ),
                Some(HeardDub { mut sound, until }) => {
                    let (channels, ends) = (sound.channels, until >= sound.frames());
                    if !ends {
                        let fade = fit::fade_frames(splicer.rate()).min(until);
                        let last = (until - fade) * channels;
                        let from = sound.samples[last..until * channels].to_vec();
                        sound.samples[last..].copy_from_slice(&original.samples[last..]);
                        fit::cross_fade(&from, &mut sound.samples[last..], channels);
                    }
                    let voice = Voice { starts: true, ends };
                    splicer.push(silence, sound, &original, voice)
                }
            },
            Self::Duck(voice_over) => {
                let (dub, until) =
                    heard.map_or((None, 0), |heard| (Some(heard.sound), heard.until));
                voice_over.push(silence, dub, until, original)
            }
        }
    }

    /// The original at its length in the output, as far as it can be heard beside `heard`.
    fn beneath(&self, heard: Option<&HeardDub>, original: &Pcm, length: usize) -> Pcm {
        match (self, heard) {
            (Self::Replace(splicer), Some(heard)) if heard.until >= length => {
                fit::stretch_ends(original, length, fit::fade_frames(splicer.rate()))
            }
            _ => fit::stretch(original, length),
        }
    }

    fn finish(&mut self) -> Vec<f32> {
        match self {
            Self::Replace(splicer) => splicer.finish(),
            Self::Duck(voice_over) => voice_over.finish(),
        }
    }
}

/// Time to decode a segment of 6 s; it takes 15 ms on an idle machine.
const DECODE_TIME: Duration = Duration::from_secs(3);
/// So much of a segment is encoded first: its pair can begin while the rest, half of the mixer's work, is
/// encoded a hundred times as fast as it plays.
const BEGIN: Duration = Duration::from_millis(500);

impl Mixing {
    fn new(
        format: AacFormat,
        sync: AvSyncConfig,
        fit: DubFitConfig,
        loudness: DubLoudness,
        duck_db: Option<f64>,
    ) -> Result<Self, MediaError> {
        Ok(Self {
            encoder: Encoder::start(&format)?,
            hole: sync.gap.as_nanos() as i64,
            sync: AvSync::new(sync),
            origin: None,
            encoded: 0,
            last_frame: None,
            fit: DubFit::new(fit),
            rest: Vec::new(),
            guard: LoudnessGuard::new(loudness),
            gain: None,
            sound: match duck_db {
                None => DubSound::Replace(Splicer::new(format.rate)),
                Some(level) => {
                    DubSound::Duck(VoiceOver::new(level, format.rate, format.channels as usize))
                }
            },
            format,
        })
    }

    /// Tells the begin of the segment as soon as it is encoded, and the rest.
    fn mix(&mut self, job: MixJob, tell: impl Fn(Mixed) -> Option<()>) -> Option<()> {
        let (original, mut trouble) = self.original(&job);
        let samples = original.frames();
        let plan = self.sync.plan(
            job.batch,
            job.audio_start.unwrap_or(job.start),
            samples as u64,
            job.audio_step,
        );
        let mut events: Vec<Event> = std::iter::from_fn(|| self.sync.poll_event()).collect();
        self.origin.get_or_insert(plan.start.nanos());

        let length = plan.output_samples as usize;
        if plan.silence_before > 0 {
            // Nothing runs on over a hole.
            self.rest.clear();
            self.fit.pass(u64::MAX);
        }
        // Silence at the end, where the input has no audio, is not the service's to dub.
        let want = job.frames.len() * FRAME_SAMPLES as usize;
        let heard = match self.heard(&job, &original, want, &mut events) {
            Ok(heard) => heard,
            Err(reason) => {
                trouble = Some(MixTrouble::Dub(reason));
                let own = loudness::measure(&original, want, self.format.rate);
                self.without_dub(own, samples)
            }
        };
        let dubbed = job.dubbed.is_some() && !matches!(trouble, Some(MixTrouble::Dub(_)));
        let heard = heard.map(|heard| HeardDub {
            until: (heard.until * length).checked_div(samples).unwrap_or(0),
            sound: fit::stretch(&heard.sound, length),
        });
        let original = self.sound.beneath(heard.as_ref(), &original, length);
        let output = self
            .sound
            .push(plan.silence_before as usize, heard, original);

        let first = self.encoded;
        let preroll = self.last_frame.clone();
        let begin = (self.format.samples(BEGIN.as_nanos() as i64) as usize
            * self.format.channels as usize)
            .min(output.len());
        let (begin, rest) = output.split_at(begin);
        let begin = self.encode(|encoder| encoder.push(begin), &mut trouble);
        let file = (dubbed && job.keep).then(|| begin.clone());
        tell(Mixed {
            part: Part::Begin(job.batch),
            frames: begin,
            delta: plan.delta,
            events,
            dubbed_m4a: None,
            trouble,
        })?;
        let mut trouble = None;
        let rest = self.encode(|encoder| encoder.push(rest), &mut trouble);
        let file = file.filter(|begin| !begin.is_empty() || !rest.is_empty());
        let dubbed_m4a = file.map(|begin| {
            let frames = begin.iter().chain(&rest);
            let frames: Vec<&[u8]> = frames.map(|(_, frame)| &frame[..]).collect();
            m4a::write(
                &self.format,
                preroll.as_deref().filter(|_| first > 0),
                &frames,
            )
        });
        tell(Mixed {
            dubbed_m4a,
            ..Mixed::rest(Part::End(job.batch), rest, trouble)
        })
    }

    /// What is heard of dubs where there is none: what of the one before runs on.
    fn without_dub(&mut self, own: Loudness, slot: usize) -> Option<HeardDub> {
        let channels = self.format.channels as usize;
        self.guard.judge(own, None);
        self.gain = None;
        self.fit.pass(slot as u64);
        let mut rest = std::mem::take(&mut self.rest);
        if rest.is_empty() {
            return None;
        }
        let until = (rest.len() / channels).min(slot);
        self.rest = rest.split_off(until * channels);
        rest.resize(slot * channels, 0.0);
        let samples = rest;
        Some(HeardDub {
            sound: Pcm { samples, channels },
            until,
        })
    }

    /// Lays the dub in its place, behind what runs on of the one before. Fails without a trace.
    fn heard(
        &mut self,
        job: &MixJob,
        original: &Pcm,
        want: usize,
        events: &mut Vec<Event>,
    ) -> Result<Option<HeardDub>, AudioError> {
        let (channels, rate) = (self.format.channels as usize, self.format.rate);
        let (batch, slot) = (job.batch, original.frames());
        let own = loudness::measure(original, want, rate);
        let Some(dub) = &job.dubbed else {
            return Ok(self.without_dub(own, slot));
        };
        let answer = fit::measure(dub, rate);
        let mut fit = self.fit.clone();
        let placed = fit.place(answer, want as u64, slot as u64);
        let placed = placed.map_err(AudioError::WrongLength)?;
        let mut sound = fit::lay(dub, &placed, want, rate)?;
        self.fit = fit;
        let mut rest = std::mem::take(&mut self.rest);
        let found = self
            .guard
            .judge(own, Some(loudness::measure(&sound, want, rate)));
        let gain = loudness::factor(found);
        let before = self.gain.replace(gain).unwrap_or(gain);
        loudness::correct(&mut sound, found, before, rate);
        if let Some(found) = found {
            let tenths = |db: f64| (db * 10.0).round() as i32;
            events.push(Event::DubLevelled {
                batch,
                change: found.change,
                difference_tenths: tenths(found.difference),
                gain_tenths: tenths(found.gain),
            });
        }
        let at = placed.at as usize * channels;
        let cut = rest.len().saturating_sub(at);
        if cut > 0 {
            let mut before = Pcm {
                samples: rest,
                channels,
            };
            before.samples.truncate(at);
            fit::fade_out(&mut before, fit::fade_frames(rate));
            rest = before.samples;
        }
        rest.resize(at, 0.0);
        rest.extend(sound.samples);
        let length = slot * channels;
        if rest.len() > length {
            self.rest = rest.split_off(length);
        }
        rest.resize(length, 0.0);
        let time = |samples: usize| {
            Duration::from_nanos(
                self.format
                    .nanos((samples / channels) as u64)
                    .unsigned_abs(),
            )
        };
        events.push(Event::DubFitted {
            batch,
            how: placed.how,
            speed_permille: placed.speed_permille(),
            spill: time(self.rest.len()),
            cut: time(cut),
        });
        Ok(Some(HeardDub {
            sound: Pcm {
                samples: rest,
                channels,
            },
            until: slot,
        }))
    }

    /// The segment's own sound, and silence where it has none.
    fn original(&self, job: &MixJob) -> (Pcm, Option<MixTrouble>) {
        let channels = self.format.channels as usize;
        let coded = job.frames.len() * FRAME_SAMPLES as usize;
        let longest = coded + 4 * FRAME_SAMPLES as usize;
        let budget = Budget::lasting(coded, self.format.rate, DECODE_TIME, longest);
        let (mut pcm, trouble) =
            match audio::decode_frames(&self.format, job.preroll.as_ref(), &job.frames, budget) {
                Ok(pcm) => (pcm, None),
                Err(error) => (
                    Pcm::silence(coded, channels),
                    Some(MixTrouble::Original(error)),
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
        let mut held = self.sound.finish();
        if !self.rest.is_empty() {
            // Nothing is left for it to run on into.
            let mut sound = Pcm {
                samples: held,
                channels: self.format.channels as usize,
            };
            fit::fade_out(&mut sound, fit::fade_frames(self.format.rate));
            held = sound.samples;
        }
        let frames = self.encode(
            |encoder| {
                let mut frames = encoder.push(&held)?;
                frames.extend(encoder.finish()?);
                Ok(frames)
            },
            &mut trouble,
        );
        Mixed::rest(Part::Last, frames, trouble)
    }

    fn encode(
        &mut self,
        encode: impl FnOnce(&mut Encoder) -> Result<Vec<AacFrame>, MediaError>,
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

#[cfg(test)]
mod tests;
