//! Decoding: the segment's own AAC, and whatever the STS service answers.
//!
//! Each call builds a small pipeline, takes everything out of it under a time and a size
//! limit, and takes it down again. All of it blocks: call it from a blocking thread.

use std::time::{Duration, Instant};

use dub_engine::Misfit;
use gst::prelude::*;
use gst_audio::{AudioCapsBuilder, AudioFormat, AudioInfo};

use super::aac::{AacFormat, FRAME_SAMPLES};
use super::element::{Element, make};
use super::{AacFrame, MediaError, decoder, m4a, meter, wav};

/// Interleaved samples at a stream's rate and channel count.
#[derive(Debug, Clone, PartialEq)]
pub struct Pcm {
    /// Interleaved, ±1.0 is full scale.
    pub samples: Vec<f32>,
    /// Channels per sample frame.
    pub channels: usize,
}

impl Pcm {
    /// `frames` sample frames of silence.
    pub fn silence(frames: usize, channels: usize) -> Self {
        Self {
            samples: vec![0.0; frames * channels],
            channels,
        }
    }

    /// Number of samples per channel.
    pub fn frames(&self) -> usize {
        self.samples.len() / self.channels
    }
}

/// Why audio could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AudioError {
    /// Nothing there.
    #[error("the audio is empty")]
    Empty,
    /// Not audio, or damaged.
    #[error("the audio cannot be decoded: {0}")]
    Undecodable(String),
    /// The decoder took longer than the worker can wait.
    #[error("the decoder did not finish within {0:?}")]
    TooSlow(Duration),
    /// More audio than any segment has.
    #[error("the audio is longer than {0} samples")]
    TooLong(usize),
    /// The decoder is not there, or does not link.
    #[error(transparent)]
    Decoder(#[from] MediaError),
    /// Too far from the segment's length to be fitted.
    #[error("{0}")]
    WrongLength(Misfit),
}

/// Limits of one decoding job.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Processor time, and time asleep, of the thread that decodes: not what the machine is late.
    pub time: Duration,
    /// Samples per channel.
    pub frames: usize,
}

impl Budget {
    /// For a sound that should last `frames` at `rate`: for 6 s, which need 25 ms, `usual`; for longer
    /// ones in proportion, up to ten times that. At most `most` come out.
    pub fn lasting(frames: usize, rate: u32, usual: Duration, most: usize) -> Self {
        let share = frames as f64 / f64::from(rate.max(1)) / 6.0;
        Self {
            time: usual.mul_f64(share.clamp(1.0, 10.0)),
            frames: most,
        }
    }
}

/// Decodes consecutive AAC frames of one stream to exactly `frames.len() * 1024` samples.
///
/// With the frame before them as `preroll` the result is bit for bit that of an
/// uninterrupted decode.
pub fn decode_frames(
    format: &AacFormat,
    preroll: Option<&AacFrame>,
    frames: &[AacFrame],
    budget: Budget,
) -> Result<Pcm, AudioError> {
    let channels = format.channels as usize;
    if frames.is_empty() {
        return Ok(Pcm::silence(0, channels));
    }
    let caps = aac_caps(format);
    let source = make(Element::Appsrc)?;
    source.set_property("caps", &caps);
    source.set_property_from_str("format", "time");
    source.set_property("max-bytes", 0_u64);
    let decoder = make(Element::AvdecAac)?;
    let job = decoder::Job::new(&source, vec![decoder], format)?;
    let lead = usize::from(preroll.is_some());
    for (i, frame) in preroll.into_iter().chain(frames).enumerate() {
        let mut buffer = gst::Buffer::from_slice(frame.clone());
        if let Some(buffer) = buffer.get_mut() {
            let at = |n: usize| {
                gst::ClockTime::from_nseconds(
                    format.nanos(n as u64 * u64::from(FRAME_SAMPLES)) as u64
                )
            };
            buffer.set_pts(at(i));
            buffer.set_duration(at(i + 1) - at(i));
        }
        job.push(buffer);
    }
    let mut samples = job.run(budget)?;
    let frame = FRAME_SAMPLES as usize * channels;
    samples.drain(..(lead * frame).min(samples.len()));
    // Decoders make anything of damaged frames; the encoder takes numbers only.
    for sample in samples.iter_mut().filter(|sample| !sample.is_finite()) {
        *sample = 0.0;
    }
    // A damaged frame inside yields nothing: keep the length, so that sync stays.
    samples.resize(frames.len() * frame, 0.0);
    Ok(Pcm { samples, channels })
}

