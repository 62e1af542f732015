//! Waiting for a fact under a deadline.
//!
//! Nothing in the harness sleeps and hopes: every wait names what it waits for, looks at a fact, and
//! says at the end of its patience what it saw instead.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How often a polled fact is looked at. Short against every bound a scenario asserts (the tightest
/// is "within 1 s"), long enough that ten environments polling at once cost no measurable CPU.
const POLL: Duration = Duration::from_millis(10);

/// A point in time by which something must have happened.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    started: Instant,
    patience: Duration,
}

impl Deadline {
    /// A deadline `patience` from now.
    pub fn within(patience: Duration) -> Self {
        Self {
            started: Instant::now(),
            patience,
        }
    }

    /// Time since the wait began.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Time left, zero once the deadline has passed.
    pub fn remaining(&self) -> Duration {
        self.patience.saturating_sub(self.elapsed())
    }

    /// Whether the deadline has passed.
    pub fn is_over(&self) -> bool {
        self.remaining().is_zero()
    }
}

/// What one look at a polled fact found.
#[derive(Debug)]
pub enum Look<T> {
    /// The fact is there.
    Done(T),
    /// Not yet; the text says what was seen instead and becomes part of the error.
    NotYet(String),
}

impl Look<()> {
    /// Done when it is so; else `seen` is what there was.
    pub fn when(is_so: bool, seen: impl Into<String>) -> Self {
        if is_so {
            Self::Done(())
        } else {
            Self::NotYet(seen.into())
        }
    }
}

/// Polls `look` until it is done, and returns what it found.
///
/// # Errors
/// When `look` fails (a fact that can no longer happen, such as a dead child, ends the wait at once),
/// or when `patience` runs out; the message then holds what the last look saw.
pub fn until<T>(
    what: &str,
    patience: Duration,
    look: impl FnMut() -> Result<Look<T>>,
) -> Result<T> {
    until_every(POLL, what, patience, look)
}

/// The same with `between` two looks, where a look costs much.
///
/// # Errors
/// As [`until`].
pub fn until_every<T>(
    between: Duration,
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> Result<Look<T>>,
) -> Result<T> {
    let deadline = Deadline::within(patience);
    loop {
        let seen = match look().with_context(|| format!("while waiting for {what}"))? {
            Look::Done(found) => return Ok(found),
            Look::NotYet(seen) => seen,
        };
        if deadline.is_over() {
            bail!(
                "waited {:.1} s for {what}, last seen: {seen}",
                patience.as_secs_f64()
            );
        }
        std::thread::sleep(between.min(deadline.remaining()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_as_soon_as_the_fact_is_there() {
        let mut looks = 0;
        let found = until("the third look", Duration::from_secs(5), || {
            looks += 1;
            Ok(if looks == 3 {
                Look::Done(looks)
            } else {
                Look::NotYet(format!("look {looks}"))
            })
        });
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn says_what_was_seen_when_patience_runs_out() {
        let error = until::<()>("a blue moon", Duration::from_millis(30), || {
            Ok(Look::NotYet("a white one".into()))
        })
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "waited 0.0 s for a blue moon, last seen: a white one"
        );
    }

    #[test]
    fn an_impossible_fact_ends_the_wait_at_once() {
        let (began, patience) = (Instant::now(), Duration::from_mins(1));
        let error = until::<()>("a reply", patience, || bail!("child is dead")).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "while waiting for a reply: child is dead"
        );
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}
