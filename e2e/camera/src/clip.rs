//! What a camera sees: coded pictures and audio frames with their times, read from a file.
//!
//! MP4 is read with `re_mp4`. Audio that is wanted in another coding is made by ffmpeg first.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use e2e_ffmpeg::CameraSound;
use re_mp4::{Mp4, StsdBoxContent, Track};

use crate::manner::AudioCodec;
use crate::payload;

/// RTP clock of video, ticks per second; pictures carry their times in it.
pub const VIDEO_CLOCK: u32 = 90_000;
/// Bytes of samples in one packet of uncompressed audio are those of this many milliseconds.
const PCM_PACKET_MS: u32 = 20;
/// What an MP3 encoder and decoder delay the sound by, in samples.
const MP3_DELAY: i64 = 1105;

/// One coded picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// When it is shown, in ticks of [`VIDEO_CLOCK`]; 0 is the start of the clip.
    pub pts: i64,
    /// When it leaves the encoder, relative to the others.
    pub dts: i64,
    /// Until the next one.
    pub ticks: i64,
    /// Decoding can start here.
    pub keyframe: bool,
    /// NAL units without start codes.
    pub nals: Vec<Vec<u8>>,
    /// Which of the clip's parameter sets it is decoded with.
    pub sets: usize,
}

/// Sequence and picture parameter sets.
pub type ParameterSets = Vec<Vec<u8>>;

/// Pictures in decoding order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Video {
    /// Every group of parameter sets that is in use; the first is the one that is announced.
    pub sets: Vec<ParameterSets>,
    pub pictures: Vec<Picture>,
}

/// How audio is coded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Codec {
    /// Raw AAC frames, and the two bytes that configure a decoder.
    Aac([u8; 2]),
    /// Opus packets.
    Opus,
    /// MPEG audio frames.
    Mpeg,
    /// G.711, µ-law.
    Pcmu,
    /// G.711, A-law.
    Pcma,
    /// Samples of 16 bits, big-endian.
    L16,
    /// G.722; its samples are counted by twos.
    G722,
    /// G.726, two samples a byte.
    G726,
    /// AAC frames as in [`Codec::Aac`], the LATM way.
    Latm([u8; 2]),
}

/// What an encoder makes in one go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioFrame {
    /// When it begins to sound, in samples.
    pub pts: i64,
    /// How many samples it lasts.
    pub samples: i64,
    /// Its bytes.
    pub data: Vec<u8>,
}

/// Audio in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audio {
    /// How it is coded.
    pub codec: Codec,
    /// Samples per second; frames carry their times in it.
    pub rate: u32,
    pub channels: u8,
    pub frames: Vec<AudioFrame>,
}

/// A clip in memory.
#[derive(Debug, Clone)]
pub struct Clip {
    /// Its picture.
    pub video: Option<Video>,
    /// Its sound.
    pub audio: Option<Audio>,
}

/// `value` of `from` ticks per second in `to` ticks per second, rounded to the nearest (halves up).
pub fn rescale(value: i64, from: u32, to: u32) -> i64 {
    let from = i128::from(from.max(1));
    ((i128::from(value) * i128::from(to) * 2 + from).div_euclid(2 * from)) as i64
}

impl Clip {
    /// Reads a clip, its audio coded anew if another coding is wanted.
    ///
    /// # Errors
    /// When the file cannot be read, or holds neither H.264 nor audio that can be sent.
    pub fn open(path: &Path, audio: Option<AudioCodec>) -> Result<Self> {
        Self::read(path, audio)
            .with_context(|| format!("the clip {} cannot be played", path.display()))
    }