/// What the service said about its audio.
#[derive(Debug, Clone, Copy)]
pub struct Label<'a> {
    /// `m4a`, `wav`, `pcm_s16le` …; empty where the service gave none.
    pub format: &'a str,
    /// Samples per second, for raw PCM.
    pub rate: u32,
    /// Channels, for raw PCM.
    pub channels: u32,
}

/// Samples of a sound may be this far over full scale (18 dB). A service that sends more has mixed
/// up its units, and one sample that is no number stops the encoder for good.
const LOUDEST: f32 = 8.0;

/// Decodes audio of any usual kind to `format`'s rate and channels.
///
/// A label that is not known exactly is refused: raw samples of another kind are noise. Among the
/// kinds that say themselves what they are the content is believed over the label. What decodes is
/// a fixed chain per kind (see [`decoder`](crate::decoder)), which can open nothing else.
///
/// `want` is the length the segment needs: encoders pad, and knowing what is expected
/// tells padding from content. The result may still be longer or shorter.
pub fn decode(
    mut data: Vec<u8>,
    label: Label<'_>,
    format: &AacFormat,
    want: usize,
    budget: Budget,
) -> Result<Pcm, AudioError> {
    if data.is_empty() {
        return Err(AudioError::Empty);
    }
    data.drain(..id3_len(&data));
    let kind = AudioKind::of(&data, label.format)?;
    let files = files(kind, data);
    // All of them together have the time of one, and none so little that a busy machine uses it up.
    let time = (budget.time / files.len() as u32).max(budget.time / 8);
    let begun = Instant::now();
    let channels = format.channels as usize;
    let mut whole = Pcm::silence(0, channels);
    for file in files {
        if begun.elapsed() > budget.time * meter::PATIENCE {
            return Err(AudioError::TooSlow(budget.time));
        }
        let left = budget.frames.saturating_sub(whole.frames());
        let budget = Budget { time, frames: left };
        let want = want.saturating_sub(whole.frames());
        let sound = decode_file(kind, file, label, format, want, budget)?;
        whole.samples.extend(sound.samples);
    }
    Ok(whole)
}

/// Files that may follow one another in an answer; what is behind them is the last one's.
const MOST_FILES: usize = 32;

/// The files in `data`, one at least: services that speak sentence by sentence put one behind the other,
/// and a decoder stops at the end of the first.
fn files(kind: AudioKind, mut data: Vec<u8>) -> Vec<Vec<u8>> {
    // Ogg begins with the first page of each of its streams; a later first page begins another file.
    let mut beginning = true;
    let mut begins = |at: usize| {
        let rest = &data[at..];
        match (kind, rest) {
            (AudioKind::Wav, [b'R', b'I', b'F', b'F', _, _, _, _, form @ ..]) => {
                form.starts_with(b"WAVEfmt ")
            }
            (AudioKind::Flac, [b'f', b'L', b'a', b'C', 0 | 0x80, 0, 0, 34, ..])
            | (AudioKind::Mp4, [0, 0, 0, 8..=64, b'f', b't', b'y', b'p', ..]) => true,
            (AudioKind::Ogg, [b'O', b'g', b'g', b'S', 0, flags, ..]) => {
                let first = flags & 2 != 0;
                std::mem::replace(&mut beginning, first) != first && first
            }
            _ => false,
        }
    };
    let mut cuts: Vec<_> = (1..data.len())
        .filter(|at| begins(*at))
        .take(MOST_FILES - 1)
        .collect();
    let mut files = Vec::with_capacity(cuts.len() + 1);
    while let Some(at) = cuts.pop() {
        files.push(data.split_off(at));
    }
    files.push(data);
    files.reverse();
    files
}

