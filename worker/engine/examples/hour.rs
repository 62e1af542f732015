//! An hour of stream through every decision of the worker, for `cargo xtask bench` to time: 30 pictures
//! and 46.9 AAC frames a second, packets, reports, segments, an answer for each, and the moment of each
//! unit that leaves. Says how many segments were dubbed.

use std::time::Duration;

use dub_engine::timeline::Picture;
use dub_engine::{
    At, AudioFrame, AvSync, AvSyncConfig, DtsAssigner, Outcome, Pair, Placed, Playout,
    PlayoutConfig, Pts, Resolution, Segmenter, SegmenterConfig, Session, SessionConfig,
    SessionFact, SessionOrder, Timeline, TimelineConfig, Track, VideoUnit,
};

const HOUR: i64 = 3_600_000_000_000;
const PICTURE: i64 = 1_000_000_000 / 30;
const FRAME: i64 = 1_024 * 1_000_000_000 / 48_000;

fn main() {
    let mut timeline = Timeline::<(), ()>::new(
        TimelineConfig {
            report_wait: Duration::from_millis(5_400),
            patience: Duration::from_secs(6),
            frame: Duration::from_nanos(FRAME as u64),
            bundled: None,
        },
        Pts::from_nanos(0),
    );
    let mut segmenter = Segmenter::new(SegmenterConfig {
        max_wait: Duration::from_secs(20),
        ..SegmenterConfig::default()
    });
    let mut session = Session::new(SessionConfig::default());
    let (mut dts, mut sync) = (DtsAssigner::new(), AvSync::new(AvSyncConfig::default()));
    let mut playout = Playout::new(PlayoutConfig::default());
    let (mut spans, mut dubbed, mut left) = (std::collections::VecDeque::new(), 0_u64, 0_u64);
    session.handle(At::ZERO, SessionFact::Start);
    let (mut pictures, mut frames, mut reports) = (0, 0, 0);
    loop {
        let (picture, frame) = (pictures * PICTURE, frames * FRAME);
        let now = picture.min(frame);
        if now >= HOUR {
            break;
        }
        let at = At::new(Duration::from_nanos(now as u64));
        if picture <= frame {
            let kind = if pictures % 30 == 0 {
                Picture::Key
            } else {
                Picture::Predicted
            };
            timeline.video(at, Some(picture), kind, ());
            pictures += 1;
        } else {
            timeline.packet(at, frame);
            timeline.audio(at, Some(frame), ());
            frames += 1;
        }
        if now >= reports * 5_000_000_000 {
            timeline.report(at, Track::Video, now, now, true);
            timeline.report(at, Track::Audio, now, now, true);
            reports += 1;
        }
        while let Some(placed) = timeline.poll() {
            match placed {
                Placed::Video { pts, keyframe, .. } => segmenter.video(VideoUnit {
                    pts,
                    keyframe,
                    payload: (),
                }),
                Placed::Audio { pts, .. } | Placed::Silence { pts } => {
                    segmenter.audio(AudioFrame {
                        pts,
                        duration: Duration::from_nanos(FRAME as u64),
                        level: None,
                        payload: (),
                    });
                }
            }
        }
        while let Some(segment) = segmenter.poll() {
            let pts: Vec<Pts> = segment.video.iter().map(|unit| unit.pts).collect();
            let batch = segment.batch;
            spans.push_back((batch, segment.start, segment.end, dts.assign(&pts)));
            let start = segment
                .audio
                .first()
                .map_or(segment.start, |frame| frame.pts);
            let samples = segment.audio.len() as u64 * 1_024;
            sync.plan(batch, start, samples, segment.audio_step());
            let ready = SessionFact::SegmentReady {
                batch,
                sendable: true,
                bytes: 130_000,
            };
            session.handle(at, ready);
        }
        session.handle_timeout(at);
        while let Some(output) = session.poll_order() {
            match output {
                SessionOrder::Connect { link } => {
                    session.handle(at, SessionFact::Connected { link });
                }
                SessionOrder::Init { link } => session.handle(
                    at,
                    SessionFact::Ready {
                        link,
                        max_inflight: Some(3),
                    },
                ),
                SessionOrder::Send {
                    link, id, sequence, ..
                } => session.handle(
                    at,
                    SessionFact::Processed {
                        link,
                        id: id.to_string(),
                        sequence: Some(sequence),
                        outcome: Outcome::Audio,
                    },
                ),
                SessionOrder::Decode { batch, .. } => {
                    session.handle(at, SessionFact::AudioChecked { batch, ok: Ok(()) });
                }
                SessionOrder::Resolve { batch, with } => {
                    dubbed += u64::from(matches!(with, Resolution::Dubbed { .. }));
                    let Some((known, start, end, units)) = spans.pop_front() else {
                        continue;
                    };
                    assert_eq!(known, batch, "segments are resolved in order");
                    playout.pair_ready(
                        at,
                        Pair {
                            batch,
                            start,
                            end,
                            captured: at,
                            worked: Duration::ZERO,
                        },
                    );
                    left += units
                        .iter()
                        .filter(|pts| playout.due(**pts).is_some())
                        .count() as u64;
                    while playout.poll_event().is_some() {}
                }
                _ => {}
            }
        }
        while timeline.poll_note().is_some() || sync.poll_event().is_some() {}
    }
    println!("{dubbed} segments dubbed, {left} pictures left");
}
