//! WebSocket frames (RFC 6455) of a client: limits before anything is kept, nothing decoded.
//!
//! Text is handed on as bytes: one message that is not UTF-8 costs that message, not the
//! connection, which is why tungstenite's own reader does not do here. Its headers do.

use std::io::Cursor;

use bytes::{Buf as _, BytesMut};
use sts_protocol::limits;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Largest message kept whole; the largest answer the protocol allows is 10 MiB.
const MAX_KEPT: usize = 16 * 1024 * 1024;
/// What is kept of each end of a larger one: enough to see whom it is about.
const MAX_END: usize = 64 * 1024;
/// Largest control frame, by the RFC.
const MAX_CONTROL: u64 = 125;

/// What arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A text message; perhaps not UTF-8.
    Text(Vec<u8>),
    /// A binary message; empty where it was larger than anything that is kept.
    Binary(Vec<u8>),
    /// Beginning and end of a text message that was larger than what is kept.
    TooLarge(Vec<u8>),
    /// A ping, to be answered with the same bytes.
    Ping(Vec<u8>),
    /// A pong nobody asked for.
    Pong,
    /// The peer closes, for this reason, in these words.
    Close(Option<u16>, String),
}

/// Why the connection cannot be read any further.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// More than a message may have.
    #[error("a message over 50 MiB")]
    TooLarge,
    /// Not WebSocket, or broken.
    #[error("something that is not WebSocket: {0}")]
    Broken(&'static str),
}

/// Takes frames apart and puts messages together.
#[derive(Debug, Default)]
pub struct Reader {
    /// The frame under way, and how many of its bytes are still to come.
    frame: Option<(OpCode, bool, usize)>,
    control: Vec<u8>,
    message: Vec<u8>,
    /// Bytes of the message under way so far, by its headers.
    size: usize,
    /// The kind of the message under way.
    kind: Option<Data>,
}

impl Reader {
    /// The next thing in `input`, which is used up as far as it was read; `None` if there is no
    /// whole one. Memory grows with what has arrived, never with what is announced.
    ///
    /// # Errors
    /// When what follows cannot be read either.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Incoming>, FrameError> {
        loop {
            let (opcode, last, left) = match self.frame {
                Some(frame) => frame,
                None => match self.header(input)? {
                    Some(frame) => frame,
                    None => return Ok(None),
                },
            };
            let now = left.min(input.len());
            match opcode {
                OpCode::Control(_) => self.control.extend_from_slice(&input[..now]),
                OpCode::Data(_) if self.size > MAX_KEPT => {
                    keep_ends(&mut self.message, &input[..now]);
                }
                OpCode::Data(_) => self.message.extend_from_slice(&input[..now]),
            }
            input.advance(now);
            if now < left {
                self.frame = Some((opcode, last, left - now));
                return Ok(None);
            }
            self.frame = None;
            match opcode {
                OpCode::Control(control) => {
                    let bytes = std::mem::take(&mut self.control);
                    return Ok(Some(match control {
                        Control::Close => {
                            let code = bytes.first_chunk().copied().map(u16::from_be_bytes);
                            let said = String::from_utf8_lossy(bytes.get(2..).unwrap_or_default());
                            Incoming::Close(code, said.into_owned())
                        }
                        Control::Ping => Incoming::Ping(bytes),
                        _ => Incoming::Pong,
                    }));
                }
                OpCode::Data(_) if last => {
                    let bytes = std::mem::take(&mut self.message);
                    let whole = std::mem::take(&mut self.size) <= MAX_KEPT;
                    return Ok(Some(match self.kind.take() {
                        Some(Data::Text) if whole => Incoming::Text(bytes),
                        Some(Data::Text) => Incoming::TooLarge(bytes),
                        _ if whole => Incoming::Binary(bytes),
                        _ => Incoming::Binary(vec![]),
                    }));
                }
                OpCode::Data(_) => {}
            }
        }
    }

    fn header(
        &mut self,
        input: &mut BytesMut,
    ) -> Result<Option<(OpCode, bool, usize)>, FrameError> {
        let mut cursor = Cursor::new(&input[..]);
        let parsed = FrameHeader::parse(&mut cursor);
        let Some((header, len)) = parsed.map_err(|_| FrameError::Broken("an unknown frame"))?
        else {
            return Ok(None);
        };
        let used = cursor.position() as usize;
        input.advance(used);
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(FrameError::Broken("an extension nobody asked for"));
        }
        if header.mask.is_some() {
            return Err(FrameError::Broken("a masked frame"));
        }
        match header.opcode {
            OpCode::Control(_) if !header.is_final || len > MAX_CONTROL => {
                return Err(FrameError::Broken("a control frame in parts"));
            }
            OpCode::Control(_) => {}
            OpCode::Data(data) => {
                match (data, self.kind) {
                    (Data::Continue, Some(_)) => {}
                    (Data::Text | Data::Binary, None) => self.kind = Some(data),
                    _ => return Err(FrameError::Broken("parts out of order")),
                }
                let room = limits::MAX_MESSAGE - self.size;
                if usize::try_from(len).map_or(true, |len| len > room) {
                    return Err(FrameError::TooLarge);
                }
                self.size += len as usize;
                if self.size > MAX_KEPT {
                    let before = std::mem::take(&mut self.message);
                    keep_ends(&mut self.message, &before);
                }
            }
        }
        Ok(Some((header.opcode, header.is_final, len as usize)))
    }
}

