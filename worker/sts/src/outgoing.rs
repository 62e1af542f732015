//! Orders into messages.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sts_protocol::{
    Audio, FragmentData, FragmentMetadata, StreamConfig, StreamInit, StreamSignal, WorkerAck,
    WorkerAckStatus, WorkerMessage, limits,
};

use super::config::{InitParams, OutgoingFragment, StsClientConfig};

/// JSON around the audio of a fragment, in bytes, roughly.
const ENVELOPE: usize = 500;

/// What a link is asked to do.
pub(super) enum LinkOrder {
    Init(InitParams),
    Fragment(OutgoingFragment),
    Applied(String),
    End(String),
    Disconnect,
}

/// One event ready for the wire.
pub(super) struct Message {
    pub(super) event: &'static str,
    /// The packet.
    pub(super) text: String,
    /// It carries audio.
    pub(super) fragment: bool,
}

impl LinkOrder {
    /// Memory the order holds, roughly.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Fragment(fragment) => ENVELOPE + fragment.m4a.len(),
            _ => ENVELOPE,
        }
    }

    /// The message for the wire; `None` for an order that has none. Audio is encoded only here,
    /// when its turn has come.
    pub(super) fn into_message(self, config: &StsClientConfig) -> Option<Message> {
        let stream_id = config.stream_id.clone();
        let fragment = matches!(self, Self::Fragment(_));
        let message = match self {
            Self::Init(params) => {
                WorkerMessage::Init(init(params, stream_id, config.worker_id.clone()))
            }
            Self::Fragment(fragment) => WorkerMessage::Data(Box::new(data(fragment, stream_id))),
            Self::Applied(fragment_id) => WorkerMessage::Ack(WorkerAck {
                fragment_id,
                status: WorkerAckStatus::Applied,
                timestamp: unix_ms(),
            }),
            Self::End(reason) => WorkerMessage::End(StreamSignal {
                stream_id,
                reason: (!reason.is_empty()).then_some(reason),
            }),
            Self::Disconnect => return None,
        };
        let payload = message.payload().ok()?;
        let event = message.event();
        Some(Message {
            event,
            text: format!("42{}", serde_json::to_string(&(event, payload)).ok()?),
            fragment,
        })
    }
}

/// Largest message a fragment may be sent in, in terms of [`message_len`].
pub const MAX_MESSAGE: usize = limits::MAX_AUDIO_BASE64 + ENVELOPE;

/// Size of the message that carries `len` bytes of audio, roughly.
pub fn message_len(len: usize) -> usize {
    encoded_len(len) + ENVELOPE
}

/// Length of `len` bytes in base64 text.
fn encoded_len(len: usize) -> usize {
    len.div_ceil(3) * 4
}

fn init(params: InitParams, stream_id: String, worker_id: String) -> StreamInit {
    StreamInit {
        config: StreamConfig {
            source_language: params.source_language,
            target_language: params.target_language,
            voice_profile: params.voice_profile,
            chunk_duration_ms: params.chunk_ms.clamp(
                *limits::CHUNK_DURATION_MS.start(),
                *limits::CHUNK_DURATION_MS.end(),
            ),
            sample_rate_hz: nearest_rate(params.rate),
            channels: params
                .channels
                .clamp(*limits::CHANNELS.start(), *limits::CHANNELS.end()),
            format: limits::FORMAT_M4A.to_owned(),
        },
        max_inflight: params.max_inflight,
        timeout_ms: params.timeout_ms,
        ..StreamInit::new(stream_id, worker_id)
    }
}

fn nearest_rate(rate: u32) -> u32 {
    limits::SAMPLE_RATES_HZ
        .into_iter()
        .min_by_key(|known| known.abs_diff(rate))
        .unwrap_or(limits::DEFAULT_SAMPLE_RATE_HZ)
}

