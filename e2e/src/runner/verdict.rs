//! How a scenario, or a part of it, ended.

use std::{any::Any, fmt, thread};

use anyhow::Result;

use crate::failure::{Failure, Skipped};

/// Parts of a scenario failed: what each had to say is kept already.
#[derive(Debug)]
pub(super) struct PartsFailed(pub(super) usize);

impl fmt::Display for PartsFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} parts failed", self.0)
    }
}

impl std::error::Error for PartsFailed {}

/// How something ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    Passed,
    /// With the reason.
    Skipped(String),
    /// With what did not hold; nothing if that is kept already.
    Failed(Option<Failure>),
}

/// What a result, or a panic, means.
pub(super) fn judge(outcome: thread::Result<Result<()>>, in_ci: bool) -> Outcome {
    match outcome {
        Ok(Ok(())) => Outcome::Passed,
        Ok(Err(error)) if error.is::<PartsFailed>() => Outcome::Failed(None),
        Ok(Err(error)) => match error.downcast_ref::<Skipped>() {
            Some(skipped) if in_ci && !skipped.in_ci_too => {
                let text = format!("{skipped}; in CI nothing is skipped");
                Outcome::Failed(Some(Failure::new(text)))
            }
            Some(skipped) => Outcome::Skipped(skipped.to_string()),
            None => Outcome::Failed(Some(Failure::of(&error))),
        },
        // The panic hook has printed where; what is here goes into the list of failures.
        Err(panic) => Outcome::Failed(Some(Failure::new(panic_text(panic.as_ref())))),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("panicked")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    fn failed(what: &str) -> Outcome {
        Outcome::Failed(Some(Failure::new(what)))
    }

    #[test]
    fn what_cannot_run_is_skipped_but_not_in_ci() {
        let skipped = || Err(Skipped::because("no python")).context("in a part");
        assert_eq!(
            judge(Ok(skipped()), false),
            Outcome::Skipped("no python".into())
        );
        assert_eq!(
            judge(Ok(skipped()), true),
            failed("no python; in CI nothing is skipped")
        );
        let here = Err(Skipped::here("the flake does it").into());
        assert_eq!(
            judge(Ok(here), true),
            Outcome::Skipped("the flake does it".into())
        );
    }

    #[test]
    fn errors_and_panics_are_failures() {
        assert_eq!(judge(Ok(Ok(())), true), Outcome::Passed);
        let error = anyhow!("lost").context("a frame");
        assert_eq!(judge(Ok(Err(error)), false), failed("a frame: lost"));
        let panic = Err(Box::new("boom") as Box<dyn Any + Send>);
        assert_eq!(judge(panic, false), failed("boom"));
        assert_eq!(
            judge(Ok(Err(PartsFailed(2).into())), false),
            Outcome::Failed(None)
        );
    }
}
