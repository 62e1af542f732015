//! What a server offers, and which of it is taken: the first H.264 video and the first audio that is ours
//! to hear.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dub_engine::Track;
use gst::prelude::*;

use super::super::aac::{AacFormat, FRAME_SAMPLES, RATES};
use super::telling::Telling;
use super::{IngestFact, chain};

/// Frames of MPEG audio: 1152 samples of at most 48 kHz.
const MPEG_FRAME: Duration = Duration::from_millis(24);

/// The offer of one connection.
#[derive(Clone, Default)]
pub(super) struct Offer(Arc<Mutex<Offered>>);

#[derive(Default)]
struct Offered {
    /// Kind and encoding of each medium that is ours to hear.
    media: Vec<(String, String)>,
    /// `rtspsrc`'s number of the streams that are taken.
    taken: BTreeMap<u32, Track>,
    /// The server marks everything `sendonly`, as RFC 8866 has it for what it sends.
    video_marked: bool,
}

impl Offer {
    /// Chooses streams before any is set up.
    pub(super) fn watch(source: &gst::Element, telling: &Telling) -> Self {
        let offer = Self::default();
        let (shared, telling) = (offer.clone(), telling.clone());
        source.connect("select-stream", false, move |args| {
            let number = args.get(1).and_then(|value| value.get::<u32>().ok());
            let caps = args.get(2).and_then(|value| value.get::<gst::Caps>().ok());
            let (number, caps) = number.zip(caps)?;
            let taken = shared.take(number, &caps);
            // Known before the first packet: time to prepare the dubbing.
            if taken == Some(Track::Audio) {
                let (_, encoding) = media_of(&caps);
                if encoding != "MP4A-LATM" {
                    telling.tell(format_of(&encoding, &caps));
                }
            }
            Some(taken.is_some().to_value())
        });
        offer
    }

    /// Which track a stream of `rtspsrc` is.
    pub(super) fn track(&self, number: u32) -> Option<Track> {
        self.lock().taken.get(&number).copied()
    }

    /// What the offer lacks, in words an operator can act on.
    pub(super) fn lacks(&self) -> Option<String> {
        missing_track(&self.lock().media)
    }

