//! What a measurement needs around it: servers, a source, the peers. Everything ends with its owner.

use std::fmt;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::cost::Reading;
use super::quiet;
use crate::host::Host;
use crate::process;
use crate::programs::{self, Profile};

/// What a server may take to listen.
const READY: Duration = Duration::from_secs(10);
/// Length of the worker's segments, its default.
const SEGMENT_SECONDS: f64 = 6.0;

/// A clip to stream.
pub(super) struct Stream {
    clip: PathBuf,
    megabits: u32,
}

impl Stream {
    /// The fixture, or a clip of `megabits` with its sound, made once and kept under target/.
    pub(super) fn at(megabits: u32, fixture: Option<&Path>) -> anyhow::Result<Self> {
        let fixture = fixture.map_or_else(
            || crate::root().join("fixtures/clock-60s.mp4"),
            Path::to_owned,
        );
        if megabits == 0 {
            return Ok(Self {
                clip: fixture,
                megabits,
            });
        }
        let directory = crate::root().join("target/bench");
        fs::create_dir_all(&directory)?;
        let clip = directory.join(format!("{megabits}mbit.mp4"));
        if !clip.is_file() {
            let part = directory.join(format!("{megabits}mbit.part.mp4"));
            e2e_ffmpeg::heavy(&fixture, megabits, &part).run()?;
            fs::rename(part, &clip)?;
        }
        Ok(Self { clip, megabits })
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.megabits {
            0 => f.write_str("the clip as it is"),
            megabits => write!(f, "{megabits} Mbit/s"),
        }
    }
}

/// A program that passes a stream on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    FfmpegCopy,
    GstLaunchCopy,
    FfmpegAac,
    WorkerPassthrough,
    WorkerDubbing,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FfmpegCopy => "ffmpeg, copying",
            Self::GstLaunchCopy => "gst-launch, copying",
            Self::FfmpegAac => "ffmpeg, audio encoded",
            Self::WorkerPassthrough => "worker, passthrough",
            Self::WorkerDubbing => "worker, dubbing",
        })
    }
}

/// Whom to compare: at very high rates only those that copy, or two cores would be all they measure.
pub(super) fn peers(stream: &Stream) -> &'static [Peer] {
    if stream.megabits > 20 {
        return &[
            Peer::FfmpegCopy,
            Peer::GstLaunchCopy,
            Peer::WorkerPassthrough,
        ];
    }
    &[
        Peer::FfmpegCopy,
        Peer::GstLaunchCopy,
        Peer::FfmpegAac,
        Peer::WorkerPassthrough,
        Peer::WorkerDubbing,
    ]
}

/// A process that is killed with its owner.
pub(super) struct Owned(Child);

impl Owned {
    pub(super) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn();
        Ok(Self(child.with_context(|| format!("cannot start {name}"))?))
    }

    pub(super) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.0.stdout.take()
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Path of what all peers read.
const SOURCE: &str = "bench/source";

/// Servers and the source.
pub(super) struct Rig {
    source: String,
    rtmp: u16,
    sts: String,
    directory: PathBuf,
    _processes: Vec<Owned>,
}

impl Rig {
    pub(super) fn start(stream: &Stream) -> anyhow::Result<Self> {
        let directory = crate::root().join("target/bench/servers");
        fs::create_dir_all(directory.join("tmp"))?;
        let [rtsp, rtmp, sts] = free_ports()?;
        let mediamtx = Host::detect().mediamtx().context(
            "the bench needs MediaMTX, which takes and gives the streams of all peers alike (MEDIAMTX_BIN, PATH)",
        )?;
        let config = directory.join("mediamtx.yml");
        fs::write(&config, mediamtx_config(rtsp, rtmp))?;
        let source = format!("rtsp://127.0.0.1:{rtsp}/{SOURCE}");
        let listen = format!("127.0.0.1:{sts}");
        let mut echo = programs::program("echo-sts", Profile::Release)?;
        let mut processes = vec![
            Owned::start(quiet(echo.args(["--listen", &listen])))?,
            Owned::start(quiet(Command::new(mediamtx).arg(config)))?,
        ];
        listening(&[rtsp, rtmp, sts])?;
        let mut publisher = e2e_ffmpeg::publish_again_and_again(&stream.clip, &source).command();
        processes.push(Owned::start(quiet(&mut publisher))?);
        // The path is there once the publisher has sent its first packets.
        process::pause(Duration::from_secs(2))?;
        Ok(Self {
            source,
            rtmp,
            sts: format!("http://127.0.0.1:{sts}"),
            directory,
            _processes: processes,
        })
    }

    /// What all peers read, by RTMP as their outputs are looked at.
    pub(super) fn source_by_rtmp(&self) -> String {
        format!("rtmp://127.0.0.1:{}/{SOURCE}", self.rtmp)
    }

    /// Starts the `n`-th of a kind.
    pub(super) fn run(&self, peer: Peer, n: usize) -> anyhow::Result<Running> {
        let path = format!("bench/{}{n}", peer.to_string().replace([',', ' '], ""));
        let sink = format!("rtmp://127.0.0.1:{}/{path}", self.rtmp);
        let [metrics] = free_ports()?;
        let progress = self.directory.join(format!("progress-{metrics}"));
        let ffmpeg = |encode| e2e_ffmpeg::pass_on(&self.source, encode, &progress, &sink).command();
        let (mut command, tells) = match peer {
            Peer::FfmpegCopy => (ffmpeg(false), Tells::Progress(progress.clone())),
            Peer::FfmpegAac => (ffmpeg(true), Tells::Progress(progress.clone())),
            Peer::GstLaunchCopy => (gst_launch(&self.source, &sink), Tells::Nothing),
            Peer::WorkerPassthrough => (
                self.worker("passthrough", &sink, metrics)?,
                Tells::Metrics(metrics),
            ),
            Peer::WorkerDubbing => (
                self.worker("enabled", &sink, metrics)?,
                Tells::Metrics(metrics),
            ),
        };
        Ok(Running {
            process: Owned::start(quiet(&mut command))?,
            output: sink,
            tells,
        })
    }

