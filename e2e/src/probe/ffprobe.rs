//! What ffprobe says about a file, typed. Works with ffprobe 5 to 9.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use e2e_ffmpeg::Detail;
use serde::{Deserialize, Deserializer, Serialize};

/// Streams and container of a file.
#[derive(Debug, Clone, Deserialize)]
pub struct Probe {
    /// Streams in the order of the file.
    #[serde(default)]
    pub streams: Vec<Stream>,
    /// The container.
    pub format: Format,
}

/// One stream. What ffprobe does not know is `None`.
#[derive(Debug, Clone, Deserialize)]
pub struct Stream {
    /// `video`, `audio`, …
    #[serde(default)]
    pub codec_type: String,
    codec_name: Option<String>,
    profile: Option<String>,
    width: Option<u32>,
    height: Option<u32>,
    pix_fmt: Option<String>,
    avg_frame_rate: Option<String>,
    /// Lowest frame rate that can represent all timestamps.
    r_frame_rate: Option<String>,
    #[serde(default, deserialize_with = "number")]
    sample_rate: Option<u32>,
    channels: Option<u32>,
}

/// The container of a file.
#[derive(Debug, Clone, Deserialize)]
pub struct Format {
    /// Length, seconds.
    #[serde(default, deserialize_with = "number")]
    pub duration: Option<f64>,
}

/// One packet of a stream as it stands in the file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Packet {
    /// Where it begins in the file.
    #[serde(default, deserialize_with = "number")]
    pub pos: Option<usize>,
    /// Presentation time, seconds.
    #[serde(default, deserialize_with = "number")]
    pub pts_time: Option<f64>,
    /// Decoding time, seconds.
    #[serde(default, deserialize_with = "number")]
    pub dts_time: Option<f64>,
    /// Bytes.
    #[serde(default, deserialize_with = "number")]
    pub size: Option<usize>,
    #[serde(default)]
    flags: String,
}

impl Packet {
    /// Decoding can start here.
    pub fn is_key(&self) -> bool {
        self.flags.starts_with('K')
    }
}

/// ffprobe writes most numbers as strings, and `N/A` where there is none.
fn number<'de, D: Deserializer<'de>, T: std::str::FromStr>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| text.parse().ok()))
}

/// Streams and container of a file.
pub fn probe(file: &Path) -> Result<Probe> {
    ask(file, Detail::Streams)
}

/// All packets of the streams that `select` names (`v`, `a`, `v:0`), in file order.
pub fn packets(file: &Path, select: &str) -> Result<Vec<Packet>> {
    #[derive(Deserialize)]
    struct Packets {
        packets: Vec<Packet>,
    }
    ask(file, Detail::Packets(select)).map(|answer: Packets| answer.packets)
}

/// ffprobe's answer about a file.
pub(crate) fn ask<T: for<'a> Deserialize<'a>>(file: &Path, detail: Detail<'_>) -> Result<T> {
    let answer = e2e_ffmpeg::probe(file, detail).run();
    let answer = answer.with_context(|| file.display().to_string())?;
    serde_json::from_slice(&answer).with_context(|| {
        format!(
            "ffprobe's answer about {} is not understood",
            file.display()
        )
    })
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

impl Probe {
    /// What is the same on every run and with every ffprobe, by kind of stream: codecs and their
    /// parameters, no times, sizes or bit rates. For snapshots.
    pub fn summary(&self) -> BTreeMap<String, StreamSummary> {
        let mut summary = BTreeMap::new();
        for stream in &self.streams {
            let kind = &stream.codec_type;
            let before = summary
                .keys()
                .filter(|name: &&String| name.starts_with(kind));
            let name = match before.count() {
                0 => kind.clone(),
                before => format!("{kind} {}", before + 1),
            };
            summary.insert(name, stream.summary());
        }
        summary
    }
}

impl Stream {
    /// Frames per second: the average, or the base rate where there is no average.
    fn fps(&self) -> Option<f64> {
        let rates = [&self.avg_frame_rate, &self.r_frame_rate]
            .into_iter()
            .flatten();
        let mut rates = rates.filter_map(|rate| fraction(rate));
        rates.find(|rate| rate.is_finite() && *rate > 0.0)
    }

    fn summary(&self) -> StreamSummary {
        let size = self.width.zip(self.height);
        let fps = self.fps().filter(|_| self.codec_type == "video");
        StreamSummary {
            codec: self.codec_name.clone().unwrap_or_else(|| "unknown".into()),
            profile: self.profile.clone(),
            size: size.map(|(width, height)| format!("{width}x{height}")),
            pix_fmt: self.pix_fmt.clone(),
            fps: fps.map(|fps| format!("{fps:.2}")),
            sample_rate: self.sample_rate,
            channels: self.channels,
        }
    }
}

/// "1/48000" as a number.
pub(crate) fn fraction(text: &str) -> Option<f64> {
    let (above, below) = text.trim().split_once('/')?;
    let (above, below): (f64, f64) = (above.parse().ok()?, below.parse().ok()?);
    (below != 0.0).then_some(above / below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testclip;

    #[test]
    fn summaries_hold_what_never_changes() {
        for recipe in [testclip::PLAIN, testclip::FLV] {
            let probe = probe(&testclip::path(recipe)).unwrap();
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
            assert!((probe.format.duration.unwrap() - 3.0).abs() < 0.1);
        }
    }

    #[test]
    fn packets_have_times_and_flags() {
        let packets = packets(&testclip::path(testclip::PLAIN), "v").unwrap();
        assert_eq!(packets.len(), 90);
        assert!(packets[0].is_key() && !packets[1].is_key());
        assert!(
            packets
                .iter()
                .all(|packet| packet.pts_time == packet.dts_time)
        );
    }

    #[test]
    fn unreadable_input_is_one_clear_sentence() {
        let error = format!("{:#}", probe(Path::new("/nowhere/x.mp4")).unwrap_err());
        assert!(
            error.starts_with("/nowhere/x.mp4: ffprobe fails: "),
            "{error}"
        );
    }
}
