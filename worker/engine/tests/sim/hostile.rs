//! A service that lies, floods and repeats itself costs at most the fragment it lies about.

use crate::sts::{Reply, Sts, Welcome, at, ms};
use crate::world::{Agenda, Item, World};
use dub_engine::{
    AckStatus, At, BackpressureAction, Event, Fatal, Level, LinkId, Outcome, ProtocolErrorKind,
    Resolution, Session, SessionConfig, SessionFact, SessionOrder,
};
use std::collections::BTreeMap;
use std::time::Duration;

type Fact = fn(LinkId, String) -> SessionFact;

fn processed(link: LinkId, id: String, sequence: Option<u64>, outcome: Outcome) -> SessionFact {
    SessionFact::Processed {
        link,
        id,
        sequence,
        outcome,
    }
}

fn failed(code: &str, retryable: bool) -> Outcome {
    Outcome::Failed {
        code: code.to_owned(),
        retryable,
        message: "hostile".to_owned(),
    }
}

fn error(link: LinkId, code: &str, fatal: bool, id: Option<String>) -> SessionFact {
    let message = "hostile".to_owned();
    SessionFact::StsError {
        link,
        code: code.to_owned(),
        retryable: false,
        fatal,
        id,
        message,
    }
}

fn malformed(link: LinkId, kind: ProtocolErrorKind, count: u64) -> SessionFact {
    SessionFact::Malformed {
        link,
        kind,
        count,
        detail: "hostile".to_owned(),
    }
}

/// Facts told while fragment 0 is out; the service answers it properly a second later.
const FACTS: [(&str, Fact); 24] = [
    ("an id that is no uuid", |link, _| {
        processed(link, "42".into(), None, Outcome::Audio)
    }),
    ("an empty id", |link, _| {
        processed(link, String::new(), None, Outcome::Audio)
    }),
    ("an id never sent", |link, _| {
        processed(
            link,
            "00000000-0000-4000-8000-000000000000".into(),
            Some(0),
            Outcome::Audio,
        )
    }),
    ("a failure of an id never sent", |link, _| {
        processed(
            link,
            "00000000-0000-4000-8000-000000000000".into(),
            Some(0),
            failed("TIMEOUT", true),
        )
    }),
    ("an ack of an id never sent", |link, _| SessionFact::Acked {
        link,
        id: "nobody".into(),
        status: AckStatus::Queued,
    }),
    ("an ack that comes twice", |link, id| SessionFact::Acked {
        link,
        id,
        status: AckStatus::Queued,
    }),
    ("another sequence number", |link, id| {
        processed(link, id, Some(99), Outcome::Audio)
    }),
    ("no sequence number", |link, id| {
        processed(link, id, None, Outcome::Audio)
    }),
    ("an upper-case id", |link, id| {
        processed(link, id.to_uppercase(), Some(0), Outcome::Audio)
    }),
    ("a code never heard of", |link, id| {
        processed(link, id, Some(0), failed("FULL_MOON", false))
    }),
    ("an empty code", |link, id| {
        processed(link, id, Some(0), failed("", true))
    }),
    ("stream:ready again", |link, _| SessionFact::Ready {
        link,
        max_inflight: Some(1),
    }),
    ("stream:complete unasked", |link, _| {
        SessionFact::StreamComplete { link }
    }),
    ("connected again", |link, _| SessionFact::Connected { link }),
    ("an error about nothing", |link, _| {
        error(link, "MODEL_ERROR", false, None)
    }),
    ("a known error called fatal", |link, _| {
        error(link, "MODEL_ERROR", true, None)
    }),
    ("an unknown error called fatal", |link, _| {
        error(link, "KERNEL_PANIC", true, None)
    }),
    ("INVALID_CONFIG in mid-stream", |link, _| {
        error(link, "INVALID_CONFIG", false, None)
    }),
    ("INVALID_CONFIG about the fragment", |link, id| {
        error(link, "INVALID_CONFIG", false, Some(id))
    }),
    ("a fact of a connection to come", |link, id| {
        processed(link + 1, id, Some(0), Outcome::Audio)
    }),
    ("a loss of a connection long gone", |_, _| {
        SessionFact::Disconnected {
            link: 0,
            reason: "again".into(),
        }
    }),
    ("not json", |link, _| {
        malformed(link, ProtocolErrorKind::BadJson, 1)
    }),
    ("slow_down for ever", |link, _| SessionFact::Backpressure {
        link,
        action: BackpressureAction::SlowDown,
        delay: Some(Duration::MAX),
    }),
    ("a check nobody asked for", |_, _| {
        SessionFact::AudioChecked {
            batch: 77,
            ok: Ok(()),
        }
    }),
];

