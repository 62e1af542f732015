//! The options as the worker uses them: defaults filled in, credentials wrapped.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use dub_engine::{DubFitConfig, DubFitMode, DubLoudness, Gone, SegmentCut};
use dub_media::MediaUrl;
use sts_client::Ca;

use crate::cli::{self, Cli, DubMix, FitChoice, StsGone, StsMode};

/// Everything the worker needs to know before it starts.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the stream.
    pub stream_id: String,
    /// Name of this process towards the STS service.
    pub worker_id: String,
    /// Where media comes from.
    pub input_url: MediaUrl,
    /// Where media goes.
    pub output_url: MediaUrl,
    /// For how long an output that once worked is connected again.
    pub output_retry: Duration,
    /// The STS service and what it is asked for.
    pub sts: StsConfig,
    /// Length of a segment.
    pub segment_duration: Duration,
    /// What decides where segments end.
    pub segment_cut: SegmentCut,
    /// Directory of all streams' segment files; `None` writes none.
    pub segment_root: Option<SegmentRoot>,
    /// Directory for captions; `None` writes none.
    pub captions_dir: Option<PathBuf>,
    /// How long segment files stay.
    pub segment_retention: Duration,
    /// Level of the original under the dub in dB; `None` lets the dub replace it.
    pub duck_db: Option<f64>,
    /// What becomes of dubs of another length.
    pub dub_fit: DubFitMode,
    /// Fastest speech against the dub's own speed.
    pub dub_max_speed: f64,
    /// How far speech may run on into the next segment.
    pub dub_spill: Duration,
    /// Whether dubs much louder or quieter than the original are changed.
    pub dub_loudness: DubLoudness,
    /// How long pictures wait for sound that is missing; also the offset of output timestamps.
    pub av_offset: Duration,
    /// A/V delta that counts as out of sync.
    pub av_sync_threshold: Duration,
    /// Jitter buffer of the RTSP source.
    pub rtsp_latency: Duration,
    /// Listen address of the metrics server.
    pub metrics_addr: SocketAddr,
}

impl Config {
    /// The rules by which dubs are fitted, at `rate` samples per second.
    pub fn fit_rules(&self, rate: u32) -> DubFitConfig {
        DubFitConfig {
            mode: self.dub_fit,
            max_speed: self.dub_max_speed,
            spill: self.dub_spill,
            rate,
        }
    }
}

/// Where segment files go.
#[derive(Debug, Clone)]
pub struct SegmentRoot {
    /// The directory; each stream has one of its own in it.
    pub dir: PathBuf,
    /// The default, in a directory that everybody may write to: it must be this user's alone.
    pub private: bool,
}

/// What concerns the STS service.
#[derive(Debug, Clone)]
pub struct StsConfig {
    /// `false` is passthrough: no STS at all.
    pub enabled: bool,
    /// Where the service is.
    pub url: MediaUrl,
    /// Token of the `auth` payload.
    pub token: Option<Token>,
    /// Language spoken in the input.
    pub source_language: String,
    /// Language of the dub.
    pub target_language: String,
    /// Voice of the dub.
    pub voice_profile: String,
    /// How long a fragment may stay unanswered.
    pub timeout: Duration,
    /// How many fragments may be unanswered at once.
    pub max_inflight: u32,
    /// What follows when the service stays away through all retries.
    pub gone: Gone,
    /// Longest silence of the service that is put up with.
    pub max_silence: Duration,
    /// Certificates trusted besides the system's.
    pub ca: Ca,
    /// Consecutive failures that open the breaker.
    pub breaker_failures: u32,
    /// How long the breaker stays open.
    pub breaker_cooldown: Duration,
}

