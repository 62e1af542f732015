//! A scripted STS service together with the driver's own answers (decoding).

use crate::world::{Agenda, Item, Peer, World};
use dub_engine::{
    AckStatus, At, BackpressureAction, BadAudio, Fatal, FragmentId, LinkId, Outcome, SessionConfig,
    SessionFact, SessionOrder,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) const fn at(seconds: f64) -> At {
    At::from_millis((seconds * 1000.0) as u64)
}

/// What becomes of connection attempts.
#[derive(Clone)]
pub(crate) enum Door {
    Open,
    Refused,
    /// Accepts nothing, says nothing.
    Silent,
    /// Says that trying again is pointless.
    Forbidden,
}

/// What becomes of an init.
#[derive(Clone)]
pub(crate) enum Welcome {
    Ready(Option<i64>),
    Silent,
    Error(&'static str),
}

/// What becomes of a fragment.
#[derive(Clone)]
pub(crate) enum Reply {
    Audio,
    /// Comes back, but cannot be used.
    BadAudio,
    /// Comes back, but the check never ends.
    EndlessAudio,
    /// `fragment:processed` with status failed.
    Fail(&'static str, bool),
    /// Both an `error` event and `fragment:processed`.
    FailTwice(&'static str, bool),
    Hold,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches of a script"
)]
pub(crate) struct Sts {
    pub(crate) door: Door,
    pub(crate) welcome: Welcome,
    pub(crate) reply: Reply,
    /// By batch, instead of `reply`.
    pub(crate) replies: BTreeMap<u64, Reply>,
    pub(crate) latency: Duration,
    /// By batch, instead of `latency`.
    pub(crate) latencies: BTreeMap<u64, Duration>,
    /// Answers come in the order of the fragments, as the protocol has it.
    pub(crate) in_order: bool,
    pub(crate) completes: bool,
    /// The session is gone: every fragment is answered with `STREAM_NOT_FOUND` until the next init.
    pub(crate) amnesia: bool,
    /// Even after an init.
    pub(crate) incurable: bool,
    /// A batch whose handler fails before it is counted: nothing is said of it, and every fragment
    /// after it is out of sequence until the next init.
    pub(crate) uncounted: Option<u64>,
    /// Its complaints do not say which fragment they are about.
    pub(crate) vague: bool,
    pub(crate) gap: bool,
    pub(crate) up: Option<LinkId>,
    pub(crate) sent: Vec<(LinkId, FragmentId, u64, u64)>,
    pub(crate) newest_answer: At,
    pub(crate) bad: BTreeSet<u64>,
    pub(crate) endless: BTreeSet<u64>,
}

impl Default for Sts {
    fn default() -> Self {
        Self {
            door: Door::Open,
            welcome: Welcome::Ready(Some(3)),
            reply: Reply::Audio,
            replies: BTreeMap::new(),
            latency: ms(300),
            latencies: BTreeMap::new(),
            in_order: true,
            completes: true,
            amnesia: false,
            incurable: false,
            uncounted: None,
            vague: false,
            gap: false,
            up: None,
            sent: Vec::new(),
            newest_answer: At::ZERO,
            bad: BTreeSet::new(),
            endless: BTreeSet::new(),
        }
    }
}

impl Sts {
    /// Puts a fact on the wire of the connection that is up, if any.
    pub(crate) fn say(
        &self,
        at: At,
        agenda: &mut Agenda<Self>,
        fact: impl FnOnce(LinkId) -> SessionFact,
    ) {
        if let Some(link) = self.up {
            agenda.wire(at, link, fact(link));
        }
    }

