//! Whose answer is whose: facts as the STS client tells them, real decoders, no service.

use clap::Parser as _;
use dub_engine::{Gone, Outcome};

use super::*;
use crate::cli::Cli;

const PATIENCE: Duration = Duration::from_secs(10);
const LINK: u32 = 1;
/// AAC frames of a segment.
const FRAMES: usize = 94;
/// Levels of left and right, per batch.
const LEVELS: [[f32; 2]; 3] = [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]];

fn fragment() -> FragmentAudio {
    FragmentAudio {
        pts: 5,
        frames: FRAMES,
        m4a: vec![1, 2, 3],
    }
}

/// A session that has sent the fragments of the first segments: their ids, by batch.
fn sent(segments: u64) -> (Dubbing, Vec<FragmentId>) {
    dub_media::init().unwrap();
    let cli = ["worker", "--sts-service-url", "http://127.0.0.1:1"];
    let mut dubbing = Dubbing::new(&Config::from(&Cli::try_parse_from(cli).unwrap())).unwrap();
    dubbing.start(At::ZERO, &AacFormat::lc(48_000, 2));
    let ready = SessionFact::Ready {
        link: LINK,
        max_inflight: Some(3),
    };
    for input in [SessionFact::Connected { link: LINK }, ready] {
        while dubbing.poll_order(At::ZERO).is_some() {}
        dubbing.handle(At::ZERO, input.into());
    }
    for batch in 0..segments {
        dubbing.segment_ready(At::ZERO, batch, Some(fragment()));
    }
    let mut ids = Vec::new();
    while let Some(order) = dubbing.poll_order(At::ZERO) {
        if let DubbingOrder::Event(Event::FragmentSent {
            batch, fragment_id, ..
        }) = order
        {
            assert_eq!(batch, ids.len() as u64);
            ids.push(fragment_id);
        }
    }
    assert_eq!(ids.len() as u64, segments);
    (dubbing, ids)
}

/// An answer as long as a segment: its channels stand still at their levels.
fn answer(batch: usize) -> DubbedAudio {
    let pair = LEVELS[batch].map(|level| (level * f32::from(i16::MAX)) as i16);
    let bytes: Vec<u8> = pair
        .map(i16::to_le_bytes)
        .concat()
        .repeat(FRAMES * FRAME_SAMPLES as usize);
    DubbedAudio {
        format: "pcm_s16le".to_owned(),
        sample_rate: Some(48_000),
        channels: Some(2),
        duration_ms: None,
        bytes: bytes.into(),
        transcript: format!("original {batch}"),
        translated_text: format!("dub {batch}"),
    }
}

fn processed(ids: &[FragmentId], batch: usize, audio: DubbedAudio) -> StsFact {
    let input = SessionFact::Processed {
        link: LINK,
        id: ids[batch].to_string(),
        sequence: Some(batch as u64),
        outcome: Outcome::Audio,
    };
    StsFact {
        input,
        audio: Some(Ok(audio)),
    }
}

async fn verdict(dubbing: &mut Dubbing) -> Decoded {
    let decoded = tokio::time::timeout(PATIENCE, dubbing.decoded.recv()).await;
    decoded.expect("a decoder is done in time").unwrap()
}

/// What is ordered to be published: batch, levels in its middle if dubbed, words.
fn published(dubbing: &mut Dubbing) -> Vec<(u64, Option<[f32; 2]>, String)> {
    let mut all = Vec::new();
    while let Some(order) = dubbing.poll_order(At::ZERO) {
        if let DubbingOrder::Publish {
            batch,
            dubbed,
            words,
        } = order
        {
            let middle = dubbed.map(|pcm| {
                let at = pcm.frames() / 2 * 2;
                [pcm.samples[at], pcm.samples[at + 1]]
            });
            all.push((batch, middle, words.transcript + "/" + &words.translated));
        }
    }
    all
}

