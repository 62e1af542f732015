//! How large a message the service takes, learned from links it cut.
//!
//! Servers drop a peer over their limit, most of them without a word, and the next link would die of
//! the same fragment. One such death is a coincidence; a second one, with nothing of that size
//! answered in between, is a limit.

use crate::time::At;
use std::time::Duration;

/// After this long a limit is put to the test again: the service may have been set up anew.
const KEEP: Duration = Duration::from_mins(10);

/// What is known of the service's limit, in bytes of message.
#[derive(Clone, Debug, Default)]
pub struct MessageLimit {
    /// A link was cut right after a message of this size.
    suspect: Option<usize>,
    /// The smallest message that is known to be too large, and until when that is believed.
    known: Option<(usize, At)>,
    /// The largest message that was answered.
    answered: usize,
}

impl MessageLimit {
    /// A link was cut right after `bytes`; `certain`: the service said that this is why. Returns
    /// whether this says that there is a limit.
    pub fn cut(&mut self, at: At, bytes: usize, certain: bool) -> bool {
        let smallest = self
            .known
            .map(|(known, _)| known)
            .or(self.suspect)
            .map_or(bytes, |before| before.min(bytes));
        if !certain && self.known.is_none() && self.suspect.is_none() {
            self.suspect = Some(bytes);
            return false;
        }
        self.suspect = None;
        self.answered = self.answered.min(smallest.saturating_sub(1));
        self.known = Some((smallest, at + KEEP));
        true
    }

    /// A message of `bytes` was answered.
    pub fn answered(&mut self, bytes: usize) {
        self.answered = self.answered.max(bytes);
        // Fragments of one stream are of about one size, not of the same.
        let disproves = |size: usize| bytes >= size / 4 * 3;
        self.suspect = self.suspect.filter(|size| !disproves(*size));
        self.known = self.known.filter(|(size, _)| bytes < *size);
    }

    /// Whether a message of `bytes` may be sent. Between what was answered and what was too large
    /// nobody knows; it is not worth a link to find out.
    pub fn allows(&self, at: At, bytes: usize) -> bool {
        self.known.is_none_or(|(size, until)| {
            bytes <= self.answered || bytes < size / 4 * 3 || at >= until
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KB: usize = 1000;
    const NOW: At = At::ZERO;

    #[test]
    fn a_second_cut_is_a_limit_a_first_one_is_not() {
        let mut limit = MessageLimit::default();
        assert!(!limit.cut(NOW, 160 * KB, false) && limit.allows(NOW, 160 * KB));
        assert!(limit.cut(NOW, 158 * KB, false));
        for (size, allowed) in [(170, false), (158, false), (150, false), (100, true)] {
            assert_eq!(limit.allows(NOW, size * KB), allowed, "{size}");
        }
        // A service that was set up anew is found out.
        assert!(limit.allows(NOW + KEEP, 160 * KB));
        assert!(limit.cut(NOW + KEEP, 160 * KB, false));
        assert!(!limit.allows(NOW + KEEP, 160 * KB));
        limit.answered(165 * KB);
        assert!(limit.allows(NOW + KEEP, 160 * KB));
    }

    #[test]
    fn the_services_own_word_is_enough() {
        let mut limit = MessageLimit::default();
        assert!(limit.cut(NOW, 160 * KB, true) && !limit.allows(NOW, 160 * KB));
    }

    #[test]
    fn what_was_answered_is_within_and_clears_a_suspicion() {
        let mut limit = MessageLimit::default();
        limit.answered(150 * KB);
        assert!(!limit.cut(NOW, 160 * KB, false));
        limit.answered(155 * KB);
        assert!(
            !limit.cut(NOW, 160 * KB, false),
            "hours later, and something else"
        );
        assert!(limit.cut(NOW, 160 * KB, false));
        assert!(limit.allows(NOW, 155 * KB) && !limit.allows(NOW, 156 * KB));
    }
}