#[test]
fn every_hostile_fact_is_named_and_costs_at_most_its_fragment() {
    let mut table = Vec::new();
    for (name, fact) in FACTS {
        let sts = Sts {
            latency: ms(1_500),
            ..Sts::default()
        };
        let mut world = World::scripted(&SessionConfig::default(), sts);
        world.agenda.tell(
            at(6.0),
            SessionFact::SegmentReady {
                batch: 0,
                sendable: true,
                bytes: 1_000,
            },
        );
        world.agenda.tell(
            at(12.0),
            SessionFact::SegmentReady {
                batch: 1,
                sendable: true,
                bytes: 1_000,
            },
        );
        world.agenda.tell(at(12.1), SessionFact::InputEnded);
        let act = Box::new(move |sts: &mut Sts, now, agenda: &mut Agenda<Sts>| {
            let (link, id, ..) = sts.sent[0];
            agenda.tell(now, fact(link, id.to_string()));
        });
        world.agenda.put(at(6.5), Item::Act(act));
        world.run();
        world.reference.finish();
        let complaints: Vec<String> = world
            .heard
            .iter()
            .filter_map(|output| match output {
                SessionOrder::Event(Event::ProtocolError { kind, .. }) => Some(kind.to_string()),
                _ => None,
            })
            .collect();
        let results: Vec<&str> = world
            .reference
            .resolved
            .iter()
            .map(|(_, with)| match with {
                Resolution::Dubbed { .. } => "dubbed",
                Resolution::Original(reason) => reason.label(),
            })
            .collect();
        let (complaints, results) = (complaints.join(", "), results.join(", "));
        table.push(format!("{name:34} | {complaints:28} | {results}"));
    }
    insta::assert_snapshot!("hostile_facts", table.join("\n"));
}

#[test]
fn ten_thousand_events_in_a_second_change_nothing_and_are_logged_once_per_kind() {
    let mut world = World::scripted(&SessionConfig::default(), Sts::default());
    world.segments(3, Duration::from_secs(6));
    for n in 0..10_000_u64 {
        let now = At::from_millis(13_000 + n / 10);
        world.say(now, move |link| match n % 5 {
            0 => processed(
                link,
                format!("{n:08x}-0000-4000-8000-000000000000"),
                Some(n),
                Outcome::Audio,
            ),
            1 => malformed(link, ProtocolErrorKind::WrongType, 1),
            2 => error(link, "RATE_LIMIT", false, None),
            3 => SessionFact::Ready {
                link,
                max_inflight: Some(1_000_000_000),
            },
            _ => SessionFact::Acked {
                link,
                id: "x".repeat(10_000),
                status: AckStatus::Processing,
            },
        });
    }
    world.run();
    world.reference.finish();
    assert!(world.most_load.unresolved <= 1 && world.most_load.remembered <= 3);
    let mut counts: BTreeMap<ProtocolErrorKind, (usize, usize)> = BTreeMap::new();
    let mut loud = 0;
    for output in &world.heard {
        let SessionOrder::Event(event) = output else {
            continue;
        };
        loud += usize::from(event.level() >= Level::Warn);
        if let Event::ProtocolError {
            kind,
            first,
            count,
            detail,
        } = event
        {
            assert_eq!(*count, 1, "{kind}");
            let (all, firsts) = counts.entry(*kind).or_default();
            *all += 1;
            *firsts += usize::from(*first);
            assert!(detail.chars().count() <= 201);
        }
    }
    let expected = [
        (ProtocolErrorKind::WrongType, (2_000, 1)),
        (ProtocolErrorKind::UnknownFragment, (4_000, 1)),
        (ProtocolErrorKind::Duplicate, (2_000, 1)),
        (ProtocolErrorKind::SessionError, (2_000, 1)),
    ];
    assert_eq!(counts, BTreeMap::from(expected));
    assert_eq!(loud, 4, "one line per kind");
    let dubbed = |(_, with): &(u64, Resolution)| matches!(with, Resolution::Dubbed { .. });
    assert!(world.reference.resolved.iter().all(dubbed));
}

