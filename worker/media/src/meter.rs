//! How much of its time budget a decoder has used: what it is to blame for, not what the machine is.
//!
//! On a busy machine a decoder that needs 30 ms of a processor may get them spread over two seconds.
//! Its thread is charged with the processor time it had, and with the time it slept while nothing
//! came out (a decoder that hangs sleeps; one whose output nobody takes sleeps too); waiting for a
//! processor or for the disk is free, up to a limit.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How often it is looked; shorter than any wait of whoever asks.
const PERIOD: Duration = Duration::from_millis(5);
/// The longest sleep charged at once: whoever asks waits no longer, so what is more is the machine's.
const LONGEST: Duration = Duration::from_millis(40);
/// However late the machine is, after this many times its budget a decoder is given up.
pub(crate) const PATIENCE: u32 = 4;

/// The thread that decodes, once it runs.
pub(crate) type Thread = Arc<OnceLock<Running>>;

/// A thread at work.
#[derive(Debug)]
pub(crate) struct Running {
    /// Its folder in `/proc`.
    folder: PathBuf,
    /// Processor time it has had for others: threads come from a pool and go back to it.
    before: Duration,
}

impl Running {
    fn processor(&self) -> Option<Duration> {
        nanoseconds(&fs::read_to_string(self.folder.join("schedstat")).ok()?)
    }
}

/// Notes the calling thread as the one that decodes.
pub(crate) fn note(thread: &OnceLock<Running>) {
    if let Ok(own) = fs::read_link("/proc/thread-self") {
        let mut running = Running {
            folder: PathBuf::from("/proc").join(own),
            before: Duration::ZERO,
        };
        running.before = running.processor().unwrap_or_default();
        // The first one is the source's, which runs the whole chain.
        let _ = thread.set(running);
    }
}

/// Counts from its making on.
pub(crate) struct Meter {
    thread: Thread,
    budget: Duration,
    started: Instant,
    looked: Instant,
    /// Something came out since it was looked last.
    delivered: bool,
    /// What the thread had at the last look.
    processor: Option<Duration>,
    charged: Duration,
}

impl Meter {
    pub(crate) fn start(thread: Thread, budget: Duration, now: Instant) -> Self {
        Self {
            thread,
            budget,
            started: now,
            looked: now,
            delivered: false,
            processor: None,
            charged: Duration::ZERO,
        }
    }

    /// Something came out: its sleep until now was the reader's doing.
    pub(crate) fn delivered(&mut self) {
        self.delivered = true;
    }

    /// Whether the budget is used up.
    pub(crate) fn is_over(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.looked);
        if passed >= PERIOD {
            self.looked = now;
            self.look(passed);
        }
        self.charged >= self.budget
            || now.saturating_duration_since(self.started) >= self.budget * PATIENCE
    }

    fn look(&mut self, passed: Duration) {
        let Some(running) = self.thread.get() else {
            return; // Not even started: nobody to charge.
        };
        let stat = fs::read_to_string(running.folder.join("stat")).ok();
        let state = stat.as_deref().and_then(state);
        let (Some(processor), Some(state)) = (running.processor(), state) else {
            // It has ended, or the kernel does not tell: then time is time.
            self.charged += passed;
            return;
        };
        let before = self.processor.replace(processor).unwrap_or(running.before);
        let used = processor.saturating_sub(before);
        let delivered = std::mem::take(&mut self.delivered);
        let slept = if state == 'S' && !delivered {
            passed.saturating_sub(used).min(LONGEST)
        } else {
            Duration::ZERO
        };
        self.charged += used + slept;
    }
}

/// The first number of `schedstat`.
fn nanoseconds(schedstat: &str) -> Option<Duration> {
    let number = schedstat.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(number))
}

/// The letter behind the name, which is in brackets and may hold any character.
fn state(stat: &str) -> Option<char> {
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half a second in steps of 20 ms, in each of which the thread had `processor_ms` and was in `state`.
    fn charged_ms(processor_ms: u64, state: char, delivers: bool) -> u128 {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let thread = Thread::default();
        // An hour of work for others goes before.
        let before = Duration::from_hours(1);
        let running = Running {
            folder: folder.path().to_owned(),
            before,
        };
        thread.set(running).expect("not set yet");
        let started = Instant::now();
        let mut meter = Meter::start(thread, Duration::from_secs(2), started);
        for step in 1..=25 {
            let had = (before + Duration::from_millis(step * processor_ms)).as_nanos();
            fs::write(folder.path().join("schedstat"), format!("{had} 5 7\n")).expect("write");
            let stat = format!("42 (appsrc) S:src) {state} 1 1\n");
            fs::write(folder.path().join("stat"), stat).expect("write");
            if delivers {
                meter.delivered();
            }
            assert!(!meter.is_over(started + Duration::from_millis(20 * step)));
        }
        meter.charged.as_millis()
    }

    #[test]
    fn waiting_for_a_processor_or_the_disk_is_free_working_and_sleeping_are_not() {
        assert_eq!(charged_ms(1, 'R', false), 25);
        assert_eq!(charged_ms(1, 'D', false), 25);
        assert_eq!(charged_ms(20, 'R', false), 500);
        assert_eq!(charged_ms(1, 'S', false), 500);
    }

    #[test]
    fn sleeping_while_the_reader_is_late_is_free_working_is_not() {
        assert_eq!(charged_ms(1, 'S', true), 25);
        assert_eq!(charged_ms(20, 'S', true), 500);
    }

    #[test]
    fn without_a_thread_only_the_limit_counts_and_without_its_files_all_time() {
        let started = Instant::now();
        let budget = Duration::from_secs(2);
        let mut meter = Meter::start(Thread::default(), budget, started);
        assert!(!meter.is_over(started + Duration::from_secs(7)));
        assert!(meter.is_over(started + Duration::from_secs(8)));
        let thread = Thread::default();
        let nowhere = Running {
            folder: "/nowhere".into(),
            before: Duration::ZERO,
        };
        thread.set(nowhere).expect("not set yet");
        let mut meter = Meter::start(thread, budget, started);
        assert!(!meter.is_over(started + Duration::from_secs(1)));
        assert!(meter.is_over(started + Duration::from_secs(2)));
    }

    #[test]
    fn a_thread_finds_itself() {
        let thread = Thread::default();
        note(&thread);
        let running = thread.get().expect("noted");
        assert!(running.processor().expect("readable") >= running.before);
        let stat = fs::read_to_string(running.folder.join("stat")).expect("readable");
        assert_eq!(state(&stat), Some('R'));
    }
}
