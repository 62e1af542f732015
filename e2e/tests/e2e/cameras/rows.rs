//! The table.

use std::time::Duration;

use anyhow::Result;
use camera::Manner;
use camera::manner::{
    AudioCodec, Edit, Hole, Jump, Login, Loss, Markers, MoreMedia, Packets, Padding, ReportKind,
    Reports, SessionManner, Splice, Stray, TrackManner, Wall, WallStep,
};
use e2e::clock::{self, ClipSpec};
use e2e::environment::Way;
use e2e::pipeline::Evidence;
use e2e::secrets;

use super::{Row, SETTLED, also};

/// When something happens, inside a segment and between two beeps.
const AT: f64 = 6.5;
/// The reports of a camera that says how late it is every two seconds.
const OFTEN: f64 = 2.0;

/// Video waits six seconds for audio; a segment and a bit come on top.
const WITHOUT_AUDIO: f64 = 9.0;

/// What the camera itself does, with every media server.
pub(super) fn of_cameras() -> Result<Vec<Row>> {
    let mut rows = clocks();
    rows.extend(order()?);
    rows.extend(sound());
    rows.extend(sessions());
    rows.extend(as_mediamtx());
    rows.extend(passes());
    Ok(rows)
}

fn clocks() -> Vec<Row> {
    let stepped = AT..AT + SETTLED;
    let wall = |step: WallStep| Manner {
        wall: Wall {
            starts: Some(0.0),
            steps: vec![step],
        },
        reports: often(),
        ..Manner::default()
    };
    let moved = |ms: f64, follow: bool| {
        both(&Jump {
            at: AT,
            ms,
            reports_follow: follow,
            ..Jump::default()
        })
    };
    vec![
        Row::new("clean", 12, Manner::default()).with(|row| {
            // MediaMTX looks at two seconds of media before a stream is there: the first pair has more.
            row.segment = Duration::from_secs(3);
            row.during = also::there_soon;
        }),
        Row::new(
            "wall_clock_set",
            12,
            wall(WallStep {
                at: AT,
                right: true,
                ..WallStep::default()
            }),
        ),
        Row::new(
            "wall_clock_stepped",
            12,
            wall(WallStep {
                at: AT,
                by: 3600.0,
                ..WallStep::default()
            }),
        ),
        Row::new("forward_10", 12, moved(10e3, true)).with(|row| steps(row, &stepped)),
        Row::new("forward_10_reported", 12, moved(10e3, false)).with(|row| steps(row, &stepped)),
        Row::new("forward_120", 12, moved(120e3, true)).with(|row| steps(row, &stepped)),
        Row::new("forward_120_sigterm", 14, moved(120e3, false)).with(|row| {
            row.during = also::terminate;
            row.also = also::drained;
        }),
        Row::new("back_1000", 14, moved(-1000e3, true)).with(|row| steps(row, &stepped)),
        Row::new(
            "audio_forward_10",
            14,
            audio(TrackManner {
                jumps: vec![Jump {
                    at: AT,
                    ms: 10e3,
                    reports_follow: true,
                    ..Jump::default()
                }],
                ..TrackManner::default()
            }),
        )
        .with(|row| steps(row, &stepped)),
        Row::new(
            "restarted_at_zero",
            14,
            both(&Jump {
                at: AT,
                to: Some(0),
                new_ssrc: true,
                reports_follow: true,
                ..Jump::default()
            }),
        )
        .with(|row| steps(row, &stepped)),
        // 45,000 ticks are half a second of video and a second of audio.
        Row::new(
            "wrap",
            10,
            Manner {
                video: TrackManner {
                    rtp_base: Some(0u32.wrapping_sub(405_000)),
                    ..TrackManner::default()
                },
                audio: TrackManner {
                    rtp_base: Some(0u32.wrapping_sub(216_000)),
                    ..TrackManner::default()
                },
                ..Manner::default()
            },
        ),
        Row::new(
            "one_ssrc",
            12,
            Manner {
                one_ssrc: true,
                reports: often(),
                ..Manner::default()
            },
        ),
        Row::new(
            "no_reports",
            8,
            Manner {
                reports: Reports {
                    kind: ReportKind::Absent,
                    ..Reports::default()
                },
                ..Manner::default()
            },
        ),
    ]
}

