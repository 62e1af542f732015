//! What a clip is to be, and the clip itself, rendered or taken from the cache.

use super::{music, picture, sound, talk};
use crate::threads::quietly;
use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use std::f64::consts::TAU;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Changes whenever the same [`ClipSpec`] starts to give another clip, so that
/// a stale cache is never used.
const RENDERER: &str = "clock 3";
/// Samples in one AAC-LC frame.
const AAC_FRAME: usize = 1024;

/// What a clip's soundtrack is.
#[derive(Clone, Debug, PartialEq)]
pub enum AudioKind {
    /// A beep at every second, with its pitch, over the tune.
    Clock,
    /// A steady sine of this many hertz at half of full scale.
    Tone(f64),
    /// Somebody who talks and pauses: [`talk`].
    Talk,
}

/// A clip's sound: AAC-LC, whole frames of 1024 samples, primed so that the
/// first sample presented is at time zero.
#[derive(Clone, Debug, PartialEq)]
pub struct AudioSpec {
    /// What is heard.
    pub kind: AudioKind,
    /// Sample rate in hertz.
    pub rate: u32,
    /// 1 or 2.
    pub channels: u16,
    /// Bit rate in kbit/s.
    pub kbps: u32,
}

impl AudioSpec {
    /// 48 kHz stereo at a rate that leaves a tone clean.
    pub fn new(kind: AudioKind) -> Self {
        Self {
            kind,
            rate: 48_000,
            channels: 2,
            kbps: 160,
        }
    }
}

/// A clip to render. Start from [`ClipSpec::clock`] and change what differs.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipSpec {
    /// Picture width in pixels, a multiple of 80; the height follows (16:9).
    pub width: u32,
    /// Frames a second.
    pub fps: u32,
    /// Length in whole seconds.
    pub seconds: u32,
    /// Frames from one keyframe to the next; every GOP is closed.
    pub gop: u32,
    /// B-frames between two others; 0 keeps coding order = display order.
    pub bframes: u32,
    /// Whether there is a picture at all.
    pub video: bool,
    /// The sound, if any.
    pub audio: Option<AudioSpec>,
    /// x264's quality, 0 (best) to 51.
    pub crf: u32,
    /// x264's preset: how much work goes into the same quality.
    pub preset: &'static str,
}

impl ClipSpec {
    /// The usual clip: 1280x720 at 30 fps, a keyframe every second, no
    /// B-frames, AAC-LC 48 kHz stereo with the clock's beeps.
    pub fn clock(seconds: u32) -> Self {
        Self {
            width: 1280,
            fps: 30,
            seconds,
            gop: 30,
            bframes: 0,
            video: true,
            audio: Some(AudioSpec::new(AudioKind::Clock)),
            crf: 24,
            preset: "veryfast",
        }
    }

    /// The same picture with a steady tone instead of the soundtrack.
    pub fn tone(hz: f64, seconds: u32) -> Self {
        let mut audio = AudioSpec::new(AudioKind::Tone(hz));
        audio.kbps = 192;
        Self {
            audio: Some(audio),
            ..Self::clock(seconds)
        }
    }

    /// The same picture with somebody who talks and pauses.
    pub fn talk(seconds: u32) -> Self {
        Self {
            audio: Some(AudioSpec::new(AudioKind::Talk)),
            ..Self::clock(seconds)
        }
    }

    /// The picture without sound.
    pub fn silent(seconds: u32) -> Self {
        Self {
            audio: None,
            ..Self::clock(seconds)
        }
    }

    /// The sound without picture.
    pub fn sound_only(seconds: u32) -> Self {
        Self {
            video: false,
            ..Self::clock(seconds)
        }
    }

    /// The usual clip with this many B-frames in a row.
    #[must_use]
    pub fn with_bframes(mut self, bframes: u32) -> Self {
        self.bframes = bframes;
        self
    }

    /// The usual clip with another sample rate and channel count, if it has sound.
    #[must_use]
    pub fn with_audio(mut self, rate: u32, channels: u16) -> Self {
        if let Some(audio) = &mut self.audio {
            (audio.rate, audio.channels) = (rate, channels);
        }
        self
    }

    /// A quarter of the size, for clips that only programs look at.
    #[must_use]
    pub fn small(mut self) -> Self {
        self.width = 320;
        self.preset = "ultrafast";
        self
    }

    /// Picture height in pixels.
    pub fn height(&self) -> u32 {
        self.width / 16 * 9
    }

    /// Frames in the clip, numbered from 0.
    pub fn frames(&self) -> u32 {
        self.fps * self.seconds
    }

    fn checked(&self) -> Result<()> {
        ensure!(
            self.width.is_multiple_of(80) && self.width > 0,
            "clip width {} is not a multiple of 80",
            self.width
        );
        ensure!(
            self.fps > 0 && self.seconds > 0 && self.gop > 0,
            "empty clip"
        );
        ensure!(self.video || self.audio.is_some(), "a clip of nothing");
        if let Some(audio) = &self.audio {
            ensure!(
                (1..=2).contains(&audio.channels),
                "{} channels: only mono and stereo are rendered",
                audio.channels
            );
        }
        Ok(())
    }
}

