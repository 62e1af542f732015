//! A peer that does anything it likes, from a seed: refuses, forgets, lies, repeats itself, answers
//! late, at the very deadline, on a dead connection, or not at all.

use crate::sts::ms;
use crate::world::{Agenda, Item, Peer, World};
use dub_engine::{
    AckStatus, At, BackpressureAction, BadAudio, Fatal, FragmentId, Gone, LinkId, Outcome,
    ProtocolErrorKind, SessionConfig, SessionFact, SessionOrder,
};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::time::Duration;

/// How often things go wrong in one run, in percent.
struct Mood {
    refuses: u32,
    silent: u32,
    holds: u32,
    fails: u32,
    bad_audio: u32,
    nonsense: u32,
    loses_session: u32,
}

pub(crate) struct Chaos {
    rng: StdRng,
    mood: Mood,
    timeout: Duration,
    /// What was put on the wire still arrives after the connection is gone.
    leaky: bool,
    up: Option<LinkId>,
    sent: Vec<(LinkId, FragmentId, u64)>,
}

/// A random run: configuration, peer, segments, and faults out of the blue.
pub(crate) fn world(seed: u64) -> World<Chaos> {
    let mut rng = StdRng::seed_from_u64(seed);
    let config = config(&mut rng);
    let chaos = Chaos {
        mood: mood(&mut rng),
        timeout: config.fragment_timeout,
        leaky: rng.random_bool(0.3),
        up: None,
        sent: Vec::new(),
        rng: StdRng::seed_from_u64(seed ^ 0xdead),
    };
    let mut world = World::new(&config, chaos);
    let every = *[50, 300, 1_000, 2_000, 6_000]
        .choose(&mut rng)
        .unwrap_or(&6_000);
    let count = rng.random_range(1..=30);
    // Cut where speakers pause, segments come as long as they happen to be.
    let spoken = rng.random_bool(0.4);
    let mut now = 0;
    for batch in 0..count {
        let next = if spoken {
            rng.random_range(every / 2..=every * 5 / 3)
        } else {
            every
        };
        now += if rng.random_bool(0.1) { 0 } else { next };
        let sendable = !rng.random_bool(0.05);
        world.agenda.tell(
            At::from_millis(now),
            if sendable && rng.random_bool(0.05) {
                SessionFact::SegmentSilent { batch }
            } else {
                SessionFact::SegmentReady {
                    batch,
                    sendable,
                    bytes: 1_000,
                }
            },
        );
        if rng.random_bool(0.02) {
            world.agenda.tell(
                At::from_millis(now),
                SessionFact::SegmentReady {
                    batch,
                    sendable: true,
                    bytes: 1_000,
                },
            );
        }
    }
    world.agenda.tell(
        At::from_millis(now + rng.random_range(0..20_000)),
        SessionFact::InputEnded,
    );
    for _ in 0..rng.random_range(0..20) {
        let at = At::from_millis(rng.random_range(0..=now + 10_000));
        world.agenda.put(at, Item::Act(Box::new(Chaos::meddle)));
    }
    world
}

fn config(rng: &mut StdRng) -> SessionConfig {
    let mut pick = |from: &[u64]| ms(*from.choose(rng).unwrap_or(&1_000));
    let (fragment_timeout, breaker_cooldown) = (
        pick(&[200, 1_000, 8_000, 8_000]),
        pick(&[500, 5_000, 30_000]),
    );
    let (ready_timeout, complete_timeout) = (pick(&[300, 10_000]), pick(&[0, 5_000]));
    let backoff: &[u64] = [
        &[2_000, 4_000, 8_000, 16_000, 32_000][..],
        &[100, 200, 400, 800, 1_600],
        &[0, 50],
        &[],
    ][*[0, 0, 1, 1, 1, 2, 3].choose(rng).unwrap_or(&0)];
    SessionConfig {
        enabled: !rng.random_bool(0.02),
        max_inflight: rng.random_range(1..=5),
        fragment_timeout,
        breaker_failures: rng.random_range(1..=5),
        breaker_cooldown,
        backoff: backoff.iter().map(|millis| ms(*millis)).collect(),
        gone: if rng.random_bool(0.2) {
            Gone::Original
        } else {
            Gone::Exit
        },
        quiet_life: ms(*[500, 60_000].choose(rng).unwrap_or(&500)),
        max_message: usize::MAX,
        ready_timeout,
        complete_timeout,
        id_seed: rng.random(),
    }
}

