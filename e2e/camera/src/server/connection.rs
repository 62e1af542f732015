//! One reader's connection, and the thread that plays to it.

use std::cell::Cell;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Event, Shared, TICK, lock, unix_nanos};
use crate::manner::{End, Failure};
use crate::plan::{Outgoing, Plan, What};
use crate::sent::Played;

/// How long a reader may take nothing.
const WRITE_PATIENCE: Duration = Duration::from_mins(1);
/// What precedes this much before a reader joined is over for it.
const JOIN_GRACE: Duration = Duration::from_millis(5);

/// A connection. The socket is shared, never duplicated, so that dropping it closes it.
#[derive(Debug)]
pub(super) struct Connection {
    socket: TcpStream,
    /// One message at a time.
    writing: Mutex<()>,
    over: AtomicBool,
    why: Mutex<Option<String>>,
    /// Neither answers nor sends.
    pub(super) mute: AtomicBool,
    /// Plays nothing for now.
    pub(super) paused: AtomicBool,
    /// When the last request came.
    pub(super) heard: Mutex<Instant>,
}

impl Connection {
    pub(super) fn new(socket: TcpStream) -> Result<Arc<Self>> {
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(TICK))?;
        socket.set_write_timeout(Some(WRITE_PATIENCE))?;
        Ok(Arc::new(Self {
            socket,
            writing: Mutex::new(()),
            over: AtomicBool::new(false),
            why: Mutex::new(None),
            mute: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            heard: Mutex::new(Instant::now()),
        }))
    }

    /// Reads some bytes; 0 if there are none yet, `None` at the end.
    pub(super) fn read(&self, buffer: &mut [u8]) -> Option<usize> {
        match (&self.socket).read(buffer) {
            Ok(0) => None,
            Ok(read) => Some(read),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                Some(0)
            }
            Err(_) => None,
        }
    }

    /// Writes one message; whether it went out.
    pub(super) fn write(&self, bytes: &[u8]) -> bool {
        let _guard = lock(&self.writing);
        self.mute.load(Ordering::Relaxed) || (&self.socket).write_all(bytes).is_ok()
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Ends it; the first reason stays.
    pub(super) fn end(&self, why: &str, reset: bool) {
        lock(&self.why).get_or_insert_with(|| why.to_owned());
        if reset {
            // With nothing to linger for, dropping the socket resets.
            let _ = rustix::net::sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO));
        } else {
            let _ = self.socket.shutdown(Shutdown::Both);
        }
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Plays the clip to a reader that has set up `channels` (the first interleaved channel per medium).
pub(super) fn play(
    connection: &Arc<Connection>,
    shared: &Shared,
    session: usize,
    channels: &[Option<u8>],
) {
    let played =
        |change: &mut dyn FnMut(&mut Played)| change(&mut lock(&shared.sent).sessions[session]);
    while !shared.go.load(Ordering::Relaxed) && !connection.is_over() {
        std::thread::sleep(TICK);
    }
    let (begun, seed) = begin(shared, session);
    let joined = begun.0.elapsed();
    let player = Player {
        connection,
        shared,
        session,
        channels,
        fault_at: Instant::now(),
        asked: Cell::new(false),
    };
    let mut plan = Plan::new(
        &shared.clip,
        &shared.manner,
        &shared.description,
        seed,
        begun.1,
    );
    let late = |at: Duration| at + JOIN_GRACE < joined;
    let why = loop {
        match plan.next() {
            Some(outgoing) if late(outgoing.at) => {}
            Some(outgoing) => {
                if let Err(why) = player.send(&outgoing, begun.0 + outgoing.at) {
                    break why;
                }
            }
            None => match player.finish(&plan, begun.0) {
                Ok(()) => break "played".to_owned(),
                Err(why) => break why,
            },
        }
    };
    let why = lock(&connection.why).clone().unwrap_or(why);
    let (mut pictures, mut audio_frames) = (0, 0);
    played(&mut |played| {
        played.ended = Some(why.clone());
        (pictures, audio_frames) = (played.pictures.len(), played.audio_frames);
    });
    (shared.tell)(&Event::Ended {
        session,
        pictures,
        audio_frames,
        why,
    });
}

