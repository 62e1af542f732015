//! What a server offers, and which of it is taken: the first H.264 video, and the first audio that is ours
//! to hear and can be heard here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dub_engine::Track;
use gst::prelude::*;
use gst_sdp::{SDPMediaRef, SDPMessage, SDPMessageRef};

use super::super::aac::{AacFormat, FRAME_SAMPLES, SAMPLING_FREQUENCIES};
use super::telling::Telling;
use super::{IngestFact, chain};

/// Frames of MPEG audio: 1152 samples of at most 48 kHz.
const MPEG_FRAME: Duration = Duration::from_millis(24);

/// The offer of one connection.
#[derive(Clone, Default)]
pub(super) struct Offer(Arc<Mutex<Offered>>);

#[derive(Default)]
struct Offered {
    media: Vec<Medium>,
    /// Which of them are taken; `rtspsrc` numbers its streams alike.
    taken: BTreeMap<u32, Track>,
}

/// One medium of a description.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Medium {
    /// `video`, `audio` or something else.
    kind: String,
    /// In capitals; empty if it has no name.
    encoding: String,
    /// `sendonly` in its own lines.
    send_only: bool,
    inactive: bool,
    /// Whether this installation takes it out of RTP.
    usable: bool,
}

impl Medium {
    fn new(media: &SDPMediaRef) -> Self {
        let marked = |mark| media.attribute_val(mark).is_some();
        let format = media.format(0).and_then(|format| format.parse().ok());
        let mut caps = format.and_then(|format| media.caps_from_media(format));
        if let Some(structure) = caps
            .as_mut()
            .and_then(|caps| caps.make_mut().structure_mut(0))
        {
            structure.set_name("application/x-rtp");
        }
        Self {
            kind: media.media().unwrap_or_default().to_owned(),
            encoding: caps
                .as_ref()
                .map_or_else(String::new, |caps| media_of(caps).1),
            send_only: marked("sendonly"),
            inactive: marked("inactive"),
            usable: caps.is_some_and(|caps| is_usable(&caps)),
        }
    }
}

/// Whether anything takes such packets apart.
fn is_usable(caps: &gst::Caps) -> bool {
    let kind = gst::ElementFactoryType::DEPAYLOADER;
    let depayloaders = gst::ElementFactory::factories_with_type(kind, gst::Rank::MARGINAL);
    depayloaders.iter().any(|it| it.can_sink_any_caps(caps))
}

