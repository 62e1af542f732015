//! One scenario's world: its temporary directory, its services on free ports, its artifacts.
//!
//! Environments share nothing, so they run side by side. Whatever way a scenario ends, its processes
//! are stopped in reverse order and its directory goes; [`Environment::finish`] also proves it.

mod builder;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use camera::{Manner, Sent};

use crate::{
    artifacts::Artifacts,
    cleanup,
    probe::journal::Journal,
    report::Part,
    secrets,
    services::{
        Place,
        camera::Camera,
        echo_sts::EchoSts,
        media_server::MediaServer,
        tcp_proxy::TcpProxy,
        worker::{Worker, WorkerOptions},
    },
    threads::{Turn, lock},
    wait::{self, Look},
};

pub use self::builder::Builder;

/// Grace per process when an environment ends.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long killed processes may take to vanish from `/proc` and their ports to be free, and a camera to
/// notice that its reader has gone.
const GONE_PATIENCE: Duration = Duration::from_secs(5);
/// Last lines of each process that a failure shows.
const LINES_ON_FAILURE: usize = 15;

/// What is remembered of an environment after it is gone: for the failure message and the report.
#[derive(Debug)]
pub struct Trace {
    /// Where its artifacts are.
    pub artifacts: PathBuf,
    /// Last lines of its processes, if it ended without [`Environment::finish`].
    pub last_lines: Option<String>,
    /// What is known of the run; its verdict comes later.
    pub part: Part,
}

/// Traces of all environments of a scenario, shared with whoever reports.
#[derive(Debug, Default)]
pub struct Traces {
    /// The command that runs the scenario again; a part's name is added to it.
    pub command: String,
    /// Those that are gone.
    pub gone: Mutex<Vec<Trace>>,
}

/// [`Traces`] that are shared.
pub type SharedTrace = Arc<Traces>;

/// What the worker reads.
#[derive(Debug, Clone)]
pub struct Scene {
    /// What is to be seen.
    pub clip: PathBuf,
    /// How the camera behaves.
    pub manner: Manner,
    /// How it comes to the worker.
    pub way: Way,
}

/// How a clip comes to the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Way {
    /// From a camera that MediaMTX pulls, where it is the media server; else from the camera itself.
    #[default]
    Usual,
    /// From the camera itself, whatever the media server is: not a byte of it is changed.
    Camera,
    /// ffmpeg publishes it to MediaMTX, which must be the media server. Whoever reads misses what was
    /// sent before.
    Published {
        /// MediaMTX passes ffmpeg's sender reports on.
        absolute_timestamps: bool,
    },
}

/// A running environment.
#[derive(Debug)]
pub struct Environment {
    name: String,
    stream_id: String,
    started: Instant,
    place: Place,
    media_server: Option<MediaServer>,
    camera: Option<Camera>,
    /// The worker reads the media server, not the camera.
    through_server: bool,
    echo_sts: Option<EchoSts>,
    /// URL of a service in Python.
    python_sts: Option<String>,
    tcp_proxy: Option<TcpProxy>,
    trace: SharedTrace,
    part: Part,
    finished: bool,
    artifacts: Artifacts,
    /// `None` once it was removed.
    scratch: Option<tempfile::TempDir>,
    /// Given back when all its programs are gone.
    _turn: Turn<'static>,
}

impl Environment {
    /// Name of the scenario.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Name of the stream.
    pub fn stream_id(&self) -> &str {
        &self.stream_id
    }

    /// Where services live: for starting more of them.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Private directory, gone at the end.
    pub fn scratch(&self) -> &Path {
        &self.place.scratch
    }

    /// What stays.
    pub fn artifacts(&self) -> &Artifacts {
        &self.artifacts
    }

    /// Time since the environment was asked for.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// RTSP path of the input.
    pub fn input_path(&self) -> String {
        format!("live/{}/in", self.stream_id)
    }

    /// RTMP path of the output.
    pub fn output_path(&self) -> String {
        output_path(&self.stream_id)
    }

    /// URL at which the input is read; nobody listens there if the environment was built without one.
    pub fn input_url(&self) -> String {
        let path = self.input_path();
        let server = self.media_server.as_ref().filter(|_| self.through_server);
        match (server.map(|server| server.rtsp_url(&path)), &self.camera) {
            (Some(Ok(url)), _) => url,
            (_, Some(camera)) => format!("rtsp://{}/{path}", camera.address()),
            // Port 9 (discard) is in nobody's range of free ports.
            (_, None) => format!("rtsp://127.0.0.1:9/{path}"),
        }
    }

