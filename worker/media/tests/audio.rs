//! What an STS service may answer, made by ffmpeg, decoded by the worker: the content
//! decides, the length fits, and the sound sits where it belongs.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what it expects by unwrapping it"
)]

use std::time::Duration;

use dub_engine::{DubFit, DubFitConfig, DubFitMode};
use dub_media::aac::AacFormat;
use dub_media::audio::{self, AudioError, Budget, Label, Pcm};
use dub_media::encoder::{Encoder, silent_frame};
use dub_media::{AacFrame, fit, m4a};
use e2e_ffmpeg::Codec;

const RATE: usize = 48_000;
const SEGMENT: usize = 288_000 - 288_000 % 1024;
/// A shorter one, where many are decoded.
const PART: usize = 94 * 1024;

/// `pcm` in a slot of `want`, as `--dub-fit refuse` has it.
fn fitted(pcm: &Pcm, want: usize) -> Result<Pcm, AudioError> {
    let config = DubFitConfig {
        mode: DubFitMode::Refuse,
        max_speed: 1.0,
        spill: Duration::ZERO,
        rate: 48_000,
    };
    let answer = fit::measure(pcm, 48_000);
    let placed = DubFit::new(config).place(answer, want as u64, want as u64);
    let mut pcm = fit::lay(pcm, &placed.map_err(AudioError::WrongLength)?, want, 48_000).unwrap();
    pcm.samples.resize(want * pcm.channels, 0.0);
    Ok(pcm)
}

fn format() -> AacFormat {
    gst_init();
    AacFormat::lc(48_000, 2)
}

/// What a service says of sound of that format.
fn label(format: &str) -> Label<'_> {
    Label {
        format,
        rate: 48_000,
        channels: 2,
    }
}

fn gst_init() {
    dub_media::init().expect("the machine has the plugins: cargo xtask setup");
}

fn budget() -> Budget {
    Budget {
        time: Duration::from_secs(20),
        frames: 100 * RATE,
    }
}

/// A melody with a new pitch every 50 ms: alike nowhere but at the right place.
fn melody(frames: usize) -> Vec<f32> {
    let mut phase = 0.0_f64;
    let mut samples = Vec::with_capacity(frames * 2);
    let mut note = 1_u32;
    let mut pitch = 300.0;
    for n in 0..frames {
        if n % 2_400 == 0 {
            note = note.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            pitch = 250.0 + f64::from(note >> 20) * 0.6;
        }
        phase += 2.0 * std::f64::consts::PI * pitch / RATE as f64;
        let x = (0.4 * phase.sin()) as f32;
        samples.extend([x, x]);
    }
    samples
}

/// An answer of an STS service.
fn answer(samples: &[f32], codec: Codec, rate: u32, channels: u32) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let bytes: Vec<u8> = samples.iter().flat_map(|x| x.to_le_bytes()).collect();
    e2e_ffmpeg::encode_answer(codec, rate, channels, &out)
        .feed(&bytes)
        .unwrap();
    std::fs::read(out).unwrap()
}

/// By how many samples `got` is late against `want`, measured on one channel at `at`.
fn lag(want: &[f32], got: &[f32], at: usize) -> i64 {
    let window = 4_800;
    (-2_400_i64..=2_400)
        .max_by(|a, b| {
            let score = |lag: i64| -> f64 {
                (0..window)
                    .step_by(2)
                    .map(|n| {
                        let from = (at + n) as i64 + lag;
                        f64::from(want[2 * (at + n)]) * f64::from(got[2 * from as usize])
                    })
                    .sum()
            };
            score(*a).total_cmp(&score(*b))
        })
        .unwrap()
}

/// Who streams a WAV does not know its length yet.
#[test]
fn a_wav_that_does_not_know_its_length_is_heard_whole() {
    let format = format();
    let sound = melody(PART);
    let label = label("wav");
    let whole = answer(&sound, Codec::Wav, 48_000, 2);
    let expected = audio::decode(whole.clone(), label, &format, PART, budget()).unwrap();
    let data = whole.windows(4).position(|w| w == b"data").unwrap() + 4;
    for (riff, length) in [
        (0, 0),
        (0x7fff_ffff, 0x7fff_ffff),
        (u32::MAX, u32::MAX),
        (u32::MAX, 0),
        (0, u32::MAX),
        (36, u32::MAX - 36),
    ] {
        let mut file = whole.clone();
        file[4..8].copy_from_slice(&u32::to_le_bytes(riff));
        file[data..data + 4].copy_from_slice(&u32::to_le_bytes(length));
        let found = audio::decode(file, label, &format, PART, budget()).unwrap();
        assert_eq!(found.frames(), PART, "{riff:x} {length:x}");
        assert_eq!(found, expected, "{riff:x} {length:x}");
    }
}

