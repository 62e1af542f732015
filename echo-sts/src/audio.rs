//! What comes back as dubbed audio: decoding a fragment and rendering an answer.
//!
//! Pure computation without GStreamer; the server runs it on a blocking thread.

mod mp4;
mod pcm;

use std::io::Cursor;

use base64::{Engine, prelude::BASE64_STANDARD};
use sts_protocol::{Audio, AudioConfig, AudioMode, ReplyFormat};
use symphonia::core::{
    codecs::audio::AudioDecoderOptions,
    errors::Error as SymphoniaError,
    formats::{FormatOptions, TrackType, probe::Hint},
    io::{MediaSourceStream, MediaSourceStreamOptions},
    meta::MetadataOptions,
};

use pcm::Pcm;

/// Most samples (all channels together) one fragment may decode to: 3 minutes of
/// 96 kHz stereo. Compressed audio can be made to decode to far more.
const MAX_SAMPLES: usize = 96_000 * 2 * 180;

/// How to make an answer out of a fragment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Job {
    /// What to do with the sound.
    pub work: Work,
    /// How to code the answer.
    pub format: ReplyFormat,
}

/// What to do with the sound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Work {
    /// Nothing; it is only coded anew.
    Recode,
    /// See [`sts_protocol::mark`].
    Mark,
    /// As long, but digital silence.
    Silence,
    /// This many times as long.
    Resize(f64),
    /// See [`sts_protocol::AudioMode::Speech`]; silence in ms before and behind it.
    Speech {
        /// New length over old.
        ratio: f64,
        /// Before it.
        before_ms: u64,
        /// Behind it.
        behind_ms: u64,
    },
    /// As many bytes, none of which a decoder understands.
    Corrupt,
}

impl Job {
    /// The job for a mode; `None` where none is needed: a plain echo returns the
    /// very same audio, `hold` returns nothing.
    pub fn of(config: &AudioConfig) -> Option<Self> {
        let work = match config.mode {
            AudioMode::Echo if config.format.is_some() => Work::Recode,
            AudioMode::Echo | AudioMode::Hold => return None,
            AudioMode::Mark => Work::Mark,
            AudioMode::Silence => Work::Silence,
            AudioMode::Resize => Work::Resize(config.ratio.unwrap_or(1.0)),
            AudioMode::Speech => {
                let silence = config.silence_ms.unwrap_or(80);
                Work::Speech {
                    ratio: config.ratio.unwrap_or(1.22),
                    before_ms: silence + config.late_ms.unwrap_or(0),
                    behind_ms: silence,
                }
            }
            AudioMode::Corrupt => Work::Corrupt,
        };
        Some(Self {
            work,
            format: config.format.unwrap_or(ReplyFormat::Wav),
        })
    }
}

/// Why an answer could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AudioError {
    /// `data_base64` is no base64.
    #[error("not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    /// The bytes are no audio this server can decode.
    #[error("cannot decode: {0}")]
    Decode(#[from] SymphoniaError),
    /// A container without an audio track.
    #[error("no audio track")]
    NoTrack,
    /// Decodes to nothing.
    #[error("no sound in it")]
    Empty,
    /// Decodes to more than is reasonable for one fragment.
    #[error("decodes to more than three minutes")]
    TooLong,
}

pub(crate) fn check_base64(text: &str) -> Result<(), base64::DecodeError> {
    BASE64_STANDARD.decode(text).map(drop)
}

/// Renders the answer to `audio`.
///
/// # Errors
/// When the fragment cannot be decoded. `Corrupt` only needs the base64 to be right.
pub fn render(audio: &Audio, job: Job) -> Result<Audio, AudioError> {
    let bytes = BASE64_STANDARD.decode(&audio.data_base64)?;
    if job.work == Work::Corrupt {
        return Ok(Audio {
            data_base64: BASE64_STANDARD.encode(corrupt(bytes.len())),
            ..audio.clone()
        });
    }
    let mut pcm = decode(bytes)?;
    match job.work {
        Work::Recode | Work::Corrupt => {}
        Work::Mark => pcm.mark(),
        Work::Silence => pcm.silence(),
        Work::Resize(ratio) => pcm.resize(ratio),
        Work::Speech {
            ratio,
            before_ms,
            behind_ms,
        } => {
            pcm.resize(ratio);
            pcm.mark();
            pcm.surround(before_ms, behind_ms);
        }
    }
    let (format, data) = match job.format {
        ReplyFormat::Wav => ("wav", pcm.to_wav()),
        ReplyFormat::PcmS16le => ("pcm_s16le", pcm.to_s16le()),
    };
    Ok(Audio {
        format: format.to_owned(),
        sample_rate_hz: pcm.rate,
        channels: pcm.channels,
        duration_ms: pcm.duration_ms(),
        data_base64: BASE64_STANDARD.encode(data),
    })
}

