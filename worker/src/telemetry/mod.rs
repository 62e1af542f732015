//! What the worker shows: logs, metrics, and the HTTP server they are read from.

pub mod http;
pub mod log_writer;
pub mod logging;
pub mod metrics;
pub mod names;
pub mod systemd;
