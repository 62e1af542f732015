//! The one place that knows the options of ffmpeg and ffprobe: what a new release drops or changes is
//! put right here and nowhere else (`cargo xtask tidy` sees to it).
//!
//! Every function gives a [`Call`]: to be run to its end here, or to be started by whoever watches its
//! children. Run with ffmpeg 5.1, 7.1 and 9.0; what those differ in is said where it matters.

mod call;
mod encode;
mod read;

pub use call::Call;
pub use encode::{
    CameraSound, Change, Codec, Picture, RawSound, Recode, Rework, Stretch, TestClip, change, clip,
    copy, encode_answer, encode_for_camera, heavy, pass_on, publish, publish_again_and_again,
    reclock, recode, record, rework, test_clip,
};
pub use read::{
    Detail, Track, decode_sound, film_strip, formats, hash_frames, hash_track, pictures, play,
    probe, subtitles, version, watch_frames,
};
