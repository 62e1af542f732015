//! When each pair of audio and video leaves.
//!
//! Output starts when the first pair is ready (plus the head room) and then runs in real time. Timestamps never
//! change here; only the moment a unit leaves does. A pair that is not ready when its turn comes
//! makes output wait (a *stall*): latency grows by that much and nothing is dropped. The excess is
//! won back by playing later pairs a few percent faster, never by a jump.
//!
//! How far it may be won back is read off the pairs themselves. Each pair has an offset at which it
//! became ready and an offset at which it plays (moment minus PTS). The playing offset may come down
//! to the second-latest readiness of the last twenty pairs plus a third of their spread, never below
//! the latency the run began with, and not before a few pairs after the stall were in time. So one
//! late answer is soon forgotten, while a service whose latency swings keeps the head room it needs
//! and output does not swing with it. Answers come in order, so a late one holds up those behind it:
//! pairs that become ready at once are one piece of evidence, the first of them.

use crate::event::Event;
use crate::time::{At, Pts, nanos_of};
use std::collections::VecDeque;
use std::time::Duration;

/// Pairs whose readiness is remembered: two minutes of 6 s segments. With ten, a service of random
/// latency has quiet minutes often enough to make output swing.
const WINDOW: usize = 20;
/// Pairs in time that must follow a stall before latency is won back.
const EVIDENCE: u32 = 3;
/// Excess worth starting a catch-up for; below it a listener gains nothing.
const WORTH_IT: Duration = Duration::from_millis(100);
/// A hole in the timeline longer than this is an input that was away: what was learnt is void.
const DISCONTINUITY: Duration = Duration::from_millis(500);

/// The rules of pacing.
#[derive(Clone, Debug)]
pub struct PlayoutConfig {
    /// Share by which a pair may play faster to win latency back (0.04 = 4 %).
    pub max_catch_up: f64,
    /// Lateness that is not worth calling a stall.
    pub stall_tolerance: Duration,
    /// How long the first pair is held although it is ready, so that the usual jitter of a busy
    /// machine does not make the next ones late.
    pub head_room: Duration,
}

impl Default for PlayoutConfig {
    fn default() -> Self {
        Self {
            max_catch_up: 0.04,
            stall_tolerance: Duration::from_millis(20),
            head_room: Duration::ZERO,
        }
    }
}

/// A segment whose audio is decided.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct Pair {
    /// Which segment.
    pub batch: u64,
    /// First position of the segment.
    pub start: Pts,
    /// Position after the segment.
    pub end: Pts,
    /// When the media at `start` arrived at ingest.
    pub captured: At,
}

/// A pair with its place on the monotonic clock.
#[derive(Copy, Clone, Debug)]
struct Slot {
    pair: Pair,
    begin: At,
    /// Time it takes to play; shorter than the media while catching up.
    wall: Duration,
}

impl Slot {
    fn media(&self) -> Duration {
        self.pair.end.since(self.pair.start)
    }

    fn finish(&self) -> At {
        self.begin + self.wall
    }

    /// Media that has left by `at`.
    fn played(&self, at: At) -> Duration {
        let wall = self.wall.max(Duration::from_nanos(1));
        let share = at.since(self.begin).as_secs_f64() / wall.as_secs_f64();
        self.media().mul_f64(share.min(1.0))
    }

    fn due(&self, pts: Pts) -> At {
        let into = pts.since(self.pair.start).as_nanos();
        let media = self.media().as_nanos().max(1);
        let wall = into * self.wall.as_nanos() / media;
        self.begin + Duration::from_nanos(u64::try_from(wall).unwrap_or(u64::MAX))
    }
}

/// Offsets (moment minus PTS, ns) of one recent pair.
#[derive(Copy, Clone, Debug)]
struct Offsets {
    captured: i64,
    ready: i64,
}

