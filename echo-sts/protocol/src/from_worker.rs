//! What the worker sends.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    ErrorCode, Refusal, event, limits,
    read::{null_default, object, parse, whole, whole_opt},
};

/// Socket.IO `auth` payload, sent only when a token is configured.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Auth {
    /// The shared secret; never logged, so `Debug` hides it.
    pub token: String,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Auth { token: *** }")
    }
}

/// `stream:init`: the first message on a connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamInit {
    /// The stream; not empty.
    pub stream_id: String,
    /// The worker; not empty.
    pub worker_id: String,
    /// What will be sent and what is wanted back.
    #[serde(default, deserialize_with = "null_default")]
    pub config: StreamConfig,
    /// How many fragments the worker would like to have unanswered at once, 1..=10.
    #[serde(default = "default_max_inflight", deserialize_with = "max_inflight")]
    pub max_inflight: u32,
    /// After how long the worker gives a fragment up, in ms, 1000..=120000.
    #[serde(default = "default_timeout_ms", deserialize_with = "timeout_ms")]
    pub timeout_ms: u32,
}

/// `config` of [`StreamInit`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamConfig {
    /// Language spoken in the input.
    #[serde(deserialize_with = "source_language")]
    pub source_language: String,
    /// Language wanted.
    #[serde(deserialize_with = "target_language")]
    pub target_language: String,
    /// Voice wanted.
    #[serde(deserialize_with = "voice_profile")]
    pub voice_profile: String,
    /// Nominal length of a fragment in ms, 100..=60000; a hint.
    #[serde(deserialize_with = "chunk_duration_ms")]
    pub chunk_duration_ms: u32,
    /// Samples per second: 16000, 22050, 44100 or 48000.
    #[serde(deserialize_with = "sample_rate_hz")]
    pub sample_rate_hz: u32,
    /// 1 or 2.
    #[serde(deserialize_with = "channels")]
    pub channels: u32,
    /// `m4a`: AAC in MP4.
    #[serde(deserialize_with = "format")]
    pub format: String,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            source_language: limits::DEFAULT_SOURCE_LANGUAGE.to_owned(),
            target_language: limits::DEFAULT_TARGET_LANGUAGE.to_owned(),
            voice_profile: limits::DEFAULT_VOICE_PROFILE.to_owned(),
            chunk_duration_ms: limits::DEFAULT_CHUNK_DURATION_MS,
            sample_rate_hz: limits::DEFAULT_SAMPLE_RATE_HZ,
            channels: limits::DEFAULT_CHANNELS,
            format: limits::FORMAT_M4A.to_owned(),
        }
    }
}

/// Readers that turn `null` into the field's own default.
macro_rules! nullable {
    ($($name:ident: $type:ty = $default:expr;)*) => {$(
        fn $name<'de, D: serde::Deserializer<'de>>(d: D) -> Result<$type, D::Error> {
            Ok(Option::<$type>::deserialize(d)?.unwrap_or_else(|| $default))
        }
    )*};
}
nullable! {
    source_language: String = limits::DEFAULT_SOURCE_LANGUAGE.to_owned();
    target_language: String = limits::DEFAULT_TARGET_LANGUAGE.to_owned();
    voice_profile: String = limits::DEFAULT_VOICE_PROFILE.to_owned();
    chunk_duration_ms: u32 = limits::DEFAULT_CHUNK_DURATION_MS;
    sample_rate_hz: u32 = limits::DEFAULT_SAMPLE_RATE_HZ;
    channels: u32 = limits::DEFAULT_CHANNELS;
    format: String = limits::FORMAT_M4A.to_owned();
    max_inflight: u32 = limits::DEFAULT_MAX_INFLIGHT;
    timeout_ms: u32 = limits::DEFAULT_TIMEOUT_MS;
}

fn default_max_inflight() -> u32 {
    limits::DEFAULT_MAX_INFLIGHT
}

fn default_timeout_ms() -> u32 {
    limits::DEFAULT_TIMEOUT_MS
}

impl StreamInit {
    /// An init with every default of the protocol.
    pub fn new(stream_id: impl Into<String>, worker_id: impl Into<String>) -> Self {
        Self {
            stream_id: stream_id.into(),
            worker_id: worker_id.into(),
            config: StreamConfig::default(),
            max_inflight: limits::DEFAULT_MAX_INFLIGHT,
            timeout_ms: limits::DEFAULT_TIMEOUT_MS,
        }
    }

