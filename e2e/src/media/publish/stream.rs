//! Everything a publisher sends, as packets with the moment each leaves. Pure: no socket, no clock.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};

use super::lane::{Lane, Media, Unit, nanos};
use super::options::Options;
use crate::media::clip::{AudioFormat, Clip, FormatError, VideoFormat};
use crate::media::rtp::{HEADER, Payload, Source, aac, h264};
use crate::media::{nal, rtcp, sdp};

/// What ties the publisher's tracks together for receivers.
const CNAME: &str = "publisher@e2e";

/// Packets that leave at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// When, counted from the start of sending.
    pub at: Duration,
    /// Which track, in the order of the session description.
    pub track: usize,
    /// The media of that track.
    pub media: Media,
    /// Coded frames in these packets; 0 for RTCP.
    pub frames: usize,
    /// RTP packets, or one compound RTCP packet when `frames` is 0.
    pub packets: Vec<Vec<u8>>,
}

/// One track with its RTP source.
#[derive(Debug)]
struct Sender<'a> {
    lane: Lane<'a>,
    source: Source,
    rtp_base: u32,
    /// When the next report leaves; unknown before the first packet.
    report_at: Option<i64>,
}

/// An iterator over everything that is sent, in order of time.
#[derive(Debug)]
pub struct Stream<'a> {
    clip: &'a Clip,
    options: &'a Options,
    senders: Vec<Sender<'a>>,
    random: StdRng,
    /// Wall time of the start of sending, nanoseconds since the Unix epoch.
    start: i128,
    /// From the start of sending to second 0 of the clip, nanoseconds.
    lead: i64,
    /// When the last frame sent so far is over, on the sending axis.
    end: i64,
}

impl<'a> Stream<'a> {
    /// Plans a clip. `start` is the wall time of the first packet, nanoseconds since the Unix epoch.
    ///
    /// The clip must have passed [`select`].
    pub fn new(clip: &'a Clip, options: &'a Options, start: i128) -> Self {
        let mut random =
            StdRng::seed_from_u64(options.seed.unwrap_or_else(|| rand::rng().next_u64()));
        let period = options.repeat.then(|| {
            let video = clip.video.as_ref().map(|track| track.nanos(track.end()));
            let audio = clip.audio.as_ref().map(|track| track.nanos(track.end()));
            video.or(audio).unwrap_or(0).max(1_000_000)
        });
        let mut lanes = Vec::new();
        if let Some(track) = &clip.video {
            let timing = (track.samples.as_slice(), track.timescale, sdp::VIDEO_CLOCK);
            lanes.push((
                Lane::new(Media::Video, timing, period, 1, options),
                sdp::VIDEO_TYPE,
            ));
        }
        if let Some(track) = &clip.audio {
            let clock = sdp::audio_clock(&track.format).unwrap_or(track.timescale);
            let per_packet = match track.format {
                AudioFormat::Aac(_) => usize::from(options.aac_per_packet),
                _ => 1,
            };
            let timing = (track.samples.as_slice(), track.timescale, clock);
            lanes.push((
                Lane::new(Media::Audio, timing, period, per_packet, options),
                sdp::AUDIO_TYPE,
            ));
        }
        let lead = -lanes
            .iter()
            .filter_map(|(lane, _)| lane.peek())
            .min()
            .unwrap_or(0);
        let senders = lanes
            .into_iter()
            .map(|(lane, payload_type)| Sender {
                lane,
                source: Source::new(random.random(), payload_type, random.random()),
                rtp_base: options.rtp_base.unwrap_or_else(|| random.random()),
                report_at: None,
            })
            .collect();
        Self {
            clip,
            options,
            senders,
            random,
            start,
            lead,
            end: 0,
        }
    }

    /// When the last frame sent so far is over, counted from the start of sending.
    pub fn end(&self) -> Duration {
        Duration::from_nanos(self.end.max(0) as u64)
    }

    /// The farewell of every track: a compound RTCP packet that ends in BYE.
    pub fn farewell(&self) -> Vec<Outgoing> {
        let senders = self.senders.iter().enumerate();
        senders
            .map(|(track, sender)| {
                let mut packet = self.report(sender, self.end, 0);
                packet.extend(rtcp::bye(sender.source.ssrc));
                Outgoing {
                    at: self.end(),
                    track,
                    media: sender.lane.media,
                    frames: 0,
                    packets: vec![packet],
                }
            })
            .collect()
    }

    /// A compound packet for the moment `at`, its wall time moved by `wander` nanoseconds.
    fn report(&self, sender: &Sender<'_>, at: i64, wander: i64) -> Vec<u8> {
        let ssrc = sender.source.ssrc;
        let (packets, octets) = sender.source.sent();
        let mut packet = if self.options.no_sr {
            rtcp::empty_receiver_report(ssrc)
        } else {
            rtcp::sender_report(&rtcp::SenderReport {
                ssrc,
                ntp: rtcp::ntp(self.start + i128::from(at + wander)),
                rtp_time: sender
                    .rtp_base
                    .wrapping_add(sender.lane.report(at - self.lead) as u32),
                packets,
                octets,
            })
        };
        if !self.options.no_cname {
            packet.extend(rtcp::cname(ssrc, CNAME));
        }
        packet
    }

