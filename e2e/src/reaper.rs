//! Cleans up after a run that was killed.
