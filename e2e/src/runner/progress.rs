//! Live progress. On a terminal: one line per scenario when something changed, at most one a second, and
//! at least one every five. Elsewhere (CI, a pipe) lines stay, so there is one per change of state: counts
//! that go up and times that pass are none.

use std::{
    collections::BTreeMap,
    io::IsTerminal as _,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::threads::lock;

/// A scenario's lines come no faster than this.
const FASTEST: Duration = Duration::from_secs(1);
/// And no slower.
const SLOWEST: Duration = Duration::from_secs(5);
/// How often it is decided whether a line is due.
const TICK: Duration = Duration::from_millis(200);

/// Shows on standard error how far the scenarios are.
#[derive(Debug)]
pub(super) struct Progress {
    started: Instant,
    live: bool,
    state: Mutex<State>,
    stopped: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stop: bool,
    running: BTreeMap<&'static str, Phase>,
}

#[derive(Debug)]
struct Phase {
    text: String,
    changed: bool,
    shown: Instant,
}

impl Progress {
    /// Starts showing.
    pub(super) fn start() -> Arc<Self> {
        let progress = Arc::new(Self {
            started: Instant::now(),
            live: std::io::stderr().is_terminal() && std::env::var_os("CI").is_none(),
            state: Mutex::default(),
            stopped: Condvar::new(),
        });
        let shown = Arc::clone(&progress);
        let spawned = std::thread::Builder::new()
            .name("progress".into())
            .spawn(move || shown.show());
        if let Err(error) = spawned {
            eprintln!("e2e: no live progress: {error}");
        }
        progress
    }

    pub(super) fn begin(&self, name: &'static str) {
        let phase = Phase {
            text: "starting".into(),
            changed: true,
            shown: self.started,
        };
        self.state().running.insert(name, phase);
    }

    pub(super) fn phase(&self, name: &'static str, text: String) {
        if let Some(phase) = self.state().running.get_mut(name)
            && phase.text != text
        {
            phase.changed |= self.live || state_of(&phase.text) != state_of(&text);
            phase.text = text;
        }
    }

    pub(super) fn end(&self, name: &'static str) {
        self.state().running.remove(name);
    }

    pub(super) fn stop(&self) {
        self.state().stop = true;
        self.stopped.notify_all();
    }

    fn show(&self) {
        let mut state = self.state();
        while !state.stop {
            let now = Instant::now();
            for line in due(&mut state.running, now, self.started, self.live) {
                eprintln!("{line}");
            }
            state = self
                .stopped
                .wait_timeout(state, TICK)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// What is said of a state, without what only counts.
fn state_of(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// The lines that are due now.
fn due(
    running: &mut BTreeMap<&'static str, Phase>,
    now: Instant,
    started: Instant,
    live: bool,
) -> Vec<String> {
    let width = running.keys().map(|name| name.len()).max().unwrap_or(0);
    let elapsed = now.saturating_duration_since(started).as_secs_f64();
    running
        .iter_mut()
        .filter_map(|(name, phase)| {
            let since = now.saturating_duration_since(phase.shown);
            let first = phase.shown == started;
            let is_due = phase.changed && (first || since >= FASTEST) || live && since >= SLOWEST;
            is_due.then(|| {
                phase.changed = false;
                phase.shown = now;
                format!("{elapsed:6.1}s {name:width$}  {}", phase.text)
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_on_change_but_not_faster_than_one_a_second_nor_slower_than_one_in_five() {
        let started = Instant::now();
        let at = |ms: u64| started + Duration::from_millis(ms);
        let mut running = BTreeMap::new();
        running.insert(
            "av_sync",
            Phase {
                text: "starting".into(),
                changed: true,
                shown: started,
            },
        );
        let mut lines = |ms: u64, text: Option<&str>| {
            if let (Some(text), Some(phase)) = (text, running.get_mut("av_sync")) {
                (phase.text, phase.changed) = (text.to_owned(), true);
            }
            due(&mut running, at(ms), started, true)
        };
        assert_eq!(lines(100, None), ["   0.1s av_sync  starting"]);
        assert!(
            lines(600, Some("segments 1/10")).is_empty(),
            "within a second of the last line"
        );
        assert_eq!(lines(1200, None), ["   1.2s av_sync  segments 1/10"]);
        assert!(lines(6100, None).is_empty());
        assert_eq!(lines(6300, None), ["   6.3s av_sync  segments 1/10"]);
    }

    #[test]
    fn elsewhere_than_on_a_terminal_only_another_state_is_a_line() {
        let progress = |live| Progress {
            started: Instant::now(),
            live,
            state: Mutex::default(),
            stopped: Condvar::new(),
        };
        for (live, expected) in [(false, 3), (true, 14)] {
            let progress = progress(live);
            let mut count = 0;
            let mut look = |second: u64| {
                let now = progress.started + Duration::from_secs(second);
                let lines = due(&mut progress.state().running, now, progress.started, live);
                count += lines.len();
            };
            progress.begin("av_sync");
            look(1);
            for second in 2..14 {
                progress.phase(
                    "av_sync",
                    format!("segments {second}/20, {} s left", 30 - second),
                );
                look(second);
            }
            progress.phase("av_sync", "recording".to_owned());
            look(14);
            assert_eq!(count, expected, "live: {live}");
        }
    }
}