    fn read(path: &Path, codec: Option<AudioCodec>) -> Result<Self> {
        let bytes = std::fs::read(path)?;
        let mut clip = Self::from_mp4(&bytes)?;
        match codec {
            None => {}
            Some(AudioCodec::Opus) => {
                let copy = encode(path, CameraSound::Opus)?;
                clip.audio = Self::from_mp4(&copy)?.audio;
            }
            Some(AudioCodec::Aac32k) => {
                let copy = encode(path, CameraSound::Aac32k)?;
                clip.audio = Self::from_mp4(&copy)?.audio;
            }
            Some(AudioCodec::Mp3) => clip.audio = Some(mpeg(&encode(path, CameraSound::Mp3)?)?),
            Some(AudioCodec::Pcmu) => {
                clip.audio = Some(pcm(path, Codec::Pcmu, CameraSound::Pcmu, 8_000, 1)?);
            }
            Some(AudioCodec::Pcma) => {
                clip.audio = Some(pcm(path, Codec::Pcma, CameraSound::Pcma, 8_000, 1)?);
            }
            Some(AudioCodec::L16) => {
                clip.audio = Some(pcm(path, Codec::L16, CameraSound::L16, 48_000, 2)?);
            }
            Some(AudioCodec::G722) => {
                clip.audio = Some(pcm(path, Codec::G722, CameraSound::G722, 8_000, 1)?);
            }
            Some(AudioCodec::G726) => {
                clip.audio = Some(pcm(path, Codec::G726, CameraSound::G726, 8_000, 1)?);
            }
            Some(dress @ (AudioCodec::Latm | AudioCodec::Adts)) => {
                let audio = clip.audio.as_mut().context("it has no audio")?;
                let Codec::Aac(config) = audio.codec else {
                    bail!("its audio is no AAC");
                };
                if dress == AudioCodec::Latm {
                    audio.codec = Codec::Latm(config);
                } else {
                    for frame in &mut audio.frames {
                        frame.data = payload::adts(config, &frame.data);
                    }
                }
            }
        }
        ensure!(
            clip.video.is_some() || clip.audio.is_some(),
            "it has neither H.264 video nor AAC or Opus audio"
        );
        Ok(clip)
    }

    /// Reads an MP4 file.
    ///
    /// # Errors
    /// When it is not one, or damaged.
    pub fn from_mp4(bytes: &[u8]) -> Result<Self> {
        let mp4 = Mp4::read_bytes(bytes).context("it is not MP4")?;
        let (mut video, mut audio) = (None, None);
        for track in mp4
            .tracks()
            .values()
            .filter(|track| !track.samples.is_empty())
        {
            match &track.trak(&mp4).mdia.minf.stbl.stsd.contents {
                StsdBoxContent::Avc1(avc) if video.is_none() => {
                    let config = &avc.avcc.contents;
                    let all = config
                        .sequence_parameter_sets
                        .iter()
                        .chain(&config.picture_parameter_sets);
                    let sets = all.map(|set| set.bytes.clone()).collect();
                    let prefix = usize::from(config.length_size_minus_one & 3) + 1;
                    video = Some(Video {
                        sets: vec![sets],
                        pictures: pictures(track, bytes, prefix)?,
                    });
                }
                StsdBoxContent::Mp4a(mp4a) if audio.is_none() => {
                    let esds = mp4a
                        .esds
                        .as_ref()
                        .context("its audio has no configuration")?;
                    let config = &esds.es_desc.dec_config.dec_specific;
                    let bits = u16::from(config.profile) << 11
                        | u16::from(config.freq_index) << 7
                        | u16::from(config.chan_conf) << 3;
                    let frames = frames(&mp4, track, bytes, track.timescale as u32)?;
                    audio = Some(Audio {
                        codec: Codec::Aac(bits.to_be_bytes()),
                        rate: track.timescale as u32,
                        channels: config.chan_conf.clamp(1, 6),
                        frames,
                    });
                }
                StsdBoxContent::Unknown(kind) if audio.is_none() && kind.to_string() == "Opus" => {
                    let frames = frames(&mp4, track, bytes, 48_000)?;
                    audio = Some(Audio {
                        codec: Codec::Opus,
                        rate: 48_000,
                        channels: 2,
                        frames,
                    });
                }
                _ => {}
            }
        }
        Ok(Self { video, audio })
    }

    /// From second `at` on, shows the pictures of `other`, which was made of the same scene by another
    /// encoder: with B-frames, in another size, in more slices. The cut is at the first keyframe of
    /// `other` there.
    ///
    /// # Errors
    /// When one of the two has no picture, or `other` no keyframe there.
    pub fn splice(&mut self, at: f64, other: Self) -> Result<()> {
        let (Some(video), Some(other)) = (&mut self.video, other.video) else {
            bail!("pictures can only be spliced to pictures");
        };
        let from = (at * f64::from(VIDEO_CLOCK)).round() as i64;
        let next = other
            .pictures
            .iter()
            .position(|picture| picture.keyframe && picture.pts >= from);
        let next = next.with_context(|| format!("no keyframe to splice at {at} s"))?;
        let cut = other.pictures[next].pts;
        video.pictures.retain(|picture| picture.pts < cut);
        let sets = video.sets.len();
        video.sets.extend(other.sets);
        video.pictures.extend(
            other
                .pictures
                .into_iter()
                .skip(next)
                .map(|picture| Picture {
                    sets: picture.sets + sets,
                    ..picture
                }),
        );
        Ok(())
    }
}