/// Renders a clip to a file; the container follows from its extension.
///
/// The same specification gives the same bytes with the same build of ffmpeg.
pub fn render(spec: &ClipSpec, out: &Path) -> Result<()> {
    let numbers: Vec<u32> = (0..spec.frames()).collect();
    render_edited(spec, &numbers, samples(spec), out)
}

/// Renders a clip with faults put in on purpose: the picture shows frames
/// `numbers` one after another, the sound is `samples` (interleaved, of the
/// specification's rate and channels, cut to whole AAC frames).
pub fn render_edited(
    spec: &ClipSpec,
    numbers: &[u32],
    mut samples: Vec<f32>,
    out: &Path,
) -> Result<()> {
    spec.checked()?;
    let channels = spec.audio.as_ref().map_or(1, |audio| audio.channels.into());
    samples.truncate(samples.len() / (AAC_FRAME * channels) * (AAC_FRAME * channels));
    let raw: Vec<u8> = samples
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let mut file = tempfile::NamedTempFile::new().context("no room for raw sound")?;
    file.write_all(&raw).context("no room for raw sound")?;

    let picture = spec.video.then_some(e2e_ffmpeg::Picture {
        drawn: (picture::WIDTH, picture::HEIGHT),
        width: spec.width,
        height: spec.height(),
        fps: spec.fps,
        gop: spec.gop,
        bframes: spec.bframes,
        crf: spec.crf,
        preset: spec.preset,
    });
    let sound = spec.audio.as_ref().map(|audio| e2e_ffmpeg::RawSound {
        file: file.path(),
        rate: audio.rate,
        channels: audio.channels,
        kbps: audio.kbps,
    });
    let shown = numbers.iter().filter(|_| spec.video);
    let frames: Vec<u8> = shown
        .flat_map(|number| picture::frame(*number, spec.fps))
        .collect();
    e2e_ffmpeg::clip(picture.as_ref(), sound.as_ref(), out)
        .feed(&frames)
        .with_context(|| format!("could not render {}", out.display()))?;
    Ok(())
}

/// The sound a specification asks for, interleaved, as it is before encoding.
pub fn samples(spec: &ClipSpec) -> Vec<f32> {
    let Some(audio) = &spec.audio else {
        return Vec::new();
    };
    let count = audio.rate as usize * spec.seconds as usize;
    let rate = f64::from(audio.rate);
    let mut stereo = match audio.kind {
        AudioKind::Clock => music::render(audio.rate, count),
        AudioKind::Tone(hz) => (0..count)
            .map(|at| [0.5 * (hz * at as f64 / rate * TAU).sin(); 2])
            .collect(),
        AudioKind::Talk => talk::render(audio.rate, count),
    };
    if audio.kind == AudioKind::Clock {
        let length = (sound::BEEP_SECONDS * rate).ceil() as usize;
        for second in 0..spec.seconds {
            let start = (audio.rate * second) as usize;
            for (at, frame) in stereo.iter_mut().skip(start).take(length).enumerate() {
                let value = sound::beep(second, at as f64 / rate);
                frame[0] += value;
                frame[1] += value;
            }
        }
    }
    if audio.channels == 1 {
        stereo
            .iter()
            .map(|frame| f64::midpoint(frame[0], frame[1]) as f32)
            .collect()
    } else {
        stereo.iter().flatten().map(|&value| value as f32).collect()
    }
}

/// The committed clip, `fixtures/clock-60s.mp4`: one minute, 1800 frames.
pub fn fixture() -> Result<PathBuf> {
    let path = workspace()?.join("fixtures/clock-60s.mp4");
    ensure!(
        path.exists(),
        "{} is missing: make it with `cargo xtask fixtures`",
        path.display()
    );
    Ok(path)
}

/// The clip from the shared cache in `target/e2e/fixtures`, rendered on first use, with low
/// priority: scenarios beside it run in real time.
pub fn cached(spec: &ClipSpec) -> Result<PathBuf> {
    let (folder, spec) = (workspace()?.join("target/e2e/fixtures"), spec.clone());
    quietly(move || cached_in(&folder, &spec))
}

fn workspace() -> Result<&'static Path> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.context("the e2e crate lies in a workspace")
}

/// The clip from a cache of one's own, rendered on first use.
///
/// A clip appears whole or not at all, also when two processes want it at once.
pub fn cached_in(folder: &Path, spec: &ClipSpec) -> Result<PathBuf> {
    let hash = Sha256::digest(format!("{RENDERER} {spec:?}"));
    let name = hash
        .iter()
        .take(8)
        .fold(String::new(), |name, byte| name + &format!("{byte:02x}"));
    let path = folder.join(format!("{name}.mp4"));
    if path.exists() {
        return Ok(path);
    }
    std::fs::create_dir_all(folder)
        .with_context(|| format!("could not create {}", folder.display()))?;
    let part = tempfile::Builder::new()
        .prefix(&format!("{name}-"))
        .suffix(".mp4")
        .tempfile_in(folder)?
        .into_temp_path();
    render(spec, &part)?;
    part.persist(&path)
        .with_context(|| format!("could not keep {}", path.display()))?;
    Ok(path)
}