    /// Checks every rule of the protocol's table.
    ///
    /// # Errors
    /// `INVALID_CONFIG` with the first rule that is broken.
    pub fn validate(&self) -> Result<(), Refusal> {
        not_empty("stream_id", &self.stream_id)?;
        not_empty("worker_id", &self.worker_id)?;
        let config = &self.config;
        within(
            "config.chunk_duration_ms",
            config.chunk_duration_ms,
            &limits::CHUNK_DURATION_MS,
        )?;
        if !limits::SAMPLE_RATES_HZ.contains(&config.sample_rate_hz) {
            return Err(Refusal::invalid(format!(
                "config.sample_rate_hz: {} is not one of 16000, 22050, 44100, 48000",
                config.sample_rate_hz
            )));
        }
        within("config.channels", config.channels, &limits::CHANNELS)?;
        if config.format != limits::FORMAT_M4A {
            return Err(Refusal::invalid(format!(
                "config.format: {:?} is not \"m4a\"",
                config.format
            )));
        }
        within("max_inflight", self.max_inflight, &limits::MAX_INFLIGHT)?;
        within("timeout_ms", self.timeout_ms, &limits::TIMEOUT_MS)
    }
}

/// One piece of audio on the wire, either way.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audio {
    /// Container or coding: `m4a`, `adts`, `wav`, `pcm_s16le`, `mp3`, `ogg`.
    pub format: String,
    /// Samples per second.
    pub sample_rate_hz: u32,
    /// Number of channels.
    pub channels: u32,
    /// Length in ms, rounded.
    #[serde(deserialize_with = "whole")]
    pub duration_ms: u64,
    /// The bytes, in standard base64.
    pub data_base64: String,
}

impl fmt::Debug for Audio {
    // Audio never reaches a log, so its bytes never reach `Debug`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audio")
            .field("format", &self.format)
            .field("sample_rate_hz", &self.sample_rate_hz)
            .field("channels", &self.channels)
            .field("duration_ms", &self.duration_ms)
            .field(
                "data_base64",
                &format_args!("<{} chars>", self.data_base64.len()),
            )
            .finish()
    }
}

/// `metadata` of [`FragmentData`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FragmentMetadata {
    /// Start of the fragment on the worker's output timeline, in ns.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "whole_opt"
    )]
    pub pts_ns: Option<u64>,
    /// Start of the fragment on the input's own timeline, in ns.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "whole_opt"
    )]
    pub source_pts_ns: Option<u64>,
    /// Anything else a worker adds.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// `fragment:data`: one segment's audio.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FragmentData {
    /// UUID, unique per fragment.
    pub fragment_id: String,
    /// The stream this belongs to.
    pub stream_id: String,
    /// 0-based, +1 each, from 0 again after every `stream:init`.
    pub sequence_number: u64,
    /// When it was sent, Unix ms.
    #[serde(deserialize_with = "whole")]
    pub timestamp: u64,
    /// The sound.
    pub audio: Audio,
    /// Timing of the sound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<FragmentMetadata>,
}

impl FragmentData {
    /// Checks what can be known without the session: ids, size, audio parameters.
    /// The base64 text itself is not decoded here.
    ///
    /// # Errors
    /// `FRAGMENT_TOO_LARGE` for more than 10 MiB of base64, else `INVALID_CONFIG`.
    pub fn validate(&self) -> Result<(), Refusal> {
        let size = self.audio.data_base64.len();
        if size > limits::MAX_AUDIO_BASE64 {
            return Err(Refusal::new(
                ErrorCode::FragmentTooLarge,
                format!(
                    "audio.data_base64: {size} bytes are over the limit of {}",
                    limits::MAX_AUDIO_BASE64
                ),
            ));
        }
        if uuid::Uuid::try_parse(&self.fragment_id).is_err() {
            return Err(Refusal::invalid("fragment_id: not a UUID"));
        }
        not_empty("stream_id", &self.stream_id)?;
        if size == 0 {
            return Err(Refusal::invalid("audio.data_base64: empty"));
        }
        not_empty("audio.format", &self.audio.format)?;
        if self.audio.sample_rate_hz == 0 {
            return Err(Refusal::invalid(
                "audio.sample_rate_hz: 0 is not a sample rate",
            ));
        }
        within("audio.channels", self.audio.channels, &limits::CHANNELS)?;
        if self.audio.duration_ms == 0 {
            return Err(Refusal::invalid("audio.duration_ms: 0 is not a length"));
        }
        Ok(())
    }
}

