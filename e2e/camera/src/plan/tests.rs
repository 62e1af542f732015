//! What a plan sends when, and stamped how, read back from its packets.

#![allow(clippy::float_cmp, reason = "what is compared is whole numbers")]

use rtcp_types::Packet;
use rtp_types::RtpPacket;

use super::*;
use crate::clip::{Audio, AudioFrame, Picture as Coded, Video};

const BASE: u32 = 4_294_900_000;
/// 2026-01-01.
const START: i128 = 1_767_225_600 * SECOND as i128;

/// Four seconds: 25 pictures a second, a keyframe every second, AAC of 48 kHz primed by a frame.
fn clip() -> Clip {
    let pictures = (0..100).map(|n| Coded {
        pts: n * 3600,
        dts: n * 3600,
        ticks: 3600,
        keyframe: n % 25 == 0,
        nals: vec![vec![if n % 25 == 0 { 0x65 } else { 0x41 }, n as u8, 1]],
        sets: 0,
    });
    let frames = (0..188).map(|n| AudioFrame {
        pts: (n - 1) * 1024,
        samples: 1024,
        data: vec![n as u8; 200],
    });
    Clip {
        video: Some(Video {
            sets: vec![vec![vec![0x67, 0x64, 0, 0x1f], vec![0x68, 1]]],
            pictures: pictures.collect(),
        }),
        audio: Some(Audio {
            codec: Codec::Aac([0x11, 0x90]),
            rate: 48_000,
            channels: 2,
            frames: frames.collect(),
        }),
    }
}

/// One RTP packet, or the mapping of one report.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Seen {
    at: f64,
    track: usize,
    ssrc: u32,
    rtp: u32,
    /// Sequence number of an RTP packet.
    sequence: u16,
    marker: bool,
    /// Seconds since 1970 in a report.
    wall: Option<f64>,
}

fn play(clip: &Clip, mut manner: Manner) -> Vec<Seen> {
    for track in [&mut manner.video, &mut manner.audio] {
        track.rtp_base.get_or_insert(BASE);
    }
    let description = Description::new(clip, &manner).unwrap();
    let plan = Plan::new(clip, &manner, &description, 1, START);
    let mut seen = Vec::new();
    for outgoing in plan {
        for packet in &outgoing.packets {
            let (at, track) = (outgoing.at.as_secs_f64(), outgoing.track);
            if outgoing.what == What::Report {
                let mut compound = Compound::parse(packet).unwrap();
                let Some(Ok(Packet::Sr(report))) = compound.next() else {
                    panic!("no report first")
                };
                let ntp = report.ntp_timestamp() as f64 / 4_294_967_296.0 - NTP_EPOCH as f64;
                let (ssrc, rtp) = (report.ssrc(), report.rtp_timestamp());
                seen.push(Seen {
                    at,
                    track,
                    ssrc,
                    rtp,
                    sequence: 0,
                    marker: false,
                    wall: Some(ntp),
                });
            } else {
                let packet = RtpPacket::parse(packet).unwrap();
                seen.push(Seen {
                    at,
                    track,
                    ssrc: packet.ssrc(),
                    rtp: packet.timestamp(),
                    sequence: packet.sequence_number(),
                    marker: packet.marker_bit(),
                    wall: None,
                });
            }
        }
    }
    assert!(
        seen.is_sorted_by(|a, b| a.at <= b.at),
        "not in order of time"
    );
    seen
}

fn media(seen: &[Seen], track: usize) -> Vec<Seen> {
    seen.iter()
        .filter(|one| one.track == track && one.wall.is_none())
        .copied()
        .collect()
}

fn reports(seen: &[Seen], track: usize) -> Vec<Seen> {
    seen.iter()
        .filter(|one| one.track == track && one.wall.is_some())
        .copied()
        .collect()
}

/// RTP time since the base, in seconds.
fn since(rtp: u32, clock: f64) -> f64 {
    f64::from(rtp.wrapping_sub(BASE) as i32) / clock
}

