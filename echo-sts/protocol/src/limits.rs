//! Numbers both sides agree on.

use std::{ops::RangeInclusive, time::Duration};

/// Largest `data_base64` of one fragment, in characters of base64 text: 10 MiB.
pub const MAX_AUDIO_BASE64: usize = 10 * 1024 * 1024;
/// Largest Socket.IO message, in bytes: 50 MiB.
pub const MAX_MESSAGE: usize = 50 * 1024 * 1024;
/// The server pings this often.
pub const PING_INTERVAL: Duration = Duration::from_secs(25);
/// A ping unanswered, or not received, for this long after it was due means the link is lost.
pub const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long after `stream:complete` the server closes the connection.
pub const CLOSE_AFTER_COMPLETE: Duration = Duration::from_secs(5);

/// Allowed `config.chunk_duration_ms`.
pub const CHUNK_DURATION_MS: RangeInclusive<u32> = 100..=60_000;
/// Allowed `config.sample_rate_hz`.
pub const SAMPLE_RATES_HZ: [u32; 4] = [16_000, 22_050, 44_100, 48_000];
/// Allowed `config.channels`.
pub const CHANNELS: RangeInclusive<u32> = 1..=2;
/// Allowed `max_inflight`.
pub const MAX_INFLIGHT: RangeInclusive<u32> = 1..=10;
/// Allowed `timeout_ms`; older servers allow 30000 at most.
pub const TIMEOUT_MS: RangeInclusive<u32> = 1_000..=120_000;
/// Longest `X-Stream-ID` and `X-Worker-ID`, in characters.
pub const MAX_HEADER_ID: usize = 64;

/// Header that carries the stream's id on the connection request.
pub const STREAM_ID_HEADER: &str = "X-Stream-ID";
/// Header that carries the worker's id on the connection request.
pub const WORKER_ID_HEADER: &str = "X-Worker-ID";
/// Socket.IO path.
pub const PATH: &str = "/socket.io/";

/// Default of `config.source_language`.
pub const DEFAULT_SOURCE_LANGUAGE: &str = "en";
/// Default of `config.target_language`.
pub const DEFAULT_TARGET_LANGUAGE: &str = "es";
/// Default of `config.voice_profile`.
pub const DEFAULT_VOICE_PROFILE: &str = "default";
/// Default of `config.chunk_duration_ms`.
pub const DEFAULT_CHUNK_DURATION_MS: u32 = 6_000;
/// Default of `config.sample_rate_hz`.
pub const DEFAULT_SAMPLE_RATE_HZ: u32 = 48_000;
/// Default of `config.channels`.
pub const DEFAULT_CHANNELS: u32 = 2;
/// Default, and only, `config.format`: AAC in MP4.
pub const FORMAT_M4A: &str = "m4a";
/// Default of `max_inflight`.
pub const DEFAULT_MAX_INFLIGHT: u32 = 3;
/// Default of `timeout_ms`.
pub const DEFAULT_TIMEOUT_MS: u32 = 8_000;
