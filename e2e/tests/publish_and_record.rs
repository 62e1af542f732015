//! The harness's own readers and media servers against each other, without the worker.
#![expect(
    clippy::unwrap_used,
    reason = "a test may fail where its preparations fail"
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use camera::Manner;
use e2e::cleanup::Run;
use e2e::probe::frames::{CodedFrames, compare};
use e2e::process::Group;
use e2e::services::Place;
use e2e::services::camera::Camera;
use e2e::services::media_server::{Kind, MediaServer, RtspSettings};
use e2e::services::recorder::LateReader;
use e2e_ffmpeg::TestClip;

const PATIENCE: Duration = Duration::from_secs(20);

/// A place in a directory of its own, and the directory.
fn place(name: &str) -> (Place, tempfile::TempDir) {
    let directory = Run::current().unwrap().scratch(name).unwrap();
    let place = Place {
        group: Group::new().unwrap(),
        scratch: directory.path().to_owned(),
        artifacts: directory.path().to_owned(),
    };
    (place, directory)
}

/// Eight seconds of H.264 with AAC.
fn clip(directory: &Path) -> PathBuf {
    let path = directory.join("clip.mp4");
    e2e_ffmpeg::test_clip(TestClip::plain(8), &path)
        .run()
        .unwrap();
    path
}

#[test]
fn a_camera_that_cannot_play_says_why_and_fails() {
    let (place, directory) = place("refused");
    let text = directory.path().join("words.txt");
    std::fs::write(&text, "no video at all").unwrap();
    for (name, clip, sentence) in [
        ("missing", Path::new("/nowhere/clip.mp4"), "No such file"),
        ("text", text.as_path(), "it is not MP4"),
    ] {
        let error = Camera::start(&place, name, clip, &Manner::default(), None).unwrap_err();
        let error = format!("{error:#}");
        assert!(
            error.contains(sentence) && error.contains("exit code 1"),
            "{error}"
        );
    }
}

#[test]
fn a_late_reader_plays_from_a_keyframe_and_the_recording_is_exact() {
    let (place, directory) = place("late");
    let clip = clip(directory.path());
    let server = MediaServer::start(
        Kind::choose(None).unwrap(),
        &place,
        &["live/test/out".into()],
        &RtspSettings::default(),
    )
    .unwrap();
    let url = server.rtmp_url("live/test/out");
    let output = place
        .group
        .spawn(&place.call("output", &e2e_ffmpeg::publish(&clip, None, &url)))
        .unwrap();
    server
        .wait_rtmp_published("live/test/out", PATIENCE)
        .unwrap();
    // Joins in the middle of a group of pictures.
    let middle = std::time::Instant::now() + Duration::from_millis(800);
    std::thread::sleep(middle.saturating_duration_since(std::time::Instant::now()));
    let reader = LateReader::start(&place, "late-reader", &url, Duration::from_secs(1)).unwrap();
    let first = reader.wait_picture(PATIENCE).unwrap();
    let report = reader.finish().unwrap();
    assert_eq!(report.first_picture_after, first);
    assert_eq!(report.size, (320, 180));
    report.require_playable(Duration::from_secs(1)).unwrap();
    assert!(output.wait_exit(PATIENCE).unwrap().success());

    let recording = server.recording("live/test/out", PATIENCE).unwrap();
    let comparison = compare(
        &CodedFrames::video(&clip).unwrap(),
        &CodedFrames::video(&recording).unwrap(),
    );
    comparison.require_exact().unwrap();
    assert_eq!(comparison.matched, 240);
}
