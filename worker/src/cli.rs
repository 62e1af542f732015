//! Every option of the worker: a flag, an environment variable, a default, what is allowed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use sts_client::Ca;

mod load;
mod value;

pub use self::load::{Loaded, Refused, load};

/// Live dubbing worker: pulls one stream over RTSP, has its speech dubbed by a
/// speech-to-speech (STS) service, and publishes it over RTMP with the video untouched.
///
/// Exit codes: 0 end of stream, 2 bad option, 10 input, 11 no audio or no H.264 video,
/// 12 output, 13 STS service unreachable, 14 STS refused the stream.
///
/// An option given as a flag wins over its environment variable, that over the file of --config.
/// An empty variable counts as not set; an empty token is refused.
#[derive(Debug, Clone, Parser)]
#[command(name = "worker", version = crate::VERSION, max_term_width = 100)]
pub struct Cli {
    /// File with options (TOML): the names of the flags without --, such as stream-id = "news"
    #[arg(long, env = "WORKER_CONFIG", value_name = "PATH")]
    pub config: Option<PathBuf>,

    /// Name of the stream: 1 to 64 of A-Z a-z 0-9 _ -
    #[arg(long, env = "WORKER_STREAM_ID", default_value = "stream", value_parser = value::identifier)]
    pub stream_id: String,

    /// Name of this worker, told to the STS service [default: worker-<process id>]
    #[arg(long, env = "WORKER_ID", value_parser = value::identifier)]
    pub worker_id: Option<String>,

    /// RTSP input (rtsp://, rtsps://) [default: rtsp://localhost:8554/live/{stream_id}/in]
    #[arg(long, env = "WORKER_INPUT_URL", value_parser = value::rtsp_url, hide_env_values = true)]
    pub input_url: Option<String>,

    /// File that holds the input's URL, instead of --input-url
    #[arg(long, env = "WORKER_INPUT_URL_FILE", value_name = "PATH")]
    pub input_url_file: Option<PathBuf>,

    /// RTMP output (rtmp://, rtmps://) [default: rtmp://localhost:1935/live/{stream_id}/out]
    #[arg(long, env = "WORKER_OUTPUT_URL", value_parser = value::rtmp_url, hide_env_values = true)]
    pub output_url: Option<String>,

    /// File that holds the output's URL, instead of --output-url
    #[arg(long, env = "WORKER_OUTPUT_URL_FILE", value_name = "PATH")]
    pub output_url_file: Option<PathBuf>,

    /// For how long an output that once worked is connected again when it is lost: 0s (not at all) to 24h
    #[arg(long, env = "WORKER_OUTPUT_RETRY", default_value = "0s", value_parser = value::output_retry)]
    pub output_retry: Duration,

    /// STS service (http://, https://, ws://, wss://)
    #[arg(long, env = "WORKER_STS_SERVICE_URL", default_value = "http://localhost:8080", value_parser = value::sts_url, hide_env_values = true)]
    pub sts_service_url: String,

    /// File that holds the STS service's URL, instead of --sts-service-url
    #[arg(long, env = "WORKER_STS_SERVICE_URL_FILE", value_name = "PATH")]
    pub sts_service_url_file: Option<PathBuf>,

    /// Token for the STS service, if it wants one; never logged
    #[arg(long, env = "WORKER_STS_TOKEN", value_parser = value::token, hide_env_values = true)]
    pub sts_token: Option<String>,

    /// File that holds the token, instead of --sts-token
    #[arg(long, env = "WORKER_STS_TOKEN_FILE", value_name = "PATH")]
    pub sts_token_file: Option<PathBuf>,

    /// File with certificates (PEM) that are trusted besides the system's
    #[arg(long, env = "WORKER_STS_CA", value_parser = value::ca_file)]
    pub sts_ca: Option<Ca>,

    /// Dub the stream, or pass its audio through untouched
    #[arg(long, env = "WORKER_STS_MODE", value_enum, default_value_t = StsMode::Enabled)]
    pub sts_mode: StsMode,

    /// Language spoken in the input
    #[arg(long, env = "WORKER_SOURCE_LANG", default_value = "en", value_parser = value::short_text)]
    pub source_lang: String,

