//! Clips whose sound was taken by a clock that runs too fast or too slow.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::options::Drift;
use crate::media::clip::{AudioFormat, Clip};

/// Writes a copy of a clip whose audio holds as many samples as a clock off by `drift` would have
/// counted: half a percent more for `0.5%`. The video is copied.
///
/// `--audio-drift` alone changes the clock and leaves the sound: what is heard moves against what is
/// seen. Published with the same `--audio-drift`, this copy is what a real drifting source sends:
/// every sound happens, by the sender reports, together with its picture, and only a receiver that
/// does not follow the reports loses lip sync.
///
/// # Errors
/// When the clip has no AAC track or ffmpeg fails.
pub fn record_with_drift(clip: &Path, drift: Drift, to: &Path) -> Result<()> {
    let audio = Clip::open(clip)?.audio.map(|track| track.format);
    let Some(AudioFormat::Aac(config)) = audio else {
        bail!(
            "{} has no AAC track whose clock could drift",
            clip.display()
        );
    };
    let counted = (f64::from(config.rate) * (1.0 + drift.0)).round() as u32;
    e2e_ffmpeg::reclock(clip, counted, config.rate, to)
        .run()
        .context("cannot resample the audio")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::testclip;
    use crate::probe::frames::{CodedFrames, compare};

    #[test]
    fn only_the_number_of_audio_samples_changes() {
        let directory = tempfile::tempdir().unwrap();
        let source = testclip::path(testclip::PLAIN);
        for drift in [Drift(0.05), Drift(-0.05)] {
            let copy = directory.path().join("drifted.mp4");
            record_with_drift(&source, drift, &copy).unwrap();
            let audio = Clip::open(&copy).unwrap().audio.unwrap();
            let expected = 144_000.0 * (1.0 + drift.0);
            assert!(
                (audio.end() as f64 - expected).abs() <= 1024.0,
                "{drift:?}: {}",
                audio.end()
            );
            let video = |path: &Path| CodedFrames::video(path).unwrap();
            compare(&video(&source), &video(&copy))
                .require_exact()
                .unwrap();
        }
    }
}
