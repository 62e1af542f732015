//! The built program seen from outside, without media: peers that accept and say nothing keep it
//! busy for long enough.
#![expect(
    clippy::unwrap_used,
    reason = "a test may fail where its preparations fail"
)]

mod tools;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(20);

/// A worker between two peers that say nothing. Killed when dropped.
struct Running {
    child: Child,
    metrics: SocketAddr,
    _peers: [TcpListener; 2],
    _dir: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn worker() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap());
    for name in [
        "HOME",
        "GST_PLUGIN_SYSTEM_PATH_1_0",
        "GST_REGISTRY",
        "LD_LIBRARY_PATH",
        "TMPDIR",
    ] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// Starts `command` (a worker) with everything it needs.
fn start(mut command: Command, metrics: SocketAddr, stderr: Stdio) -> Running {
    let peers = [(), ()].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [input, output] = peers.each_ref().map(|peer| peer.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let child = command
        .env("WORKER_INPUT_URL", format!("rtsp://u:geheim@{input}/cam"))
        .env(
            "WORKER_OUTPUT_URL",
            format!("rtmp://{output}/live/geheim?k=geheim"),
        )
        .env("WORKER_STS_TOKEN", "geheim")
        .env("WORKER_SEGMENT_DIR", dir.path())
        .env("WORKER_METRICS_ADDR", metrics.to_string())
        .stdin(Stdio::null())
        .stderr(stderr)
        .spawn()
        .unwrap();
    Running {
        child,
        metrics,
        _peers: peers,
        _dir: dir,
    }
}

fn get(addr: SocketAddr, page: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {page} HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Asks until `wanted` holds.
fn page(running: &mut Running, page: &str, wanted: impl Fn(&str) -> bool) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = get(running.metrics, page);
        match answer {
            Ok(text) if wanted(&text) => return text,
            answer => {
                assert!(
                    running.child.try_wait().unwrap().is_none(),
                    "the worker has ended"
                );
                assert!(Instant::now() < until, "{page}: {answer:?}");
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn captions_are_there_as_json_and_as_webvtt() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = worker();
    command.env("WORKER_CAPTIONS", dir.path().join("new"));
    let mut running = start(command, free_port(), Stdio::null());
    let json = page(&mut running, "/captions", is_ok);
    assert!(json.contains("content-type: application/json"), "{json}");
    let body = json.split("\r\n\r\n").nth(1).unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body, serde_json::json!({"stream_id": "stream", "cues": []}));
    let vtt = page(&mut running, "/captions.vtt", is_ok);
    let asked = page(
        &mut running,
        "/captions HTTP/1.1\r\nAccept: text/vtt\r\nX-Rest:",
        is_ok,
    );
    for answer in [&vtt, &asked] {
        assert!(
            answer.contains("content-type: text/vtt; charset=utf-8"),
            "{answer}"
        );
        assert!(answer.ends_with("\r\n\r\nWEBVTT\n\n"), "{answer}");
    }
    let file = fs::read_to_string(dir.path().join("new/stream.vtt")).unwrap();
    assert_eq!(file, "WEBVTT\n\n");
}

fn is_ok(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200")
}

/// Its exit code after `signal`.
fn ends_by(running: &mut Running, signal: Signal) -> Option<i32> {
    kill(Pid::from_raw(running.child.id() as i32), signal).unwrap();
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = running.child.try_wait().unwrap() {
            return status.code();
        }
        assert!(Instant::now() < until, "still there after {signal}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A pipe nobody reads that takes nothing more.
fn stalled_pipe() -> (std::io::PipeReader, Stdio) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let fd: OwnedFd = writer.try_clone().unwrap().into();
    let capacity = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_GETPIPE_SZ).unwrap();
    writer.write_all(&vec![b'\n'; capacity as usize]).unwrap();
    (reader, writer.into())
}

#[test]
fn a_log_that_nobody_reads_holds_nothing() {
    let (reader, stderr) = stalled_pipe();
    let mut command = worker();
    // GStreamer alone says more at this level than may wait.
    command.env("GST_DEBUG", "*:7").env("LOG_LEVEL", "trace");
    let mut running = start(command, free_port(), stderr);
    page(&mut running, "/livez", is_ok);
    page(&mut running, "/metrics", |text| {
        let dropped = text.lines().find_map(|line| {
            line.strip_prefix("worker_log_lines_dropped_total{")?
                .split(' ')
                .nth(1)
        });
        dropped.is_some_and(|dropped| dropped != "0")
    });
    page(&mut running, "/livez", is_ok);
    let asked = Instant::now();
    assert_eq!(ends_by(&mut running, Signal::SIGTERM), Some(0));
    assert!(
        asked.elapsed() < Duration::from_secs(8),
        "{:?}",
        asked.elapsed()
    );
    drop(reader);
}

#[test]
fn what_was_lost_is_told_when_the_log_flows_again() {
    let (reader, stderr) = stalled_pipe();
    let mut command = worker();
    command.env("GST_DEBUG", "*:7").env("LOG_LEVEL", "info");
    let mut running = start(command, free_port(), stderr);
    page(&mut running, "/metrics", |text| {
        text.lines()
            .any(|line| line.starts_with("worker_log_lines_dropped_total") && !line.ends_with(" 0"))
    });
    let lines = BufReader::new(reader).lines();
    let told = lines
        .map_while(Result::ok)
        .find(|line| line.contains("log_lines_dropped"));
    assert!(told.is_some_and(|line| line.contains("lines=")));
}

#[test]
fn a_port_in_use_is_waited_for() {
    let predecessor = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = predecessor.local_addr().unwrap();
    let mut running = start(worker(), addr, Stdio::piped());
    let stderr = BufReader::new(running.child.stderr.take().unwrap());
    let mut lines = stderr.lines().map_while(Result::ok);
    let warned = lines
        .find(|line| line.contains("metrics_unavailable"))
        .unwrap();
    assert!(
        warned.contains("WARN") && warned.contains("in use"),
        "{warned}"
    );
    drop(predecessor);
    assert!(lines.any(|line| line.contains("metrics_listening")));
    page(&mut running, "/metrics", is_ok);
}

#[test]
fn an_address_that_is_not_there_yet_is_waited_for() {
    // Of a network for documentation: nobody has it.
    let nowhere = SocketAddr::from(([192, 0, 2, 1], 8000));
    let mut running = start(worker(), nowhere, Stdio::piped());
    let stderr = BufReader::new(running.child.stderr.take().unwrap());
    let mut lines = stderr.lines().map_while(Result::ok);
    let warned = lines.find(|line| line.contains("metrics_unavailable"));
    let warned = warned.unwrap();
    assert!(
        warned.contains("Cannot assign requested address"),
        "{warned}"
    );
    assert_eq!(ends_by(&mut running, Signal::SIGTERM), Some(0));
}

#[test]
fn idle_scrapers_take_nothing_from_the_stream() {
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "ulimit -n 128; exec \"$0\"",
        env!("CARGO_BIN_EXE_worker"),
    ]);
    let mut running = start(command, free_port(), Stdio::null());
    page(&mut running, "/livez", is_ok);
    let idle: Vec<_> = (0..300)
        .map_while(|_| TcpStream::connect(running.metrics).ok())
        .collect();
    assert_eq!(idle.len(), 300);
    // Those that are one too many are closed as fast as the machine allows.
    page(&mut running, "/metrics", |text| {
        let open = text
            .lines()
            .find(|line| line.starts_with("process_open_fds"))
            .and_then(|line| line.rsplit(' ').next());
        open.is_some_and(|open| open.parse::<f64>().unwrap() < 100.0)
    });
    assert_eq!(ends_by(&mut running, Signal::SIGTERM), Some(0));
}