/// Adds `part` to a text of which only the ends are kept.
fn keep_ends(kept: &mut Vec<u8>, part: &[u8]) {
    let (first, rest) = part.split_at(part.len().min(MAX_END.saturating_sub(kept.len())));
    kept.extend_from_slice(first);
    kept.extend_from_slice(&rest[rest.len().saturating_sub(MAX_END)..]);
    if kept.len() > 2 * MAX_END {
        kept.drain(MAX_END..kept.len() - MAX_END);
    }
}

/// A whole frame for the wire, masked as a client's must be.
pub(crate) fn frame(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let random = uuid::Uuid::new_v4().into_bytes();
    let mask = [random[0], random[1], random[2], random[3]];
    let header = FrameHeader {
        opcode,
        mask: Some(mask),
        ..FrameHeader::default()
    };
    let len = payload.len() as u64;
    let mut out = Vec::with_capacity(header.len(len) + payload.len());
    // Writing into memory does not fail.
    let _ = header.format(len, &mut out);
    out.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    out
}

/// A text message.
pub(crate) fn text(text: &str) -> Vec<u8> {
    frame(OpCode::Data(Data::Text), text.as_bytes())
}

/// The answer to a ping.
pub(crate) fn pong(payload: &[u8]) -> Vec<u8> {
    frame(OpCode::Control(Control::Pong), payload)
}

