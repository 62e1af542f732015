//! Between the wire and the driver: bounded by number and by bytes, and what does not fit is counted.

use std::collections::VecDeque;
use std::time::Duration;

use dub_engine::SessionFact;
use tokio::time::Instant;

use super::fact::StsFact;

/// Facts that may wait.
const MAX_FACTS: usize = 1_024;
/// Of these, kept free for what the protocol knows: junk must not push out an answer.
const RESERVED: usize = MAX_FACTS / 2;
/// Bytes of audio that may wait.
const MAX_BYTES: usize = 48 * 1024 * 1024;
/// Above this many events per [`WINDOW`] the link rests until the window is over, so that TCP
/// slows the peer down before anything has to be dropped. A rest is too short for a pong to be
/// late; a service in its right mind sends a handful per second.
const MAX_PER_WINDOW: u32 = 500;
const WINDOW: Duration = Duration::from_millis(100);

/// Facts on their way to the driver.
pub(super) struct Queue {
    facts: VecDeque<StsFact>,
    bytes: usize,
    dropped: u64,
    window: (Instant, u32),
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            facts: VecDeque::new(),
            bytes: 0,
            dropped: 0,
            window: (Instant::now(), 0),
        }
    }
}

impl Queue {
    pub(super) fn push(&mut self, fact: StsFact) {
        let (most, stands_for) = match &fact.input {
            SessionFact::Malformed { count, .. } => (MAX_FACTS - RESERVED, *count),
            _ => (MAX_FACTS, 1),
        };
        let bytes = self.bytes + weight(&fact);
        if self.facts.len() < most && (self.bytes == 0 || bytes <= MAX_BYTES) {
            self.bytes = bytes;
            self.facts.push_back(fact);
        } else {
            self.dropped += stands_for;
        }
    }

    pub(super) fn pop(&mut self) -> Option<StsFact> {
        let fact = self.facts.pop_front()?;
        self.bytes -= weight(&fact);
        Some(fact)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.facts.is_empty()
    }

    /// How many events were dropped, once there is room to tell it.
    pub(super) fn take_dropped(&mut self) -> Option<u64> {
        let told = self.facts.is_empty() && self.dropped > 0;
        told.then(|| std::mem::take(&mut self.dropped))
    }

    /// An event came, whatever it was.
    pub(super) fn count_event(&mut self, now: Instant) {
        if now.duration_since(self.window.0) >= WINDOW {
            self.window = (now, 0);
        }
        self.window.1 += 1;
    }

    /// Until when nothing is to be read.
    pub(super) fn rests_until(&self, now: Instant) -> Option<Instant> {
        let end = self.window.0 + WINDOW;
        (self.window.1 > MAX_PER_WINDOW && end > now).then_some(end)
    }
}

fn weight(fact: &StsFact) -> usize {
    match &fact.audio {
        Some(Ok(audio)) => audio.bytes.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use dub_engine::{Outcome, ProtocolErrorKind};
    use sts_protocol::heard::DubbedAudio;

    use super::*;

    fn audio(bytes: &Bytes) -> StsFact {
        let input = SessionFact::Processed {
            link: 1,
            id: String::new(),
            sequence: None,
            outcome: Outcome::Audio,
        };
        let audio = DubbedAudio {
            format: "m4a".to_owned(),
            sample_rate: None,
            channels: None,
            duration_ms: None,
            bytes: bytes.clone(),
            transcript: String::new(),
            translated_text: String::new(),
        };
        StsFact {
            input,
            audio: Some(Ok(audio)),
        }
    }

    #[test]
    fn what_was_taken_out_makes_room() {
        let mut queue = Queue::default();
        let bytes = Bytes::from(vec![0; 8 << 20]);
        for _ in 0..10 {
            queue.push(audio(&bytes));
            assert!(queue.pop().is_some());
        }
        assert_eq!(queue.take_dropped(), None);
        // 48 MiB of it may wait.
        for _ in 0..10 {
            queue.push(audio(&bytes));
        }
        assert_eq!((queue.facts.len(), queue.dropped), (6, 4));
        while queue.pop().is_some() {}
        assert_eq!(queue.take_dropped(), Some(4));
    }

    #[test]
    fn junk_leaves_room_for_what_counts() {
        let mut queue = Queue::default();
        let malformed = || SessionFact::Malformed {
            link: 1,
            kind: ProtocolErrorKind::BadJson,
            count: 2,
            detail: String::new(),
        };
        for _ in 0..1_000 {
            queue.push(malformed().into());
        }
        assert_eq!((queue.facts.len(), queue.dropped), (512, 2 * 488));
        for _ in 0..1_000 {
            queue.push(SessionFact::Connected { link: 1 }.into());
        }
        assert_eq!((queue.facts.len(), queue.dropped), (1_024, 2 * 488 + 488));
    }

    #[test]
    fn more_than_500_events_in_100_ms_are_read_no_further_until_these_are_over() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut queue = Queue::default();
        queue.window.0 = start;
        let mut after = |events, ms| {
            for _ in 0..events {
                queue.count_event(at(ms));
            }
            queue.rests_until(at(ms))
        };
        assert_eq!(after(500, 0), None);
        assert_eq!(after(1, 0), Some(at(100)));
        assert_eq!(after(1, 99), Some(at(100)));
        assert_eq!(after(0, 100), None);
        // The next window begins with what comes first in it.
        assert_eq!(after(500, 130), None);
        assert_eq!(after(1, 229), Some(at(230)));
    }
}