/// A template's bytes a second and a frame, and a label that says raw samples.
#[test]
fn a_wav_whose_header_is_wrong_about_itself_is_heard_all_the_same() {
    gst_init();
    let (format, sound) = (format(), melody(PART));
    let good = answer(&sound, Codec::Wav, 48_000, 1);
    let decoded = |wav: Vec<u8>, name| {
        audio::decode(wav, label(name), &format, PART, budget()).map(|pcm| pcm.samples)
    };
    let wanted = decoded(good.clone(), "wav").unwrap();
    for (second, frame) in [(0, 0), (u32::MAX, 2), (192_000, 4), (48_000, 1)] {
        let mut wav = good.clone();
        wav[28..32].copy_from_slice(&second.to_le_bytes());
        wav[32..34].copy_from_slice(&u16::to_le_bytes(frame));
        for name in ["wav", "pcm_s16le"] {
            let got = decoded(wav.clone(), name);
            assert!(got.as_ref() == Ok(&wanted), "{second} {frame} {name}");
        }
    }
}

#[test]
fn every_usual_kind_of_answer_is_decoded_and_sits_in_place() {
    let format = format();
    let sound = melody(SEGMENT);
    for (name, codec, rate, channels) in [
        ("m4a 48k", Codec::M4a, 48_000, 2),
        ("m4a 44.1k", Codec::M4a, 44_100, 2),
        ("m4a 24k mono", Codec::M4a, 24_000, 1),
        ("adts", Codec::Adts, 48_000, 2),
        ("wav 48k", Codec::Wav, 48_000, 2),
        ("wav 8k mono", Codec::Wav, 8_000, 1),
        ("wav 96k", Codec::Wav, 96_000, 2),
        ("wav 22.05k float", Codec::WavFloat, 22_050, 2),
        ("mp3 48k", Codec::Mp3, 48_000, 2),
        ("mp3 24k mono", Codec::Mp3, 24_000, 1),
        ("ogg vorbis", Codec::Vorbis, 48_000, 2),
        ("ogg opus", Codec::Opus, 48_000, 2),
    ] {
        let data = answer(&sound, codec, rate, channels);
        // The label is a lie: only the content counts.
        let label = Label {
            format: "m4a",
            rate: 16_000,
            channels: 1,
        };
        let pcm = audio::decode(data, label, &format, SEGMENT, budget())
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let surplus = pcm.frames() as i64 - SEGMENT as i64;
        assert!(
            surplus.abs() < 4_000,
            "{name}: {surplus} samples more than the segment"
        );
        let pcm = fitted(&pcm, SEGMENT).unwrap();
        assert_eq!(pcm.frames(), SEGMENT, "{name}");
        for at in [48_000, 240_000] {
            let lag = lag(&sound, &pcm.samples, at);
            assert!(lag.abs() <= 96, "{name}: {lag} samples late at {at}");
        }
    }
}

