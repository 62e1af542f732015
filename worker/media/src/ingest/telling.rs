//! How GStreamer's threads tell the driver, without ever waiting for it.

use std::sync::{Arc, Mutex, PoisonError};

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
}

impl Telling {
    /// Takes a place in the channel. Without one nothing is heard of the connection, and it runs out.
    pub(super) fn new(sender: mpsc::Sender<Tagged>, connection: u32) -> Self {
        let permit = sender.clone().try_reserve_owned().ok();
        Self {
            sender,
            connection,
            last_word: Arc::new(Mutex::new(permit)),
        }
    }

    pub(super) fn tell(&self, fact: IngestFact) {
        let over = self.lock().is_none();
        if over {
            return;
        }
        if let Err(mpsc::error::TrySendError::Full(_)) =
            self.sender.try_send((self.connection, fact))
        {
            let error = IngestError::Overrun { dropped: 1 };
            self.end(IngestFact::Failed { error });
        }
    }

    /// The connection's last word; what follows it is not heard.
    pub(super) fn end(&self, fact: IngestFact) {
        let permit = self.lock().take();
        if let Some(permit) = permit {
            permit.send((self.connection, fact));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<mpsc::OwnedPermit<Tagged>>> {
        self.last_word
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
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
}
