//! Every command and option; `--help` is generated from here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The one entry point for people and CI.
///
/// Exit codes: 0 all good, 1 a check failed, 2 bad usage, 3 could not run here (something is
/// missing; see `doctor`), 130 or 143 interrupted.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Install the system packages that are missing (Debian and Ubuntu; not inside `nix develop`)
    Setup(Setup),
    /// Show the versions found here, what is missing and how to get it
    Doctor,
    /// Dub one minute of live video end to end and tell how it went
    Demo(Demo),
    /// Run the end-to-end scenarios, each against its own servers, side by side
    E2e(E2e),
    /// Make the reports of end-to-end runs again and open them
    Report(Report),
    /// Run everything CI runs: formatting, house rules, lints, unit and simulation tests, fixtures, e2e
    Test(Test),
    /// Make the media clips under fixtures/ again, or check that they are what they should be
    Fixtures(Fixtures),
    /// Check the house rules that the compiler does not know
    Tidy,
    /// Measure the worker beside ffmpeg and gst-launch on the same streams, and how many run at once
    Bench(Bench),
    /// Repeat end-to-end scenarios and tell how many runs were green
    Soak(Soak),
}

#[derive(Debug, Args)]
pub(crate) struct Setup {
    /// Only print the command that would be run
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// What `demo`, `e2e` and `soak` have in common.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct MediaOptions {
    /// Media server to use [default: mediamtx where it is installed, else default]
    #[arg(long, value_name = "SERVER")]
    pub(crate) media_server: Option<MediaServer>,
    /// Clip to stream instead of fixtures/clock-60s.mp4
    #[arg(long, value_name = "PATH")]
    pub(crate) fixture: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MediaServer {
    /// MediaMTX, the reference (MEDIAMTX_BIN or PATH)
    Mediamtx,
    /// nginx with its rtmp module; the worker reads the camera itself
    Default,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    #[command(flatten)]
    pub(crate) media: MediaOptions,
}

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct E2e {
    /// Scenarios to run, by name [default: all]
    #[arg(value_name = "SCENARIO")]
    pub(crate) scenarios: Vec<String>,
    #[command(flatten)]
    pub(crate) media: MediaOptions,
    /// How many streams run at the same time [default: five for each core, four with MediaMTX]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) jobs: Option<u16>,
    /// Run only this part of the scenario, as its report and its artifacts name it
    #[arg(long, value_name = "PART", requires = "scenarios")]
    pub(crate) part: Option<String>,
    /// Accept the snapshots of this run as the new truth (review the diff before committing)
    #[arg(long)]
    pub(crate) bless: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Report {
    /// Artifacts of one part, or of a whole run [default: target/e2e]
    #[arg(value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Test {
    /// Run these parts only [default: all]
    #[arg(value_name = "PART")]
    pub(crate) parts: Vec<Part>,
    /// Leave out the end-to-end scenarios (the other checks take a fraction of the time)
    #[arg(long)]
    pub(crate) no_e2e: bool,
}

/// A part of `cargo xtask test`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// `cargo fmt --check`
    Format,
    /// House rules
    Tidy,
    /// Lints, warnings denied
    Clippy,
    /// Unit, simulation and integration tests of all crates
    Unit,
    /// The committed clips are what they should be
    Fixtures,
    /// The end-to-end scenarios
    E2e,
}

impl Part {
    /// Its name in the table of results.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Tidy => "tidy",
            Self::Clippy => "clippy",
            Self::Unit => "unit and simulation tests",
            Self::Fixtures => "fixtures",
            Self::E2e => "end-to-end",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Fixtures {
    /// Write nothing: only check the committed clips against their recorded properties and hashes
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Clip to stream instead of fixtures/clock-60s.mp4
    #[arg(long, value_name = "PATH")]
    pub(crate) fixture: Option<PathBuf>,
    /// Bit rates to compare at, in Mbit/s; 0 is the clip as it is
    #[arg(long, value_name = "MBIT", value_delimiter = ',', default_values_t = [0, 8, 100])]
    pub(crate) megabits: Vec<u32>,
    /// Length of each measurement, after the start-up
    #[arg(long, value_name = "SECONDS", default_value_t = 45, value_parser = clap::value_parser!(u32).range(6..=3600))]
    pub(crate) seconds: u32,
    /// How many streams at once to try, in turn, until one falls behind; 0 leaves that part out
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 5, 10, 20, 40, 50])]
    pub(crate) streams: Vec<u8>,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Soak {
    #[command(flatten)]
    pub(crate) e2e: E2e,
    /// How many times to run
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) runs: u32,
    /// Busy loops beside it, to see what a loaded machine does to it
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) load: u8,
}