/// The pacing of one output. See the [module](self).
#[derive(Clone, Debug)]
pub struct Playout {
    config: PlayoutConfig,
    slots: VecDeque<Slot>,
    recent: VecDeque<Offsets>,
    /// Content latency the run began with.
    target: Duration,
    /// Playing offset of the first pair, ns, while it is still learnt how old that pair really was:
    /// a start is slow, and what comes late at ingest looks younger than it is.
    began: Option<i64>,
    /// Pairs so far.
    learnt: usize,
    /// When the newest pair became ready.
    last_ready: Option<At>,
    /// Pairs in time since the last stall.
    in_time: u32,
    catching_up: bool,
    events: VecDeque<Event>,
}

impl Playout {
    /// Nothing has played yet.
    pub fn new(config: PlayoutConfig) -> Self {
        Self {
            config,
            slots: VecDeque::new(),
            recent: VecDeque::new(),
            target: Duration::ZERO,
            began: None,
            learnt: 0,
            last_ready: None,
            in_time: 0,
            catching_up: false,
            events: VecDeque::new(),
        }
    }

    /// Records that a pair became ready; pairs come in batch order.
    pub fn pair_ready(&mut self, at: At, pair: Pair) {
        let begin = match self.slots.back().copied() {
            None => at + self.config.head_room,
            Some(previous) => self.begin_after(&previous, at, &pair),
        };
        if self.slots.is_empty() {
            self.target = begin.since(pair.captured);
            self.began = Some(offset(begin, pair.start));
            self.events.push_back(Event::OutputStarted {
                batch: pair.batch,
                latency: self.target,
            });
        }
        let media = pair.end.since(pair.start);
        self.learn(at, &pair, media);
        let wall = media.saturating_sub(self.win_back(begin, &pair, media));
        self.slots.push_back(Slot { pair, begin, wall });
        // Whatever comes before the pair on air is past; `due` extrapolates for stragglers.
        while self.slots.len() > 2 && self.slots[1].begin <= at {
            self.slots.pop_front();
        }
    }

    /// When the unit at `pts` must leave; `None` while its pair is not ready.
    ///
    /// Never decreases with `pts`. A unit of a pair long past is due in the past.
    pub fn due(&self, pts: Pts) -> Option<At> {
        let index = self.slots.iter().rposition(|slot| slot.pair.start <= pts);
        let Some(index) = index else {
            let first = self.slots.front()?;
            let early = first.pair.start.since(pts);
            return Some(At::new(first.begin.as_duration().saturating_sub(early)));
        };
        let slot = &self.slots[index];
        if pts < slot.pair.end {
            return Some(slot.due(pts));
        }
        // In a hole between two pairs time runs on at its normal pace.
        let next = self.slots.get(index + 1)?;
        Some((slot.finish() + pts.since(slot.pair.end)).min(next.begin))
    }

    /// Content latency of the newest pair: the moment it leaves minus the moment it was captured.
    pub fn latency(&self) -> Duration {
        self.slots
            .back()
            .map_or(Duration::ZERO, |slot| slot.begin.since(slot.pair.captured))
    }

    /// Age of the media on air at `at`: how long ago it was captured. `None` before the first pair
    /// begins.
    ///
    /// While output waits for a late pair, what was last on air grows older.
    pub fn latency_at(&self, at: At) -> Option<Duration> {
        let index = self.slots.iter().rposition(|slot| slot.begin <= at)?;
        let slot = &self.slots[index];
        let played = slot.played(at);
        let in_hole = self
            .slots
            .get(index + 1)
            .map_or(Duration::ZERO, |next| next.pair.start.since(slot.pair.end))
            .min(at.since(slot.finish()));
        Some(at.since(slot.pair.captured + played + in_hole))
    }

    /// Content latency of one pair, as long as it is remembered.
    pub fn latency_of(&self, batch: u64) -> Option<Duration> {
        self.slot(batch)
            .map(|slot| slot.begin.since(slot.pair.captured))
    }

    /// When a pair begins to leave, as long as it is remembered.
    pub fn begin_of(&self, batch: u64) -> Option<At> {
        self.slot(batch).map(|slot| slot.begin)
    }