#[test]
fn a_good_camera_stamps_and_reports_what_is_true() {
    let seen = play(&clip(), Manner::default());
    let (video, audio) = (media(&seen, 0), media(&seen, 1));
    assert_eq!((video.len(), audio.len()), (100, 188));
    for (n, packet) in video.iter().enumerate() {
        assert_eq!(packet.rtp, BASE.wrapping_add(n as u32 * 3600));
        // The first to leave is the audio's priming.
        assert!((packet.at - n as f64 * 0.04 - 1024.0 / 48e3).abs() < 1e-6);
    }
    assert!(
        video
            .iter()
            .zip(&video[1..])
            .all(|(a, b)| b.sequence == a.sequence.wrapping_add(1))
    );
    for (track, clock) in [(0, 90e3), (1, 48e3)] {
        let reports = reports(&seen, track);
        assert_eq!(reports.len(), 1, "every 5 s");
        for report in reports {
            // By the reports, second 0 was when the first picture left.
            let zero = report.wall.unwrap() - START as f64 / 1e9 - since(report.rtp, clock);
            assert!((zero - 1024.0 / 48e3).abs() < 1e-4, "{zero}");
        }
    }
}

#[test]
fn both_tracks_can_jump_and_reports_keep_or_follow() {
    for follow in [false, true] {
        let jump = crate::manner::Jump {
            at: 2.0,
            ms: -500.0,
            reports_follow: follow,
            ..Default::default()
        };
        let mut manner = Manner::default();
        manner.reports.every = 1.0;
        (manner.video.jumps, manner.audio.jumps) = (vec![jump.clone()], vec![jump]);
        let seen = play(&clip(), manner);
        let video = media(&seen, 0);
        assert_eq!(since(video[49].rtp, 90e3), 1.96);
        assert_eq!(since(video[50].rtp, 90e3), 1.5);
        let last = *reports(&seen, 1).last().unwrap();
        let moved = last.at - 1024.0 / 48e3 - since(last.rtp, 48e3);
        assert!(
            (moved - if follow { 0.5 } else { 0.0 }).abs() < 1e-3,
            "{moved}"
        );
    }
}

#[test]
fn a_track_can_begin_anew_at_a_number_with_another_ssrc() {
    let jump = crate::manner::Jump {
        at: 2.0,
        to: Some(0),
        new_ssrc: true,
        ..Default::default()
    };
    let mut manner = Manner::default();
    manner.video.jumps = vec![jump];
    let seen = play(&clip(), manner);
    let video = media(&seen, 0);
    assert_eq!((video[50].rtp, video[51].rtp), (0, 3600));
    assert_eq!(video[0].ssrc, video[49].ssrc);
    assert_ne!(video[49].ssrc, video[50].ssrc);
    assert_eq!(
        media(&seen, 1).last().unwrap().ssrc,
        media(&seen, 1)[0].ssrc
    );
}

#[test]
fn single_stamps_stray_and_single_packets_get_lost() {
    let mut manner = Manner::default();
    manner.video.stray = Some(crate::manner::Stray {
        every: 1.0,
        ms: -50.0,
    });
    manner.audio.lost = vec![crate::manner::Loss {
        at: 1.0,
        packets: 3,
    }];
    let seen = play(&clip(), manner);
    let video = media(&seen, 0);
    let stray: Vec<_> = (0..100)
        .filter(|n| video[*n].rtp != BASE.wrapping_add(*n as u32 * 3600))
        .collect();
    assert_eq!(stray, [13, 38, 63, 88]);
    let audio = media(&seen, 1);
    assert_eq!(audio.len(), 185);
    let gap = audio
        .windows(2)
        .position(|pair| pair[1].sequence != pair[0].sequence.wrapping_add(1));
    assert_eq!(
        audio[gap.unwrap() + 1]
            .sequence
            .wrapping_sub(audio[gap.unwrap()].sequence),
        4
    );
}

#[test]
fn reports_by_arrival_tell_when_packets_came() {
    let manner = Manner {
        reports: crate::manner::Reports {
            first: 1.0,
            every: 1.0,
            ..Manner::mediamtx_and_ffmpeg().reports
        },
        ..Manner::mediamtx_and_ffmpeg()
    };
    let seen = play(&clip(), manner);
    // Five frames of 200 bytes in a packet that leaves when the sixth comes.
    assert_eq!(media(&seen, 1).len(), 188_usize.div_ceil(5));
    for (track, clock, late) in [(0, 90e3, 0.0), (1, 48e3, 5.0 * 1024.0 / 48e3)] {
        let reports = reports(&seen, track);
        assert!(reports.len() >= 3 && reports[0].at >= 1.0, "{reports:?}");
        for report in reports {
            let zero = report.wall.unwrap() - START as f64 / 1e9 - since(report.rtp, clock);
            // The priming frame's packet leaves first, at the beginning of what follows it.
            let first = media(&seen, 0)[0].at;
            assert!(
                (zero - first - late).abs() < 1e-3,
                "track {track}: {zero} after {first}"
            );
        }
    }
}

