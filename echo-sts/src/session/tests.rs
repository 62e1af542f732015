//! A stream's life in virtual time, told as a list of what went out when.

mod load;

use sts_protocol::{
    AudioConfig, AudioMode, BackpressureConfig, ErrorRule, ErrorSimulation, LatencyConfig, limits,
};

use super::*;
use crate::simulation::{Scope, Setting};

fn ms(ms: u64) -> At {
    Duration::from_millis(ms)
}

/// A session, its simulation and what it has said so far.
struct World {
    session: Session,
    sim: Simulation,
    said: Vec<String>,
    renders: Vec<u64>,
    now: At,
}

fn init() -> StreamInit {
    StreamInit::new("s", "w")
}

fn signal() -> StreamSignal {
    StreamSignal {
        stream_id: "s".to_owned(),
        reason: None,
    }
}

fn fragment(sequence: u64) -> FragmentData {
    FragmentData {
        fragment_id: format!("00000000-0000-4000-8000-{sequence:012}"),
        stream_id: "s".to_owned(),
        sequence_number: sequence,
        timestamp: 0,
        audio: Audio {
            format: "m4a".to_owned(),
            sample_rate_hz: 48_000,
            channels: 2,
            duration_ms: 6_000,
            data_base64: format!("AAA{sequence}"),
        },
        metadata: None,
    }
}

impl World {
    fn new(init: &StreamInit) -> Self {
        let session = Session::open(init, 1, Allowance::default()).unwrap();
        let sim = Simulation::default();
        Self {
            session,
            sim,
            said: Vec::new(),
            renders: Vec::new(),
            now: Duration::ZERO,
        }
    }

    fn with(mut self, setting: &Setting) -> Self {
        self.sim.set(&Scope::Everyone, setting).unwrap();
        self
    }

    fn hear(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            let at = self.now.as_millis();
            self.said.push(match effect {
                Effect::Emit(StsMessage::Ack(ack)) => {
                    let position = ack.queue_position.unwrap();
                    format!("{at} ack {} behind {position}", &ack.fragment_id[35..])
                }
                Effect::Emit(StsMessage::Processed(p)) => {
                    let result = match (&p.dubbed_audio, &p.error) {
                        (Some(audio), None) => audio.data_base64.clone(),
                        (None, Some(error)) => error.code.to_string(),
                        other => panic!("neither success nor failure: {other:?}"),
                    };
                    format!(
                        "{at} processed {} {result} in {}",
                        p.sequence_number, p.processing_time_ms
                    )
                }
                Effect::Emit(StsMessage::Backpressure(b)) => {
                    let delay = b
                        .recommended_delay_ms
                        .map(|d| format!(" {d}"))
                        .unwrap_or_default();
                    format!(
                        "{at} load {} {:?} {:?}{delay}",
                        b.current_inflight, b.severity, b.action
                    )
                }
                Effect::Emit(StsMessage::Error(e)) => format!("{at} {}: {}", e.code, e.message),
                Effect::Emit(StsMessage::Complete(c)) => {
                    let s = c.statistics;
                    format!(
                        "{at} complete {} ok {} failed {}",
                        c.total_fragments, s.success_count, s.failed_count
                    )
                }
                Effect::Emit(StsMessage::Ready(_)) => format!("{at} ready"),
                Effect::Render { sequence, .. } => {
                    self.renders.push(sequence);
                    format!("{at} render {sequence}")
                }
                Effect::Simulated {
                    event, sequence, ..
                } => format!("{at} {event} {sequence}"),
                Effect::Close => format!("{at} close"),
            });
        }
    }

    fn send(&mut self, data: FragmentData) {
        let mut out = Vec::new();
        self.session.data(self.now, data, &mut self.sim, &mut out);
        self.hear(out);
    }

    fn rendered(&mut self, sequence: u64, result: Result<&str, &str>) {
        let result = result.map(|data| Audio {
            data_base64: data.to_owned(),
            ..fragment(0).audio
        });
        let mut out = Vec::new();
        let result = result.map_err(str::to_owned);
        self.session
            .rendered(self.now, sequence, result, &mut self.sim, &mut out);
        self.hear(out);
    }

    fn end(&mut self) {
        let mut out = Vec::new();
        self.session
            .end(self.now, &signal(), &mut self.sim, &mut out);
        self.hear(out);
    }

    fn pause(&mut self) {
        let mut out = Vec::new();
        self.session.pause(&signal(), &mut out);
        self.hear(out);
    }

    fn resume(&mut self) {
        let mut out = Vec::new();
        self.session
            .resume(self.now, &signal(), &mut self.sim, &mut out);
        self.hear(out);
    }

    /// Lets time pass to `until`, waking the session exactly when it asks for it.
    fn run(&mut self, until: u64) {
        let mut wakes = 0;
        while let Some(due) = self.session.due(self.now).filter(|due| *due <= ms(until)) {
            wakes += 1;
            assert!(wakes < 1_000, "the session asks to be woken for ever");
            self.now = due.max(self.now);
            let mut out = Vec::new();
            self.session.progress(self.now, &mut self.sim, &mut out);
            self.hear(out);
        }
        self.now = ms(until);
    }
}

