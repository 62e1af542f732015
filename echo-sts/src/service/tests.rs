//! Whom things are for: connections, sessions, scopes, one-time events.

use sts_protocol::{
    Audio, AudioMode, ErrorRule, ErrorSimulation, FragmentData, LatencyConfig,
    SimulateBackpressure, SimulateDisconnect, SimulateSessionLoss, StreamSignal,
};

use super::*;
use crate::session::Allowance;

struct World {
    service: Service,
    now: At,
}

/// What was ordered, without the journal.
type Said = Vec<String>;

impl World {
    fn new() -> Self {
        Self::with(Limits {
            max_sessions: 10,
            session: Allowance::default(),
        })
    }

    fn with(limits: Limits) -> Self {
        Self {
            service: Service::new(limits, Simulation::default()),
            now: At::ZERO,
        }
    }

    fn feed(&mut self, fact: Fact) -> Said {
        let mut out = Vec::new();
        self.service.handle(self.now, fact, &mut out);
        said(out)
    }

    fn connect(&mut self, link: LinkId, stream: Option<&str>) {
        let stream_header = stream.map(str::to_owned);
        let (worker_header, refusal) = (None, None);
        self.feed(Fact::Connected {
            link,
            stream_header,
            worker_header,
            refusal,
        });
        self.feed(Fact::Opened { link });
    }

    fn init(&mut self, link: LinkId, stream: &str) -> Said {
        let message = WorkerMessage::Init(StreamInit::new(stream, "w"));
        self.feed(Fact::Worker { link, message })
    }

    fn open(&mut self, link: LinkId, stream: &str) {
        self.connect(link, None);
        let said = self.init(link, stream);
        assert!(said[0].ends_with("ready"), "{said:?}");
    }

    fn fragment(&mut self, link: LinkId, stream: &str, n: u64) -> Said {
        let message = WorkerMessage::Data(Box::new(FragmentData {
            fragment_id: format!("00000000-0000-4000-8000-{n:012}"),
            stream_id: stream.to_owned(),
            sequence_number: n,
            timestamp: 0,
            audio: Audio {
                format: "m4a".to_owned(),
                sample_rate_hz: 48_000,
                channels: 2,
                duration_ms: 6_000,
                data_base64: "AAAA".to_owned(),
            },
            metadata: None,
        }));
        self.feed(Fact::Worker { link, message })
    }

    fn control(&mut self, link: LinkId, message: ControlMessage) -> Said {
        let event = message.event().to_owned();
        self.feed(Fact::Control {
            link,
            event,
            message: Ok(message),
        })
    }

    /// Lets time pass, waking the service exactly when it asks for it.
    fn run(&mut self, until_ms: u64) -> Said {
        let until = Duration::from_millis(until_ms);
        let mut out = Vec::new();
        let mut wakes = 0;
        while let Some(due) = self.service.due(self.now).filter(|due| *due <= until) {
            wakes += 1;
            assert!(wakes < 1_000, "the service asks to be woken for ever");
            self.now = due.max(self.now);
            self.service.advance(self.now, &mut out);
        }
        self.now = until;
        said(out)
    }

    fn admits(&mut self, stream: Option<&str>) -> bool {
        self.service.admits(self.now, stream, &mut Vec::new())
    }
}

fn said(orders: Vec<Order>) -> Said {
    let line = |order| {
        Some(match order {
            Order::Record(_) => return None,
            Order::Emit { link, message } => match message {
                StsMessage::Ready(_) => format!("{link} ready"),
                StsMessage::Ack(_) => format!("{link} ack"),
                StsMessage::Processed(p) => {
                    let error = p.error.map(|e| format!(" {}", e.code)).unwrap_or_default();
                    format!("{link} processed {}{error}", p.sequence_number)
                }
                StsMessage::Complete(_) => format!("{link} complete"),
                StsMessage::Backpressure(b) => format!("{link} load {:?}", b.action),
                StsMessage::Error(e) => format!("{link} {}: {}", e.code, e.message),
            },
            Order::Answer { link, ack, .. } => {
                format!("{link} {:?}: {}", ack.status, ack.message.unwrap())
            }
            Order::Render { link, sequence, .. } => format!("{link} render {sequence}"),
            Order::Close { link } => format!("{link} close"),
        })
    };
    orders.into_iter().filter_map(line).collect()
}

fn disconnect(stream: Option<&str>, delay_ms: u64, refuse_for_ms: Option<u64>) -> ControlMessage {
    let stream_id = stream.map(str::to_owned);
    ControlMessage::Disconnect(SimulateDisconnect {
        stream_id,
        delay_ms,
        refuse_for_ms,
    })
}

fn latency(stream: Option<&str>, base_ms: u64) -> ControlMessage {
    let stream_id = stream.map(str::to_owned);
    ControlMessage::Latency(LatencyConfig {
        stream_id,
        base_ms,
        ..LatencyConfig::default()
    })
}

