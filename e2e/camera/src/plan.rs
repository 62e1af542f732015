//! Everything a camera sends, as packets with the moment each leaves. Pure: no socket, no clock.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rtcp_types::prelude::*;
use rtcp_types::{Bye, Compound, ReceiverReport, Sdes, SdesChunk, SdesItem, SenderReport};
use rtp_types::RtpPacketBuilder;
use sha2::{Digest as _, Sha256};

use crate::clip::{Clip, Codec};
use crate::description::{Description, Kind};
use crate::lane::{Lane, SECOND, Unit, nanos};
use crate::manner::{Manner, ReportKind, TrackManner};
use crate::payload::{self, HEADER, Payload};
use crate::sent::Picture;

/// What ties a camera's tracks together for receivers.
const CNAME: &str = "camera@e2e";
/// One element of a byte (RFC 8285).
const EXTENSION: [u8; 4] = [0x10, 0xaa, 0, 0];
/// Seconds from the epoch of NTP to that of Unix.
const NTP_EPOCH: i128 = 2_208_988_800;

/// Packets that leave at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// When, counted from the start of sending.
    pub at: Duration,
    /// Which medium, in the order of the description.
    pub track: usize,
    /// What is in these packets.
    pub what: What,
    /// RTP packets, or one compound RTCP packet.
    pub packets: Vec<Vec<u8>>,
    /// RTP packets that belong here and are held back, for they get lost.
    pub lost: usize,
}

/// What is in some packets.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    Picture(Picture),
    /// So many audio frames.
    Audio(usize),
    /// Metadata.
    More,
    /// RTCP.
    Report,
}

/// One track with its RTP source.
#[derive(Debug)]
struct Track {
    lane: Lane,
    kind: Kind,
    /// Its place in the description.
    place: usize,
    payload_type: u8,
    ssrc: u32,
    sequence: u16,
    packets: u32,
    octets: u32,
    /// When the next report leaves; unknown before the first packet.
    report_at: Option<i64>,
    /// RTP packets that still get lost, and the next entry of the list of losses.
    losing: usize,
    next_loss: usize,
    /// The next entry of the list of farewells.
    next_bye: usize,
    /// Of the last unit.
    timestamp: Option<u32>,
    /// When a packet arrived by whose timestamp one can tell the time, and that timestamp.
    anchor: Option<(i64, u32)>,
}

/// An iterator over everything that is sent, in order of time.
#[derive(Debug)]
pub struct Plan<'a> {
    clip: &'a Clip,
    manner: &'a Manner,
    tracks: Vec<Track>,
    /// What else is sent: its place in the description and the moment it is due.
    more: Vec<(usize, usize, i64)>,
    random: StdRng,
    /// Wall time of the start of sending, nanoseconds since the Unix epoch.
    start: i128,
    /// From the start of sending to second 0 of the clip, nanoseconds.
    lead: i64,
    /// When the last frame sent so far is over, on the sending axis.
    end: i64,
}