    /// The pair on air at `at`, or the last one that was; `None` before the first.
    pub fn playing(&self, at: At) -> Option<u64> {
        self.slots
            .iter()
            .rev()
            .find(|slot| slot.begin <= at)
            .map(|slot| slot.pair.batch)
    }

    /// When everything that is ready will have left.
    pub fn finish(&self) -> Option<At> {
        self.slots.back().map(Slot::finish)
    }

    /// Pairs remembered: the one on air, those waiting, and at most one before.
    pub fn remembered(&self) -> usize {
        self.slots.len()
    }

    /// The next event, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn slot(&self, batch: u64) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.pair.batch == batch)
    }

    /// Begin of `pair`: its turn, or now if its turn has passed.
    fn begin_after(&mut self, previous: &Slot, at: At, pair: &Pair) -> At {
        let hole = pair.start.since(previous.pair.end);
        if hole > DISCONTINUITY {
            self.recent.clear();
            self.began = None;
        }
        let turn = previous.finish() + hole;
        let late = at.since(turn);
        self.in_time = self.in_time.saturating_add(1);
        if late > self.config.stall_tolerance {
            self.in_time = 0;
            self.events.push_back(Event::Stall {
                batch: pair.batch,
                duration: late,
            });
        }
        at.max(turn)
    }

    /// Learns from a pair's arrival, and from when it became ready, unless the one before held it up:
    /// then it is the earlier by a whole pair and says nothing that the other has not said.
    fn learn(&mut self, at: At, pair: &Pair, media: Duration) {
        let captured = offset(pair.captured, pair.start);
        self.learnt += 1;
        if self.learnt > WINDOW {
            self.began = None;
        }
        if let Some(began) = self.began {
            let age = u64::try_from(began.saturating_sub(captured)).unwrap_or(0);
            self.target = self.target.max(Duration::from_nanos(age));
        }
        let before = self.last_ready.replace(at);
        if before.is_some_and(|before| at.since(before) < media / 4) {
            return;
        }
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(Offsets {
            captured,
            ready: offset(at, pair.start),
        });
    }

    /// How much of `media` is saved by playing this pair faster.
    fn win_back(&mut self, begin: At, pair: &Pair, media: Duration) -> Duration {
        let excess = self.excess(offset(begin, pair.start));
        if self.catching_up && excess.is_zero() {
            self.catching_up = false;
            let latency = begin.since(pair.captured);
            self.events.push_back(Event::CatchUpDone {
                batch: pair.batch,
                latency,
            });
        } else if !self.catching_up && excess > WORTH_IT {
            self.catching_up = true;
            self.events.push_back(Event::CatchUpStarted {
                batch: pair.batch,
                excess,
            });
        }
        if !self.catching_up {
            return Duration::ZERO;
        }
        let fastest = media.div_f64(1.0 + self.config.max_catch_up.max(0.0));
        excess.min(media.saturating_sub(fastest))
    }

    /// How much earlier than `playing` (an offset) pairs could play without new stalls.
    fn excess(&self, playing: i64) -> Duration {
        if self.in_time < EVIDENCE || self.recent.len() <= EVIDENCE as usize {
            return Duration::ZERO;
        }
        // Capture jitter only ever delays, so the earliest capture is the true one; a window, so
        // that an input clock that runs fast or slow against ours is followed.
        let captured = self
            .recent
            .iter()
            .map(|o| o.captured)
            .min()
            .unwrap_or(playing);
        let mut ready: Vec<i64> = self.recent.iter().map(|o| o.ready).collect();
        ready.sort_unstable();
        let latest_but_one = ready[ready.len() - 2];
        let spread = latest_but_one - ready[0];
        let margin = (spread / 3).max(nanos_of(self.config.stall_tolerance));
        let needed = (captured + nanos_of(self.target)).max(latest_but_one + margin);
        Duration::from_nanos(u64::try_from(playing - needed).unwrap_or(0))
    }
}

/// Moment minus position, ns. The one place where the two clocks meet: only differences of such
/// offsets are ever used.
fn offset(at: At, pts: Pts) -> i64 {
    nanos_of(at.as_duration()).saturating_sub(pts.nanos())
}