/// Every fragment gets its own latency, so processing order can differ from sending order.
fn latencies(world: &mut World, latencies: &[u64]) {
    for (sequence, latency) in latencies.iter().enumerate() {
        let config = LatencyConfig {
            base_ms: *latency,
            ..LatencyConfig::default()
        };
        world
            .sim
            .set(&Scope::Everyone, &Setting::Latency(config))
            .unwrap();
        world.send(fragment(sequence as u64));
    }
}

fn latency(base_ms: u64) -> Setting {
    Setting::Latency(LatencyConfig {
        base_ms,
        ..LatencyConfig::default()
    })
}

fn audio(mode: AudioMode, count: Option<u64>) -> Setting {
    Setting::Audio(AudioConfig {
        count,
        ..AudioConfig::new(mode)
    })
}

fn fail(rule: ErrorRule) -> Setting {
    Setting::Errors(ErrorSimulation {
        stream_id: None,
        enabled: true,
        rules: vec![rule],
    })
}

#[test]
fn a_whole_stream() {
    let mut world = World::new(&init()).with(&latency(40));
    world.send(fragment(0));
    world.run(100);
    world.send(fragment(1));
    world.end();
    world.run(10_000);
    assert_eq!(
        world.said,
        [
            "0 ack 0 behind 0",
            "40 processed 0 AAA0 in 40",
            "100 ack 1 behind 0",
            "140 processed 1 AAA1 in 40",
            "140 complete 2 ok 2 failed 0",
            "5140 close",
        ]
    );
    assert_eq!(world.session.state(), State::Completed);
    assert_eq!(world.session.due(world.now), None);
}

#[test]
fn answers_leave_in_order_even_where_processing_was_not() {
    let mut world = World::new(&init());
    latencies(&mut world, &[300, 100, 200]);
    world.run(1_000);
    assert_eq!(
        world.said[3..],
        [
            "300 processed 0 AAA0 in 300",
            "300 processed 1 AAA1 in 100",
            "300 processed 2 AAA2 in 200",
        ]
    );
}

#[test]
fn rendered_audio_is_waited_for_and_delays_what_follows() {
    let mut world = World::new(&init())
        .with(&latency(50))
        .with(&audio(AudioMode::Mark, Some(1)));
    world.send(fragment(0));
    world.send(fragment(1));
    world.run(60);
    world.rendered(0, Ok("MARK"));
    world.rendered(0, Ok("AGAIN"));
    world.rendered(7, Ok("UNKNOWN"));
    world.run(1_000);
    assert_eq!(
        world.said,
        [
            "0 ack 0 behind 0",
            "0 render 0",
            "0 ack 1 behind 1",
            "60 processed 0 MARK in 60",
            "60 processed 1 AAA1 in 50",
        ]
    );
}

