//! The scenarios: one file each, snapshots beside them.
//!
//! `cargo test -p e2e --test e2e -- [FILTER]`, or `cargo xtask e2e [SCENARIO…]`, which also builds
//! the programs that the scenarios start.

use std::process::ExitCode;

use e2e::runner::{self, Scenario};

mod backpressure;
mod circuit_breaker;
mod edge_cases;
mod fragment_tracker;
mod full_pipeline;
mod reconnection;
mod smoke;
mod stage;
mod wire;

fn main() -> ExitCode {
    runner::main(&[
        Scenario {
            name: "full_pipeline",
            about: "a minute goes all the way through: every frame, every fragment, in sync, in time",
            run: full_pipeline::run,
        },
        Scenario {
            name: "circuit_breaker",
            about: "five failures open the breaker, STS rests for 30 s, one probe closes it",
            run: circuit_breaker::run,
        },
        Scenario {
            name: "backpressure",
            about: "pause stops sending, slow_down spaces it, none resumes; nothing is lost",
            run: backpressure::run,
        },
        Scenario {
            name: "fragment_tracker",
            about: "three fragments at most are in flight; one that is never answered frees its place",
            run: fragment_tracker::run,
        },
        Scenario {
            name: "reconnection",
            about: "a lost STS is tried again after 2, 4, 8, 16, 32 s; the stream goes on, or ends whole",
            run: reconnection::run,
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
