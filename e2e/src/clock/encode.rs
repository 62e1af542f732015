//! Raw frames and samples into ffmpeg, a clip out of it.

use super::ClipSpec;
use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
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

        let mut child = Command::new("ffmpeg")
            .args(arguments(spec, sound.path()))
            .arg(out)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("could not start ffmpeg (is it installed?)")?;
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

fn arguments(spec: &ClipSpec, sound: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut add = |text: &str| all.extend(text.split_whitespace().map(str::to_owned));
    add("-hide_banner -v error -y");
    if spec.video {
        let (width, height, fps) = (spec.width, spec.height(), spec.fps);
        add(&format!(
            "-f rawvideo -pix_fmt yuv420p -s {width}x{height} -r {fps} -i pipe:0"
        ));
    }
    if let Some(audio) = &spec.audio {
        add(&format!(
            "-f f32le -ar {} -ac {} -i",
            audio.rate, audio.channels
        ));
        all.push(sound.display().to_string());
    }
    let mut add = |text: &str| all.extend(text.split_whitespace().map(str::to_owned));
    if spec.video {
        let ClipSpec {
            gop,
            bframes,
            crf,
            preset,
            ..
        } = spec;
        add("-map 0:v -vf");
        add("setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709");
        add(&format!("-c:v libx264 -preset {preset} -crf {crf}"));
        add(&format!("-g {gop} -keyint_min {gop} -bf {bframes}"));
        add("-sc_threshold 0 -threads 1 -profile:v high -pix_fmt yuv420p -x264-params");
        add("open-gop=0:range=tv:colorprim=bt709:transfer=bt709:colormatrix=bt709");
    }
    if let Some(audio) = &spec.audio {
        add(&format!("-map {}:a", usize::from(spec.video)));
        // No noise substitution: a decoder would fill it with dice of its own,
        // and sound that is random cannot be compared. No noise shaping in
        // time: ffmpeg's adds bursts of up to -30 dB at some beeps, which are
        // heard, and found, as clicks.
        add(&format!("-c:a aac -b:a {}k -aac_coder twoloop", audio.kbps));
        add("-aac_pns 0 -aac_tns 0");
        // Edit lists count in movie time: in samples they are exact.
        add(&format!("-movie_timescale {}", audio.rate));
    }
    add("-map_metadata -1 -fflags +bitexact -flags:v +bitexact -flags:a +bitexact");
    add("-movflags +faststart");
    all
}