    /// Language to dub into
    #[arg(long, env = "WORKER_TARGET_LANG", default_value = "es", value_parser = value::short_text)]
    pub target_lang: String,

    /// Voice profile for the dubbed speech
    #[arg(long, env = "WORKER_TTS_VOICE", default_value = "default", value_parser = value::short_text)]
    pub tts_voice: String,

    /// What becomes of the original where there is a dub
    #[arg(long, env = "WORKER_DUB_MIX", value_enum, default_value_t = DubMix::Replace)]
    pub dub_mix: DubMix,

    /// With --dub-mix duck, level of the original under the dub in dB: -60 to -3
    #[arg(long, env = "WORKER_DUB_DUCK_DB", default_value = "-15", allow_negative_numbers = true, value_parser = value::duck_level)]
    pub dub_duck_db: f64,

    /// What becomes of a dub that is more than 10 % longer or shorter than its segment
    #[arg(long, env = "WORKER_DUB_FIT", value_enum, default_value_t = FitChoice::Refuse)]
    pub dub_fit: FitChoice,

    /// With --dub-fit stretch, fastest speech against the dub's own speed: 1 to 2
    #[arg(long, env = "WORKER_DUB_MAX_SPEED", default_value = "1.4", value_parser = value::max_speed)]
    pub dub_max_speed: f64,

    /// With --dub-fit stretch, how far speech may run on into the next segment: 0s to 1s
    #[arg(long, env = "WORKER_DUB_SPILL", default_value = "0s", value_parser = value::dub_spill)]
    pub dub_spill: Duration,

    /// What becomes of a dub more than 6 dB louder or 20 dB quieter than the original
    #[arg(long, env = "WORKER_DUB_LOUDNESS", value_enum, default_value_t = LoudnessChoice::Match)]
    pub dub_loudness: LoudnessChoice,

    /// Length of a segment, about that with --segment-cut pause: 1s to 60s
    #[arg(long, env = "WORKER_SEGMENT_DURATION", default_value = "6s", value_parser = value::segment_duration)]
    pub segment_duration: Duration,

    /// Where segments end: at the clock, or where the speaker pauses
    #[arg(long, env = "WORKER_SEGMENT_CUT", value_enum, default_value_t = CutChoice::Grid)]
    pub segment_cut: CutChoice,

    /// With --segment-cut pause, shortest segment: 1s to --segment-duration
    #[arg(long, env = "WORKER_SEGMENT_MIN", default_value = "3s", value_parser = value::segment_duration)]
    pub segment_min: Duration,

    /// With --segment-cut pause, longest segment: --segment-duration to 60s; the stream is late by so much
    #[arg(long, env = "WORKER_SEGMENT_MAX", default_value = "10s", value_parser = value::segment_duration)]
    pub segment_max: Duration,

    /// Directory for segment files, written as {dir}/{stream_id}/… [default: worker-segments-<user id> in the system's temporary directory, for this user alone]
    #[arg(long, env = "WORKER_SEGMENT_DIR")]
    pub segment_dir: Option<PathBuf>,

    /// Directory for captions of the dub, written as {dir}/{stream_id}.vtt [default: none are written]
    #[arg(long, env = "WORKER_CAPTIONS", value_name = "DIR")]
    pub captions: Option<PathBuf>,

    /// How long segment files are kept: 0s (none are written) to 7d
    #[arg(long, env = "WORKER_SEGMENT_RETENTION", default_value = "10m", value_parser = value::retention)]
    pub segment_retention: Duration,

    /// How long a fragment may stay unanswered: 1000 to 120000
    #[arg(long, env = "WORKER_STS_TIMEOUT_MS", default_value_t = 8000, value_parser = clap::value_parser!(u32).range(1000..=120_000))]
    pub sts_timeout_ms: u32,

    /// How many fragments may be unanswered at once: 1 to 10
    #[arg(long, env = "WORKER_STS_MAX_INFLIGHT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=10))]
    pub sts_max_inflight: u32,

    /// What follows when all reconnection attempts have failed
    #[arg(long, env = "WORKER_STS_GONE", value_enum, default_value_t = StsGone::Exit)]
    pub sts_gone: StsGone,