#[test]
fn each_signal_drains_and_the_pages_say_so() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let mut running = start(worker(), free_port(), Stdio::null());
        page(&mut running, "/livez", is_ok);
        let ready = page(&mut running, "/readyz", |text| {
            text.starts_with("HTTP/1.1 503")
        });
        assert!(
            ready.contains("input is not connected\noutput has not started\n"),
            "{ready}"
        );
        assert_eq!(ends_by(&mut running, signal), Some(0), "{signal}");
    }
}

/// GStreamer looks through its plugins for seconds where it never ran, as in a fresh container.
#[test]
fn a_signal_while_gstreamer_looks_around_drains() {
    const SIGTERM_BIT: u64 = 1 << (Signal::SIGTERM as u32 - 1);
    let dir = tempfile::tempdir().unwrap();
    let registry = dir.path().join("registry.bin");
    let mut command = worker();
    command.env("GST_REGISTRY", &registry);
    let mut running = start(command, free_port(), Stdio::null());
    let status = format!("/proc/{}/status", running.child.id());
    let until = Instant::now() + PATIENCE;
    loop {
        let text = std::fs::read_to_string(&status).unwrap();
        let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = u64::from_str_radix(caught.unwrap().trim(), 16).unwrap();
        if caught & SIGTERM_BIT != 0 {
            break;
        }
        assert!(Instant::now() < until, "no signal is waited for");
    }
    assert!(!registry.exists(), "it has looked around already");
    assert_eq!(ends_by(&mut running, Signal::SIGTERM), Some(0));
}

