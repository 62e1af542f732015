//! How a scenario ended.

use std::{any::Any, fmt, thread};

use anyhow::Result;

/// Why a scenario cannot be run here: something that it alone needs is not installed. As the error
/// of a scenario it is no failure, but it is shown and counted; in CI, where a test that cannot fail
/// proves nothing, it is one.
#[derive(Debug)]
pub struct Skipped(String);

impl Skipped {
    /// Names what is missing and how to get it, in one line.
    pub fn because(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skipped {}

/// How a scenario ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Passed,
    /// With the reason.
    Skipped(String),
    /// With what to tell.
    Failed(String),
}

/// What a scenario's result, or its panic, means.
pub(super) fn judge(outcome: thread::Result<Result<()>>, in_ci: bool) -> Verdict {
    match outcome {
        Ok(Ok(())) => Verdict::Passed,
        Ok(Err(error)) => match error.downcast_ref::<Skipped>() {
            Some(skipped) if in_ci => {
                Verdict::Failed(format!("{skipped}; in CI nothing is skipped"))
            }
            Some(skipped) => Verdict::Skipped(skipped.to_string()),
            None => Verdict::Failed(format!("{error:#}")),
        },
        // The panic hook has printed where; what is here goes into the list of failures.
        Err(panic) => Verdict::Failed(panic_text(panic.as_ref())),
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

    #[test]
    fn what_cannot_run_is_skipped_but_not_in_ci() {
        let skipped = || Ok(Err(Skipped::because("no python").into()));
        assert_eq!(
            judge(skipped(), false),
            Verdict::Skipped("no python".into())
        );
        let failed = "no python; in CI nothing is skipped";
        assert_eq!(judge(skipped(), true), Verdict::Failed(failed.into()));
    }

    #[test]
    fn a_reason_survives_added_context() {
        let error = Err(Skipped::because("no python")).context("in a part");
        assert_eq!(
            judge(Ok(error), false),
            Verdict::Skipped("no python".into())
        );
    }

    #[test]
    fn errors_and_panics_are_failures() {
        assert_eq!(judge(Ok(Ok(())), true), Verdict::Passed);
        let error = anyhow!("lost").context("a frame");
        assert_eq!(
            judge(Ok(Err(error)), false),
            Verdict::Failed("a frame: lost".into())
        );
        let panic = Err(Box::new("boom") as Box<dyn Any + Send>);
        assert_eq!(judge(panic, false), Verdict::Failed("boom".into()));
    }
}