/// Pseudo-random bytes with the top bit clear, so that they cannot hold the sync
/// words of MPEG audio or ADTS; the start spells no container either.
fn corrupt(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8 & 0x7f
        })
        .collect()
}

/// Decodes M4A or ADTS and cuts off what an edit list says is not content.
fn decode(bytes: Vec<u8>) -> Result<Pcm, AudioError> {
    let edits = bytes.clone();
    let source = MediaSourceStream::new(
        Box::new(Cursor::new(bytes)),
        MediaSourceStreamOptions::default(),
    );
    let mut format = symphonia::default::get_probe().probe(
        &Hint::new(),
        source,
        FormatOptions::default(),
        MetadataOptions::default(),
    )?;
    let track = format
        .default_track(TrackType::Audio)
        .ok_or(AudioError::NoTrack)?;
    let track_id = track.id;
    let params = track
        .codec_params
        .as_ref()
        .and_then(|p| p.audio())
        .ok_or(AudioError::NoTrack)?;
    let mut decoder = symphonia::default::get_codecs()
        .make_audio_decoder(params, &AudioDecoderOptions::default())?;
    let (mut rate, mut channels) = (0, 0);
    let mut samples: Vec<f32> = Vec::new();
    let mut block: Vec<f32> = Vec::new();
    while let Some(packet) = format.next_packet()? {
        if packet.track_id != track_id {
            continue;
        }
        let decoded = decoder.decode(&packet)?;
        rate = decoded.spec().rate();
        channels = decoded.spec().channels().count() as u32;
        decoded.copy_to_vec_interleaved(&mut block);
        samples.extend_from_slice(&block);
        if samples.len() > MAX_SAMPLES {
            return Err(AudioError::TooLong);
        }
    }
    let mut pcm = Pcm {
        rate,
        channels,
        samples,
    };
    if let Some(edit) = mp4::edit(&edits, rate) {
        pcm.trim(edit.skip, edit.keep);
    }
    if pcm.samples.is_empty() {
        Err(AudioError::Empty)
    } else {
        Ok(pcm)
    }
}

#[cfg(test)]
mod tests {
    use sts_protocol::mark;

    use super::{
        pcm::tests::{level, tone},
        *,
    };

    const TONE: &[u8] = include_bytes!("../../fixtures/sts/audio/tone-997hz-2s.m4a");

    fn fragment(bytes: &[u8]) -> Audio {
        Audio {
            format: "m4a".to_owned(),
            sample_rate_hz: 48_000,
            channels: 2,
            duration_ms: 2_000,
            data_base64: BASE64_STANDARD.encode(bytes),
        }
    }

    fn run(work: Work, format: ReplyFormat) -> Audio {
        render(&fragment(TONE), Job { work, format }).unwrap()
    }

    /// Reads back what `render` wrote.
    fn sound(audio: &Audio) -> Pcm {
        let bytes = BASE64_STANDARD.decode(&audio.data_base64).unwrap();
        let data = match audio.format.as_str() {
            "wav" => &bytes[44..],
            "pcm_s16le" => &bytes[..],
            other => panic!("unexpected format {other}"),
        };
        Pcm {
            rate: audio.sample_rate_hz,
            channels: audio.channels,
            samples: data
                .chunks_exact(2)
                .map(|s| f32::from(i16::from_le_bytes([s[0], s[1]])) / 32_768.0)
                .collect(),
        }
    }

    #[test]
    fn decoding_gives_exactly_the_samples_the_edit_list_presents() {
        let pcm = decode(TONE.to_vec()).unwrap();
        assert_eq!((pcm.rate, pcm.channels, pcm.frames()), (48_000, 2, 96_000));
        // In phase with the source: the priming is gone, not just some samples.
        // The first tenth is the encoder finding its feet.
        let ideal = tone(997.0, 48_000, 96_000);
        let left = pcm
            .samples
            .iter()
            .zip(&ideal.samples)
            .step_by(2)
            .skip(9_600);
        let squares: f32 = left.map(|(a, b)| (a - b).powi(2)).sum();
        let error = (squares / 86_400.0).sqrt();
        // One sample early or late would be 0.046.
        assert!(error < 0.01, "RMS difference {error}");
    }

