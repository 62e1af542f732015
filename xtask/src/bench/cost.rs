//! What processes cost, read from /proc.

use std::fs;
use std::path::Path;
use std::time::Instant;

/// Kernel ticks per second in /proc/PID/stat: 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    at: Instant,
    pub(super) cpu_seconds: f64,
    megabytes: f64,
    threads: u32,
}

/// What a process took between two readings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    /// CPU seconds per minute of wall time.
    pub(super) cpu_per_minute: f64,
    /// Resident memory at the end.
    pub(super) megabytes: f64,
    pub(super) threads: u32,
}

impl Reading {
    /// The process `pid`, `None` once it has ended.
    pub(super) fn of(proc: &Path, pid: u32) -> Option<Self> {
        let directory = proc.join(pid.to_string());
        let stat = fs::read_to_string(directory.join("stat")).ok()?;
        // The name may itself hold spaces and brackets; fields count from the state, number 3 in proc(5).
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        if fields.first() == Some(&"Z") {
            return None;
        }
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        let status = fs::read_to_string(directory.join("status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kilobytes: f64 = line.split_whitespace().next()?.parse().ok()?;
        Some(Self {
            at: Instant::now(),
            cpu_seconds: (field(14)? + field(15)?) / TICKS_PER_SECOND,
            megabytes: kilobytes / 1024.0,
            threads: field(20)? as u32,
        })
    }

    pub(super) fn since(&self, before: &Self) -> Cost {
        let wall = (self.at - before.at).as_secs_f64().max(f64::EPSILON);
        Cost {
            cpu_per_minute: (self.cpu_seconds - before.cpu_seconds) * 60.0 / wall,
            megabytes: self.megabytes,
            threads: self.threads,
        }
    }
}

/// Ticks of the whole machine: all, and idle ones.
pub(super) fn machine_ticks() -> anyhow::Result<(f64, f64)> {
    let stat = fs::read_to_string("/proc/stat")?;
    let first = stat.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = first
        .split_whitespace()
        .skip(1)
        .filter_map(|t| t.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; guest time is in user already.
    Ok((
        ticks.iter().take(8).sum(),
        ticks.iter().skip(3).take(2).sum(),
    ))
}

/// Share of the machine that was busy between two readings, 0 to 1.
pub(super) fn busy_share(before: (f64, f64), after: (f64, f64)) -> f64 {
    let all = (after.0 - before.0).max(1.0);
    1.0 - (after.1 - before.1) / all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plant(proc: &Path, pid: u32, state: char, ticks: (u32, u32)) {
        let directory = proc.join(pid.to_string());
        fs::create_dir_all(&directory).expect("mkdir");
        let (user, system) = ticks;
        let stat =
            format!("{pid} (a (b) c) {state} 1 1 1 0 -1 0 0 0 0 0 {user} {system} 0 0 20 0 13 0");
        fs::write(directory.join("stat"), stat).expect("write");
        fs::write(directory.join("status"), "Name:\tx\nVmRSS:\t   2048 kB\n").expect("write");
    }

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let proc = tempfile::tempdir().expect("a temporary directory");
        plant(proc.path(), 12, 'S', (250, 50));
        let reading = Reading::of(proc.path(), 12).expect("a reading");
        assert_eq!(
            (reading.cpu_seconds, reading.megabytes, reading.threads),
            (3.0, 2.0, 13)
        );
    }

    #[test]
    fn one_that_has_ended_is_none() {
        let proc = tempfile::tempdir().expect("a temporary directory");
        plant(proc.path(), 12, 'Z', (250, 50));
        assert!(Reading::of(proc.path(), 12).is_none());
        assert!(Reading::of(proc.path(), 13).is_none());
    }

    #[test]
    fn the_busy_share_is_what_was_not_idle() {
        assert!((busy_share((100.0, 50.0), (200.0, 75.0)) - 0.75).abs() < 1e-9);
    }
}
