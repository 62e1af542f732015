//! Frame numbers and flashes out of any video ffmpeg can decode.

use crate::clock::layout::{BAND_CELLS, BAND_COLUMN, BAND_ROW, CELLS_ACROSS, decode};
use crate::probe::{ffprobe::fraction, field};
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// One picture of a video.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Picture {
    /// When it is shown, in seconds on the file's timeline.
    pub at: f64,
    /// Its number, if it could be read.
    pub number: Option<u32>,
    /// Whether its flash is on. Meaningless without a number.
    pub lit: bool,
}

/// Reads every picture of a file's first video track, in the order shown.
///
/// ffmpeg cuts out the band with the code and averages each cell to one byte,
/// so that only decoding costs anything.
pub fn pictures(media: &Path) -> Result<Vec<Picture>> {
    let cells = CELLS_ACROSS;
    let filter = format!(
        "crop=iw*{BAND_CELLS}/{cells}:iw/{cells}:iw*{BAND_COLUMN}/{cells}:iw*{BAND_ROW}/{cells},\
         format=yuv420p,extractplanes=y,scale={BAND_CELLS}:1:flags=area"
    );
    let call = e2e_ffmpeg::pictures(media, &filter);
    let mut child = call.started(call.command().spawn())?;
    let stderr = child.stderr.take().context("no pipe to ffmpeg")?;
    let notes = std::thread::spawn(move || Notes::read(BufReader::new(stderr)));
    let mut raw = Vec::new();
    let read = child
        .stdout
        .take()
        .context("no pipe to ffmpeg")?
        .read_to_end(&mut raw);
    let status = child.wait().context("could not wait for ffmpeg")?;
    let notes = notes
        .join()
        .map_err(|_| anyhow::anyhow!("reading ffmpeg's log panicked"))?;
    read.context("could not read ffmpeg's pictures")?;
    ensure!(
        status.success(),
        "ffmpeg could not decode the pictures of {}: {}",
        media.display(),
        notes.rest
    );

    let bands = raw.chunks_exact(BAND_CELLS);
    ensure!(
        bands.len() == notes.times.len(),
        "{}: {} pictures decoded, {} announced",
        media.display(),
        bands.len(),
        notes.times.len()
    );
    Ok(bands
        .zip(&notes.times)
        .map(|(band, &at)| {
            let mut luma = [0; BAND_CELLS];
            luma.copy_from_slice(band);
            let reading = decode(&luma);
            Picture {
                at,
                number: reading.number,
                lit: reading.lit,
            }
        })
        .collect())
}

/// What ffmpeg's `showinfo` filter says about every picture, and its last words.
#[derive(Debug, Default)]
struct Notes {
    times: Vec<f64>,
    rest: String,
}

impl Notes {
    fn read(lines: impl BufRead) -> Self {
        let mut notes = Self::default();
        let mut tick = 0.0;
        for line in lines.lines().map_while(Result::ok) {
            if let Some((_, rest)) = line.split_once("config in time_base: ") {
                let base = rest.split(',').next().unwrap_or_default();
                tick = fraction(base).unwrap_or_default();
            } else if line.contains("Parsed_showinfo") {
                let pts = field(&line, " pts:").and_then(|pts| pts.parse::<f64>().ok());
                notes.times.extend(pts.map(|pts| pts * tick));
            } else if line.to_ascii_lowercase().contains("error") || line.contains("nvalid") {
                notes.rest = line;
            }
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_from_the_filters_notes() {
        let log = "\
[Parsed_showinfo_4 @ 0x55] config in time_base: 1/1000, frame_rate: 30/1
[Parsed_showinfo_4 @ 0x55] config out time_base: 0/0, frame_rate: 0/0
[Parsed_showinfo_4 @ 0x55] n:   0 pts:   5033 pts_time:5.033   duration:33 fmt:gray
[Parsed_showinfo_4 @ 0x55] color_range:pc color_space:unknown
[Parsed_showinfo_4 @ 0x55] n:   1 pts:   5067 pts_time:5.067   duration:33 fmt:gray
";
        assert_eq!(Notes::read(log.as_bytes()).times, [5.033, 5.067]);
    }
}
