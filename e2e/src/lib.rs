//! End-to-end suite: starts everything as native processes and proves the result from outside.
//!
//! ```text
//! runner ─▶ environment ─▶ services ─▶ process ─▶ cleanup     (start, watch, stop, clean up)
//!                              │
//! scenarios ─▶ probe  ◀── journal, /metrics, logs, recording  (evidence from outside the worker)
//! ```
//!
//! Nothing here imports the worker: programs are started and looked at from outside.

pub mod artifacts;
pub mod cleanup;
pub mod clock;
pub mod control;
pub mod environment;
pub mod failure;
pub mod pipeline;
pub mod ports;
pub mod probe;
pub mod process;
pub mod programs;
pub mod report;
pub mod runner;
pub mod secrets;
pub mod services;
pub mod streams;
#[cfg(test)]
pub(crate) mod testclip;
pub mod threads;
pub mod wait;
