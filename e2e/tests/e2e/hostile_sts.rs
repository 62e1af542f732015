//! An STS service that breaks every rule: the worker lives, loses nothing, stays small, and names
//! each kind of trouble once. And one that is killed, stopped and cut off at random moments.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::clock::{self, ClipSpec};
use e2e::probe::logs::Level;
use e2e::runner::Context;
use e2e::story::{Evidence, Live};
use nix::sys::signal::Signal;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use sts_protocol::SimulateDisconnect;
use tungstenite::{Message, WebSocket};

use crate::stage::Stage as _;

/// Most memory the worker may have had at once.
const MOST_MEMORY_KIB: u64 = 200 * 1024;
/// Seed of the random moments; printed, so that a run can be repeated.
const SEED: u64 = 20;
/// How often the service is hit.
const HITS: usize = 20;

pub(crate) fn run(context: &Context) -> Result<()> {
    std::thread::scope(|scope| {
        let hostile = scope.spawn(|| hostile(context).context("hostile"));
        let random = scope.spawn(|| random(context).context("random"));
        let joined = |part: std::thread::ScopedJoinHandle<'_, Result<()>>| {
            part.join()
                .unwrap_or_else(|_| Err(anyhow::anyhow!("a part panicked")))
        };
        let results = [joined(hostile), joined(random)];
        results.into_iter().collect()
    })
}

fn hostile(context: &Context) -> Result<()> {
    let spec = ClipSpec::clock(24).small();
    let server = Hostile::start()?;
    let url = server.url.clone();
    let evidence = context
        .part("hostile", clock::cached(&spec)?, Duration::from_secs(24))
        .worker(move |options| {
            options.sts_url = url;
            options.segment_duration = Some(Duration::from_secs(1));
            options.sts_timeout = Some(Duration::from_secs(2));
            options.breaker_failures = Some(1000);
        })
        .extra_time(Duration::from_secs(30))
        .run(require_small)?;
    complete(&evidence, &spec)?;
    for kind in [
        "wrong_type",
        "missing_field",
        "unknown_event",
        "unknown_fragment",
        "bad_value",
    ] {
        let counted = evidence.count("worker_protocol_errors_total", &[("kind", kind)])?;
        ensure!(counted >= 1, "no {kind} was counted");
        let logged = evidence
            .log
            .events("protocol_error")
            .filter(|record| record.text("kind") == Some(kind) && record.level == Level::Warn)
            .count();
        ensure!(logged == 1, "{kind} was logged {logged} times");
    }
    ensure!(
        evidence.count("worker_fallback_total", &[("reason", "bad_audio")])? >= 4,
        "unusable audio was used"
    );
    ensure!(
        evidence.log.events("panic").count() == 0,
        "the worker panicked"
    );
    Ok(())
}

fn random(context: &Context) -> Result<()> {
    let spec = ClipSpec::clock(60).small();
    let evidence = context
        .part("random", clock::cached(&spec)?, Duration::from_mins(1))
        .worker(|options| options.segment_duration = Some(Duration::from_secs(2)))
        .extra_time(Duration::from_secs(30))
        .run(|live| {
            hit(live)?;
            require_small(live)
        })?;
    complete(&evidence, &spec)?;
    let lost = evidence.log.events("sts_disconnected").count();
    ensure!(lost >= 3, "only {lost} losses: the hits did not hit");
    let fallbacks = evidence.metrics.sum("worker_fallback_total", &[]);
    let resolved = evidence.log.events("pair_started").count();
    ensure!(
        resolved == 30,
        "{resolved} of 30 pairs went out, {fallbacks} fell back"
    );
    Ok(())
}