#[test]
fn the_wall_clock_is_set() {
    let mut manner = Manner::default();
    manner.reports.every = 1.0;
    manner.wall = crate::manner::Wall {
        starts: Some(0.0),
        steps: vec![
            crate::manner::WallStep {
                at: 1.5,
                by: 3600.0,
                right: false,
            },
            crate::manner::WallStep {
                at: 2.5,
                by: 0.0,
                right: true,
            },
        ],
    };
    let walls: Vec<_> = reports(&play(&clip(), manner), 0)
        .iter()
        .map(|one| one.wall.unwrap() - one.at)
        .collect();
    let round: Vec<_> = walls.iter().map(|wall| wall.round()).collect();
    assert_eq!(round, [0.0, 0.0, 3600.0, START as f64 / 1e9]);
}

#[test]
fn audio_comes_late_ends_has_holes_or_is_never_there() {
    let with = |change: fn(&mut Manner)| {
        let mut manner = Manner::default();
        change(&mut manner);
        let audio = media(&play(&clip(), manner), 1);
        let times = audio.iter().map(|one| since(one.rtp, 48e3));
        (
            audio.len(),
            times.clone().fold(9.0, f64::min),
            times.fold(-9.0, f64::max),
        )
    };
    assert_eq!(with(|manner| manner.audio.from = Some(1e9)).0, 0);
    assert!(with(|manner| manner.audio.from = Some(2.0)).1 >= 2.0);
    assert!(with(|manner| manner.audio.until = Some(2.0)).2 < 2.0);
    assert_eq!(
        with(|manner| manner.audio.holes = vec![crate::manner::Hole {
            at: 1.0,
            seconds: 1.024
        }])
        .0,
        140
    );
}

#[test]
fn what_is_held_back_comes_at_once_and_a_head_start_comes_first() {
    let manner = Manner {
        bursts: vec![crate::manner::Hole {
            at: 1.0,
            seconds: 2.0,
        }],
        ..Manner::default()
    };
    let times: Vec<_> = media(&play(&clip(), manner), 0)
        .iter()
        .map(|one| one.at)
        .collect();
    assert_eq!(times.iter().filter(|at| **at == 3.0).count(), 50);
    assert!(!times.iter().any(|at| (1.0..3.0).contains(at)));
    let manner = Manner {
        head_start: 2.0,
        ..Manner::default()
    };
    let seen = play(&clip(), manner);
    assert_eq!(
        media(&seen, 0).iter().filter(|one| one.at == 0.0).count(),
        50
    );
    let report = reports(&seen, 0)[0];
    let zero = report.wall.unwrap() - START as f64 / 1e9 - since(report.rtp, 90e3);
    assert!((zero + 2.0 - 1024.0 / 48e3).abs() < 1e-4, "{zero}");
}

#[test]
fn a_clip_repeats_on_one_timeline() {
    let manner = Manner {
        repeat: true,
        end_at: Some(9.0),
        ..Manner::default()
    };
    let seen = play(&clip(), manner);
    let video = media(&seen, 0);
    assert_eq!(video.len(), 225);
    assert!(
        video
            .windows(2)
            .all(|pair| pair[1].rtp.wrapping_sub(pair[0].rtp) == 3600)
    );
    assert!(
        media(&seen, 1)
            .windows(2)
            .all(|pair| pair[1].rtp.wrapping_sub(pair[0].rtp) == 1024)
    );
}

#[test]
fn a_spliced_clip_brings_its_own_order_and_parameter_sets() {
    let mut other = clip();
    for picture in &mut other.video.as_mut().unwrap().pictures {
        picture.dts -= 7200;
    }
    let mut spliced = clip();
    spliced.splice(1.5, other).unwrap();
    let seen = play(&spliced, Manner::default());
    let video = media(&seen, 0);
    // Two packets more with its parameter sets, at each of its two keyframes.
    assert_eq!(video.len(), 104);
    let pictures: Vec<_> = video.iter().filter(|one| one.marker).collect();
    assert_eq!(pictures.len(), 100);
    assert!(
        pictures
            .iter()
            .all(|one| (one.at - since(one.rtp, 90e3) - 1024.0 / 48e3).abs() < 1e-6)
    );
}