    /// Longest silence of the STS service that is put up with, whatever ping times it announces: 1s to 5m
    #[arg(long, env = "WORKER_STS_MAX_SILENCE", default_value = "5m", value_parser = value::max_silence)]
    pub sts_max_silence: Duration,

    /// Consecutive retryable failures that open the circuit breaker: 1 to 1000
    #[arg(long, env = "WORKER_BREAKER_FAILURES", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub breaker_failures: u32,

    /// How long the breaker stays open before one probe: 100ms to 1h
    #[arg(long, env = "WORKER_BREAKER_COOLDOWN", default_value = "30s", value_parser = value::cooldown)]
    pub breaker_cooldown: Duration,

    /// How long pictures wait for sound that is missing, at least 1s, before silence takes its place; also the
    /// constant offset of output timestamps, which RTMP counts from the first: 0s to 60s
    #[arg(long, env = "WORKER_AV_OFFSET", default_value = "6s", value_parser = value::av_offset)]
    pub av_offset: Duration,

    /// Audio/video delta that counts as out of sync: 1 to 1000
    #[arg(long, env = "WORKER_AV_SYNC_THRESHOLD_MS", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub av_sync_threshold_ms: u32,

    /// Jitter buffer of the RTSP input: 0 to 10000
    #[arg(long, env = "WORKER_RTSP_LATENCY_MS", default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=10000))]
    pub rtsp_latency_ms: u32,

    /// Where /metrics, /livez, /readyz, /status and /health are served; port 0 picks a free one
    #[arg(long, env = "WORKER_METRICS_ADDR", default_value = "127.0.0.1:8000")]
    pub metrics_addr: SocketAddr,

    /// How the log on stderr is written
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Least severe level that is logged: error, warn, info, debug, trace or off, or a filter such as info,worker::driver=debug
    #[arg(long, env = "LOG_LEVEL", default_value = "info", value_parser = value::log_level)]
    pub log_level: String,

    /// Prints something for the installation of this program and exits
    #[arg(long, value_enum, hide = true)]
    pub print: Option<Print>,
}

/// What `--print` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Print {
    /// Completions for bash.
    Bash,
    /// Completions for zsh.
    Zsh,
    /// Completions for fish.
    Fish,
    /// The manual page.
    Man,
}

impl Print {
    /// What is to be printed.
    pub fn text(self) -> std::io::Result<Vec<u8>> {
        use clap::CommandFactory as _;
        let mut command = Cli::command();
        let mut text = Vec::new();
        let shell = match self {
            Self::Bash => clap_complete::Shell::Bash,
            Self::Zsh => clap_complete::Shell::Zsh,
            Self::Fish => clap_complete::Shell::Fish,
            Self::Man => {
                clap_mangen::Man::new(command).render(&mut text)?;
                return Ok(text);
            }
        };
        clap_complete::generate(shell, &mut command, "worker", &mut text);
        Ok(text)
    }
}

/// What happens to the audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StsMode {
    /// Audio goes through the STS service.
    Enabled,
    /// Audio is copied from input to output; no STS service is contacted.
    Passthrough,
}

/// What follows when the STS service stays away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StsGone {
    /// What is buffered goes out, then the worker exits with code 13.
    Exit,
    /// The stream goes on with its original audio; another attempt every 32 s.
    Original,
}

/// What decides where segments end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CutChoice {
    /// Every --segment-duration.
    Grid,
    /// The quietest moment between --segment-min and --segment-max; the grid where nobody pauses.
    Pause,
}

/// How dubbed audio goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DubMix {
    /// The dub alone is heard.
    Replace,
    /// The original goes on under the dub, quieter.
    Duck,
}

/// What becomes of dubs of another length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FitChoice {
    /// The original is heard instead.
    Refuse,
    /// The dub is played faster or slower, at the same pitch.
    Stretch,
}