/// A secret whose `Debug` says nothing.
#[derive(Clone)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl From<&Cli> for Config {
    fn from(cli: &Cli) -> Self {
        let id = &cli.stream_id;
        let default_root = || {
            let name = format!("worker-segments-{}", nix::unistd::getuid());
            std::env::temp_dir().join(name)
        };
        let segment_root = SegmentRoot {
            private: cli.segment_dir.is_none(),
            dir: cli.segment_dir.clone().unwrap_or_else(default_root),
        };
        Self {
            stream_id: id.clone(),
            worker_id: cli
                .worker_id
                .clone()
                .unwrap_or_else(|| format!("worker-{}", std::process::id())),
            input_url: MediaUrl::new(
                cli.input_url
                    .clone()
                    .unwrap_or_else(|| format!("rtsp://localhost:8554/live/{id}/in")),
            ),
            output_url: MediaUrl::output(
                cli.output_url
                    .clone()
                    .unwrap_or_else(|| format!("rtmp://localhost:1935/live/{id}/out")),
            ),
            output_retry: cli.output_retry,
            sts: StsConfig {
                enabled: cli.sts_mode == StsMode::Enabled,
                url: MediaUrl::new(cli.sts_service_url.clone()),
                token: cli.sts_token.clone().map(Token),
                source_language: cli.source_lang.clone(),
                target_language: cli.target_lang.clone(),
                voice_profile: cli.tts_voice.clone(),
                timeout: Duration::from_millis(u64::from(cli.sts_timeout_ms)),
                max_inflight: cli.sts_max_inflight,
                gone: match cli.sts_gone {
                    StsGone::Exit => Gone::Exit,
                    StsGone::Original => Gone::Original,
                },
                max_silence: cli.sts_max_silence,
                ca: cli.sts_ca.clone().unwrap_or_default(),
                breaker_failures: cli.breaker_failures,
                breaker_cooldown: cli.breaker_cooldown,
            },
            segment_duration: cli.segment_duration,
            segment_cut: match cli.segment_cut {
                cli::CutChoice::Grid => SegmentCut::Grid,
                cli::CutChoice::Pause => SegmentCut::Pause {
                    min: cli.segment_min,
                    max: cli.segment_max,
                },
            },
            segment_root: (!cli.segment_retention.is_zero()).then_some(segment_root),
            captions_dir: cli.captions.clone(),
            segment_retention: cli.segment_retention,
            dub_fit: match cli.dub_fit {
                FitChoice::Refuse => DubFitMode::Refuse,
                FitChoice::Stretch => DubFitMode::Stretch,
            },
            dub_max_speed: cli.dub_max_speed,
            dub_spill: cli.dub_spill,
            dub_loudness: match cli.dub_loudness {
                cli::LoudnessChoice::Match => DubLoudness::Match,
                cli::LoudnessChoice::Keep => DubLoudness::Keep,
            },
            duck_db: (cli.dub_mix == DubMix::Duck).then_some(cli.dub_duck_db),
            av_offset: cli.av_offset,
            av_sync_threshold: Duration::from_millis(u64::from(cli.av_sync_threshold_ms)),
            rtsp_latency: Duration::from_millis(u64::from(cli.rtsp_latency_ms)),
            metrics_addr: cli.metrics_addr,
        }
    }
}

