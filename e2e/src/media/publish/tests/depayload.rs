//! The way back: what GStreamer takes out of the packets is what the clip holds, unit for unit.

use std::collections::BTreeMap;

use gst::prelude::*;

use super::*;
use crate::media::clip::{AudioFormat, VideoFormat};
use crate::media::{nal, sdp};

/// Caps of a track as a receiver derives them from the session description.
fn caps(description: &str, media: &str) -> gst::Caps {
    gst::init().unwrap();
    let section = description
        .split("m=")
        .find(|section| section.starts_with(media))
        .unwrap();
    let line = |name: &str| {
        let found = section
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        found.split_once(' ').unwrap().1.to_owned()
    };
    let map = line("a=rtpmap:");
    let payload: i32 = section.split_whitespace().nth(3).unwrap().parse().unwrap();
    let mut parts = map.split('/');
    let (encoding, clock) = (
        parts.next().unwrap(),
        parts.next().unwrap().parse::<i32>().unwrap(),
    );
    let mut caps = gst::Caps::builder("application/x-rtp")
        .field("media", media)
        .field("payload", payload)
        .field("clock-rate", clock)
        .field("encoding-name", encoding.to_uppercase());
    let parameters: BTreeMap<String, String> = line("a=fmtp:")
        .split(';')
        .map(|pair| pair.trim().split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for (name, value) in parameters {
        caps = caps.field(name.as_str(), value);
    }
    caps.build()
}

/// Pushes packets through an element and gives the buffers that come out.
fn through(
    element: &str,
    caps: &gst::Caps,
    out: &str,
    packets: impl Iterator<Item = Vec<u8>>,
) -> Vec<Vec<u8>> {
    let line = format!(
        "appsrc name=src format=time is-live=false max-bytes=0 ! {element} ! {out} ! appsink name=sink sync=false"
    );
    let pipeline = gst::parse::launch(&line)
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
    let source = pipeline
        .by_name("src")
        .unwrap()
        .downcast::<gst_app::AppSrc>()
        .unwrap();
    let sink = pipeline
        .by_name("sink")
        .unwrap()
        .downcast::<gst_app::AppSink>()
        .unwrap();
    source.set_caps(Some(caps));
    pipeline.set_state(gst::State::Playing).unwrap();
    for packet in packets {
        source
            .push_buffer(gst::Buffer::from_mut_slice(packet))
            .unwrap();
    }
    source.end_of_stream().unwrap();
    let mut units = Vec::new();
    while let Some(sample) = sink.try_pull_sample(gst::ClockTime::from_seconds(10)) {
        units.push(sample.buffer().unwrap().map_readable().unwrap().to_vec());
    }
    assert!(sink.is_eos());
    pipeline.set_state(gst::State::Null).unwrap();
    units
}

fn packets(sent: &Sent, media: Media) -> impl Iterator<Item = Vec<u8>> {
    let of_media = sent
        .order
        .iter()
        .filter(move |outgoing| outgoing.media == media && outgoing.frames > 0);
    of_media.flat_map(|outgoing| outgoing.packets.clone())
}

#[test]
fn video_access_units_come_back_whole() {
    for (recipe, arguments) in [
        (testclip::PLAIN, ""),
        (testclip::B_FRAMES, "--max-packet 300"),
        (testclip::PLAIN, "--max-packet 64"),
    ] {
        let clip = clip(recipe);
        let caps = caps(&sdp::describe(&clip), "video");
        let sent = send(recipe, arguments);
        let out = "video/x-h264,stream-format=avc,alignment=au";
        let units = through("rtph264depay", &caps, out, packets(&sent, Media::Video));
        let track = clip.video.as_ref().unwrap();
        let VideoFormat::H264(config) = &track.format else {
            panic!("H.264")
        };
        assert_eq!(units.len(), track.samples.len());
        for (unit, sample) in units.iter().zip(&track.samples) {
            let sent = nal::split_avcc(clip.data(sample), config.length_size).unwrap();
            let received = nal::split_avcc(unit, 4).unwrap();
            assert!(sent == received, "{recipe:?} {arguments}: {sample:?}");
        }
    }
}

#[test]
fn audio_frames_come_back_whole() {
    for arguments in ["", "--aac-per-packet 5", "--max-packet 64"] {
        let clip = clip(testclip::PLAIN);
        let caps = caps(&sdp::describe(&clip), "audio");
        let sent = send(testclip::PLAIN, arguments);
        let units = through(
            "rtpmp4gdepay",
            &caps,
            "audio/mpeg",
            packets(&sent, Media::Audio),
        );
        let track = clip.audio.as_ref().unwrap();
        assert!(matches!(track.format, AudioFormat::Aac(_)));
        assert_eq!(units.len(), track.samples.len(), "{arguments}");
        for (unit, sample) in units.iter().zip(&track.samples) {
            assert!(unit == clip.data(sample), "{arguments}: {sample:?}");
        }
    }
}

#[test]
fn opus_packets_come_back_whole() {
    let recipe = testclip::OPUS;
    let clip = clip(recipe);
    let caps = caps(&sdp::describe(&clip), "audio");
    let sent = send(recipe, "");
    let units = through(
        "rtpopusdepay",
        &caps,
        "audio/x-opus",
        packets(&sent, Media::Audio),
    );
    let track = clip.audio.as_ref().unwrap();
    assert_eq!(units.len(), track.samples.len());
    assert!(
        units
            .iter()
            .zip(&track.samples)
            .all(|(unit, sample)| unit == clip.data(sample))
    );
}