/// The end, without trouble.
pub(crate) fn close() -> Vec<u8> {
    frame(OpCode::Control(Control::Close), &1000_u16.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], step: usize) -> Result<Vec<Incoming>, FrameError> {
        let (mut reader, mut found) = (Reader::default(), vec![]);
        let mut input = BytesMut::new();
        for part in bytes.chunks(step) {
            input.extend_from_slice(part);
            while let Some(incoming) = reader.next(&mut input)? {
                found.push(incoming);
            }
        }
        Ok(found)
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let mut wire = vec![0x01, 2, b'a', b'b'];
        wire.extend([0x89, 125]);
        wire.extend([7; 125]);
        wire.extend([0x00, 1, 0xff, 0x80, 1, b'c']);
        wire.extend([0x82, 126, 0, 200]);
        wire.extend([9; 200]);
        wire.extend([0x8a, 0, 0x88, 2, 3, 0xf1]);
        let expected = [
            Incoming::Ping(vec![7; 125]),
            Incoming::Text(b"ab\xffc".to_vec()),
            Incoming::Binary(vec![9; 200]),
            Incoming::Pong,
            Incoming::Close(Some(1009), String::new()),
        ];
        for step in 1..wire.len() {
            assert_eq!(read(&wire, step).unwrap(), expected, "{step}");
        }
    }

    /// The header of a frame of so many bytes.
    fn header(first: u8, len: usize) -> Vec<u8> {
        let mut header = vec![first, 127];
        header.extend((len as u64).to_be_bytes());
        header
    }

    #[test]
    fn what_is_announced_costs_nothing_and_too_much_is_refused() {
        const MOST: usize = limits::MAX_MESSAGE;
        for len in [MAX_KEPT, MOST] {
            let mut reader = Reader::default();
            let mut huge = BytesMut::from(&header(0x81, len)[..]);
            assert_eq!(reader.next(&mut huge), Ok(None));
            assert!(reader.message.capacity() < 1024);
        }
        for len in [MOST + 1, u64::MAX as usize] {
            assert_eq!(read(&header(0x81, len), 99), Err(FrameError::TooLarge));
        }
        // In parts, too.
        let mut parts = header(0x01, MOST - 1);
        parts.resize(parts.len() + MOST - 1, b'x');
        parts.extend([0x00, 2]);
        assert_eq!(read(&parts, 1 << 20), Err(FrameError::TooLarge));
    }

    /// An answer nobody can use costs its fragment, not the link, and no memory.
    #[test]
    fn of_a_message_that_is_too_large_the_ends_are_kept() {
        const SIZE: usize = 20_000_000;
        let mut text = b"42[first".to_vec();
        text.resize(SIZE - 5, b'x');
        text.extend(b"last]");
        for (opcode, pieces) in [(1, 1), (1, 7), (2, 1), (2, 7)] {
            let mut wire = vec![];
            for (n, piece) in text.chunks(SIZE.div_ceil(pieces)).enumerate() {
                let last = if n + 1 == pieces { 0x80 } else { 0 };
                wire.extend(header(last | if n == 0 { opcode } else { 0 }, piece.len()));
                wire.extend(piece);
            }
            wire.extend([0x81, 1, b'2']);
            let (mut reader, mut found, mut input) = (Reader::default(), vec![], BytesMut::new());
            for part in wire.chunks(100_000) {
                input.extend_from_slice(part);
                while let Some(incoming) = reader.next(&mut input).unwrap() {
                    found.push(incoming);
                }
                let most = if reader.size > MAX_KEPT {
                    4 * MAX_END
                } else {
                    2 * MAX_KEPT
                };
                assert!(reader.message.capacity() <= most, "{pieces} pieces");
            }
            let [huge, next] = &found[..] else {
                panic!("{} messages", found.len())
            };
            assert_eq!(*next, Incoming::Text(b"2".to_vec()));
            match huge {
                Incoming::Binary(bytes) if opcode == 2 => assert!(bytes.is_empty()),
                Incoming::TooLarge(ends) if opcode == 1 => {
                    assert_eq!(ends.len(), 2 * 64 * 1024);
                    assert!(ends.starts_with(b"42[firstx") && ends.ends_with(b"xlast]"));
                }
                _ => panic!("opcode {opcode}, {pieces} pieces"),
            }
        }
    }

    #[test]
    fn a_message_of_16_mib_is_kept_and_a_byte_more_is_not() {
        const MOST: usize = 16 << 20;
        for (parts, whole) in [
            (vec![MOST], true),
            (vec![MOST - 1, 1], true),
            (vec![MOST + 1], false),
            (vec![MOST, 1], false),
        ] {
            let mut wire = vec![];
            for (n, len) in parts.iter().enumerate() {
                let last = if n + 1 == parts.len() { 0x80 } else { 0 };
                wire.extend(header(last | u8::from(n == 0), *len));
                wire.resize(wire.len() + len, b'x');
            }
            let found = read(&wire, wire.len()).unwrap();
            let [Incoming::Text(text) | Incoming::TooLarge(text)] = &found[..] else {
                panic!("{parts:?}")
            };
            assert_eq!(matches!(found[0], Incoming::Text(_)), whole, "{parts:?}");
            assert_eq!(text.len() == MOST, whole, "{parts:?}");
        }
    }

    #[test]
    fn what_is_no_frame_is_named() {
        for wire in [
            &[0x83, 0][..],
            &[0xc1, 0],
            &[0xa1, 0],
            &[0x91, 0],
            &[0x81, 0x80, 0, 0, 0, 0],
            &[0x80, 0],
            &[0x01, 0, 0x81, 0],
            &[0x09, 0],
            &[0x89, 126, 0, 126],
            b"HTTP/1.1 200 OK",
        ] {
            let result = read(wire, 99);
            assert!(
                matches!(result, Err(FrameError::Broken(_))),
                "{wire:?}: {result:?}"
            );
        }
    }

    #[test]
    fn ours_are_masked_and_whole() {
        for len in [0, 125, 126, 65_535, 65_536] {
            let mut wire = frame(OpCode::Data(Data::Text), &vec![b'x'; len]);
            let mut cursor = Cursor::new(&wire[..]);
            let (header, stated) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
            let at = cursor.position() as usize;
            let mask = header.mask.unwrap();
            for (byte, mask) in wire[at..].iter_mut().zip(mask.iter().cycle()) {
                *byte ^= mask;
            }
            assert_eq!((stated, header.is_final), (len as u64, true));
            assert_eq!(wire[at..], vec![b'x'; len]);
        }
    }
}
