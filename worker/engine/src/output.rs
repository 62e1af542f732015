//! The output's life: connect, publish, lose, connect again, and end.
//!
//! It connects when the first pair is ready. Until the server has accepted the stream, what leaves is
//! kept, so that nothing is lost when the name is still held by a predecessor that drains: that is
//! tried again for some seconds. Any other failure of an output that never worked ends it at once.
//!
//! An output that once worked is connected again for as long as the operator allows, on the same
//! timeline: what is due while it is away is skipped and counted, and it goes on with the next
//! keyframe. A connection has to last a little before the absence counts as over, so a server that
//! accepts and hangs up in turns is given up like one that stays away.
//!
//! At the end everything is handed over, the stream stays open for a moment (a server may throw away
//! what it has queued when its publisher leaves), then the sink is told that nothing follows, and the
//! connection is closed when its last bytes are on their way.

use crate::event::Event;
use crate::time::{At, Pts};
use std::collections::VecDeque;
use std::time::Duration;

/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// A draining predecessor gives the name back within its drain.
const NAME_PATIENCE: Duration = Duration::from_secs(10);
/// How long a server may take from the connection to its consent.
const ACCEPT: Duration = Duration::from_secs(10);
/// A connection that lasted this long ends an absence.
const PROOF: Duration = Duration::from_secs(5);
/// How long the stream stays open behind its last unit.
const LINGER: Duration = Duration::from_millis(300);
/// Between two looks whether the last bytes are gone.
const LOOK: Duration = Duration::from_millis(50);
/// How long the server may take to accept the last bytes.
const LAST_BYTES: Duration = Duration::from_secs(10);
/// Media that may wait in front of a server before it counts as stuck.
const LARGEST_BACKLOG: Duration = Duration::from_secs(5);

/// Which connection a fact is about, counted from 1.
pub type Connection = u32;

/// What the driver must do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum OutputOrder {
    /// Connect, and hand over what is kept.
    Connect(Connection),
    /// Take the connection down; what is kept is thrown away if `forget`.
    Disconnect {
        /// Whether what is kept has been skipped.
        forget: bool,
    },
    /// Ask the mixer for its last frames.
    Flush,
    /// Tell the sink that nothing follows.
    Finish,
    /// See whether the last bytes are gone, and tell with [`OutputLife::settled`].
    Look,
    /// Give up.
    Fail(String),
    /// Log and count.
    Event(Event),
}

/// What becomes of a unit whose turn has come.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Admission {
    /// It goes out on a proven connection.
    Send,
    /// It goes out if there is a connection, and is kept until that is accepted.
    Keep,
    /// The output is away: it is counted and does not go out.
    Skip,
}

/// A unit whose turn has come.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Leaving {
    /// An access unit.
    Video {
        /// Whether a viewer can begin here.
        keyframe: bool,
        /// Presentation time.
        pts: Pts,
    },
    /// An audio frame.
    Audio {
        /// Presentation time.
        pts: Pts,
    },
}

/// Units that did not go out.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub struct Skipped {
    /// Access units.
    pub video: u64,
    /// Audio frames.
    pub audio: u64,
}

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum OutputLink {
    /// No pair is ready yet.
    Idle,
    /// The server has not accepted yet.
    Connecting { until: At },
    /// Accepted.
    Open { since: At },
    /// The next attempt.
    Waiting { until: At },
    /// Nothing is connected any more.
    Closed,
}

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum Ending {
    Running,
    Flushing,
    Flushed,
    /// Everything has left; a connection that is not accepted yet is waited for.
    Emptied,
    Lingering {
        until: At,
    },
    Closing {
        until: At,
    },
    /// The sink has seen the end; its last bytes may still be in its hands.
    Settling {
        look: At,
        until: At,
    },
    Finished,
}

/// An absence: since when, and what was skipped.
#[derive(Copy, Clone, Debug)]
struct Away {
    since: At,
    skipped: Skipped,
    /// Where viewers begin again, once a keyframe has left on the connection under way.
    resumes: Option<Pts>,
    /// What went into that connection and is not accepted.
    unaccepted: Skipped,
    /// The end of the absence has been told.
    told: bool,
}

