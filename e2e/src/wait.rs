//! Waiting for a fact under a deadline.
