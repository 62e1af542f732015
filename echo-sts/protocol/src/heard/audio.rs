//! `dubbed_audio`, as text or as binary attachment.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde_json::Value;

use super::fact::{BrokenRule, DubbedAudio};
use super::fields::{
    Broken, Object, bad_value, clip, integer, missing, required, text, wrong_type,
};
use crate::limits;

/// Sample rates any decoder here could make sense of, Hz.
const RATES: std::ops::RangeInclusive<u32> = 4_000..=192_000;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Characters of a transcript that are kept.
const MAX_WORDS: usize = 4_000;

/// Fields of `dubbed_audio` that servers put bytes in.
const BINARY: [&str; 4] = ["data_base64", "data", "audio", "bytes"];

pub(super) fn read(o: &mut Object, attachments: &[Bytes]) -> Result<DubbedAudio, Broken> {
    let mut audio = match o.remove("dubbed_audio") {
        Some(Value::Object(audio)) => audio,
        None | Some(Value::Null) => return Err(missing("dubbed_audio")),
        Some(other) => return Err(wrong_type("dubbed_audio", &other)),
    };
    // All of it may be bytes; then only they say what they are.
    let bare = placeholder(&audio);
    let format = match bare {
        Some(_) => "",
        None => required(text(&audio, "format")?, "dubbed_audio.format")?,
    };
    let format = clip(format, 32);
    let sample_rate = match integer(&audio, "sample_rate_hz")? {
        None => None,
        Some(rate) => Some(
            u32::try_from(rate)
                .ok()
                .filter(|rate| RATES.contains(rate))
                .ok_or_else(|| bad_value("dubbed_audio.sample_rate_hz", &rate.to_string()))?,
        ),
    };
    let channels = match integer(&audio, "channels")? {
        None => None,
        Some(1) => Some(1),
        Some(2) => Some(2),
        Some(other) => return Err(bad_value("dubbed_audio.channels", &other.to_string())),
    };
    // Raw samples do not say what they are.
    let raw = format.to_ascii_lowercase().starts_with("pcm");
    if raw && (sample_rate.is_none() || channels.is_none()) {
        return Err(missing("dubbed_audio.sample_rate_hz or channels"));
    }
    // Only a label: the real length is measured when it is decoded.
    let duration_ms = integer(&audio, "duration_ms").ok().flatten();
    let duration_ms = duration_ms.and_then(|ms| u64::try_from(ms).ok());
    let attached = bare.or_else(|| {
        let fields = BINARY.iter().filter_map(|field| audio.get(*field));
        fields.filter_map(Value::as_object).find_map(placeholder)
    });
    let bytes = match attached {
        Some(number) => usize::try_from(number)
            .ok()
            .and_then(|number| attachments.get(number))
            .cloned()
            .ok_or_else(|| missing("the attachment of dubbed_audio"))?,
        None => match audio.remove("data_base64") {
            Some(Value::String(encoded)) => decode(encoded)?,
            None | Some(Value::Null) => return Err(missing("dubbed_audio.data_base64")),
            Some(other) => return Err(wrong_type("dubbed_audio.data_base64", &other)),
        },
    };
    if bytes.is_empty() {
        let detail = "dubbed_audio.data_base64 is empty".to_owned();
        return Err((BrokenRule::BadValue, detail));
    }
    if bytes.len() > limits::MAX_AUDIO_BASE64 / 4 * 3 {
        return Err(too_large(bytes.len()));
    }
    // Nothing hangs on the words: what is no text is none.
    let words = |field| clip(text(o, field).ok().flatten().unwrap_or_default(), MAX_WORDS);
    Ok(DubbedAudio {
        transcript: words("transcript"),
        translated_text: words("translated_text"),
        format,
        sample_rate,
        channels,
        duration_ms,
        bytes,
    })
}

/// The number of the attachment that stands here.
fn placeholder(o: &Object) -> Option<u64> {
    let is_one = o.get("_placeholder") == Some(&Value::Bool(true));
    o.get("num").filter(|_| is_one)?.as_u64()
}

/// Base64 as services write it: with line breaks, in the alphabet for URLs, without padding, or
/// behind a `data:` prefix.
fn decode(encoded: String) -> Result<Bytes, Broken> {
    if encoded.len() > limits::MAX_AUDIO_BASE64 {
        return Err(too_large(encoded.len()));
    }
    let mut text = encoded.into_bytes();
    if text.starts_with(b"data:") {
        let head = text.iter().position(|byte| *byte == b',');
        text.drain(..head.map_or(0, |at| at + 1));
    }
    text.retain_mut(|byte| {
        match byte {
            b'-' => *byte = b'+',
            b'_' => *byte = b'/',
            _ => {}
        }
        !byte.is_ascii_whitespace()
    });
    let detail = "dubbed_audio.data_base64 is not base64";
    let bytes = BASE64.decode(text);
    bytes
        .map(Bytes::from)
        .map_err(|_| (BrokenRule::BadValue, detail.to_owned()))
}

fn too_large(len: usize) -> Broken {
    let most = limits::MAX_AUDIO_BASE64;
    let detail = format!("dubbed_audio has {len} bytes, {most} of base64 are allowed");
    (BrokenRule::Oversize, detail)
}