/// Kills, stops or cuts `echo-sts` at random moments, spread over the run.
fn hit(live: &mut Live) -> Result<()> {
    println!("hostile_sts: seed {SEED}");
    let mut random = SmallRng::seed_from_u64(SEED);
    for number in 0..HITS {
        let pause = Duration::from_millis(random.random_range(800..3_600));
        ensure!(
            !ended_within(live, pause),
            "the worker ended before hit {number}"
        );
        let what = random.random_range(0..3);
        println!(
            "hostile_sts: hit {number} at {:.2} s: {what}",
            live.sent_at.elapsed().as_secs_f64()
        );
        match what {
            0 => {
                live.environment.echo_sts().kill();
                live.environment.echo_sts_mut().restart()?;
            }
            1 => {
                let stopped = Duration::from_millis(random.random_range(100..1_500));
                live.environment
                    .echo_sts()
                    .process()
                    .signal(Signal::SIGSTOP);
                let ended = ended_within(live, stopped);
                live.environment
                    .echo_sts()
                    .process()
                    .signal(Signal::SIGCONT);
                ensure!(!ended, "the worker ended while its service was stopped");
            }
            _ => {
                let control = live.environment.echo_sts().control()?;
                let stream_id = Some(live.environment.stream_id().to_owned());
                control.disconnect(SimulateDisconnect {
                    stream_id,
                    ..SimulateDisconnect::default()
                })?;
            }
        }
    }
    Ok(())
}

/// Waits for the worker's end for this long, which is not expected.
fn ended_within(live: &Live, time: Duration) -> bool {
    live.worker.wait_exit(time).is_ok()
}

/// Watches the worker's memory until it ends.
fn require_small(live: &mut Live) -> Result<()> {
    let path = format!("/proc/{}/status", live.worker.process().pid());
    let mut most = 0;
    let end = Instant::now() + Duration::from_mins(2);
    while !ended_within(live, Duration::from_millis(300)) && Instant::now() < end {
        let Ok(status) = std::fs::read_to_string(&path) else {
            break;
        };
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line
            .and_then(|line| line.split_whitespace().next())
            .and_then(|kib| kib.parse().ok());
        most = kib.unwrap_or(most).max(most);
    }
    ensure!(most > 0, "the worker's memory could not be read");
    ensure!(
        most < MOST_MEMORY_KIB,
        "the worker had {} MiB at once",
        most / 1024
    );
    Ok(())
}

fn complete(evidence: &Evidence, spec: &ClipSpec) -> Result<()> {
    evidence.require_every_picture(spec.frames())?;
    evidence.require_every_coded_frame()
}

/// A Socket.IO server of a few lines that answers each fragment with another offence.
struct Hostile {
    url: String,
    stop: Arc<AtomicBool>,
}

