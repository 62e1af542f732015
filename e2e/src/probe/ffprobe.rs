//! What ffprobe says about a file or a stream, typed. Works with ffprobe 5 to 8.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use e2e_ffmpeg::Detail;
use serde::{Deserialize, Deserializer, Serialize};

/// How often a running ffprobe is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Streams and container of a file.
#[derive(Debug, Clone, Deserialize)]
pub struct Probe {
    /// Streams in the order of the file.
    #[serde(default)]
    pub streams: Vec<Stream>,
    /// The container.
    pub format: Format,
    /// What ffprobe complained about while reading; empty for a clean file.
    #[serde(skip)]
    pub complaints: Vec<String>,
}

/// One stream. What ffprobe does not know is `None`.
#[derive(Debug, Clone, Deserialize)]
pub struct Stream {
    /// Its number in the file.
    pub index: usize,
    /// `video`, `audio`, …
    #[serde(default)]
    pub codec_type: String,
    /// Short name of the codec, such as `h264`.
    pub codec_name: Option<String>,
    /// Profile of the codec, such as `High` or `LC`.
    pub profile: Option<String>,
    /// Width in pixels.
    pub width: Option<u32>,
    /// Height in pixels.
    pub height: Option<u32>,
    /// Layout of pixels, such as `yuv420p`.
    pub pix_fmt: Option<String>,
    /// Frames per second as a fraction, averaged over what was read.
    pub avg_frame_rate: Option<String>,
    /// Lowest frame rate that can represent all timestamps, as a fraction.
    pub r_frame_rate: Option<String>,
    /// Samples per second.
    #[serde(default, deserialize_with = "number")]
    pub sample_rate: Option<u32>,
    /// Audio channels.
    pub channels: Option<u32>,
    /// First presentation time, seconds.
    #[serde(default, deserialize_with = "number")]
    pub start_time: Option<f64>,
    /// Length, seconds.
    #[serde(default, deserialize_with = "number")]
    pub duration: Option<f64>,
}

/// The container of a file.
#[derive(Debug, Clone, Deserialize)]
pub struct Format {
    /// Names of the container format, such as `flv`.
    pub format_name: String,
    /// First presentation time, seconds.
    #[serde(default, deserialize_with = "number")]
    pub start_time: Option<f64>,
    /// Length, seconds.
    #[serde(default, deserialize_with = "number")]
    pub duration: Option<f64>,
    /// Size in bytes.
    #[serde(default, deserialize_with = "number")]
    pub size: Option<u64>,
}

/// One packet of a stream as it stands in the file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Packet {
    /// Number of its stream.
    pub stream_index: usize,
    /// Where it begins in the file.
    #[serde(default, deserialize_with = "number")]
    pub pos: Option<usize>,
    /// Presentation time, seconds.
    #[serde(default, deserialize_with = "number")]
    pub pts_time: Option<f64>,
    /// Decoding time, seconds.
    #[serde(default, deserialize_with = "number")]
    pub dts_time: Option<f64>,
    /// Length, seconds.
    #[serde(default, deserialize_with = "number")]
    pub duration_time: Option<f64>,
    /// Bytes.
    #[serde(default, deserialize_with = "number")]
    pub size: Option<usize>,
    /// `K` keyframe, `D` to be discarded after decoding.
    #[serde(default)]
    pub flags: String,
    /// SHA-256 of the data, hexadecimal, with the name of the hash in front.
    pub data_hash: Option<String>,
}

impl Packet {
    /// Decoding can start here.
    pub fn is_key(&self) -> bool {
        self.flags.starts_with('K')
    }

    /// Not presented: encoder priming or what an edit list cuts off.
    pub fn is_discarded(&self) -> bool {
        self.flags.contains('D')
    }
}

/// ffprobe writes most numbers as strings, and `N/A` where there is none.
fn number<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        Number(serde_json::Number),
    }
    let written = Option::<Written>::deserialize(deserializer)?;
    Ok(match written {
        Some(Written::Text(text)) => text.parse().ok(),
        Some(Written::Number(value)) => value.to_string().parse().ok(),
        None => None,
    })
}

/// Streams and container of a file or URL.
///
/// # Errors
/// When ffprobe is missing, does not finish within `patience`, or cannot read the input.
pub fn probe(input: impl AsRef<OsStr>, patience: Duration) -> Result<Probe> {
    let (json, complaints) = run(input.as_ref(), Detail::Streams, patience)?;
    let mut probe: Probe = parse(&json, input.as_ref())?;
    probe.complaints = complaints;
    Ok(probe)
}

/// All packets of the streams that `select` names (`v`, `a`, `v:0`; empty: all), in file order.
///
/// # Errors
/// As [`probe`].
pub fn packets(input: impl AsRef<OsStr>, select: &str, patience: Duration) -> Result<Vec<Packet>> {
    #[derive(Deserialize)]
    struct Packets {
        packets: Vec<Packet>,
    }
    let (json, _) = run(input.as_ref(), Detail::Packets(select), patience)?;
    parse::<Packets>(&json, input.as_ref()).map(|parsed| parsed.packets)
}

fn parse<T: for<'a> Deserialize<'a>>(json: &[u8], input: &OsStr) -> Result<T> {
    serde_json::from_slice(json).with_context(|| {
        format!(
            "ffprobe's answer about {} is not understood",
            input.display()
        )
    })
}

