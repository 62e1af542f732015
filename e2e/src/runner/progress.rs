//! Live progress: a line when a scenario says something new. Where nobody watches (CI, a pipe) lines stay,
//! so there is one per state: counts that go up and times that pass are none, nor is what another part of
//! the scenario has said before.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::IsTerminal as _,
    sync::Mutex,
    time::Instant,
};

use crate::threads::lock;

/// Shows on standard error how far the scenarios are.
#[derive(Debug)]
pub(super) struct Progress {
    started: Instant,
    live: bool,
    /// What each scenario that runs has said: on a terminal the last, elsewhere every state.
    running: Mutex<BTreeMap<&'static str, BTreeSet<String>>>,
}

impl Progress {
    pub(super) fn start() -> Self {
        Self {
            started: Instant::now(),
            live: std::io::stderr().is_terminal() && std::env::var_os("CI").is_none(),
            running: Mutex::default(),
        }
    }

    /// Says how far a scenario is.
    pub(super) fn phase(&self, name: &'static str, text: &str) {
        if let Some(line) = self.line(name, text) {
            eprintln!("{line}");
        }
    }

    /// The line that is due, if one is.
    fn line(&self, name: &'static str, text: &str) -> Option<String> {
        let mut running = lock(&self.running);
        let said = running.entry(name).or_default();
        let state = if self.live {
            said.retain(|before| before == text);
            text.to_owned()
        } else {
            text.chars().filter(|c| !c.is_ascii_digit()).collect()
        };
        let is_new = said.insert(state);
        let width = running.keys().map(|name| name.len()).max().unwrap_or(0);
        let elapsed = self.started.elapsed().as_secs_f64();
        is_new.then(|| format!("{elapsed:6.1}s {name:width$}  {text}"))
    }

    pub(super) fn end(&self, name: &str) {
        lock(&self.running).remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elsewhere_than_on_a_terminal_only_another_state_is_a_line() {
        for (live, expected) in [(false, 3), (true, 14)] {
            let progress = Progress {
                live,
                ..Progress::start()
            };
            let counts =
                (2..14).map(|second| format!("segments {second}/20, {} s left", 30 - second));
            let texts = ["starting".to_owned()].into_iter().chain(counts);
            let texts = texts.flat_map(|text| [text.clone(), text]);
            let texts = texts.chain(["recording".to_owned()]);
            let again = (!live).then(|| "segments 3/20, 27 s left".to_owned());
            let texts = texts.chain(again);
            let lines = texts.filter_map(|text| progress.line("av_sync", &text));
            let lines: Vec<_> = lines.collect();
            assert_eq!(lines.len(), expected, "live: {live}");
            assert!(lines[0].ends_with("s av_sync  starting"), "{}", lines[0]);
        }
    }
}
