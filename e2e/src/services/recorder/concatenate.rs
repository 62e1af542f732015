//! Several recordings of one stream as one.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::media::clip::{Clip, Sample};

/// Puts recordings of one stream (the output was published anew) one after the other into one file,
/// without re-encoding; pauses between them are left out. The container follows from the name of `to`.
///
/// # Errors
/// When there is nothing to put together, a recording cannot be read, or ffmpeg fails.
pub fn concatenate(recordings: &[PathBuf], to: &Path) -> Result<()> {
    if recordings.is_empty() {
        bail!("there are no recordings to put together");
    }
    let directory = tempfile::tempdir().context("cannot create a temporary directory")?;
    let list = directory.path().join("list.ffconcat");
    let mut text = String::from("ffconcat version 1.0\n");
    for recording in recordings {
        let path = std::path::absolute(recording)?
            .display()
            .to_string()
            .replace('\'', "'\\''");
        // FLV does not say how long it is: without this the seam would be a frame short.
        let _ = write!(
            text,
            "file 'file:{path}'\nduration {:.6}\n",
            length(recording)?
        );
    }
    std::fs::write(&list, text).context("cannot write the list of recordings")?;
    e2e_ffmpeg::concatenate(&list, to)
        .run()
        .context("cannot put the recordings together")?;
    Ok(())
}

/// Length of a recording in seconds: of its video, so that the next picture comes when it is due, or
/// of its audio where there is no video.
fn length(recording: &Path) -> Result<f64> {
    let clip = Clip::open(recording)?;
    let video = clip
        .video
        .iter()
        .map(|track| span(&track.samples, track.timescale));
    let audio = clip
        .audio
        .iter()
        .map(|track| span(&track.samples, track.timescale));
    video.chain(audio).next().context("the recording is empty")
}

fn span(samples: &[Sample], timescale: u32) -> f64 {
    let begin = samples.iter().map(|sample| sample.pts).min().unwrap_or(0);
    let end = samples
        .iter()
        .map(|sample| sample.pts + i64::from(sample.duration))
        .max()
        .unwrap_or(0);
    (end - begin) as f64 / f64::from(timescale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::testclip;
    use crate::probe::frames::{CodedFrame, CodedFrames, compare};

    #[test]
    fn recordings_are_put_together_frame_by_frame() {
        let directory = tempfile::tempdir().unwrap();
        let whole = directory.path().join("both.flv");
        let piece = testclip::path(testclip::FLV);
        concatenate(&[piece.clone(), piece.clone()], &whole).unwrap();
        let once = CodedFrames::video(&piece).unwrap();
        let mut twice = once.clone();
        twice.0.extend(once.0.iter().map(|frame| CodedFrame {
            pts_ms: frame.pts_ms + 3000.0,
            ..*frame
        }));
        let comparison = compare(&twice, &CodedFrames::video(&whole).unwrap());
        assert!(comparison.is_exact(), "{comparison}");
        assert!(concatenate(&[], &whole).is_err());
    }
}