/// Runs ffprobe on an input; gives its JSON and its complaints.
fn run(input: &OsStr, detail: Detail<'_>, patience: Duration) -> Result<(Vec<u8>, Vec<String>)> {
    let call = e2e_ffmpeg::probe(input, detail);
    let mut child = call.started(call.command().spawn())?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let deadline = Instant::now() + patience;
    let status = loop {
        if let Some(status) = child.try_wait().context("cannot wait for ffprobe")? {
            break Some(status);
        }
        if Instant::now() >= deadline {
            child.kill().context("cannot stop ffprobe")?;
            child.wait().context("cannot collect ffprobe")?;
            break None;
        }
        std::thread::sleep(LOOK);
    };
    let stdout = stdout.join().unwrap_or_default();
    let stderr = String::from_utf8_lossy(&stderr.join().unwrap_or_default()).into_owned();
    let complaints: Vec<_> = stderr
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect();
    match status {
        Some(status) if status.success() => Ok((stdout, complaints)),
        Some(_) => bail!(
            "ffprobe cannot read {}: {}",
            input.display(),
            complaints.last().map_or("no reason given", String::as_str)
        ),
        None => bail!(
            "ffprobe did not finish reading {} within {:.1} s{}",
            input.display(),
            patience.as_secs_f64(),
            complaints
                .last()
                .map(|last| format!(" ({last})"))
                .unwrap_or_default()
        ),
    }
}

fn drain(stream: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What could be read before an error is still worth parsing or showing.
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    })
}

impl Probe {
    /// The first stream of a type (`video`, `audio`).
    pub fn stream(&self, codec_type: &str) -> Option<&Stream> {
        self.streams
            .iter()
            .find(|stream| stream.codec_type == codec_type)
    }

    /// What is the same on every run and with every ffprobe: codecs and their parameters, no times,
    /// sizes or bit rates. For snapshots.
    pub fn summary(&self) -> BTreeMap<String, StreamSummary> {
        let mut summary = BTreeMap::new();
        for stream in &self.streams {
            let count = summary
                .keys()
                .filter(|name: &&String| name.starts_with(&stream.codec_type))
                .count();
            let name = if count == 0 {
                stream.codec_type.clone()
            } else {
                format!("{} {}", stream.codec_type, count + 1)
            };
            summary.insert(name, stream.summary());
        }
        summary
    }
}

/// Parameters of a stream that do not change from run to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreamSummary {
    pub codec: String,
    /// Profile of the codec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Width and height.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// Layout of pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pix_fmt: Option<String>,
    /// Frames per second, to the nearest hundredth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fps: Option<String>,
    /// Samples per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_rate: Option<u32>,
    /// Audio channels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<u32>,
}

impl Stream {
    /// Frames per second: the average, or the base rate where there is no average.
    pub fn fps(&self) -> Option<f64> {
        let read = |fraction: &Option<String>| {
            let (over, under) = fraction.as_ref()?.split_once('/')?;
            let rate = over.parse::<f64>().ok()? / under.parse::<f64>().ok()?;
            (rate.is_finite() && rate > 0.0).then_some(rate)
        };
        read(&self.avg_frame_rate).or_else(|| read(&self.r_frame_rate))
    }

    fn summary(&self) -> StreamSummary {
        let video = self.codec_type == "video";
        StreamSummary {
            codec: self.codec_name.clone().unwrap_or_else(|| "unknown".into()),
            profile: self.profile.clone(),
            size: self
                .width
                .zip(self.height)
                .map(|(width, height)| format!("{width}x{height}")),
            pix_fmt: self.pix_fmt.clone(),
            fps: self.fps().filter(|_| video).map(|fps| format!("{fps:.2}")),
            sample_rate: self.sample_rate,
            channels: self.channels,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testclip;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn summaries_hold_what_never_changes() {
        for recipe in [testclip::PLAIN, testclip::FLV] {
            let probe = probe(testclip::path(recipe), PATIENCE).unwrap();
            assert_eq!(probe.complaints, [""; 0]);
            let summary = probe.summary();
            let video = &summary["video"];
            assert_eq!(
                (video.codec.as_str(), video.size.as_deref()),
                ("h264", Some("320x180"))
            );
            assert_eq!(video.fps.as_deref(), Some("30.00"));
            let audio = &summary["audio"];
            assert_eq!(
                (audio.profile.as_deref(), audio.sample_rate, audio.channels),
                (Some("LC"), Some(48_000), Some(2))
            );
        }
    }

    #[test]
    fn packets_have_times_flags_and_hashes() {
        let packets = packets(testclip::path(testclip::PLAIN), "v", PATIENCE).unwrap();
        assert_eq!(packets.len(), 90);
        assert!(packets[0].is_key() && !packets[1].is_key());
        assert!(packets.iter().all(|packet| {
            packet
                .data_hash
                .as_ref()
                .is_some_and(|hash| hash.len() == 64 + 7)
        }));
    }

    #[test]
    fn unreadable_input_is_one_clear_sentence() {
        let error = probe("/nowhere/x.mp4", PATIENCE).unwrap_err().to_string();
        assert!(
            error.starts_with("ffprobe cannot read /nowhere/x.mp4: "),
            "{error}"
        );
    }

    #[test]
    fn a_source_that_says_nothing_ends_at_the_deadline() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("rtsp://{}/x", silent.local_addr().unwrap());
        let started = Instant::now();
        let error = probe(&url, Duration::from_millis(300))
            .unwrap_err()
            .to_string();
        assert!(error.contains("did not finish"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}
