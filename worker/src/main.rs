//! Parses the options, sets up logging and metrics, runs, and maps errors to exit codes.

use std::process::ExitCode;

use clap::Parser as _;
use worker::cli::Cli;
use worker::config::Config;
use worker::error::WorkerError;
use worker::observe::Observer;
use worker::telemetry::{http, logging, metrics};
use worker::{driver, exit};

fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::init(cli.log_format, &cli.log_level);
    let config = Config::from(&cli);
    let run_id = uuid::Uuid::new_v4().simple().to_string();
    let code = match start(config, &run_id) {
        Ok(()) => exit::OK,
        Err(error) => {
            tracing::error!(event = "failed", stream_id = cli.stream_id, run_id, %error, "the worker stops");
            error.exit_code()
        }
    };
    tracing::info!(
        event = "exiting",
        stream_id = cli.stream_id,
        run_id,
        code,
        "the worker exits"
    );
    ExitCode::from(code)
}

fn start(config: Config, run_id: &str) -> Result<(), WorkerError> {
    dub_media::init().map_err(WorkerError::Unexpected)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| WorkerError::Unexpected(format!("no async runtime: {error}")))?;
    let result = runtime.block_on(async {
        let handle = metrics::install(&config.stream_id).map_err(WorkerError::Unexpected)?;
        let addr = http::serve(config.metrics_addr, handle)
            .await
            .map_err(|error| WorkerError::Usage(format!(
                "--metrics-addr {}: {error}; allowed: a free local address, port 0 picks one",
                config.metrics_addr
            )))?;
        tracing::info!(event = "metrics_listening", stream_id = config.stream_id, run_id, %addr, "metrics are served");
        let observer = Observer::new(&config.stream_id, run_id);
        driver::run(config, observer).await
    });
    // Blocking threads that hang in foreign code must not hold up the exit.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}
