//! How many streams run at once.
//!
//! Every [`Environment`](crate::environment::Environment) is a stream in real time: a camera, a worker, a
//! service, a server. It takes a place while its programs run, and gives it back before its recording is
//! examined. Whoever has waited with the smallest [`rank`] is next, so that the longest begin first.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::num::NonZero;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::services::media_server::Kind;
use crate::threads::lock;

/// Streams for each core, unless `--test-threads` says otherwise: one takes a tenth of a core, several
/// times that while it starts, and what it does must happen on time.
const PER_CORE: usize = 7;
/// The same with MediaMTX for each: two streams pass through it, and it looks at both.
const PER_CORE_WITH_MEDIAMTX: usize = 4;
/// From one start to the next, on one core: five programs load their libraries then.
const APART: Duration = Duration::from_secs(1);

/// The place of a scenario in the list, and of a part in its scenario.
pub type Rank = (usize, usize);

thread_local! {
    static RANK: Cell<Rank> = const { Cell::new((usize::MAX, 0)) };
}

/// The places of this run.
static ALL: Streams = Streams::new();

/// What this thread starts is that part of that scenario.
pub fn rank(rank: Rank) {
    RANK.set(rank);
}

/// This many at once, or as many as the machine's cores can do with this server.
pub fn limit(count: Option<usize>, server: Kind) {
    let per_core = match server {
        Kind::MediaMtx => PER_CORE_WITH_MEDIAMTX,
        Kind::Default => PER_CORE,
    };
    ALL.state().limit = Some(count.unwrap_or(per_core * cores()));
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Waits for a place. Those that have one have deadlines, so it comes.
pub(crate) fn take() -> Place<'static> {
    ALL.take(RANK.get())
}

/// Places, and who waits for one.
#[derive(Debug)]
struct Streams {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    limit: Option<usize>,
    taken: usize,
    waiting: BTreeSet<(Rank, u64)>,
    arrivals: u64,
    last: Option<Instant>,
}

/// A place taken; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place<'a>(&'a Streams);

impl Streams {
    const fn new() -> Self {
        Self {
            state: Mutex::new(State {
                limit: None,
                taken: 0,
                waiting: BTreeSet::new(),
                arrivals: 0,
                last: None,
            }),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn take(&self, rank: Rank) -> Place<'_> {
        let apart = APART / u32::try_from(cores()).unwrap_or(u32::MAX);
        let mut state = self.state();
        let own = (rank, state.arrivals);
        state.arrivals += 1;
        state.waiting.insert(own);
        loop {
            let limit = state.limit.unwrap_or(PER_CORE);
            let soon = state
                .last
                .map_or(Duration::ZERO, |last| apart.saturating_sub(last.elapsed()));
            if state.taken >= limit || state.waiting.first() != Some(&own) {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            } else if !soon.is_zero() {
                let woken = self.changed.wait_timeout(state, soon);
                state = woken.unwrap_or_else(PoisonError::into_inner).0;
            } else {
                state.taken += 1;
                state.waiting.remove(&own);
                state.last = Some(Instant::now());
                drop(state);
                self.changed.notify_all();
                return Place(self);
            }
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.state().taken -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn streams(limit: usize) -> Streams {
        let streams = Streams::new();
        streams.state().limit = Some(limit);
        streams
    }

    /// Waits until so many wait.
    fn wait_for(streams: &Streams, waiting: usize) {
        let end = Instant::now() + Duration::from_secs(10);
        while streams.state().waiting.len() != waiting {
            assert!(Instant::now() < end, "{:?}", streams.state());
            thread::yield_now();
        }
    }

    #[test]
    fn the_smallest_rank_is_next_whoever_came_first() {
        let streams = streams(1);
        let (sender, order) = mpsc::channel();
        let first = streams.take((9, 9));
        thread::scope(|scope| {
            for (n, rank) in [(2, 0), (1, 1), (1, 0)].into_iter().enumerate() {
                let (streams, sender) = (&streams, sender.clone());
                scope.spawn(move || {
                    let place = streams.take(rank);
                    sender.send(rank).unwrap();
                    drop(place);
                });
                wait_for(streams, n + 1);
            }
            drop((first, sender));
            assert_eq!(order.iter().collect::<Vec<_>>(), [(1, 0), (1, 1), (2, 0)]);
        });
        assert_eq!(streams.state().taken, 0);
    }

    #[test]
    fn no_more_than_the_limit_run_and_starts_are_apart() {
        let streams = streams(2);
        let began = Instant::now();
        let places = [streams.take((0, 0)), streams.take((0, 0))];
        assert!(began.elapsed() >= APART / u32::try_from(cores()).unwrap());
        thread::scope(|scope| {
            let third = scope.spawn(|| drop(streams.take((0, 0))));
            wait_for(&streams, 1);
            assert_eq!(streams.state().taken, 2);
            drop(places);
            third.join().unwrap();
        });
    }
}
