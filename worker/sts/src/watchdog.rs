//! Is the link still alive? Pure: what is known goes in, a verdict comes out.
//!
//! The library does not report every death: its reader may end without a word (clean WebSocket
//! close, oversized message, a panic), or hang for ever (writing into a full send buffer). So the
//! link's task asks here on every tick.

use std::time::{Duration, Instant};

/// How often the link's task looks: a reader that ends without a word costs this much time.
pub(super) const TICK: Duration = Duration::from_millis(25);
/// Beyond ping interval + timeout: the library's own timer, which knows the handshake, goes first.
pub(super) const SILENCE_GRACE: Duration = Duration::from_millis(300);
/// How long a reader may take to notice that the peer has closed.
pub(super) const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// What is known at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pulse {
    /// The library's reader task exists.
    pub(super) reader_alive: bool,
    /// Since the last byte arrived; `None` if the kernel does not say.
    pub(super) silent: Option<Duration>,
    /// The TCP connection is established; `None` if the kernel does not say.
    pub(super) open: Option<bool>,
}

/// Why a link counts as lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// The library stopped reading.
    ReaderGone,
    /// Nothing arrived for this long.
    Silent(Duration),
    /// The peer closed the connection and the library did not notice.
    PeerClosed,
}

/// Watches one link.
#[derive(Debug)]
pub(super) struct Watchdog {
    limit: Duration,
    not_open_since: Option<Instant>,
}

impl Watchdog {
    /// `silence`: the server's ping interval and timeout together.
    pub(super) fn new(silence: Duration) -> Self {
        Self {
            limit: silence + SILENCE_GRACE,
            not_open_since: None,
        }
    }

    /// The verdict at `now`; `None` is alive.
    pub(super) fn check(&mut self, now: Instant, pulse: Pulse) -> Option<Loss> {
        if !pulse.reader_alive {
            return Some(Loss::ReaderGone);
        }
        if let Some(silent) = pulse.silent
            && silent >= self.limit
        {
            return Some(Loss::Silent(silent));
        }
        if pulse.open == Some(false) {
            let since = *self.not_open_since.get_or_insert(now);
            if now.duration_since(since) >= CLOSE_GRACE {
                return Some(Loss::PeerClosed);
            }
        } else {
            self.not_open_since = None;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALIVE: Pulse = Pulse {
        reader_alive: true,
        silent: None,
        open: None,
    };

    #[test]
    fn silence_is_lost_at_the_limit_not_before() {
        let mut dog = Watchdog::new(Duration::from_secs(35));
        let now = Instant::now();
        let silent = |ms| Pulse {
            silent: Some(Duration::from_millis(ms)),
            ..ALIVE
        };
        assert_eq!(dog.check(now, silent(35_299)), None);
        assert_eq!(
            dog.check(now, silent(35_300)),
            Some(Loss::Silent(Duration::from_millis(35_300)))
        );
    }

    #[test]
    fn a_reader_that_is_gone_is_lost_at_once() {
        let mut dog = Watchdog::new(Duration::from_secs(35));
        let gone = Pulse {
            reader_alive: false,
            ..ALIVE
        };
        assert_eq!(dog.check(Instant::now(), gone), Some(Loss::ReaderGone));
    }

    #[test]
    fn a_closed_peer_is_lost_after_the_grace_unless_the_reader_ends_first() {
        let mut dog = Watchdog::new(Duration::from_secs(35));
        let start = Instant::now();
        let closed = Pulse {
            open: Some(false),
            ..ALIVE
        };
        assert_eq!(dog.check(start, closed), None);
        assert_eq!(
            dog.check(start + CLOSE_GRACE.saturating_sub(TICK), closed),
            None
        );
        assert_eq!(
            dog.check(start + CLOSE_GRACE, closed),
            Some(Loss::PeerClosed)
        );
        // Open again cannot happen to TCP, but an unreadable state must not add up either.
        assert_eq!(dog.check(start, ALIVE), None);
        assert_eq!(dog.check(start + CLOSE_GRACE, closed), None);
    }

    #[test]
    fn an_unreachable_socket_is_not_silence() {
        let mut dog = Watchdog::new(Duration::ZERO);
        assert_eq!(
            dog.check(Instant::now() + Duration::from_hours(1), ALIVE),
            None
        );
    }
}