impl<'a> Plan<'a> {
    /// Plans a clip. `start` is the wall time of the first packet, nanoseconds since the Unix epoch.
    pub fn new(
        clip: &'a Clip,
        manner: &'a Manner,
        description: &Description,
        seed: u64,
        start: i128,
    ) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let period = manner.repeat.then(|| length(clip));
        let mut tracks: Vec<Track> = Vec::new();
        for (place, medium) in description.media.iter().enumerate() {
            let mut base = |track: &TrackManner| track.rtp_base.unwrap_or_else(|| random.random());
            let lane = match (medium.kind, &clip.video, &clip.audio) {
                (Kind::Video, Some(video), _) => {
                    Lane::video(video, period, manner, base(&manner.video))
                }
                (Kind::Audio, _, Some(audio)) => {
                    Lane::audio(audio, period, manner, base(&manner.audio))
                }
                _ => continue,
            };
            tracks.push(Track {
                lane,
                kind: medium.kind,
                place,
                payload_type: medium.payload_type,
                ssrc: random.random(),
                sequence: random.random(),
                packets: 0,
                octets: 0,
                report_at: None,
                losing: 0,
                next_loss: 0,
                next_bye: 0,
                timestamp: None,
                anchor: None,
            });
        }
        if let (true, [first, others @ ..]) = (manner.one_ssrc, tracks.as_mut_slice()) {
            for other in others {
                other.ssrc = first.ssrc;
            }
        }
        let begins = tracks
            .iter()
            .filter_map(|track| Some(track.lane.peek()?.send));
        let lead = -begins.min().unwrap_or(0);
        let media = description.media.iter().enumerate();
        let more = media.filter_map(|(place, medium)| match medium.kind {
            Kind::More(index) => manner.more_media[index]
                .payload
                .as_ref()
                .map(|_| (place, index, 0)),
            _ => None,
        });
        let more = more.collect();
        Self {
            clip,
            manner,
            tracks,
            more,
            random,
            start,
            lead,
            end: 0,
        }
    }

    /// When the last frame sent so far is over, counted from the start of sending.
    pub fn end(&self) -> Duration {
        duration(self.end)
    }

    /// Place in the description, sequence number and timestamp of the first packet of each track.
    pub fn first_packets(&self) -> Vec<(usize, u16, u32)> {
        let tracks = self.tracks.iter();
        tracks
            .filter_map(|track| {
                let unit = track.lane.peek()?;
                Some((
                    track.place,
                    track.sequence,
                    track.lane.rtp_base.wrapping_add(unit.rtp as u32),
                ))
            })
            .collect()
    }

    /// The farewell of every track: a compound RTCP packet that ends in BYE.
    pub fn farewell(&self) -> Vec<Outgoing> {
        let tracks = self.tracks.iter();
        tracks.map(|track| self.bye(track, self.end)).collect()
    }

    fn bye(&self, track: &Track, at: i64) -> Outgoing {
        let empty = ReceiverReport::builder(track.ssrc);
        let bye = Bye::builder().add_source(track.ssrc);
        let packet = written(&Compound::builder().add_packet(empty).add_packet(bye));
        self.outgoing(at, track.place, What::Report, vec![packet])
    }

    fn outgoing(&self, at: i64, track: usize, what: What, packets: Vec<Vec<u8>>) -> Outgoing {
        Outgoing {
            at: duration(self.leaves(at)),
            track,
            what,
            packets,
            lost: 0,
        }
    }

    /// When something leaves the network that was sent at `at`.
    fn leaves(&self, at: i64) -> i64 {
        let held = self.manner.bursts.iter().find(|burst| {
            let begin = nanos(burst.at);
            (begin..begin + nanos(burst.seconds)).contains(&at)
        });
        held.map_or(at, |burst| nanos(burst.at + burst.seconds))
            .max(0)
    }

    /// When a unit is sent, on the sending axis.
    fn due(&self, unit: &Unit) -> i64 {
        (unit.send + self.lead - nanos(self.manner.head_start)).max(0)
    }

    /// What the camera's wall clock says, as an NTP timestamp.
    fn ntp(&self, at: i64) -> u64 {
        let wall = &self.manner.wall;
        let starts = wall
            .starts
            .map_or(self.start, |starts| i128::from(nanos(starts)));
        let mut now = starts + i128::from(at);
        for step in wall.steps.iter().filter(|step| at >= nanos(step.at)) {
            now = if step.right {
                self.start + i128::from(at)
            } else {
                now + i128::from(nanos(step.by))
            };
        }
        let second = i128::from(SECOND);
        (((now + NTP_EPOCH * second) << 32) / second) as u64
    }

    /// The report of a track for the moment `at`; `None` if it has nothing to tell yet.
    fn report(&mut self, index: usize, at: i64) -> Option<Outgoing> {
        let limit = nanos(self.settings(index).reports_wander_ms / 1e3);
        let wander = if limit > 0 {
            self.random.random_range(-limit..=limit)
        } else {
            0
        };
        let track = &mut self.tracks[index];
        track.report_at = Some(at + nanos(self.manner.reports.every.max(0.01)));
        let track = &self.tracks[index];
        let (ntp, rtp) = match self.manner.reports.kind {
            ReportKind::Absent => return None,
            ReportKind::Honest => {
                let media_time = at - self.lead + nanos(self.manner.head_start);
                (
                    self.ntp(at + wander),
                    track
                        .lane
                        .rtp_base
                        .wrapping_add(track.lane.report(media_time) as u32),
                )
            }
            ReportKind::Arrival => {
                let (arrived, rtp) = track.anchor?;
                let since = (i128::from(at - arrived) * i128::from(track.lane.clock)
                    / i128::from(SECOND)) as u32;
                (self.ntp(at), rtp.wrapping_add(since))
            }
        };
        let report = SenderReport::builder(track.ssrc)
            .ntp_timestamp(ntp)
            .rtp_timestamp(rtp)
            .packet_count(track.packets)
            .octet_count(track.octets);
        let mut compound = Compound::builder().add_packet(report);
        if self.manner.reports.cname {
            let chunk =
                SdesChunk::builder(track.ssrc).add_item(SdesItem::builder(SdesItem::CNAME, CNAME));
            compound = compound.add_packet(Sdes::builder().add_chunk(chunk));
        }
        Some(self.outgoing(at, track.place, What::Report, vec![written(&compound)]))
    }

    fn settings(&self, index: usize) -> &'a TrackManner {
        match self.tracks[index].kind {
            Kind::Video => &self.manner.video,
            _ => &self.manner.audio,
        }
    }

    /// RTP payloads of a unit, and what they are.
    fn payloads(&self, kind: Kind, unit: &Unit) -> (Vec<Payload>, What) {
        let max = self.manner.max_packet - HEADER;
        match (kind, &self.clip.video, &self.clip.audio) {
            (Kind::Video, Some(video), _) => {
                let picture = &video.pictures[unit.samples[0]];
                // Those of a spliced clip were announced nowhere.
                let in_band = picture.keyframe && (self.manner.sets_in_band || picture.sets > 0);
                let sets = video.sets[picture.sets].iter().filter(|_| in_band);
                let padding = &self.manner.padding;
                let padding = if picture.keyframe {
                    padding.keyframe
                } else {
                    padding.picture
                };
                let padding = (padding > 0).then(|| payload::padding(padding));
                let nals = sets.chain(&padding).chain(&picture.nals).map(Vec::as_slice);
                let around = self.manner.delimiters;
                let before = around.then_some(&payload::DELIMITER[..]);
                let behind = around.then_some(&payload::FILLER[..]);
                let nals = before.into_iter().chain(nals).chain(behind);
                let what = Picture {
                    slices: slices(&picture.nals),
                    pts_ms: unit.pts as f64 / 1e6,
                    keyframe: picture.keyframe,
                };
                (
                    payload::h264(nals, max, self.manner.markers, self.manner.aggregated),
                    What::Picture(what),
                )
            }
            (Kind::Audio, _, Some(audio)) => {
                let frames = unit.samples.iter();
                let frames: Vec<_> = frames
                    .map(|index| audio.frames[*index].data.as_slice())
                    .collect();
                let payloads = match audio.codec {
                    Codec::Aac(_) => payload::aac(&frames, max),
                    Codec::Mpeg => payload::mpeg(&frames, max),
                    Codec::Latm(_) => frames.iter().map(|frame| payload::latm(frame)).collect(),
                    _ => frames
                        .iter()
                        .map(|frame| Payload {
                            bytes: frame.to_vec(),
                            marker: false,
                        })
                        .collect(),
                };
                (payloads, What::Audio(unit.samples.len()))
            }
            _ => (Vec::new(), What::More),
        }
    }

    fn unit(&mut self, index: usize) -> Option<Outgoing> {
        let unit = self.tracks[index].lane.pop()?;
        let at = self.due(&unit);
        self.end = self.end.max(at + unit.end - unit.send);
        let (payloads, what) = self.payloads(self.tracks[index].kind, &unit);
        let settings = self.settings(index);
        let leaves = self.leaves(at);
        let new_source = unit
            .new_ssrc
            .then(|| (self.random.random(), self.random.random()));
        let track = &mut self.tracks[index];
        if let Some(source) = new_source {
            (track.ssrc, track.sequence) = source;
        }
        track.sequence = track.sequence.wrapping_add_signed(unit.sequence);
        while let Some(loss) = settings
            .lost
            .get(track.next_loss)
            .filter(|loss| unit.pts >= nanos(loss.at))
        {
            track.losing += loss.packets;
            track.next_loss += 1;
        }
        let timestamp = track.lane.rtp_base.wrapping_add(unit.rtp as u32);
        let before = track.timestamp.replace(timestamp).unwrap_or(timestamp);
        let (mut packets, mut lost) = (Vec::with_capacity(payloads.len()), 0);
        let odd = self.manner.packets;
        let [private, interleaved] = [0x1f, 0x1a].map(|kind| Payload {
            bytes: vec![kind, 1, 2, 3],
            marker: false,
        });
        for payload in &payloads {
            let is = |one_in: u16| track.sequence.checked_rem(one_in) == Some(0);
            let (doubled, empty) = (is(odd.doubled), is(odd.empty));
            let is_video = track.kind == Kind::Video;
            let private = (is_video && is(odd.private)).then_some(Some(&private));
            let interleaved = (is_video && is(odd.interleaved)).then_some(Some(&interleaved));
            let is_set = is_video && payload::is_parameter_set(&payload.bytes);
            let early = self.manner.sets_early && is_set;
            let timestamp = if early { before } else { timestamp };
            let whole = Some(payload);
            for payload in empty
                .then_some(None)
                .into_iter()
                .chain(private)
                .chain(interleaved)
                .chain([whole])
            {
                let mut packet = RtpPacketBuilder::<&[u8], &[u8]>::new()
                    .payload_type(track.payload_type)
                    .sequence_number(track.sequence)
                    .timestamp(timestamp)
                    .ssrc(track.ssrc);
                if odd.dressed {
                    packet = packet.extension(0xbede, &EXTENSION).padding(8);
                }
                if let Some(payload) = payload {
                    packet = packet
                        .marker_bit(payload.marker && !settings.unmarked)
                        .payload(&payload.bytes);
                    track.octets = track.octets.wrapping_add(payload.bytes.len() as u32);
                }
                let packet = packet.write_vec_unchecked();
                track.sequence = track.sequence.wrapping_add(1);
                track.packets = track.packets.wrapping_add(1);
                if track.losing > 0 {
                    track.losing -= 1;
                    lost += 1;
                } else {
                    packets.extend(doubled.then(|| packet.clone()));
                    packets.push(packet);
                }
            }
        }
        if odd.swapped > 1 {
            let swapped = packets.chunks_exact_mut(odd.swapped.into());
            swapped.for_each(|packets| packets.swap(0, 1));
        }
        let tells_time = !matches!(&what, What::Picture(picture) if !picture.keyframe);
        if tells_time {
            track.anchor = Some((leaves, timestamp));
        }
        track
            .report_at
            .get_or_insert(at.max(nanos(self.manner.reports.first)));
        let place = track.place;
        Some(Outgoing {
            lost,
            ..self.outgoing(at, place, what, packets)
        })
    }

    fn metadata(&mut self, index: usize) -> Outgoing {
        let (place, which, at) = self.more[index];
        let medium = &self.manner.more_media[which];
        self.more[index].2 = at + nanos(medium.every.max(0.01));
        let payload = medium.payload.as_deref().unwrap_or_default();
        let count = at / nanos(medium.every.max(0.01));
        let packet = RtpPacketBuilder::<&[u8], &[u8]>::new()
            .payload_type(crate::description::payload_type(&medium.lines))
            .sequence_number(count as u16)
            .timestamp((at / 1_000_000 * 90) as u32)
            .ssrc(which as u32 + 1)
            .marker_bit(true)
            .payload(payload.as_bytes())
            .write_vec_unchecked();
        self.outgoing(at, place, What::More, vec![packet])
    }
}