fn mood(rng: &mut StdRng) -> Mood {
    let mut up_to = |most: u32| {
        if rng.random_bool(0.4) {
            0
        } else {
            rng.random_range(0..=most)
        }
    };
    Mood {
        refuses: up_to(40),
        silent: up_to(6),
        holds: up_to(60),
        fails: up_to(80),
        bad_audio: up_to(30),
        nonsense: up_to(30),
        loses_session: up_to(15),
    }
}

impl Chaos {
    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    /// A delay: usually short, sometimes around the timeout, sometimes exactly at it.
    fn delay(&mut self) -> Duration {
        match self.rng.random_range(0..10) {
            0 => Duration::ZERO,
            1 => self.timeout,
            2 => self.timeout.saturating_sub(ms(1)),
            3 => self.timeout + ms(self.rng.random_range(1..3_000)),
            4 | 5 => self.timeout.mul_f64(self.rng.random_range(0.0..1.2)),
            _ => ms(self.rng.random_range(0..150)),
        }
    }

    fn code(&mut self) -> (&'static str, bool) {
        let flag = self.rng.random();
        let codes = [
            "TIMEOUT",
            "MODEL_ERROR",
            "GPU_OOM",
            "QUEUE_FULL",
            "RATE_LIMIT",
            "INVALID_SEQUENCE",
            "FRAGMENT_TOO_LARGE",
            "INVALID_CONFIG",
            "FULL_MOON",
        ];
        (
            codes.choose(&mut self.rng).copied().unwrap_or("TIMEOUT"),
            flag,
        )
    }

    fn error(&mut self, link: LinkId, id: Option<String>) -> SessionFact {
        let (mut code, retryable) = self.code();
        if self.rng.random_bool(0.005) {
            code = "AUTH_FAILED";
        }
        let fatal = self.rng.random_bool(0.05);
        SessionFact::StsError {
            link,
            code: code.into(),
            retryable,
            fatal,
            id,
            message: "chaos".into(),
        }
    }

    fn lost(link: LinkId, id: Option<String>) -> SessionFact {
        SessionFact::StsError {
            link,
            code: "STREAM_NOT_FOUND".into(),
            retryable: false,
            fatal: false,
            id,
            message: "who are you".into(),
        }
    }

    /// Something out of the blue.
    fn meddle(&mut self, at: At, agenda: &mut Agenda<Self>) {
        let link = self.up.unwrap_or(1);
        let old = link.saturating_sub(self.rng.random_range(0..2));
        let action = *[
            BackpressureAction::Pause,
            BackpressureAction::SlowDown,
            BackpressureAction::SlowDown,
            BackpressureAction::None,
        ]
        .choose(&mut self.rng)
        .unwrap_or(&BackpressureAction::None);
        let delay = self.rng.random_bool(0.7).then(|| self.delay());
        let known = self.sent.choose(&mut self.rng).copied();
        let batch = self.rng.random_range(0..30);
        let fact = match self.rng.random_range(0..13) {
            0..=2 => {
                let Some(link) = self.up.take() else { return };
                SessionFact::Disconnected {
                    link,
                    reason: "chaos".into(),
                }
            }
            3..=5 => SessionFact::Backpressure {
                link,
                action,
                delay,
            },
            6 => SessionFact::Ready {
                link: old,
                max_inflight: Some(2),
            },
            7 => SessionFact::StreamComplete { link: old },
            8 => Self::lost(old, None),
            9 => self.error(old, None),
            10 => SessionFact::Malformed {
                link: old,
                kind: ProtocolErrorKind::BadJson,
                count: 1,
                detail: String::new(),
            },
            11 => SessionFact::AudioChecked { batch, ok: Ok(()) },
            _ => match known {
                Some((link, id, sequence)) => SessionFact::Processed {
                    link,
                    id: id.to_string(),
                    sequence: Some(sequence),
                    outcome: Outcome::Audio,
                },
                None => SessionFact::Disconnected {
                    link: old.saturating_sub(1),
                    reason: "old".into(),
                },
            },
        };
        agenda.tell(at, fact);
    }

    fn open_door(&mut self, at: At, link: LinkId, agenda: &mut Agenda<Self>) {
        let at = at + ms(self.rng.random_range(0..200));
        if self.chance(self.mood.silent) {
            return;
        }
        if self.chance(self.mood.refuses) {
            let fatal = self.rng.random_bool(0.01).then(|| Fatal {
                code: "AUTH_FAILED".into(),
                message: "chaos".into(),
            });
            agenda.tell(
                at,
                SessionFact::ConnectFailed {
                    link,
                    reason: "refused".into(),
                    fatal,
                },
            );
            return;
        }
        agenda.put(
            at,
            Item::Act(Box::new(move |chaos: &mut Self, at, agenda| {
                chaos.up = Some(link);
                agenda.tell(at, SessionFact::Connected { link });
            })),
        );
    }

