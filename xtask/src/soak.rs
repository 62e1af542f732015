//! Repeats scenarios to find what fails only sometimes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::hint;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::Context as _;
use serde_json::Value;

use crate::failure::{CannotRun, Interrupted};
use crate::flags::Soak;
use crate::{e2e, preflight, programs, python};

/// `cargo xtask soak`: always makes all runs; the artifacts of red ones are kept apart.
pub(crate) fn command(options: &Soak) -> anyhow::Result<()> {
    preflight::ensure_media(&options.e2e.media)?;
    python::prepare_for(&options.e2e.scenarios)?;
    e2e::build()?;
    let target = programs::target_directory()?;
    let mut tally = Tally::default();
    let _load = Load::start(options.load)?;
    for number in 1..=options.runs {
        crate::say::tell!("\n==> run {number} of {}, {}", options.runs, tally.line());
        let start = Instant::now();
        let artifacts = target.join(format!("soak/run-{number:03}"));
        // An earlier soak's verdicts are not this one's.
        let _ = fs::remove_dir_all(&artifacts);
        let result = e2e::run_suite(&options.e2e, Some(&artifacts));
        match &result {
            Err(error) if error.is::<Interrupted>() => {
                crate::say::tell!("\nstopped in run {number}\n{}", tally.table());
                return result;
            }
            Err(error) if error.is::<CannotRun>() => return result,
            _ => tally.add(number, result.is_ok(), &verdicts(&artifacts)),
        }
        let how = format!(
            "after {:.0} s, load average {}",
            start.elapsed().as_secs_f64(),
            load_average()
        );
        match result {
            Ok(()) => {
                crate::say::tell!("run {number}: green {how}");
                // A green run has nothing to tell, and a long soak would fill the disk.
                let _ = fs::remove_dir_all(&artifacts);
            }
            Err(error) => {
                crate::say::tell!("run {number}: RED {how}, {error:#}");
                crate::say::tell!("kept: {}", artifacts.display());
            }
        }
    }
    crate::say::tell!("\n{}", tally.table());
    anyhow::ensure!(
        tally.red.is_empty(),
        "not every run was green; see target/soak/"
    );
    Ok(())
}

/// Of the last five minutes, as long as a run takes.
fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let five = text.split_whitespace().nth(1);
    five.unwrap_or("unknown").to_owned()
}

/// Busy loops; they end when this is dropped.
struct Load {
    over: Arc<AtomicBool>,
    loops: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(count: u8) -> anyhow::Result<Self> {
        let mut load = Self {
            over: Arc::default(),
            loops: Vec::new(),
        };
        for _ in 0..count {
            let over = Arc::clone(&load.over);
            let spin = move || {
                while !over.load(Ordering::Relaxed) {
                    hint::spin_loop();
                }
            };
            let thread = thread::Builder::new().name("load".to_owned());
            load.loops
                .push(thread.spawn(spin).context("cannot start a busy loop")?);
        }
        Ok(load)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.loops.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Whether each scenario passed, by the `report.json` of a run; those that were skipped are left out.
fn verdicts(artifacts: &Path) -> BTreeMap<String, bool> {
    let text = fs::read_to_string(artifacts.join("report.json")).unwrap_or_default();
    let runs: Vec<Value> = serde_json::from_str(&text).unwrap_or_default();
    let mut verdicts = BTreeMap::new();
    for run in &runs {
        let text = |key: &str| run[key].as_str().unwrap_or_default();
        if text("verdict") != "skipped" {
            *verdicts.entry(text("scenario").to_owned()).or_insert(true) &=
                text("verdict") == "passed";
        }
    }
    verdicts
}

/// What came of the runs so far.
#[derive(Default)]
struct Tally {
    runs: u32,
    red: Vec<u32>,
    /// How often each scenario ran, and in which runs it was red.
    scenarios: BTreeMap<String, (u32, Vec<u32>)>,
}

impl Tally {
    fn add(&mut self, number: u32, green: bool, verdicts: &BTreeMap<String, bool>) {
        self.runs += 1;
        if !green {
            self.red.push(number);
        }
        for (name, passed) in verdicts {
            let (runs, red) = self.scenarios.entry(name.clone()).or_default();
            *runs += 1;
            if !passed {
                red.push(number);
            }
        }
    }

    fn line(&self) -> String {
        tally(self.runs, &self.red)
    }

    fn table(&self) -> String {
        let width = self.scenarios.keys().map(String::len).max().unwrap_or(0);
        let mut text = String::new();
        for (name, (runs, red)) in &self.scenarios {
            let _ = writeln!(text, "{name:width$}  {}", tally(*runs, red));
        }
        let _ = write!(text, "{:width$}  {}", "all", self.line());
        text
    }
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
    fn the_table_names_the_red_runs_of_each_scenario() {
        let dir = tempfile::tempdir().unwrap();
        let mut all = Tally::default();
        for (number, late) in [(1, "passed"), (2, "failed"), (3, "passed")] {
            let report = serde_json::json!([
                { "scenario": "av_sync", "verdict": "passed" },
                { "scenario": "av_sync", "verdict": late },
                { "scenario": "smoke", "verdict": "passed" },
                { "scenario": "on_ready", "verdict": "skipped" },
            ]);
            fs::write(dir.path().join("report.json"), report.to_string()).unwrap();
            all.add(number, late == "passed", &verdicts(dir.path()));
        }
        assert_eq!(
            all.table(),
            "av_sync  2/3 green; red: 2\nsmoke    3/3 green\nall      2/3 green; red: 2"
        );
    }

    #[test]
    fn a_run_that_left_no_report_counts_all_the_same() {
        let mut all = Tally::default();
        all.add(1, false, &verdicts(Path::new("/nowhere")));
        assert_eq!(all.table(), "all  0/1 green; red: 1");
    }

    #[test]
    fn busy_loops_end() {
        let load = Load::start(2).unwrap();
        assert_eq!(load.loops.len(), 2);
        drop(load);
    }
}