fn pause_order(stream: Option<&str>) -> ControlMessage {
    ControlMessage::SimulateBackpressure(SimulateBackpressure {
        stream_id: stream.map(str::to_owned),
        action: sts_protocol::BackpressureAction::Pause,
        severity: None,
        recommended_delay_ms: None,
    })
}

#[test]
fn what_an_event_without_a_stream_is_for_depends_on_who_sends_it() {
    let mut world = World::new();
    world.open(1, "a");
    world.open(2, "b");
    world.connect(3, None);
    assert_eq!(
        world.control(1, latency(None, 50)),
        ["1 Accepted: stream a"]
    );
    assert_eq!(world.fragment(1, "a", 0), ["1 ack"]);
    assert_eq!(world.fragment(2, "b", 0), ["2 ack", "2 processed 0"]);
    assert_eq!(
        world.control(3, latency(None, 70)),
        ["3 Accepted: every session"]
    );
    assert_eq!(world.fragment(2, "b", 1), ["2 ack"]);
    assert_eq!(world.run(60), ["1 processed 0"]);
    assert_eq!(world.run(100), ["2 processed 1"]);
}

#[test]
fn a_streams_settings_outlive_its_sessions_and_counts_go_on() {
    let mut world = World::new();
    world.connect(9, None);
    world.control(
        9,
        ControlMessage::Errors(ErrorSimulation {
            stream_id: Some("a".to_owned()),
            enabled: true,
            rules: vec![ErrorRule::always(ErrorCode::Timeout).times(3)],
        }),
    );
    let mut outcomes = Vec::new();
    for link in 1..=2 {
        world.open(link, "a");
        for n in 0..2 {
            outcomes.extend(world.fragment(link, "a", n).pop());
        }
        world.feed(Fact::Disconnected {
            link,
            reason: "gone".to_owned(),
        });
    }
    assert_eq!(
        outcomes,
        [
            "1 processed 0 TIMEOUT",
            "1 processed 1 TIMEOUT",
            "2 processed 0 TIMEOUT",
            "2 processed 1",
        ]
    );
}

#[test]
fn a_one_time_event_acts_on_all_present_sessions_of_its_scope() {
    let mut world = World::new();
    world.open(1, "a");
    world.open(2, "b");
    world.connect(3, None);
    let everyone = world.control(3, pause_order(None));
    assert_eq!(
        everyone,
        ["1 load Pause", "2 load Pause", "3 Accepted: 2 sessions"]
    );
    assert_eq!(
        world.control(3, pause_order(Some("b"))),
        ["2 load Pause", "3 Accepted: 1 session"]
    );
    assert_eq!(
        world.control(1, pause_order(None)),
        ["1 load Pause", "1 Accepted: 1 session"]
    );
}

#[test]
fn a_one_time_event_waits_for_its_session_and_acts_once() {
    let mut world = World::new();
    world.connect(9, None);
    assert_eq!(
        world.control(9, pause_order(Some("b"))),
        ["9 Accepted: waits for stream b"]
    );
    assert_eq!(
        world.control(9, disconnect(Some("b"), 200, None)),
        ["9 Accepted: waits for stream b"]
    );
    world.open(1, "a");
    assert_eq!(world.run(1_000), [] as [&str; 0]);
    world.connect(2, None);
    assert_eq!(world.init(2, "b"), ["2 ready", "2 load Pause"]);
    assert_eq!(world.run(1_199), [] as [&str; 0]);
    assert_eq!(world.run(1_200), ["2 close"]);
    world.feed(Fact::Disconnected {
        link: 2,
        reason: "told to".to_owned(),
    });
    world.open(3, "b");
    assert_eq!(world.run(9_000), [] as [&str; 0]);
}

#[test]
fn a_delayed_event_does_not_hit_the_session_that_took_the_place_of_its_own() {
    let mut world = World::new();
    world.connect(9, None);
    world.open(1, "a");
    world.control(9, disconnect(Some("a"), 500, None));
    assert_eq!(world.init(1, "a"), ["1 ready"], "the stream is opened anew");
    assert_eq!(world.run(9_000), [] as [&str; 0]);
}

#[test]
fn refusing_concerns_the_stream_named_or_everyone_and_ends() {
    let mut world = World::new();
    world.connect(9, None);
    world.open(1, "a");
    world.open(2, "b");
    world.control(9, disconnect(Some("a"), 100, Some(1_000)));
    assert!(world.admits(Some("a")), "not before the disconnect");
    world.run(100);
    assert!(!world.admits(Some("a")));
    assert!(world.admits(Some("b")) && world.admits(None));
    // Without a header it shows only in the init.
    world.connect(3, None);
    assert_eq!(world.init(3, "a"), ["3 close"]);
    world.run(1_099);
    assert!(!world.admits(Some("a")));
    world.run(1_100);
    assert!(world.admits(Some("a")));

    world.control(9, disconnect(None, 0, Some(1_000)));
    assert!(!world.admits(Some("x")) && !world.admits(None));
    world.run(2_100);
    assert!(world.admits(None));
}