#[test]
fn more_media_and_changes_stand_in_the_description() {
    let manner = Manner {
        more_media: vec![
            crate::manner::MoreMedia::talk_back(),
            crate::manner::MoreMedia::metadata(),
        ],
        sdp: vec![crate::manner::Edit {
            find: "; config=[0-9A-F]+".into(),
            replace: String::new(),
        }],
        one_ssrc: true,
        ..Manner::default()
    };
    let description = Description::new(&clip(), &manner).unwrap();
    let lines: Vec<_> = description
        .sdp
        .lines()
        .filter(|line| line.starts_with("m="))
        .collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines[0].starts_with("m=audio 0 RTP/AVP 0") && lines[1].starts_with("m=video"));
    assert!(!description.sdp.contains("config="));
    let seen = play(&clip(), manner);
    assert_eq!(media(&seen, 1)[0].ssrc, media(&seen, 2)[0].ssrc);
    assert_eq!((media(&seen, 0).len(), media(&seen, 3).len()), (0, 4));
    let nothing = Manner {
        sdp: vec![crate::manner::Edit {
            find: "config=77".into(),
            replace: String::new(),
        }],
        ..Manner::default()
    };
    assert!(
        Description::new(&clip(), &nothing)
            .unwrap_err()
            .to_string()
            .contains("changes nothing")
    );
}

/// What a row of `cameras` orders is what is sent: most rows expect that nothing is lost, which a good
/// camera would give as well.
#[test]
fn every_fault_that_is_ordered_changes_what_is_sent() {
    let clip = clip();
    let sent = |json: &str| {
        let mut manner: Manner = serde_json::from_str(json).unwrap();
        manner.seed = 1;
        let description = Description::new(&clip, &manner).unwrap();
        Plan::new(&clip, &manner, &description, 1, START).collect::<Vec<_>>()
    };
    let changes = |json: &str, without: &str| {
        assert!(sent(json) != sent(without), "{json} is as {without}");
    };
    assert!(sent("{}") == sent("{}"), "a seed repeats it");
    changes(
        r#"{"frames_per_packet":5,"packets_wait":true}"#,
        r#"{"frames_per_packet":5}"#,
    );
    changes(
        r#"{"sets_in_band":true,"aggregated":true}"#,
        r#"{"sets_in_band":true}"#,
    );
    changes(
        r#"{"sets_in_band":true,"sets_early":true}"#,
        r#"{"sets_in_band":true}"#,
    );
    changes(
        r#"{"padding":{"keyframe":5000},"packets":{"swapped":2}}"#,
        r#"{"padding":{"keyframe":5000}}"#,
    );
    changes(
        r#"{"frames_per_packet":5,"reports":{"every":1,"kind":"arrival"}}"#,
        r#"{"frames_per_packet":5,"reports":{"every":1}}"#,
    );
    for json in [
        r#"{"video":{"jumps":[{"at":2,"sequence":-50}]}}"#,
        r#"{"video":{"jumps":[{"at":2,"ms":500}]}}"#,
        r#"{"video":{"jumps":[{"at":2,"new_ssrc":true}]}}"#,
        r#"{"video":{"stray":{"every":1,"ms":-50}}}"#,
        r#"{"video":{"lost":[{"at":2,"packets":1}]}}"#,
        r#"{"video":{"holes":[{"at":2,"seconds":1}]}}"#,
        r#"{"audio":{"from":2}}"#,
        r#"{"audio":{"until":2}}"#,
        r#"{"audio":{"late":0.5}}"#,
        r#"{"audio":{"drift":0.005}}"#,
        r#"{"audio":{"reports_wander_ms":50}}"#,
        r#"{"frames_per_packet":5}"#,
        r#"{"markers":"never"}"#,
        r#"{"delimiters":true}"#,
        r#"{"sets_in_band":true}"#,
        r#"{"padding":{"keyframe":5000}}"#,
        r#"{"padding":{"picture":5000}}"#,
        r#"{"packets":{"dressed":true}}"#,
        r#"{"packets":{"doubled":7}}"#,
        r#"{"packets":{"empty":9}}"#,
        r#"{"packets":{"private":9}}"#,
        r#"{"packets":{"interleaved":9}}"#,
        r#"{"audio":{"unmarked":true}}"#,
        r#"{"audio":{"byes":[2]}}"#,
        r#"{"one_ssrc":true}"#,
        r#"{"reports":{"kind":"absent"}}"#,
        r#"{"reports":{"first":3}}"#,
        r#"{"reports":{"cname":false}}"#,
        r#"{"wall":{"starts":1}}"#,
        r#"{"bursts":[{"at":1,"seconds":1}]}"#,
        r#"{"head_start":2}"#,
    ] {
        changes(json, "{}");
    }
}