fn require_own(published: &[(u64, Option<[f32; 2]>, String)], batches: &[u64]) {
    let found: Vec<_> = published.iter().map(|(batch, ..)| *batch).collect();
    assert_eq!(found, batches);
    for (batch, levels, words) in published {
        let levels = levels.unwrap_or_else(|| panic!("{batch} is not dubbed"));
        let own = LEVELS[*batch as usize];
        let near = levels
            .iter()
            .zip(own)
            .all(|(is, own)| (is - own).abs() < 0.01);
        assert!(
            near,
            "left and right of {batch} are {levels:?}, its answer's are {own:?}"
        );
        assert_eq!(*words, format!("original {batch}/dub {batch}"));
    }
}

/// Answers that arrive together, in any order, and whose decoders end in any order.
#[tokio::test]
async fn answers_that_come_together_are_each_their_own_segments() {
    for (arrive, checked) in [
        ([0, 1, 2], [2, 1, 0]),
        ([2, 1, 0], [0, 2, 1]),
        ([1, 0, 2], [1, 2, 0]),
    ] {
        let (mut dubbing, ids) = sent(3);
        for batch in arrive {
            dubbing.handle(At::ZERO, processed(&ids, batch, answer(batch)));
        }
        let mut all = published(&mut dubbing);
        let mut verdicts = BTreeMap::new();
        for _ in 0..3 {
            let decoded = verdict(&mut dubbing).await;
            verdicts.insert(decoded.batch, decoded);
        }
        for batch in checked {
            dubbing.checked(At::ZERO, verdicts.remove(&batch).unwrap());
            all.extend(published(&mut dubbing));
        }
        require_own(&all, &[0, 1, 2]);
        assert!(dubbing.fragments.is_empty(), "what is used up is not kept");
    }
}

/// Neither before it is looked at nor while it is being decoded.
#[tokio::test]
async fn a_repeated_answer_never_replaces_the_first() {
    let (mut dubbing, ids) = sent(1);
    dubbing.handle(At::ZERO, processed(&ids, 0, answer(0)));
    dubbing.handle(At::ZERO, processed(&ids, 0, answer(1)));
    assert_eq!(published(&mut dubbing), []);
    dubbing.handle(At::ZERO, processed(&ids, 0, answer(2)));
    assert_eq!(published(&mut dubbing), []);
    let decoded = verdict(&mut dubbing).await;
    dubbing.checked(At::ZERO, decoded);
    require_own(&published(&mut dubbing), &[0]);
    assert!(dubbing.held.is_empty(), "what is used up is not kept");
}

/// `applied` is said when the dub is mixed, not when it is decided.
#[tokio::test]
async fn applied_waits_for_the_mixer() {
    let (mut dubbing, ids) = sent(2);
    for batch in [0, 1] {
        dubbing.handle(At::ZERO, processed(&ids, batch, answer(batch)));
    }
    assert_eq!(published(&mut dubbing), []);
    for _ in 0..2 {
        let decoded = verdict(&mut dubbing).await;
        dubbing.checked(At::ZERO, decoded);
    }
    require_own(&published(&mut dubbing), &[0, 1]);
    dubbing.acks.end(At::ZERO, LINK);
    for (batch, more) in [(0, true), (1, false)] {
        dubbing.mixed(batch, true);
        let waits = dubbing.acks.poll_timeout().is_some();
        assert_eq!(waits, more, "the end, for what is said after batch {batch}");
    }
}

/// The session has given up on it: what the decoder found is not kept for ever.
#[tokio::test]
async fn a_verdict_that_comes_too_late_is_not_kept() {
    let (mut dubbing, ids) = sent(1);
    dubbing.handle(At::ZERO, processed(&ids, 0, answer(0)));
    assert_eq!(published(&mut dubbing), []);
    let late = verdict(&mut dubbing).await;
    dubbing.wake(At::from_millis(8_000));
    assert_eq!(published(&mut dubbing), [(0, None, "/".to_owned())]);
    assert!(dubbing.fragments.is_empty());
    dubbing.checked(At::from_millis(8_001), late);
    assert_eq!(published(&mut dubbing), []);
    assert!(dubbing.held.is_empty());
}

