//! Why a command did not succeed, and the exit code that says so.

use std::fmt;

/// A check failed: a test, a lint, a house rule.
pub(crate) const BROKEN: u8 = 1;
/// The command could not run on this machine: something it needs is missing.
pub(crate) const CANNOT_RUN: u8 = 3;

/// Marks an error as "could not run here", so that a bad setup is never read as a bug.
#[derive(Debug)]
pub(crate) struct CannotRun(pub(crate) String);

impl fmt::Display for CannotRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CannotRun {}

/// The person or the system asked us to stop, by this signal.
#[derive(Debug)]
pub(crate) struct Interrupted(pub(crate) i32);

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interrupted by signal {}", self.0)
    }
}

impl std::error::Error for Interrupted {}

/// The exit code for an error: 128 + signal, 3, or 1.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(Interrupted(signal)) = error.downcast_ref() {
        return u8::try_from(128 + signal).unwrap_or(BROKEN);
    }
    if error.downcast_ref::<CannotRun>().is_some() {
        return CANNOT_RUN;
    }
    BROKEN
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_kind_of_failure_survives_added_context() {
        let missing = anyhow::Error::new(CannotRun("no ffmpeg".into()));
        assert_eq!(exit_code(&missing), 3);
        let wrapped = Err::<(), _>(missing)
            .context("in e2e")
            .expect_err("is an error");
        assert_eq!(exit_code(&wrapped), 3);
        assert_eq!(exit_code(&anyhow::Error::new(Interrupted(2))), 130);
        assert_eq!(exit_code(&anyhow::Error::new(Interrupted(15))), 143);
        assert_eq!(exit_code(&anyhow::anyhow!("a test failed")), 1);
    }
}
