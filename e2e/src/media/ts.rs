//! Reads MPEG-TS (ISO/IEC 13818-1), what MediaMTX records: H.264 and AAC in PES packets.
//!
//! As with FLV, timestamps are taken as they are: ffmpeg bends those that jump.

use std::collections::BTreeMap;

use super::aac::AacConfig;
use super::bytes::{Reader, Short};
use super::clip::{AudioFormat, FormatError, Sample, Track, VideoFormat};
use super::nal::{self, AvcConfig};

const PACKET: usize = 188;
const SYNC: u8 = 0x47;
/// Ticks per second of PES timestamps.
const CLOCK: u32 = 90_000;
/// PES timestamps have 33 bits.
const WRAP: i64 = 1 << 33;

/// The tracks of a file; sample ranges point into `bytes`, where access units are length-prefixed and
/// AAC frames have lost their ADTS headers.
#[derive(Debug)]
pub struct Ts {
    /// The video track.
    pub video: Option<Track<VideoFormat>>,
    /// The audio track.
    pub audio: Option<Track<AudioFormat>>,
    /// The file ends in the middle of a packet.
    pub truncated: bool,
    /// What the samples point into.
    pub bytes: Vec<u8>,
}

/// Whether this looks like MPEG-TS: three packets in a row.
pub fn recognises(file: &[u8]) -> bool {
    file.len() >= PACKET
        && file
            .iter()
            .step_by(PACKET)
            .take(3)
            .all(|&byte| byte == SYNC)
}

/// A PES packet being gathered.
#[derive(Debug, Default)]
struct Pes {
    data: Vec<u8>,
    started: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    H264,
    Aac,
    Other(u8),
}

/// What has been read so far.
#[derive(Debug, Default)]
struct Demuxer {
    map_pid: Option<u16>,
    /// The first stream of each kind that counts.
    streams: BTreeMap<u16, (Kind, Pes)>,
    bytes: Vec<u8>,
    video: Vec<Sample>,
    audio: Vec<Sample>,
    parameter_sets: (Vec<Vec<u8>>, Vec<Vec<u8>>),
    aac: Option<AacConfig>,
    last: BTreeMap<u16, i64>,
}

/// Reads a whole file.
pub fn read(file: &[u8]) -> Result<Ts, FormatError> {
    let mut demuxer = Demuxer::default();
    let packets = file.chunks_exact(PACKET);
    let mut truncated = !packets.remainder().is_empty();
    for (index, packet) in packets.enumerate() {
        if packet[0] != SYNC {
            return Err(FormatError(format!(
                "packet {index} of it does not begin with the sync byte"
            )));
        }
        demuxer
            .packet(packet)
            .map_err(|error| FormatError(format!("packet {index} of it is damaged: {error}")))?;
    }
    let pids: Vec<u16> = demuxer.streams.keys().copied().collect();
    for pid in pids {
        // What the file ended in the middle of is no frame.
        truncated |= demuxer.finish(pid).is_err();
    }
    demuxer.tracks(truncated)
}

impl Demuxer {
    fn packet(&mut self, packet: &[u8]) -> Result<(), FormatError> {
        let mut reader = Reader::new(packet);
        reader.skip(1)?;
        let head = reader.u16()?;
        let (starts, pid) = (head & 0x4000 != 0, head & 0x1fff);
        let control = reader.u8()?;
        if control & 0x20 != 0 {
            let length = usize::from(reader.u8()?);
            reader.skip(length)?;
        }
        if control & 0x10 == 0 {
            return Ok(());
        }
        let payload = reader.take(reader.left())?;
        if pid == 0 {
            self.map_pid = section(payload, starts)?
                .map(program_map)
                .transpose()?
                .flatten()
                .or(self.map_pid);
        } else if Some(pid) == self.map_pid {
            if let Some(map) = section(payload, starts)? {
                self.streams_of(map)?;
            }
        } else if self.streams.contains_key(&pid) {
            if starts {
                self.finish(pid)?;
            }
            if let Some((_, pes)) = self.streams.get_mut(&pid) {
                pes.started |= starts;
                if pes.started {
                    pes.data.extend(payload);
                }
            }
        }
        Ok(())
    }

    /// Reads a program map table.
    fn streams_of(&mut self, map: &[u8]) -> Result<(), FormatError> {
        let mut reader = Reader::new(map);
        reader.skip(7)?;
        let skip = usize::from(reader.u16()? & 0x0fff);
        reader.skip(skip)?;
        while reader.left() > 4 {
            let kind = match reader.u8()? {
                0x1b => Kind::H264,
                0x0f => Kind::Aac,
                other => Kind::Other(other),
            };
            let pid = reader.u16()? & 0x1fff;
            let skip = usize::from(reader.u16()? & 0x0fff);
            reader.skip(skip)?;
            let taken = self.streams.values().any(|(known, _)| *known == kind);
            if !taken && !matches!(kind, Kind::Other(_)) {
                self.streams.insert(pid, (kind, Pes::default()));
            }
        }
        Ok(())
    }

