//! The log's way to stderr: a bounded queue and a thread of its own, so that a reader that stalls
//! holds nothing up. What does not fit is dropped and counted.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait: minutes of a busy worker at `info`.
const LINES: usize = 8192;
/// Bytes that may wait.
const BYTES: usize = 4 << 20;
/// Between two tries where stderr is in non-blocking mode and full.
const FULL_PIPE: Duration = Duration::from_millis(20);

/// Takes whole lines and never blocks.
#[derive(Debug, Clone)]
pub struct LogWriter {
    queue: SyncSender<Vec<u8>>,
    state: Arc<WriterState>,
}

#[derive(Debug, Default)]
struct WriterState {
    lines: AtomicUsize,
    bytes: AtomicUsize,
    dropped: AtomicU64,
}

impl LogWriter {
    /// Starts the thread that writes to `target`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(target: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, lines) = mpsc::sync_channel(LINES);
        let state = Arc::new(WriterState::default());
        let shared = Arc::clone(&state);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_lines(target, &lines, &shared))?;
        Ok(Self { queue, state })
    }

    /// Lines that were lost since the start.
    pub fn dropped(&self) -> u64 {
        self.state.dropped.load(Ordering::Relaxed)
    }

    /// Whether there is plenty of room.
    pub fn flows(&self) -> bool {
        self.state.lines.load(Ordering::Relaxed) < LINES / 2
            && self.state.bytes.load(Ordering::Relaxed) < BYTES / 2
    }

    /// Waits until everything is written, `patience` at most.
    pub fn flush(&self, patience: Duration) {
        let until = Instant::now() + patience;
        while self.state.lines.load(Ordering::Acquire) > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn push(&self, line: &[u8]) {
        let WriterState {
            lines,
            bytes,
            dropped,
        } = &*self.state;
        lines.fetch_add(1, Ordering::Relaxed);
        let held = bytes.fetch_add(line.len(), Ordering::Relaxed);
        if held + line.len() > BYTES || self.queue.try_send(line.to_vec()).is_err() {
            self.state.leave(line.len());
            dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl WriterState {
    fn leave(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.lines.fetch_sub(1, Ordering::Release);
    }
}

fn write_lines(mut target: impl Write, lines: &Receiver<Vec<u8>>, state: &WriterState) {
    for line in lines {
        if write(&mut target, &line).is_err() {
            state.dropped.fetch_add(1, Ordering::Relaxed);
        }
        state.leave(line.len());
    }
}

fn write(target: &mut impl Write, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match target.write(line) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => line = &line[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(FULL_PIPE),
            Err(error) => return Err(error),
        }
    }
    target.flush()
}

impl Write for &LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Takes what it is given only after the gate is open.
    struct Gate(Receiver<()>, bool, Arc<Mutex<Vec<u8>>>);

    impl Write for Gate {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            if !std::mem::replace(&mut self.1, true) {
                let _ = self.0.recv();
            }
            self.2.lock().unwrap().extend_from_slice(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stalled_reader_costs_lines_and_nothing_else() {
        let (open, gate) = mpsc::channel();
        let seen = Arc::<Mutex<Vec<u8>>>::default();
        let writer = LogWriter::start(Gate(gate, false, Arc::clone(&seen))).unwrap();
        for i in 0..LINES + 1000 {
            writer.push(format!("line {i}\n").as_bytes());
        }
        let dropped = writer.dropped();
        assert!((999..=1000).contains(&dropped), "{dropped}");
        assert!(!writer.flows());
        open.send(()).unwrap();
        writer.flush(Duration::from_secs(10));
        assert!(writer.flows());
        let seen = String::from_utf8(seen.lock().unwrap().clone()).unwrap();
        assert_eq!(seen.lines().count() as u64 + dropped, LINES as u64 + 1000);
        assert!(seen.starts_with("line 0\nline 1\n"));
    }

    #[test]
    fn few_large_lines_are_bounded_too() {
        let (_open, gate) = mpsc::channel();
        let writer = LogWriter::start(Gate(gate, false, Arc::default())).unwrap();
        for _ in 0..100 {
            writer.push(&vec![b'x'; BYTES / 10]);
        }
        assert!(writer.state.bytes.load(Ordering::Relaxed) <= BYTES);
        assert!(writer.dropped() >= 90);
    }

    #[test]
    fn a_reader_that_is_gone_is_counted() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let writer = LogWriter::start(Broken).unwrap();
        writer.push(b"one\n");
        writer.push(b"two\n");
        writer.flush(Duration::from_secs(10));
        assert_eq!(writer.dropped(), 2);
    }
}