    /// The RTP payloads of one unit.
    fn payloads(&self, media: Media, unit: &Unit) -> Vec<Payload> {
        let max = usize::from(self.options.max_packet) - HEADER;
        match media {
            Media::Video => {
                let Some((track, VideoFormat::H264(config))) =
                    self.clip.video.as_ref().map(|track| (track, &track.format))
                else {
                    return Vec::new();
                };
                let sample = &track.samples[unit.samples[0]];
                let sets = config.sps.iter().chain(&config.pps).map(Vec::as_slice);
                let repeat = self.options.inband_parameter_sets && sample.keyframe;
                let nals =
                    nal::split_avcc(self.clip.data(sample), config.length_size).unwrap_or_default();
                h264::payloads(sets.filter(|_| repeat).chain(nals), max)
            }
            Media::Audio => {
                let Some(track) = &self.clip.audio else {
                    return Vec::new();
                };
                let frames: Vec<_> = unit
                    .samples
                    .iter()
                    .map(|&index| self.clip.data(&track.samples[index]))
                    .collect();
                match track.format {
                    AudioFormat::Aac(_) => aac::payloads(&frames, max),
                    _ => frames
                        .iter()
                        .map(|frame| Payload {
                            bytes: frame.to_vec(),
                            marker: false,
                        })
                        .collect(),
                }
            }
        }
    }

    fn send_unit(&mut self, track: usize) -> Option<Outgoing> {
        let sender = &mut self.senders[track];
        let unit = sender.lane.pop()?;
        let media = sender.lane.media;
        let at = unit.send + self.lead;
        if !self.options.no_sr {
            sender.report_at.get_or_insert(at);
        }
        self.end = self.end.max(unit.end + self.lead);
        let payloads = self.payloads(media, &unit);
        let sender = &mut self.senders[track];
        let timestamp = sender.rtp_base.wrapping_add(unit.rtp as u32);
        let packets = payloads
            .iter()
            .map(|payload| sender.source.packet(timestamp, payload))
            .collect();
        Some(Outgoing {
            at: duration(at),
            track,
            media,
            frames: unit.samples.len(),
            packets,
        })
    }

    fn send_report(&mut self, track: usize, at: i64) -> Outgoing {
        let limit = i64::from(self.options.sr_wander_ms) * 1_000_000;
        let sender = &self.senders[track];
        let media = sender.lane.media;
        let wander = if media == Media::Audio {
            self.random.random_range(-limit..=limit)
        } else {
            0
        };
        let packet = self.report(&self.senders[track], at, wander);
        self.senders[track].report_at = Some(at + nanos(self.options.sr_interval));
        Outgoing {
            at: duration(at),
            track,
            media,
            frames: 0,
            packets: vec![packet],
        }
    }
}

fn duration(nanos: i64) -> Duration {
    Duration::from_nanos(nanos.max(0) as u64)
}

impl Iterator for Stream<'_> {
    type Item = Outgoing;

    fn next(&mut self) -> Option<Outgoing> {
        // Of what is due first: at the same moment media goes before reports, video before audio.
        let due = self
            .senders
            .iter()
            .enumerate()
            .filter_map(|(track, sender)| {
                let unit = sender.lane.peek()? + self.lead;
                Some(match sender.report_at {
                    Some(report) if report < unit => (report, true, track),
                    _ => (unit, false, track),
                })
            });
        let (at, is_report, track) = due.min()?;
        if self.options.stop_at.is_some_and(|stop| at >= nanos(stop)) {
            return None;
        }
        if is_report {
            Some(self.send_report(track, at))
        } else {
            self.send_unit(track)
        }
    }
}

/// Leaves out the tracks the options do not want and checks that the rest can be published.
pub fn select(mut clip: Clip, options: &Options) -> Result<Clip, FormatError> {
    if options.no_video {
        clip.video = None;
    }
    if options.no_audio {
        clip.audio = None;
    }
    if let Some(VideoFormat::Other(name)) = clip.video.as_ref().map(|track| &track.format) {
        return Err(FormatError(format!(
            "its video is '{name}', and only H.264 can be published (or use --no-video)"
        )));
    }
    if let Some(AudioFormat::Other(name)) = clip.audio.as_ref().map(|track| &track.format) {
        return Err(FormatError(format!(
            "its audio is '{name}', and only AAC and Opus can be published (or use --no-audio)"
        )));
    }
    if let Some((track, VideoFormat::H264(config))) =
        clip.video.as_ref().map(|track| (track, &track.format))
    {
        for (index, sample) in track.samples.iter().enumerate() {
            nal::split_avcc(clip.data(sample), config.length_size)
                .map_err(|_| FormatError(format!("video frame {index} is damaged")))?;
        }
    }
    if let Some((track, AudioFormat::Aac(_))) =
        clip.audio.as_ref().map(|track| (track, &track.format))
        && let Some(index) = track
            .samples
            .iter()
            .position(|sample| sample.range.len() > aac::MAX_FRAME)
    {
        return Err(FormatError(format!(
            "audio frame {index} is too large for RTP"
        )));
    }
    if clip.video.is_none() && clip.audio.is_none() {
        return Err(FormatError("nothing of it is left to publish".into()));
    }
    Ok(clip)
}
