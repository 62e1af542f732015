//! Options of the program, and the plain configuration the library takes.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};
use sts_protocol::{
    AudioConfig, AudioMode, BackpressureConfig, ControlMessage, ErrorSimulation, LatencyConfig,
    ReplyFormat, event, limits,
};

use crate::{service::Limits, session::Allowance, simulation::Setting};

/// Everything a server needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// File for the journal.
    pub journal: Option<PathBuf>,
    /// How often clients are pinged.
    pub ping_interval: Duration,
    /// How long a pong may take.
    pub ping_timeout: Duration,
    /// Token clients must send; `None` lets everybody in.
    pub auth_token: Option<String>,
    /// Sessions at once.
    pub max_sessions: usize,
    /// Highest `max_inflight` that is confirmed.
    pub max_inflight: u32,
    /// Highest `chunk_duration_ms` that is accepted.
    pub max_chunk_ms: u32,
    /// Time between `stream:complete` and the server closing the connection.
    pub close_after: Duration,
    /// Delay of answers to begin with.
    pub latency: LatencyConfig,
    /// Sound of answers to begin with.
    pub audio: AudioConfig,
    /// Errors to begin with.
    pub errors: ErrorSimulation,
    /// Automatic load reports to begin with.
    pub backpressure: BackpressureConfig,
}

impl Default for Config {
    /// The protocol's own numbers, an echo without delay, a free port on 127.0.0.1.
    fn default() -> Self {
        let session = Allowance::default();
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            journal: None,
            ping_interval: limits::PING_INTERVAL,
            ping_timeout: limits::PING_TIMEOUT,
            auth_token: None,
            max_sessions: DEFAULT_MAX_SESSIONS,
            max_inflight: session.max_inflight,
            max_chunk_ms: session.max_chunk_ms,
            close_after: session.close_after,
            latency: LatencyConfig::default(),
            audio: AudioConfig::default(),
            errors: ErrorSimulation::default(),
            backpressure: BackpressureConfig::default(),
        }
    }
}

const DEFAULT_MAX_SESSIONS: usize = 64;

impl Config {
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            max_sessions: self.max_sessions,
            session: Allowance {
                max_inflight: self.max_inflight,
                max_chunk_ms: self.max_chunk_ms,
                close_after: self.close_after,
            },
        }
    }

    pub(crate) fn settings(&self) -> [Setting; 4] {
        [
            Setting::Latency(self.latency.clone()),
            Setting::Audio(self.audio.clone()),
            Setting::Errors(self.errors.clone()),
            Setting::Backpressure(self.backpressure.clone()),
        ]
    }
}

/// Stand-in speech-to-speech service for tests of the dubbing worker.
///
/// Speaks the server side of the STS fragment protocol 1.0 over Socket.IO
/// (WebSocket only) and answers every fragment with its own audio, unless told to
/// do something else by the options below or, while running, by control events
/// (config:latency, config:audio, config:error_simulation, config:backpressure,
/// simulate:backpressure, simulate:disconnect, simulate:session_loss).
///
/// Prints "listening on http://ADDR" on standard output when ready; GET /health
/// answers 200 from then on. Ends with code 0 on SIGTERM or SIGINT, 2 when an
/// option is not acceptable, 1 when it cannot listen.
#[derive(Debug, Parser)]
#[command(name = "echo-sts", version, max_term_width = 100)]
pub struct Cli {
    /// Address to listen on; port 0 picks a free one
    #[arg(long, env = "ECHO_STS_LISTEN", value_name = "IP:PORT", default_value = "127.0.0.1:8080", value_parser = listen)]
    pub listen: SocketAddr,

    /// File that gets one JSON line per event; it is emptied at start
    #[arg(long, env = "ECHO_STS_JOURNAL", value_name = "PATH")]
    pub journal: Option<PathBuf>,

    /// Delay before every answer, in ms
    #[arg(long, env = "ECHO_STS_LATENCY_MS", value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=MAX_DELAY_MS))]
    pub latency_ms: u64,

    /// Largest random addition to the delay, in ms
    #[arg(long, env = "ECHO_STS_JITTER_MS", value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=MAX_DELAY_MS))]
    pub jitter_ms: u64,

