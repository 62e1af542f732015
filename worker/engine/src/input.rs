//! The input's life: connecting, retrying, silence, resuming, the end.
//!
//! One connection at a time. What a connection delivers goes to the [`timeline`](crate::timeline); here
//! it only counts that something came. Feed it facts, then [`poll`](InputLife::poll) until `None`.

use std::collections::VecDeque;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::time::At;
use crate::timeline::Track;

/// Waits before the retries of a lost or absent input.
const RETRIES: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];
/// Silence after which a connection that had media is given up: RTSP over TCP has no
/// other way to notice a peer that stops without closing.
const SILENCE: Duration = Duration::from_secs(5);
/// Without a picture for so long a connection that had some is given up whatever else comes: viewers see a still.
/// Cameras that watch a still scene send one every few seconds.
const NO_PICTURE: Duration = Duration::from_secs(15);
/// Patience with a server that has accepted PLAY but sends nothing yet: the stream may
/// be announced long before its first frame.
const FIRST_MEDIA: Duration = Duration::from_mins(1);
/// Patience with the RTSP handshake as a whole.
const HANDSHAKE: Duration = Duration::from_secs(15);
/// Media that comes without a beginning is told after so long, and what may hardly be one has to do.
pub const NO_BEGINNING: Duration = Duration::from_secs(10);
/// Sessions time out after 60 s as a rule, after 10 s at the least that was seen; 4 s are met too.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// What a connection ended with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Loss {
    /// The server answers, but has no such stream (any more).
    Absent,
    /// Refused, unreachable, silent, broken: another attempt may end differently.
    Passing,
    /// Another attempt would end alike.
    Final,
}

/// What to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum InputOrder {
    /// Open this connection.
    Connect {
        /// Its number, 1-based.
        connection: u32,
    },
    /// Take the connection down. What waits for its place must do with what is known.
    Close {
        /// Media had come: what comes next does not follow it.
        had_media: bool,
    },
    /// Send a request, so that the server does not take the session for dead.
    KeepAlive,
    /// Tell the operator.
    Tell(InputNews),
    /// Nothing more will come.
    End(InputEnd),
}

/// What is worth a log line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum InputNews {
    /// The server accepted PLAY.
    Connected {
        /// Which connection.
        connection: u32,
    },
    /// The input went away; it may come back.
    Lost {
        /// Why.
        reason: String,
    },
    /// Another attempt is scheduled.
    Retry {
        /// Number of the retry, 1-based.
        attempt: u32,
        /// From now.
        delay: Duration,
        /// What the last attempt ended with.
        reason: String,
    },
    /// Media comes, but no keyframe with which the output could begin.
    NoKeyframe {
        /// Pictures that came.
        pictures: u64,
        /// Audio frames that came.
        frames: u64,
    },
}

/// How the input ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum InputEnd {
    /// It was asked to.
    Stopped,
    /// The server is well and has no such stream any more: its publisher has ended it.
    Over,
    /// It stayed away.
    Lost {
        /// What the last attempt ended with.
        reason: String,
        /// How many connections were tried in a row.
        attempts: u32,
    },
    /// It cannot be used, however often one tries.
    Refused {
        /// Why.
        reason: String,
    },
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum InputPhase {
    Idle,
    Connecting { until: At },
    Receiving { until: At },
    Waiting { until: At },
    Ended,
}

/// The input of one stream, over as many connections as it takes. See the [module](self).
#[derive(Debug)]
pub struct InputLife {
    phase: InputPhase,
    connection: u32,
    backoff: Backoff,
    /// When the first unit of this connection came, and how many of each track.
    first: Option<At>,
    arrived: [u64; 2],
    /// When the last picture came.
    picture: Option<At>,
    /// The output could begin with what came on this connection.
    begun: bool,
    told: bool,
    keep_alive: Option<At>,
    /// There ever was a beginning.
    had_media: bool,
    /// Since the stream was lost, the server has only ever said that there is none.
    absent_only: bool,
    orders: VecDeque<InputOrder>,
}

impl Default for InputLife {
    fn default() -> Self {
        Self::new()
    }
}

impl InputLife {
    /// A life that has not begun.
    pub fn new() -> Self {
        Self {
            phase: InputPhase::Idle,
            connection: 0,
            backoff: Backoff::new(RETRIES.to_vec()),
            first: None,
            arrived: [0; 2],
            picture: None,
            begun: false,
            told: false,
            keep_alive: None,
            had_media: false,
            absent_only: true,
            orders: VecDeque::new(),
        }
    }

