//! How GStreamer's threads tell the driver, without ever waiting for it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use dub_engine::{At, Drain};
use tokio::sync::mpsc;

use super::{IngestError, IngestFact};

type Tagged = (u32, IngestFact);

/// Where the facts of one connection go.
///
/// A full channel means that the worker does not keep up at all (it holds more than ten seconds): the
/// connection ends there. The place for that last word is reserved from the start, so that it cannot be
/// lost.
#[derive(Clone)]
pub(super) struct Telling {
    sender: mpsc::Sender<Tagged>,
    connection: u32,
    last_word: Arc<Mutex<Option<mpsc::OwnedPermit<Tagged>>>>,
    chains: Arc<(Mutex<OpenChains>, Condvar)>,
}

/// Chains behind the source that may still give something.
#[derive(Default)]
struct OpenChains {
    open: usize,
    /// Facts told so far.
    told: u64,
    /// The connection is over and waits for them.
    ending: bool,
}

impl Telling {
    /// Takes a place in the channel. Without one nothing is heard of the connection, and it runs out.
    pub(super) fn new(sender: mpsc::Sender<Tagged>, connection: u32) -> Self {
        let permit = sender.clone().try_reserve_owned().ok();
        Self {
            sender,
            connection,
            last_word: Arc::new(Mutex::new(permit)),
            chains: Arc::default(),
        }
    }

    /// A chain may give units from now on, until [`Telling::chain_ended`].
    pub(super) fn chain_begins(&self) {
        lock(&self.chains.0).open += 1;
    }

    /// The end of the stream has come through a chain.
    pub(super) fn chain_ended(&self) {
        let mut chains = lock(&self.chains.0);
        chains.open = chains.open.saturating_sub(1);
        self.chains.1.notify_all();
    }

    /// Whether the connection is over and only what it brought is waited for.
    pub(super) fn is_ending(&self) -> bool {
        lock(&self.chains.0).ending
    }

    /// Whether some chain may still give units.
    pub(super) fn has_chains(&self) -> bool {
        lock(&self.chains.0).open > 0
    }

    pub(super) fn tell(&self, fact: IngestFact) {
        let over = lock(&self.last_word).is_none();
        if over {
            return;
        }
        lock(&self.chains.0).told += 1;
        if let Err(mpsc::error::TrySendError::Full(_)) =
            self.sender.try_send((self.connection, fact))
        {
            let error = IngestError::Overrun { dropped: 1 };
            self.end(IngestFact::Failed { error });
        }
    }

    /// The connection's last word; what follows it is not heard.
    pub(super) fn end(&self, fact: IngestFact) {
        let permit = lock(&self.last_word).take();
        if let Some(permit) = permit {
            permit.send((self.connection, fact));
        }
    }

    /// The connection is over, which is its last word once what it brought before has come through the
    /// chains: it has failed, or the server has closed it. Does not block. The first such end counts.
    pub(super) fn end_after_units(&self, error: Option<IngestError>) {
        if std::mem::replace(&mut lock(&self.chains.0).ending, true) {
            return;
        }
        let telling = self.clone();
        let last = error.clone();
        let drain = move || {
            telling.drained();
            telling.end(last_word(last));
        };
        let thread = std::thread::Builder::new().name("input-drain".to_owned());
        if thread.spawn(drain).is_err() {
            self.end(last_word(error));
        }
    }

    fn drained(&self) {
        let began = Instant::now();
        let (chains, changed) = &*self.chains;
        let mut chains = lock(chains);
        let mut drain = Drain::new(At::ZERO, chains.told);
        loop {
            let now = At::new(began.elapsed());
            let Some(until) = drain.until(now, chains.open, chains.told) else {
                return;
            };
            chains = changed
                .wait_timeout(chains, until.since(now))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// What is told of an end, with or without an error.
pub(super) fn last_word(error: Option<IngestError>) -> IngestFact {
    match error {
        Some(error) => IngestFact::Failed { error },
        None => IngestFact::Ended {
            reason: "the server closed the stream".to_owned(),
        },
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_is_heard_through_a_full_channel() {
        let (sender, mut facts) = mpsc::channel(3);
        let telling = Telling::new(sender, 7);
        for _ in 0..5 {
            telling.tell(IngestFact::Connected);
        }
        telling.end(IngestFact::Ended {
            reason: "too late".to_owned(),
        });
        let heard: Vec<_> = std::iter::from_fn(|| facts.try_recv().ok()).collect();
        assert!(matches!(
            heard.as_slice(),
            [
                (7, IngestFact::Connected),
                (7, IngestFact::Connected),
                (
                    7,
                    IngestFact::Failed {
                        error: IngestError::Overrun { .. }
                    }
                )
            ]
        ));
    }

    /// When it is heard if they do not is `Drain`'s to say.
    #[test]
    fn a_failure_is_heard_when_all_chains_have_ended() {
        let (sender, mut facts) = mpsc::channel(3);
        let telling = Telling::new(sender, 1);
        telling.chain_begins();
        telling.chain_begins();
        telling.end_after_units(Some(IngestError::Broken("closed".to_owned())));
        telling.tell(IngestFact::Connected);
        telling.chain_ended();
        telling.chain_ended();
        let heard: Vec<_> = std::iter::from_fn(|| facts.blocking_recv())
            .take(2)
            .collect();
        assert!(
            matches!(
                heard.as_slice(),
                [(1, IngestFact::Connected), (1, IngestFact::Failed { .. })]
            ),
            "{heard:?}"
        );
    }
}