#[test]
fn client_and_session_are_set_up_as_the_options_say() {
    let args = [
        "worker",
        "--stream-id=match7",
        "--worker-id=w7",
        "--sts-service-url=http://sts/dub",
        "--sts-token=t0ken",
        "--source-lang=de",
        "--target-lang=fr",
        "--tts-voice=anna",
        "--segment-duration=4s",
        "--sts-timeout-ms=7000",
        "--sts-max-inflight=5",
        "--sts-max-silence=90s",
        "--sts-gone=original",
        "--breaker-failures=7",
        "--breaker-cooldown=11s",
    ];
    let config = Config::from(&Cli::try_parse_from(args).unwrap());
    let client = client_config(&config);
    assert_eq!(client.url, "http://sts/dub");
    assert_eq!((&*client.stream_id, &*client.worker_id), ("match7", "w7"));
    assert_eq!(client.token.as_ref().map(Secret::expose), Some("t0ken"));
    assert_eq!(client.max_silence, Duration::from_secs(90));
    let init = InitParams {
        source_language: "de".to_owned(),
        target_language: "fr".to_owned(),
        voice_profile: "anna".to_owned(),
        chunk_ms: 4_000,
        max_inflight: 5,
        timeout_ms: 7_000,
        ..InitParams::default()
    };
    assert_eq!(client.init, init);
    let session = session_config(&config);
    assert!(session.enabled && session.gone == Gone::Original);
    assert_eq!((session.max_inflight, session.breaker_failures), (5, 7));
    assert_eq!(session.fragment_timeout, Duration::from_secs(7));
    assert_eq!(session.breaker_cooldown, Duration::from_secs(11));
    assert_eq!(session.max_message, sts_client::MAX_MESSAGE);
    // Two workers of one stream never use an id twice.
    assert_ne!(session.id_seed, session_config(&config).id_seed);
    let passing = Config::from(&Cli::try_parse_from(["worker", "--sts-mode=passthrough"]).unwrap());
    assert!(!session_config(&passing).enabled);
}

#[test]
fn what_is_not_sent_is_not_kept() {
    let cli = ["worker", "--sts-mode=passthrough"];
    let mut dubbing = Dubbing::new(&Config::from(&Cli::try_parse_from(cli).unwrap())).unwrap();
    dubbing.start(At::ZERO, &AacFormat::lc(48_000, 2));
    for batch in 0..3 {
        dubbing.segment_ready(At::ZERO, batch, Some(fragment()));
    }
    assert_eq!(published(&mut dubbing).len(), 3);
    assert!(dubbing.fragments.is_empty());
}

/// Services believe it.
#[test]
fn the_service_is_told_what_the_input_is() {
    let cli = Cli::try_parse_from(["worker"]).unwrap();
    let mut dubbing = Dubbing::new(&Config::from(&cli)).unwrap();
    let format = AacFormat::lc(44_100, 1);
    dubbing.start(At::ZERO, &format);
    let asks = dubbing.client.as_ref().unwrap().asks();
    assert_eq!((asks.rate, asks.channels), (44_100, 1));
    let id = FragmentId::parse("7f3c1f9e-4a57-4c11-9d2b-0a5f6f1c2d3e").unwrap();
    let mut fragment = fragment();
    let sent = outgoing(&mut fragment, &format, id, 4);
    assert_eq!((sent.id, sent.sequence), (id.to_string(), 4));
    assert_eq!((sent.pts_ns, sent.source_pts_ns), (5, 5));
    // 94 frames.
    assert_eq!(sent.duration_ms, 2_182);
    assert_eq!((sent.sample_rate, sent.channels), (44_100, 1));
    assert_eq!(&sent.m4a[..], [1, 2, 3]);
    assert!(fragment.m4a.is_empty(), "it is not kept twice");
}
