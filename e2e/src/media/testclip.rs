//! Small clips for unit tests, made by ffmpeg.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use sha2::{Digest as _, Sha256};

/// Input and codec arguments of the clips tests use, each three seconds long.
pub(crate) const PLAIN: &str = "clip.mp4 -bf 0 -g 30";
/// Three B-frames between the others.
pub(crate) const B_FRAMES: &str = "clip.mp4 -bf 3 -g 30";
/// The same in fragments, as MediaMTX records.
pub(crate) const FRAGMENTED: &str =
    "clip.mp4 -bf 3 -g 30 -movflags +frag_keyframe+empty_moov+default_base_moof";
/// What nginx records.
pub(crate) const FLV: &str = "clip.flv -bf 3 -g 30";
/// What MediaMTX records.
pub(crate) const TS: &str = "clip.ts -bf 3 -g 30";
/// A container that is read by way of ffmpeg.
pub(crate) const MATROSKA: &str = "clip.mkv -bf 0 -g 30";

/// The path of a clip; `recipe` is a file name and encoder arguments.
///
/// Clips stay in the build directory and are made again only when the recipe changes.
pub(crate) fn path(recipe: &str) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-clips");
    std::fs::create_dir_all(&directory).unwrap();
    let (name, arguments) = recipe.split_once(' ').unwrap();
    let digest = Sha256::digest([include_bytes!("testclip.rs"), recipe.as_bytes()].concat());
    let path = directory.join(format!(
        "{:02x}{:02x}{:02x}{:02x}-{name}",
        digest[0], digest[1], digest[2], digest[3]
    ));
    if !path.exists() {
        // Other test processes may be at the same: whoever renames last wins, with the same clip.
        let making = directory.join(format!("{}-{name}", std::process::id()));
        encode(arguments, &making);
        std::fs::rename(&making, &path).unwrap();
    }
    path
}

fn encode(arguments: &str, path: &Path) {
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-y", "-f", "lavfi"])
        .args([
            "-i",
            "testsrc2=size=320x180:rate=30:duration=3",
            "-f",
            "lavfi",
        ])
        .args(["-i", "sine=frequency=440:sample_rate=48000:duration=3"])
        .args([
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-threads",
            "1",
            "-pix_fmt",
            "yuv420p",
        ])
        .args(["-c:a", "aac", "-ac", "2", "-b:a", "96k"])
        .args(arguments.split(' '))
        .arg(path)
        .stdin(Stdio::null())
        .status()
        .expect("ffmpeg starts");
    assert!(status.success(), "ffmpeg made no clip for '{arguments}'");
}
