//! Stand-in speech-to-speech service: the server side of the STS fragment protocol.
//!
//! The program `echo-sts` is a thin shell around [`Server`], which tests can also
//! run in their own process:
//!
//! ```
//! # tokio_test().unwrap();
//! # fn tokio_test() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let server = echo_sts::Server::start(echo_sts::Config::default()).await?;
//! println!("workers connect to {}", server.url());
//! assert!(server.journal().entries().is_empty());
//! server.shutdown().await;
//! # Ok(()) })
//! # }
//! ```
//!
//! [`service`], [`session`] and [`simulation`] decide and are pure; [`server`] has
//! the sockets; [`audio`] computes; [`journal`] remembers.

pub mod audio;
pub mod config;
pub mod journal;
pub mod server;
pub mod service;
pub mod session;
pub mod simulation;
mod tally;
mod words;

pub use config::{Cli, Config};
pub use journal::Journal;
pub use server::{Running, Server, StartError};