    /// Opens the first connection.
    pub fn start(&mut self, at: At) {
        if self.phase == InputPhase::Idle {
            self.connect(at);
        }
    }

    /// The connection whose facts count; `None` while there is none.
    pub fn connection(&self) -> Option<u32> {
        matches!(
            self.phase,
            InputPhase::Connecting { .. } | InputPhase::Receiving { .. }
        )
        .then_some(self.connection)
    }

    /// Whether nothing more will come.
    pub fn has_ended(&self) -> bool {
        self.phase == InputPhase::Ended
    }

    /// The server accepted PLAY.
    pub fn connected(&mut self, at: At) {
        let connection = self.connection;
        if let InputPhase::Connecting { .. } = self.phase {
            self.phase = InputPhase::Receiving {
                until: at + FIRST_MEDIA,
            };
            self.keep_alive = Some(at + KEEP_ALIVE);
        }
        let news = InputNews::Connected { connection };
        self.orders.push_back(InputOrder::Tell(news));
    }

    /// A unit came.
    pub fn unit(&mut self, at: At, track: Track) {
        if self.connection().is_none() {
            return;
        }
        self.first.get_or_insert(at);
        self.arrived[usize::from(track == Track::Audio)] += 1;
        self.keep_alive.get_or_insert(at + KEEP_ALIVE);
        if track == Track::Video {
            self.picture = Some(at);
        }
        let (picture_due, _) = self.picture_due(at);
        self.phase = InputPhase::Receiving {
            until: picture_due.min(at + SILENCE),
        };
    }

    /// When the next picture must have come, and after how long without one that is.
    fn picture_due(&self, at: At) -> (At, Duration) {
        match self.picture {
            Some(last) => (last + NO_PICTURE, NO_PICTURE),
            None => (self.first.unwrap_or(at) + FIRST_MEDIA, FIRST_MEDIA),
        }
    }

    /// A picture found its place: the output can begin, or goes on.
    pub fn placed(&mut self) {
        self.begun = true;
        self.had_media = true;
        self.absent_only = true;
        self.backoff.succeeded();
    }

    /// The connection is over.
    pub fn lost(&mut self, at: At, loss: Loss, reason: String) {
        if self.connection().is_none() {
            return;
        }
        let had_media = self.first.is_some();
        self.orders.push_back(InputOrder::Close { had_media });
        if loss == Loss::Final {
            return self.end(InputEnd::Refused { reason });
        }
        if had_media {
            let reason = reason.clone();
            self.orders
                .push_back(InputOrder::Tell(InputNews::Lost { reason }));
        } else if loss != Loss::Absent {
            self.absent_only = false;
        }
        if let Some(retry) = self.backoff.failed() {
            self.phase = InputPhase::Waiting {
                until: at + retry.delay,
            };
            let news = InputNews::Retry {
                attempt: retry.attempt,
                delay: retry.delay,
                reason,
            };
            return self.orders.push_back(InputOrder::Tell(news));
        }
        self.end(if self.had_media && self.absent_only {
            InputEnd::Over
        } else {
            InputEnd::Lost {
                reason,
                attempts: RETRIES.len() as u32 + 1,
            }
        });
    }

    /// The worker is asked to stop: what has come in goes out.
    pub fn stop(&mut self) {
        if self.has_ended() {
            return;
        }
        if self.connection().is_some() {
            let had_media = self.first.is_some();
            self.orders.push_back(InputOrder::Close { had_media });
        }
        self.end(InputEnd::Stopped);
    }

    /// When [`InputLife::wake`] is due.
    pub fn poll_timeout(&self) -> Option<At> {
        match self.phase {
            InputPhase::Connecting { until } | InputPhase::Waiting { until } => Some(until),
            InputPhase::Receiving { until } => [Some(until), self.keep_alive, self.no_beginning()]
                .into_iter()
                .flatten()
                .min(),
            InputPhase::Idle | InputPhase::Ended => None,
        }
    }

