//! When `fragment:ack` (applied) is said: when the dub is mixed and on its way out, not before.
//!
//! The session orders it as soon as the audio is good; mixing follows in batch order. `stream:end`
//! waits for the acknowledgements in front of it, but not for long: it must come.

use crate::fragment_id::FragmentId;
use crate::time::At;
use crate::words::LinkId;
use std::collections::VecDeque;
use std::time::Duration;

/// How long `stream:end` waits for the mixer, which takes a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is to be said to the service.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Saying {
    /// `fragment:ack` (applied).
    Applied {
        /// On this connection.
        link: LinkId,
        /// About this fragment.
        id: FragmentId,
    },
    /// `stream:end`.
    End {
        /// On this connection.
        link: LinkId,
    },
}

#[derive(Copy, Clone, Debug)]
struct Due {
    link: LinkId,
    id: FragmentId,
    /// Known once the segment's turn has come.
    batch: Option<u64>,
}

/// Holds acknowledgements until their dub is on its way. See the [module](self).
#[derive(Debug, Default)]
pub struct AppliedAcks {
    due: VecDeque<Due>,
    end: Option<(LinkId, At)>,
    sayings: VecDeque<Saying>,
}

impl AppliedAcks {
    /// The audio of `id` is good and will be used.
    pub fn good(&mut self, link: LinkId, id: FragmentId) {
        let batch = None;
        self.due.push_back(Due { link, id, batch });
    }

    /// The segment `batch` goes to the mixer with the audio of `id`.
    pub fn resolved(&mut self, batch: u64, id: FragmentId) {
        if let Some(due) = self.due.iter_mut().find(|due| due.id == id) {
            due.batch = Some(batch);
        }
    }

    /// The audio of `batch` is mixed and on its way out, with its dub or, after all, without.
    pub fn mixed(&mut self, batch: u64, dubbed: bool) {
        let found = self.due.iter().position(|due| due.batch == Some(batch));
        let due = found.and_then(|index| self.due.remove(index));
        if let Some(Due { link, id, .. }) = due.filter(|_| dubbed) {
            self.sayings.push_back(Saying::Applied { link, id });
        }
        self.end_if_nothing_is_due();
    }

    /// The stream is to be ended.
    pub fn end(&mut self, at: At, link: LinkId) {
        self.end = Some((link, at + PATIENCE));
        self.end_if_nothing_is_due();
    }

    /// A connection is gone; what was due on it cannot be said any more.
    pub fn lost(&mut self, link: LinkId) {
        self.due.retain(|due| due.link != link);
        self.end = self.end.filter(|(of, _)| *of != link);
    }

    /// When [`AppliedAcks::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<At> {
        self.end.map(|(_, until)| until)
    }

    /// The mixer may have taken too long for `stream:end`.
    pub fn handle_timeout(&mut self, at: At) {
        if let Some((link, until)) = self.end
            && at >= until
        {
            self.due.retain(|due| due.link != link);
            self.end_if_nothing_is_due();
        }
    }

    /// What is to be said now, oldest first.
    pub fn poll_saying(&mut self) -> Option<Saying> {
        self.sayings.pop_front()
    }

    fn end_if_nothing_is_due(&mut self) {
        if let Some((link, _)) = self.end
            && self.due.iter().all(|due| due.link != link)
        {
            self.end = None;
            self.sayings.push_back(Saying::End { link });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fragment_id::FragmentIds;

    const fn at(ms: u64) -> At {
        At::from_millis(ms)
    }

    fn said(acks: &mut AppliedAcks) -> Vec<Saying> {
        std::iter::from_fn(|| acks.poll_saying()).collect()
    }

    #[test]
    fn applied_is_said_when_the_dub_is_mixed() {
        let (mut acks, mut ids) = (AppliedAcks::default(), FragmentIds::new(1));
        let (first, second) = (ids.next(), ids.next());
        // Checked out of order, resolved and mixed in order.
        acks.good(1, second);
        acks.good(1, first);
        acks.resolved(4, first);
        acks.resolved(5, second);
        assert_eq!(said(&mut acks), []);
        for (batch, id) in [(4, first), (5, second)] {
            acks.mixed(batch, true);
            assert_eq!(said(&mut acks), [Saying::Applied { link: 1, id }]);
            acks.mixed(batch, true);
            assert_eq!(said(&mut acks), []);
        }
        acks.mixed(9, true); // Original audio.
        assert_eq!(said(&mut acks), []);
        // It could not be fitted after all.
        acks.good(1, first);
        acks.resolved(6, first);
        acks.mixed(6, false);
        assert_eq!(said(&mut acks), []);
        assert!(acks.due.is_empty());
    }

    #[test]
    fn the_end_comes_behind_the_last_of_them_and_never_waits_long() {
        let (mut acks, mut ids) = (AppliedAcks::default(), FragmentIds::new(1));
        acks.end(at(0), 1);
        assert_eq!(said(&mut acks), [Saying::End { link: 1 }]);
        let id = ids.next();
        acks.good(1, id);
        acks.resolved(4, id);
        acks.end(at(100), 1);
        assert_eq!(said(&mut acks), []);
        acks.mixed(4, true);
        let expected = [Saying::Applied { link: 1, id }, Saying::End { link: 1 }];
        assert_eq!(said(&mut acks), expected);
        assert_eq!(acks.poll_timeout(), None);

        acks.good(1, ids.next());
        acks.end(at(200), 1);
        assert_eq!(acks.poll_timeout(), Some(at(2_200)));
        acks.handle_timeout(at(2_199));
        assert_eq!(said(&mut acks), []);
        acks.handle_timeout(at(2_200));
        assert_eq!(said(&mut acks), [Saying::End { link: 1 }]);
    }

    #[test]
    fn nothing_is_said_on_a_connection_that_is_gone() {
        let (mut acks, mut ids) = (AppliedAcks::default(), FragmentIds::new(1));
        let (old, new) = (ids.next(), ids.next());
        acks.good(1, old);
        acks.resolved(4, old);
        acks.lost(1);
        acks.good(2, new);
        acks.resolved(5, new);
        acks.mixed(4, true);
        acks.mixed(5, true);
        assert_eq!(said(&mut acks), [Saying::Applied { link: 2, id: new }]);

        // Nor is its end, but that of the next one is.
        acks.good(2, ids.next());
        acks.end(at(0), 2);
        acks.lost(1);
        assert_eq!(acks.poll_timeout(), Some(at(2_000)));
        acks.lost(2);
        assert_eq!(acks.poll_timeout(), None);
        assert_eq!(said(&mut acks), []);
    }
}