impl Offer {
    /// Chooses streams before any is set up.
    pub(super) fn watch(source: &gst::Element, telling: &Telling) -> Self {
        let offer = Self::default();
        let shared = offer.clone();
        source.connect("on-sdp", false, move |args| {
            if let Some(Ok(said)) = args.get(1).map(gst::glib::Value::get::<SDPMessage>) {
                shared.read(&said);
            }
            None
        });
        let (shared, telling) = (offer.clone(), telling.clone());
        source.connect("select-stream", false, move |args| {
            let number = args.get(1).and_then(|value| value.get::<u32>().ok());
            let caps = args.get(2).and_then(|value| value.get::<gst::Caps>().ok());
            let (number, caps) = number.zip(caps)?;
            let taken = shared.track(number);
            // Known before the first packet: time to prepare the dubbing.
            if taken == Some(Track::Audio) {
                let (_, encoding) = media_of(&caps);
                if let Some(format) = format_of(&encoding, &caps) {
                    telling.tell(format);
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

    /// What it lacks, if nothing of what there is is taken.
    pub(super) fn refused(&self) -> Option<String> {
        let offered = self.lock();
        let refused = offered.taken.is_empty() && !offered.media.is_empty();
        refused.then(|| missing_track(&offered.media)).flatten()
    }

    fn read(&self, description: &SDPMessageRef) {
        let media: Vec<_> = description.medias().map(Medium::new).collect();
        let mut offered = self.lock();
        offered.taken = chosen(&media);
        offered.media = media;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Offered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which media are taken, by number.
fn chosen(media: &[Medium]) -> BTreeMap<u32, Track> {
    // Of several, what is said to be off and what cannot be heard here comes last: some of it is sent all
    // the same, and what is wrong with it is said when it comes.
    let best = |is_ours: &dyn Fn(&Medium) -> bool| {
        let ours = media.iter().zip(0..).filter(|(it, _)| is_ours(it));
        let best = ours.min_by_key(|(it, number)| (it.inactive, !it.usable, *number));
        best.map(|(_, number)| number)
    };
    let video = best(&|it| it.kind == "video" && it.encoding == "H264");
    let audio = best(&|it| is_audio(it, media));
    let tracks = [(video, Track::Video), (audio, Track::Audio)];
    let taken = tracks.into_iter();
    taken
        .filter_map(|(number, track)| Some((number?, track)))
        .collect()
}

/// Whether a medium is audio that is ours to hear. ONVIF marks what cameras want to be sent `sendonly`: a
/// way to talk back. Servers that keep to RFC 8866 mark whatever they send, video too.
fn is_audio(medium: &Medium, media: &[Medium]) -> bool {
    let honest = || media.iter().any(|it| it.kind == "video" && it.send_only);
    medium.kind == "audio" && (!medium.send_only || honest())
}

/// The audio's format as the worker handles it, unless it has to be found out.
pub(super) fn format_of(encoding: &str, caps: &gst::Caps) -> Option<IngestFact> {
    let copied = copied_format(encoding, caps);
    if copied.is_none() && is_found_out(encoding, caps) {
        return None;
    }
    let bundled = match (&copied, encoding) {
        (Some(format), "MPEG4-GENERIC") => {
            let frame = format.nanos(u64::from(FRAME_SAMPLES));
            Some(Duration::from_nanos(frame.unsigned_abs()))
        }
        (None, "MPA" | "MPA-ROBUST" | "MPEG4-GENERIC") => Some(MPEG_FRAME),
        _ => None,
    };
    Some(IngestFact::AudioFormat {
        format: copied.unwrap_or_else(chain::converted_format),
        bundled,
    })
}

/// The format of audio that is copied as it comes, as far as it is described.
pub(super) fn copied_format(encoding: &str, caps: &gst::Caps) -> Option<AacFormat> {
    let structure = caps.structure(0)?;
    let config = match encoding {
        "MPEG4-GENERIC" => configuration(structure).or_else(|| described(structure))?,
        "MP4A-LATM" => plain_latm(structure)?.to_vec(),
        _ => return None,
    };
    AacFormat::from_config(&config)
}

/// The bytes of `config`, if there are any.
fn configuration(structure: &gst::StructureRef) -> Option<Vec<u8>> {
    let config = structure.get::<String>("config").ok()?;
    unhex(config.trim()).filter(|config| !config.is_empty())
}

/// Whether what the parser finds decides about the audio: LATM may carry its configuration among the
/// frames, or in a form that is not worth reading here.
pub(super) fn is_found_out(encoding: &str, caps: &gst::Caps) -> bool {
    let other = |config: [u8; 2]| AacFormat::from_config(&config).is_none();
    encoding == "MP4A-LATM" && !caps.structure(0).and_then(plain_latm).is_some_and(other)
}

/// The beginning of the configuration in LATM of the plain kind (ISO 14496-3, 1.7.3.2: one program, one
/// layer), where it begins at bit 15.
fn plain_latm(structure: &gst::StructureRef) -> Option<[u8; 2]> {
    match configuration(structure)?[..] {
        [0x40, b1 @ 0..=1, b2, b3, ..] => Some([b1 << 7 | b2 >> 1, b2 << 7 | b3 >> 1]),
        _ => None,
    }
}

/// What stands for a missing `config`: AAC-LC of the rate and channels that the `rtpmap` says.
fn described(structure: &gst::StructureRef) -> Option<Vec<u8>> {
    let rate = structure.get::<i32>("clock-rate").ok()?.unsigned_abs();
    let channels = structure.get::<String>("encoding-params").ok();
    let channels = channels.map_or(Some(1), |text| text.parse().ok())?;
    let known = SAMPLING_FREQUENCIES.contains(&rate) && (1..=6).contains(&channels);
    known.then(|| AacFormat::lc(rate, channels).config)
}

/// Adds what `rtpmp4gdepay` needs to caps that came without it.
pub(super) fn completed(caps: &gst::Caps) -> Option<gst::Caps> {
    let structure = caps.structure(0)?;
    let mut missing = Vec::new();
    if configuration(structure).is_none() {
        let config = described(structure)?;
        let config = config.iter().map(|byte| format!("{byte:02x}"));
        missing.push(("config", config.collect::<String>()));
    }
    // The usual mode, and its sizes.
    let mode = structure.get::<String>("mode").ok();
    let usual = mode
        .as_ref()
        .is_none_or(|mode| mode.eq_ignore_ascii_case("AAC-hbr"));
    if usual && mode.as_deref() != Some("AAC-hbr") {
        missing.push(("mode", "AAC-hbr".to_owned()));
    }
    for (field, value) in [
        ("sizelength", "13"),
        ("indexlength", "3"),
        ("indexdeltalength", "3"),
    ] {
        if usual && !structure.has_field(field) {
            missing.push((field, value.to_owned()));
        }
    }
    if missing.is_empty() {
        return None;
    }
    let mut caps = caps.copy();
    let structure = caps.get_mut()?.structure_mut(0)?;
    for (field, value) in missing {
        structure.set(field, value);
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

fn missing_track(media: &[Medium]) -> Option<String> {
    let videos = media.iter().filter(|medium| medium.kind == "video");
    let video: Vec<_> = videos.map(|medium| medium.encoding.as_str()).collect();
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
    let mut audio = media.iter().filter(|medium| is_audio(medium, media));
    match audio.clone().next() {
        None => Some("audio track required for dubbing".to_owned()),
        Some(_) if audio.all(|medium| medium.encoding.is_empty()) => Some(
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

    /// The offer of a description with these lines of media.
    fn offer(lines: &str) -> Offer {
        crate::init().unwrap();
        let text = format!("v=0\no=- 0 0 IN IP4 0.0.0.0\ns=-\nt=0 0\n{lines}\n");
        let offer = Offer::default();
        offer.read(&SDPMessage::parse_buffer(text.as_bytes()).unwrap());
        offer
    }

    fn lacks(lines: &str) -> Option<String> {
        offer(lines).lacks()
    }

    const VIDEO: &str = "m=video 0 RTP/AVP 96\na=rtpmap:96 H264/90000";
    const AAC: &str = "m=audio 0 RTP/AVP 97\na=rtpmap:97 mpeg4-generic/48000/2";
    const PCMU: &str = "m=audio 0 RTP/AVP 0";

    #[test]
    fn well_known_payload_types_need_no_rtpmap() {
        for (payload, encoding) in [
            (0, "PCMU"),
            (8, "PCMA"),
            (10, "L16"),
            (11, "L16"),
            (14, "MPA"),
            (97, ""),
        ] {
            let offer = offer(&format!("m=audio 0 RTP/AVP {payload}"));
            let medium = &offer.lock().media[0];
            let found = (medium.encoding.as_str(), medium.usable);
            assert_eq!(found, (encoding, payload != 97), "{payload}");
        }
    }

    #[test]
    fn an_offer_needs_h264_and_audio() {
        assert_eq!(lacks(&format!("{VIDEO}\n{AAC}")), None);
        for (lines, said) in [
            (VIDEO.to_owned(), "audio track required for dubbing"),
            (
                format!("{VIDEO}\nm=audio 0 RTP/AVP 97"),
                "audio track required for dubbing, the input's audio line names no format",
            ),
            (
                format!("m=video 0 RTP/AVP 96\na=rtpmap:96 H265/90000\n{AAC}"),
                "H.264 video track required, the input has H265",
            ),
            (
                AAC.to_owned(),
                "H.264 video track required, the input has no video",
            ),
            (
                format!("{VIDEO}\n{PCMU}\na=sendonly"),
                "audio track required for dubbing",
            ),
        ] {
            assert_eq!(lacks(&lines).as_deref(), Some(said), "{lines}");
        }
    }

    #[test]
    fn of_several_media_the_first_that_can_be_used_is_taken() {
        let jpeg = "m=video 0 RTP/AVP 26";
        let odd = "m=audio 0 RTP/AVP 99\na=rtpmap:99 VND.ODD/8000";
        let nameless = "m=audio 0 RTP/AVP 99";
        let data = "m=application 0 RTP/AVP 107\na=rtpmap:107 vnd.onvif.metadata/90000";
        for (lines, taken) in [
            (vec![VIDEO, data, AAC, PCMU], (0, 2)),
            (vec![AAC, VIDEO, VIDEO], (1, 0)),
            (vec![jpeg, VIDEO, odd, AAC], (1, 3)),
            (vec![VIDEO, nameless, PCMU], (0, 2)),
            // What nothing takes says what is wrong with it when it comes.
            (vec![VIDEO, odd], (0, 1)),
            // ONVIF's way to talk back is not ours to hear.
            (vec![PCMU, "a=sendonly", VIDEO, AAC], (1, 2)),
            // All that a server sends, in either order.
            (vec![AAC, "a=sendonly", VIDEO, "a=sendonly"], (1, 0)),
            (vec![VIDEO, "a=sendonly", AAC, "a=sendonly"], (0, 1)),
            // For the whole session.
            (vec!["a=sendonly", AAC, VIDEO], (1, 0)),
            // What is off comes last, and plays if it comes nevertheless.
            (vec![VIDEO, PCMU, "a=inactive", AAC], (0, 2)),
            (vec![VIDEO, "a=inactive", VIDEO, AAC], (1, 2)),
            (vec![VIDEO, AAC, "a=inactive"], (0, 1)),
        ] {
            let offer = offer(&lines.join("\n"));
            let number = |track| {
                let taken = offer.lock().taken.clone();
                taken.into_iter().find(|it| it.1 == track).unwrap().0
            };
            let found = (number(Track::Video), number(Track::Audio));
            assert_eq!(found, taken, "{lines:?}");
            assert_eq!(offer.lacks(), None);
        }
    }

    fn aac(encoding: &str, config: Option<&str>) -> gst::Caps {
        gst::init().unwrap();
        let caps = gst::Caps::builder("application/x-rtp")
            .field("media", "audio")
            .field("encoding-name", encoding)
            .field("clock-rate", 48_000)
            .field("encoding-params", "2");
        caps.field_if_some("config", config).build()
    }

    #[test]
    fn latm_says_what_it_is_in_its_configuration_or_the_parser_does() {
        // AAC-LC of 48 kHz stereo, of 16 kHz mono, of 32 kHz, HE-AAC, among the frames, unreadable. What is
        // described is told before the first frame: silence that stands in for it must be as long.
        let converted = Some((48_000, 2));
        for (config, found_out, told) in [
            (Some("400023203fc0"), true, Some((48_000, 2))),
            (Some("400028103fc0"), true, Some((16_000, 1))),
            (Some("400022a03fc0"), false, converted),
            (Some("40005323901a"), false, converted),
            (None, true, None),
            (Some("zz"), true, None),
        ] {
            let caps = aac("MP4A-LATM", config);
            let found = is_found_out("MP4A-LATM", &caps);
            assert_eq!(found, found_out, "{config:?}");
            let format = format_of("MP4A-LATM", &caps).map(|fact| match fact {
                IngestFact::AudioFormat {
                    format,
                    bundled: None,
                } => (format.rate, format.channels),
                other => panic!("{other:?}"),
            });
            assert_eq!(format, told, "{config:?}");
        }
    }

    #[test]
    fn aac_without_configuration_is_what_its_rtpmap_says() {
        for config in [Some(""), Some("zz")] {
            assert!(completed(&aac("MPEG4-GENERIC", config)).is_some());
        }
        let completed = completed(&aac("MPEG4-GENERIC", None)).unwrap();
        let structure = completed.structure(0).unwrap();
        assert_eq!(structure.get::<String>("config").unwrap(), "1190");
        assert_eq!(structure.get::<String>("sizelength").unwrap(), "13");
        assert_eq!(
            copied_format("MPEG4-GENERIC", &completed),
            Some(AacFormat::lc(48_000, 2))
        );
        assert_eq!(super::completed(&completed), None);
    }

    /// What is not copied needs it no less.
    #[test]
    fn aac_of_any_rate_gets_the_configuration_of_its_rtpmap() {
        for (rate, channels, config) in [
            (8_000, None, "1588"),
            (24_000, Some("1"), "1308"),
            (32_000, Some("2"), "1290"),
            (48_000, Some("6"), "11b0"),
        ] {
            let mut caps = aac("MPEG4-GENERIC", None);
            let structure = caps.get_mut().unwrap().structure_mut(0).unwrap();
            structure.set("clock-rate", rate);
            structure.remove_field("encoding-params");
            structure.set_if_some("encoding-params", channels);
            let completed = completed(&caps).unwrap();
            let found = completed.structure(0).unwrap().get::<String>("config");
            assert_eq!(found.unwrap(), config);
            assert_eq!(copied_format("MPEG4-GENERIC", &caps), None, "{rate}");
        }
    }

    /// The depayloader takes no caps without a mode, and knows it in these letters only.
    #[test]
    fn aac_without_a_mode_or_in_other_letters_is_of_the_usual_one() {
        crate::init().unwrap();
        for mode in [None, Some("AAC-HBR")] {
            let mut caps = aac("MPEG4-GENERIC", Some("1190"));
            let structure = caps.get_mut().unwrap().structure_mut(0).unwrap();
            if let Some(mode) = mode {
                structure.set("mode", mode);
            }
            let completed = super::completed(&caps).unwrap();
            let sink = gst::ElementFactory::make("rtpmp4gdepay").build().unwrap();
            let sink = sink.static_pad("sink").unwrap();
            assert!(
                completed.is_subset(&sink.pad_template_caps()),
                "{completed}"
            );
        }
    }

    #[test]
    fn configurations_are_hexadecimal() {
        assert_eq!(unhex("1190"), Some(vec![0x11, 0x90]));
        assert_eq!(unhex("119"), None);
        assert_eq!(unhex("zz"), None);
    }
}