#[test]
fn a_flood_counts_every_event_that_was_dropped() {
    let mut session = Session::new(SessionConfig::default());
    for count in [9_000, 1] {
        session.handle(At::ZERO, malformed(1, ProtocolErrorKind::Flood, count));
    }
    let told: Vec<String> = std::iter::from_fn(|| session.poll_order())
        .filter_map(|output| match output {
            SessionOrder::Event(event) => Some(event.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(
        told,
        [
            "protocol_error kind=flood first=true count=9000 detail=\"link 1: hostile\"",
            "protocol_error kind=flood first=false detail=\"link 1: hostile\"",
        ]
    );
}

#[test]
fn any_confirmed_limit_is_brought_into_range() {
    let rows = [
        (None, 3, false),
        (Some(1), 1, false),
        (Some(3), 3, false),
        (Some(5), 3, false),
        (Some(10), 3, false),
        (Some(11), 3, true),
        (Some(1_000_000_000), 3, true),
        (Some(i64::MAX), 3, true),
        (Some(0), 1, true),
        (Some(-1), 1, true),
        (Some(i64::MIN), 1, true),
    ];
    for (confirmed, limit, complains) in rows {
        let sts = Sts {
            welcome: Welcome::Ready(confirmed),
            ..Sts::default()
        };
        let mut world = World::scripted(&SessionConfig::default(), sts);
        world.segments(1, Duration::from_secs(6));
        world.run();
        assert_eq!(world.session.max_inflight(), limit, "{confirmed:?}");
        let complained = world.heard.iter().any(|output| {
            let bad = ProtocolErrorKind::BadValue;
            matches!(output, SessionOrder::Event(Event::ProtocolError { kind, .. }) if *kind == bad)
        });
        assert_eq!(complained, complains, "{confirmed:?}");
    }
}

#[test]
fn megabytes_of_words_are_cut_short() {
    let mut world = World::scripted(&SessionConfig::default(), Sts::default());
    world.peer.reply = Reply::Hold;
    world.segments(2, Duration::from_secs(6));
    let act = Box::new(|sts: &mut Sts, now, agenda: &mut Agenda<Sts>| {
        let (link, id, ..) = sts.sent[0];
        let long = "é".repeat(1 << 20);
        let outcome = Outcome::Failed {
            code: long.clone(),
            retryable: true,
            message: long.clone(),
        };
        agenda.tell(now, processed(link, id.to_string(), None, outcome));
        agenda.tell(now, SessionFact::Disconnected { link, reason: long });
    });
    world.agenda.put(at(6.5), Item::Act(act));
    world.run();
    world.reference.finish();
    let longest = world
        .timeline
        .iter()
        .flatten()
        .map(|line| line.chars().count())
        .max();
    assert!(longest.is_some_and(|longest| longest < 700), "{longest:?}");
}

#[test]
fn a_clock_that_goes_back_and_repeated_batches_do_no_harm() {
    let mut session = Session::new(SessionConfig::default());
    session.handle(at(100.0), SessionFact::Start);
    session.handle(
        at(1.0),
        SessionFact::SegmentReady {
            batch: 5,
            sendable: true,
            bytes: 1_000,
        },
    );
    // Told twice, and one that is older: neither is a new segment.
    session.handle(
        at(1.0),
        SessionFact::SegmentReady {
            batch: 5,
            sendable: true,
            bytes: 1_000,
        },
    );
    session.handle(
        at(1.0),
        SessionFact::SegmentReady {
            batch: 4,
            sendable: true,
            bytes: 1_000,
        },
    );
    assert_eq!(session.load().waiting, 1);
    assert_eq!(
        session.poll_timeout(),
        Some(at(108.0)),
        "the deadline counts from the latest moment seen"
    );
}

#[test]
fn a_drained_session_stays_drained_and_asks_for_nothing() {
    let mut world = World::scripted(&SessionConfig::default(), Sts::default());
    world.segments(1, Duration::from_secs(6));
    world.run();
    let fatal = Some(Fatal {
        code: "AUTH_FAILED".into(),
        message: String::new(),
    });
    let session = &mut world.session;
    for input in [
        SessionFact::Start,
        SessionFact::Connected { link: 1 },
        SessionFact::ConnectFailed {
            link: 1,
            reason: String::new(),
            fatal,
        },
        SessionFact::Disconnected {
            link: 1,
            reason: String::new(),
        },
        SessionFact::Ready {
            link: 1,
            max_inflight: None,
        },
        error(1, "AUTH_FAILED", true, None),
        SessionFact::InputEnded,
    ] {
        session.handle(at(60.0), input);
    }
    while let Some(output) = session.poll_order() {
        let quiet = matches!(output, SessionOrder::Event(Event::ProtocolError { .. }));
        assert!(quiet, "{output:?}");
    }
    assert_eq!(session.poll_timeout(), None);
}

/// Errors about fragments whose session is known to be lost.
#[test]
fn a_lost_session_may_be_told_for_each_of_its_fragments() {
    let rows = [
        ("STREAM_NOT_FOUND", None),
        ("INVALID_SEQUENCE", None),
        ("TIMEOUT", Some(ProtocolErrorKind::Late)),
    ];
    for (code, complaint) in rows {
        let mut world = World::scripted(&SessionConfig::default(), Sts::default());
        world.peer.reply = Reply::Hold;
        world.segments(3, ms(2_000));
        let act = Box::new(move |sts: &mut Sts, now, agenda: &mut Agenda<Sts>| {
            for (n, (link, id, ..)) in sts.sent.iter().enumerate() {
                let code = if n == 0 { "STREAM_NOT_FOUND" } else { code };
                agenda.tell(now, error(*link, code, false, Some(id.to_string())));
            }
        });
        world.agenda.put(at(5.0), Item::Act(act));
        world.run();
        world.reference.finish();
        let complaints = world.heard.iter().filter_map(|output| match output {
            SessionOrder::Event(Event::ProtocolError { kind, .. }) => Some(*kind),
            _ => None,
        });
        assert!(complaints.eq(complaint), "{code}");
        assert_eq!(world.reference.reinits, 1);
    }
}

/// The reference sees that neither what is in use is thrown away nor anything else kept.
#[test]
fn audio_that_comes_again_is_thrown_away_and_the_first_is_used() {
    let sts = Sts {
        in_order: false,
        ..Sts::default()
    };
    let mut world = World::scripted(&SessionConfig::default(), sts);
    world.peer.latencies.insert(0, ms(3_000));
    world.peer.latencies.insert(2, ms(20_000));
    world.segments(3, ms(2_000));
    // Fragment 0 is back at 5 s, fragment 1 at 4.3 s, fragment 2 goes with its connection.
    let again = [
        (1, 4.305, "is being checked"),
        (1, 4.5, "waits for its turn"),
        (1, 5.1, "is used up"),
        (2, 7.0, "has no session any more"),
    ];
    world.disconnect(at(6.5), crate::sts::Door::Open);
    for (n, when, _) in again {
        let act = Box::new(move |sts: &mut Sts, now, agenda: &mut Agenda<Sts>| {
            let (link, id, ..) = sts.sent[n];
            agenda.tell(now, processed(link, id.to_string(), None, Outcome::Audio));
        });
        world.agenda.put(at(when), Item::Act(act));
    }
    world.run();
    world.reference.finish();
}
