//! What a camera says of its media (SDP: RFC 8866, 6184, 3640, 7587).

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use regex::RegexBuilder;

use crate::clip::{Audio, Clip, Codec, ParameterSets, VIDEO_CLOCK};
use crate::manner::Manner;

/// RTP payload types that are not fixed.
const VIDEO_TYPE: u8 = 96;
const AUDIO_TYPE: u8 = 97;

/// What a medium is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The clip's pictures.
    Video,
    /// The clip's sound.
    Audio,
    /// One of the manner's `more_media`.
    More(usize),
}

/// One medium of the description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Medium {
    pub kind: Kind,
    /// RTP payload type.
    pub payload_type: u8,
}

/// The description, and what stands in it, in its order. The n-th medium's control is `trackID=n`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The text.
    pub sdp: String,
    pub media: Vec<Medium>,
}

/// The control of a medium.
pub fn control(place: usize) -> String {
    format!("trackID={place}")
}

/// The payload type in a medium's first line.
pub(crate) fn payload_type(lines: &[String]) -> u8 {
    let word = lines.first().and_then(|line| line.split(' ').nth(3));
    word.and_then(|word| word.parse().ok())
        .unwrap_or(AUDIO_TYPE + 10)
}

impl Description {
    /// Describes a clip as a manner wants it.
    ///
    /// # Errors
    /// When a change to the text is no regular expression, or changes nothing.
    pub fn new(clip: &Clip, manner: &Manner) -> Result<Self> {
        let mut media = Vec::new();
        let mut sdp = String::from(
            "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=camera\nc=IN IP4 0.0.0.0\nt=0 0\na=range:npt=now-\n",
        );
        let mut add = |kind, payload_type, lines: &[String]| {
            for line in lines {
                let _ = writeln!(sdp, "{line}");
            }
            let _ = writeln!(sdp, "a=control:{}", control(media.len()));
            media.push(Medium { kind, payload_type });
        };
        let more = manner.more_media.iter().enumerate();
        for (index, medium) in more.clone().filter(|(_, medium)| medium.first) {
            add(
                Kind::More(index),
                payload_type(&medium.lines),
                &medium.lines,
            );
        }
        if let Some(video) = clip.video.as_ref().filter(|_| !manner.video.off) {
            add(Kind::Video, VIDEO_TYPE, &video_lines(&video.sets[0]));
        }
        if let Some(audio) = clip.audio.as_ref().filter(|_| !manner.audio.off) {
            let (payload_type, lines) = audio_lines(audio);
            add(Kind::Audio, payload_type, &lines);
        }
        for (index, medium) in more.filter(|(_, medium)| !medium.first) {
            add(
                Kind::More(index),
                payload_type(&medium.lines),
                &medium.lines,
            );
        }
        for edit in &manner.sdp {
            let pattern = RegexBuilder::new(&edit.find).multi_line(true).build();
            let pattern =
                pattern.with_context(|| format!("'{}' is no regular expression", edit.find))?;
            let changed = pattern
                .replace_all(&sdp, edit.replace.as_str())
                .into_owned();
            ensure!(
                changed != sdp,
                "'{}' changes nothing in the description:\n{sdp}",
                edit.find
            );
            sdp = changed;
        }
        Ok(Self {
            sdp: sdp.replace('\n', "\r\n"),
            media,
        })
    }
}

fn video_lines(sets: &ParameterSets) -> Vec<String> {
    let coded: Vec<_> = sets.iter().map(|set| BASE64.encode(set)).collect();
    let level = sets
        .first()
        .and_then(|sps| sps.get(1..4))
        .map(hex::encode_upper)
        .unwrap_or_default();
    vec![
        format!("m=video 0 RTP/AVP {VIDEO_TYPE}"),
        format!("a=rtpmap:{VIDEO_TYPE} H264/{VIDEO_CLOCK}"),
        format!(
            "a=fmtp:{VIDEO_TYPE} packetization-mode=1; sprop-parameter-sets={}; profile-level-id={level}",
            coded.join(",")
        ),
    ]
}

fn audio_lines(audio: &Audio) -> (u8, Vec<String>) {
    let (rate, channels) = (audio.rate, audio.channels);
    let (payload_type, coding, format) = match audio.codec {
        Codec::Aac(config) => (
            AUDIO_TYPE,
            format!("MPEG4-GENERIC/{rate}/{channels}"),
            format!(
                "profile-level-id=1; mode=AAC-hbr; sizelength=13; indexlength=3; indexdeltalength=3; config={}",
                hex::encode_upper(config)
            ),
        ),
        Codec::Opus => (
            AUDIO_TYPE,
            "opus/48000/2".to_owned(),
            "sprop-stereo=1".to_owned(),
        ),
        Codec::Mpeg => (14, format!("MPA/{VIDEO_CLOCK}"), String::new()),
        Codec::Pcmu => (0, "PCMU/8000".to_owned(), String::new()),
        Codec::Pcma => (8, "PCMA/8000".to_owned(), String::new()),
        Codec::L16 => (AUDIO_TYPE, format!("L16/{rate}/{channels}"), String::new()),
        Codec::G722 => (9, "G722/8000".to_owned(), String::new()),
        Codec::G726 => (AUDIO_TYPE, "G726-32/8000".to_owned(), String::new()),
        Codec::Latm(config) => {
            // One program of one layer, frames of any length (ISO 14496-3, 1.7.3.2): 15 bits, the
            // configuration, and what says that nothing is known of the buffer.
            let bits = 1 << 62 | u64::from(u16::from_be_bytes(config)) << 33 | 0xff << 22;
            (
                AUDIO_TYPE,
                format!("MP4A-LATM/{rate}/{channels}"),
                format!(
                    "profile-level-id=1; cpresent=0; config={}",
                    hex::encode(&bits.to_be_bytes()[..6])
                ),
            )
        }
    };
    let mut lines = vec![
        format!("m=audio 0 RTP/AVP {payload_type}"),
        format!("a=rtpmap:{payload_type} {coding}"),
    ];
    if !format.is_empty() {
        lines.push(format!("a=fmtp:{payload_type} {format}"));
    }
    (payload_type, lines)
}
