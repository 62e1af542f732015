//! The program: options, log, run until told to stop.

use std::{io::Write, process::ExitCode};

use clap::Parser;
use echo_sts::{
    Cli, Config, Server,
    config::{LogFormat, LogLevel},
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(cli.log_format, cli.log_level);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}")),
    };
    let result = runtime.block_on(run(Config::from(&cli)));
    // A fragment being rendered is no reason to stay.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => fail(&message),
    }
}

async fn run(config: Config) -> Result<(), String> {
    let listen = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
    let (mut terminate, mut interrupt) = (
        listen(SignalKind::terminate())?,
        listen(SignalKind::interrupt())?,
    );
    let server = Server::start(config)
        .await
        .map_err(|error| error.to_string())?;
    let mut stdout = std::io::stdout();
    // A closed standard output is no reason not to serve.
    let _ = writeln!(stdout, "listening on {}", server.url()).and_then(|()| stdout.flush());
    tracing::info!(event = "listening", url = server.url());
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(event = "stopping", signal = name);
    server.shutdown().await;
    Ok(())
}

fn fail(message: &str) -> ExitCode {
    eprintln!("echo-sts: {message}");
    ExitCode::FAILURE
}

/// Logs to standard error. The Socket.IO crates print whole packets at debug
/// level, audio included, so they stay at warnings whatever is asked for; symphonia
/// warns about sound that is in order.
fn start_log(format: LogFormat, level: LogLevel) {
    let level = LevelFilter::from(level);
    let targets = Targets::new()
        .with_default(level)
        .with_target("symphonia", LevelFilter::ERROR)
        .with_targets(
            [
                "socketioxide",
                "engineioxide",
                "tungstenite",
                "tokio_tungstenite",
            ]
            .map(|name| (name, level.min(LevelFilter::WARN))),
        );
    let registry = tracing_subscriber::registry().with(targets);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => registry.with(layer).init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).init(),
    }
}