    fn welcome(&mut self, at: At, link: LinkId, agenda: &mut Agenda<Self>) {
        let due = at + ms(self.rng.random_range(0..250));
        if self.chance(self.mood.silent) {
            return;
        }
        if self.rng.random_bool(0.01) {
            let fact = self.error(link, None);
            agenda.wire(at, link, fact);
        }
        let limits = [
            None,
            Some(1),
            Some(2),
            Some(3),
            Some(10),
            Some(0),
            Some(-7),
            Some(i64::MAX),
        ];
        let max_inflight = *limits.choose(&mut self.rng).unwrap_or(&None);
        agenda.wire(due, link, SessionFact::Ready { link, max_inflight });
    }

    fn answer(
        &mut self,
        at: At,
        link: LinkId,
        id: FragmentId,
        sequence: u64,
        agenda: &mut Agenda<Self>,
    ) {
        let mut text = id.to_string();
        for status in [AckStatus::Processing, AckStatus::Queued] {
            if self.chance(60) {
                let due = at + self.delay();
                agenda.wire(
                    due,
                    link,
                    SessionFact::Acked {
                        link,
                        id: text.clone(),
                        status,
                    },
                );
            }
        }
        if self.chance(self.mood.holds) {
            return;
        }
        let due = at + self.delay();
        if self.chance(self.mood.loses_session) {
            agenda.wire(
                due,
                link,
                Self::lost(link, self.rng.random_bool(0.7).then_some(text)),
            );
            return;
        }
        if self.chance(self.mood.fails) {
            let (code, retryable) = self.code();
            let failed = Outcome::Failed {
                code: code.into(),
                retryable,
                message: "chaos".into(),
            };
            let sequence = Some(sequence);
            if self.chance(50) {
                let fact = self.error(link, Some(text.clone()));
                agenda.wire(due, link, fact);
            }
            if self.chance(70) {
                let outcome = failed;
                agenda.wire(
                    due,
                    link,
                    SessionFact::Processed {
                        link,
                        id: text,
                        sequence,
                        outcome,
                    },
                );
            }
            return;
        }
        if self.chance(10) {
            text = text.to_uppercase();
        }
        let mut times = 1;
        if self.chance(self.mood.nonsense) {
            match self.rng.random_range(0..4) {
                0 => times = 2,
                1 => text = FragmentId(self.rng.random()).to_string(),
                2 => text = String::from("not an id"),
                _ => times = 3,
            }
        }
        for _ in 0..times {
            let sequence = Some(sequence + u64::from(self.chance(self.mood.nonsense)));
            let outcome = Outcome::Audio;
            let due = due
                + if times > 1 {
                    self.delay()
                } else {
                    Duration::ZERO
                };
            agenda.wire(
                due,
                link,
                SessionFact::Processed {
                    link,
                    id: text.clone(),
                    sequence,
                    outcome,
                },
            );
        }
    }
}

impl Peer for Chaos {
    fn on_output(&mut self, at: At, output: &SessionOrder, agenda: &mut Agenda<Self>) {
        match output {
            SessionOrder::Connect { link } => self.open_door(at, *link, agenda),
            SessionOrder::Init { link } => self.welcome(at, *link, agenda),
            SessionOrder::Send {
                link, id, sequence, ..
            } => {
                self.sent.push((*link, *id, *sequence));
                self.answer(at, *link, *id, *sequence, agenda);
            }
            SessionOrder::Decode { batch, .. } => {
                let batch = *batch;
                if self.chance(self.mood.silent) {
                    return;
                }
                let bad = self.chance(self.mood.bad_audio);
                let ok = if bad {
                    Err(BadAudio {
                        reason: "chaos".into(),
                    })
                } else {
                    Ok(())
                };
                let due = at
                    + if self.chance(80) {
                        ms(10)
                    } else {
                        self.delay()
                    };
                agenda.tell(due, SessionFact::AudioChecked { batch, ok });
            }
            SessionOrder::End { link } if !self.chance(self.mood.silent * 3) => {
                let due = at + ms(self.rng.random_range(0..6_000));
                agenda.wire(due, *link, SessionFact::StreamComplete { link: *link });
            }
            SessionOrder::Disconnect { link } => {
                self.up = None;
                if self.chance(50) {
                    let reason = "closed by us".into();
                    agenda.tell(
                        at,
                        SessionFact::Disconnected {
                            link: *link,
                            reason,
                        },
                    );
                }
            }
            _ => {}
        }
    }

    fn delivers(&self, link: LinkId) -> bool {
        self.leaky || self.up == Some(link)
    }
}
