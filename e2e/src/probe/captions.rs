//! Captions as a player that is not ours reads them: ffmpeg parses the WebVTT.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// What is shown from a second to a second.
#[derive(Clone, Debug, PartialEq)]
pub struct Cue {
    /// When it appears.
    pub start: f64,
    /// When it goes.
    pub end: f64,
    /// The words.
    pub text: String,
}

/// Every cue of a WebVTT file, in the file's order.
pub fn read(path: &Path) -> Result<Vec<Cue>> {
    let text = e2e_ffmpeg::subtitles(path).run()?;
    parse(&String::from_utf8(text)?)
}

/// Cues as SubRip has them: number, times, lines, and an empty line.
fn parse(text: &str) -> Result<Vec<Cue>> {
    let blocks = text.replace('\r', "");
    let blocks = blocks
        .split("\n\n")
        .filter(|block| !block.trim().is_empty());
    let cue = |block: &str| {
        let mut lines = block.trim_start_matches('\n').lines().skip(1);
        let times = lines.next().context("a cue without times")?;
        let (start, end) = times.split_once(" --> ").context("a cue without an end")?;
        let (start, end) = (seconds(start)?, seconds(end)?);
        ensure!(start < end, "a cue that ends before it starts: {times}");
        let text = lines.collect::<Vec<_>>().join("\n");
        Ok(Cue { start, end, text })
    };
    blocks.map(cue).collect()
}

/// `hours:minutes:seconds,thousandths`
fn seconds(text: &str) -> Result<f64> {
    let text = text.trim().replace(',', ".");
    text.split(':')
        .try_fold(0.0, |sum, part| Ok(sum * 60.0 + part.parse::<f64>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ffmpeg_reads_what_the_worker_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("news.vtt");
        let vtt = "WEBVTT\n\n00:00:12.000 --> 00:00:13.500\nSegundo 12.\n\n01:00:13.500 --> 01:00:14.000\na &lt;b&gt; &amp; c\n\n";
        std::fs::write(&path, vtt).unwrap();
        let cues = read(&path).unwrap();
        assert_eq!(cues.len(), 2, "{cues:?}");
        assert_eq!((cues[0].start, cues[0].end), (12.0, 13.5));
        assert_eq!(cues[0].text, "Segundo 12.");
        assert_eq!(cues[1].start, 3_613.5);
        assert!(cues[1].text.contains("& c"), "{cues:?}");
        std::fs::write(&path, "no captions").unwrap();
        assert!(read(&path).unwrap_or_default().is_empty());
    }
}
