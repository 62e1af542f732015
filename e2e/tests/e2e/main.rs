//! The scenarios: one file each, snapshots beside them.
//!
//! `cargo test -p e2e --test e2e -- [FILTER]`, or `cargo xtask e2e [SCENARIO…]`, which also builds
//! the programs that the scenarios start.

#![allow(
    clippy::float_cmp,
    reason = "what is compared exactly are whole numbers, read back as floats"
)]

use std::process::ExitCode;

use e2e::runner::{self, Scenario};

mod av_sync;
mod backpressure;
mod cameras;
mod circuit_breaker;
mod dub_lengths;
mod dubbed_audio;
mod edge_cases;
mod fleet;
mod fragment_tracker;
mod full_pipeline;
mod hostile_sts;
mod judge;
mod late_answer;
mod on_ready;
mod pause_cut;
mod python_sts;
mod reconnection;
mod smoke;
mod stage;
mod wire;

fn main() -> ExitCode {
    // The longest first, and last the one of many short streams: together they say how long all take.
    runner::main(&[
        Scenario {
            name: "late_answer",
            about: "an answer after 7 s makes output wait once; the latency is won back gently",
            run: late_answer::run,
        },
        Scenario {
            name: "dub_lengths",
            about: "answers as long as real speech is are heard, in place and at their pitch, with captions",
            run: dub_lengths::run,
        },
        Scenario {
            name: "fleet",
            about: "streams as jobs of a scheduler: lost nodes, copies, hopeless and passing failures, a drain",
            run: fleet::run,
        },
        Scenario {
            name: "on_ready",
            about: "MediaMTX starts a worker for what is published, again and again, and none that cannot work",
            run: on_ready::run,
        },
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
            name: "reconnection",
            about: "a lost STS is tried again after 2, 4, 8, 16, 32 s; the stream goes on, or ends whole",
            run: reconnection::run,
        },
        Scenario {
            name: "hostile_sts",
            about: "whatever STS says or however it dies, the worker lives, stays small and loses nothing",
            run: hostile_sts::run,
        },
        Scenario {
            name: "pause_cut",
            about: "segments end where the speaker pauses, music is cut by the clock; latency stays even",
            run: pause_cut::run,
        },
        Scenario {
            name: "backpressure",
            about: "pause stops sending, slow_down spaces it, none resumes; nothing is lost",
            run: backpressure::run,
        },
        Scenario {
            name: "av_sync",
            about: "lips match whatever STS and the input's clocks do, and no join is heard",
            run: av_sync::run,
        },
        Scenario {
            name: "edge_cases",
            about: "whatever goes wrong at the edges ends as documented, and loses nothing",
            run: edge_cases::run,
        },
        Scenario {
            name: "dubbed_audio",
            about: "answers of any usual kind and about the right length are used, others refused",
            run: dubbed_audio::run,
        },
        Scenario {
            name: "fragment_tracker",
            about: "three fragments at most are in flight; one that is never answered frees its place",
            run: fragment_tracker::run,
        },
        Scenario {
            name: "python_sts",
            about: "a service written with python-socketio is served like any other, and reconnected to",
            run: python_sts::run,
        },
        Scenario {
            name: "smoke",
            about: "a camera is read, the media server takes and records a stream, and nothing stays behind",
            run: smoke::run,
        },
        Scenario {
            name: "cameras",
            about: "what cameras, encoders and media servers really send goes through whole, in sync, in bounds",
            run: cameras::run,
        },
    ])
}
