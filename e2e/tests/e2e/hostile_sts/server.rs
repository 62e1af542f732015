//! A Socket.IO server of a few lines, byte for byte in our hands: it plays a list of offences, one
//! per fragment, whatever connection the fragment comes over.

use std::collections::{BTreeMap, VecDeque};
use std::f64::consts::TAU;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use e2e::threads::lock;
use serde_json::{Value, json};
use sts_protocol::{event, mark};
use tungstenite::{Message, WebSocket};

/// How often the server looks for something to do while nobody says anything.
const TICK: Duration = Duration::from_millis(20);
/// How long it waits until a peer takes a message.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);
/// It never pings: the times it announces are longer than the run.
const HELLO: &str =
    r#"0{"sid":"x","upgrades":[],"pingInterval":120000,"pingTimeout":60000,"maxPayload":52428800}"#;

/// What the server does with a fragment.
pub(super) type Act = fn(&mut Wire<'_>, &Fragment) -> Result<()>;
/// What it says to the n-th `stream:init`, from 0.
pub(super) type Welcome = fn(&mut Wire<'_>, usize) -> Result<()>;

/// What a connection meets.
#[derive(Debug, Clone, Copy)]
pub(super) enum Door {
    /// It is served.
    Open,
    /// `stream:ready`, and nothing any more.
    Drops,
    /// The namespace is refused, with this JSON.
    Refused(&'static str),
    /// Status and headers of another answer than a WebSocket's.
    Http(&'static str),
}

/// What the server has done.
#[derive(Debug, Default)]
pub(super) struct Played {
    /// Ids of the fragments that came, in order: the n-th was answered with the n-th act.
    pub(super) fragments: Vec<String>,
    /// Fragments that the worker has said it applied, and how often.
    pub(super) applied: BTreeMap<String, u32>,
    /// Connections that joined.
    pub(super) connections: usize,
    /// How long each [`Wire::flood`] took.
    pub(super) floods: Vec<Duration>,
}

/// A server that runs until it is dropped.
pub(super) struct Server {
    pub(super) url: String,
    stop: Arc<AtomicBool>,
    played: Arc<Mutex<Played>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts it on a free port. Fragments beyond the last act are answered well, connections beyond
    /// the last door are served.
    pub(super) fn start(welcome: Welcome, acts: Vec<Act>, doors: &[Door]) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}", listener.local_addr()?);
        let (stop, played) = (Arc::default(), Arc::default());
        let doors = doors.iter().copied().collect();
        let (stopped, played_there) = (Arc::clone(&stop), Arc::clone(&played));
        let thread = std::thread::Builder::new()
            .name("hostile-sts".to_owned())
            .spawn(move || {
                let mut script = Script {
                    welcome,
                    acts,
                    doors,
                    held: Vec::new(),
                    due: Vec::new(),
                    played: played_there,
                };
                while !AtomicBool::load(&stopped, Ordering::Relaxed) {
                    match listener.accept() {
                        // A connection that breaks is what some offences are for.
                        Ok((stream, _)) => drop(serve(stream, &mut script, &stopped)),
                        Err(_) => std::thread::park_timeout(TICK),
                    }
                }
            })?;
        Ok(Self {
            url,
            stop,
            played,
            thread: Some(thread),
        })
    }

    /// What it has done so far.
    pub(super) fn played(&self) -> MutexGuard<'_, Played> {
        lock(&self.played)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What outlives a connection.
struct Script {
    welcome: Welcome,
    acts: Vec<Act>,
    doors: VecDeque<Door>,
    held: Vec<Value>,
    due: Vec<(Instant, Value)>,
    played: Arc<Mutex<Played>>,
}

/// A connection, as an offence sees it.
pub(super) struct Wire<'a> {
    door: Door,
    socket: WebSocket<TcpStream>,
    script: &'a mut Script,
}

/// `fragment:data`.
pub(super) struct Fragment {
    pub(super) id: String,
    pub(super) sequence: u64,
    /// Length of its audio.
    duration_ms: u64,
    /// The M4A file, in base64.
    pub(super) audio: String,
}

impl Fragment {
    fn read(payload: &Value) -> Result<Self> {
        let audio = &payload["audio"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Ok(Self {
            id: text(&payload["fragment_id"]).context("no fragment_id")?,
            sequence: payload["sequence_number"].as_u64().context("no number")?,
            duration_ms: audio["duration_ms"].as_u64().context("no duration")?,
            audio: text(&audio["data_base64"]).context("no audio")?,
        })
    }

    /// `fragment:processed` with this as `dubbed_audio`.
    pub(super) fn answer(&self, audio: &Value) -> Value {
        json!({ "fragment_id": self.id, "stream_id": "test", "sequence_number": self.sequence,
            "status": "success", "processing_time_ms": 1, "dubbed_audio": audio })
    }

    /// An answer whose audio has this label and content.
    pub(super) fn answer_with(&self, format: &str, base64: &str) -> Value {
        self.answer(
            &json!({ "format": format, "sample_rate_hz": RATE, "channels": 1,
            "duration_ms": self.duration_ms, "data_base64": base64 }),
        )
    }

    /// `fragment:ack`.
    pub(super) fn ack(&self) -> Value {
        json!({ "fragment_id": self.id, "status": "queued", "queue_position": null })
    }

    /// A good answer: the marker tone, as long as the fragment.
    pub(super) fn good(&self) -> Value {
        self.answer_with("wav", &self.marker())
    }

    /// The marker tone as a WAV file, in base64.
    pub(super) fn marker(&self) -> String {
        BASE64_STANDARD.encode(self.marker_bytes())
    }

    /// The marker tone as a WAV file.
    pub(super) fn marker_bytes(&self) -> Vec<u8> {
        marker(self.duration_ms, mark::TONE_DBFS)
    }

    /// A good answer whose tone peaks at `dbfs`.
    pub(super) fn good_at(&self, dbfs: f64) -> Value {
        let tone = marker(self.duration_ms, dbfs);
        self.answer_with("wav", &BASE64_STANDARD.encode(tone))
    }

    /// As many samples as the fragment has, none of them a number, in base64.
    pub(super) fn not_a_number(&self) -> String {
        let frames = frames(self.duration_ms) as usize;
        BASE64_STANDARD.encode(wav(3, &f32::NAN.to_le_bytes().repeat(frames)))
    }
}

impl Wire<'_> {
    /// Sends an event.
    pub(super) fn emit(&mut self, event: &str, payload: &Value) -> Result<()> {
        self.raw(&format!("42{}", json!([event, payload])))
    }

    /// Sends this and nothing else.
    pub(super) fn raw(&mut self, text: &str) -> Result<()> {
        Ok(self.socket.send(Message::text(text))?)
    }

    /// Sends a binary message.
    pub(super) fn binary(&mut self, bytes: Vec<u8>) -> Result<()> {
        Ok(self.socket.send(Message::binary(bytes))?)
    }

    /// Announces a text of so many bytes, and sends none of them.
    pub(super) fn announce(&mut self, bytes: u64) -> Result<()> {
        let header = [&[0x81, 127][..], &bytes.to_be_bytes()[..]].concat();
        Ok(self.socket.get_mut().write_all(&header)?)
    }

    /// Sends `fragment:processed`.
    pub(super) fn processed(&mut self, payload: &Value) -> Result<()> {
        self.emit(event::FRAGMENT_PROCESSED, payload)
    }

    /// Keeps an answer back until [`release`](Self::release), also over connections.
    pub(super) fn hold(&mut self, answer: Value) {
        self.script.held.push(answer);
    }

    /// Sends what was held.
    pub(super) fn release(&mut self) -> Result<()> {
        for answer in std::mem::take(&mut self.script.held) {
            self.processed(&answer)?;
        }
        Ok(())
    }

    /// Sends what was held after this long.
    pub(super) fn release_later(&mut self, after: Duration) {
        for answer in std::mem::take(&mut self.script.held) {
            self.later(after, answer);
        }
    }

    /// Sends an answer after this long.
    pub(super) fn later(&mut self, after: Duration, answer: Value) {
        self.script.due.push((Instant::now() + after, answer));
    }

    /// Sends so many packets as fast as they are taken, and notes how long it took.
    pub(super) fn flood<'a>(&mut self, packets: impl Iterator<Item = &'a str>) -> Result<()> {
        let started = Instant::now();
        for packet in packets {
            self.socket.write(Message::text(packet))?;
        }
        self.socket.flush()?;
        lock(&self.script.played).floods.push(started.elapsed());
        Ok(())
    }

    fn take(&mut self, name: &str, payload: &Value) -> Result<()> {
        match name {
            event::STREAM_INIT => {
                let mut played = lock(&self.script.played);
                let number = played.connections;
                played.connections += 1;
                drop(played);
                (self.script.welcome)(self, number)?;
                match self.door {
                    Door::Drops => Err(anyhow!("dropped")),
                    _ => Ok(()),
                }
            }
            event::STREAM_END => self.emit(
                event::STREAM_COMPLETE,
                &json!({ "stream_id": "test", "total_fragments": 1 }),
            ),
            event::FRAGMENT_DATA => {
                let fragment = Fragment::read(payload)?;
                let mut played = lock(&self.script.played);
                let act = self.script.acts.get(played.fragments.len()).copied();
                played.fragments.push(fragment.id.clone());
                drop(played);
                match act {
                    Some(act) => act(self, &fragment),
                    None => self.processed(&fragment.good()),
                }
            }
            event::FRAGMENT_ACK => {
                let id = payload["fragment_id"].as_str().unwrap_or_default();
                let mut played = lock(&self.script.played);
                *played.applied.entry(id.to_owned()).or_default() += 1;
                Ok(())
            }
            other => Err(anyhow!("the worker sent {other}")),
        }
    }

    fn send_due(&mut self) -> Result<()> {
        let now = Instant::now();
        let (due, rest) = std::mem::take(&mut self.script.due)
            .into_iter()
            .partition::<Vec<_>, _>(|(at, _)| *at <= now);
        self.script.due = rest;
        due.iter()
            .try_for_each(|(_, answer)| self.processed(answer))
    }
}

/// Serves one connection to its end.
fn serve(mut stream: TcpStream, script: &mut Script, stop: &AtomicBool) -> Result<()> {
    stream.set_nonblocking(false)?;
    let door = script.doors.pop_front().unwrap_or(Door::Open);
    if let Door::Http(answer) = door {
        let mut request = [0; 4096];
        let _ = stream.read(&mut request)?;
        let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n");
        return Ok(stream.write_all(answer.as_bytes())?);
    }
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(WRITE_PATIENCE))?;
    // A client on a busy machine takes its time for the request.
    stream.set_read_timeout(Some(WRITE_PATIENCE))?;
    let socket = tungstenite::accept(stream).map_err(|error| anyhow!("{error}"))?;
    socket.get_ref().set_read_timeout(Some(TICK))?;
    let mut wire = Wire {
        door,
        socket,
        script,
    };
    wire.raw(HELLO)?;
    while !stop.load(Ordering::Relaxed) {
        wire.send_due()?;
        let text = match wire.socket.read() {
            Ok(Message::Text(text)) => text.to_string(),
            Ok(Message::Close(_)) => return Ok(()),
            Ok(_) => continue,
            Err(tungstenite::Error::Io(error))
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
            {
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if text.starts_with("40") {
            match door {
                Door::Refused(why) => wire.raw(&format!("44{why}"))?,
                _ => wire.raw(r#"40{"sid":"y"}"#)?,
            }
        } else if let Some(event) = text.strip_prefix("42") {
            let event: Value = serde_json::from_str(event)?;
            wire.take(event[0].as_str().unwrap_or_default(), &event[1])?;
        }
    }
    Ok(())
}

/// As synthesized speech often comes: another rate and other channels than were asked for. The output stays in
/// its format all the same.
const RATE: u32 = 24_000;

fn frames(duration_ms: u64) -> u32 {
    u32::try_from(duration_ms).unwrap_or(0) * (RATE / 1_000)
}

/// A WAV file that holds nothing but the marker tone, which peaks at `dbfs`.
fn marker(duration_ms: u64, dbfs: f64) -> Vec<u8> {
    let frames = frames(duration_ms);
    let peak = 10_f64.powf(dbfs / 20.0) * f64::from(i16::MAX);
    let ramp = mark::RAMP_SECONDS * f64::from(RATE);
    let mut samples = Vec::with_capacity(2 * frames as usize);
    for n in 0..frames {
        let edge = (f64::from(n.min(frames - 1 - n)) / ramp).min(1.0);
        let phase = TAU * mark::TONE_HZ * f64::from(n) / f64::from(RATE);
        samples.extend(((peak * edge * phase.sin()) as i16).to_le_bytes());
    }
    wav(1, &samples)
}

/// A WAV file, mono, of 16-bit numbers (`format` 1) or 32-bit floats (3).
fn wav(format: u16, samples: &[u8]) -> Vec<u8> {
    let width: u16 = if format == 3 { 4 } else { 2 };
    let size = samples.len() as u32;
    let mut wav = Vec::with_capacity(44 + samples.len());
    wav.extend(b"RIFF");
    wav.extend((36 + size).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16_u32.to_le_bytes());
    wav.extend(format.to_le_bytes());
    wav.extend(1_u16.to_le_bytes());
    wav.extend(RATE.to_le_bytes());
    wav.extend((u32::from(width) * RATE).to_le_bytes());
    wav.extend(width.to_le_bytes());
    wav.extend((8 * width).to_le_bytes());
    wav.extend(b"data");
    wav.extend(size.to_le_bytes());
    wav.extend(samples);
    wav
}
