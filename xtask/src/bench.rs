//! What one minute of video costs the worker, beside what plain ffmpeg takes for a part of the job.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

use crate::flags::Bench;
use crate::process;
use crate::programs::{self, Profile};
use crate::{demo, preflight};

/// Kernel ticks per second in /proc/PID/stat: 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;
/// How often the worker is looked at; its last reading counts.
const SAMPLE_EVERY: Duration = Duration::from_millis(200);

/// CPU time and the largest memory of one process.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Cost {
    cpu_seconds: f64,
    peak_megabytes: f64,
}

/// `cargo xtask bench`.
pub(crate) fn command(options: &Bench) -> anyhow::Result<()> {
    preflight::ensure_media(&options.media)?;
    programs::build(Profile::Release)?;

    let mut job = demo::demo(&options.media, Profile::Release)?;
    let mut workers = BTreeMap::new();
    process::run_observed("the measured run", &mut job, |child| {
        while matches!(child.try_wait(), Ok(None)) {
            sample_workers(Path::new("/proc"), child.id(), &mut workers);
            std::thread::sleep(SAMPLE_EVERY);
        }
    })?;
    let worker = workers
        .into_values()
        .max_by(|a: &Cost, b| a.cpu_seconds.total_cmp(&b.cpu_seconds));
    let worker =
        worker.ok_or_else(|| anyhow::anyhow!("no worker process was seen during the run"))?;

    let clip = options.media.fixture.clone();
    let clip = clip.unwrap_or_else(|| crate::root().join("fixtures/clock-60s.mp4"));
    let mut rows = vec![("worker: decode, splice and encode audio, pace", worker)];
    for (name, encode_audio) in [
        ("ffmpeg, copying (no audio work, no pacing)", false),
        ("ffmpeg, encoding audio once (no pacing)", true),
    ] {
        rows.push((name, ffmpeg(&clip, encode_audio)?));
    }
    crate::say::say!("\n{}", table(&rows));
    Ok(())
}

/// Remuxes the clip to FLV, the container the worker publishes, and tells what that took.
fn ffmpeg(clip: &Path, encode_audio: bool) -> anyhow::Result<Cost> {
    let before = children_cpu()?;
    let mut command = e2e_ffmpeg::remux_for_cost(clip, encode_audio).command();
    let child = command.stdout(Stdio::null()).stderr(Stdio::inherit());
    let mut peak = 0.0;
    process::run_observed("ffmpeg", child, |child| {
        while matches!(child.try_wait(), Ok(None)) {
            if let Some(cost) = read_cost(Path::new("/proc"), child.id()) {
                peak = f64::max(peak, cost.peak_megabytes);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    })?;
    Ok(Cost {
        cpu_seconds: children_cpu()? - before,
        peak_megabytes: peak,
    })
}

/// CPU time of all children that have ended so far.
fn children_cpu() -> anyhow::Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// Notes the present cost of every `worker` process below `ancestor`.
fn sample_workers(proc: &Path, ancestor: u32, costs: &mut BTreeMap<u32, Cost>) {
    let Ok(entries) = fs::read_dir(proc) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.trim() == "worker"
            && descends_from(proc, pid, ancestor)
            && let Some(cost) = read_cost(proc, pid)
        {
            costs.insert(pid, cost);
        }
    }
}

fn descends_from(proc: &Path, mut pid: u32, ancestor: u32) -> bool {
    // Longer chains do not occur; the limit only guards against a changing /proc.
    for _ in 0..16 {
        if pid == ancestor {
            return true;
        }
        match stat_fields(proc, pid).and_then(|fields| fields.get(1)?.parse().ok()) {
            Some(parent) if parent > 1 => pid = parent,
            _ => return false,
        }
    }
    false
}

fn read_cost(proc: &Path, pid: u32) -> Option<Cost> {
    let fields = stat_fields(proc, pid)?;
    // proc(5): utime and stime are fields 14 and 15; ours start with field 3.
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    let status = fs::read_to_string(proc.join(pid.to_string()).join("status")).ok()?;
    let peak_kilobytes: f64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()?;
    Some(Cost {
        cpu_seconds: (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND,
        peak_megabytes: peak_kilobytes / 1024.0,
    })
}

/// The fields of /proc/PID/stat after the name, which may itself hold spaces and brackets.
fn stat_fields(proc: &Path, pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

fn table(rows: &[(&str, Cost)]) -> String {
    let mut text = format!("{:<48} {:>9} {:>9}", "", "CPU s", "peak MB");
    for (name, cost) in rows {
        let _ = write!(
            text,
            "\n{name:<48} {:>9.2} {:>9.1}",
            cost.cpu_seconds, cost.peak_megabytes
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(proc: &Path, pid: u32, parent: u32, name: &str, ticks: (u32, u32)) {
        let directory = proc.join(pid.to_string());
        fs::create_dir_all(&directory).expect("mkdir");
        let stat = format!(
            "{pid} ({name}) S {parent} 1 1 0 -1 0 0 0 0 0 {} {} 0 0",
            ticks.0, ticks.1
        );
        fs::write(directory.join("stat"), stat).expect("write");
        fs::write(directory.join("comm"), format!("{name}\n")).expect("write");
        fs::write(directory.join("status"), "Name:\tx\nVmHWM:\t   2048 kB\n").expect("write");
    }

    #[test]
    fn only_workers_below_the_measured_run_count() {
        let proc = tempfile::tempdir().expect("a temporary directory");
        process(proc.path(), 10, 1, "demo", (900, 900));
        process(proc.path(), 11, 10, "sh (odd) name", (0, 0));
        process(proc.path(), 12, 11, "worker", (250, 50));
        process(proc.path(), 20, 1, "worker", (999, 999));
        let mut costs = BTreeMap::new();
        sample_workers(proc.path(), 10, &mut costs);
        let expected = Cost {
            cpu_seconds: 3.0,
            peak_megabytes: 2.0,
        };
        assert_eq!(costs, BTreeMap::from([(12, expected)]));
    }
}
