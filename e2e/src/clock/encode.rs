//! Raw frames and samples into ffmpeg, a clip out of it.

use super::ClipSpec;
use anyhow::{Context, Result, bail};
use e2e_ffmpeg::Call;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Child;
use std::thread::JoinHandle;

/// Samples in one AAC-LC frame.
pub(super) const AAC_FRAME: usize = 1024;

/// A running ffmpeg that takes raw frames on its standard input.
#[derive(Debug)]
pub(super) struct Encoder {
    child: Child,
    complaints: JoinHandle<String>,
    /// The sound, complete before ffmpeg starts; removed when this goes.
    _sound: tempfile::NamedTempFile,
}

impl Encoder {
    /// Starts ffmpeg with all of the sound and, if the clip has a picture,
    /// waits for its frames.
    pub(super) fn start(spec: &ClipSpec, samples: &[f32], out: &Path) -> Result<Self> {
        let mut sound = tempfile::NamedTempFile::new().context("no room for raw sound")?;
        let raw: Vec<u8> = samples
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        sound.write_all(&raw).context("no room for raw sound")?;
        sound.flush()?;

        let mut child = call(spec, sound.path(), out).listen()?;
        let stderr = child.stderr.take();
        let complaints = std::thread::spawn(move || {
            let mut text = String::new();
            if let Some(mut stderr) = stderr {
                // What cannot be read cannot be shown; the exit status stands.
                let _ = stderr.read_to_string(&mut text);
            }
            text
        });
        Ok(Self {
            child,
            complaints,
            _sound: sound,
        })
    }

    /// One raw frame. False when ffmpeg has gone: `finish` then says why.
    pub(super) fn write(&mut self, raw: &[u8]) -> bool {
        match &mut self.child.stdin {
            Some(stdin) => stdin.write_all(raw).is_ok(),
            None => false,
        }
    }

    /// Waits for the clip to be complete.
    pub(super) fn finish(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait().context("could not wait for ffmpeg")?;
        let complaints = self.complaints.join().unwrap_or_default();
        if !status.success() {
            bail!("ffmpeg ended with {status}: {}", complaints.trim());
        }
        Ok(())
    }
}

fn call(spec: &ClipSpec, sound: &Path, out: &Path) -> Call {
    let picture = e2e_ffmpeg::Picture {
        width: spec.width,
        height: spec.height(),
        fps: spec.fps,
        gop: spec.gop,
        bframes: spec.bframes,
        crf: spec.crf,
        preset: spec.preset,
    };
    let sound = spec.audio.as_ref().map(|audio| e2e_ffmpeg::RawSound {
        file: sound,
        rate: audio.rate,
        channels: audio.channels,
        kbps: audio.kbps,
    });
    e2e_ffmpeg::clip(spec.video.then_some(&picture), sound.as_ref(), out)
}