#[test]
fn status_and_log_have_everything_but_secrets() {
    let mut command = worker();
    command.env("LOG_FORMAT", "json").env("LOG_LEVEL", "debug");
    // What GLib and GStreamer say by themselves comes through the log too.
    command.env("G_MESSAGES_DEBUG", "all").env("GST_DEBUG", "4");
    command
        .env("HOME", "/proc/nobody")
        .env("XDG_RUNTIME_DIR", "/proc/nobody");
    let mut running = start(command, free_port(), Stdio::piped());
    let mut stderr = running.child.stderr.take().unwrap();
    let log = std::thread::spawn(move || {
        let mut log = String::new();
        stderr.read_to_string(&mut log).unwrap();
        log
    });
    let status = page(&mut running, "/status", is_ok);
    let metrics = page(&mut running, "/metrics", is_ok);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(ends_by(&mut running, Signal::SIGTERM), Some(0));
    let log = log.join().unwrap();
    for text in [&status, &metrics, &log] {
        assert!(!text.contains("geheim"), "{text}");
    }
    let status: serde_json::Value =
        serde_json::from_str(status.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["options"]["sts-timeout-ms"], "8000");
    assert_eq!(status["live"], true);
    assert_eq!(status["ready"], false);
    assert_eq!(status["input"]["connected"], false);
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect(line);
        assert!(line["event"].is_string(), "{line}");
    }
    for name in [
        "worker_build_info{",
        "worker_input_connected{",
        "process_open_fds{",
        "commit=",
    ] {
        assert!(metrics.contains(name), "{name} is not in {metrics}");
    }
}

#[test]
fn systemd_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = worker();
    command.env("NOTIFY_SOCKET", &path);
    let mut running = start(command, free_port(), Stdio::null());
    let wait = |wanted: &str| {
        let mut text = [0; 64];
        while let Ok(count) = socket.recv(&mut text) {
            if text[..count] == *wanted.as_bytes() {
                return;
            }
        }
        panic!("{wanted} is not said");
    };
    wait("READY=1");
    wait("WATCHDOG=1");
    wait("WATCHDOG=1");
    assert_eq!(ends_by(&mut running, Signal::SIGTERM), Some(0));
    wait("STOPPING=1");
}

/// Prometheus' own linter complains about the names that were given to us, and about nothing else.
#[test]
fn promtool_complains_only_about_names_that_are_given() {
    let mut running = start(worker(), free_port(), Stdio::null());
    let answer = page(&mut running, "/metrics", is_ok);
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let Some((_, said)) = tools::judge("promtool", &["check", "metrics"], body, true) else {
        return;
    };
    let given = [
        "worker_av_sync_delta_ms",
        "worker_av_sync_abs_delta_ms",
        "worker_sts_rtt_ms",
    ];
    let other: Vec<_> = said
        .lines()
        .filter(|line| !given.iter().any(|name| line.starts_with(name)))
        .collect();
    assert!(other.is_empty(), "{other:#?}");
    assert!(
        given.iter().all(|name| said.contains(name)),
        "not read: {said}"
    );
}

/// An RTSP server that has one answer to whoever wants a stream.
fn refusing_camera(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let (mut options, mut number) = (false, String::new());
            for line in lines.map_while(Result::ok) {
                if line.is_empty() {
                    let answer = if options { "200 OK" } else { answer };
                    let realm = "WWW-Authenticate: Basic realm=\"camera\"";
                    let head = format!("RTSP/1.0 {answer}\r\n{number}\r\n{realm}\r\n\r\n");
                    let _ = stream.write_all(head.as_bytes());
                } else if line.ends_with(" RTSP/1.0") {
                    options = line.starts_with("OPTIONS");
                } else if line.starts_with("CSeq") {
                    number = line;
                }
            }
        }
    });
    address
}

/// Four ways an input is not there, each in words that lead to its cause.
#[test]
fn input_errors_are_told_apart() {
    let nobody = free_port();
    let cases = [
        (
            "rtsp://no-such-host.invalid/x".to_owned(),
            "no-such-host.invalid",
        ),
        (format!("rtsp://{nobody}/x"), "refused"),
        (
            format!("rtsp://u:geheim@{}/x", refusing_camera("401 Unauthorized")),
            "401",
        ),
        (
            format!("rtsp://{}/x", refusing_camera("404 Not Found")),
            "404",
        ),
    ];
    for (url, wanted) in cases {
        let mut command = worker();
        command.args(["--input-url", &url]);
        let mut running = start(command, free_port(), Stdio::piped());
        let stderr = BufReader::new(running.child.stderr.take().unwrap());
        let told = stderr
            .lines()
            .map_while(Result::ok)
            .find(|line| line.contains("input_retry") || line.contains("\"failed\""));
        let told = told.unwrap_or_default();
        assert!(
            told.contains(wanted),
            "{url}: {told:?} does not say {wanted:?}"
        );
        assert!(!told.contains("geheim"), "{told}");
    }
}