    fn worker(&self, mode: &str, sink: &str, metrics: u16) -> anyhow::Result<Command> {
        let mut command = programs::program("worker", Profile::Release)?;
        command
            .args(["--stream-id", "bench", "--sts-mode", mode])
            .args([
                "--input-url",
                &self.source,
                "--output-url",
                sink,
                "--sts-service-url",
                &self.sts,
            ])
            .args(["--metrics-addr", &format!("127.0.0.1:{metrics}")])
            .arg("--segment-dir")
            .arg(self.directory.join(format!("segments-{metrics}")));
        Ok(command)
    }
}

/// How a peer can be asked how it goes.
enum Tells {
    /// A worker's port.
    Metrics(u16),
    /// A file that ffmpeg writes.
    Progress(PathBuf),
    Nothing,
}

/// A peer at work.
pub(super) struct Running {
    process: Owned,
    output: String,
    tells: Tells,
}

/// What a peer shows of itself.
pub(super) struct Shown {
    at: Instant,
    pub(super) stalls: u64,
    /// Seconds of media that went out; of a worker, how old it is, negative.
    position: f64,
    /// Seconds from the camera to the output, if it tells.
    pub(super) latency: Option<f64>,
}

impl Shown {
    /// Seconds by which output is later than it was `before`.
    pub(super) fn late_since(&self, before: &Self) -> f64 {
        match (self.latency, before.latency) {
            (Some(now), Some(before)) => now - before,
            _ => (self.at - before.at).as_secs_f64() - (self.position - before.position),
        }
    }
}

impl Running {
    /// `None` once it has ended.
    pub(super) fn reading(&self) -> Option<Reading> {
        Reading::of(Path::new("/proc"), self.process.0.id())
    }

    /// Where its output is read.
    pub(super) fn output(&self) -> &str {
        &self.output
    }

    /// What it says of itself; `None` of programs that say nothing.
    pub(super) fn shown(&self) -> Option<Shown> {
        let at = Instant::now();
        match &self.tells {
            Tells::Nothing => None,
            Tells::Metrics(port) => {
                let text = get(*port).ok()?;
                Some(Shown {
                    at,
                    stalls: series(&text, "worker_output_stalls_total")? as u64,
                    position: 0.0,
                    latency: series(&text, "worker_output_latency_seconds"),
                })
            }
            Tells::Progress(file) => {
                let text = fs::read_to_string(file).ok()?;
                let line = text
                    .lines()
                    .rev()
                    .find_map(|line| line.strip_prefix("out_time_us="))?;
                Some(Shown {
                    at,
                    stalls: 0,
                    position: line.parse::<f64>().ok()? / 1e6,
                    latency: None,
                })
            }
        }
    }

    /// Seconds that a worker's output cannot be younger than: a segment and the service's mean time.
    pub(super) fn expected_age(&self) -> Option<f64> {
        let Tells::Metrics(port) = self.tells else {
            return None;
        };
        let text = get(port).ok()?;
        let answers = series(&text, "worker_sts_rtt_ms_count")?.max(1.0);
        let answer = series(&text, "worker_sts_rtt_ms_sum")? / answers / 1000.0;
        Some(SEGMENT_SECONDS + answer)
    }
}

/// A worker's metrics.
fn get(port: u16) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(READY))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// The value of the first series with this name in Prometheus text.
fn series(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with(['{', ' ']).then_some(rest)
    })?;
    rest.rsplit_once(' ')?.1.parse().ok()
}

fn gst_launch(source: &str, sink: &str) -> Command {
    let mut command = Command::new("gst-launch-1.0");
    command.arg("-q").args(
        format!(
            "rtspsrc location={source} protocols=tcp name=s s. ! rtph264depay ! h264parse ! queue ! \
             flvmux streamable=true name=m ! rtmp2sink location={sink} s. ! rtpmp4gdepay ! aacparse ! queue ! m."
        )
        .split_whitespace(),
    );
    command
}

fn mediamtx_config(rtsp: u16, rtmp: u16) -> String {
    format!(
        "logLevel: error\nrtspAddress: 127.0.0.1:{rtsp}\nrtspTransports: [tcp]\nrtmpAddress: 127.0.0.1:{rtmp}\n\
         hls: no\nwebrtc: no\nsrt: no\npaths:\n  all_others:\n"
    )
}

/// Ports nobody listens on. Another program could take one before it is used; the run then says so.
fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let mut listeners = Vec::new();
    for _ in 0..N {
        listeners.push(TcpListener::bind("127.0.0.1:0")?);
    }
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

/// Waits until somebody listens on all of `ports`.
fn listening(ports: &[u16]) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY;
    for &port in ports {
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            anyhow::ensure!(
                Instant::now() < deadline,
                "nothing listens on port {port} after {READY:?}"
            );
            process::pause(Duration::from_millis(50))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_found_by_its_whole_name() {
        let text =
            "# HELP a b\nstalls_total_more 7\nstalls_total{stream_id=\"a b\"} 2\nlatency 6.5\n";
        assert_eq!(series(text, "stalls_total"), Some(2.0));
        assert_eq!(series(text, "latency"), Some(6.5));
        assert_eq!(series(text, "other"), None);
    }
}