impl Iterator for Plan<'_> {
    type Item = Outgoing;

    fn next(&mut self) -> Option<Outgoing> {
        loop {
            // Of what is due first: at the same moment media goes before reports, video before audio.
            let tracks = self.tracks.iter().enumerate();
            let due = tracks.filter_map(|(index, track)| {
                let unit = self.due(track.lane.peek()?);
                Some(match track.report_at {
                    Some(report) if report < unit => (report, true, index),
                    _ => (unit, false, index),
                })
            });
            let (at, is_report, index) = due.min()?;
            let more = self
                .more
                .iter()
                .enumerate()
                .find(|(_, (_, _, due))| *due <= at);
            if let Some((index, _)) = more {
                return Some(self.metadata(index));
            }
            let track = &self.tracks[index];
            let bye = self.settings(index).byes.get(track.next_bye);
            if bye.is_some_and(|bye| at >= nanos(*bye)) {
                let bye = self.bye(track, at);
                self.tracks[index].next_bye += 1;
                return Some(bye);
            }
            if !is_report {
                return self.unit(index);
            }
            if let Some(report) = self.report(index, at) {
                return Some(report);
            }
        }
    }
}

/// How long a clip is, in nanoseconds: its pictures, or its sound where there is none.
fn length(clip: &Clip) -> i64 {
    let video = clip.video.as_ref().and_then(|video| {
        let ends = video
            .pictures
            .iter()
            .map(|picture| picture.pts + picture.ticks);
        ends.max()
            .map(|end| crate::clip::rescale(end, crate::clip::VIDEO_CLOCK, SECOND as u32))
    });
    let audio = clip.audio.as_ref().and_then(|audio| {
        let last = audio.frames.last()?;
        Some(crate::clip::rescale(
            last.pts + last.samples,
            audio.rate,
            SECOND as u32,
        ))
    });
    video.or(audio).unwrap_or(0).max(1_000_000)
}

/// SHA-256 over the slices of a picture as ffmpeg's `filter_units` writes them: a long start code
/// before the first, short ones before the others. Parameter sets and SEI do not count: a muxer may
/// repeat or drop them.
fn slices(nals: &[Vec<u8>]) -> String {
    let mut hasher = Sha256::new();
    for (index, nal) in nals.iter().filter(|nal| payload::is_slice(nal)).enumerate() {
        let start: &[u8] = if index == 0 {
            &[0, 0, 0, 1]
        } else {
            &[0, 0, 1]
        };
        hasher.update(start);
        hasher.update(nal);
    }
    hex::encode(hasher.finalize())
}

fn written(packet: &impl RtcpPacketWriter) -> Vec<u8> {
    let size = packet
        .calculate_size()
        .expect("our packets keep to RTCP's limits");
    let mut bytes = vec![0; size];
    packet.write_into_unchecked(&mut bytes);
    bytes
}

fn duration(nanos: i64) -> Duration {
    Duration::from_nanos(nanos.max(0) as u64)
}

#[cfg(test)]
mod tests;
