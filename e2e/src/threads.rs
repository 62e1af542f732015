//! What threads share.

use std::num::NonZero;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

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
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let turn = TURNS.take(cores as u64);
    let result = std::thread::Builder::new()
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

/// Turns in the order in which they were asked for.
#[derive(Debug)]
struct Turns {
    /// How many have been asked for, and how many are over.
    asked_and_over: Mutex<(u64, u64)>,
    changed: Condvar,
}

/// Over when it is dropped.
#[derive(Debug)]
struct Turn<'a>(&'a Turns);

impl Turns {
    const fn new() -> Self {
        Self {
            asked_and_over: Mutex::new((0, 0)),
            changed: Condvar::new(),
        }
    }

    /// Waits until fewer than `at_once` of those who asked before are not yet through.
    fn take(&self, at_once: u64) -> Turn<'_> {
        let mut state = lock(&self.asked_and_over);
        let own = state.0;
        state.0 += 1;
        while own >= state.1 + at_once {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.0.asked_and_over).1 += 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{channel, sync_channel};

    use super::*;

    #[test]
    fn two_at_a_time_in_the_order_in_which_they_came() {
        let turns = Turns::new();
        let (told, heard) = channel();
        std::thread::scope(|scope| {
            let held = [turns.take(2), turns.take(2)];
            for n in 2..5 {
                let (turns, told) = (&turns, told.clone());
                let (asked, was_asked) = sync_channel(0);
                scope.spawn(move || {
                    asked.send(()).unwrap();
                    let turn = turns.take(2);
                    told.send((n, turn)).unwrap();
                });
                was_asked.recv().unwrap();
                while lock(&turns.asked_and_over).0 <= n {
                    std::thread::yield_now();
                }
            }
            heard.try_recv().unwrap_err();
            drop(held);
            let pair = [heard.recv().unwrap(), heard.recv().unwrap()];
            assert_eq!(pair[0].0 + pair[1].0, 2 + 3);
            heard.try_recv().unwrap_err();
            drop(pair);
            assert_eq!(heard.recv().unwrap().0, 4);
        });
    }
}