fn order() -> Result<Vec<Row>> {
    let splice = |at: f64, spec: ClipSpec| -> Result<Manner> {
        let splices = vec![Splice {
            at,
            clip: clock::cached(&spec)?,
        }];
        Ok(Manner {
            splices,
            ..Manner::default()
        })
    };
    let stray = Some(Stray {
        every: 1.0,
        ms: -50.0,
    });
    Ok(vec![
        Row::new("b_frames", 8, Manner::default()).with(|row| row.clip.bframes = 3),
        Row::new(
            "b_frames_later",
            12,
            splice(4.0, ClipSpec::clock(12).small().with_bframes(3))?,
        ),
        Row::new(
            "stray_timestamps",
            12,
            Manner {
                video: TrackManner {
                    stray,
                    ..TrackManner::default()
                },
                ..Manner::default()
            },
        )
        // The stray picture is shown when it says, or where it belongs.
        .with(|row| row.step_ms = 55.0),
        Row::new(
            "slice_markers",
            8,
            Manner {
                markers: Markers::Slices,
                ..Manner::default()
            },
        )
        .with(|row| row.recode = Some(e2e_ffmpeg::Recode::Slices(4))),
        Row::new(
            "lost_packets",
            10,
            Manner {
                video: TrackManner {
                    lost: vec![Loss {
                        at: 5.96,
                        packets: 1,
                    }],
                    ..TrackManner::default()
                },
                audio: TrackManner {
                    lost: vec![Loss {
                        at: 7.5,
                        packets: 1,
                    }],
                    ..TrackManner::default()
                },
                ..Manner::default()
            },
        )
        .with(|row| {
            row.lost = vec![179];
            row.also = also::losses_are_told;
        }),
        // As cameras send them that keep to nothing but the letter of RFC 3550 and 6184.
        Row::new(
            "odd_packets",
            8,
            Manner {
                markers: Markers::Never,
                aggregated: true,
                delimiters: true,
                packets: Packets {
                    dressed: true,
                    doubled: 7,
                    swapped: 0,
                    empty: 9,
                    private: 11,
                    interleaved: 0,
                },
                ..Manner::default()
            },
        )
        .with(|row| row.also = Evidence::require_clean_log),
        Row::new("sequence_back", 10, {
            let jump = |sequence| TrackManner {
                jumps: vec![Jump {
                    at: AT,
                    sequence,
                    ..Jump::default()
                }],
                ..TrackManner::default()
            };
            Manner {
                video: jump(-50),
                audio: jump(-20),
                ..Manner::default()
            }
        }),
        Row::new("another_size", 10, {
            let mut spec = ClipSpec::clock(10).small();
            spec.width = 480;
            splice(5.0, spec)?
        })
        .with(|row| row.readable = false),
        Row::new(
            "sets_in_band",
            6,
            Manner {
                sets_in_band: true,
                ..Manner::default()
            },
        ),
        Row::new(
            "bursts",
            12,
            Manner {
                bursts: vec![Hole {
                    at: 4.0,
                    seconds: 3.0,
                }],
                ..Manner::default()
            },
        )
        .with(|row| row.latency = 8.0),
        Row::new("one_picture_a_second", 12, Manner::default()).with(|row| {
            (row.clip.fps, row.clip.gop) = (1, 1);
            row.readable = false;
        }),
        Row::new(
            "two_megabytes_a_keyframe",
            8,
            Manner {
                padding: Padding {
                    keyframe: 2_000_000,
                    picture: 360_000,
                },
                ..Manner::default()
            },
        )
        .with(|row| row.memory_mib = 500),
    ])
}