fn decode_file(
    kind: AudioKind,
    mut data: Vec<u8>,
    label: Label<'_>,
    format: &AacFormat,
    want: usize,
    budget: Budget,
) -> Result<Pcm, AudioError> {
    let mut skip = 0;
    // Length of the frame that an AAC encoder puts first, where nothing says whether it did.
    let mut priming = None;
    let frame_at = |rate: u32| scale(u64::from(FRAME_SAMPLES), format.rate, rate);
    match kind {
        AudioKind::Mp4 => match m4a::strip_edit_list(&mut data) {
            Some(m4a::Skip {
                media_time: Some(media_time),
                timescale,
            }) => skip = scale(media_time, format.rate, timescale),
            Some(m4a::Skip { timescale, .. }) if RATES.contains(&timescale) => {
                priming = Some(frame_at(timescale));
            }
            _ => priming = Some(frame_at(format.rate)),
        },
        AudioKind::Adts => priming = Some(frame_at(adts_rate(&data).unwrap_or(format.rate))),
        AudioKind::Mp3 => {
            skip = mp3_delay(&data).map_or(0, |(delay, rate)| scale(delay, format.rate, rate));
        }
        AudioKind::RawPcm => data = wav::with_header(&data, label.rate, label.channels),
        AudioKind::Wav => wav::mend(&mut data),
        AudioKind::Ogg | AudioKind::Flac => {}
    }
    let mut samples = decoder::Job::whole(kind, data, format)?.run(budget)?;

    let channels = format.channels as usize;
    let frames = samples.len() / channels;
    if frames == 0 {
        return Err(AudioError::Undecodable(
            "there is no sound in it".to_owned(),
        ));
    }
    // Comparing so that what is no number is found too.
    if !samples.iter().all(|sample| sample.abs() <= LOUDEST) {
        return Err(AudioError::Undecodable(
            "its samples are no sound: far over full scale, or no numbers".to_owned(),
        ));
    }
    // An AAC encoder puts a frame of nothing first and says so in an edit list. Where there is
    // none, the length gives it away: only frames that were cut from a stream and sent as they are
    // have just the length of the segment.
    if let Some(priming) = priming
        && frames.abs_diff(want) + 64 >= priming
    {
        skip += priming;
    }
    samples.drain(..(skip * channels).min(samples.len()));
    Ok(Pcm { samples, channels })
}

/// What the worker can decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AudioKind {
    Mp4,
    Adts,
    Mp3,
    Wav,
    Ogg,
    Flac,
    RawPcm,
}

impl AudioKind {
    fn of(data: &[u8], label: &str) -> Result<Self, AudioError> {
        let label = label.to_ascii_lowercase();
        // A media type is a name too: `audio/x-wav; rate=24000`.
        let name = label.split(';').next().unwrap_or_default();
        let name = name.strip_prefix("audio/").unwrap_or(name);
        // What the label alone would make of it; `None` where the content has to say it.
        let named = match name.strip_prefix("x-").unwrap_or(name) {
            // Raw samples can look like anything: here only the label counts, but for a header that is
            // long enough to be no accident.
            "pcm_s16le" | "s16le" | "pcm16" => {
                let is_wav = data.starts_with(b"RIFF") && data[4..].get(4..8) == Some(b"WAVE");
                return Ok(if is_wav { Self::Wav } else { Self::RawPcm });
            }
            "mp3" | "mpeg" => Some(Self::Mp3),
            "aac" | "adts" => Some(Self::Adts),
            "" | "m4a" | "mp4" | "wav" | "wave" | "vnd.wave" | "ogg" | "opus" | "vorbis"
            | "flac" => None,
            _ => {
                let reason = format!("no decoder for the label {label:?}");
                return Err(AudioError::Undecodable(reason));
            }
        };
        let content = match data {
            _ if m4a::is_mp4(data) => Some(Self::Mp4),
            [b'R', b'I', b'F', b'F', ..] => Some(Self::Wav),
            [b'O', b'g', b'g', b'S', ..] => Some(Self::Ogg),
            [b'f', b'L', b'a', b'C', ..] => Some(Self::Flac),
            [0xff, second, ..] if second & 0xf6 == 0xf0 => Some(Self::Adts),
            [0xff, second, ..] if second & 0xe0 == 0xe0 => Some(Self::Mp3),
            _ => None,
        };
        content.or(named).ok_or_else(|| {
            AudioError::Undecodable(format!(
                "labelled {label:?}, and nothing known by its content"
            ))
        })
    }
}