    /// URL at which the output is published and read.
    pub fn output_url(&self) -> String {
        self.media_server().rtmp_url(&self.output_path())
    }

    /// The camera.
    ///
    /// # Panics
    /// When the environment was built without one, which is a mistake of the scenario.
    pub fn camera(&self) -> &Camera {
        self.camera
            .as_ref()
            .expect("the environment was built without a camera")
    }

    /// What the camera sent to sessions that are over, if there is one.
    pub fn sent(&self) -> Option<Sent> {
        self.camera.as_ref()?.sent()
    }

    /// The same after the last reader has gone, which a camera on a busy machine may not have noticed.
    pub fn sent_at_last(&self) -> Option<Sent> {
        let camera = self.camera.as_ref()?;
        let look = || {
            Ok(camera
                .sent()
                .map_or(Look::NotYet(String::new()), Look::Done))
        };
        wait::until("what the camera sent", GONE_PATIENCE, look).ok()
    }

    /// Waits until the worker reads and the first packet has been sent to it; returns how long reading
    /// took to begin, and the packet's wall time in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// When that is not so within `patience`.
    pub fn wait_playing(&self, patience: Duration) -> Result<(Duration, f64)> {
        let began = Instant::now();
        if self.through_server {
            self.media_server()
                .wait_reader(&self.input_path(), patience)?;
        }
        let Some(camera) = &self.camera else {
            return Ok((began.elapsed(), unix_ms(Instant::now())));
        };
        let read = self.through_server.then(|| began.elapsed());
        camera.go()?;
        let first = camera.wait_playing(patience)?;
        Ok((read.unwrap_or(began.elapsed()), first))
    }

    pub fn media_server(&self) -> &MediaServer {
        self.media_server.as_ref().expect("started by the builder")
    }

    /// The media server, for breaking and restarting it.
    pub fn media_server_mut(&mut self) -> &mut MediaServer {
        self.media_server.as_mut().expect("started by the builder")
    }

    /// The STS service.
    ///
    /// # Panics
    /// When the environment was built without one, which is a mistake of the scenario.
    pub fn echo_sts(&self) -> &EchoSts {
        self.echo_sts
            .as_ref()
            .expect("the environment was built without echo-sts")
    }

    /// The STS service, for breaking and restarting it.
    ///
    /// # Panics
    /// As [`echo_sts`](Self::echo_sts).
    pub fn echo_sts_mut(&mut self) -> &mut EchoSts {
        self.echo_sts
            .as_mut()
            .expect("the environment was built without echo-sts")
    }

    /// What the STS service has written down so far.
    ///
    /// # Errors
    /// When there is none or its journal cannot be read.
    pub fn journal(&self) -> Result<Journal> {
        match &self.echo_sts {
            // It has more than one after a restart.
            Some(echo_sts) => echo_sts.journal(),
            None => Journal::read(&self.place.journal()),
        }
    }

    /// The TCP proxy between worker and STS service.
    ///
    /// # Panics
    /// When the environment was built without one, which is a mistake of the scenario.
    pub fn tcp_proxy(&self) -> &TcpProxy {
        self.tcp_proxy
            .as_ref()
            .expect("the environment was built without a TCP proxy")
    }

    pub fn worker_options(&self) -> WorkerOptions {
        let proxy = self.tcp_proxy.as_ref();
        let proxy = proxy.map(|proxy| format!("http://{}", proxy.address()));
        let python = self.python_sts.as_deref();
        let echo = self.echo_sts.as_ref().map(EchoSts::url);
        let service = python.or(echo).unwrap_or("http://127.0.0.1:9");
        let mut options = WorkerOptions {
            stream_id: self.stream_id.clone(),
            input_url: secrets::with_login(&self.input_url()),
            output_url: secrets::with_key(&secrets::with_login(&self.output_url())),
            sts_url: proxy.unwrap_or_else(|| service.to_owned()),
            ..WorkerOptions::default()
        };
        options.set("WORKER_STS_TOKEN", secrets::TOKEN);
        options
    }

    /// What the report says of this run beside what is in its files.
    pub fn part_mut(&mut self) -> &mut Part {
        &mut self.part
    }

    /// Starts a worker with these options.
    pub fn start_worker(&self, options: &WorkerOptions) -> Result<Worker> {
        Worker::start(&self.place, options)
    }

