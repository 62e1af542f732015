//! The harness's own media code.