    #[test]
    fn mark_is_told_from_the_original_by_its_tone() {
        let marked = run(Work::Mark, ReplyFormat::Wav);
        assert_eq!((marked.format.as_str(), marked.duration_ms), ("wav", 2_000));
        let (marked, plain) = (sound(&marked), decode(TONE.to_vec()).unwrap());
        assert_eq!(marked.frames(), plain.frames());
        assert!(level(&marked, mark::TONE_HZ) > 100.0 * level(&plain, mark::TONE_HZ));
        assert!((level(&marked, 997.0) / level(&plain, 997.0) - 0.251).abs() < 0.005);
    }

    #[test]
    fn silence_is_as_long_and_silent() {
        let pcm = sound(&run(Work::Silence, ReplyFormat::PcmS16le));
        assert_eq!(pcm.frames(), 96_000);
        assert!(pcm.samples.iter().all(|s| *s == 0.0));
    }

    #[test]
    fn resize_states_its_new_length() {
        let audio = run(Work::Resize(1.08), ReplyFormat::Wav);
        assert_eq!(audio.duration_ms, 2_160);
        assert_eq!(sound(&audio).frames(), 103_680);
    }

    #[test]
    fn speech_is_marked_and_lies_between_silences() {
        let work = Work::Speech {
            ratio: 1.25,
            before_ms: 300,
            behind_ms: 100,
        };
        let pcm = sound(&run(work, ReplyFormat::Wav));
        assert_eq!(pcm.frames(), 14_400 + 120_000 + 4_800);
        let silent =
            |from: usize, to: usize| pcm.samples[2 * from..2 * to].iter().all(|s| *s == 0.0);
        assert!(silent(0, 14_400) && silent(134_400, 139_200) && !silent(14_400, 14_900));
        assert!(level(&pcm, mark::TONE_HZ) > 0.08);
    }

    #[test]
    fn recoding_keeps_the_sound() {
        for format in [ReplyFormat::Wav, ReplyFormat::PcmS16le] {
            let pcm = sound(&run(Work::Recode, format));
            assert_eq!(pcm.frames(), 96_000);
            assert!((level(&pcm, 997.0) - 0.5).abs() < 0.01);
        }
    }

    #[test]
    fn corrupt_audio_keeps_its_label_and_size_but_decodes_to_nothing() {
        let audio = run(Work::Corrupt, ReplyFormat::Wav);
        assert_eq!(audio.format, "m4a");
        let bytes = BASE64_STANDARD.decode(&audio.data_base64).unwrap();
        assert_eq!(bytes.len(), TONE.len());
        assert!(bytes.iter().all(|b| *b < 0x80));
        assert!(decode(bytes).is_err());
    }

    #[test]
    fn what_cannot_be_decoded_is_an_error_not_a_panic() {
        let job = Job {
            work: Work::Mark,
            format: ReplyFormat::Wav,
        };
        for bytes in [
            &b"x"[..],
            b"not audio at all, but text that goes on for a while",
            &TONE[..200],
        ] {
            assert!(render(&fragment(bytes), job).is_err());
        }
        let mut audio = fragment(TONE);
        audio.data_base64 = "***".to_owned();
        assert!(matches!(render(&audio, job), Err(AudioError::Base64(_))));
        // Damage anywhere in the file: an error or shorter sound, never a panic.
        for at in (0..TONE.len()).step_by(97) {
            let mut bytes = TONE.to_vec();
            bytes[at] ^= 0xff;
            let _ = render(&fragment(&bytes), job);
        }
    }

    #[test]
    fn only_modes_that_change_the_sound_need_work() {
        assert_eq!(Job::of(&AudioConfig::new(AudioMode::Echo)), None);
        assert_eq!(Job::of(&AudioConfig::new(AudioMode::Hold)), None);
        let recode = AudioConfig {
            format: Some(ReplyFormat::PcmS16le),
            ..AudioConfig::new(AudioMode::Echo)
        };
        assert_eq!(
            Job::of(&recode),
            Some(Job {
                work: Work::Recode,
                format: ReplyFormat::PcmS16le
            })
        );
        assert_eq!(
            Job::of(&AudioConfig::new(AudioMode::Mark)),
            Some(Job {
                work: Work::Mark,
                format: ReplyFormat::Wav
            })
        );
    }
}