/// How far a worker has got with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerAckStatus {
    /// `fragment:processed` has arrived.
    Received,
    /// The dubbed audio is going out.
    Applied,
}

/// `fragment:ack` from the worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerAck {
    /// The fragment.
    pub fragment_id: String,
    /// How far it got.
    pub status: WorkerAckStatus,
    /// When, Unix ms.
    #[serde(deserialize_with = "whole")]
    pub timestamp: u64,
}

/// `stream:pause`, `stream:resume` and `stream:end` share this shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamSignal {
    /// The stream.
    pub stream_id: String,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Anything a worker sends.
#[derive(Clone, Debug, PartialEq)]
pub enum WorkerMessage {
    /// `stream:init`
    Init(StreamInit),
    /// `fragment:data`
    Data(Box<FragmentData>),
    /// `fragment:ack`
    Ack(WorkerAck),
    /// `stream:pause`
    Pause(StreamSignal),
    /// `stream:resume`
    Resume(StreamSignal),
    /// `stream:end`
    End(StreamSignal),
}

impl WorkerMessage {
    /// Reads the payload of event `name`; `None` if no worker event has that name.
    ///
    /// Checks the shape only; see [`StreamInit::validate`] and [`FragmentData::validate`].
    pub fn parse(name: &str, payload: Value) -> Option<Result<Self, Refusal>> {
        if !event::FROM_WORKER.contains(&name) {
            return None;
        }
        Some(object(&payload).and_then(|()| {
            Ok(match name {
                event::STREAM_INIT => Self::Init(parse(payload)?),
                event::FRAGMENT_DATA => Self::Data(Box::new(parse(payload)?)),
                event::FRAGMENT_ACK => Self::Ack(parse(payload)?),
                event::STREAM_PAUSE => Self::Pause(parse(payload)?),
                event::STREAM_RESUME => Self::Resume(parse(payload)?),
                _ => Self::End(parse(payload)?),
            })
        }))
    }

    /// The event name this goes under.
    pub fn event(&self) -> &'static str {
        match self {
            Self::Init(_) => event::STREAM_INIT,
            Self::Data(_) => event::FRAGMENT_DATA,
            Self::Ack(_) => event::FRAGMENT_ACK,
            Self::Pause(_) => event::STREAM_PAUSE,
            Self::Resume(_) => event::STREAM_RESUME,
            Self::End(_) => event::STREAM_END,
        }
    }

    /// The JSON object for the wire.
    ///
    /// # Errors
    /// Never for the types of this crate; `serde_json`'s signature.
    pub fn payload(&self) -> serde_json::Result<Value> {
        match self {
            Self::Init(m) => serde_json::to_value(m),
            Self::Data(m) => serde_json::to_value(m),
            Self::Ack(m) => serde_json::to_value(m),
            Self::Pause(m) | Self::Resume(m) | Self::End(m) => serde_json::to_value(m),
        }
    }
}

/// Checks an `X-Stream-ID` or `X-Worker-ID` value: `[A-Za-z0-9_-]`, 1 to 64 characters.
///
/// # Errors
/// `INVALID_CONFIG` naming `header`.
pub fn check_header_id(header: &str, value: &str) -> Result<(), Refusal> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || c == b'-';
    if (1..=limits::MAX_HEADER_ID).contains(&value.len()) && value.bytes().all(allowed) {
        Ok(())
    } else {
        Err(Refusal::invalid(format!(
            "{header}: needs 1 to {} characters of [A-Za-z0-9_-]",
            limits::MAX_HEADER_ID
        )))
    }
}

fn not_empty(field: &str, value: &str) -> Result<(), Refusal> {
    if value.is_empty() {
        Err(Refusal::invalid(format!("{field}: must not be empty")))
    } else {
        Ok(())
    }
}

fn within(field: &str, value: u32, range: &std::ops::RangeInclusive<u32>) -> Result<(), Refusal> {
    if range.contains(&value) {
        Ok(())
    } else {
        Err(Refusal::invalid(format!(
            "{field}: {value} is not within {}..={}",
            range.start(),
            range.end()
        )))
    }
}