#[test]
fn speech_says_which_seconds_it_stands_for() {
    let mut world = World::new(&init()).with(&audio(AudioMode::Speech, Some(1)));
    let metadata = |pts_ns| {
        Some(sts_protocol::FragmentMetadata {
            pts_ns: Some(pts_ns),
            ..Default::default()
        })
    };
    for (sequence, pts_ns) in [(0, 12_000_000_000), (1, 18_000_000_000)] {
        let mut data = fragment(sequence);
        data.audio.duration_ms = 2_000;
        data.metadata = metadata(pts_ns);
        let mut out = Vec::new();
        world
            .session
            .data(world.now, data, &mut world.sim, &mut out);
    }
    let mut out = Vec::new();
    let audio = fragment(0).audio;
    world
        .session
        .rendered(world.now, 0, Ok(audio), &mut world.sim, &mut out);
    let said: Vec<_> = out
        .iter()
        .filter_map(|effect| match effect {
            Effect::Emit(StsMessage::Processed(p)) => {
                Some((p.transcript.as_deref()?, p.translated_text.as_deref()?))
            }
            _ => None,
        })
        .collect();
    let plain = (TRANSCRIPT, TRANSLATED_TEXT);
    assert_eq!(
        said,
        [("Second 12. Second 13.", "Segundo 12. Segundo 13."), plain]
    );
}

#[test]
fn audio_that_cannot_be_rendered_fails_that_fragment() {
    let mut world = World::new(&init()).with(&audio(AudioMode::Silence, None));
    world.send(fragment(0));
    world.rendered(0, Err("cannot decode"));
    assert_eq!(world.said[2..], ["0 processed 0 MODEL_ERROR in 0"]);
}

#[test]
fn a_held_fragment_is_never_answered_and_does_not_hold_up_others() {
    let mut world = World::new(&init()).with(&audio(AudioMode::Hold, Some(1)));
    world.send(fragment(0));
    world.send(fragment(1));
    world.run(60_000);
    world.end();
    assert_eq!(
        world.said,
        [
            "0 ack 0 behind 0",
            "0 simulated_hold 0",
            "0 ack 1 behind 0",
            "0 processed 1 AAA1 in 0",
            "60000 complete 2 ok 1 failed 0",
        ]
    );
}

#[test]
fn simulated_errors_come_after_the_latency_and_in_order() {
    let mut world = World::new(&init())
        .with(&latency(50))
        .with(&fail(ErrorRule::sequence(1, ErrorCode::Timeout)));
    world.send(fragment(0));
    world.send(fragment(1));
    world.run(100);
    assert_eq!(
        world.said[2..],
        [
            "0 simulated_error 1",
            "50 processed 0 AAA0 in 50",
            "50 processed 1 TIMEOUT in 50",
        ]
    );
}

#[test]
fn gaps_duplicates_and_repeated_ids_are_refused_without_moving_the_sequence() {
    let mut world = World::new(&init());
    world.send(fragment(0));
    world.send(fragment(2));
    world.send(FragmentData {
        fragment_id: fragment(9).fragment_id,
        ..fragment(0)
    });
    world.send(FragmentData {
        sequence_number: 1,
        ..fragment(0)
    });
    world.send(fragment(1));
    assert_eq!(
        world.said[2..],
        [
            "0 INVALID_SEQUENCE: gap: expected 1, got 2",
            "0 INVALID_SEQUENCE: duplicate: expected 1, got 0",
            "0 INVALID_SEQUENCE: fragment_id 00000000-0000-4000-8000-000000000000 was used before",
            "0 ack 1 behind 0",
            "0 processed 1 AAA1 in 0",
        ]
    );
}

