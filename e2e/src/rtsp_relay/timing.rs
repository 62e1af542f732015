//! Where a track is in time, read from the packets that pass: for the `RTP-Info` of late readers.

/// Length of the fixed RTP header.
const RTP_HEADER: usize = 12;
/// RTCP packet type of a sender report.
const SENDER_REPORT: u8 = 200;

/// What the packets of one track have told so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Timing {
    /// Sequence number and timestamp of the last RTP packet.
    last: Option<(u16, u32)>,
    /// NTP time (32.32 fixed point seconds) and RTP timestamp of the last sender report.
    report: Option<(u64, u32)>,
}

/// One track's entry in `RTP-Info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// Sequence number of the next packet.
    pub seq: u16,
    /// RTP timestamp of an instant that is the same for all tracks; absent as long as not every
    /// track has sent a report.
    pub rtptime: Option<u32>,
}

impl Timing {
    /// Takes note of an RTP packet.
    pub(super) fn on_rtp(&mut self, packet: &[u8]) {
        if packet.len() >= RTP_HEADER && packet[0] >> 6 == 2 {
            self.last = Some((u16::from_be_bytes([packet[2], packet[3]]), be32(packet, 4)));
        }
    }

    /// Takes note of an RTCP packet; a sender report comes first in a compound one.
    pub(super) fn on_rtcp(&mut self, packet: &[u8]) {
        if packet.len() >= 20 && packet[1] == SENDER_REPORT {
            let ntp = u64::from(be32(packet, 8)) << 32 | u64::from(be32(packet, 12));
            self.report = Some((ntp, be32(packet, 16)));
        }
    }
}

/// Positions of all tracks at the newest instant of the first one; `None` for a track that has sent
/// nothing yet.
pub(super) fn positions(tracks: &[(Timing, Option<u32>)]) -> Vec<Option<Position>> {
    let now = common_instant(tracks);
    let entry = |(timing, rate): &(Timing, Option<u32>)| {
        let (seq, _) = timing.last?;
        let rtptime = now
            .zip(timing.report)
            .zip(*rate)
            .map(|((now, (ntp, rtp)), rate)| {
                // Signed: the instant may lie before this track's last report.
                let since = i128::from(now) - i128::from(ntp);
                rtp.wrapping_add(((since * i128::from(rate)) >> 32) as u32)
            });
        Some(Position {
            seq: seq.wrapping_add(1),
            rtptime,
        })
    };
    tracks.iter().map(entry).collect()
}

/// NTP time of the first track's last packet, if every track can be placed relative to it.
fn common_instant(tracks: &[(Timing, Option<u32>)]) -> Option<u64> {
    let placed = |(timing, rate): &(Timing, Option<u32>)| {
        timing.last.is_some() && timing.report.is_some() && rate.is_some()
    };
    if !tracks.iter().all(placed) {
        return None;
    }
    let (timing, rate) = tracks.first()?;
    let ((_, last), (ntp, rtp)) = timing.last.zip(timing.report)?;
    let ticks = i64::from(last.wrapping_sub(rtp) as i32);
    Some(ntp.wrapping_add_signed((ticks << 32) / i64::from((*rate)?)))
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rtp(seq: u16, time: u32) -> Vec<u8> {
        let mut packet = vec![0x80, 96];
        packet.extend(seq.to_be_bytes());
        packet.extend(time.to_be_bytes());
        packet.extend([0; 8]);
        packet
    }

    fn report(seconds: u32, time: u32) -> Vec<u8> {
        let mut packet = vec![0x80, SENDER_REPORT, 0, 6, 0, 0, 0, 1];
        packet.extend(seconds.to_be_bytes());
        packet.extend([0; 4]);
        packet.extend(time.to_be_bytes());
        packet.extend([0; 8]);
        packet
    }

    fn track(packets: &[Vec<u8>], reports: &[Vec<u8>], rate: u32) -> (Timing, Option<u32>) {
        let mut timing = Timing::default();
        for packet in packets {
            timing.on_rtp(packet);
        }
        for packet in reports {
            timing.on_rtcp(packet);
        }
        (timing, Some(rate))
    }

    #[test]
    fn all_tracks_are_placed_at_one_instant() {
        // Both reports say second 100; the last video packet is 2 s later.
        let video = track(&[rtp(7, 1_000 + 180_000)], &[report(100, 1_000)], 90_000);
        let audio = track(&[rtp(65_535, 5_000)], &[report(100, 500)], 48_000);
        assert_eq!(
            positions(&[video, audio]),
            [
                Some(Position {
                    seq: 8,
                    rtptime: Some(181_000)
                }),
                Some(Position {
                    seq: 0,
                    rtptime: Some(96_500)
                }),
            ]
        );
    }

    #[test]
    fn timestamps_wrap_and_may_lie_before_the_report() {
        let video = track(&[rtp(1, u32::MAX - 89_999)], &[report(100, 0)], 90_000);
        let audio = track(&[rtp(1, 0)], &[report(100, 10)], 48_000);
        let found = positions(&[video, audio]);
        assert_eq!(found[0].unwrap().rtptime, Some(u32::MAX - 89_999));
        assert_eq!(found[1].unwrap().rtptime, Some(10u32.wrapping_sub(48_000)));
    }

    #[test]
    fn without_all_reports_only_sequence_numbers_are_known() {
        let video = track(&[rtp(1, 90)], &[report(100, 0)], 90_000);
        let audio = track(&[rtp(5, 10)], &[], 48_000);
        let found = positions(&[video, audio, (Timing::default(), None)]);
        assert_eq!(
            found,
            [
                Some(Position {
                    seq: 2,
                    rtptime: None
                }),
                Some(Position {
                    seq: 6,
                    rtptime: None
                }),
                None
            ]
        );
    }

    #[test]
    fn what_is_not_a_packet_is_ignored() {
        let mut timing = Timing::default();
        timing.on_rtp(&[0x80; 11]);
        timing.on_rtp(&[0; 20]);
        timing.on_rtcp(&[0x80, 201, 0, 6]);
        assert!(timing.last.is_none() && timing.report.is_none());
    }
}
