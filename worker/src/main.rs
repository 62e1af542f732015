//! Parses the options, sets up logging and metrics, runs, and maps errors to exit codes.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};
use std::time::Duration;

use worker::captions::Captions;
use worker::cli::{self, Loaded, Refused};
use worker::config::Config;
use worker::driver::Signals;
use worker::error::WorkerError;
use worker::observe::{self, Fact, Observer, Status};
use worker::telemetry::{http, logging, metrics};
use worker::{driver, exit};

/// How long the end of the worker waits for whoever reads its log.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What libraries read from the environment, and only when a process starts. What is set already stays.
const SETTINGS: [(&str, &str); 4] = [
    // One heap for all threads, and large pieces go back to the system at once: 18 MB less.
    ("MALLOC_ARENA_MAX", "1"),
    ("MALLOC_MMAP_THRESHOLD_", "131072"),
    ("MALLOC_TRIM_THRESHOLD_", "131072"),
    // A desktop's proxy settings are not asked for: they take a thread.
    ("GIO_USE_PROXY_RESOLVER", "dummy"),
];

fn main() -> ExitCode {
    // Before anything is read that can be read only once.
    settle_in();
    let Loaded { cli, shown } = match cli::load(std::env::args_os()) {
        Ok(loaded) => loaded,
        Err(Refused(text, code)) => return print(text.as_bytes(), code),
    };
    if let Some(text) = cli.print.map(cli::Print::text) {
        return text.map_or(ExitCode::from(exit::UNEXPECTED), |text| {
            print(&text, exit::OK)
        });
    }
    let Ok(log) = logging::init(cli.log_format, &cli.log_level) else {
        return print(b"error: no thread for the log\n", exit::UNEXPECTED);
    };
    let config = Config::from(&cli);
    let urls = [&config.input_url, &config.output_url, &config.sts.url];
    observe::hide(urls.map(Clone::clone).to_vec());
    let options = config.shown(shown);
    let observer = Observer::new(
        Status {
            version: env!("CARGO_PKG_VERSION"),
            commit: env!("WORKER_COMMIT"),
            stream_id: config.stream_id.clone(),
            run_id: uuid::Uuid::new_v4().simple().to_string(),
            options,
            ..Status::default()
        },
        Some(log.clone()),
    );
    let code = match start(config, &observer) {
        Ok(()) => exit::OK,
        Err(error) => {
            observer.fact(&Fact::Failed {
                error: &error.to_string(),
            });
            error.exit_code()
        }
    };
    observer.check_log();
    observer.fact(&Fact::Exiting { code });
    log.flush(LAST_WORDS);
    ExitCode::from(code)
}

/// Starts the program anew, as the same process, with [`SETTINGS`] in its environment. Where that does not
/// work, for one because its file has been replaced, it goes on as it is and takes more memory.
fn settle_in() {
    let unset = |(name, _): &(&str, &str)| std::env::var_os(name).is_none();
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    if SETTINGS.iter().any(unset) {
        let mut arguments = std::env::args_os();
        let mut again = Command::new(program);
        if let Some(name) = arguments.next() {
            again.arg0(name);
        }
        // Comes back only if it fails.
        let _ = again
            .args(arguments)
            .envs(SETTINGS.into_iter().filter(unset))
            .exec();
    }
}

/// Help goes to stdout, complaints to stderr.
fn print(text: &[u8], code: u8) -> ExitCode {
    // There is nobody left to tell that it could not be told.
    let _ = if code == exit::OK {
        std::io::stdout().write_all(text)
    } else {
        std::io::stderr().write_all(text)
    };
    ExitCode::from(code)
}

/// A panic is a failure like any other: what was logged gets out, and the exit code is documented.
fn survived(run: impl FnOnce() -> Result<(), WorkerError>) -> Result<(), WorkerError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        let text = "it panicked: please report what the log says of it";
        Err(WorkerError::Unexpected(text.to_owned()))
    })
}

fn start(config: Config, observer: &Observer) -> Result<(), WorkerError> {
    // One thread: the driver has little to do at a time, and waking another one costs more.
    let runtime = tokio::runtime::Builder::new_current_thread()
        // Work for other threads comes every few seconds.
        .thread_keep_alive(Duration::from_secs(1))
        .enable_all()
        .build()
        .map_err(|error| WorkerError::Unexpected(format!("no async runtime: {error}")))?;
    // Before GStreamer looks through its plugins, which takes seconds where there is no cache: the first
    // process of a container does not get a signal that nobody waits for.
    let signals = {
        let _inside = runtime.enter();
        Signals::new().map_err(|error| WorkerError::Unexpected(format!("signals: {error}")))?
    };
    dub_media::messages::capture(observe::library_message);
    dub_media::messages::capture_debug(observe::debug_output);
    dub_media::init()?;
    let run = async {
        let handle = metrics::install(&config.stream_id).map_err(WorkerError::Unexpected)?;
        observer.started();
        let captions = Captions::new(&config, observer)?;
        http::serve(config.metrics_addr, handle, observer.clone(), captions.clone())
            .await
            .map_err(|error| {
                WorkerError::Usage(format!(
                    "--metrics-addr {}: {error}; allowed: a port that this user may have, 0 picks a free one",
                    config.metrics_addr
                ))
            })?;
        let result = driver::run(config, observer.clone(), signals, captions.clone()).await;
        captions.close();
        result
    };
    let result = survived(|| runtime.block_on(run));
    // Blocking threads that hang in foreign code must not hold up the exit.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_with_the_code_of_what_was_not_foreseen() {
        let panicked = survived(|| panic!("as it must"));
        assert_eq!(panicked.unwrap_err().exit_code(), exit::UNEXPECTED);
        survived(|| Ok(())).unwrap();
    }
}
