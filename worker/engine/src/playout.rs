//! When each pair of audio and video leaves.
//!
//! Output starts when the first pair is ready, plus a head room, and then runs in real time. Timestamps
//! never change here; only the moment a unit leaves does. A pair that is not ready when its turn comes
//! makes output wait (a *stall*): latency grows by that much and nothing is dropped. The excess is
//! won back by playing later pairs a few percent faster, never by a jump.
//!
//! The first moments of media (the *lead*) leave at once: a server looks at some media time before it
//! shows a stream, and paced media would make viewers wait for that in real time. What follows leaves
//! when it would have left anyway, so the lead changes no latency; it does not wait for the head room either.
//!
//! The head room is read off this machine: how long it worked on the first pair, and how late it was
//! for what it had to do before. How far latency may come down is read off the pairs. Each has an
//! offset at which it became ready and one at which it plays (moment minus PTS). The playing offset
//! may come down to the second-latest readiness of the last twenty pairs plus a third of their
//! spread (more while there are fewer), not before a few pairs after the start or a stall were in time. The first pairs are no
//! evidence once there are others: a start is slow. So a late answer or a slow start is soon
//! forgotten, while a service whose latency swings keeps the room it needs and output does not swing
//! with it. Answers come in order, so a late one holds up those behind it: pairs that become ready at
//! once are one piece of evidence, the first of them.

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
/// Pairs at the start that say little about how it goes on.
const STARTING: usize = 3;
/// Least room behind the latest pairs.
const MARGIN: Duration = Duration::from_millis(20);
/// A hole in the timeline longer than this is an input that was away: what was learnt is void.
const DISCONTINUITY: Duration = Duration::from_millis(500);

/// The rules of pacing.
#[derive(Clone, Debug)]
pub struct PlayoutConfig {
    /// Share by which a pair may play faster to win latency back (0.04 = 4 %).
    pub max_catch_up: f64,
    /// Lateness that is not worth calling a stall.
    pub stall_tolerance: Duration,
    /// How long the first pair is held although it is ready: least and most.
    pub head_room: (Duration, Duration),
    /// Media time from the start of the first pair on that leaves at once.
    pub lead: Duration,
}

impl Default for PlayoutConfig {
    fn default() -> Self {
        Self {
            max_catch_up: 0.04,
            stall_tolerance: Duration::from_millis(20),
            head_room: (Duration::ZERO, Duration::ZERO),
            lead: Duration::ZERO,
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
    /// How long this machine worked on it once its audio was decided.
    pub worked: Duration,
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

/// The pacing of one output. See the [module](self).
#[derive(Clone, Debug)]
pub struct Playout {
    config: PlayoutConfig,
    slots: VecDeque<Slot>,
    /// Offsets (moment minus PTS, ns) at which recent pairs became ready.
    recent: VecDeque<i64>,
    /// How many of them, from the front, stem from the start.
    starting: usize,
    /// The most this machine was late for anything before the start.
    late: Duration,
    /// When the lead was ready and leaves, and where it ends.
    lead: Option<(At, Pts)>,
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
            starting: 0,
            late: Duration::ZERO,
            lead: None,
            last_ready: None,
            in_time: 0,
            catching_up: false,
            events: VecDeque::new(),
        }
    }

    /// Something was done this much later than it was due; only what is told before the first pair
    /// counts.
    pub fn machine_was_late(&mut self, by: Duration) {
        self.late = self.late.max(by);
    }

    /// Records that a pair became ready; pairs come in batch order.
    pub fn pair_ready(&mut self, at: At, pair: Pair) {
        let begin = match self.slots.back().copied() {
            None => self.start(at, &pair),
            Some(previous) => self.begin_after(&previous, at, &pair),
        };
        let media = pair.end.since(pair.start);
        self.learn(at, &pair, media);
        let wall = media.saturating_sub(self.win_back(begin, &pair, media));
        self.slots.push_back(Slot { pair, begin, wall });
        // Whatever comes before the pair on air is past; `due` extrapolates for stragglers.
        while self.slots.len() > 2 && self.slots[1].begin <= at {
            self.slots.pop_front();
        }
    }

    /// Begin of the first pair. A machine that took long for it, or was late, will be again.
    fn start(&mut self, at: At, pair: &Pair) -> At {
        let (least, most) = self.config.head_room;
        let head_room = (pair.worked + 2 * self.late).max(least).min(most);
        let begin = at + head_room;
        self.starting = STARTING;
        self.lead = Some((at, pair.start + self.config.lead));
        self.events.push_back(Event::OutputStarted {
            batch: pair.batch,
            latency: begin.since(pair.captured),
            head_room,
        });
        begin
    }

    /// When the unit at `pts` must leave; `None` while its pair is not ready.
    ///
    /// Never decreases with `pts`. A unit of a pair long past is due in the past.
    pub fn due(&self, pts: Pts) -> Option<At> {
        let due = self.paced(pts)?;
        match self.lead {
            Some((ready, end)) if pts < end => Some(due.min(ready)),
            _ => Some(due),
        }
    }

    fn paced(&self, pts: Pts) -> Option<At> {
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
        let slot = self.slots.iter().find(|slot| slot.pair.batch == batch)?;
        Some(slot.begin.since(slot.pair.captured))
    }

    /// The next event, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Begin of `pair`: its turn, or now if its turn has passed.
    fn begin_after(&mut self, previous: &Slot, at: At, pair: &Pair) -> At {
        let hole = pair.start.since(previous.pair.end);
        if hole > DISCONTINUITY {
            self.recent.clear();
            self.starting = 0;
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

    /// Learns when a pair became ready, unless the one before held it up: then it is the earlier by a
    /// whole pair and says nothing that the other has not said.
    fn learn(&mut self, at: At, pair: &Pair, media: Duration) {
        let before = self.last_ready.replace(at);
        if before.is_some_and(|before| at.since(before) < media / 4) {
            return;
        }
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(offset(at, pair.start));
        if self.recent.len() > self.starting + EVIDENCE as usize {
            self.recent.drain(..std::mem::take(&mut self.starting));
        }
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
        let mut ready: Vec<i64> = self.recent.iter().copied().collect();
        ready.sort_unstable();
        // One outlier is forgiven; the fewer pairs there are, the less the spread of the rest says.
        let pairs = ready.len();
        let latest = ready[pairs - 2];
        let spread = (latest - ready[0]) * WINDOW as i64 / (3 * pairs as i64);
        let needed = latest + spread.max(nanos_of(MARGIN));
        Duration::from_nanos(u64::try_from(playing - needed).unwrap_or(0))
    }
}

/// Moment minus position, ns. The one place where the two clocks meet: only differences of such
/// offsets are ever used.
fn offset(at: At, pts: Pts) -> i64 {
    nanos_of(at.as_duration()).saturating_sub(pts.nanos())
}