/// When the clip began for this session, and its seed.
fn begin(shared: &Shared, session: usize) -> ((Instant, i128), u64) {
    let now = (Instant::now(), unix_nanos());
    if shared.manner.session.again_from_start {
        return (now, shared.seed.wrapping_add(session as u64));
    }
    (*lock(&shared.begun).get_or_insert(now), shared.seed)
}

struct Player<'a> {
    connection: &'a Connection,
    shared: &'a Shared,
    session: usize,
    channels: &'a [Option<u8>],
    /// Faults are counted from here.
    fault_at: Instant,
    asked: Cell<bool>,
}

impl Player<'_> {
    /// Waits until `at`, minding what else may happen meanwhile.
    fn wait(&self, at: Instant) -> Result<(), String> {
        let manner = &self.shared.manner;
        let fault = manner.faults.get(self.session);
        loop {
            let now = Instant::now();
            if self.connection.is_over() {
                return Err("closed".to_owned());
            }
            if let Some(fault) =
                fault.filter(|fault| now >= self.fault_at + Duration::from_secs_f64(fault.at))
            {
                if fault.how != Failure::Ask {
                    self.fail(fault.how);
                    return Err(format!("{:?}", fault.how));
                }
                if !self.asked.replace(true) {
                    let request = "OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n";
                    self.connection.write(request.as_bytes());
                }
            }
            let timeout = Duration::from_secs(manner.session.timeout);
            if manner.session.enforced && lock(&self.connection.heard).elapsed() > timeout {
                self.connection.end("timed out", false);
                return Err("timed out".to_owned());
            }
            let Some(left) = at
                .checked_duration_since(now)
                .filter(|left| !left.is_zero())
            else {
                return Ok(());
            };
            std::thread::sleep(left.min(TICK));
        }
    }

    fn fail(&self, how: Failure) {
        match how {
            Failure::Close => self.connection.end("fault", false),
            Failure::Reset => self.connection.end("fault", true),
            Failure::HalfOpen => self.connection.mute.store(true, Ordering::Relaxed),
            Failure::Silence | Failure::Ask => {}
        }
    }

    fn send(&self, outgoing: &Outgoing, at: Instant) -> Result<(), String> {
        self.wait(at)?;
        let Some(Some(channel)) = self.channels.get(outgoing.track) else {
            return Ok(());
        };
        if self.connection.paused.load(Ordering::Relaxed) {
            return Ok(());
        }
        let is_report = outgoing.what == What::Report;
        let channel = channel + u8::from(is_report);
        let mut bytes =
            Vec::with_capacity(outgoing.packets.iter().map(|packet| packet.len() + 4).sum());
        for packet in &outgoing.packets {
            bytes.extend([b'$', channel]);
            bytes.extend((packet.len() as u16).to_be_bytes());
            bytes.extend(packet);
        }
        let unix_ms = unix_nanos() as f64 / 1e6;
        if !self.connection.write(&bytes) {
            self.connection.end("closed by the reader", false);
            return Err("closed by the reader".to_owned());
        }
        let mut sent = lock(&self.shared.sent);
        let played = &mut sent.sessions[self.session];
        let is_first = played.first_packet_ms.is_none();
        played.first_packet_ms.get_or_insert(unix_ms);
        played.latest_ms = played.latest_ms.max(at.elapsed().as_secs_f64() * 1e3);
        played.bytes += bytes.len() as u64;
        played.lost += outgoing.lost as u64;
        let packets = if is_report {
            &mut played.reports
        } else {
            &mut played.packets
        };
        *packets += outgoing.packets.len() as u64;
        match &outgoing.what {
            What::Picture(_) if outgoing.lost > 0 => played.damaged += 1,
            What::Picture(picture) => played.pictures.push(picture.clone()),
            What::Audio(frames) if outgoing.lost == 0 => played.audio_frames += *frames as u64,
            _ => {}
        }
        drop(sent);
        if is_first {
            (self.shared.tell)(&Event::Playing {
                session: self.session,
                unix_ms,
            });
        }
        Ok(())
    }

    /// The end of the clip, in the manner's way.
    fn finish(&self, plan: &Plan<'_>, begun: Instant) -> Result<(), String> {
        self.wait(begun + plan.end())?;
        if self.shared.manner.end == End::Bye {
            for outgoing in plan.farewell() {
                self.send(&outgoing, begun + outgoing.at)?;
            }
        }
        self.shared.finished.store(true, Ordering::Relaxed);
        self.connection.end("played", false);
        Ok(())
    }
}
