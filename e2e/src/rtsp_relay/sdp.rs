//! What the relay needs of a session description: the tracks, how they are addressed, their clocks.

use anyhow::{Result, bail};

/// Tracks of one announcement; interleaved channels are one byte and come in pairs.
const MOST_TRACKS: usize = 16;

/// One media section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Track {
    /// The `a=control` value of the publisher; empty if it gave none.
    pub control: String,
    /// Encoding name, for example `H264`.
    pub codec: String,
    /// RTP clock rate in Hz, if an `rtpmap` tells.
    pub clock_rate: Option<u32>,
}

/// An announcement, split into tracks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Description {
    pub tracks: Vec<Track>,
    /// The description for readers: the publisher's own, but every track is addressed by
    /// [`control_of`], because a publisher may have used absolute URLs.
    pub text: String,
}

/// How readers address track `index`.
pub(super) fn control_of(index: usize) -> String {
    format!("trackID={index}")
}

impl Description {
    /// Splits an announced description.
    ///
    /// # Errors
    /// When it is not UTF-8 or has no track, or too many.
    pub(super) fn parse(raw: &[u8]) -> Result<Self> {
        let Ok(text) = std::str::from_utf8(raw) else {
            bail!("the description is not text")
        };
        let mut tracks: Vec<Track> = Vec::new();
        let mut out = String::with_capacity(text.len() + 64);
        for line in text
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty())
        {
            if line.starts_with("m=") {
                tracks.push(Track {
                    control: String::new(),
                    codec: String::new(),
                    clock_rate: None,
                });
                push_line(&mut out, line);
                push_line(
                    &mut out,
                    &format!("a=control:{}", control_of(tracks.len() - 1)),
                );
                continue;
            }
            if let Some(control) = line.strip_prefix("a=control:") {
                if let Some(track) = tracks.last_mut() {
                    control.clone_into(&mut track.control);
                }
                continue;
            }
            if let (Some(map), Some(track)) = (line.strip_prefix("a=rtpmap:"), tracks.last_mut()) {
                read_rtpmap(map, track);
            }
            push_line(&mut out, line);
        }
        match tracks.len() {
            0 => bail!("the description has no track"),
            1..=MOST_TRACKS => Ok(Self { tracks, text: out }),
            many => bail!("the description has {many} tracks, at most {MOST_TRACKS} are supported"),
        }
    }

    /// The track that a publisher's SETUP of `url` means, given the URL it announced.
    pub(super) fn published_track(&self, url: &str, announced: &str) -> Option<usize> {
        let rest = url
            .strip_prefix(announced.trim_end_matches('/'))
            .map(|rest| rest.trim_start_matches('/'));
        self.tracks.iter().position(|track| {
            url == track.control
                || rest == Some(track.control.as_str())
                || (self.tracks.len() == 1 && rest == Some(""))
        })
    }
}

/// `96 H264/90000` or `97 mpeg4-generic/48000/2`.
fn read_rtpmap(map: &str, track: &mut Track) {
    let encoding = map.split_whitespace().nth(1).unwrap_or_default();
    let mut parts = encoding.split('/');
    parts
        .next()
        .unwrap_or_default()
        .clone_into(&mut track.codec);
    track.clock_rate = parts
        .next()
        .and_then(|rate| rate.parse().ok())
        .filter(|rate| *rate > 0);
}

fn push_line(out: &mut String, line: &str) {
    out.push_str(line);
    out.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const FFMPEG: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=No Name\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
        a=tool:libavformat\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:streamid=0\r\n\
        m=audio 0 RTP/AVP 97\r\nb=AS:128\r\na=rtpmap:97 MPEG4-GENERIC/48000/2\r\na=control:streamid=1\r\n";

    #[test]
    fn tracks_keep_their_order_codec_and_clock() {
        let description = Description::parse(FFMPEG.as_bytes()).unwrap();
        let facts: Vec<_> = description
            .tracks
            .iter()
            .map(|t| (t.codec.as_str(), t.clock_rate))
            .collect();
        assert_eq!(
            facts,
            [("H264", Some(90_000)), ("MPEG4-GENERIC", Some(48_000))]
        );
    }

    #[test]
    fn readers_get_everything_but_the_publishers_addresses() {
        let description = Description::parse(FFMPEG.as_bytes()).unwrap();
        let kept = |text: &str| {
            let lines = text.lines().filter(|line| !line.starts_with("a=control:"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(kept(&description.text), kept(FFMPEG));
        let controls: Vec<_> = description
            .text
            .lines()
            .filter(|line| line.starts_with("a=control:"))
            .collect();
        assert_eq!(controls, ["a=control:trackID=0", "a=control:trackID=1"]);
    }

    #[test]
    fn a_publishers_setup_is_matched_relative_absolute_or_alone() {
        let description = Description::parse(FFMPEG.as_bytes()).unwrap();
        let base = "rtsp://h:1/live/x/in";
        let track = |url| description.published_track(url, base);
        assert_eq!(track("rtsp://h:1/live/x/in/streamid=1"), Some(1));
        assert_eq!(track("rtsp://h:1/live/x/in/streamid=2"), None);
        assert_eq!(
            track("rtsp://h:1/live/x/in"),
            None,
            "two tracks: which one?"
        );

        let absolute = FFMPEG.replace("streamid=1", "rtsp://h:1/live/x/in/audio");
        let description = Description::parse(absolute.as_bytes()).unwrap();
        assert_eq!(
            description.published_track("rtsp://h:1/live/x/in/audio", base),
            Some(1)
        );

        let alone = FFMPEG
            .split("m=audio")
            .next()
            .unwrap()
            .replace("a=control:streamid=0\r\n", "");
        let description = Description::parse(alone.as_bytes()).unwrap();
        assert_eq!(description.published_track(base, base), Some(0));
    }

    #[test]
    fn what_has_no_track_is_refused() {
        assert!(Description::parse(b"v=0\r\ns=-\r\n").is_err());
        assert!(Description::parse(&[0xff, 0xfe]).is_err());
        let many = format!("v=0\r\n{}", "m=video 0 RTP/AVP 96\r\n".repeat(17));
        assert!(Description::parse(many.as_bytes()).is_err());
    }
}