#[test]
fn after_a_close_nothing_more_is_said_or_heard() {
    let mut world = World::new();
    world.open(1, "a");
    world.connect(9, None);
    world.control(9, latency(None, 50));
    world.fragment(1, "a", 0);
    assert_eq!(
        world.control(9, disconnect(Some("a"), 0, None)),
        ["1 close", "9 Accepted: 1 session"]
    );
    assert_eq!(world.fragment(1, "a", 1), [] as [&str; 0]);
    assert_eq!(world.run(1_000), [] as [&str; 0]);
    assert_eq!(world.service.due(world.now), None);
}

#[test]
fn a_lost_session_answers_not_found_and_can_be_opened_again() {
    let mut world = World::new();
    world.open(1, "a");
    world.connect(9, None);
    let stream_id = Some("a".to_owned());
    let lose = SimulateSessionLoss {
        stream_id,
        delay_ms: 0,
    };
    world.control(9, ControlMessage::SessionLoss(lose));
    let signal = StreamSignal {
        stream_id: "a".to_owned(),
        reason: None,
    };
    let resume = Fact::Worker {
        link: 1,
        message: WorkerMessage::Resume(signal),
    };
    assert_eq!(
        world.feed(resume),
        [
            "1 STREAM_NOT_FOUND: stream:resume: no stream on this connection, stream:init comes first"
        ]
    );
    assert_eq!(world.init(1, "a"), ["1 ready"]);
    assert_eq!(world.fragment(1, "a", 0), ["1 ack", "1 processed 0"]);
}

#[test]
fn one_connection_carries_one_stream() {
    let mut world = World::new();
    world.open(1, "a");
    assert_eq!(
        world.init(1, "b"),
        ["1 INVALID_CONFIG: stream_id: this connection carries stream \"a\""]
    );
    world.fragment(1, "a", 0);
    assert_eq!(world.init(1, "a"), ["1 ready"], "but it may start over");
    assert_eq!(world.fragment(1, "a", 0), ["1 ack", "1 processed 0"]);
}

#[test]
fn sessions_are_limited_and_a_slot_comes_back() {
    let mut world = World::with(Limits {
        max_sessions: 1,
        session: Allowance::default(),
    });
    world.open(1, "a");
    world.connect(2, None);
    assert_eq!(
        world.init(2, "b"),
        ["2 RATE_LIMIT: 1 sessions are open, 1 allowed"]
    );
    let signal = StreamSignal {
        stream_id: "a".to_owned(),
        reason: None,
    };
    world.feed(Fact::Worker {
        link: 1,
        message: WorkerMessage::End(signal),
    });
    assert_eq!(world.init(2, "b"), ["2 ready"]);
}

#[test]
fn a_client_that_is_not_welcome_is_told_once_it_can_hear_it() {
    let mut world = World::new();
    let refusal = Some(Refusal::new(ErrorCode::AuthFailed, "bad token"));
    let (stream_header, worker_header) = (None, None);
    let connected = Fact::Connected {
        link: 1,
        stream_header,
        worker_header,
        refusal,
    };
    assert_eq!(world.feed(connected), [] as [&str; 0]);
    assert_eq!(
        world.init(1, "a"),
        [] as [&str; 0],
        "its init may be faster"
    );
    assert_eq!(world.control(1, latency(None, 5)), [] as [&str; 0]);
    assert_eq!(
        world.feed(Fact::Opened { link: 1 }),
        ["1 AUTH_FAILED: bad token", "1 close"]
    );
}

#[test]
fn audio_made_for_an_earlier_session_is_not_used() {
    let mut world = World::new();
    world.open(1, "a");
    let mark = sts_protocol::AudioConfig::new(AudioMode::Mark);
    world.control(1, ControlMessage::Audio(mark));
    assert_eq!(world.fragment(1, "a", 0), ["1 ack", "1 render 0"]);
    world.init(1, "a");
    world.fragment(1, "a", 0);
    let rendered = |session| Fact::Rendered {
        link: 1,
        session,
        sequence: 0,
        result: Err("cannot decode".to_owned()),
    };
    assert_eq!(world.feed(rendered(1)), [] as [&str; 0]);
    assert_eq!(world.feed(rendered(2)), ["1 processed 0 MODEL_ERROR"]);
}

#[test]
fn facts_about_unknown_connections_are_harmless() {
    let mut world = World::new();
    world.feed(Fact::Opened { link: 7 });
    world.feed(Fact::Disconnected {
        link: 7,
        reason: "gone".to_owned(),
    });
    assert_eq!(world.init(7, "a"), [] as [&str; 0]);
    assert_eq!(world.fragment(7, "a", 0), [] as [&str; 0]);
    assert_eq!(world.control(7, latency(None, 5)), [] as [&str; 0]);
}

#[test]
fn waiting_one_time_events_are_bounded() {
    let mut world = World::new();
    world.connect(9, None);
    let refused = (0..2_000)
        .filter(|n| {
            let said = world.control(9, disconnect(Some(&format!("s{n}")), 0, None));
            said[0].contains("Rejected")
        })
        .count();
    assert_eq!(refused, 2_000 - 1_024);
}