#[test]
fn a_refused_but_well_placed_fragment_uses_up_its_number() {
    let mut world = World::new(&init());
    let mut large = fragment(0);
    large.audio.data_base64 = "A".repeat(limits::MAX_AUDIO_BASE64 + 1);
    world.send(large);
    let mut out = Vec::new();
    world
        .session
        .unreadable(Refusal::invalid("audio: missing"), Some(1), None, &mut out);
    world
        .session
        .unreadable(Refusal::invalid("audio: missing"), Some(7), None, &mut out);
    world.hear(out);
    world.send(fragment(2));
    assert_eq!(
        world.said,
        [
            "0 FRAGMENT_TOO_LARGE: audio.data_base64: 10485761 bytes are over the limit of 10485760",
            "0 INVALID_CONFIG: audio: missing",
            "0 INVALID_CONFIG: audio: missing",
            "0 ack 2 behind 0",
            "0 processed 2 AAA2 in 0",
        ]
    );
}

#[test]
fn a_pause_holds_new_fragments_back_until_resume_but_finishes_the_old() {
    let mut world = World::new(&init()).with(&latency(100));
    world.send(fragment(0));
    world.pause();
    world.send(fragment(1));
    world.run(500);
    assert_eq!(world.session.state(), State::Paused);
    world.resume();
    world.run(1_000);
    assert_eq!(
        world.said,
        [
            "0 ack 0 behind 0",
            "0 ack 1 behind 1",
            "100 processed 0 AAA0 in 100",
            "600 processed 1 AAA1 in 100",
        ]
    );
}

#[test]
fn an_end_during_a_pause_finishes_what_waits() {
    let mut world = World::new(&init());
    world.pause();
    world.send(fragment(0));
    world.end();
    assert_eq!(
        world.said[1..],
        ["0 processed 0 AAA0 in 0", "0 complete 1 ok 1 failed 0"]
    );
}

#[test]
fn after_the_end_nothing_is_taken() {
    let mut world = World::new(&init());
    world.end();
    world.send(fragment(0));
    world.end();
    world.pause();
    assert_eq!(
        world.said,
        [
            "0 complete 0 ok 0 failed 0",
            "0 STREAM_NOT_FOUND: stream s has ended",
            "0 STREAM_NOT_FOUND: stream:end: stream s has ended",
            "0 STREAM_NOT_FOUND: stream:pause: stream s has ended",
        ]
    );
}

#[test]
fn another_streams_messages_are_not_found() {
    let mut world = World::new(&init());
    world.send(FragmentData {
        stream_id: "other".to_owned(),
        ..fragment(0)
    });
    let mut out = Vec::new();
    let other = StreamSignal {
        stream_id: "other".to_owned(),
        reason: None,
    };
    world
        .session
        .end(world.now, &other, &mut world.sim, &mut out);
    world.hear(out);
    let refusal = "0 STREAM_NOT_FOUND: no stream \"other\" on this connection, which carries \"s\"";
    assert_eq!(world.said, [refusal, refusal]);
    assert_eq!(world.session.state(), State::Active);
}

#[test]
fn the_confirmed_limit_is_the_lower_of_both_sides() {
    let open = |asked, allowed| {
        let allowance = Allowance {
            max_inflight: allowed,
            ..Allowance::default()
        };
        let init = StreamInit {
            max_inflight: asked,
            ..init()
        };
        Session::open(&init, 3, allowance).unwrap().ready()
    };
    assert_eq!(open(5, 2).max_inflight, 2);
    assert_eq!(open(2, 5).max_inflight, 2);
    assert_eq!(open(2, 5).session_id, "session-3");
}

#[test]
fn an_older_servers_chunk_limit_is_named_in_the_refusal() {
    let allowance = Allowance {
        max_chunk_ms: 5_000,
        ..Allowance::default()
    };
    let refusal = Session::open(&init(), 1, allowance).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::InvalidConfig);
    assert_eq!(
        refusal.message,
        "config.chunk_duration_ms: 6000 is over this server's limit of 5000"
    );
}