    /// A deadline has passed.
    pub fn wake(&mut self, at: At) {
        match self.phase {
            InputPhase::Connecting { until } if at >= until => {
                let reason = format!("the server did not answer within {HANDSHAKE:?}");
                self.lost(at, Loss::Passing, reason);
            }
            InputPhase::Receiving { until } if at >= until => {
                let (picture_due, patience) = self.picture_due(at);
                let reason = match self.first {
                    Some(_) if at >= picture_due => format!("no video for {patience:?}"),
                    Some(_) => format!("no media for {SILENCE:?}"),
                    None => format!("no media for {FIRST_MEDIA:?}"),
                };
                self.lost(at, Loss::Passing, reason);
            }
            InputPhase::Waiting { until } if at >= until => self.connect(at),
            InputPhase::Receiving { .. } => {
                if self.no_beginning().is_some_and(|due| at >= due) {
                    self.told = true;
                    let [pictures, frames] = self.arrived;
                    let news = InputNews::NoKeyframe { pictures, frames };
                    self.orders.push_back(InputOrder::Tell(news));
                }
                if self.keep_alive.is_some_and(|due| at >= due) {
                    self.keep_alive = Some(at + KEEP_ALIVE);
                    self.orders.push_back(InputOrder::KeepAlive);
                }
            }
            _ => {}
        }
    }

    /// The next order, oldest first.
    pub fn poll(&mut self) -> Option<InputOrder> {
        self.orders.pop_front()
    }

    fn no_beginning(&self) -> Option<At> {
        let first = self.first.filter(|_| !self.begun && !self.told)?;
        Some(first + NO_BEGINNING)
    }

    fn connect(&mut self, at: At) {
        self.connection += 1;
        self.first = None;
        self.arrived = [0; 2];
        self.picture = None;
        self.begun = false;
        self.told = false;
        self.keep_alive = None;
        self.phase = InputPhase::Connecting {
            until: at + HANDSHAKE,
        };
        let connection = self.connection;
        self.orders.push_back(InputOrder::Connect { connection });
    }

