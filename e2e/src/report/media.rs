//! The recording on the page: a copy that browsers play, and a strip of pictures, one per segment.

use std::path::{Path, PathBuf};

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;

use super::rows::Row;

/// Name of the copy.
const PLAYABLE: &str = "output.mp4";
/// Size of a picture on the strip; the clip is 16:9.
const WIDTH: u32 = 128;
const HEIGHT: u32 = 72;
/// More pictures than this are a film.
const MOST: u32 = 40;
/// Bytes of captions; a minute has three thousand.
const MOST_CAPTIONS: usize = 1 << 20;

/// Pictures side by side in one image.
#[derive(Debug, Serialize)]
pub(super) struct Strip {
    uri: String,
    count: u32,
    /// Seconds from one to the next.
    every: f64,
    width: u32,
    height: u32,
}

/// What the media server recorded of the output in this directory.
pub(super) fn recording(directory: &Path) -> Option<PathBuf> {
    let recordings =
        ["flv", "ts", "mp4", "mkv"].map(|kind| directory.join(format!("output.{kind}")));
    recordings.into_iter().find(|path| path.is_file())
}

/// Captions that lie in this directory, as a page carries them: a page from a disk may load no file.
pub(super) fn captions(directory: &Path) -> Option<String> {
    let entries = std::fs::read_dir(directory).ok()?.filter_map(Result::ok);
    let path = entries
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|kind| kind == "vtt"))?;
    let text = std::fs::read(path).ok()?;
    let fits = text.len() <= MOST_CAPTIONS;
    fits.then(|| format!("data:text/vtt;base64,{}", STANDARD.encode(text)))
}

/// Puts a recording into a container that browsers play; what is coded stays as it is.
pub(super) fn playable(recording: &Path) -> Result<String> {
    let copy = recording.with_file_name(PLAYABLE);
    if copy != recording {
        e2e_ffmpeg::copy(recording, &copy).run()?;
    }
    Ok(PLAYABLE.to_owned())
}

/// A picture for each segment, or for several if there are many: keyframes, which is quick.
pub(super) fn strip(recording: &Path, rows: &[Row]) -> Result<Option<Strip>> {
    let lengths: Vec<f64> = rows
        .iter()
        .filter_map(|row| row.batch.and(row.duration_ms))
        .collect();
    let (segments, total) = (lengths.len() as u32, lengths.iter().sum::<f64>() / 1e3);
    if segments == 0 || total < 0.1 {
        return Ok(None);
    }
    let count = segments.min(MOST);
    let every = total / f64::from(count);
    let image = e2e_ffmpeg::film_strip(recording, every, count, (WIDTH, HEIGHT)).run()?;
    Ok(Some(Strip {
        uri: format!("data:image/jpeg;base64,{}", STANDARD.encode(image)),
        count,
        every,
        width: WIDTH,
        height: HEIGHT,
    }))
}
