//! The scenarios: one file each, snapshots beside them.
//!
//! `cargo test -p e2e --test e2e -- [FILTER]`, or `cargo xtask e2e [SCENARIO…]`, which also builds
//! the programs that the scenarios start.

use std::process::ExitCode;

use e2e::runner::{self, Scenario};

mod edge_cases;
mod full_pipeline;
mod smoke;
mod stage;

fn main() -> ExitCode {
    runner::main(&[
        Scenario {
            name: "full_pipeline",
            about: "a minute goes all the way through: every frame, every fragment, in sync, in time",
            run: full_pipeline::run,
        },
        Scenario {
            name: "edge_cases",
            about: "whatever goes wrong at the edges ends as promised, and loses nothing",
            run: edge_cases::run,
        },
        Scenario {
            name: "smoke",
            about: "the media server takes, relays and records a stream, and nothing stays behind",
            run: smoke::run,
        },
    ])
}