impl Config {
    /// `shown` completed by the defaults that depend on other options.
    pub fn shown(&self, mut shown: BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut set = |name: &str, value: String| drop(shown.insert(name.to_owned(), value));
        set("worker-id", self.worker_id.clone());
        set("input-url", self.input_url.to_string());
        set("output-url", self.output_url.to_string());
        set("sts-service-url", self.sts.url.to_string());
        if let Some(root) = &self.segment_root {
            set("segment-dir", root.dir.display().to_string());
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[test]
    fn urls_default_to_the_stream_id() {
        let config =
            Config::from(&Cli::try_parse_from(["worker", "--stream-id", "match7"]).unwrap());
        assert_eq!(
            config.input_url.secret(),
            "rtsp://localhost:8554/live/match7/in"
        );
        assert_eq!(
            config.output_url.secret(),
            "rtmp://localhost:1935/live/match7/out"
        );
    }

    /// Each option changes its own field, to its own value, and nothing else.
    #[test]
    fn every_option_arrives() {
        let told = |args: &[&str]| {
            let args = ["worker", "--worker-id=w"].iter().chain(args);
            let config = Config::from(&Cli::try_parse_from(args).unwrap());
            let text = format!("{config:#?}");
            text.lines()
                .map(|line| line.trim().to_owned())
                .collect::<Vec<_>>()
        };
        let plain = told(&[]);
        for (arg, field) in [
            ("--input-url=rtsp://cam/x", "input_url: rtsp://cam/x,"),
            (
                "--output-url=rtmp://cdn/a/k",
                "output_url: rtmp://cdn/a/***,",
            ),
            ("--output-retry=17s", "output_retry: 17s,"),
            ("--sts-service-url=http://h:1/", "url: http://h:1/,"),
            ("--source-lang=de", "source_language: \"de\","),
            ("--target-lang=de", "target_language: \"de\","),
            ("--tts-voice=anna", "voice_profile: \"anna\","),
            ("--sts-mode=passthrough", "enabled: false,"),
            ("--sts-timeout-ms=7001", "timeout: 7.001s,"),
            ("--sts-max-inflight=5", "max_inflight: 5,"),
            ("--sts-gone=original", "gone: Original,"),
            ("--sts-max-silence=77s", "max_silence: 77s,"),
            ("--breaker-failures=7", "breaker_failures: 7,"),
            ("--breaker-cooldown=11s", "breaker_cooldown: 11s,"),
            ("--segment-duration=4s", "segment_duration: 4s,"),
            ("--segment-retention=13m", "segment_retention: 780s,"),
            ("--dub-fit=stretch", "dub_fit: Stretch,"),
            ("--dub-max-speed=1.25", "dub_max_speed: 1.25,"),
            ("--dub-spill=300ms", "dub_spill: 300ms,"),
            ("--dub-loudness=keep", "dub_loudness: Keep,"),
            ("--av-offset=3s", "av_offset: 3s,"),
            ("--av-sync-threshold-ms=99", "av_sync_threshold: 99ms,"),
            ("--rtsp-latency-ms=333", "rtsp_latency: 333ms,"),
            ("--metrics-addr=127.0.0.1:9", "metrics_addr: 127.0.0.1:9,"),
        ] {
            let changed = told(&[arg]);
            assert_eq!(changed.len(), plain.len(), "{arg}");
            let different = changed.iter().zip(&plain).filter(|(a, b)| a != b);
            let different: Vec<_> = different.map(|(line, _)| line.as_str()).collect();
            assert_eq!(different, [field], "{arg}");
        }
        let dir = told(&["--segment-dir=/media"]);
        for line in ["dir: \"/media\",", "private: false,"] {
            assert!(dir.iter().any(|it| it == line) && !plain.iter().any(|it| it == line));
        }
        assert!(
            told(&["--captions=/subs"])
                .iter()
                .any(|line| line == "\"/subs\",")
        );
        let pause = [
            "--segment-cut=pause",
            "--segment-min=2s",
            "--segment-max=9s",
        ];
        for line in ["segment_cut: Pause {", "min: 2s,", "max: 9s,"] {
            assert!(told(&pause).iter().any(|it| it == line), "{line}");
        }
        assert!(
            told(&["--sts-token=x"])
                .iter()
                .any(|line| line == "[redacted],")
        );
    }

    #[test]
    fn the_original_is_replaced_unless_ducking_is_asked_for() {
        let level = |args: &[&str]| {
            let args = std::iter::once("worker").chain(args.iter().copied());
            Config::from(&Cli::try_parse_from(args).unwrap()).duck_db
        };
        assert_eq!(level(&[]), None);
        assert_eq!(level(&["--dub-duck-db", "-20"]), None);
        assert_eq!(level(&["--dub-mix", "duck"]), Some(-15.0));
        let asked = ["--dub-mix", "duck", "--dub-duck-db", "-12.5"];
        assert_eq!(level(&asked), Some(-12.5));
    }

    #[test]
    fn credentials_are_never_shown() {
        let args = [
            "worker",
            "--output-url",
            "rtmp://user:pass@host/live/key?token=abc",
        ];
        let config = Config::from(&Cli::try_parse_from(args).unwrap());
        let debug = format!("{config:?}");
        assert!(debug.contains("rtmp://***@host/live/***?***"), "{debug}");
        assert_eq!(format!("{:?}", Token("abc".into())), "[redacted]");
    }
}
