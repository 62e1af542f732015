//! The harness's own sender and readers against each other, without the worker.
#![expect(
    clippy::unwrap_used,
    reason = "a test may fail where its preparations fail"
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::probe::ffprobe;
use e2e::probe::frames::{CodedFrames, compare};
use e2e::process::Group;
use e2e::run::Run;
use e2e::services::Place;
use e2e::services::media_server::{Input, Kind, MediaServer};
use e2e::services::publisher::{Publisher, Sent};
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
fn a_clip_goes_through_the_media_server_when_it_is_told_to() {
    let (place, directory) = place("publish");
    let clip = clip(directory.path());
    let server = MediaServer::start(
        Kind::choose(None).unwrap(),
        Input::Usual,
        &place,
        &["live/test/out".into()],
    )
    .unwrap();
    let url = server.rtsp_url("live/test/in");
    let publisher = Publisher::start(&place, "publisher", &clip, &url, ["--end-at", "2"]).unwrap();
    let reader = std::thread::spawn(move || ffprobe::packets(&url, "v", PATIENCE));
    server.wait_reader("live/test/in", PATIENCE).unwrap();
    assert_eq!(publisher.done(), None);
    let before = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs_f64()
        * 1000.0;
    let first = publisher.go().unwrap();
    assert!(
        (0.0..2000.0).contains(&(first - before)),
        "{first} is not now"
    );
    assert_eq!(
        publisher.wait_done(PATIENCE).unwrap(),
        Sent {
            video: 60,
            audio: 94
        }
    );
    assert_eq!(reader.join().unwrap().unwrap().len(), 60);
}

#[test]
fn a_publisher_that_cannot_publish_says_why_and_fails() {
    let (place, directory) = place("refused");
    let clip = clip(directory.path());
    let text = directory.path().join("words.txt");
    std::fs::write(&text, "no video at all").unwrap();
    let free = e2e::ports::with_leases(|[port]: [u16; 1]| Ok(port)).unwrap();
    let url = format!("rtsp://127.0.0.1:{}/live/test/in", free.1);
    for (name, clip, sentence) in [
        (
            "missing",
            Path::new("/nowhere/clip.mp4"),
            "cannot read the clip /nowhere/clip.mp4: No such file",
        ),
        ("text", text.as_path(), "words.txt is not a video"),
        (
            "nobody",
            clip.as_path(),
            "connection refused, nothing listens there",
        ),
    ] {
        let error = Publisher::start(&place, name, clip, &url, [""; 0]).unwrap_err();
        let error = format!("{error:#}");
        assert!(
            error.contains(sentence) && error.contains("exit code 1"),
            "{error}"
        );
    }
    let error =
        Publisher::start(&place, "flag", &clip, &url, ["--audio-drift", "fast"]).unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains("exit code 2") && error.contains("expected a ratio like 0.5%"),
        "{error}"
    );
}

#[test]
fn a_late_reader_plays_from_a_keyframe_and_the_recording_is_exact() {
    let (place, directory) = place("late");
    let clip = clip(directory.path());
    let server = MediaServer::start(
        Kind::choose(None).unwrap(),
        Input::Usual,
        &place,
        &["live/test/out".into()],
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
