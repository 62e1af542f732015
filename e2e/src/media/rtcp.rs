//! RTCP (RFC 3550, section 6) as a sender needs it: sender reports, CNAME, BYE.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds from 1900 (NTP) to 1970 (Unix).
const NTP_TO_UNIX: i128 = 2_208_988_800;

/// A sender report's contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderReport {
    /// Who reports.
    pub ssrc: u32,
    /// Wall time, 32.32 fixed-point seconds since 1900.
    pub ntp: u64,
    /// The RTP timestamp of the same instant.
    pub rtp_time: u32,
    /// Packets sent so far.
    pub packets: u32,
    /// Payload octets sent so far.
    pub octets: u32,
}

/// Nanoseconds since the Unix epoch as NTP time.
pub fn ntp(unix_nanos: i128) -> u64 {
    let nanos = unix_nanos + NTP_TO_UNIX * 1_000_000_000;
    ((nanos << 32) / 1_000_000_000) as u64
}

/// Now, in nanoseconds since the Unix epoch.
pub fn unix_nanos_now() -> i128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as i128)
}

fn header(count: u8, kind: u8, words: usize) -> [u8; 4] {
    let length = (words as u16 - 1).to_be_bytes();
    [0x80 | count, kind, length[0], length[1]]
}

/// A sender report.
pub fn sender_report(report: &SenderReport) -> Vec<u8> {
    let mut packet = header(0, 200, 7).to_vec();
    packet.extend(report.ssrc.to_be_bytes());
    packet.extend(report.ntp.to_be_bytes());
    packet.extend(report.rtp_time.to_be_bytes());
    packet.extend(report.packets.to_be_bytes());
    packet.extend(report.octets.to_be_bytes());
    packet
}

/// A receiver report without blocks: what a compound packet begins with when no sender report is due.
pub fn empty_receiver_report(ssrc: u32) -> Vec<u8> {
    [&header(0, 201, 2)[..], &ssrc.to_be_bytes()].concat()
}

/// A source description with the canonical name that ties the sources of one sender together.
pub fn cname(ssrc: u32, name: &str) -> Vec<u8> {
    let mut chunk = ssrc.to_be_bytes().to_vec();
    chunk.push(1);
    chunk.push(name.len() as u8);
    chunk.extend(name.as_bytes());
    // At least one zero ends the list, more fill the word.
    chunk.extend(vec![0; 4 - chunk.len() % 4]);
    [&header(1, 202, 1 + chunk.len() / 4)[..], &chunk].concat()
}

/// The source leaves.
pub fn bye(ssrc: u32) -> Vec<u8> {
    [&header(1, 203, 2)[..], &ssrc.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ntp_time_has_its_own_epoch_and_fraction() {
        assert_eq!(ntp(0), 2_208_988_800 << 32);
        assert_eq!(ntp(500_000_000), (2_208_988_800 << 32) + (1 << 31));
    }

    #[test]
    fn packets_are_whole_words_with_matching_lengths() {
        let report = SenderReport {
            ssrc: 1,
            ntp: 2,
            rtp_time: 3,
            packets: 4,
            octets: 5,
        };
        for name in ["a", "ab", "abc", "abcd", "publisher@host"] {
            for packet in [
                sender_report(&report),
                empty_receiver_report(1),
                cname(1, name),
                bye(1),
            ] {
                let words = usize::from(u16::from_be_bytes([packet[2], packet[3]])) + 1;
                assert_eq!(packet.len(), words * 4, "{packet:?}");
            }
        }
        assert_eq!(
            cname(9, "ab"),
            [0x81, 202, 0, 3, 0, 0, 0, 9, 1, 2, b'a', b'b', 0, 0, 0, 0]
        );
    }
}
