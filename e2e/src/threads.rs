//! What threads share.

use std::collections::BTreeSet;
use std::num::NonZero;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Locks, also after a panic of whoever held it: what is kept here is whole at every moment.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs an examination with low priority, one for each core at a time and in the order in which they
/// came: scenarios beside it run in real time.
pub fn quietly<T: Send + 'static>(
    examine: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    static TURNS: Turns = Turns::new();
    let turn = TURNS.take((0, 0), cores(), Duration::ZERO);
    let result = thread::Builder::new()
        .name("examination".to_owned())
        .spawn(move || {
            // Linux keeps priorities per thread; processes started from here inherit it. Beside other
            // work of the machine it still gets a fair part: with 15, two busy loops a core left 2 %.
            let _ = rustix::process::nice(5);
            examine()
        })
        .context("cannot start a thread")?
        .join();
    drop(turn);
    result.unwrap_or_else(|_| bail!("the examination panicked"))
}

/// Processors there are.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// The place of a scenario in the list, and of a part in its scenario.
pub type Rank = (usize, usize);

/// Turns, and who waits for one.
#[derive(Debug)]
pub(crate) struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    taken: usize,
    waiting: BTreeSet<(Rank, u64)>,
    arrivals: u64,
    last: Option<Instant>,
}

/// A turn taken; over when dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a>(&'a Turns);

impl Turns {
    pub(crate) const fn new() -> Self {
        Self {
            state: Mutex::new(State {
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

    /// Waits until fewer than `limit` are taken, and the last one was so long ago. The smallest rank is
    /// next, of the same who came first.
    pub(crate) fn take(&self, rank: Rank, limit: usize, apart: Duration) -> Turn<'_> {
        let mut state = self.state();
        let own = (rank, state.arrivals);
        state.arrivals += 1;
        state.waiting.insert(own);
        loop {
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
                return Turn(self);
            }
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state().taken -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const APART: Duration = Duration::from_millis(300);

    /// Waits until so many wait.
    fn wait_for(turns: &Turns, waiting: usize) {
        let end = Instant::now() + Duration::from_secs(10);
        while turns.state().waiting.len() != waiting {
            assert!(Instant::now() < end, "{:?}", turns.state());
            thread::yield_now();
        }
    }

    #[test]
    fn the_smallest_rank_is_next_and_of_the_same_who_came_first() {
        let turns = Turns::new();
        let (sender, order) = mpsc::channel();
        let first = turns.take((9, 9), 1, Duration::ZERO);
        thread::scope(|scope| {
            for (n, rank) in [(2, 0), (1, 1), (1, 0), (1, 0)].into_iter().enumerate() {
                let (turns, sender) = (&turns, sender.clone());
                scope.spawn(move || {
                    let turn = turns.take(rank, 1, Duration::ZERO);
                    sender.send((rank, n)).unwrap();
                    drop(turn);
                });
                wait_for(turns, n + 1);
            }
            drop((first, sender));
            let order: Vec<_> = order.iter().collect();
            assert_eq!(order, [((1, 0), 2), ((1, 0), 3), ((1, 1), 1), ((2, 0), 0)]);
        });
        assert_eq!(turns.state().taken, 0);
    }

    #[test]
    fn no_more_than_the_limit_run_and_starts_are_apart() {
        let turns = Turns::new();
        let began = Instant::now();
        let take = || turns.take((0, 0), 2, APART);
        let taken = [take(), take()];
        assert!(began.elapsed() >= APART);
        thread::scope(|scope| {
            let third = scope.spawn(|| drop(take()));
            wait_for(&turns, 1);
            assert_eq!(turns.state().taken, 2);
            drop(taken);
            third.join().unwrap();
        });
    }
}