    fn take(&self, number: u32, caps: &gst::Caps) -> Option<Track> {
        let (media, encoding) = media_of(caps);
        let marked = caps
            .structure(0)
            .is_some_and(|structure| structure.has_field("a-sendonly"));
        let mut offered = self.lock();
        // ONVIF marks what cameras want to be sent `sendonly`: a way to talk back, not our audio.
        if media == "audio" && marked && !offered.video_marked {
            return None;
        }
        offered.video_marked |= media == "video" && marked;
        offered.media.push((media.clone(), encoding.clone()));
        let track = match media.as_str() {
            "video" if encoding == "H264" => Track::Video,
            "audio" => Track::Audio,
            _ => return None,
        };
        let second = offered.taken.values().any(|taken| *taken == track);
        if second {
            return None;
        }
        offered.taken.insert(number, track);
        Some(track)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Offered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The audio's format as the worker handles it.
pub(super) fn format_of(encoding: &str, caps: &gst::Caps) -> IngestFact {
    let copied = copied_format(encoding, caps);
    let bundled = match (&copied, encoding) {
        (Some(format), _) => {
            let frame = format.nanos(u64::from(FRAME_SAMPLES));
            Some(Duration::from_nanos(frame.unsigned_abs()))
        }
        (None, "MPA" | "MPA-ROBUST" | "MPEG4-GENERIC") => Some(MPEG_FRAME),
        _ => None,
    };
    IngestFact::AudioFormat {
        format: copied.unwrap_or_else(chain::converted_format),
        bundled,
    }
}

/// The format of audio that is copied as it comes.
pub(super) fn copied_format(encoding: &str, caps: &gst::Caps) -> Option<AacFormat> {
    (encoding == "MPEG4-GENERIC").then_some(())?;
    let structure = caps.structure(0)?;
    match structure.get::<String>("config") {
        Ok(config) => AacFormat::from_config(&unhex(&config)?),
        Err(_) => described_format(structure),
    }
}

/// AAC without `config`: LC of the rate and channels that its `rtpmap` says.
fn described_format(structure: &gst::StructureRef) -> Option<AacFormat> {
    let rate = structure.get::<i32>("clock-rate").ok()?.unsigned_abs();
    let channels = structure.get::<String>("encoding-params").ok();
    let channels = channels.map_or(Some(1), |text| text.parse().ok())?;
    (RATES.contains(&rate) && (1..=2).contains(&channels)).then(|| AacFormat::lc(rate, channels))
}

/// Adds what `rtpmp4gdepay` needs to caps that came without it.
pub(super) fn completed(caps: &gst::Caps) -> Option<gst::Caps> {
    let structure = caps.structure(0)?;
    if structure.has_field("config") {
        return None;
    }
    let config = described_format(structure)?.config;
    let mut caps = caps.copy();
    let structure = caps.get_mut()?.structure_mut(0)?;
    structure.set(
        "config",
        config
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>(),
    );
    // The sizes of the usual mode, AAC-hbr.
    for (field, value) in [
        ("sizelength", "13"),
        ("indexlength", "3"),
        ("indexdeltalength", "3"),
    ] {
        if !structure.has_field(field) {
            structure.set(field, value);
        }
    }
    Some(caps)
}

pub(super) fn media_of(caps: &gst::Caps) -> (String, String) {
    let Some(structure) = caps.structure(0) else {
        return Default::default();
    };
    let field = |name| structure.get::<String>(name).ok();
    let encoding = field("encoding-name").map(|name| name.to_uppercase());
    let payload = structure.get::<i32>("payload").ok();
    let encoding = encoding.or_else(|| payload.and_then(by_payload_type).map(str::to_owned));
    (
        field("media").unwrap_or_default(),
        encoding.unwrap_or_default(),
    )
}

/// What a payload type alone says (RFC 3551); servers leave the `rtpmap` out, MediaMTX for MP3.
fn by_payload_type(payload: i32) -> Option<&'static str> {
    Some(match payload {
        0 => "PCMU",
        8 => "PCMA",
        10 | 11 => "L16",
        14 => "MPA",
        _ => return None,
    })
}

fn missing_track(offered: &[(String, String)]) -> Option<String> {
    let video: Vec<&str> = offered
        .iter()
        .filter(|(media, _)| media == "video")
        .map(|(_, encoding)| encoding.as_str())
        .collect();
    if !video.contains(&"H264") {
        return Some(if video.is_empty() {
            "H.264 video track required, the input has no video".to_owned()
        } else {
            format!(
                "H.264 video track required, the input has {}",
                video.join(", ")
            )
        });
    }
    match offered.iter().find(|(media, _)| media == "audio") {
        None => Some("audio track required for dubbing".to_owned()),
        Some((_, encoding)) if encoding.is_empty() => Some(
            "audio track required for dubbing, the input's audio line names no format".to_owned(),
        ),
        Some(_) => None,
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacks(tracks: &[(&str, &str)]) -> Option<String> {
        let offered: Vec<_> = tracks
            .iter()
            .map(|(m, e)| ((*m).to_owned(), (*e).to_owned()))
            .collect();
        missing_track(&offered)
    }

    #[test]
    fn well_known_payload_types_need_no_rtpmap() {
        crate::init().unwrap();
        let named = |payload: i32| {
            let caps = gst::Caps::builder("application/x-unknown");
            let caps = caps.field("media", "audio").field("payload", payload);
            media_of(&caps.build()).1
        };
        let types = [0, 8, 14, 97];
        assert_eq!(types.map(named), ["PCMU", "PCMA", "MPA", ""]);
        let kind = gst::ElementFactoryType::DEPAYLOADER;
        let depayloaders = gst::ElementFactory::factories_with_type(kind, gst::Rank::MARGINAL);
        for (payload, rate) in [
            (0, 8_000),
            (8, 8_000),
            (10, 44_100),
            (11, 44_100),
            (14, 90_000),
        ] {
            let caps = gst::Caps::builder("application/x-rtp");
            let caps = caps.field("media", "audio").field("payload", payload);
            let caps = caps.field("clock-rate", rate).build();
            let taken = depayloaders.iter().any(|it| it.can_sink_any_caps(&caps));
            assert!(taken, "nothing takes payload type {payload}");
        }
    }

    #[test]
    fn an_offer_needs_h264_and_audio() {
        assert_eq!(
            lacks(&[("video", "H264"), ("audio", "MPEG4-GENERIC")]),
            None
        );
        assert_eq!(
            lacks(&[("video", "H264")]).unwrap(),
            "audio track required for dubbing"
        );
        assert_eq!(
            lacks(&[("video", "H264"), ("audio", "")]).unwrap(),
            "audio track required for dubbing, the input's audio line names no format"
        );
        assert_eq!(
            lacks(&[("video", "H265"), ("audio", "OPUS")]).unwrap(),
            "H.264 video track required, the input has H265"
        );
        assert_eq!(
            lacks(&[("audio", "OPUS")]).unwrap(),
            "H.264 video track required, the input has no video"
        );
    }

    fn caps(media: &str, encoding: &str, mark: Option<&str>) -> gst::Caps {
        gst::init().unwrap();
        let mut caps = gst::Caps::builder("application/x-rtp")
            .field("media", media)
            .field("encoding-name", encoding)
            .field("clock-rate", 48_000)
            .field("encoding-params", "2");
        if let Some(mark) = mark {
            caps = caps.field(mark.to_owned(), "");
        }
        caps.build()
    }

    #[test]
    fn a_way_to_talk_back_is_not_our_audio() {
        let offer = Offer::default();
        assert_eq!(
            offer.take(0, &caps("audio", "PCMU", Some("a-sendonly"))),
            None
        );
        assert_eq!(
            offer.take(1, &caps("video", "H264", None)),
            Some(Track::Video)
        );
        assert_eq!(
            offer.take(2, &caps("application", "VND.ONVIF.METADATA", None)),
            None
        );
        assert_eq!(
            offer.take(3, &caps("audio", "MPEG4-GENERIC", None)),
            Some(Track::Audio)
        );
        assert_eq!(offer.take(4, &caps("audio", "PCMA", None)), None);
        assert_eq!(offer.lacks(), None);
        assert_eq!(offer.track(3), Some(Track::Audio));

        let honest = Offer::default();
        honest.take(0, &caps("video", "H264", Some("a-sendonly")));
        assert_eq!(
            honest.take(1, &caps("audio", "OPUS", Some("a-sendonly"))),
            Some(Track::Audio)
        );

        let silent = Offer::default();
        silent.take(0, &caps("video", "H264", None));
        silent.take(1, &caps("audio", "PCMU", Some("a-sendonly")));
        assert_eq!(silent.lacks().unwrap(), "audio track required for dubbing");
    }

    #[test]
    fn aac_without_configuration_is_what_its_rtpmap_says() {
        let completed = completed(&caps("audio", "MPEG4-GENERIC", None)).unwrap();
        let structure = completed.structure(0).unwrap();
        assert_eq!(structure.get::<String>("config").unwrap(), "1190");
        assert_eq!(structure.get::<String>("sizelength").unwrap(), "13");
        assert_eq!(
            copied_format("MPEG4-GENERIC", &completed),
            Some(AacFormat::lc(48_000, 2))
        );
        assert_eq!(super::completed(&completed), None);
    }

    #[test]
    fn configurations_are_hexadecimal() {
        assert_eq!(unhex("1190"), Some(vec![0x11, 0x90]));
        assert_eq!(unhex("119"), None);
        assert_eq!(unhex("zz"), None);
    }
}
