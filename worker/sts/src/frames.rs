//! WebSocket frames (RFC 6455) of a client: limits before anything is kept, nothing decoded.
//!
//! Text is handed on as bytes: one message that is not UTF-8 costs that message, not the
//! connection, which is why tungstenite's own reader does not do here. Its headers do.

use std::io::Cursor;

use bytes::{Buf as _, BytesMut};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Largest message taken; the largest answer the protocol allows is 10 MiB.
pub(crate) const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// Largest control frame, by the RFC.
const MAX_CONTROL: u64 = 125;

/// What arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A text message; perhaps not UTF-8.
    Text(Vec<u8>),
    /// A binary message.
    Binary(Vec<u8>),
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
    #[error("a message over 16 MiB")]
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
            let into = match opcode {
                OpCode::Control(_) => &mut self.control,
                OpCode::Data(_) => &mut self.message,
            };
            into.extend_from_slice(&input[..now]);
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
                    return Ok(Some(match self.kind.take() {
                        Some(Data::Text) => Incoming::Text(bytes),
                        _ => Incoming::Binary(bytes),
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
                let room = MAX_MESSAGE - self.message.len();
                if usize::try_from(len).map_or(true, |len| len > room) {
                    return Err(FrameError::TooLarge);
                }
            }
        }
        Ok(Some((header.opcode, header.is_final, len as usize)))
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
        wire.extend([0x89, 1, 7]);
        wire.extend([0x00, 1, 0xff, 0x80, 1, b'c']);
        wire.extend([0x82, 126, 0, 200]);
        wire.extend([9; 200]);
        wire.extend([0x8a, 0, 0x88, 2, 3, 0xf1]);
        let expected = [
            Incoming::Ping(vec![7]),
            Incoming::Text(b"ab\xffc".to_vec()),
            Incoming::Binary(vec![9; 200]),
            Incoming::Pong,
            Incoming::Close(Some(1009), String::new()),
        ];
        for step in 1..wire.len() {
            assert_eq!(read(&wire, step).unwrap(), expected, "{step}");
        }
    }

    #[test]
    fn what_is_announced_costs_nothing_and_too_much_is_refused() {
        let mut huge = vec![0x81, 127];
        huge.extend((MAX_MESSAGE as u64).to_be_bytes());
        let mut reader = Reader::default();
        assert_eq!(reader.next(&mut BytesMut::from(&huge[..])), Ok(None));
        assert!(reader.message.capacity() < 1024);
        huge[2..].copy_from_slice(&(MAX_MESSAGE as u64 + 1).to_be_bytes());
        assert_eq!(read(&huge, 99), Err(FrameError::TooLarge));
        huge[2..].copy_from_slice(&u64::MAX.to_be_bytes());
        assert_eq!(read(&huge, 99), Err(FrameError::TooLarge));
        // In parts, too.
        let mut parts = vec![0x01, 127];
        parts.extend((MAX_MESSAGE as u64 - 1).to_be_bytes());
        parts.resize(parts.len() + MAX_MESSAGE - 1, b'x');
        parts.extend([0x00, 2]);
        assert_eq!(read(&parts, 1 << 20), Err(FrameError::TooLarge));
    }

    #[test]
    fn what_is_no_frame_is_named() {
        for wire in [
            &[0x83, 0][..],
            &[0xc1, 0],
            &[0x81, 0x80, 0, 0, 0, 0],
            &[0x80, 0],
            &[0x01, 0, 0x81, 0],
            &[0x09, 0],
            &[0x89, 126, 0, 200],
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