fn sound() -> Vec<Row> {
    let without = |find: &str, replace: &str| Manner {
        sdp: vec![Edit {
            find: find.to_owned(),
            replace: replace.to_owned(),
        }],
        ..Manner::default()
    };
    let more = |medium: MoreMedia| Manner {
        more_media: vec![medium],
        ..Manner::default()
    };
    vec![
        Row::new(
            "audio_never",
            14,
            audio(TrackManner {
                from: Some(1e9),
                ..TrackManner::default()
            }),
        )
        .with(|row| {
            row.silent = 0..14;
            row.latency = WITHOUT_AUDIO;
            row.also = also::silence_stays_here;
        }),
        Row::new(
            "audio_late",
            18,
            audio(TrackManner {
                from: Some(9.5),
                ..TrackManner::default()
            }),
        )
        .with(|row| {
            row.silent = 0..10;
            row.unsettled = vec![9.5..9.5 + SETTLED];
            row.latency = WITHOUT_AUDIO;
        }),
        Row::new(
            "audio_ends",
            20,
            audio(TrackManner {
                until: Some(8.5),
                ..TrackManner::default()
            }),
        )
        .with(|row| {
            row.silent = 9..20;
            row.latency = WITHOUT_AUDIO;
        }),
        Row::new("aac_without_config", 8, without("; config=[0-9A-F]+", "")),
        Row::new(
            "unusable_audio",
            8,
            without("MPEG4-GENERIC/48000/2", "X-NOBODY/48000/2"),
        )
        .with(|row| (row.exit, row.says) = (11, "audio")),
        Row::new("talk_back", 8, more(MoreMedia::talk_back())),
        Row::new("metadata", 8, more(MoreMedia::metadata())),
        Row::new(
            "silence_suppressed",
            12,
            Manner {
                audio_codec: Some(AudioCodec::Pcmu),
                ..audio(TrackManner {
                    holes: vec![
                        Hole {
                            at: 3.2,
                            seconds: 1.5,
                        },
                        Hole {
                            at: 6.1,
                            seconds: 0.5,
                        },
                        Hole {
                            at: 8.2,
                            seconds: 0.1,
                        },
                    ],
                    ..TrackManner::default()
                })
            },
        )
        // What is left of a hole, less than half a frame, is slewed.
        .with(|row| (row.silent, row.corrections) = (4..5, 3)),
    ]
}

fn sessions() -> Vec<Row> {
    let session = |session: SessionManner| Manner {
        session,
        ..Manner::default()
    };
    let login = Login {
        user: secrets::USER.to_owned(),
        password: secrets::PASSWORD.to_owned(),
        ..Login::default()
    };
    let locked = session(SessionManner {
        login: Some(login),
        ..SessionManner::default()
    });
    vec![
        Row::new(
            "session_timeout",
            14,
            session(SessionManner {
                timeout: 4,
                enforced: true,
                ..SessionManner::default()
            }),
        )
        .with(|row| row.also = also::kept_alive),
        Row::new("login", 6, locked.clone()),
        Row::new("wrong_password", 6, locked).with(|row| {
            row.password = Some(secrets::WRONG);
            (row.exit, row.says) = (10, "401");
        }),
        Row::new(
            "wrong_rtp_info",
            6,
            session(SessionManner {
                rtp_info: true,
                rtp_info_off: 500,
                ..SessionManner::default()
            }),
        ),
        Row::new(
            "redirected",
            6,
            session(SessionManner {
                redirect: Some("/elsewhere".to_owned()),
                ..SessionManner::default()
            }),
        ),
    ]
}

/// What MediaMTX makes of what ffmpeg publishes, on every machine.
fn as_mediamtx() -> Vec<Row> {
    let manner = Manner::mediamtx_and_ffmpeg;
    vec![
        Row::new("as_mediamtx", 16, manner()),
        Row::new("as_mediamtx_b_frames", 16, manner()).with(|row| {
            row.clip.bframes = 3;
            row.sync_ms = 34.0;
        }),
        Row::new("as_mediamtx_mono", 16, manner()).with(mono),
        Row::new(
            "as_mediamtx_mp3",
            16,
            Manner {
                audio_codec: Some(AudioCodec::Mp3),
                ..manner()
            },
        )
        .with(cut_beep),
    ]
}