fn data(fragment: OutgoingFragment, stream_id: String) -> FragmentData {
    FragmentData {
        fragment_id: fragment.id,
        stream_id,
        sequence_number: fragment.sequence,
        timestamp: unix_ms(),
        audio: Audio {
            format: limits::FORMAT_M4A.to_owned(),
            sample_rate_hz: fragment.sample_rate,
            channels: fragment.channels,
            duration_ms: fragment.duration_ms,
            data_base64: STANDARD.encode(&fragment.m4a),
        },
        metadata: Some(FragmentMetadata {
            // The wire has no negative times; a stream that starts before zero leaves them out.
            pts_ns: u64::try_from(fragment.pts_ns).ok(),
            source_pts_ns: u64::try_from(fragment.source_pts_ns).ok(),
            ..FragmentMetadata::default()
        }),
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn config() -> StsClientConfig {
        StsClientConfig::new("http://localhost", "stream-1", "worker-1")
    }

    #[test]
    fn every_init_within_reason_passes_the_protocols_own_check() {
        for (rate, announced) in [
            (48_000, 48_000),
            (32_000, 22_050),
            (8_000, 16_000),
            (96_000, 48_000),
        ] {
            let params = InitParams {
                rate,
                channels: 6,
                chunk_ms: 120_000,
                ..InitParams::default()
            };
            let init = init(params, "s".into(), "w".into());
            assert_eq!(init.validate(), Ok(()));
            assert_eq!(init.config.sample_rate_hz, announced);
        }
    }

    #[test]
    fn an_init_says_what_was_asked_for() {
        let params = InitParams {
            source_language: "de".into(),
            target_language: "fr".into(),
            voice_profile: "anna".into(),
            chunk_ms: 4_000,
            rate: 44_100,
            channels: 1,
            max_inflight: 5,
            timeout_ms: 7_000,
        };
        let init = init(params, "s".into(), "w".into());
        let expected = StreamConfig {
            source_language: "de".into(),
            target_language: "fr".into(),
            voice_profile: "anna".into(),
            chunk_duration_ms: 4_000,
            sample_rate_hz: 44_100,
            channels: 1,
            format: "m4a".into(),
        };
        assert_eq!(init.config, expected);
        assert_eq!((init.max_inflight, init.timeout_ms), (5, 7_000));
        assert_eq!((&*init.stream_id, &*init.worker_id), ("s", "w"));
    }

    #[test]
    fn a_fragment_on_the_wire() {
        let fragment = OutgoingFragment {
            id: "7f3f6b0e-9f1c-4c53-8a4e-0d6b8f6a2c11".into(),
            sequence: 4,
            pts_ns: 24_000_000_000,
            source_pts_ns: -1,
            duration_ms: 6_000,
            sample_rate: 48_000,
            channels: 2,
            m4a: Bytes::from_static(b"\x00\x01\x02\xff"),
        };
        let message = LinkOrder::Fragment(fragment)
            .into_message(&config())
            .unwrap();
        assert!(message.fragment && message.event == "fragment:data");
        let text = message.text.strip_prefix("42").unwrap();
        let mut parts: Vec<serde_json::Value> = serde_json::from_str(text).unwrap();
        let mut payload = parts.remove(1);
        assert_eq!(parts, ["fragment:data"]);
        assert!(payload["timestamp"].take().as_u64().unwrap() > 1_700_000_000_000);
        assert_eq!(
            payload,
            serde_json::json!({
                "fragment_id": "7f3f6b0e-9f1c-4c53-8a4e-0d6b8f6a2c11",
                "stream_id": "stream-1",
                "sequence_number": 4,
                "timestamp": null,
                "audio": {
                    "format": "m4a", "sample_rate_hz": 48000, "channels": 2,
                    "duration_ms": 6000, "data_base64": "AAEC/w=="
                },
                "metadata": { "pts_ns": 24_000_000_000_u64 }
            })
        );
    }

    #[test]
    fn base64_length() {
        for len in 0..20 {
            assert_eq!(encoded_len(len), STANDARD.encode(vec![0_u8; len]).len());
        }
    }

    #[test]
    fn the_largest_fragment_may_be_sent_and_a_byte_more_not() {
        let largest = (10 << 20) / 4 * 3;
        assert!(message_len(largest) <= MAX_MESSAGE);
        assert!(message_len(largest + 1) > MAX_MESSAGE);
    }
}
