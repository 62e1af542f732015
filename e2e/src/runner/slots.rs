//! How many scenarios run at once.
//!
//! A scenario takes a slot while it runs. One that is long and does hardly anything takes none: it
//! runs beside the others from the beginning.

use std::num::NonZero;
use std::sync::{Condvar, Mutex, PoisonError};

use super::Scenario;
use crate::threads::lock;

/// Slots unless `--test-threads` says otherwise. Each scenario is one or several streams in real
/// time, up to six, and says how soon things must happen: with four at once on two cores, an output
/// that takes half a second came after one and a half.
const USUAL: usize = 2;

/// The slots there are.
#[derive(Debug)]
pub(super) struct Slots {
    free: Mutex<usize>,
    freed: Condvar,
}

/// A slot taken; free again when dropped.
#[derive(Debug)]
pub(super) struct Slot<'a>(&'a Slots);

impl Slots {
    /// As many as there are threads, if those were chosen.
    pub(super) fn new(chosen: Option<usize>) -> Self {
        Self {
            free: Mutex::new(chosen.unwrap_or(USUAL)),
            freed: Condvar::new(),
        }
    }

    /// Waits for a slot, if the scenario takes one. The others that run have deadlines, so it comes.
    pub(super) fn take(&self, scenario: &Scenario) -> Option<Slot<'_>> {
        if scenario.light {
            return None;
        }
        let free = lock(&self.free);
        let mut free = self
            .freed
            .wait_while(free, |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Some(Slot(self))
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *lock(&self.0.free) += 1;
        self.0.freed.notify_one();
    }
}

/// Threads for these scenarios: one for each slot, and one for each that takes none.
pub(super) fn threads<'a>(scenarios: impl Iterator<Item = &'a Scenario>) -> NonZero<usize> {
    let (light, heavy): (Vec<&Scenario>, Vec<&Scenario>) =
        scenarios.partition(|scenario| scenario.light);
    let threads = light.len() + heavy.len().min(USUAL);
    NonZero::new(threads).unwrap_or(NonZero::<usize>::MIN)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    fn scenario(light: bool) -> Scenario {
        Scenario {
            name: "test",
            about: "",
            light,
            run: |_| Ok(()),
        }
    }

    #[test]
    fn light_ones_take_no_place_and_others_wait_for_one() {
        let slots = Slots::new(None);
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let slot = slots.take(&scenario(false));
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                    drop(slot);
                });
            }
        });
        assert!(most.into_inner() <= USUAL);
        let all = [slots.take(&scenario(false)), slots.take(&scenario(false))];
        assert!(all.iter().all(Option::is_some));
        assert!(slots.take(&scenario(true)).is_none(), "and does not wait");
    }

    #[test]
    fn there_is_a_thread_for_each_that_can_run() {
        let count = |light: usize, heavy: usize| {
            let scenarios: Vec<_> = (0..light + heavy).map(|n| scenario(n < light)).collect();
            threads(scenarios.iter()).get()
        };
        assert_eq!(
            [
                count(1, 9),
                count(0, 9),
                count(0, 1),
                count(1, 0),
                count(0, 0)
            ],
            [3, 2, 1, 1, 1]
        );
    }
}
