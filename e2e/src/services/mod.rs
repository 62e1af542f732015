//! The programs an environment is made of, each behind a typed handle.

pub mod echo_sts;
pub mod media_server;
pub mod publisher;
pub mod recorder;
pub mod worker;
