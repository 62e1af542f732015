//! Repeats scenarios to find what fails only sometimes.

use std::fmt::Write as _;
use std::fs;
use std::time::Instant;

use crate::failure::{CannotRun, Interrupted};
use crate::flags::Soak;
use crate::{e2e, preflight, programs, python};

/// `cargo xtask soak`: always makes all runs; the artifacts of red ones are kept apart.
pub(crate) fn command(options: &Soak) -> anyhow::Result<()> {
    preflight::ensure_media(&options.e2e.media)?;
    python::prepare_for(&options.e2e.scenarios)?;
    e2e::build()?;
    let target = programs::target_directory()?;
    let mut red = Vec::new();
    for number in 1..=options.runs {
        crate::say::tell!(
            "\n==> run {number} of {}, {} red so far",
            options.runs,
            red.len()
        );
        let start = Instant::now();
        let artifacts = target.join(format!("soak/run-{number:03}"));
        match e2e::run_suite(&options.e2e, Some(&artifacts)) {
            Ok(()) => {
                crate::say::tell!(
                    "run {number}: green after {:.1} s",
                    start.elapsed().as_secs_f64()
                );
                // A green run has nothing to tell, and a long soak would fill the disk.
                let _ = fs::remove_dir_all(&artifacts);
            }
            Err(error) if error.is::<Interrupted>() => {
                crate::say::tell!("\nstopped in run {number}; {}", tally(number - 1, &red));
                return Err(error);
            }
            Err(error) if error.is::<CannotRun>() => return Err(error),
            Err(error) => {
                crate::say::tell!("run {number}: RED, {error:#}");
                crate::say::tell!("kept: {}", artifacts.display());
                red.push(number);
            }
        }
    }
    crate::say::tell!("\n{}", tally(options.runs, &red));
    anyhow::ensure!(red.is_empty(), "not every run was green; see target/soak/");
    Ok(())
}

/// `19/20 green; red: 7`.
fn tally(runs: u32, red: &[u32]) -> String {
    let green = runs as usize - red.len();
    let mut text = format!("{green}/{runs} green");
    if !red.is_empty() {
        let numbers: Vec<_> = red.iter().map(u32::to_string).collect();
        let _ = write!(text, "; red: {}", numbers.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tally_names_the_red_runs() {
        assert_eq!(tally(20, &[]), "20/20 green");
        assert_eq!(tally(20, &[7, 12]), "18/20 green; red: 7, 12");
        assert_eq!(tally(0, &[]), "0/0 green");
    }
}