    /// Seed of the random addition: the same seed gives the same delays
    #[arg(long, env = "ECHO_STS_SEED", value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// What comes back as dubbed audio
    #[arg(long, env = "ECHO_STS_AUDIO_MODE", value_name = "MODE", value_enum, default_value_t = Mode::Echo, requires_if("resize", "lengths"))]
    pub audio_mode: Mode,

    /// For --audio-mode resize: new length over old, 0.1 to 10; for speech the mean of it [default: 1.22]
    #[arg(long, env = "ECHO_STS_AUDIO_RATIO", value_name = "RATIO", value_parser = ratio, group = "lengths")]
    pub audio_ratio: Option<f64>,

    /// For --audio-mode resize and speech: instead, new lengths over old, one after the other
    #[arg(long, env = "ECHO_STS_AUDIO_RATIOS", value_name = "RATIO,…", value_parser = ratio, value_delimiter = ',', group = "lengths")]
    pub audio_ratios: Vec<f64>,

    /// For --audio-mode speech: standard deviation of the ratio, 0 to 1 [default: 0.12]
    #[arg(long, env = "ECHO_STS_AUDIO_SPREAD", value_name = "SPREAD", value_parser = spread)]
    pub audio_spread: Option<f64>,

    /// For --audio-mode speech: silence at each end, up to 10000 [default: 80]
    #[arg(long, env = "ECHO_STS_AUDIO_SILENCE_MS", value_name = "MS", value_parser = clap::value_parser!(u64).range(..=10_000))]
    pub audio_silence_ms: Option<u64>,

    /// For --audio-mode speech: how much later than that it starts, up to 10000 [default: 0]
    #[arg(long, env = "ECHO_STS_AUDIO_LATE_MS", value_name = "MS", value_parser = clap::value_parser!(u64).range(..=10_000))]
    pub audio_late_ms: Option<u64>,

    /// How many fragments the audio mode lasts before it is echo again [default: all]
    #[arg(long, env = "ECHO_STS_AUDIO_COUNT", value_name = "N")]
    pub audio_count: Option<u64>,

    /// Coding of the answer [default: as received for echo, wav for other modes]
    #[arg(long, env = "ECHO_STS_AUDIO_FORMAT", value_name = "FORMAT", value_enum)]
    pub audio_format: Option<Format>,

    /// Rules that fail fragments, as the JSON array `rules` of config:error_simulation,
    /// such as '[{"trigger":"always","count":5,"error_code":"TIMEOUT"}]'
    #[arg(long, env = "ECHO_STS_ERROR_RULES", value_name = "JSON", value_parser = rules)]
    pub error_rules: Option<ErrorSimulation>,

    /// Report load automatically (config:backpressure with its default thresholds)
    #[arg(long, env = "ECHO_STS_AUTO_BACKPRESSURE")]
    pub auto_backpressure: bool,

    /// Token clients must send as Socket.IO auth payload {"token": …} [default: none needed]
    #[arg(
        long,
        env = "ECHO_STS_AUTH_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub auth_token: Option<String>,

    /// How often clients are pinged, in ms
    #[arg(long, env = "ECHO_STS_PING_INTERVAL_MS", value_name = "MS", default_value_t = 25_000, value_parser = clap::value_parser!(u64).range(10..=MAX_DELAY_MS))]
    pub ping_interval_ms: u64,

    /// How long a client may take to answer a ping, in ms
    #[arg(long, env = "ECHO_STS_PING_TIMEOUT_MS", value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(10..=MAX_DELAY_MS))]
    pub ping_timeout_ms: u64,

    /// Sessions at once; one more gets RATE_LIMIT
    #[arg(long, env = "ECHO_STS_MAX_SESSIONS", value_name = "N", default_value_t = DEFAULT_MAX_SESSIONS as u16, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub max_sessions: u16,

    /// Highest max_inflight that is confirmed to a worker
    #[arg(long, env = "ECHO_STS_MAX_INFLIGHT", value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10))]
    pub max_inflight: u32,

    /// Highest chunk_duration_ms that is accepted; older servers have 5000
    #[arg(long, env = "ECHO_STS_MAX_CHUNK_MS", value_name = "MS", default_value_t = 60_000, value_parser = clap::value_parser!(u32).range(100..=60_000))]
    pub max_chunk_ms: u32,

    /// Time between stream:complete and closing the connection, in ms
    #[arg(long, env = "ECHO_STS_CLOSE_AFTER_MS", value_name = "MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(..=MAX_DELAY_MS))]
    pub close_after_ms: u64,

