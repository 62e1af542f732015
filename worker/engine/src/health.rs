//! Whether the worker is alive and whether it does its job, from facts with times.

use std::fmt;
use std::time::Duration;

use crate::time::At;

/// The loop that keeps every deadline turns over at least once a second; longer than this, and
/// something holds it.
const LONGEST_TURN: Duration = Duration::from_secs(15);
/// Media comes several times a second; a connection is given up after 5 s of silence.
const LONGEST_SILENCE: Duration = Duration::from_secs(10);
/// Output that waits for a late answer waits about as long as a fragment may stay unanswered (8 s
/// by default); a viewer's buffer is empty by then.
const LONGEST_STANDSTILL: Duration = Duration::from_secs(10);

/// Why something is not well.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unwell {
    /// The loop that does everything hangs.
    Stuck(Duration),
    /// A stop was asked for, or the input is over.
    Draining,
    /// There is no connection to the input.
    InputDisconnected,
    /// The input is connected and sends nothing.
    InputSilent(Duration),
    /// Nothing has been published yet.
    OutputNotStarted,
    /// The output takes nothing.
    OutputStandsStill(Duration),
}

impl fmt::Display for Unwell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stuck(since) => {
                write!(f, "the main loop has been stuck for {} s", since.as_secs())
            }
            Self::Draining => f.write_str("draining"),
            Self::InputDisconnected => f.write_str("input is not connected"),
            Self::InputSilent(since) => {
                write!(f, "no media from the input for {} s", since.as_secs())
            }
            Self::OutputNotStarted => f.write_str("output has not started"),
            Self::OutputStandsStill(since) => {
                write!(f, "no bytes to the output for {} s", since.as_secs())
            }
        }
    }
}

/// What is known of the worker's life.
#[derive(Clone, Debug, Default)]
pub struct Health {
    turned: At,
    connected: bool,
    media: Option<At>,
    bytes: u64,
    moved: Option<At>,
    draining: bool,
}

impl Health {
    /// The main loop turned over.
    pub fn turned(&mut self, at: At) {
        self.turned = at;
    }

    /// The input was connected, or its connection was lost.
    pub fn input_connected(&mut self, at: At, connected: bool) {
        self.connected = connected;
        self.media = connected.then_some(at);
    }

    /// Media came in.
    pub fn media_came(&mut self, at: At) {
        self.media = Some(at);
    }

    /// The output has been sent this many bytes over its connection.
    pub fn output_sent(&mut self, at: At, bytes: u64) {
        if bytes != self.bytes {
            self.bytes = bytes;
            self.moved = Some(at);
        }
    }

    /// What is buffered goes out, and then the worker ends.
    pub fn draining(&mut self) {
        self.draining = true;
    }

    /// Whether the process does anything at all.
    pub fn stuck(&self, at: At) -> Option<Unwell> {
        let since = at.since(self.turned);
        (since > LONGEST_TURN).then_some(Unwell::Stuck(since))
    }

    /// Everything that keeps the stream from flowing from input to output; empty is ready.
    pub fn unready(&self, at: At) -> Vec<Unwell> {
        let over = |limit: Duration| move |since: &Duration| *since > limit;
        let since = |then: Option<At>| then.map(|then| at.since(then));
        let mut reasons: Vec<Unwell> = self.stuck(at).into_iter().collect();
        if self.draining {
            reasons.push(Unwell::Draining);
        } else if !self.connected {
            reasons.push(Unwell::InputDisconnected);
        } else if let Some(silence) = since(self.media).filter(over(LONGEST_SILENCE)) {
            reasons.push(Unwell::InputSilent(silence));
        }
        match since(self.moved) {
            None => reasons.push(Unwell::OutputNotStarted),
            Some(still) if still > LONGEST_STANDSTILL => {
                reasons.push(Unwell::OutputStandsStill(still));
            }
            Some(_) => {}
        }
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(s: u64) -> At {
        At::from_millis(s * 1000)
    }

    fn told(health: &Health, s: u64) -> String {
        let reasons: Vec<_> = health
            .unready(at(s))
            .iter()
            .map(ToString::to_string)
            .collect();
        reasons.join("; ")
    }

    /// A stream that has run from 0 to 100 s.
    fn running() -> Health {
        let mut health = Health::default();
        health.input_connected(at(0), true);
        for s in 0..=100 {
            health.turned(at(s));
            health.media_came(at(s));
            health.output_sent(at(s), s * 100);
        }
        health
    }

    #[test]
    fn ready_is_media_in_and_bytes_out() {
        let mut health = Health::default();
        assert_eq!(
            told(&health, 1),
            "input is not connected; output has not started"
        );
        health.input_connected(at(1), true);
        health.output_sent(at(1), 0);
        assert_eq!(told(&health, 2), "output has not started");
        health.output_sent(at(8), 1);
        health.media_came(at(8));
        assert_eq!(told(&health, 9), "");
        assert_eq!(told(&running(), 101), "");
    }

    #[test]
    fn each_thing_that_stops_is_told() {
        let mut at_the_limit = running();
        at_the_limit.turned(at(110));
        assert_eq!(told(&at_the_limit, 110), "");

        let mut silent = running();
        silent.turned(at(111));
        silent.output_sent(at(111), 11_100);
        assert_eq!(told(&silent, 111), "no media from the input for 11 s");

        let mut still = running();
        still.turned(at(111));
        still.media_came(at(111));
        still.output_sent(at(111), 10_000);
        assert_eq!(told(&still, 111), "no bytes to the output for 11 s");

        let mut lost = running();
        lost.input_connected(at(100), false);
        assert_eq!(told(&lost, 101), "input is not connected");
        lost.input_connected(at(102), true);
        assert_eq!(told(&lost, 103), "");

        let mut draining = running();
        draining.draining();
        draining.input_connected(at(100), false);
        assert_eq!(told(&draining, 101), "draining");
    }

    #[test]
    fn a_loop_that_hangs_is_neither_alive_nor_ready() {
        let health = running();
        assert_eq!(health.stuck(at(115)), None);
        assert_eq!(
            health.stuck(at(116)),
            Some(Unwell::Stuck(Duration::from_secs(16)))
        );
        assert!(told(&health, 116).starts_with("the main loop has been stuck for 16 s"));
    }

    #[test]
    fn a_new_connection_of_the_output_counts_anew() {
        let mut health = running();
        health.output_sent(at(105), 50);
        health.media_came(at(105));
        health.turned(at(105));
        assert_eq!(told(&health, 114), "");
    }
}
