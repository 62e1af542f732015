//! The tables read here against what ffprobe reads from the same files.

use std::time::Duration;

use crate::media::clip::{AudioFormat, Clip, Sample, Track, VideoFormat};
use crate::media::testclip;
use crate::probe::ffprobe;

fn check<F>(clip: &Clip, track: &Track<F>, path: &std::path::Path, select: &str) {
    let mut expected = ffprobe::packets(path, select, Duration::from_secs(20)).unwrap();
    expected.retain(|packet| !packet.is_discarded());
    assert_eq!(
        track.samples.len(),
        expected.len(),
        "{}: {select}",
        path.display()
    );
    for (sample, packet) in track.samples.iter().zip(&expected) {
        let seconds = |ticks: i64| ticks as f64 / f64::from(track.timescale);
        let close = |ours: i64, theirs: Option<f64>| (seconds(ours) - theirs.unwrap()).abs() < 2e-6;
        assert!(
            close(sample.pts, packet.pts_time),
            "{}: {sample:?} {packet:?}",
            path.display()
        );
        assert!(
            close(sample.dts, packet.dts_time),
            "{}: {sample:?} {packet:?}",
            path.display()
        );
        assert_eq!(
            sample.keyframe,
            packet.is_key(),
            "{}: {sample:?} {packet:?}",
            path.display()
        );
        assert_eq!(
            Some(hash(clip, sample)),
            packet.data_hash,
            "{}: {sample:?}",
            path.display()
        );
    }
}

fn hash(clip: &Clip, sample: &Sample) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(clip.data(sample));
    digest.iter().fold("SHA256:".to_owned(), |text, byte| {
        format!("{text}{byte:02x}")
    })
}

#[test]
fn every_sample_is_what_ffprobe_says() {
    for recipe in [
        testclip::PLAIN,
        testclip::B_FRAMES,
        testclip::FRAGMENTED,
        testclip::FLV,
    ] {
        let path = testclip::path(recipe);
        let clip = Clip::open(&path).unwrap();
        assert!(!clip.truncated);
        check(&clip, clip.video.as_ref().unwrap(), &path, "v");
        check(&clip, clip.audio.as_ref().unwrap(), &path, "a");
    }
}

#[test]
fn the_presentation_begins_at_zero_in_both_tracks_without_priming() {
    for recipe in [testclip::PLAIN, testclip::B_FRAMES] {
        let clip = Clip::open(&testclip::path(recipe)).unwrap();
        let (video, audio) = (clip.video.unwrap(), clip.audio.unwrap());
        assert_eq!(
            video.samples.iter().map(|sample| sample.pts).min(),
            Some(0),
            "{recipe:?}"
        );
        assert_eq!(audio.samples[0].pts, 0, "{recipe:?}");
        assert_eq!(video.samples.len(), 90);
        // 144 000 samples are 140.6 frames.
        assert_eq!(audio.samples.len(), 141);
        assert!(
            matches!(video.format, VideoFormat::H264(config) if !config.sps.is_empty() && !config.pps.is_empty())
        );
        assert!(
            matches!(audio.format, AudioFormat::Aac(config) if config.rate == 48_000 && config.channels == 2)
        );
    }
}

#[test]
fn other_containers_are_read_by_way_of_ffmpeg() {
    let clip = Clip::open(&testclip::path(testclip::MATROSKA)).unwrap();
    assert_eq!(clip.video.unwrap().samples.len(), 90);
}

#[test]
fn a_file_that_was_cut_off_is_refused_or_marked() {
    let bytes = std::fs::read(testclip::path(testclip::PLAIN)).unwrap();
    let error = Clip::from_mp4(bytes[..bytes.len() / 2].to_vec())
        .unwrap_err()
        .to_string();
    assert!(error.contains("never finished or is cut off"), "{error}");
    let bytes = std::fs::read(testclip::path(testclip::FRAGMENTED)).unwrap();
    let clip = Clip::from_mp4(bytes[..bytes.len() * 2 / 3].to_vec()).unwrap();
    let frames = clip.video.unwrap().samples.len();
    assert!((30..90).contains(&frames), "{frames}");
}

#[test]
fn damaged_headers_give_errors_not_panics() {
    let bytes = std::fs::read(testclip::path(testclip::PLAIN)).unwrap();
    let header = bytes
        .windows(4)
        .position(|window| window == b"moov")
        .unwrap();
    let mut state = 1_u32;
    for _ in 0..300 {
        let mut damaged = bytes.clone();
        for _ in 0..8 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = header + (state >> 8) as usize % (damaged.len() - header);
            damaged[at] = state as u8;
        }
        // Whatever comes of it, samples must lie inside the file.
        if let Ok(clip) = Clip::from_mp4(damaged) {
            for sample in clip.video.iter().flat_map(|track| &track.samples) {
                assert!(clip.data(sample).len() < bytes.len());
            }
        }
    }
}
