//! A clip or a recording in memory: its tracks, and every sample with its exact time.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::aac::AacConfig;
use super::bytes::Short;
use super::nal::AvcConfig;
use super::{flv, mp4, ts};

/// Why a file cannot be used as a clip. Each message is one sentence for a person.
#[derive(Debug, thiserror::Error)]
pub enum ClipError {
    /// The file cannot be opened or read.
    #[error("cannot read the clip {path}: {source}", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// No reader understands the file.
    #[error("{path} is not a video: {reason}", path = .path.display())]
    NotMedia {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file is of a known kind, but damaged or uses what is not supported here.
    #[error("{path} cannot be used: {reason}", path = .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// What is wrong inside a file, said by a reader that does not know the file's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FormatError(pub String);

impl From<Short> for FormatError {
    fn from(_: Short) -> Self {
        Self("it ends in the middle of a structure".into())
    }
}

/// One coded picture or audio frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// When it is shown, in ticks of the track; 0 is the start of the presentation (edit list applied).
    pub pts: i64,
    /// When it is decoded, in ticks of the track, on the same axis.
    pub dts: i64,
    /// How long it lasts, in ticks.
    pub duration: u32,
    /// Decoding can start here.
    pub keyframe: bool,
    /// Where its bytes are in the clip's.
    pub range: Range<usize>,
}

/// A sequence of samples in decoding order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track<F> {
    /// Codec and its parameters.
    pub format: F,
    /// Ticks per second.
    pub timescale: u32,
    /// The samples in decoding order.
    pub samples: Vec<Sample>,
}

/// Codec of a video track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VideoFormat {
    /// H.264, access units of length-prefixed NAL units.
    H264(AvcConfig),
    /// Anything else, by its four-character code.
    Other(String),
}

/// Codec of an audio track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AudioFormat {
    /// AAC, raw frames.
    Aac(AacConfig),
    /// Opus, raw packets.
    Opus {
        /// Channels.
        channels: u8,
    },
    /// Anything else, by its four-character code.
    Other(String),
}

/// The first video and the first audio track of a file.
#[derive(Debug, Clone)]
pub struct Clip {
    /// The first video track with samples.
    pub video: Option<Track<VideoFormat>>,
    /// The first audio track with samples.
    pub audio: Option<Track<AudioFormat>>,
    /// The file ended in the middle of a sample: it was cut off while being written.
    pub truncated: bool,
    bytes: Vec<u8>,
}

impl<F> Track<F> {
    /// Ticks as nanoseconds, rounded to the nearest.
    pub fn nanos(&self, ticks: i64) -> i64 {
        rescale(ticks, self.timescale, 1_000_000_000)
    }

    /// Ticks as milliseconds.
    pub fn millis(&self, ticks: i64) -> f64 {
        ticks as f64 * 1000.0 / f64::from(self.timescale)
    }

    /// The end of the sample shown last, in ticks.
    pub fn end(&self) -> i64 {
        self.samples
            .iter()
            .map(|sample| sample.pts + i64::from(sample.duration))
            .max()
            .unwrap_or(0)
    }
}

/// `value` of `from` ticks per second in `to` ticks per second, rounded to the nearest (halves up).
pub fn rescale(value: i64, from: u32, to: u32) -> i64 {
    let from = i128::from(from.max(1));
    ((i128::from(value) * i128::from(to) * 2 + from).div_euclid(2 * from)) as i64
}

/// For containers without durations: a sample lasts until the next one is decoded, the last as long as the one before.
pub(super) fn fill_durations(samples: &mut [Sample]) {
    for index in 0..samples.len() {
        samples[index].duration = match samples.get(index + 1) {
            Some(next) => u32::try_from(next.dts - samples[index].dts).unwrap_or(0),
            None => index
                .checked_sub(1)
                .map_or(0, |before| samples[before].duration),
        };
    }
}