/// Every kind at every rate it has, mono and stereo. An encoder's priming lasts as long as its rate
/// is low: ADTS of 8 kHz once sounded 107 ms late.
#[test]
fn every_rate_of_every_kind_sits_in_place() {
    const ALL: &[u32] = &[
        8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200,
        96_000,
    ];
    let kinds: [(&str, Codec, &[u32]); 8] = [
        ("m4a", Codec::M4a, ALL),
        ("m4a without an edit list", Codec::M4aWithoutEdits, ALL),
        ("adts", Codec::Adts, ALL),
        ("wav", Codec::Wav, ALL),
        ("pcm_s16le", Codec::Pcm, ALL),
        (
            "mp3",
            Codec::Mp3,
            &[
                8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000,
            ],
        ),
        ("vorbis", Codec::Vorbis, ALL),
        (
            "opus",
            Codec::Opus,
            &[8_000, 12_000, 16_000, 24_000, 48_000],
        ),
    ];
    let format = format();
    let sound = melody(PART);
    let mut wrong = Vec::new();
    for (kind, codec, rates) in kinds {
        for (rate, channels) in rates.iter().flat_map(|rate| [(*rate, 1), (*rate, 2)]) {
            let data = answer(&sound, codec, rate, channels);
            let label = Label {
                format: kind.split(' ').next().unwrap_or_default(),
                rate,
                channels,
            };
            let fitted = audio::decode(data, label, &format, PART, budget())
                .and_then(|pcm| fitted(&pcm, PART));
            match fitted {
                Ok(pcm) => {
                    let lag = lag(&sound, &pcm.samples, 40_000);
                    if pcm.frames() != PART || lag.abs() > 144 {
                        wrong.push(format!(
                            "{kind} {rate} Hz, {channels} channels: {lag} samples late"
                        ));
                    }
                }
                Err(error) => wrong.push(format!("{kind} {rate} Hz, {channels} channels: {error}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A service that speaks sentence by sentence puts the files one behind the other.
#[test]
fn files_behind_one_another_are_heard_one_after_the_other() {
    let format = format();
    let sound = melody(PART);
    let label = label("wav");
    let decode = |data| audio::decode(data, label, &format, PART, budget()).unwrap();
    for codec in [
        Codec::Wav,
        Codec::M4a,
        Codec::Adts,
        Codec::Mp3,
        Codec::Vorbis,
        Codec::Opus,
    ] {
        let third = PART / 3;
        let parts = sound
            .chunks(third * 2)
            .filter(|part| part.len() == third * 2);
        let data: Vec<u8> = parts
            .flat_map(|part| answer(part, codec, 48_000, 2))
            .collect();
        let pcm = decode(data);
        let surplus = pcm.frames() as i64 - 3 * third as i64;
        assert!(surplus.abs() < 3 * 2_400, "{codec:?}: {surplus}");
        if codec == Codec::Wav {
            let whole = decode(answer(&sound[..3 * 2 * third], codec, 48_000, 2));
            assert_eq!(pcm, whole);
        }
    }
    // Far more files than a service speaks sentences.
    let many = answer(&sound[..960], Codec::Wav, 48_000, 2).repeat(1_000);
    assert_eq!(decode(many).frames(), 32 * 480);
}

/// Services name the same kinds in many ways; raw samples only in ours.
#[test]
fn usual_names_are_known() {
    let format = format();
    let sound = melody(PART);
    let decode = |codec, name| {
        let label = label(name);
        audio::decode(
            answer(&sound, codec, 48_000, 2),
            label,
            &format,
            PART,
            budget(),
        )
    };
    for (codec, name) in [
        (Codec::Wav, "audio/wav"),
        (Codec::Wav, "audio/x-wav; rate=48000"),
        (Codec::Wav, "WAVE"),
        (Codec::Wav, "audio/vnd.wave"),
        (Codec::Mp3, "audio/mpeg"),
        (Codec::Opus, "audio/ogg; codecs=opus"),
        (Codec::M4a, "audio/x-m4a"),
        (Codec::Adts, "audio/aac"),
    ] {
        assert!(decode(codec, name).is_ok(), "{name}");
    }
    for name in ["audio/pcm", "pcm_mulaw", "audio/l16", "x-raw"] {
        assert!(decode(Codec::Pcm, name).is_err(), "{name}");
    }
}

#[test]
fn raw_samples_are_believed_as_labelled() {
    let format = format();
    let sound = melody(SEGMENT);
    let data = answer(&sound, Codec::Pcm, 16_000, 1);
    let label = Label {
        format: "pcm_s16le",
        rate: 16_000,
        channels: 1,
    };
    let pcm = audio::decode(data, label, &format, SEGMENT, budget()).unwrap();
    assert!(
        (pcm.frames() as i64 - SEGMENT as i64).abs() < 64,
        "{}",
        pcm.frames()
    );
    assert!(lag(&sound, &pcm.samples, 100_000).abs() <= 48);
}

#[test]
fn what_is_no_audio_is_refused_in_bounded_time() {
    let format = format();
    let label = label("m4a");
    let tone = answer(&melody(SEGMENT), Codec::M4a, 48_000, 2);
    let noise: Vec<u8> = (0..100_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    for (name, data) in [
        ("empty", Vec::new()),
        ("text", b"<html>502 Bad Gateway</html>".repeat(100)),
        ("noise", noise),
        ("cut off before the index", tone[..tone.len() / 2].to_vec()),
        ("four bytes", vec![0xff, 0xf1, 0, 0]),
    ] {
        let started = std::time::Instant::now();
        let result = audio::decode(data, label, &format, SEGMENT, budget())
            .and_then(|pcm| fitted(&pcm, SEGMENT));
        assert!(result.is_err(), "{name} was taken for audio");
        assert!(
            started.elapsed() < Duration::from_secs(21),
            "{name}: {:?}",
            started.elapsed()
        );
    }
}

/// One such sample got as far as the encoder, which then gave nothing any more: the stream ended.
#[test]
fn samples_that_are_no_sound_are_refused() {
    let format = format();
    let label = label("wav");
    let with = |sample: f32| {
        let mut sound = melody(PART);
        sound[10_000] = sample;
        let wav = answer(&sound, Codec::WavFloat, 48_000, 2);
        audio::decode(wav, label, &format, PART, budget())
    };
    for sample in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1e30, 32_767.0] {
        let refused = matches!(with(sample), Err(AudioError::Undecodable(_)));
        assert!(refused, "{sample} was taken for sound");
    }
    let loud = with(1.5).expect("a little loud is still sound");
    assert!(loud.samples.contains(&1.5));
}

#[test]
fn far_too_much_audio_stops_at_the_budget() {
    let format = format();
    let label = label("pcm_s16le");
    let small = Budget {
        time: Duration::from_secs(20),
        frames: 96_000,
    };
    let result = audio::decode(vec![0; 4 * 480_000], label, &format, SEGMENT, small);
    assert_eq!(result, Err(AudioError::TooLong(96_000)));
}

#[test]
fn a_decoder_that_takes_too_long_is_left_alone() {
    let format = format();
    let label = label("mp3");
    let minute = answer(&melody(60 * RATE), Codec::Mp3, 48_000, 2);
    let hasty = Budget {
        time: Duration::from_millis(5),
        frames: 100 * RATE,
    };
    let started = std::time::Instant::now();
    let result = audio::decode(minute.clone(), label, &format, SEGMENT, hasty);
    assert_eq!(result, Err(AudioError::TooSlow(hasty.time)));
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
    // It was only the time: the same audio decodes.
    assert!(audio::decode(minute, label, &format, SEGMENT, budget()).is_ok());
}

/// The recipe of the fragments: cut a running AAC stream anywhere, wrap each part with one
/// frame of pre-roll, decode it on its own, put the parts together: nothing is lost.
#[test]
fn fragments_echoed_back_are_bit_for_bit_the_uninterrupted_stream() {
    let format = format();
    let mut encoder = Encoder::start(&format).unwrap();
    let mut frames = encoder.push(&melody(30 * RATE)).unwrap();
    frames.extend(encoder.finish().unwrap());
    let whole = audio::decode_frames(&format, None, &frames, budget()).unwrap();

    let mut joined: Vec<f32> = Vec::new();
    let mut preroll: Option<AacFrame> = None;
    for part in frames.chunks(281) {
        let slices: Vec<&[u8]> = part.iter().map(|frame| &frame[..]).collect();
        let file = m4a::write(&format, preroll.as_deref(), &slices);
        let label = label("m4a");
        let want = part.len() * 1024;
        let pcm = audio::decode(file, label, &format, want, budget()).unwrap();
        assert_eq!(pcm.frames(), want);
        joined.extend(pcm.samples);
        preroll = part.last().cloned();
    }
    assert_eq!(joined.len(), whole.samples.len());
    let difference = joined
        .iter()
        .zip(&whole.samples)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    // The encoder substitutes noise for noise, and a decoder makes it anew: -80 dB at most.
    assert!(difference < 2e-4, "largest difference {difference}");

    // The defect this is meant to catch: without the pre-roll, every join is damaged.
    let bare = audio::decode_frames(&format, None, &frames[281..562], budget()).unwrap();
    let damage = bare.samples[..2_048]
        .iter()
        .zip(&whole.samples[281 * 2_048..])
        .map(|(a, b)| (a - b).abs());
    assert!(damage.fold(0.0, f32::max) > 0.05);
}

#[test]
fn ffmpeg_plays_a_fragment_to_exactly_its_length() {
    let format = format();
    let mut encoder = Encoder::start(&format).unwrap();
    let frames = encoder.push(&melody(8 * RATE)).unwrap();
    let slices: Vec<&[u8]> = frames[100..200].iter().map(|frame| &frame[..]).collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fragment.m4a");
    std::fs::write(&path, m4a::write(&format, Some(&frames[99]), &slices)).unwrap();
    let call = e2e_ffmpeg::decode_sound(&path);
    let out = call.started(call.command().output()).unwrap();
    assert!(
        out.status.success() && out.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    assert_eq!(out.stdout.len(), 100 * 1024 * 2 * 4);
}

#[test]
fn a_silent_frame_is_silent_between_loud_ones() {
    gst_init();
    for (rate, channels) in [(48_000, 2), (48_000, 1), (44_100, 2), (16_000, 1)] {
        let format = AacFormat::lc(rate, channels);
        let mut encoder = Encoder::start(&format).unwrap();
        let loud = melody(8 * 1024);
        let loud = encoder.push(&loud[..8 * 1024 * channels as usize]).unwrap();
        let silence = silent_frame(channels);
        let mut frames = vec![silence; 4];
        frames.extend(loud[4..].iter().cloned());
        let pcm = audio::decode_frames(&format, Some(&loud[3]), &frames, budget()).unwrap();
        let frame = 1024 * channels as usize;
        assert_eq!(pcm.samples.len(), frames.len() * frame);
        let (first, rest) = pcm.samples.split_at(frame);
        let (quiet, after) = rest.split_at(3 * frame);
        assert!(quiet.iter().all(|x| *x == 0.0), "{format:?}");
        let heard = |samples: &[f32]| samples.iter().any(|x| x.abs() > 0.05);
        assert!(heard(first) && heard(after), "{format:?}");
    }
}