    /// Copies the finished recording of the output to the artifacts and returns the copy.
    pub fn keep_recording(&self, patience: Duration) -> Result<PathBuf> {
        let recording = self
            .media_server()
            .recording(&self.output_path(), patience)?;
        let extension = recording
            .extension()
            .and_then(|e| e.to_str())
            .unwrap_or("bin");
        self.artifacts
            .keep(&recording, &format!("output.{extension}"))
    }

    /// Writes a worker's newest metrics to the artifacts.
    ///
    /// # Errors
    /// When there are none or they cannot be written.
    pub fn keep_metrics(&self, worker: &Worker) -> Result<PathBuf> {
        let text = worker
            .metrics_text()
            .context("no scrape of /metrics succeeded")?;
        self.artifacts.write("metrics.txt", text)
    }

    /// Ends the environment and proves that nothing of it is left: no process, no port in use, no
    /// directory.
    ///
    /// # Errors
    /// When something was left, or `echo-sts` did not end as it should.
    pub fn finish(mut self) -> Result<()> {
        if let Some(echo_sts) = self
            .echo_sts
            .as_ref()
            .filter(|sts| sts.process().exit().is_none())
        {
            echo_sts.stop()?;
        }
        self.stop()?;
        let media_server = self.media_server.as_ref();
        wait::until("the environment to be gone", GONE_PATIENCE, || {
            let left = cleanup::marked(&self.place.scratch);
            let ports = media_server
                .map(MediaServer::busy_ports)
                .unwrap_or_default();
            Ok(match (left.as_slice(), ports.as_slice()) {
                ([], []) => Look::Done(()),
                ([], ports) => Look::NotYet(format!("ports {ports:?} are in use")),
                (left, _) => Look::NotYet(cleanup::describe(left)),
            })
        })?;
        if self.place.scratch.exists() {
            bail!("{} is still there", self.place.scratch.display());
        }
        self.finished = true;
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        // Written now so that it is there after a failure, too.
        let part = self.part.part.as_deref();
        let text = repro(&self.trace.command, part, &self.place.group.commands());
        self.artifacts.write("repro.txt", text)?;
        self.place.group.stop_all(STOP_GRACE);
        if let Some(scratch) = self.scratch.take() {
            scratch
                .close()
                .context("cannot remove the environment's directory")?;
        }
        Ok(())
    }
}

/// RTMP path of a stream's output.
pub fn output_path(stream_id: &str) -> String {
    format!("live/{stream_id}/out")
}

/// How to run it again: `sh repro.txt` in the workspace. What was started is there to be read only,
/// for ports and directories were its own.
pub(crate) fn repro(command: &str, part: Option<&str>, started: &[String]) -> String {
    let part = part.map(|part| format!(" --part {part}"));
    let mut text = format!("{command}{}\n", part.unwrap_or_default());
    let _ = writeln!(
        text,
        "\n# What it started, in order; passwords are left out:"
    );
    for line in started.iter().flat_map(|command| command.lines()) {
        let _ = writeln!(text, "# {}", secrets::hidden(line));
    }
    text
}

/// A moment as Unix ms.
pub fn unix_ms(at: Instant) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    (now.unwrap_or_default().as_secs_f64() - at.elapsed().as_secs_f64()) * 1e3
}

impl Drop for Environment {
    fn drop(&mut self) {
        let last_lines = (!self.finished).then(|| self.place.group.last_lines(LINES_ON_FAILURE));
        if !self.finished
            && let Err(error) = self.stop()
        {
            eprintln!("e2e: {}: {error:#}", self.name);
        }
        let mut part = std::mem::take(&mut self.part);
        part.took_s = self.elapsed().as_secs_f64();
        let mut gone = lock(&self.trace.gone);
        gone.push(Trace {
            artifacts: self.artifacts.dir().to_owned(),
            last_lines,
            part,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repro_runs_the_part_again_and_nothing_else() {
        let started = vec![format!(
            "# worker\nURL=rtmp://a:{}@host worker",
            secrets::PASSWORD
        )];
        let text = repro("cargo xtask e2e edge_cases", Some("sigterm"), &started);
        let commands: Vec<_> = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .collect();
        assert_eq!(commands, ["cargo xtask e2e edge_cases --part sigterm"]);
        assert!(text.contains("# URL=rtmp://a:***@host worker"), "{text}");
    }
}
