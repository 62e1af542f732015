//! Why something failed, in pieces that a page can show: what, expected and found, and where on the
//! timeline. And which part of a scenario a thread is busy with, so that failures, environments and
//! snapshots find their part.

use std::cell::RefCell;
use std::fmt::{self, Debug, Display};
use std::ops::RangeInclusive;

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// A check that did not hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failure {
    /// What is wrong, in one sentence.
    pub what: String,
    /// What should have been there.
    pub expected: Option<String>,
    /// What was there.
    pub actual: Option<String>,
    /// Where on the timeline.
    pub place: Option<Place>,
    /// In which part of the scenario; none: in a scenario that has no parts.
    pub part: Option<String>,
}

/// A place on the timeline of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Seconds of media since the first picture.
    Media(f64),
    /// Number of a segment.
    Batch(u64),
    /// Unix ms.
    Wall(f64),
}

impl Failure {
    /// A failure of which more may be known.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            ..Self::default()
        }
    }

    /// Says what should have been there.
    #[must_use]
    pub fn expected(mut self, expected: impl Display) -> Self {
        self.expected = Some(expected.to_string());
        self
    }

    /// Says what was there.
    #[must_use]
    pub fn actual(mut self, actual: impl Display) -> Self {
        self.actual = Some(actual.to_string());
        self
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, place: impl Into<Option<Place>>) -> Self {
        self.place = place.into();
        self
    }

    /// Changes all of its words.
    pub fn hide(&mut self, change: impl Fn(&str) -> String) {
        self.what = change(&self.what);
        for words in [&mut self.expected, &mut self.actual].into_iter().flatten() {
            *words = change(words);
        }
    }

    /// The failure that an error is, with what was said around it. An error that knows no more than
    /// its words may still name a segment or a second.
    pub fn of(error: &anyhow::Error) -> Self {
        let Some(known) = error.downcast_ref::<Self>() else {
            let what = format!("{error:#}");
            let place = named(&what);
            return Self::new(what).at(place);
        };
        let inner = known.to_string();
        let around = error.chain().map(ToString::to_string);
        let mut words: Vec<_> = around.take_while(|text| *text != inner).collect();
        words.push(known.what.clone());
        Self {
            what: words.join(": "),
            ..known.clone()
        }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match (&self.expected, &self.actual) {
            (Some(expected), Some(actual)) if expected.contains('\n') || actual.contains('\n') => {
                write!(f, "\nexpected:\n{expected}\nfound:\n{actual}")
            }
            (Some(expected), Some(actual)) => write!(f, ": expected {expected}, found {actual}"),
            (Some(expected), None) => write!(f, ": expected {expected}"),
            (None, Some(actual)) => write!(f, ": {actual}"),
            (None, None) => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// The segment or second that a sentence names.
fn named(text: &str) -> Option<Place> {
    let after = |word: &str| {
        let (_, rest) = text.split_once(word)?;
        let digits = rest.find(|c: char| !c.is_ascii_digit());
        rest[..digits.unwrap_or(rest.len())].parse::<u32>().ok()
    };
    let batch = ["segment ", "batch ", "pair "].into_iter().find_map(after);
    batch
        .map(|batch| Place::Batch(batch.into()))
        .or_else(|| after("second ").map(|second| Place::Media(second.into())))
}

/// Fails unless both are the same.
///
/// # Errors
/// A [`Failure`] with both.
pub fn equal<T: PartialEq + Debug>(what: impl Into<String>, found: &T, expected: &T) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let failure = Failure::new(what).expected(format!("{expected:?}"));
    Err(failure.actual(format!("{found:?}")).into())
}

/// Fails unless a number lies in a range; `unit` is `ms` or the like.
///
/// # Errors
/// A [`Failure`] with number and range.
pub fn within(
    what: impl Into<String>,
    found: f64,
    range: &RangeInclusive<f64>,
    unit: &str,
) -> Result<()> {
    if range.contains(&found) {
        return Ok(());
    }
    let expected = format!("{} to {} {unit}", range.start(), range.end());
    let failure = Failure::new(what).expected(expected);
    Err(failure.actual(format!("{found:.1} {unit}")).into())
}

/// Why a scenario cannot be run here: something that it alone needs is not installed. As the error
/// of a scenario it is no failure, but it is shown and counted; in CI, where a test that cannot fail
/// proves nothing, it is one.
#[derive(Debug)]
pub struct Skipped {
    reason: String,
    /// Not even in CI is it a failure.
    pub in_ci_too: bool,
}

impl Skipped {
    /// Names what is missing and how to get it, in one line.
    pub fn because(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            in_ci_too: false,
        }
    }

    /// For what another place of ours proves: the flake has what this one lacks, or the other way round.
    pub fn here(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            in_ci_too: true,
        }
    }
}

impl Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Skipped {}

thread_local! {
    static PART: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The part of a scenario that this thread is busy with.
pub fn part() -> Option<String> {
    PART.with_borrow(Clone::clone)
}

/// From now on this thread is busy with a part of a scenario.
pub fn enter(part: &str) {
    PART.set(Some(part.to_owned()));
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    #[test]
    fn a_failure_keeps_its_pieces_and_what_was_said_around_it() {
        let error = equal("pictures", &3, &4)
            .context("after the loss")
            .unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "after the loss: pictures: expected 4, found 3"
        );
        let failure = Failure::of(&error);
        assert_eq!(failure.what, "after the loss: pictures");
        assert_eq!(
            (failure.expected.as_deref(), failure.actual.as_deref()),
            (Some("4"), Some("3"))
        );
        assert!(equal("pictures", &3, &3).is_ok());
    }

    #[test]
    fn numbers_outside_a_range_are_named_with_it() {
        let error = within("the retry", 2500.0, &(1900.0..=2100.0), "ms").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the retry: expected 1900 to 2100 ms, found 2500.0 ms"
        );
        assert!(within("the retry", 1900.0, &(1900.0..=2100.0), "ms").is_ok());
        assert!(within("the retry", f64::NAN, &(0.0..=1.0), "ms").is_err());
    }

    #[test]
    fn plain_words_may_name_a_place() {
        let place = |text: &'static str| Failure::of(&anyhow!(text)).place;
        assert_eq!(place("segment 7 sounds Original"), Some(Place::Batch(7)));
        assert_eq!(
            place("no pair_started of batch 12 in the log"),
            Some(Place::Batch(12))
        );
        assert_eq!(place("second 9 is 80 ms apart"), Some(Place::Media(9.0)));
        assert_eq!(place("segments are missing"), None);
    }
}
