//! Small clips for unit tests, made by ffmpeg.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use e2e_ffmpeg::TestClip;
use sha2::{Digest as _, Sha256};

/// A clip tests use: its file name and how it is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recipe(&'static str, TestClip);

const CLIP: TestClip = TestClip::plain(3);
const REORDERED: TestClip = TestClip { bframes: 3, ..CLIP };
/// No B-frames.
pub(crate) const PLAIN: Recipe = Recipe("clip.mp4", CLIP);
/// Three B-frames between the others.
pub(crate) const B_FRAMES: Recipe = Recipe("clip.mp4", REORDERED);
/// What nginx records.
pub(crate) const FLV: Recipe = Recipe("clip.flv", REORDERED);

/// The path of a clip.
///
/// Clips stay in the build directory and are made again only when the call that makes them changes.
pub(crate) fn path(Recipe(name, clip): Recipe) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-clips");
    std::fs::create_dir_all(&directory).unwrap();
    let call = e2e_ffmpeg::test_clip(clip, Path::new(name));
    let digest = Sha256::digest(format!("{call:?}"));
    let path = directory.join(format!(
        "{:02x}{:02x}{:02x}{:02x}-{name}",
        digest[0], digest[1], digest[2], digest[3]
    ));
    if !path.exists() {
        // Other test processes may be at the same: whoever renames last wins, with the same clip.
        let making = directory.join(format!("{}-{name}", std::process::id()));
        e2e_ffmpeg::test_clip(clip, &making).run().unwrap();
        std::fs::rename(&making, &path).unwrap();
    }
    path
}