    /// Form of the log on standard error
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// How much is logged
    #[arg(long, env = "LOG_LEVEL", value_name = "LEVEL", value_enum, ignore_case = true, default_value_t = LogLevel::Info)]
    pub log_level: LogLevel,
}

/// Longest time an option can ask for: an hour, in ms.
const MAX_DELAY_MS: u64 = 3_600_000;

/// [`AudioMode`] as an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// The very same audio
    Echo,
    /// The original made quieter, under a steady 2600 Hz tone
    Mark,
    /// As long, but digital silence
    Silence,
    /// Longer or shorter by --audio-ratio
    Resize,
    /// Like mark, as long as speech happens to be, with silence at its ends
    Speech,
    /// Bytes no decoder understands
    Corrupt,
    /// No answer at all
    Hold,
}

/// [`ReplyFormat`] as an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// RIFF WAVE, 16-bit
    Wav,
    /// Bare interleaved 16-bit little-endian samples
    #[value(name = "pcm_s16le")]
    PcmS16le,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object per line
    Json,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Only what stops the server
    Error,
    /// And what is suspicious
    Warn,
    /// And what happens to connections
    Info,
    /// And details
    Debug,
    /// Everything
    Trace,
}

impl From<LogLevel> for tracing::level_filters::LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

impl From<&Cli> for Config {
    fn from(cli: &Cli) -> Self {
        let mode = match cli.audio_mode {
            Mode::Echo => AudioMode::Echo,
            Mode::Mark => AudioMode::Mark,
            Mode::Silence => AudioMode::Silence,
            Mode::Resize => AudioMode::Resize,
            Mode::Speech => AudioMode::Speech,
            Mode::Corrupt => AudioMode::Corrupt,
            Mode::Hold => AudioMode::Hold,
        };
        let format = cli.audio_format.map(|format| match format {
            Format::Wav => ReplyFormat::Wav,
            Format::PcmS16le => ReplyFormat::PcmS16le,
        });
        Self {
            listen: cli.listen,
            journal: cli.journal.clone(),
            ping_interval: Duration::from_millis(cli.ping_interval_ms),
            ping_timeout: Duration::from_millis(cli.ping_timeout_ms),
            auth_token: cli.auth_token.clone(),
            max_sessions: usize::from(cli.max_sessions),
            max_inflight: cli.max_inflight,
            max_chunk_ms: cli.max_chunk_ms,
            close_after: Duration::from_millis(cli.close_after_ms),
            latency: LatencyConfig {
                stream_id: None,
                base_ms: cli.latency_ms,
                jitter_ms: Some(cli.jitter_ms),
                seed: Some(cli.seed),
            },
            audio: AudioConfig {
                stream_id: None,
                mode,
                ratio: cli.audio_ratio,
                ratios: cli.audio_ratios.clone(),
                spread: cli.audio_spread,
                seed: Some(cli.seed).filter(|_| mode == AudioMode::Speech),
                silence_ms: cli.audio_silence_ms,
                late_ms: cli.audio_late_ms,
                count: cli.audio_count,
                format,
            },
            errors: cli.error_rules.clone().unwrap_or_default(),
            backpressure: BackpressureConfig {
                enabled: cli.auto_backpressure,
                ..BackpressureConfig::default()
            },
        }
    }
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "needs an IP address and a port, such as 127.0.0.1:8080".to_owned())
}

fn ratio(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|ratio| (0.1..=10.0).contains(ratio))
        .ok_or_else(|| "needs a number from 0.1 to 10".to_owned())
}

fn spread(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|spread| (0.0..=1.0).contains(spread))
        .ok_or_else(|| "needs a number from 0 to 1".to_owned())
}

