//! Logs on stderr, as text or as one JSON object per line.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cli::LogFormat;

/// Sets up logging for the process; panics are logged too, in the same format.
pub fn init(format: LogFormat, level: &str) {
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
                tracing_subscriber::fmt::layer()
                    .with_writer(std::io::stderr)
                    .with_target(false)
                    .with_ansi(false),
            )
            .try_init(),
        LogFormat::Json => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_current_span(false)
                    .with_span_list(false)
                    .with_writer(std::io::stderr),
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
        let message = panic.payload_as_str().unwrap_or("unknown");
        tracing::error!(event = "panic", place, message, "a bug: please report it");
    }));
}