/// The machine of one output. See the [module](self).
#[derive(Debug)]
pub struct OutputLife {
    retry: Duration,
    connection: Connection,
    link: OutputLink,
    ending: Ending,
    /// When the first connection was attempted.
    began: At,
    /// The server has accepted once.
    worked: bool,
    away: Option<Away>,
    last_reason: String,
    orders: VecDeque<OutputOrder>,
}

impl OutputLife {
    /// An output that waits for its first pair. One that once worked is tried again for `retry`.
    pub fn new(retry: Duration) -> Self {
        Self {
            retry,
            connection: 0,
            link: OutputLink::Idle,
            ending: Ending::Running,
            began: At::ZERO,
            worked: false,
            away: None,
            last_reason: String::new(),
            orders: VecDeque::new(),
        }
    }

    /// The next order, oldest first.
    pub fn poll_order(&mut self) -> Option<OutputOrder> {
        self.orders.pop_front()
    }

    /// When [`OutputLife::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<At> {
        let link = match self.link {
            OutputLink::Connecting { until } | OutputLink::Waiting { until } => Some(until),
            // Without a keyframe nothing has resumed, and nothing is over.
            OutputLink::Open { since } => {
                let away = self.away.filter(|away| away.resumes.is_some());
                away.map(|_| since + PROOF)
            }
            OutputLink::Idle | OutputLink::Closed => None,
        };
        let ending = match self.ending {
            Ending::Lingering { until } | Ending::Closing { until } => Some(until),
            Ending::Settling { look, .. } => Some(look),
            _ => None,
        };
        link.into_iter().chain(ending).min()
    }

    /// Whether everything is out.
    pub fn is_finished(&self) -> bool {
        self.ending == Ending::Finished
    }

    /// Whether pairs still follow.
    pub fn is_running(&self) -> bool {
        self.ending == Ending::Running
    }

    /// Whether the mixer has given its last.
    pub fn is_flushed(&self) -> bool {
        self.ending == Ending::Flushed
    }

    /// Whether the sink has seen the end, and only its last bytes are on their way.
    pub fn is_settling(&self) -> bool {
        matches!(self.ending, Ending::Settling { .. })
    }

    /// Which connection is the newest.
    pub fn connection(&self) -> Connection {
        self.connection
    }

    /// Whether the server has been asked and has not accepted yet.
    pub fn is_connecting(&self) -> bool {
        matches!(self.link, OutputLink::Connecting { .. })
    }

    /// Whether the server has accepted and is there.
    pub fn is_connected(&self) -> bool {
        matches!(self.link, OutputLink::Open { .. })
    }

    /// A pair is ready.
    pub fn pair_ready(&mut self, at: At) {
        if self.link == OutputLink::Idle {
            self.began = at;
            self.connect(at);
        }
    }

    /// The server has accepted the stream.
    pub fn accepted(&mut self, at: At, connection: Connection) {
        if connection != self.connection || !matches!(self.link, OutputLink::Connecting { .. }) {
            return;
        }
        self.link = OutputLink::Open { since: at };
        self.worked = true;
        if let Some(away) = &mut self.away {
            away.unaccepted = Skipped::default();
        }
        self.announce(at);
        if self.ending == Ending::Emptied {
            self.linger(at);
        }
    }

    /// Tells that viewers see something again: the server has accepted, and a keyframe has left.
    fn announce(&mut self, at: At) {
        let open = self.is_connected();
        if let Some(away) = &mut self.away
            && open
            && away.resumes.is_some()
            && !std::mem::replace(&mut away.told, true)
        {
            let Skipped { video, audio } = std::mem::take(&mut away.skipped);
            let away = at.since(away.since);
            self.event(Event::OutputReconnected { away, video, audio });
        }
    }

    /// The connection failed. `name_taken`: another publisher has the name.
    pub fn failed(&mut self, at: At, connection: Connection, name_taken: bool, reason: &str) {
        let waits = matches!(
            self.link,
            OutputLink::Connecting { .. } | OutputLink::Open { .. }
        );
        if connection != self.connection || !waits {
            return;
        }
        if self.is_settling() {
            // The sink has said goodbye, and some servers hang up upon it.
            return;
        }
        reason.clone_into(&mut self.last_reason);
        let handed_over = matches!(
            self.ending,
            Ending::Lingering { .. } | Ending::Closing { .. }
        );
        let deadline = if handed_over {
            None
        } else if !self.worked {
            name_taken.then(|| self.began + NAME_PATIENCE)
        } else {
            let since = self.away.map_or(at, |away| away.since);
            Some(since + self.retry)
        };
        let at_once = matches!(self.link, OutputLink::Open { since } if at.since(since) >= PROOF);
        let next = if at_once { at } else { at + PAUSE };
        let Some(_) = deadline.filter(|deadline| next < *deadline) else {
            return self.give_up();
        };
        self.orders.push_back(OutputOrder::Disconnect {
            forget: self.worked,
        });
        if self.worked {
            self.lose(at, reason);
        } else {
            self.event(Event::OutputNameTaken {
                delay: next.since(at),
            });
        }
        self.link = OutputLink::Waiting { until: next };
    }

    fn lose(&mut self, at: At, reason: &str) {
        if let Some(away) = &mut self.away {
            away.resumes = None;
            away.told = false;
            let lost = std::mem::take(&mut away.unaccepted);
            away.skipped.video += lost.video;
            away.skipped.audio += lost.audio;
        } else {
            self.away = Some(Away {
                since: at,
                skipped: Skipped::default(),
                resumes: None,
                unaccepted: Skipped::default(),
                told: false,
            });
            self.event(Event::OutputLost {
                reason: reason.to_owned(),
            });
        }
    }

    /// How much media waits in front of the server.
    pub fn backlog(&mut self, at: At, backlog: Duration) {
        let settled = matches!(self.link, OutputLink::Open { since } if at.since(since) >= PROOF);
        if settled && backlog > LARGEST_BACKLOG {
            let reason = format!("the server takes no data, {backlog:?} are waiting");
            self.failed(at, self.connection, false, &reason);
        }
    }

    /// A unit's turn has come.
    pub fn leaves(&mut self, at: At, unit: Leaving) -> Admission {
        let Some(away) = &mut self.away else {
            return if self.worked {
                Admission::Send
            } else {
                Admission::Keep
            };
        };
        let connected = matches!(
            self.link,
            OutputLink::Connecting { .. } | OutputLink::Open { .. }
        );
        let goes = match (unit, away.resumes) {
            _ if !connected => false,
            (Leaving::Video { keyframe, pts }, None) => {
                if keyframe {
                    away.resumes = Some(pts);
                }
                keyframe
            }
            (Leaving::Audio { .. }, None) => false,
            (Leaving::Video { .. }, Some(_)) => true,
            (Leaving::Audio { pts }, Some(from)) => pts >= from,
        };
        let open = matches!(self.link, OutputLink::Open { .. });
        let count = match (goes, open) {
            (false, _) => &mut away.skipped,
            (true, false) => &mut away.unaccepted,
            (true, true) => {
                self.announce(at);
                return Admission::Send;
            }
        };
        match unit {
            Leaving::Video { .. } => count.video += 1,
            Leaving::Audio { .. } => count.audio += 1,
        }
        // What is not accepted yet is lost with its connection: nothing keeps it.
        if goes {
            Admission::Send
        } else {
            Admission::Skip
        }
    }

    /// No pair follows.
    pub fn input_over(&mut self) {
        if self.ending == Ending::Running {
            self.ending = Ending::Flushing;
            self.orders.push_back(OutputOrder::Flush);
        }
    }

    /// The mixer has given its last frames.
    pub fn flushed(&mut self) {
        if self.ending == Ending::Flushing {
            self.ending = Ending::Flushed;
        }
    }

    /// Every unit has left.
    pub fn emptied(&mut self, at: At) {
        if self.ending != Ending::Flushed {
            return;
        }
        match self.link {
            OutputLink::Idle | OutputLink::Closed => self.ending = Ending::Finished,
            OutputLink::Open { .. } => self.linger(at),
            OutputLink::Waiting { .. } if self.worked => self.give_up(),
            OutputLink::Connecting { .. } | OutputLink::Waiting { .. } => {
                self.ending = Ending::Emptied;
            }
        }
    }

    /// The sink has seen the end.
    pub fn finished(&mut self, at: At, connection: Connection) {
        if connection == self.connection
            && let Ending::Closing { until } = self.ending
        {
            self.ending = Ending::Settling {
                look: at + LOOK,
                until,
            };
        }
    }

    /// The last bytes are gone.
    pub fn settled(&mut self) {
        if self.is_settling() {
            self.link = OutputLink::Closed;
            self.ending = Ending::Finished;
        }
    }

    /// Something may be due.
    pub fn handle_timeout(&mut self, at: At) {
        match self.link {
            OutputLink::Connecting { until } if at >= until => {
                let reason = format!("the server did not accept the stream within {ACCEPT:?}");
                self.failed(at, self.connection, false, &reason);
            }
            OutputLink::Waiting { until } if at >= until => self.connect(at),
            // A new absence begins at the next loss.
            OutputLink::Open { since }
                if at.since(since) >= PROOF
                    && self.away.is_some_and(|away| away.resumes.is_some()) =>
            {
                self.away = None;
            }
            _ => {}
        }
        match self.ending {
            Ending::Lingering { until } if at >= until => {
                self.orders.push_back(OutputOrder::Finish);
                self.ending = Ending::Closing {
                    until: at + LAST_BYTES,
                };
            }
            Ending::Settling { look, until } if at >= look && at < until => {
                self.orders.push_back(OutputOrder::Look);
                self.ending = Ending::Settling {
                    look: at + LOOK,
                    until,
                };
            }
            Ending::Closing { until } | Ending::Settling { until, .. } if at >= until => {
                self.last_reason =
                    format!("the server did not take the last bytes within {LAST_BYTES:?}");
                self.give_up();
            }
            _ => {}
        }
    }

    fn connect(&mut self, at: At) {
        self.connection += 1;
        self.link = OutputLink::Connecting { until: at + ACCEPT };
        self.orders.push_back(OutputOrder::Connect(self.connection));
    }

    fn linger(&mut self, at: At) {
        self.ending = Ending::Lingering { until: at + LINGER };
    }

    fn give_up(&mut self) {
        self.link = OutputLink::Closed;
        self.ending = Ending::Finished;
        let reason = std::mem::take(&mut self.last_reason);
        self.orders.push_back(OutputOrder::Fail(reason));
    }

    fn event(&mut self, event: Event) {
        self.orders.push_back(OutputOrder::Event(event));
    }
}