/// `LOG_LEVEL=${LOG_LEVEL:-}` of a compose file; a token that a template lost is no such thing.
#[test]
fn an_empty_variable_counts_as_not_set() {
    let mut command = worker();
    for name in [
        "LOG_LEVEL",
        "WORKER_CAPTIONS",
        "WORKER_CONFIG",
        "WORKER_INPUT_URL_FILE",
        "WORKER_SEGMENT_CUT",
        "WORKER_STS_SERVICE_URL",
        "WORKER_STS_TIMEOUT_MS",
        "WORKER_STREAM_ID",
    ] {
        command.env(name, "");
    }
    let mut running = start(command, free_port(), Stdio::null());
    let status = page(&mut running, "/status", is_ok);
    let body: serde_json::Value =
        serde_json::from_str(status.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(body["stream_id"], "stream", "{body}");

    let mut command = worker();
    command.env("WORKER_STS_TOKEN", "");
    let refused = command.output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{told}");
    assert!(told.contains("[from WORKER_STS_TOKEN]"), "{told}");
}

/// What is wrong, said so that it can be fixed: option, value, what is allowed; exit code 2.
#[test]
fn wrong_inputs_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let config = |name: &str, text: &str| format!("--config={}", file(name, text));
    let cases = [
        "--stream-id=".to_owned(),
        "--stream-id=a b".to_owned(),
        format!("--stream-id={}", "x".repeat(65)),
        "--worker-id=ü".to_owned(),
        "--input-url=http://camera/x".to_owned(),
        "--input-url=rtsp://".to_owned(),
        "--input-url=camera".to_owned(),
        "--input-url=rtsp://user:geheim@camera:port/x".to_owned(),
        "--output-url=rtmp://host/geheim".to_owned(),
        "--output-url=http://host/live/geheim".to_owned(),
        "--output-url=geheim".to_owned(),
        "--sts-service-url=sts:8080".to_owned(),
        "--sts-service-url=ftp://sts/?token=geheim".to_owned(),
        "--sts-mode=off".to_owned(),
        "--target-lang=".to_owned(),
        "--dub-mix=both".to_owned(),
        "--dub-duck-db=0".to_owned(),
        "--segment-duration=6".to_owned(),
        "--segment-duration=500ms".to_owned(),
        "--segment-retention=8d".to_owned(),
        "--sts-timeout-ms=999".to_owned(),
        "--sts-max-inflight=0".to_owned(),
        "--sts-max-inflight=three".to_owned(),
        "--breaker-failures=-1".to_owned(),
        "--breaker-cooldown=2h".to_owned(),
        "--av-offset=61s".to_owned(),
        "--av-sync-threshold-ms=0".to_owned(),
        "--rtsp-latency-ms=10001".to_owned(),
        "--metrics-addr=8000".to_owned(),
        "--log-format=xml".to_owned(),
        "--log-level=verbose".to_owned(),
        "--log-level=worker=loud".to_owned(),
        "--loglevel=info".to_owned(),
        "rtmp://host/live/geheim".to_owned(),
        "--config=/proc/nobody.toml".to_owned(),
        config("unknown.toml", "input_url = 'rtsp://u:geheim@camera/x'"),
        config("broken.toml", "stream-id = 'news'\nsts-token = 'geheim"),
        config("value.toml", "output-url = 'rtmp://host/geheim'"),
        "--input-url-file=/proc/nobody".to_owned(),
        format!("--output-url-file={}", file("key", "rtmp://host/geheim")),
        format!("--sts-token-file={}", file("token", "\n")),
    ];
    let mut told = String::new();
    for case in cases {
        let output = worker().arg(&case).stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.stdout.is_empty(), "{case}");
        // One line of the log says it where the options alone are well.
        let logged = text.lines().find(|line| line.contains("ERROR"));
        let text = match logged.and_then(|line| line.split_once("error=")) {
            Some((_, error)) => error.to_owned(),
            None => text.split("\n\n").next().unwrap_or_default().to_owned(),
        };
        assert!(!text.contains("geheim"), "{case}: {text}");
        let code = output.status.code().unwrap();
        told += &format!("{case}\n  {code} | {}\n", text.replace('\n', "\n    | "));
    }
    let told = told
        .replace(&dir.path().display().to_string(), "[TMP]")
        .replace("geheim", "[SECRET]");
    insta::assert_snapshot!("wrong_inputs", told);
}
