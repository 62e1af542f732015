//! The result, as Markdown for people and as JSON for programs.

use std::fmt;
use std::process::Command;

use serde_json::{Value, json};

/// Median and range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    low: f64,
    high: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(super) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        Some(Self {
            median: *values.get(values.len() / 2)?,
            low: *values.first()?,
            high: *values.last()?,
        })
    }

    fn json(spread: Option<Self>) -> Value {
        spread.map_or(
            Value::Null,
            |s| json!({"median": s.median, "low": s.low, "high": s.high}),
        )
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.2} ({:.2} to {:.2})",
            self.median, self.low, self.high
        )
    }
}

/// One peer of a comparison.
pub(super) struct Row {
    pub(super) stream: String,
    pub(super) peer: String,
    /// Still running at the end.
    pub(super) alive: bool,
    /// CPU seconds per minute of stream, steady state.
    pub(super) cpu: Option<Spread>,
    /// CPU seconds until the measurement began.
    pub(super) start_up: Option<f64>,
    pub(super) megabytes: f64,
    pub(super) threads: u32,
    /// How much older its output is than a segment and the service's time.
    pub(super) added: Option<Ages>,
}

/// Seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ages {
    p50: f64,
    p95: f64,
    max: f64,
}

impl Ages {
    /// `None` of nothing.
    pub(super) fn of(mut ages: Vec<f64>) -> Option<Self> {
        ages.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            ages.get(ages.len().saturating_sub(1) * percent / 100)
                .copied()
        };
        Some(Self {
            p50: at(50)?,
            p95: at(95)?,
            max: at(100)?,
        })
    }

    fn json(ages: Option<Self>) -> Value {
        ages.map_or(
            Value::Null,
            |a| json!({"p50": a.p50, "p95": a.p95, "max": a.max}),
        )
    }
}

impl fmt::Display for Ages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} / {:.2} / {:.2}", self.p50, self.p95, self.max)
    }
}

/// Several of one peer at once.
pub(super) struct Ladder {
    pub(super) peer: String,
    pub(super) count: usize,
    /// How many did not last.
    pub(super) ended: usize,
    pub(super) cpu: Option<Spread>,
    /// Share of the machine, servers and source included.
    pub(super) busy: f64,
    pub(super) stalls: u64,
    /// Seconds by which outputs got later while they were watched.
    pub(super) lateness: Option<Spread>,
    /// Seconds from the camera to the output, as the worker tells it.
    pub(super) latency: Option<Spread>,
}

impl Ladder {
    /// Whether an output stalled, or got later by `seconds`.
    pub(super) fn fell_behind(&self, seconds: f64) -> bool {
        self.stalls > 0 || self.lateness.is_some_and(|late| late.high > seconds)
    }
}

/// Everything that was measured.
pub(super) struct Report {
    machine: String,
    pub(super) rows: Vec<Row>,
    pub(super) ladder: Vec<Ladder>,
    /// CPU seconds of the engine for an hour of stream.
    pub(super) engine_seconds: Option<f64>,
}

impl Report {
    pub(super) fn new() -> anyhow::Result<Self> {
        let cpus = std::thread::available_parallelism()?;
        let first_line = |program: &str, argument: &str| {
            let output = Command::new(program).arg(argument).output().ok()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            Some(text.lines().next()?.chars().take(40).collect::<String>())
        };
        let versions: Vec<String> = [("gst-launch-1.0", "--version"), ("ffmpeg", "-version")]
            .iter()
            .filter_map(|(program, argument)| first_line(program, argument))
            .collect();
        Ok(Self {
            machine: format!("{cpus} cores, {}", versions.join(", ")),
            rows: Vec::new(),
            ladder: Vec::new(),
            engine_seconds: None,
        })
    }

    pub(super) fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "stream": row.stream, "peer": row.peer, "alive": row.alive, "cpu_s_per_min": Spread::json(row.cpu),
                "start_up_cpu_s": row.start_up, "memory_mb": row.megabytes, "threads": row.threads,
                "added_latency_s": Ages::json(row.added),
            })
        });
        let ladder = self.ladder.iter().map(|step| {
            json!({
                "peer": step.peer, "streams": step.count, "ended": step.ended, "cpu_s_per_min": Spread::json(step.cpu),
                "machine_busy": step.busy, "stalls": step.stalls, "later_s": Spread::json(step.lateness), "latency_s": Spread::json(step.latency),
            })
        });
        json!({"machine": self.machine, "engine_s_per_hour": self.engine_seconds, "peers": rows.collect::<Vec<_>>(), "streams": ladder.collect::<Vec<_>>()})
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cell = |value: Option<String>| value.unwrap_or_else(|| "ended".to_owned());
        writeln!(f, "{}\n", self.machine)?;
        if let Some(seconds) = self.engine_seconds {
            writeln!(
                f,
                "The engine takes {seconds:.2} s for an hour of stream.\n"
            )?;
        }
        writeln!(
            f,
            "| stream | program | CPU s/min (range) | start-up CPU s | memory MB | threads | added latency s (p50 / p95 / max) |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        for row in &self.rows {
            let cpu = row.cpu.filter(|_| row.alive).map(|cpu| cpu.to_string());
            let latency = row.added.map_or_else(String::new, |ages| ages.to_string());
            let start_up = row.start_up.map_or_else(String::new, |s| format!("{s:.2}"));
            writeln!(
                f,
                "| {} | {} | {} | {start_up} | {:.0} | {} | {latency} |",
                row.stream,
                row.peer,
                cell(cpu),
                row.megabytes,
                row.threads
            )?;
        }
        if self.ladder.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\n| program | streams at once | CPU s/min each | machine busy | ended | stalls | got later by s | latency s |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|")?;
        for step in &self.ladder {
            writeln!(
                f,
                "| {} | {} | {} | {:.0} % | {} | {} | {} | {} |",
                step.peer,
                step.count,
                cell(step.cpu.map(|cpu| cpu.to_string())),
                step.busy * 100.0,
                step.ended,
                step.stalls,
                step.lateness.map_or_else(String::new, |l| l.to_string()),
                step.latency.map_or_else(String::new, |l| l.to_string())
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(stalls: u64, lateness: &[f64]) -> Ladder {
        Ladder {
            peer: "worker".to_owned(),
            count: lateness.len(),
            ended: 0,
            cpu: None,
            busy: 0.5,
            stalls,
            lateness: Spread::of(lateness.iter().copied()),
            latency: None,
        }
    }

    #[test]
    fn behind_is_a_stall_or_one_that_got_later() {
        assert!(!step(0, &[-0.3, 0.1]).fell_behind(0.2));
        assert!(step(1, &[0.0, 0.1]).fell_behind(0.2));
        assert!(step(0, &[0.0, 0.3]).fell_behind(0.2));
        assert!(!step(0, &[]).fell_behind(0.2));
    }

    #[test]
    fn ages_are_the_middle_the_twentieth_and_the_oldest() {
        let ages = Ages::of((0..=100).rev().map(f64::from).collect()).expect("ages");
        assert_eq!(ages.to_string(), "50.00 / 95.00 / 100.00");
        assert_eq!(Ages::of(Vec::new()), None);
    }

    #[test]
    fn the_median_is_the_middle_one() {
        let spread = Spread::of([3.0, 1.0, 2.0].into_iter()).expect("values");
        assert_eq!(spread.to_string(), "2.00 (1.00 to 3.00)");
        assert_eq!(Spread::of(std::iter::empty()), None);
    }
}