impl Clip {
    /// Reads MP4 (plain or fragmented), MOV, FLV and MPEG-TS directly, any other container by way of ffmpeg.
    pub fn open(path: &Path) -> Result<Self, ClipError> {
        let bytes = std::fs::read(path).map_err(|source| ClipError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let unusable = |error: FormatError| ClipError::Unusable {
            path: path.to_owned(),
            reason: error.0,
        };
        if mp4::recognises(&bytes) {
            Self::from_mp4(bytes).map_err(unusable)
        } else if flv::recognises(&bytes) {
            Self::from_flv(bytes).map_err(unusable)
        } else if ts::recognises(&bytes) {
            Self::from_ts(&bytes).map_err(unusable)
        } else {
            Self::by_ffmpeg(path)
        }
    }

    /// Reads an MP4 or MOV file, plain or fragmented.
    pub fn from_mp4(bytes: Vec<u8>) -> Result<Self, FormatError> {
        let file = mp4::read(&bytes)?;
        Ok(Self {
            video: file.video,
            audio: file.audio,
            truncated: file.truncated,
            bytes,
        })
    }

    /// Reads an FLV file.
    pub fn from_flv(bytes: Vec<u8>) -> Result<Self, FormatError> {
        let file = flv::read(&bytes)?;
        Ok(Self {
            video: file.video,
            audio: file.audio,
            truncated: file.truncated,
            bytes,
        })
    }

    /// Reads an MPEG-TS file.
    pub fn from_ts(bytes: &[u8]) -> Result<Self, FormatError> {
        let file = ts::read(bytes)?;
        Ok(Self {
            video: file.video,
            audio: file.audio,
            truncated: file.truncated,
            bytes: file.bytes,
        })
    }

    /// The bytes of one of this clip's samples.
    pub fn data(&self, sample: &Sample) -> &[u8] {
        &self.bytes[sample.range.clone()]
    }

    /// Copies the coded streams into an MP4 first; nothing is re-encoded.
    fn by_ffmpeg(path: &Path) -> Result<Self, ClipError> {
        let not_media = |reason: String| ClipError::NotMedia {
            path: path.to_owned(),
            reason,
        };
        let directory = tempfile::tempdir().map_err(|source| ClipError::Unreadable {
            path: std::env::temp_dir(),
            source,
        })?;
        let copy = directory.path().join("copy.mp4");
        e2e_ffmpeg::copy(path, &copy).run().map_err(|error| {
            not_media(format!("it is neither MP4, FLV nor MPEG-TS, and {error}"))
        })?;
        let bytes = std::fs::read(&copy).map_err(|source| ClipError::Unreadable {
            path: copy.clone(),
            source,
        })?;
        Self::from_mp4(bytes).map_err(|error| ClipError::Unusable {
            path: path.to_owned(),
            reason: error.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rescaling_rounds_to_the_nearest_on_both_sides_of_zero() {
        assert_eq!(rescale(1, 3, 10), 3);
        assert_eq!(rescale(2, 3, 10), 7);
        assert_eq!(rescale(-1, 3, 10), -3);
        assert_eq!(rescale(-2, 3, 10), -7);
        assert_eq!(rescale(512, 15_360, 90_000), 3000);
    }

    #[test]
    fn a_missing_file_is_named_with_the_reason() {
        let error = Clip::open(Path::new("/nowhere/clip.mp4"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("cannot read the clip /nowhere/clip.mp4: No such file"),
            "{error}"
        );
    }

    #[test]
    fn a_text_file_is_not_a_video() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes.txt");
        std::fs::write(&path, "just some words\n".repeat(50)).unwrap();
        let error = Clip::open(&path).unwrap_err().to_string();
        assert!(error.contains("notes.txt is not a video"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }

    #[test]
    fn an_empty_file_is_not_a_video() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Clip::open(file.path()).unwrap_err().to_string();
        assert!(error.contains("is not a video"), "{error}");
    }
}