/// What went through before.
fn passes() -> Vec<Row> {
    let coded = |codec| Manner {
        audio_codec: Some(codec),
        ..Manner::default()
    };
    // The payload type says it all.
    let without_rtpmap = |codec, line: &str| Manner {
        sdp: vec![Edit {
            find: format!("a=rtpmap:{line}\n"),
            replace: String::new(),
        }],
        ..coded(codec)
    };
    vec![
        Row::new("opus", 6, coded(AudioCodec::Opus)),
        Row::new("mp3", 6, coded(AudioCodec::Mp3)),
        Row::new("pcma", 6, coded(AudioCodec::Pcma)),
        Row::new("l16", 6, coded(AudioCodec::L16)),
        Row::new("latm", 6, coded(AudioCodec::Latm)),
        Row::new("latm_32k", 6, coded(AudioCodec::Latm))
            .with(|row| row.clip = row.clip.clone().with_audio(32_000, 2)),
        Row::new("adts", 6, coded(AudioCodec::Adts)),
        Row::new(
            "pcmu_without_rtpmap",
            6,
            without_rtpmap(AudioCodec::Pcmu, "0 PCMU/8000"),
        ),
        Row::new(
            "mp3_without_rtpmap",
            6,
            without_rtpmap(AudioCodec::Mp3, "14 MPA/90000"),
        ),
        Row::new(
            "head_start",
            6,
            Manner {
                head_start: 2.0,
                ..Manner::default()
            },
        ),
    ]
}

/// ffmpeg publishes, MediaMTX relays, by default and with the publisher's own reports.
pub(super) fn of_mediamtx() -> Vec<Row> {
    type Change = fn(&mut Row);
    let kinds: [([&'static str; 2], Change); 4] = [
        (["ffmpeg", "ffmpeg_absolute"], |_| ()),
        (["ffmpeg_b_frames", "ffmpeg_b_frames_absolute"], |row| {
            row.clip.bframes = 3;
            row.sync_ms = 34.0;
        }),
        (["ffmpeg_mono", "ffmpeg_mono_absolute"], mono),
        (["ffmpeg_mp3", "ffmpeg_mp3_absolute"], |row| {
            row.recode = Some(e2e_ffmpeg::Recode::Mp3);
            cut_beep(row);
        }),
    ];
    let rows = kinds.into_iter().flat_map(|(names, change)| {
        names
            .into_iter()
            .zip([false, true])
            .map(move |(name, absolute_timestamps)| {
                Row::new(name, 16, Manner::default())
                    .with(change)
                    .with(|row| {
                        row.way = Way::Published {
                            absolute_timestamps,
                        };
                        // Reading begins with a keyframe, at a full second, and so with a beep.
                        row.unsettled.push(0.0..1.5);
                        if absolute_timestamps {
                            // MediaMTX forwards nothing ("without absolute time, skipping it") until a
                            // report has come, which ffmpeg sends every five seconds; then a keyframe.
                            row.unread = 7;
                            // So the first beep, which may be cut, is that of second 5 or 6.
                            row.unsettled.push(0.0..6.5);
                            row.sync_ms = row.sync_ms.min(5.0);
                        }
                    })
            })
    });
    rows.collect()
}

/// The beep of second 0 begins with the stream, and so may be cut by half a frame: 11 ms at 48 kHz (heard
/// once on MediaMTX with MP3, +11 ms, where all other seconds were within 2), 12 ms at 44.1 kHz.
fn cut_beep(row: &mut Row) {
    row.unsettled.push(0.0..0.5);
}

fn mono(row: &mut Row) {
    cut_beep(row);
    row.clip = row.clip.clone().with_audio(44_100, 1);
    if let Some(audio) = &mut row.clip.audio {
        audio.kbps = 64;
    }
}

fn often() -> Reports {
    Reports {
        every: OFTEN,
        ..Reports::default()
    }
}

fn audio(audio: TrackManner) -> Manner {
    Manner {
        audio,
        reports: often(),
        ..Manner::default()
    }
}

/// Both tracks jump.
fn both(jump: &Jump) -> Manner {
    let track = TrackManner {
        jumps: vec![jump.clone()],
        ..TrackManner::default()
    };
    Manner {
        video: track.clone(),
        audio: track,
        reports: often(),
        ..Manner::default()
    }
}

/// A step of RTP time: over within a segment, and the hole is what the arrival times say, which is none.
fn steps(row: &mut Row, range: &std::ops::Range<f64>) {
    row.unsettled = vec![range.clone()];
    row.step_ms = 100.0;
    row.corrections = 2;
}
