//! Lets nothing of a client in between its CONNECT packet and the moment it can be answered.
//!
//! The Socket.IO library works on a CONNECT packet beside the packets that follow it: what comes close
//! behind finds no socket and ends the connection, and what comes a little later finds one that cannot
//! be emitted to yet, so that its answer is lost. So the bytes of a connection pass through here: the
//! CONNECT packet goes through, what is behind it waits until the socket is open.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A request's head or a packet before the CONNECT packet that is longer than this is not waited for.
const LONGEST: usize = 64 * 1024;
/// Read at once while looking for the CONNECT packet.
const PIECE: usize = 4 * 1024;

/// Whether a connection's socket is open.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    open: bool,
    reader: Option<Waker>,
}

impl Gate {
    /// Lets everything through from now on.
    pub(super) fn open(&self) {
        let mut state = self.state();
        state.open = true;
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }

    /// Whether it is open; if not, `cx` is woken when it is.
    fn poll(&self, cx: &Context<'_>) -> bool {
        let mut state = self.state();
        if !state.open {
            state.reader = Some(cx.waker().clone());
        }
        state.open
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What has been read and may not be passed on yet, and how far it is understood.
#[derive(Debug, Default)]
struct Intake {
    bytes: Vec<u8>,
    /// So many of them may be passed on.
    ready: usize,
    stage: Stage,
}

/// What comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Stage {
    /// The head of an HTTP request.
    #[default]
    Head,
    /// WebSocket frames; the CONNECT packet is one of them.
    Frames,
    /// What has to wait for the gate.
    Behind,
    /// Anything; it is not looked at.
    Free,
}

/// A frame at the start of some bytes.
#[derive(Debug, PartialEq)]
enum Frame {
    Partial,
    Whole { length: usize, connect: bool },
}

impl Intake {
    /// Looks at what has come; more of it may be ready then.
    fn look(&mut self) {
        loop {
            let rest = &self.bytes[self.ready..];
            match self.stage {
                Stage::Head => match rest.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                    Some(end) => {
                        let head = String::from_utf8_lossy(&rest[..end]).to_ascii_lowercase();
                        self.ready += end + 4;
                        self.stage = if head.contains("upgrade: websocket") {
                            Stage::Frames
                        } else {
                            Stage::Free
                        };
                    }
                    None if rest.len() > LONGEST => self.stage = Stage::Free,
                    None => return,
                },
                Stage::Frames => match frame(rest) {
                    Frame::Whole { length, connect } => {
                        self.ready += length;
                        if connect {
                            self.stage = Stage::Behind;
                        }
                    }
                    Frame::Partial if rest.len() > LONGEST => self.stage = Stage::Free,
                    Frame::Partial => return,
                },
                Stage::Behind => return,
                Stage::Free => {
                    self.ready = self.bytes.len();
                    return;
                }
            }
        }
    }

    fn free(&mut self) {
        self.stage = Stage::Free;
        self.look();
    }

    /// Moves what is ready.
    fn pass(&mut self, to: &mut ReadBuf<'_>) {
        let count = self.ready.min(to.remaining());
        to.put_slice(&self.bytes[..count]);
        self.bytes.drain(..count);
        self.ready -= count;
    }
}

/// The frame these bytes begin with. Clients mask theirs; `40` is the CONNECT packet of the default
/// namespace.
fn frame(bytes: &[u8]) -> Frame {
    let &[first, second, ..] = bytes else {
        return Frame::Partial;
    };
    let (length, mut head) = match second & 0x7f {
        126 => match bytes.get(2..).and_then(<[u8]>::first_chunk) {
            Some(length) => (u64::from(u16::from_be_bytes(*length)), 4),
            None => return Frame::Partial,
        },
        127 => match bytes.get(2..).and_then(<[u8]>::first_chunk) {
            Some(length) => (u64::from_be_bytes(*length), 10),
            None => return Frame::Partial,
        },
        length => (u64::from(length), 2),
    };
    let mask = if second & 0x80 == 0 {
        [0; 4]
    } else {
        let Some(mask) = bytes.get(head..).and_then(<[u8]>::first_chunk) else {
            return Frame::Partial;
        };
        head += 4;
        *mask
    };
    let payload = &bytes[head..];
    if (payload.len() as u64) < length {
        return Frame::Partial;
    }
    let length = length as usize;
    let text = first & 0x0f == 1;
    let mut said = (payload[..length].iter().zip(mask)).map(|(byte, mask)| byte ^ mask);
    let connect =
        (said.next(), said.next()) == (Some(b'4'), Some(b'0')) && said.next() != Some(b'/');
    Frame::Whole {
        length: head + length,
        connect: text && connect,
    }
}

/// A connection with a gate in it.
#[derive(Debug)]
pub(crate) struct Gated {
    stream: TcpStream,
    gate: Gate,
    intake: Intake,
}

impl Gated {
    pub(super) fn new(stream: TcpStream, gate: Gate) -> Self {
        Self {
            stream,
            gate,
            intake: Intake::default(),
        }
    }
}

impl AsyncRead for Gated {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self {
            stream,
            gate,
            intake,
        } = self.get_mut();
        loop {
            if intake.ready > 0 {
                intake.pass(to);
                return Poll::Ready(Ok(()));
            }
            match intake.stage {
                Stage::Free => return Pin::new(stream).poll_read(cx, to),
                Stage::Behind if gate.poll(cx) => {
                    intake.free();
                    continue;
                }
                Stage::Behind => return Poll::Pending,
                Stage::Head | Stage::Frames => {}
            }
            let mut piece = [0; PIECE];
            let mut piece = ReadBuf::new(&mut piece);
            std::task::ready!(Pin::new(&mut *stream).poll_read(cx, &mut piece))?;
            intake.bytes.extend(piece.filled());
            if piece.filled().is_empty() {
                intake.free();
            } else {
                intake.look();
            }
        }
    }
}

impl AsyncWrite for Gated {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's text frame with a mask.
    fn text(payload: &str) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut frame = vec![0x81, 0x80 | payload.len() as u8];
        frame.extend(mask);
        frame.extend(
            payload
                .bytes()
                .zip(mask.into_iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        frame
    }

    fn ready(bytes: &[u8], piece: usize) -> (usize, Stage) {
        let mut intake = Intake::default();
        for piece in bytes.chunks(piece) {
            intake.bytes.extend(piece);
            intake.look();
        }
        (intake.ready, intake.stage)
    }

    #[test]
    fn what_is_behind_the_connect_packet_waits_however_it_comes_in() {
        let head = b"GET /socket.io/ HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n";
        let before = [&head[..], &text("3"), &text(r#"40{"token":"t"}"#)].concat();
        let all = [&before[..], &text(r#"42["stream:init",{}]"#)].concat();
        for piece in [1, 2, 7, all.len()] {
            assert_eq!(ready(&all, piece), (before.len(), Stage::Behind), "{piece}");
        }
    }

    #[test]
    fn other_namespaces_and_other_requests_do_not_wait() {
        let head = b"GET / HTTP/1.1\r\nupgrade: websocket\r\n\r\n";
        let all = [&head[..], &text("40/other,")].concat();
        assert_eq!(ready(&all, 5), (all.len(), Stage::Frames));
        let health = b"GET /health HTTP/1.1\r\n\r\nGET /health HTTP/1.1\r\n";
        assert_eq!(ready(health, 3), (health.len(), Stage::Free));
        let endless = [b'x'; LONGEST + PIECE];
        assert_eq!(ready(&endless, PIECE), (endless.len(), Stage::Free));
    }
}