    fn answer(&mut self, at: At, output: &SessionOrder, agenda: &mut Agenda<Self>) {
        let SessionOrder::Send {
            link,
            batch,
            id,
            sequence,
        } = output
        else {
            return;
        };
        let (link, batch, id, sequence) = (*link, *batch, *id, *sequence);
        self.sent.push((link, id, batch, sequence));
        let text = id.to_string();
        if self.uncounted == Some(batch) {
            self.gap = true;
            return;
        }
        if self.gap {
            let gap = SessionFact::StsError {
                link,
                code: "INVALID_SEQUENCE".to_owned(),
                retryable: false,
                fatal: false,
                id: (!self.vague).then_some(text),
                message: "gap".to_owned(),
            };
            return agenda.wire(at + ms(10), link, gap);
        }
        let ack = SessionFact::Acked {
            link,
            id: text.clone(),
            status: AckStatus::Queued,
        };
        agenda.wire(at + ms(5), link, ack);
        let latency = self.latencies.get(&batch).copied().unwrap_or(self.latency);
        let mut due = at + latency;
        if self.in_order {
            due = due.max(self.newest_answer);
            self.newest_answer = due;
        }
        let mut reply = self
            .replies
            .get(&batch)
            .cloned()
            .unwrap_or_else(|| self.reply.clone());
        if self.amnesia || self.incurable {
            due = at + ms(10);
            reply = Reply::Fail("STREAM_NOT_FOUND", false);
        }
        let message = "simulated".to_owned();
        let outcome = match reply {
            Reply::Hold => return,
            Reply::Audio => Outcome::Audio,
            Reply::BadAudio => {
                self.bad.insert(batch);
                Outcome::Audio
            }
            Reply::EndlessAudio => {
                self.endless.insert(batch);
                Outcome::Audio
            }
            Reply::Fail(code, retryable) => Outcome::Failed {
                code: code.to_owned(),
                retryable,
                message,
            },
            Reply::FailTwice(code, retryable) => {
                let code = code.to_owned();
                let error = SessionFact::StsError {
                    link,
                    code: code.clone(),
                    retryable,
                    fatal: false,
                    id: Some(text.clone()),
                    message: message.clone(),
                };
                agenda.wire(due, link, error);
                Outcome::Failed {
                    code,
                    retryable,
                    message,
                }
            }
        };
        agenda.wire(
            due,
            link,
            SessionFact::Processed {
                link,
                id: text,
                sequence: Some(sequence),
                outcome,
            },
        );
    }
}

impl Peer for Sts {
    fn on_output(&mut self, at: At, output: &SessionOrder, agenda: &mut Agenda<Self>) {
        match output {
            SessionOrder::Connect { link } => {
                let link = *link;
                let soon = at + ms(20);
                match self.door {
                    Door::Open => agenda.put(
                        soon,
                        Item::Act(Box::new(move |sts: &mut Self, at, agenda| {
                            sts.up = Some(link);
                            agenda.tell(at, SessionFact::Connected { link });
                        })),
                    ),
                    Door::Refused => {
                        let reason = "connection refused".to_owned();
                        agenda.tell(
                            soon,
                            SessionFact::ConnectFailed {
                                link,
                                reason,
                                fatal: None,
                            },
                        );
                    }
                    Door::Silent => {}
                    Door::Forbidden => {
                        let fatal = Some(Fatal {
                            code: "AUTH_FAILED".to_owned(),
                            message: "unknown token".to_owned(),
                        });
                        let reason = "refused".to_owned();
                        agenda.tell(
                            soon,
                            SessionFact::ConnectFailed {
                                link,
                                reason,
                                fatal,
                            },
                        );
                    }
                }
            }
            SessionOrder::Init { link } => {
                let link = *link;
                (self.amnesia, self.gap) = (false, false);
                match self.welcome {
                    Welcome::Ready(max_inflight) => {
                        agenda.wire(at + ms(30), link, SessionFact::Ready { link, max_inflight });
                    }
                    Welcome::Silent => {}
                    Welcome::Error(code) => {
                        let error = SessionFact::StsError {
                            link,
                            code: code.to_owned(),
                            retryable: false,
                            fatal: false,
                            id: None,
                            message: "chunk_duration_ms must be <= 5000".to_owned(),
                        };
                        agenda.wire(at + ms(30), link, error);
                    }
                }
            }
            SessionOrder::Send { .. } => self.answer(at, output, agenda),
            SessionOrder::Decode { batch, .. } => {
                let batch = *batch;
                if self.endless.contains(&batch) {
                    return;
                }
                let ok = if self.bad.contains(&batch) {
                    Err(BadAudio {
                        reason: "no audio stream found".to_owned(),
                    })
                } else {
                    Ok(())
                };
                agenda.tell(at + ms(15), SessionFact::AudioChecked { batch, ok });
            }
            SessionOrder::End { link } if self.completes => {
                agenda.wire(
                    at + ms(25),
                    *link,
                    SessionFact::StreamComplete { link: *link },
                );
            }
            SessionOrder::Disconnect { .. } => self.up = None,
            _ => {}
        }
    }

    fn delivers(&self, link: LinkId) -> bool {
        self.up == Some(link)
    }
}

impl World<Sts> {
    /// A world that keeps a timeline.
    pub(crate) fn scripted(config: &SessionConfig, sts: Sts) -> Self {
        let mut world = Self::new(config, sts);
        world.timeline = Some(Vec::new());
        world
    }

    /// Changes the service at a moment.
    pub(crate) fn change(&mut self, at: At, change: impl FnOnce(&mut Sts) + 'static) {
        self.agenda
            .put(at, Item::Act(Box::new(move |sts, _, _| change(sts))));
    }

    /// Lets the service say something at a moment, if it is connected.
    pub(crate) fn say(&mut self, at: At, fact: impl FnOnce(LinkId) -> SessionFact + 'static) {
        let act = Box::new(move |sts: &mut Sts, at, agenda: &mut Agenda<Sts>| {
            sts.say(at, agenda, fact);
        });
        self.agenda.put(at, Item::Act(act));
    }

    pub(crate) fn backpressure(&mut self, at: At, action: BackpressureAction, delay: Option<u64>) {
        let delay = delay.map(ms);
        self.say(at, move |link| SessionFact::Backpressure {
            link,
            action,
            delay,
        });
    }

    /// The connection breaks; the door is `door` from then on.
    pub(crate) fn disconnect(&mut self, at: At, door: Door) {
        let act = Box::new(move |sts: &mut Sts, at, agenda: &mut Agenda<Sts>| {
            sts.door = door;
            if let Some(link) = sts.up.take() {
                let reason = "closed by server".to_owned();
                agenda.tell(at, SessionFact::Disconnected { link, reason });
            }
        });
        self.agenda.put(at, Item::Act(act));
    }
}
