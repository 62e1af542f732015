//! Logs on stderr, as text or as one JSON object per line; see [`LogWriter`] for how they get there.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::AsFd as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::log_writer::LogWriter;
use crate::cli::LogFormat;

/// Longest piece of what others print that becomes one line.
const LONGEST_RAW: u64 = 16 << 10;

/// Sets up logging for the process; panics are logged too, in the same format.
///
/// From here on, stderr belongs to the log: whatever else is printed there, by a library or by
/// GStreamer's plugin scanner, comes through the log as well and cannot block whoever prints it.
///
/// # Errors
/// When a thread cannot be started, or stderr cannot be taken over.
pub fn init(format: LogFormat, level: &str) -> std::io::Result<LogWriter> {
    let stderr = std::io::stderr().as_fd().try_clone_to_owned()?;
    let writer = LogWriter::start(File::from(stderr))?;
    // Dependencies stay at warn: what they do is told by our own events.
    let directives = if level.contains(['=', ',']) {
        level.to_owned()
    } else {
        format!("warn,worker={level}")
    };
    let filter =
        EnvFilter::try_new(directives).unwrap_or_else(|_| EnvFilter::new("warn,worker=info"));
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Text => registry
            .with(
                layer()
                    .with_writer(writer.clone())
                    .with_target(false)
                    .with_ansi(false),
            )
            .try_init(),
        LogFormat::Json => registry
            .with(
                layer()
                    .json()
                    .flatten_event(true)
                    .with_current_span(false)
                    .with_span_list(false)
                    .with_writer(writer.clone()),
            )
            .try_init(),
    };
    // Fails only if logging is set up already, as in tests.
    drop(started);
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        crate::observe::panicked(&place, panic.payload_as_str().unwrap_or("unknown"));
    }));
    capture_stderr()?;
    Ok(writer)
}

fn capture_stderr() -> std::io::Result<()> {
    let (reader, raw) = std::io::pipe()?;
    nix::unistd::dup2_stderr(&raw)?;
    let mut reader = BufReader::new(reader);
    std::thread::Builder::new()
        .name("stderr".to_owned())
        .spawn(move || {
            let mut line = Vec::new();
            while (&mut reader)
                .take(LONGEST_RAW)
                .read_until(b'\n', &mut line)
                .is_ok_and(|n| n > 0)
            {
                crate::observe::raw_output(String::from_utf8_lossy(&line).trim_end());
                line.clear();
            }
        })
        .map(drop)
}
