//! What the publisher can be told, among it every fault an input can have.

use std::str::FromStr;

/// How a clip is published.
///
/// Times are in seconds of the clip unless said otherwise. Faults change time stamps, pace or
/// presence of packets; coded frames are never touched.
#[derive(Debug, Clone, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of its own on the command line"
)]
pub struct Options {
    /// Leave the video track out
    #[arg(long)]
    pub no_video: bool,
    /// Leave the audio track out
    #[arg(long)]
    pub no_audio: bool,
    /// Start the clip again when it ends, on a continuing timeline, until stopped
    #[arg(long = "loop")]
    pub repeat: bool,
    /// End the stream in good order at this second
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub end_at: Option<f64>,
    /// Close the connection at the end without BYE and TEARDOWN
    #[arg(long)]
    pub drop_at_end: bool,
    /// Largest RTP packet in bytes, header included
    #[arg(long, value_name = "BYTES", default_value_t = 1400, value_parser = clap::value_parser!(u16).range(64..))]
    pub max_packet: u16,
    /// AAC frames in one RTP packet (ffmpeg packs about 5)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub aac_per_packet: u8,
    /// Repeat SPS and PPS before every keyframe, not only in the announcement
    #[arg(long)]
    pub inband_parameter_sets: bool,
    /// Seconds between RTCP sender reports of a track; the first follows its first packet
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = positive_seconds)]
    pub sr_interval: f64,
    /// Send no sender reports
    #[arg(long)]
    pub no_sr: bool,
    /// Send no CNAME beside the sender reports, as ffmpeg does
    #[arg(long)]
    pub no_cname: bool,
    /// RTP timestamp of second 0 in both tracks [default: random]
    #[arg(long, value_name = "TICKS")]
    pub rtp_base: Option<u32>,
    /// Seed of everything random [default: random]
    #[arg(long)]
    pub seed: Option<u64>,

    /// Audio clock against video: "0.5%", "-5000ppm". Time stamps keep counting 1024 a frame, while
    /// sending and sender reports follow the faster (or slower) clock
    #[arg(
        long,
        value_name = "RATIO",
        default_value = "0ppm",
        allow_hyphen_values = true,
        help_heading = "Faults"
    )]
    pub audio_drift: Drift,
    /// Move the audio time stamps by this much from --step-at on
    #[arg(
        long,
        value_name = "MS",
        default_value_t = 0,
        allow_hyphen_values = true,
        help_heading = "Faults"
    )]
    pub audio_step_ms: i64,
    /// Move the video time stamps by this much from --step-at on
    #[arg(
        long,
        value_name = "MS",
        default_value_t = 0,
        allow_hyphen_values = true,
        help_heading = "Faults"
    )]
    pub video_step_ms: i64,
    /// When time stamps step
    #[arg(long, value_name = "SECONDS", default_value_t = 20.0, value_parser = seconds, help_heading = "Faults")]
    pub step_at: f64,
    /// What sender reports say after a step
    #[arg(long, value_enum, default_value_t = StepReports::Keep, help_heading = "Faults")]
    pub step_reports: StepReports,
    /// Send no audio for this long; time stamps go on
    #[arg(long, value_name = "MS", default_value_t = 0, help_heading = "Faults")]
    pub audio_gap_ms: u32,
    /// When the audio gap begins
    #[arg(long, value_name = "SECONDS", default_value_t = 20.0, value_parser = seconds, help_heading = "Faults")]
    pub gap_at: f64,
    /// Send audio this much later, stamped right
    #[arg(long, value_name = "MS", default_value_t = 0, help_heading = "Faults")]
    pub audio_delay_ms: u32,
    /// Move the wall time of each audio sender report by a random amount up to this, either way
    #[arg(long, value_name = "MS", default_value_t = 0, help_heading = "Faults")]
    pub sr_wander_ms: u32,
    /// Drop the connection without BYE and TEARDOWN, this many seconds after the first packet
    #[arg(long, value_name = "SECONDS", value_parser = seconds, help_heading = "Faults")]
    pub stop_at: Option<f64>,
}

/// What sender reports say after a time stamp step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum StepReports {
    /// They keep the old relation to wall time: by all the evidence the track really moved
    Keep,
    /// They follow: stamps jump, but the reports say that no wall time was skipped
    Follow,
}

/// How much faster than it says a clock runs: 0.005 is half a percent fast.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Drift(pub f64);

impl FromStr for Drift {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, scale) = match (text.strip_suffix('%'), text.strip_suffix("ppm")) {
            (Some(number), _) => (number, 1e-2),
            (_, Some(number)) => (number, 1e-6),
            _ => (text, 1e-6),
        };
        match number.trim().parse::<f64>() {
            Ok(value) if (value * scale).abs() <= 0.1 => Ok(Self(value * scale)),
            _ => Err("expected a ratio like 0.5% or -5000ppm, at most 10%".into()),
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1e6).contains(&value) => Ok(value),
        _ => Err("expected a number of seconds, 0 or more".into()),
    }
}

fn positive_seconds(text: &str) -> Result<f64, String> {
    seconds(text).and_then(|value| {
        if value >= 0.01 {
            Ok(value)
        } else {
            Err("expected at least 0.01 seconds".into())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_is_read_as_percent_or_parts_per_million() {
        for (text, ratio) in [
            ("0.5%", 0.005),
            ("-5000ppm", -0.005),
            ("200", 0.0002),
            ("0 %", 0.0),
        ] {
            let Drift(read) = text.parse().unwrap();
            assert!((read - ratio).abs() < 1e-12, "{text}: {read}");
        }
        for text in ["", "fast", "20%", "NaN%", "inf"] {
            assert!(text.parse::<Drift>().is_err(), "{text}");
        }
    }
}
