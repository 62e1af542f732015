//! The journal of `echo-sts`.
