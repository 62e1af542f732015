//! How large a message the service takes, learned from links it cut.
//!
//! Servers drop a peer over their limit, most of them without a word, and the next link would die of
//! the same fragment. One such death is a coincidence; a second one, with nothing of that size
//! answered in between, is a limit. Where messages as large were answered before, it takes a third:
//! a network that comes and goes is likelier than a service that has been set up anew.

use crate::time::At;
use std::time::Duration;

/// After this long a limit is put to the test again: the service may have been set up anew.
const KEEP: Duration = Duration::from_mins(10);

/// What is known of the service's limit, in bytes of message.
#[derive(Clone, Debug, Default)]
pub struct MessageLimit {
    /// The smallest message that a link was cut right after, and how many were.
    suspect: Option<(usize, u32)>,
    /// The smallest message that is known to be too large, and until when that is believed.
    known: Option<(usize, At)>,
    /// The largest message that was answered.
    answered: usize,
}

impl MessageLimit {
    /// A link was cut right after `bytes`; `certain`: the service said that this is why. Returns
    /// whether this says that there is a limit.
    pub fn cut(&mut self, at: At, bytes: usize, certain: bool) -> bool {
        let (suspect, cuts) = self.suspect.unwrap_or((bytes, 0));
        let before = self.known.map_or(suspect, |(known, _)| known);
        let (smallest, cuts) = (before.min(bytes), cuts + 1);
        let enough = if smallest <= self.answered { 3 } else { 2 };
        if !certain && self.known.is_none() && cuts < enough {
            self.suspect = Some((smallest, cuts));
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
        self.suspect = self.suspect.filter(|(size, _)| !disproves(*size));
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
    fn a_network_that_comes_and_goes_is_no_limit_at_once() {
        let mut limit = MessageLimit::default();
        limit.answered(160 * KB);
        assert!(!limit.cut(NOW, 150 * KB, false) && !limit.cut(NOW, 158 * KB, false));
        assert!(limit.allows(NOW, 160 * KB));
        limit.answered(155 * KB);
        assert!(!limit.cut(NOW, 150 * KB, false) && !limit.cut(NOW, 158 * KB, false));
        assert!(limit.cut(NOW, 155 * KB, false) && !limit.allows(NOW, 150 * KB));
    }

    /// Fragments of one stream differ in size by less than a quarter.
    #[test]
    fn three_quarters_of_a_size_are_about_that_size() {
        for (answered, disproved) in [(119_999, false), (120_000, true)] {
            let mut limit = MessageLimit::default();
            limit.cut(NOW, 160 * KB, false);
            limit.answered(answered);
            let second_cut_is_a_limit = limit.cut(NOW, 160 * KB, false);
            assert_eq!(second_cut_is_a_limit, !disproved, "{answered}");
        }
        let mut limit = MessageLimit::default();
        limit.cut(NOW, 160 * KB, true);
        assert!(limit.allows(NOW, 119_999) && !limit.allows(NOW, 120_000));
        // What goes through below it says nothing about it; that it goes through itself does.
        limit.answered(159_999);
        assert!(limit.allows(NOW, 159_999) && !limit.allows(NOW, 160_000));
        limit.answered(160_000);
        assert!(limit.allows(NOW, 200_000));
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