/// Length of an ID3 tag at the start.
fn id3_len(data: &[u8]) -> usize {
    let size = data.get(6..10).filter(|_| data.starts_with(b"ID3"));
    size.map_or(0, |size| {
        let size = size.iter().fold(0, |n, b| n << 7 | usize::from(b & 0x7f));
        (10 + size).min(data.len())
    })
}

/// Rates that audio may have.
pub(crate) const RATES: std::ops::RangeInclusive<u32> = 8_000..=96_000;

/// The rate that the first ADTS header states.
fn adts_rate(data: &[u8]) -> Option<u32> {
    const RATES: [u32; 12] = [
        96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025,
        8_000,
    ];
    RATES.get(usize::from(data.get(2)? >> 2 & 15)).copied()
}

fn scale(ticks: u64, rate: u32, timescale: u32) -> usize {
    let rate = u128::from(rate);
    ((u128::from(ticks) * rate + u128::from(timescale) / 2) / u128::from(timescale.max(1))) as usize
}

/// Samples of silence an MP3 decodes to before its content, and the file's rate: the
/// encoder's delay as the LAME tag has it (576 is LAME's usual), plus the decoder's 529.
fn mp3_delay(data: &[u8]) -> Option<(u64, u32)> {
    let header = data.get(..4)?;
    if header[0] != 0xff || header[1] & 0xe0 != 0xe0 {
        return None;
    }
    let base = [44_100, 48_000, 32_000]
        .get(usize::from(header[2] >> 2 & 3))
        .copied()?;
    let rate = match header[1] >> 3 & 3 {
        3 => base,
        2 => base / 2,
        _ => base / 4,
    };
    let first_frame = data.get(..data.len().min(512))?;
    let tag = first_frame
        .windows(4)
        .position(|w| w == b"Xing" || w == b"Info");
    // The encoder's delay is the upper 12 bits of the three bytes 21 behind the version
    // string "LAME…" or "Lavf…", which follows the tag after its optional fields.
    let delay = tag.and_then(|_| {
        let version = first_frame
            .windows(4)
            .position(|w| w == b"LAME" || w == b"Lavf" || w == b"Lavc")?;
        let bytes = first_frame.get(version + 21..version + 23)?;
        Some(u64::from(bytes[0]) << 4 | u64::from(bytes[1] >> 4))
    });
    Some((delay.filter(|d| *d > 0).unwrap_or(576) + 529, rate))
}

/// Caps of raw AAC frames.
pub(crate) fn aac_caps(format: &AacFormat) -> gst::Caps {
    AudioCapsBuilder::for_encoding("audio/mpeg")
        .rate(format.rate as i32)
        .channels(format.channels as i32)
        .field("mpegversion", 4)
        .field("stream-format", "raw")
        .field("framed", true)
        .field("codec_data", gst::Buffer::from_slice(format.config.clone()))
        .build()
}