/// What becomes of dubs that are much louder or quieter than the original.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LoudnessChoice {
    /// They are brought within that, and peaks over full scale under it.
    Match,
    /// They are heard as they come.
    Keep,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn refusal(args: &[&str]) -> String {
        let args = std::iter::once("worker").chain(args.iter().copied());
        load(args.map(Into::into)).expect_err("must be refused").0
    }

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_option_has_an_environment_variable() {
        for arg in Cli::command().get_arguments() {
            if !matches!(arg.get_id().as_str(), "help" | "version" | "print") {
                assert!(arg.get_env().is_some(), "--{} has none", arg.get_id());
            }
        }
    }

    /// An environment that was filled from a file has its line breaks.
    #[test]
    fn white_space_around_secrets_and_urls_is_not_theirs() {
        let args = [
            "worker",
            "--sts-token",
            "s3cret-token\n",
            "--input-url",
            " rtsp://cam/x\n",
            "--output-url",
            "rtmp://cdn/app/key\r\n",
            "--sts-service-url",
            "http://sts\n",
        ];
        let cli = load(args.into_iter().map(Into::into)).unwrap().cli;
        assert_eq!(cli.sts_token.as_deref(), Some("s3cret-token"));
        assert_eq!(cli.input_url.as_deref(), Some("rtsp://cam/x"));
        assert_eq!(cli.output_url.as_deref(), Some("rtmp://cdn/app/key"));
        assert_eq!(cli.sts_service_url, "http://sts");
        for token in ["", " \n", "two\nlines"] {
            let refused = refusal(&["--sts-token", token]);
            assert!(refused.contains("allowed: one line"), "{refused}");
            assert!(!refused.contains("lines"), "{refused}");
        }
    }

    #[test]
    fn help_shows_no_secret_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("news.toml");
        let secrets = "input-url = 'rtsp://u:geheim@cam/x'\noutput-url = 'rtmp://cdn/live/geheim'\n\
            sts-service-url = 'https://u:geheim@sts'\nsts-token = 'geheim'\ntarget-lang = 'eo'\n";
        std::fs::write(&path, secrets).unwrap();
        for flag in ["--help", "-h"] {
            let help = refusal(&["--config", path.to_str().unwrap(), flag]);
            assert!(!help.contains("geheim"), "{help}");
            assert!(
                help.contains("[default: eo]"),
                "the file is not read: {help}"
            );
        }
    }

    #[test]
    fn a_bad_value_is_refused_with_option_value_and_what_is_allowed() {
        for (args, parts) in [
            (
                ["--sts-max-inflight", "11"],
                ["--sts-max-inflight", "11", "1..=10"],
            ),
            (
                ["--segment-duration", "soon"],
                ["--segment-duration", "soon", "1s to 1m"],
            ),
            (
                ["--segment-duration", "100ms"],
                ["--segment-duration", "100ms", "1s to 1m"],
            ),
            (
                ["--input-url", "http://x/y"],
                ["--input-url", "http://x/y", "rtsp://"],
            ),
            (
                ["--output-url", "rtmp://host/only-app"],
                ["--output-url", "rtmp://host/***", "STREAM"],
            ),
            (["--stream-id", "a b"], ["--stream-id", "a b", "A-Z"]),
            (["--sts-mode", "off"], ["--sts-mode", "off", "passthrough"]),
            (["--dub-mix", "both"], ["--dub-mix", "both", "duck"]),
            (["--dub-fit", "cut"], ["--dub-fit", "cut", "stretch"]),
            (["--dub-loudness", "6"], ["--dub-loudness", "6", "keep"]),
            (
                ["--dub-max-speed", "2.1"],
                ["--dub-max-speed", "2.1", "1 to 2"],
            ),
            (["--dub-spill", "2s"], ["--dub-spill", "2s", "0s to 1s"]),
            (
                ["--dub-duck-db", "-61"],
                ["--dub-duck-db", "-61", "-60 to -3"],
            ),
            (
                ["--dub-duck-db", "-2.9"],
                ["--dub-duck-db", "-2.9", "-60 to -3"],
            ),
            (
                ["--dub-duck-db", "15"],
                ["--dub-duck-db", "15", "-60 to -3"],
            ),
            (
                ["--dub-duck-db", "nan"],
                ["--dub-duck-db", "nan", "-60 to -3"],
            ),
            (
                ["--metrics-addr", "8000"],
                ["--metrics-addr", "8000", "invalid socket address"],
            ),
        ] {
            let message = refusal(&args);
            for part in parts {
                assert!(
                    message.contains(part),
                    "{args:?}: {part:?} is not in {message}"
                );
            }
        }
    }
}
