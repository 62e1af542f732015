//! The `worker` process under test, and what it shows while it runs.

mod scraper;

use std::{process::ExitStatus, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use super::{Place, READY_PATIENCE, http_get, wait_answer};
use crate::{
    probe::{
        logs::{Log, Record, event},
        metrics::{Scrape, ScrapeSample},
    },
    process::{Process, exit_text},
    programs,
};
use scraper::Scraper;

/// How the worker is started; what is `None` is left to its own default.
#[derive(Debug, Clone, Default)]
pub struct WorkerOptions {
    /// Name of the stream.
    pub stream_id: String,
    /// RTSP input.
    pub input_url: String,
    /// RTMP output.
    pub output_url: String,
    /// STS service.
    pub sts_url: String,
    /// Length of a segment.
    pub segment_duration: Option<Duration>,
    /// Write captions among the artifacts, where the report finds them.
    pub captions: bool,
    /// More environment variables, also to override the above with values that are refused.
    pub env: Vec<(String, String)>,
}

impl WorkerOptions {
    /// Sets one more variable.
    pub fn set(&mut self, name: &str, value: impl ToString) {
        self.env.push((name.to_owned(), value.to_string()));
    }

    fn variables(&self, place: &Place) -> Vec<(String, String)> {
        let segment = self.segment_duration;
        let segments = place.scratch.join("segments");
        let variables = [
            ("WORKER_STREAM_ID", Some(self.stream_id.clone())),
            ("WORKER_INPUT_URL", Some(self.input_url.clone())),
            ("WORKER_OUTPUT_URL", Some(self.output_url.clone())),
            ("WORKER_STS_SERVICE_URL", Some(self.sts_url.clone())),
            (
                "WORKER_SEGMENT_DURATION",
                segment.map(|it| format!("{}ms", it.as_millis())),
            ),
            ("WORKER_SEGMENT_DIR", Some(segments.display().to_string())),
            (
                "WORKER_CAPTIONS",
                self.captions.then(|| place.artifacts.display().to_string()),
            ),
            ("WORKER_METRICS_ADDR", Some("127.0.0.1:0".into())),
            ("LOG_FORMAT", Some("json".into())),
            ("LOG_LEVEL", Some("info".into())),
        ];
        let set = variables
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        // Later ones win where a process is started with the same name twice.
        set.chain(self.env.iter().cloned()).collect()
    }
}

/// Log events at the end of a worker's life that change no metric.
const COUNTS_NOTHING: [&str; 12] = [
    "input_lost",
    "input_retry",
    "input_ended",
    "stop_requested",
    "stream_ending",
    "stream_complete",
    "sts_gone",
    "drained",
    "output_finished",
    "summary",
    "failed",
    "exiting",
];

/// A running (or ended) worker.
#[derive(Debug)]
pub struct Worker {
    process: Process,
    metrics_url: String,
    scraper: Scraper,
}

impl Worker {
    /// Starts the worker; returns when its `/health` answers, which is before it has any input.
    ///
    /// # Errors
    /// When it does not get that far; the message holds its last lines.
    pub fn start(place: &Place, options: &WorkerOptions) -> Result<Self> {
        let process = Self::spawn(place, options)?;
        let addr = process
            .wait_line("metrics_listening", READY_PATIENCE, |line| {
                let record = Record::parse(&line.text)?;
                let listening = record.event() == Some("metrics_listening");
                listening.then(|| record.text("addr").map(str::to_owned))?
            })
            .context("the worker does not start")?;
        // It says 503 while it has no input; that it answers is what counts here.
        wait_answer(&process, &format!("http://{addr}/health"), &[])?;
        let metrics_url = format!("http://{addr}/metrics");
        let scraper = Scraper::start(metrics_url.clone(), process.clone())?;
        Ok(Self {
            process,
            metrics_url,
            scraper,
        })
    }

    /// Starts the process and waits for nothing: for options that it has to refuse.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(place: &Place, options: &WorkerOptions) -> Result<Process> {
        let mut spawn = place.spawn("worker", programs::own("worker")?);
        for (name, value) in options.variables(place) {
            spawn = spawn.env(name, value);
        }
        place.group.spawn(&spawn)
    }

    /// What another of its pages shows, such as `/captions`: the status code and the body.
    pub fn page(&self, path: &str) -> Result<(u16, String)> {
        http_get(&self.metrics_url.replace("/metrics", path))
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Where its metrics are served.
    pub fn metrics_url(&self) -> &str {
        &self.metrics_url
    }

    /// Its log so far.
    pub fn log(&self) -> Log {
        let lines = self.process.lines();
        Log::parse(lines.iter().map(|line| line.text.as_str()))
    }

    /// Waits for a log event, also one that was logged before.
    ///
    /// # Errors
    /// When it is not logged within `patience`, or the worker ends without it.
    pub fn wait_log(&self, event: &str, patience: Duration) -> Result<Record> {
        self.wait_record(event, patience, |record| record.event() == Some(event))
    }

    /// Waits for a log event of a batch, also one that was logged before.
    pub fn wait_batch(&self, event: &str, batch: u64, patience: Duration) -> Result<Record> {
        let what = format!("{event} of batch {batch}");
        self.wait_record(&what, patience, |record| {
            record.event() == Some(event) && record.number("batch") == Some(batch as f64)
        })
    }

    /// Waits for a log record for which `is_it` holds.
    pub fn wait_record(
        &self,
        what: &str,
        patience: Duration,
        is_it: impl Fn(&Record) -> bool,
    ) -> Result<Record> {
        self.process
            .wait_line(&format!("the log event {what}"), patience, |line| {
                Record::parse(&line.text).filter(&is_it)
            })
    }

    /// Waits for it to end by itself.
    pub fn wait_exit(&self, patience: Duration) -> Result<ExitStatus> {
        self.process.wait_exit(patience)
    }

    /// Waits for it to end by itself with this exit code.
    ///
    /// # Errors
    /// When it still runs after `patience` or ended otherwise; the message holds its last lines.
    pub fn expect_exit(&self, code: i32, patience: Duration) -> Result<()> {
        let exit = self.wait_exit(patience)?;
        if exit.code() != Some(code) {
            let last = self.process.last_lines(8).join("\n  | ");
            bail!(
                "the worker ended with {}, expected exit code {code}:\n  | {last}",
                exit_text(exit)
            );
        }
        Ok(())
    }

    /// Tells it to stop with SIGTERM and waits until it has drained.
    pub fn terminate(&self, patience: Duration) -> Result<ExitStatus> {
        self.process.signal(Signal::SIGTERM);
        self.wait_exit(patience)
    }

    /// The newest scrape.
    ///
    /// # Errors
    /// When there is none, or `/metrics` once answered something that is not valid.
    pub fn metrics(&self) -> Result<Arc<Scrape>> {
        self.scraper.last().map(|sample| sample.scrape)
    }

    /// Every scrape so far, oldest first, about five per second.
    ///
    /// # Errors
    /// When `/metrics` once answered something that is not valid.
    pub fn metrics_over_time(&self) -> Result<Vec<ScrapeSample>> {
        self.scraper.all()
    }

    /// The scrape that holds the final numbers of an ended worker: one that was asked for after the
    /// last event that counts anything. What follows it (the end of the input, the drain, the exit)
    /// takes seconds or counts nothing.
    ///
    /// # Errors
    /// When the worker still runs, or it left no chance for such a scrape.
    pub fn final_metrics(&self) -> Result<Arc<Scrape>> {
        self.scraper.join()?;
        let last = self.scraper.last()?;
        let counted = self.process.lines().into_iter().rev().find(|line| {
            event(&line.text).is_some_and(|event| !COUNTS_NOTHING.contains(&event.as_str()))
        });
        if let Some(line) = counted
            && last.asked < line.at
        {
            bail!(
                "the last scrape is {} ms older than the worker's last word that counts: its final \
                 numbers were not served long enough to be read: {}",
                (line.at - last.asked).as_millis(),
                line.text
            );
        }
        Ok(last.scrape)
    }

    /// Text of the newest scrape, for the artifacts.
    pub fn metrics_text(&self) -> Option<String> {
        self.scraper.last_text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use crate::process::{Group, Spawn};

    /// A worker that a shell plays.
    fn played(group: &Group, dir: &Path, script: &str) -> Worker {
        let spawn = Spawn::new("worker", "/bin/sh", dir.join("log")).args(["-c", script]);
        let process = group.spawn(&spawn).unwrap();
        // Port 9 of this machine discards.
        let metrics_url = "http://127.0.0.1:9/".to_owned();
        let scraper = Scraper::start(metrics_url.clone(), process.clone()).unwrap();
        Worker {
            process,
            metrics_url,
            scraper,
        }
    }

    #[test]
    fn only_the_expected_exit_code_will_do() {
        let (dir, group) = (tempfile::tempdir().unwrap(), Group::new().unwrap());
        let patience = Duration::from_secs(10);
        for (script, good, bad, words) in [
            ("exit 3", Some(3), 0, "exit code 3"),
            ("exit 0", Some(0), 3, "exit code 0"),
            ("kill -KILL $$", None, 0, "SIGKILL"),
        ] {
            let worker = played(&group, dir.path(), script);
            if let Some(code) = good {
                worker.expect_exit(code, patience).unwrap();
            }
            let error = worker.expect_exit(bad, patience).unwrap_err().to_string();
            assert!(error.contains(words), "{script}: {error}");
        }
    }

    #[test]
    fn options_become_the_variables_that_operators_use() {
        let scratch = tempfile::tempdir().unwrap();
        let place = Place {
            group: Group::new().unwrap(),
            scratch: scratch.path().to_owned(),
            artifacts: scratch.path().to_owned(),
        };
        let mut options = WorkerOptions {
            input_url: "rtsp://h/i".into(),
            segment_duration: Some(Duration::from_millis(2500)),
            ..WorkerOptions::default()
        };
        options.set("LOG_LEVEL", "debug");
        let variables = options.variables(&place);
        let value = |name: &str| {
            let mut last_first = variables.iter().rev();
            let found = last_first.find(|(known, _)| known == name)?;
            Some(found.1.as_str())
        };
        assert_eq!(value("WORKER_INPUT_URL"), Some("rtsp://h/i"));
        assert_eq!(value("WORKER_SEGMENT_DURATION"), Some("2500ms"));
        assert_eq!(value("WORKER_CAPTIONS"), None);
        assert_eq!(value("LOG_LEVEL"), Some("debug"));
    }
}