/// Samples as GStreamer takes them.
pub(crate) fn bytes_of(samples: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; samples.len() * 4];
    for (bytes, sample) in bytes.chunks_exact_mut(4).zip(samples) {
        bytes.copy_from_slice(&sample.to_le_bytes());
    }
    bytes
}

/// Samples out of a buffer of GStreamer's.
pub(crate) fn samples_of(bytes: &[u8]) -> impl ExactSizeIterator<Item = f32> + '_ {
    let (samples, _) = bytes.as_chunks::<4>();
    samples.iter().map(|bytes| f32::from_le_bytes(*bytes))
}

/// Caps of the samples the worker computes with. Interleaved, because a planar decoder
/// leaves clipping in metadata instead of the buffer.
pub(crate) fn pcm_caps(rate: u32, channels: u32) -> Result<gst::Caps, MediaError> {
    AudioInfo::builder(AudioFormat::F32le, rate, channels)
        .build()
        .and_then(|info| info.to_caps())
        .map_err(MediaError::at("audio samples"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_decides_among_the_kinds_that_say_what_they_are() {
        for (data, label, kind) in [
            (&b"\0\0\0\x1cftypM4A "[..], "wav", AudioKind::Mp4),
            (b"RIFF\0\0\0\0WAVE", "m4a", AudioKind::Wav),
            (b"OggS", "mp3", AudioKind::Ogg),
            (b"fLaC", "", AudioKind::Flac),
            (b"\xff\xf1\x4c\x80", "m4a", AudioKind::Adts),
            (b"\xff\xfb\x90\x00", "M4A", AudioKind::Mp3),
            (b"some junk first", "mp3", AudioKind::Mp3),
            (b"RIFF\0\0\0\0WAVE", "pcm_s16le", AudioKind::Wav),
            // Raw samples look like anything.
            (b"RIFF\0\0\0\0WAV", "pcm_s16le", AudioKind::RawPcm),
            (b"OggS\0\0\0\0WAVE", "pcm_s16le", AudioKind::RawPcm),
            (b"RI", "s16le", AudioKind::RawPcm),
        ] {
            let found = AudioKind::of(data, label);
            assert_eq!(found, Ok(kind), "{data:?} labelled {label}");
        }
        for (data, label) in [
            (&b"RIFF\0\0\0\0WAVE"[..], "pcm_s16be"),
            (b"\0\0\0\0", "f32le"),
            (b"\0\0\0\0", "pcm"),
            (b"\0\0\0\0", "pcm_f32le"),
            (b"#EXTM3U", "m3u8"),
            (b"#EXTM3U", "m4a"),
            (b"what is this", ""),
            (b"OggS", "wav "),
        ] {
            let found = AudioKind::of(data, label);
            assert!(found.is_err(), "{data:?} labelled {label}: {found:?}");
        }
    }

    #[test]
    fn longer_sounds_may_take_longer_to_decode_but_not_for_ever() {
        let time = |seconds: usize| {
            let budget = Budget::lasting(seconds * 48_000, 48_000, Duration::from_secs(2), 1);
            budget.time.as_secs()
        };
        assert_eq!([0, 2, 6, 30, 60, 600].map(time), [2, 2, 2, 10, 20, 20]);
        let odd = Budget::lasting(1, 0, Duration::from_secs(2), 1);
        assert_eq!(odd.time, Duration::from_secs(2));
    }

    #[test]
    fn mp3_delay_is_that_of_the_tag_or_lames_usual() {
        let mut data = vec![0xff, 0xfb, 0x94, 0];
        data.resize(512, 0);
        assert_eq!(mp3_delay(&data), Some((576 + 529, 48_000)));
        data[36..40].copy_from_slice(b"Info");
        data[156..160].copy_from_slice(b"LAME");
        data[177] = 0x24;
        data[178] = 0x01;
        assert_eq!(mp3_delay(&data), Some((0x240 + 529, 48_000)));
        assert_eq!(mp3_delay(b"nothing"), None);
    }
}
