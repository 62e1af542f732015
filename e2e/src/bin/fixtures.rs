//! Makes the committed test clip, or checks that it is what it says it is.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use e2e::clock::{ClipSpec, render};
use e2e::probe::audio::{Sound, clicks, dropouts};
use e2e::probe::clock::Clock;
use e2e::probe::ffprobe;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const CLIP: &str = "clock-60s.mp4";
const SECONDS: u32 = 60;
const MOST_BYTES: u64 = 6_000_000;
/// The part of the README between these lines is written by this program.
const BEGIN: &str = "<!-- written by `cargo run -p e2e --bin fixtures` -->";
const END: &str = "<!-- end -->";

#[derive(Parser)]
#[command(about = "Makes the clips of fixtures/, or checks them")]
struct Options {
    /// Folder of the clips and their README.
    #[arg(long, default_value = "fixtures")]
    out: PathBuf,
    /// Make nothing: check size, hash and content of what is there.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = if options.check {
        check(&options.out)
    } else {
        make(&options.out).and_then(|()| check(&options.out))
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fixtures: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn make(folder: &Path) -> Result<()> {
    let spec = ClipSpec {
        crf: 20,
        preset: "slow",
        ..ClipSpec::clock(SECONDS)
    };
    std::fs::create_dir_all(folder)
        .with_context(|| format!("could not create {}", folder.display()))?;
    // Complete or not there: a clip half rendered never replaces a good one.
    let part = folder.join("clock-60s.part.mp4");
    eprintln!("rendering {} frames ...", spec.frames());
    let rendered = render(&spec, &part);
    if rendered.is_err() {
        // The reason counts, not whether there was anything to remove.
        let _ = std::fs::remove_file(&part);
    }
    rendered?;
    std::fs::rename(&part, folder.join(CLIP))?;
    write_readme(folder, &spec)
}

fn write_readme(folder: &Path, spec: &ClipSpec) -> Result<()> {
    let bytes = std::fs::metadata(folder.join(CLIP))?.len();
    let hash = sha256(&folder.join(CLIP))?;
    let (width, height, fps) = (spec.width, spec.height(), spec.fps);
    let audio = spec.audio.as_ref().context("the clip has sound")?;
    let table = format!(
        "{BEGIN}\n\
         | | |\n\
         |---|---|\n\
         | file | `{CLIP}` |\n\
         | command | `cargo run -p e2e --bin fixtures` |\n\
         | made with | {} |\n\
         | duration | {}.000 s, {} frames |\n\
         | video | H.264 High, {width}x{height}, {fps} fps, keyframe every {} frames, \
         no B-frames, BT.709 |\n\
         | audio | AAC-LC, {} Hz, {} channels, {} kbit/s, priming in an edit list |\n\
         | size | {bytes} bytes |\n\
         | sha256 | `{hash}` |\n\
         {END}",
        ffmpeg_version()?,
        spec.seconds,
        spec.frames(),
        spec.gop,
        audio.rate,
        audio.channels,
        audio.kbps,
    );
    let path = folder.join("README.md");
    let old = std::fs::read_to_string(&path).unwrap_or_default();
    let new = match (old.find(BEGIN), old.find(END)) {
        (Some(from), Some(to)) if from < to => {
            format!("{}{table}{}", &old[..from], &old[to + END.len()..])
        }
        _ => format!("# Fixtures\n\n{table}\n"),
    };
    std::fs::write(&path, new).with_context(|| format!("could not write {}", path.display()))
}

/// Everything the README says about the clip, against the clip.
fn check(folder: &Path) -> Result<()> {
    let clip = folder.join(CLIP);
    let readme = std::fs::read_to_string(folder.join("README.md"))
        .with_context(|| format!("no README.md in {}", folder.display()))?;
    let hash = sha256(&clip)?;
    ensure!(
        readme.contains(&format!("`{hash}`")),
        "{} has sha256 {hash}, which is not what README.md says",
        clip.display()
    );
    let bytes = std::fs::metadata(&clip)?.len();
    ensure!(
        bytes <= MOST_BYTES,
        "{bytes} bytes is more than {MOST_BYTES}"
    );

    check_streams(&clip)?;
    let clock = Clock::read(&clip)?;
    let frames = 30 * SECONDS;
    let sequence = clock.sequence(0..frames);
    ensure!(sequence.is_perfect(), "pictures: {sequence:?}");
    let steps = clock.steps();
    ensure!(steps.worst_step_error_ms.abs() < 0.01, "times: {steps:?}");
    let sync = clock.sync();
    ensure!(
        sync.skews.len() == SECONDS as usize && sync.stray_beeps.is_empty(),
        "beeps: {sync:?}"
    );
    ensure!(sync.worst_ms().abs() < 0.1, "skew {} ms", sync.worst_ms());

    let sound = Sound::read(&clip)?;
    ensure!(
        sound.start().abs() < 1e-6,
        "sound starts at {}",
        sound.start()
    );
    let short = f64::from(SECONDS) - sound.end();
    ensure!(
        (0.0..=1024.0 / 48_000.0).contains(&short),
        "sound is {short} s short"
    );
    ensure!(sound.breaks().is_empty(), "sound: {:?}", sound.breaks());
    let (clicks, holes) = (clicks(&sound), dropouts(&sound));
    ensure!(
        clicks.is_empty() && holes.is_empty(),
        "{clicks:?} {holes:?}"
    );
    println!(
        "{CLIP}: {bytes} bytes, sha256 as written; {frames} frames read, {} beeps, \
         worst skew {:.3} ms",
        clock.beeps.len(),
        sync.worst_ms().abs()
    );
    Ok(())
}

/// Coding order, keyframes and formats, by ffprobe.
fn check_streams(clip: &Path) -> Result<()> {
    let summary = ffprobe::probe(clip)?.summary();
    let found = serde_json::to_value(&summary)?;
    let expected = serde_json::json!({
        "video": {
            "codec": "h264", "profile": "High", "size": "1280x720", "pix_fmt": "yuv420p", "fps": "30.00",
        },
        "audio": { "codec": "aac", "profile": "LC", "sample_rate": 48_000, "channels": 2 },
    });
    ensure!(found == expected, "streams: {found}");
    let packets = ffprobe::packets(clip, "v")?;
    for (at, packet) in packets.iter().enumerate() {
        ensure!(
            packet.pts_time.is_some() && packet.pts_time == packet.dts_time,
            "packet {at} is shown out of order"
        );
        let key = packet.is_key();
        ensure!(key == (at % 30 == 0), "packet {at}: keyframe {key}");
    }
    Ok(())
}

/// Name and number, such as `ffmpeg version 5.1.9`.
fn ffmpeg_version() -> Result<String> {
    let line = e2e_ffmpeg::version()?;
    Ok(line
        .split_whitespace()
        .take(3)
        .collect::<Vec<_>>()
        .join(" "))
}

fn sha256(path: &Path) -> Result<String> {
    let bytes =
        std::fs::read(path).with_context(|| format!("could not read {}", path.display()))?;
    Ok(Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}")))
}
