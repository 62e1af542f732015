//! RTP packets (RFC 3550) and how coded media goes into them.

pub mod aac;
pub mod h264;

/// What one packet carries, before its header is put on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The payload.
    pub bytes: Vec<u8>,
    /// Marker bit: the last packet of an access unit.
    pub marker: bool,
}

/// Length of a header without contributing sources and extension.
pub const HEADER: usize = 12;

/// One RTP source: puts headers on and counts for its sender reports.
#[derive(Debug, Clone)]
pub struct Source {
    /// Synchronisation source.
    pub ssrc: u32,
    payload_type: u8,
    sequence: u16,
    packets: u32,
    octets: u32,
}

impl Source {
    /// A source that has sent nothing yet.
    pub fn new(ssrc: u32, payload_type: u8, first_sequence: u16) -> Self {
        Self {
            ssrc,
            payload_type,
            sequence: first_sequence,
            packets: 0,
            octets: 0,
        }
    }

    /// Packets and payload octets sent so far, modulo 2^32 as sender reports want them.
    pub fn sent(&self) -> (u32, u32) {
        (self.packets, self.octets)
    }

    /// One complete packet.
    pub fn packet(&mut self, timestamp: u32, payload: &Payload) -> Vec<u8> {
        let mut packet = Vec::with_capacity(HEADER + payload.bytes.len());
        packet.push(0x80);
        packet.push((u8::from(payload.marker) << 7) | self.payload_type);
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(timestamp.to_be_bytes());
        packet.extend(self.ssrc.to_be_bytes());
        packet.extend(&payload.bytes);
        self.sequence = self.sequence.wrapping_add(1);
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(payload.bytes.len() as u32);
        packet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_wrap_and_counts_grow() {
        let mut source = Source::new(0x0102_0304, 96, 0xffff);
        let payload = Payload {
            bytes: vec![7, 8, 9],
            marker: true,
        };
        let first = source.packet(0xfffe_fdfc, &payload);
        assert_eq!(
            first,
            [
                0x80, 0xe0, 0xff, 0xff, 0xff, 0xfe, 0xfd, 0xfc, 1, 2, 3, 4, 7, 8, 9
            ]
        );
        let second = source.packet(
            0,
            &Payload {
                marker: false,
                ..payload
            },
        );
        assert_eq!(second[1..4], [0x60, 0, 0]);
        assert_eq!(source.sent(), (2, 6));
    }
}
