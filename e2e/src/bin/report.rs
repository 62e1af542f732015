//! Makes the pages of a directory of artifacts again and says where to look.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use e2e::{artifacts, report};

/// Make the reports of runs again, from what they left behind.
#[derive(Parser)]
struct Options {
    /// Artifacts of one run, or of all [default: target/e2e]
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

fn main() -> ExitCode {
    let directory = Options::parse().directory;
    match report::rebuild(&directory.unwrap_or_else(artifacts::root)) {
        Ok(page) => {
            println!("{}", page.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("report: {error:#}");
            ExitCode::FAILURE
        }
    }
}
