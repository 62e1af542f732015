//! The session description a publisher announces (RFC 8866, 6184, 3640, 7587).

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::clip::{AudioFormat, Clip, VideoFormat};

/// RTP payload type of video.
pub const VIDEO_TYPE: u8 = 96;
/// RTP payload type of audio.
pub const AUDIO_TYPE: u8 = 97;
/// RTP clock of H.264, ticks per second.
pub const VIDEO_CLOCK: u32 = 90_000;

/// RTP clock of an audio format, ticks per second; `None` when it cannot be published.
pub fn audio_clock(format: &AudioFormat) -> Option<u32> {
    match format {
        AudioFormat::Aac(config) => Some(config.rate),
        AudioFormat::Opus { .. } => Some(48_000),
        AudioFormat::Other(_) => None,
    }
}

/// Describes a clip; tracks stand in the order video, audio, with `streamid=0`, `streamid=1` as controls.
pub fn describe(clip: &Clip) -> String {
    let mut sdp = String::from(
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=clip\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n",
    );
    let mut control = 0;
    let mut add = |media: &str, attributes: &[String]| {
        let _ = write!(sdp, "m={media}\r\n");
        for attribute in attributes {
            let _ = write!(sdp, "a={attribute}\r\n");
        }
        let _ = write!(sdp, "a=control:streamid={control}\r\n");
        control += 1;
    };
    if let Some(VideoFormat::H264(config)) = clip.video.as_ref().map(|track| &track.format) {
        let sets: Vec<_> = config
            .sps
            .iter()
            .chain(&config.pps)
            .map(|set| BASE64.encode(set))
            .collect();
        let profile_level = hex(&config.profile_level);
        add(
            &format!("video 0 RTP/AVP {VIDEO_TYPE}"),
            &[
                format!("rtpmap:{VIDEO_TYPE} H264/{VIDEO_CLOCK}"),
                format!(
                    "fmtp:{VIDEO_TYPE} packetization-mode=1; sprop-parameter-sets={}; profile-level-id={profile_level}",
                    sets.join(",")
                ),
            ],
        );
    }
    match clip.audio.as_ref().map(|track| &track.format) {
        Some(AudioFormat::Aac(config)) => add(
            &format!("audio 0 RTP/AVP {AUDIO_TYPE}"),
            &[
                format!(
                    "rtpmap:{AUDIO_TYPE} MPEG4-GENERIC/{}/{}",
                    config.rate, config.channels
                ),
                format!(
                    "fmtp:{AUDIO_TYPE} profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3; config={}",
                    hex(&config.config)
                ),
            ],
        ),
        Some(AudioFormat::Opus { channels }) => add(
            &format!("audio 0 RTP/AVP {AUDIO_TYPE}"),
            &[
                format!("rtpmap:{AUDIO_TYPE} opus/48000/2"),
                format!(
                    "fmtp:{AUDIO_TYPE} sprop-stereo={}",
                    u8::from(*channels == 2)
                ),
            ],
        ),
        Some(AudioFormat::Other(_)) | None => {}
    }
    sdp
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    })
}