/// Reads rules exactly as the control event would.
fn rules(text: &str) -> Result<ErrorSimulation, String> {
    let rules: serde_json::Value = serde_json::from_str(text)
        .map_err(|error| format!("needs a JSON array of rules: {error}"))?;
    let payload = serde_json::json!({ "enabled": true, "rules": rules });
    match ControlMessage::parse(event::CONFIG_ERROR_SIMULATION, payload) {
        Some(Ok(ControlMessage::Errors(simulation))) => Ok(simulation),
        Some(Err(refusal)) => Err(refusal.message),
        _ => Err("needs a JSON array of rules".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use sts_protocol::ErrorCode;

    use super::*;

    fn parse(args: &[&str]) -> Result<Config, String> {
        Cli::try_parse_from([&["echo-sts"], args].concat())
            .map(|cli| Config::from(&cli))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn without_options_the_protocols_numbers_hold() {
        let (parsed, plain) = (parse(&[]).unwrap(), Config::default());
        assert_eq!(parsed.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(parsed.limits(), plain.limits());
        assert_eq!(
            (parsed.ping_interval, parsed.ping_timeout),
            (plain.ping_interval, plain.ping_timeout)
        );
        assert_eq!(parsed.audio, plain.audio);
        assert!(!parsed.errors.enabled && !parsed.backpressure.enabled);
    }

    #[test]
    fn bad_values_are_refused_with_option_value_and_what_is_allowed() {
        for (option, value, allowed) in [
            ("--listen", "here", "needs an IP address and a port"),
            ("--latency-ms", "soon", "invalid digit"),
            ("--latency-ms", "3600001", "0..=3600000"),
            ("--ping-interval-ms", "9", "10..=3600000"),
            (
                "--audio-mode",
                "loud",
                "possible values: echo, mark, silence, resize, speech, corrupt, hold",
            ),
            ("--audio-ratio", "11", "needs a number from 0.1 to 10"),
            ("--audio-format", "mp3", "possible values: wav, pcm_s16le"),
            ("--max-inflight", "0", "1..=10"),
            ("--max-sessions", "1001", "1..=1000"),
            ("--max-chunk-ms", "99", "100..=60000"),
            ("--error-rules", "nonsense", "needs a JSON array of rules"),
            (
                "--error-rules",
                r#"[{"trigger":"always"}]"#,
                "rules[0]: missing field `error_code`",
            ),
            (
                "--log-level",
                "loud",
                "possible values: error, warn, info, debug, trace",
            ),
        ] {
            let message = parse(&[option, value]).unwrap_err();
            for part in [option, value, allowed] {
                assert!(
                    message.contains(part),
                    "{option} {value}: {message:?} lacks {part:?}"
                );
            }
        }
        let message = parse(&["--audio-mode", "resize"]).unwrap_err();
        assert!(message.contains("--audio-ratio"), "{message}");
    }

    #[test]
    fn speech_is_as_long_as_the_options_say() {
        let audio = |args: &[&str]| parse(args).map(|config| config.audio);
        let plain = audio(&["--audio-mode=speech"]).unwrap();
        assert_eq!(
            (plain.ratio, plain.spread, plain.seed),
            (None, None, Some(0))
        );
        let list = audio(&["--audio-mode=speech", "--audio-ratios=0.4,1.6"]).unwrap();
        assert_eq!(list.ratios, [0.4, 1.6]);
        assert!(audio(&["--audio-mode=resize", "--audio-ratios=0.4"]).is_ok());
        let both = [
            "--audio-mode=speech",
            "--audio-ratios=0.4",
            "--audio-ratio=1",
        ];
        for refused in [
            &both[..],
            &["--audio-ratios=0.4,11"],
            &["--audio-spread=1.1"],
            &["--audio-silence-ms=10001"],
        ] {
            assert!(audio(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn a_server_can_be_started_misbehaving() {
        let rules = r#"[{"trigger":"nth_fragment","value":2,"error_code":"GPU_OOM"}]"#;
        let config = parse(&[
            "--latency-ms=200",
            "--jitter-ms=300",
            "--seed=7",
            "--audio-mode=resize",
            "--audio-ratio=1.08",
            "--audio-count=3",
            "--audio-format=pcm_s16le",
            "--auto-backpressure",
            "--error-rules",
            rules,
        ])
        .unwrap();
        assert_eq!(
            (config.latency.base_ms, config.latency.jitter_ms),
            (200, Some(300))
        );
        assert_eq!(config.latency.seed, Some(7));
        assert_eq!(
            config.audio,
            AudioConfig {
                ratio: Some(1.08),
                count: Some(3),
                format: Some(ReplyFormat::PcmS16le),
                ..AudioConfig::new(AudioMode::Resize)
            }
        );
        assert!(config.backpressure.enabled && config.errors.enabled);
        assert_eq!(config.errors.rules[0].error_code, ErrorCode::GpuOom);
    }
}