    /// A PES packet is complete: its frames become samples.
    fn finish(&mut self, pid: u16) -> Result<(), FormatError> {
        let Some((kind, pes)) = self.streams.get_mut(&pid) else {
            return Ok(());
        };
        let (kind, pes) = (*kind, std::mem::take(pes));
        if pes.data.is_empty() {
            return Ok(());
        }
        let (stamps, data) = pes_header(&pes.data)?;
        let Some((pts, dts)) = stamps else {
            return Err(FormatError("it has a frame without a timestamp".into()));
        };
        // Unwrapped against the last one of the same stream.
        let dts = unwrap(dts, self.last.get(&pid).copied());
        let pts = unwrap(pts, Some(dts));
        self.last.insert(pid, dts);
        match kind {
            Kind::H264 => self.access_unit(pts, dts, data),
            Kind::Aac => self.audio_frames(pts, data)?,
            Kind::Other(_) => {}
        }
        Ok(())
    }

    fn access_unit(&mut self, pts: i64, dts: i64, data: &[u8]) {
        let begin = self.bytes.len();
        let mut keyframe = false;
        for unit in nal::split_annex_b(data) {
            match nal::kind(unit) {
                nal::SPS if self.parameter_sets.0.is_empty() => {
                    self.parameter_sets.0.push(unit.to_vec());
                }
                nal::PPS if self.parameter_sets.1.is_empty() => {
                    self.parameter_sets.1.push(unit.to_vec());
                }
                nal::IDR => keyframe = true,
                _ => {}
            }
            self.bytes.extend((unit.len() as u32).to_be_bytes());
            self.bytes.extend(unit);
        }
        self.video.push(Sample {
            pts,
            dts,
            duration: 0,
            keyframe,
            range: begin..self.bytes.len(),
        });
    }

    /// ADTS frames; the timestamp is that of the first.
    fn audio_frames(&mut self, pts: i64, data: &[u8]) -> Result<(), FormatError> {
        let mut rest = data;
        let mut samples = 0_i64;
        while let Some(&[b0, b1, b2, b3, b4, b5, _]) = rest.first_chunk() {
            if b0 != 0xff || b1 & 0xf6 != 0xf0 {
                return Err(FormatError("its AAC frames have no ADTS headers".into()));
            }
            let header = if b1 & 1 == 0 { 9 } else { 7 };
            let length =
                (usize::from(b3 & 3) << 11) | (usize::from(b4) << 3) | usize::from(b5 >> 5);
            let (object_type, rate) = ((b2 >> 6) + 1, (b2 >> 2) & 15);
            let channels = ((b2 & 1) << 2) | (b3 >> 6);
            if self.aac.is_none() {
                let config = [
                    (object_type << 3) | (rate >> 1),
                    (rate << 7) | (channels << 3),
                ];
                self.aac = Some(AacConfig::parse(&config)?);
            }
            let rate = self.aac.as_ref().map_or(48_000, |config| config.rate);
            let frame = rest.get(header..length).ok_or(Short)?;
            let ticks = |samples: i64| samples * i64::from(CLOCK) / i64::from(rate);
            let at = pts + ticks(samples);
            samples += 1024;
            let begin = self.bytes.len();
            self.bytes.extend(frame);
            self.audio.push(Sample {
                pts: at,
                dts: at,
                duration: ticks(1024) as u32,
                keyframe: true,
                range: begin..self.bytes.len(),
            });
            rest = &rest[length..];
        }
        Ok(())
    }

    fn tracks(self, truncated: bool) -> Result<Ts, FormatError> {
        let mut video = None;
        if !self.video.is_empty() {
            let (sps, pps) = self.parameter_sets;
            let profile_level = match sps.first().and_then(|sps| sps.get(1..4)) {
                Some(&[profile, constraints, level]) => [profile, constraints, level],
                _ => return Err(FormatError("its H.264 has no parameter sets".into())),
            };
            let format = VideoFormat::H264(AvcConfig {
                profile_level,
                length_size: 4,
                sps,
                pps,
            });
            let mut samples = self.video;
            super::clip::fill_durations(&mut samples);
            video = Some(Track {
                format,
                timescale: CLOCK,
                samples,
            });
        }
        let audio = self
            .aac
            .filter(|_| !self.audio.is_empty())
            .map(|config| Track {
                format: AudioFormat::Aac(config),
                timescale: CLOCK,
                samples: self.audio,
            });
        if video.is_none() && audio.is_none() {
            return Err(FormatError("it has neither H.264 nor AAC frames".into()));
        }
        Ok(Ts {
            video,
            audio,
            truncated,
            bytes: self.bytes,
        })
    }
}

/// The table in a payload that starts one; tables over several packets do not occur with so few streams.
fn section(payload: &[u8], starts: bool) -> Result<Option<&[u8]>, FormatError> {
    if !starts {
        return Ok(None);
    }
    let mut reader = Reader::new(payload);
    let pointer = usize::from(reader.u8()?);
    reader.skip(pointer + 1)?;
    let length = usize::from(reader.u16()? & 0x0fff);
    Ok(Some(reader.take(length)?))
}

