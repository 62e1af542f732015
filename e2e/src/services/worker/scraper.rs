//! Reads `/metrics` while the worker runs, because it is gone when the worker ends.

use std::{
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    probe::{
        logs::event,
        metrics::{Scrape, ScrapeSample},
    },
    process::{Line, Process},
    services::http_get,
    threads::lock,
};

/// Between scrapes while the stream runs.
const USUAL: Duration = Duration::from_millis(200);
/// Between scrapes once the input has ended: the worker may end at any moment, and what it counted
/// last must not be missed.
const NEAR_THE_END: Duration = Duration::from_millis(20);
/// Log events after which the end is near.
const LAST_EVENTS: [&str; 3] = ["input_ended", "drained", "exiting"];
/// Scrapes kept: over half an hour of them.
const MOST: usize = 10_000;

#[derive(Debug)]
pub(super) struct Scraper {
    state: Arc<Mutex<State>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    process: Process,
}

#[derive(Debug, Default)]
struct State {
    samples: Vec<ScrapeSample>,
    text: Option<String>,
    /// The first answer that was not a valid scrape.
    invalid: Option<String>,
    stop: bool,
}

impl Scraper {
    pub(super) fn start(url: String, process: Process) -> Result<Self> {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let watched = process.clone();
        let thread = std::thread::Builder::new()
            .name("scraper".into())
            .spawn(move || scrape_until_the_end(&url, &watched, &shared))
            .context("cannot start the scraper")?;
        Ok(Self {
            state,
            thread: Mutex::new(Some(thread)),
            process,
        })
    }

    /// The newest sample.
    pub(super) fn last(&self) -> Result<ScrapeSample> {
        let state = lock(&self.state);
        state.check()?;
        state
            .samples
            .last()
            .cloned()
            .context("no scrape of /metrics succeeded yet")
    }

    pub(super) fn all(&self) -> Result<Vec<ScrapeSample>> {
        let state = lock(&self.state);
        state.check()?;
        Ok(state.samples.clone())
    }

    pub(super) fn last_text(&self) -> Option<String> {
        lock(&self.state).text.clone()
    }

    /// Waits until a scrape that was under way when the worker ended is in.
    pub(super) fn join(&self) -> Result<()> {
        if self.process.exit().is_none() {
            bail!("the worker still runs: its numbers are not final");
        }
        if let Some(thread) = lock(&self.thread).take() {
            // Ends because the process has: the thread looks before every scrape.
            let _ = thread.join();
        }
        Ok(())
    }
}

impl Drop for Scraper {
    fn drop(&mut self) {
        lock(&self.state).stop = true;
    }
}

impl State {
    fn check(&self) -> Result<()> {
        match &self.invalid {
            Some(error) => bail!("/metrics is not valid Prometheus text: {error}"),
            None => Ok(()),
        }
    }
}

fn scrape_until_the_end(url: &str, process: &Process, state: &Mutex<State>) {
    let mut pause = USUAL;
    let mut seen = 0;
    while process.exit().is_none() && !lock(state).stop {
        let asked = Instant::now();
        // A refused question is normal when the worker is just ending.
        if let Ok((200, text)) = http_get(url) {
            let answered = Instant::now();
            let mut state = lock(state);
            match Scrape::parse(&text) {
                Ok(scrape) if state.samples.len() < MOST => {
                    let at = asked.saturating_duration_since(process.started());
                    state.samples.push(ScrapeSample {
                        asked,
                        answered,
                        at,
                        scrape: Arc::new(scrape),
                    });
                }
                Ok(_) => {}
                Err(error) => {
                    state.invalid.get_or_insert(format!("{error:#}"));
                }
            }
            state.text = Some(text);
        }
        // In small steps, so that the end is noticed soon.
        while asked.elapsed() < pause && process.exit().is_none() {
            std::thread::sleep(NEAR_THE_END.min(pause));
            let is_last = |line: &Line| {
                event(&line.text).is_some_and(|event| LAST_EVENTS.contains(&event.as_str()))
            };
            if pause == USUAL && process.lines_since(&mut seen).iter().any(is_last) {
                pause = NEAR_THE_END;
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
    };

    use super::*;
    use crate::process::{Group, Spawn};

    /// A `/metrics` that counts how often it was asked and says what `page` makes of it.
    fn serve(page: impl Fn(u32) -> String + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/metrics", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for (asked, socket) in (1..).zip(listener.incoming()) {
                let mut socket = socket.unwrap();
                let _ = socket.read(&mut [0; 2048]);
                let body = page(asked);
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                let _ = socket.write_all((head + &body).as_bytes());
            }
        });
        url
    }

    fn child(group: &Group, dir: &std::path::Path, script: &str) -> Process {
        let spawn = Spawn::new("worker", "/bin/sh", dir.join("log")).args(["-c", script]);
        group.spawn(&spawn).unwrap()
    }

    #[test]
    fn it_asks_until_the_end_and_faster_when_the_end_is_near() {
        let dir = tempfile::tempdir().unwrap();
        let group = Group::new().unwrap();
        let near = r#"{"timestamp":"t","level":"INFO","event":"input_ended"}"#;
        let process = child(
            &group,
            dir.path(),
            &format!("sleep 0.5; echo '{near}'; sleep 0.5"),
        );
        let url = serve(|asked| format!("# TYPE asked_total counter\nasked_total {asked}\n"));
        let scraper = Scraper::start(url, process.clone()).unwrap();
        assert!(scraper.join().is_err(), "final while it runs");
        process.wait_exit(Duration::from_secs(10)).unwrap();
        scraper.join().unwrap();

        let samples = scraper.all().unwrap();
        let ended = process.lines()[0].at;
        let before = samples.iter().filter(|sample| sample.asked < ended).count();
        let after = samples.len() - before;
        assert!(
            (1..=4).contains(&before),
            "{before} scrapes in the first half second"
        );
        assert!(
            after > before,
            "{after} scrapes in the last half second, {before} in the first"
        );
        let last = scraper
            .last()
            .unwrap()
            .scrape
            .count("asked_total", &[])
            .unwrap();
        assert_eq!(
            last,
            samples.len() as u64,
            "the last answer is not the last sample"
        );
        assert_eq!(
            scraper.last_text().unwrap(),
            format!("# TYPE asked_total counter\nasked_total {last}\n")
        );
    }

    #[test]
    fn one_invalid_answer_spoils_it() {
        let dir = tempfile::tempdir().unwrap();
        let group = Group::new().unwrap();
        let process = child(&group, dir.path(), "sleep 0.5");
        let url = serve(|asked| {
            if asked == 2 {
                "a{\n".into()
            } else {
                "a 1\n".into()
            }
        });
        let scraper = Scraper::start(url, process.clone()).unwrap();
        process.wait_exit(Duration::from_secs(10)).unwrap();
        scraper.join().unwrap();
        let error = scraper.last().unwrap_err().to_string();
        assert!(
            error.starts_with("/metrics is not valid Prometheus text: 1 of 1 lines"),
            "{error}"
        );
    }
}
