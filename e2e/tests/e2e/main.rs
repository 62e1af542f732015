//! The scenarios: one file each, snapshots beside them.
//!
//! `cargo test -p e2e --test e2e -- [FILTER]`, or `cargo xtask e2e [SCENARIO…]`, which also builds
//! the programs that the scenarios start.

use std::process::ExitCode;

use e2e::runner::{self, Scenario};

mod smoke;

fn main() -> ExitCode {
    runner::main(&[Scenario {
        name: "smoke",
        about: "the media server takes, relays and records a stream, and nothing stays behind",
        run: smoke::run,
    }])
}