/// Where the first program's map is, from a program association table.
fn program_map(table: &[u8]) -> Result<Option<u16>, FormatError> {
    let mut reader = Reader::new(table);
    reader.skip(5)?;
    while reader.left() > 4 {
        let (program, pid) = (reader.u16()?, reader.u16()? & 0x1fff);
        if program != 0 {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

type Stamps = Option<(i64, i64)>;

/// Timestamps and payload of a PES packet.
fn pes_header(pes: &[u8]) -> Result<(Stamps, &[u8]), FormatError> {
    let mut reader = Reader::new(pes);
    if reader.u24()? != 1 {
        return Err(FormatError("a PES packet does not begin as one".into()));
    }
    reader.skip(1)?;
    let length = usize::from(reader.u16()?);
    reader.skip(1)?;
    let flags = reader.u8()?;
    let header = usize::from(reader.u8()?);
    let mut fields = Reader::new(reader.take(header)?);
    let stamps = match flags >> 6 {
        2 => {
            let pts = stamp(&mut fields)?;
            Some((pts, pts))
        }
        3 => Some((stamp(&mut fields)?, stamp(&mut fields)?)),
        _ => None,
    };
    // Zero, allowed for video only, means until the next one starts.
    let payload = match length {
        0 => reader.left(),
        _ => length.saturating_sub(3 + header),
    };
    Ok((stamps, reader.take(payload)?))
}

fn stamp(fields: &mut Reader<'_>) -> Result<i64, Short> {
    let high = i64::from(fields.u8()?);
    let middle = i64::from(fields.u16()?);
    let low = i64::from(fields.u16()?);
    Ok((((high >> 1) & 7) << 30) | ((middle >> 1) << 15) | (low >> 1))
}

/// The time nearest to `near` with these 33 bits.
fn unwrap(stamp: i64, near: Option<i64>) -> i64 {
    let Some(near) = near else { return stamp };
    stamp + ((near - stamp + WRAP / 2).div_euclid(WRAP)) * WRAP
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_unwrapped_towards_their_neighbour() {
        assert_eq!(unwrap(5, Some(WRAP - 10)), WRAP + 5);
        assert_eq!(unwrap(WRAP - 10, Some(WRAP + 5)), WRAP - 10);
        assert_eq!(unwrap(100, Some(50)), 100);
        assert_eq!(unwrap(100, None), 100);
    }

    #[test]
    fn stamps_are_read_across_their_marker_bits() {
        // 0x1_2345_6789 as ISO/IEC 13818-1 spreads it.
        let value: i64 = 0x1_2345_6789;
        let bytes = [
            0x21 | ((value >> 29) & 0x0e) as u8,
            (value >> 22) as u8,
            ((value >> 14) as u8) | 1,
            (value >> 7) as u8,
            ((value << 1) as u8) | 1,
        ];
        assert_eq!(stamp(&mut Reader::new(&bytes)), Ok(value));
    }

    #[test]
    fn every_sample_has_the_times_that_ffprobe_says() {
        let path = crate::media::testclip::path(crate::media::testclip::TS);
        let ts = read(&std::fs::read(&path).unwrap()).unwrap();
        let (video, audio) = (ts.video.unwrap(), ts.audio.unwrap());
        for (select, samples) in [("v", &video.samples), ("a", &audio.samples)] {
            let packets =
                crate::probe::ffprobe::packets(&path, select, std::time::Duration::from_secs(20))
                    .unwrap();
            assert_eq!(samples.len(), packets.len());
            for (sample, packet) in samples.iter().zip(&packets) {
                let close = |ticks: i64, seconds: Option<f64>| {
                    (ticks as f64 / f64::from(CLOCK) - seconds.unwrap()).abs() < 2e-5
                };
                assert!(close(sample.pts, packet.pts_time), "{sample:?} {packet:?}");
                assert!(close(sample.dts, packet.dts_time), "{sample:?} {packet:?}");
                assert_eq!(sample.keyframe, packet.is_key());
            }
        }
    }

    #[test]
    fn a_file_cut_off_keeps_what_is_whole() {
        let bytes =
            std::fs::read(crate::media::testclip::path(crate::media::testclip::TS)).unwrap();
        let ts = read(&bytes[..bytes.len() / 2 + 50]).unwrap();
        assert!(ts.truncated);
        assert!((30..60).contains(&ts.video.unwrap().samples.len()));
    }

    #[test]
    fn lost_sync_is_an_error() {
        let mut file = vec![0; PACKET * 4];
        for packet in 0..3 {
            file[packet * PACKET] = SYNC;
        }
        assert!(recognises(&file));
        let error = read(&file).unwrap_err().to_string();
        assert!(error.contains("packet 3 of it does not begin"), "{error}");
    }
}
