//! What the publisher sends, read back from the packets themselves.

mod depayload;
mod faults;
mod plan;
mod wire;

use std::time::Duration;

use clap::Parser;

use super::{Media, Options, Outgoing, Stream, select};
use crate::media::clip::Clip;
use crate::media::testclip;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    options: Options,
}

/// Options as the command line would give them; always seeded, timestamps from 0.
fn options(arguments: &str) -> Options {
    let fixed = ["publisher", "--seed", "7", "--rtp-base", "0"];
    Flags::parse_from(fixed.into_iter().chain(arguments.split_whitespace())).options
}

fn clip(recipe: testclip::Recipe) -> Clip {
    Clip::open(&testclip::path(recipe)).unwrap()
}

/// An RTP packet taken apart.
#[derive(Debug, Clone)]
struct Rtp {
    at: Duration,
    sequence: u16,
    timestamp: u32,
    marker: bool,
    payload: Vec<u8>,
}

/// A sender report taken apart; wall time in nanoseconds since the start of sending.
#[derive(Debug, Clone, PartialEq)]
struct Report {
    at: Duration,
    wall: i128,
    timestamp: u32,
    packets: u32,
}

/// Everything a clip is sent as.
struct Sent {
    rtp: [Vec<Rtp>; 2],
    reports: [Vec<Report>; 2],
    frames: [usize; 2],
    order: Vec<Outgoing>,
}

const START: i128 = 1_700_000_000_000_000_000;

fn send(recipe: testclip::Recipe, arguments: &str) -> Sent {
    let options = options(arguments);
    let clip = select(clip(recipe), &options).unwrap();
    collect(Stream::new(&clip, &options, START))
}

fn collect(stream: impl Iterator<Item = Outgoing>) -> Sent {
    let mut sent = Sent {
        rtp: Default::default(),
        reports: Default::default(),
        frames: [0; 2],
        order: Vec::new(),
    };
    for outgoing in stream {
        let lane = usize::from(outgoing.media == Media::Audio);
        sent.frames[lane] += outgoing.frames;
        for packet in &outgoing.packets {
            if outgoing.frames > 0 {
                sent.rtp[lane].push(rtp(outgoing.at, packet));
            } else if packet[1] == 200 {
                sent.reports[lane].push(report(outgoing.at, packet));
            }
        }
        sent.order.push(outgoing);
    }
    sent
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn rtp(at: Duration, packet: &[u8]) -> Rtp {
    assert_eq!(packet[0], 0x80);
    Rtp {
        at,
        sequence: u16::from_be_bytes([packet[2], packet[3]]),
        timestamp: word(packet, 4),
        marker: packet[1] & 0x80 != 0,
        payload: packet[12..].to_vec(),
    }
}

fn report(at: Duration, packet: &[u8]) -> Report {
    let ntp = (i128::from(word(packet, 8)) << 32) | i128::from(word(packet, 12));
    let unix = ((ntp * 1_000_000_000) >> 32) - 2_208_988_800_000_000_000;
    Report {
        at,
        wall: unix - START,
        timestamp: word(packet, 16),
        packets: word(packet, 20),
    }
}

impl Sent {
    fn video(&self) -> &[Rtp] {
        &self.rtp[0]
    }

    fn audio(&self) -> &[Rtp] {
        &self.rtp[1]
    }

    /// RTP timestamps of a track in the order of sending, each once.
    fn stamps(&self, media: Media) -> Vec<u32> {
        let mut stamps: Vec<_> = self.rtp[usize::from(media == Media::Audio)]
            .iter()
            .map(|packet| packet.timestamp)
            .collect();
        stamps.dedup();
        stamps
    }
}

/// Differences of neighbours.
fn steps(stamps: &[u32]) -> Vec<i32> {
    stamps
        .windows(2)
        .map(|pair| pair[1].wrapping_sub(pair[0]) as i32)
        .collect()
}

fn millis(at: Duration) -> f64 {
    at.as_secs_f64() * 1000.0
}