/// What has been handed over lately, to tell how old the bytes are that still wait.
#[derive(Clone, Debug, Default)]
pub struct HandedOver {
    /// Media time of a unit, and bytes up to its end.
    units: VecDeque<(Pts, u64)>,
    bytes: u64,
}

/// Media further back than this is not remembered; what waits longer is told as this.
const REMEMBERED: Duration = Duration::from_mins(1);

impl HandedOver {
    /// A unit of `size` bytes has been handed over; only video counts for the time.
    pub fn push(&mut self, time: Pts, size: usize) {
        self.bytes += size as u64;
        self.units.push_back((time, self.bytes));
        while let Some((oldest, _)) = self.units.front()
            && time.since(*oldest) > REMEMBERED
        {
            self.units.pop_front();
        }
    }

    /// How much media the newest `waiting` bytes are.
    pub fn behind(&self, waiting: u64) -> Duration {
        let taken = self.bytes.saturating_sub(waiting);
        let Some((newest, _)) = self.units.back() else {
            return Duration::ZERO;
        };
        let first = self.units.partition_point(|(_, end)| *end <= taken);
        let oldest = first.checked_sub(1).and_then(|last| self.units.get(last));
        let oldest = oldest.or_else(|| self.units.front());
        oldest.map_or(Duration::ZERO, |(time, _)| newest.since(*time))
    }
}

#[cfg(test)]
mod tests;