    fn end(&mut self, end: InputEnd) {
        self.phase = InputPhase::Ended;
        self.orders.push_back(InputOrder::End(end));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> At {
        At::from_millis(seconds * 1000)
    }

    fn orders(life: &mut InputLife) -> Vec<InputOrder> {
        std::iter::from_fn(|| life.poll()).collect()
    }

    fn running() -> InputLife {
        let mut life = InputLife::new();
        life.start(at(0));
        life.connected(at(0));
        life.unit(at(0), Track::Video);
        life.placed();
        orders(&mut life);
        life
    }

    /// Lets time go by until something is ordered; returns when, and what.
    fn next(life: &mut InputLife) -> (At, Vec<InputOrder>) {
        loop {
            let due = life.poll_timeout().expect("it waits for something");
            life.wake(due);
            let found: Vec<_> = orders(life)
                .into_iter()
                .filter(|order| *order != InputOrder::KeepAlive)
                .collect();
            if !found.is_empty() {
                return (due, found);
            }
        }
    }

    #[test]
    fn an_absent_input_is_tried_four_times() {
        let mut life = InputLife::new();
        life.start(at(0));
        let mut delays = Vec::new();
        let mut now = at(0);
        loop {
            assert!(matches!(
                orders(&mut life).last(),
                Some(InputOrder::Connect { .. })
            ));
            life.lost(now, Loss::Absent, "Not Found (404)".to_owned());
            match orders(&mut life).pop() {
                Some(InputOrder::Tell(InputNews::Retry { delay, .. })) => {
                    delays.push(delay.as_secs());
                    now = life.poll_timeout().expect("a retry");
                    life.wake(now);
                }
                end => {
                    let reason = "Not Found (404)".to_owned();
                    let expected = InputEnd::Lost {
                        reason,
                        attempts: 4,
                    };
                    assert_eq!(end, Some(InputOrder::End(expected)));
                    break;
                }
            }
        }
        assert_eq!(delays, [1, 2, 4]);
        assert_eq!(life.poll_timeout(), None);
    }

    #[test]
    fn a_stream_that_its_server_does_not_have_any_more_is_over() {
        for (loss, over) in [(Loss::Absent, true), (Loss::Passing, false)] {
            let mut life = running();
            life.lost(at(9), Loss::Passing, "closed".to_owned());
            for _ in 0..3 {
                let due = life.poll_timeout().expect("a retry");
                life.wake(due);
                life.lost(due, loss, "gone".to_owned());
            }
            let end = orders(&mut life).pop();
            assert_eq!(
                end == Some(InputOrder::End(InputEnd::Over)),
                over,
                "{end:?}"
            );
        }
    }

    #[test]
    fn what_a_retry_cannot_mend_is_not_retried() {
        let mut life = InputLife::new();
        life.start(at(0));
        orders(&mut life);
        life.lost(at(0), Loss::Final, "Unauthorized (401)".to_owned());
        let reason = "Unauthorized (401)".to_owned();
        assert_eq!(
            orders(&mut life),
            [
                InputOrder::Close { had_media: false },
                InputOrder::End(InputEnd::Refused { reason })
            ]
        );
    }

    #[test]
    fn silence_ends_a_connection_and_the_wait_for_media_is_longer() {
        let mut life = running();
        let (when, found) = next(&mut life);
        assert_eq!(when, at(5));
        assert_eq!(found[0], InputOrder::Close { had_media: true });
        let reason = "no media for 5s".to_owned();
        assert_eq!(found[1], InputOrder::Tell(InputNews::Lost { reason }));
        life.wake(At::from_millis(5_999));
        assert_eq!(orders(&mut life), [], "the wait before a retry");
        assert_eq!(
            next(&mut life),
            (at(6), vec![InputOrder::Connect { connection: 2 }])
        );

        let mut life = InputLife::new();
        life.start(at(0));
        orders(&mut life);
        life.wake(At::from_millis(14_999));
        assert_eq!(orders(&mut life), []);
        assert_eq!(next(&mut life).0, at(15), "the handshake");
        let mut life = InputLife::new();
        life.start(at(0));
        life.connected(at(1));
        orders(&mut life);
        assert_eq!(next(&mut life).0, at(61), "the first unit");
    }

    #[test]
    fn audio_alone_does_not_keep_a_connection_whose_video_has_gone() {
        let mut life = running();
        for second in 1..=15 {
            assert_eq!(life.connection(), Some(1), "{second} s");
            life.unit(at(second), Track::Audio);
            life.wake(at(second));
        }
        assert_eq!(life.connection(), None);
        let lost = |reason: &str| {
            InputOrder::Tell(InputNews::Lost {
                reason: reason.to_owned(),
            })
        };
        assert!(orders(&mut life).contains(&lost("no video for 15s")));

        // One whose video never came is given as much time as any first media.
        let mut life = InputLife::new();
        life.start(at(0));
        life.connected(at(0));
        for second in 0..=60 {
            assert_eq!(life.connection(), Some(1), "{second} s");
            life.unit(at(second), Track::Audio);
            life.wake(at(second));
        }
        assert_eq!(life.connection(), None);
        assert!(orders(&mut life).contains(&lost("no video for 60s")));
    }

    #[test]
    fn media_without_a_beginning_is_told_once() {
        let mut life = InputLife::new();
        life.start(at(0));
        life.connected(at(0));
        let mut told = Vec::new();
        for second in 0..30 {
            for track in [Track::Video, Track::Audio, Track::Audio] {
                life.unit(at(second), track);
            }
            life.wake(at(second));
            told.extend(
                orders(&mut life).into_iter().filter(|order| {
                    matches!(order, InputOrder::Tell(InputNews::NoKeyframe { .. }))
                }),
            );
        }
        let news = InputNews::NoKeyframe {
            pictures: 11,
            frames: 22,
        };
        assert_eq!(told, [InputOrder::Tell(news)]);
    }

    #[test]
    fn a_session_is_kept_alive_every_two_seconds() {
        let mut life = running();
        let mut kept = 0;
        for second in 1..=60 {
            life.unit(at(second), Track::Video);
            life.wake(at(second));
            kept += orders(&mut life).len();
        }
        assert_eq!(kept, 30);
    }

    #[test]
    fn a_stop_ends_every_state_at_once() {
        let mut waiting = running();
        waiting.lost(at(9), Loss::Passing, "closed".to_owned());
        orders(&mut waiting);
        let mut connecting = InputLife::new();
        connecting.start(at(0));
        orders(&mut connecting);
        for (mut life, closes) in [
            (running(), 1),
            (waiting, 0),
            (connecting, 1),
            (InputLife::new(), 0),
        ] {
            life.stop();
            let found = orders(&mut life);
            assert_eq!(found.len(), closes + 1);
            assert_eq!(found.last(), Some(&InputOrder::End(InputEnd::Stopped)));
            life.stop();
            assert_eq!(orders(&mut life), []);
            assert_eq!(life.poll_timeout(), None);
        }
    }
}