fn data(bytes: &[u8], sample: &re_mp4::Sample) -> Result<Vec<u8>> {
    let data = bytes
        .get(sample.byte_range())
        .context("it ends in the middle of a sample")?;
    Ok(data.to_vec())
}

fn pictures(track: &Track, bytes: &[u8], prefix: usize) -> Result<Vec<Picture>> {
    let ticks = |value: i64| rescale(value, track.timescale as u32, VIDEO_CLOCK);
    let picture = |sample: &re_mp4::Sample| {
        let data = data(bytes, sample)?;
        let (mut nals, mut rest) = (Vec::new(), data.as_slice());
        while let Some((length, after)) = rest.split_at_checked(prefix).filter(|_| !rest.is_empty())
        {
            let length = length
                .iter()
                .fold(0, |value, byte| value << 8 | usize::from(*byte));
            let (nal, after) = after
                .split_at_checked(length)
                .context("a picture is damaged")?;
            nals.push(nal.to_vec());
            rest = after;
        }
        Ok(Picture {
            pts: ticks(sample.composition_timestamp),
            dts: ticks(sample.decode_timestamp),
            ticks: ticks(sample.duration as i64),
            keyframe: sample.is_sync,
            nals,
            sets: 0,
        })
    };
    track.samples.iter().map(picture).collect()
}

fn frames(mp4: &Mp4, track: &Track, bytes: &[u8], rate: u32) -> Result<Vec<AudioFrame>> {
    // What an encoder puts before the sound is hidden by the edit list.
    let edits = track
        .trak(mp4)
        .edts
        .as_ref()
        .and_then(|edits| edits.elst.as_ref());
    let hidden = edits.and_then(|list| {
        let mut times = list.entries.iter().map(|edit| edit.media_time);
        times.find(|time| *time != u64::from(u32::MAX) && *time != u64::MAX)
    });
    let ticks = |value: i64| rescale(value, track.timescale as u32, rate);
    let frame = |sample: &re_mp4::Sample| {
        Ok(AudioFrame {
            pts: ticks(sample.composition_timestamp - hidden.unwrap_or(0) as i64),
            samples: ticks(sample.duration as i64),
            data: data(bytes, sample)?,
        })
    };
    track.samples.iter().map(frame).collect()
}

/// The audio of a file, coded anew by ffmpeg.
fn encode(path: &Path, codec: CameraSound) -> Result<Vec<u8>> {
    let file = tempfile::NamedTempFile::new()?;
    e2e_ffmpeg::encode_for_camera(path, codec, file.path())
        .run()
        .context("cannot code its audio")?;
    Ok(std::fs::read(file.path())?)
}

fn pcm(path: &Path, codec: Codec, coded: CameraSound, rate: u32, channels: u8) -> Result<Audio> {
    let bytes = encode(path, coded)?;
    // In halves of a byte.
    let sample = usize::from(channels)
        * match codec {
            Codec::L16 => 4,
            Codec::G726 => 1,
            _ => 2,
        };
    // Longer packets would not fit into a frame of Ethernet.
    let ms = if codec == Codec::L16 {
        PCM_PACKET_MS / 4
    } else {
        PCM_PACKET_MS
    };
    let samples = i64::from(rate * ms / 1000);
    let packets = bytes.chunks(samples as usize * sample / 2).zip(0..);
    let frames = packets
        .map(|(data, n)| AudioFrame {
            pts: n * samples,
            samples: (data.len() * 2 / sample) as i64,
            data: data.to_vec(),
        })
        .collect();
    Ok(Audio {
        codec,
        rate,
        channels,
        frames,
    })
}

/// Divides a stream of MPEG-1 layer III frames of 48 kHz.
fn mpeg(bytes: &[u8]) -> Result<Audio> {
    const KBPS: [usize; 15] = [
        0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320,
    ];
    let (mut frames, mut rest) = (Vec::new(), bytes);
    while let [0xff, 0xfb, rate, ..] = rest {
        let kbps = KBPS
            .get(usize::from(rate >> 4))
            .context("an MP3 frame is damaged")?;
        let length = 144 * kbps * 1000 / 48_000 + usize::from(rate >> 1 & 1);
        let Some((data, after)) = rest.split_at_checked(length) else {
            break;
        };
        frames.push(AudioFrame {
            pts: frames.len() as i64 * 1152 - MP3_DELAY,
            samples: 1152,
            data: data.to_vec(),
        });
        rest = after;
    }
    ensure!(!frames.is_empty(), "ffmpeg made no MP3 of its audio");
    Ok(Audio {
        codec: Codec::Mpeg,
        rate: 48_000,
        channels: 2,
        frames,
    })
}
