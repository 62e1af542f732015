//! What is done to `echo-sts` and the way to it, and when: made from a seed before the run.

use std::fmt::{self, Write as _};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

/// How often the service is hit.
pub(super) const HITS: usize = 20;
/// Silence that nobody notices, as far as pings go, …
const SHORT_MS: std::ops::Range<u64> = 100..400;
/// … and silence that everybody does.
const LONG_MS: std::ops::Range<u64> = 2_000..2_700;
/// A pause after which the worker is back from a loss: its first retry comes after 2 s.
const BACK_MS: std::ops::Range<u64> = 2_250..2_900;
/// A pause after which it is away still, or in the middle of a handshake.
const AWAY_MS: std::ops::Range<u64> = 200..2_150;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// SIGKILL, and a new process on the same port.
    Kill,
    /// SIGSTOP, and SIGCONT so much later.
    Stop(Duration),
    /// The service ends the session.
    HangUp,
    /// Both ends of the network path are told that it is no more (RST).
    Reset,
    /// Both ends are told that the other has closed (FIN).
    Close,
    /// Nothing passes for so long, then everything that was held.
    Silence(Duration),
    /// Nothing passes for so long, then a reset: what was held is lost.
    SilenceAndReset(Duration),
}

/// How it must be felt by a worker that has a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    Kill,
    Stop,
    Cut,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Hit {
    /// Since the end of the one before, or the first packet.
    pub(super) after: Duration,
    pub(super) what: What,
}

impl What {
    pub(super) fn family(self) -> Family {
        match self {
            Self::Kill => Family::Kill,
            Self::Stop(_) | Self::Silence(_) => Family::Stop,
            Self::HangUp | Self::Reset | Self::Close | Self::SilenceAndReset(_) => Family::Cut,
        }
    }

    /// Whether a worker that has a session must lose it.
    pub(super) fn must_be_noticed(self) -> bool {
        match self {
            Self::Stop(time) | Self::Silence(time) => time.as_millis() >= LONG_MS.start.into(),
            _ => true,
        }
    }

    fn lasts(self) -> Duration {
        match self {
            Self::Stop(time) | Self::Silence(time) | Self::SilenceAndReset(time) => time,
            _ => Duration::ZERO,
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Kill => "kill",
            Self::Stop(_) => "stop",
            Self::HangUp => "hang up",
            Self::Reset => "reset",
            Self::Close => "close",
            Self::Silence(_) => "silence",
            Self::SilenceAndReset(_) => "silence, then reset",
        };
        f.write_str(name)?;
        match self.lasts().as_millis() {
            0 => Ok(()),
            ms => write!(f, ", {ms} ms"),
        }
    }
}

/// The hits of a run. Every kind comes after a long pause and after a short one; the rest, all
/// lengths and the order are the seed's.
pub(super) fn plan(seed: u64) -> Vec<Hit> {
    let mut random = SmallRng::seed_from_u64(seed);
    let ms = |range: std::ops::Range<u64>, random: &mut SmallRng| {
        Duration::from_millis(random.random_range(range))
    };
    let kinds = |random: &mut SmallRng| {
        [
            What::Kill,
            What::Stop(ms(SHORT_MS, random)),
            What::Stop(ms(LONG_MS, random)),
            What::HangUp,
            What::Reset,
            What::Close,
            What::Silence(ms(SHORT_MS, random)),
            What::Silence(ms(LONG_MS, random)),
            What::SilenceAndReset(ms(SHORT_MS, random)),
        ]
    };
    let mut hits: Vec<(What, bool)> = Vec::new();
    for back in [true, false] {
        hits.extend(kinds(&mut random).map(|what| (what, back)));
    }
    while hits.len() < HITS {
        let any = kinds(&mut random);
        let what = any[random.random_range(0..any.len())];
        hits.push((what, random.random()));
    }
    hits.shuffle(&mut random);
    hits.into_iter()
        .map(|(what, back)| {
            let pause = if back { BACK_MS } else { AWAY_MS };
            let after = Duration::from_millis(random.random_range(pause));
            Hit { after, what }
        })
        .collect()
}

/// The plan for people, one line per hit, with the time since the first packet if nothing takes
/// longer than it should.
pub(super) fn told(seed: u64, plan: &[Hit]) -> String {
    let mut at = Duration::ZERO;
    let mut text = format!("E2E_SEED={seed}\n");
    for (number, hit) in plan.iter().enumerate() {
        at += hit.after;
        let _ = writeln!(
            text,
            "{number:2} at {:6.2} s: {}",
            at.as_secs_f64(),
            hit.what
        );
        at += hit.what.lasts();
    }
    text
}