impl Hostile {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}", listener.local_addr()?);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        std::thread::Builder::new()
            .name("hostile-sts".to_owned())
            .spawn(move || {
                // Offences go on over reconnects.
                let mut fragment = 0;
                while !stopped.load(Ordering::Relaxed) {
                    match listener.accept() {
                        Ok((stream, _)) => drop(serve(stream, &mut fragment, &stopped)),
                        Err(_) => std::thread::park_timeout(Duration::from_millis(10)),
                    }
                }
            })?;
        Ok(Self { url, stop })
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn serve(stream: TcpStream, fragment: &mut usize, stop: &AtomicBool) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut socket = tungstenite::accept(stream).map_err(|error| anyhow::anyhow!("{error}"))?;
    socket.send(Message::text(
        r#"0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":10000,"maxPayload":52428800}"#,
    ))?;
    while !stop.load(Ordering::Relaxed) {
        let text = match socket.read() {
            Ok(Message::Text(text)) => text.to_string(),
            Ok(Message::Close(_)) => return Ok(()),
            Ok(_) => continue,
            Err(tungstenite::Error::Io(error))
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) =>
            {
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if text.starts_with("40") {
            socket.send(Message::text(r#"40{"sid":"y"}"#))?;
        } else if let Some(event) = text.strip_prefix("42") {
            let event: Value = serde_json::from_str(event)?;
            answer(
                &mut socket,
                event[0].as_str().unwrap_or_default(),
                &event[1],
                fragment,
            )?;
        }
    }
    Ok(())
}

fn emit(socket: &mut WebSocket<TcpStream>, event: &str, payload: &Value) -> Result<()> {
    Ok(socket.send(Message::text(format!("42{}", json!([event, payload]))))?)
}

fn answer(
    socket: &mut WebSocket<TcpStream>,
    event: &str,
    payload: &Value,
    fragment: &mut usize,
) -> Result<()> {
    match event {
        "stream:init" => {
            let ready = |limit: i64| {
                json!({ "stream_id": "test", "session_id": "s", "max_inflight": limit,
                    "capabilities": { "batch_processing": null } })
            };
            emit(socket, "stream:ready", &ready(1_000_000_000))?;
            emit(socket, "stream:ready", &ready(0))
        }
        "stream:end" => emit(socket, "stream:complete", &json!({ "stream_id": "test" })),
        "fragment:data" => {
            *fragment += 1;
            offend(socket, *fragment, payload)
        }
        _ => Ok(()),
    }
}

fn offend(socket: &mut WebSocket<TcpStream>, number: usize, payload: &Value) -> Result<()> {
    let (id, sequence) = (&payload["fragment_id"], &payload["sequence_number"]);
    let processed = |audio: Value| {
        json!({ "fragment_id": id, "stream_id": "test", "sequence_number": sequence, "status": "success",
            "processing_time_ms": 1, "dubbed_audio": audio })
    };
    let audio = |format: &str, data: &str| json!({ "format": format, "sample_rate_hz": 48000, "channels": 2, "duration_ms": 1000, "data_base64": data });
    let echo = &payload["audio"];
    let base64 = echo["data_base64"].as_str().unwrap_or_default();
    match number {
        1 => emit(socket, "fragment:processed", &processed(audio("m4a", ""))),
        2 => emit(
            socket,
            "fragment:processed",
            &processed(audio("m4a", "*** not base64 ***")),
        ),
        3 => emit(
            socket,
            "fragment:processed",
            &processed(audio("m4a", &base64[..base64.len() / 8 * 4])),
        ),
        4 => emit(
            socket,
            "fragment:processed",
            &processed(audio("mp3", &"AAAA".repeat(4_000))),
        ),
        5 => emit(socket, "fragment:processed", &processed(Value::Null)),
        6 => emit(
            socket,
            "fragment:processed",
            &json!({ "fragment_id": 7, "status": [] }),
        ),
        7 => emit(
            socket,
            "fragment:processed",
            &json!({ "status": "success" }),
        ),
        8 => emit(socket, "nobody:knows", &json!({ "this": "event" })),
        9 => emit(
            socket,
            "fragment:processed",
            &json!("a string instead of an object"),
        ),
        10 => {
            let stranger = "00000000-0000-4000-8000-000000000000";
            emit(
                socket,
                "fragment:ack",
                &json!({ "fragment_id": stranger, "status": "queued" }),
            )?;
            let mut answer = processed(echo.clone());
            answer["fragment_id"] = json!(stranger);
            emit(socket, "fragment:processed", &answer)
        }
        11 => {
            // Twice the same answer.
            emit(socket, "fragment:processed", &processed(echo.clone()))?;
            emit(socket, "fragment:processed", &processed(echo.clone()))
        }
        12 => {
            for _ in 0..10_000 {
                emit(
                    socket,
                    "backpressure",
                    &json!({ "stream_id": "test", "action": "none", "severity": null }),
                )?;
            }
            emit(socket, "fragment:processed", &processed(echo.clone()))
        }
        13 => emit(
            socket,
            "error",
            &json!({ "code": "NEVER_HEARD_OF", "message": "?", "retryable": false,
            "severity": "error", "fragment_id": id }),
        ),
        14 => emit(
            socket,
            "backpressure",
            &json!({ "stream_id": "test", "action": "dance" }),
        ),
        15 => emit(
            socket,
            "backpressure",
            &json!({ "stream_id": "test", "action": "slow_down",
            "recommended_delay_ms": -5 }),
        ),
        16 => emit(
            socket,
            "fragment:processed",
            &processed(audio("m4a", &"QUFB".repeat(5_000_000))),
        ),
        17 => Ok(socket.send(Message::text("42[not json"))?),
        _ => emit(socket, "fragment:processed", &processed(echo.clone())),
    }
}
