//! RTP time and arrival in place of `rtspsrc`'s time stamps, and the sender reports.
//!
//! Clocks belong to the track: two tracks may share an SSRC, and a track may change its own.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use dub_engine::Track;
use dub_engine::timeline::{Markers, RtpTime};
use gst::prelude::*;

use super::super::rtp::{H264Part, Numbers, RtpHeader, SenderReport, bye_at, h264_part};
use super::IngestFact;
use super::offer::Offer;
use super::telling::{Telling, lock};

/// Added to RTP time inside the pipeline, where time cannot be negative: 73 years.
const HEAD_ROOM: i64 = 1 << 61;
/// Added to the time of what stands in front of a picture and has the time stamp of the one before.
const EARLY: i64 = 700;
/// Arrivals remembered until their unit comes out of the depayloader.
const REMEMBERED: usize = 256;
/// A larger gap in sequence numbers is another sender, not a loss.
const LARGEST_LOSS: u16 = 3_000;

/// What is known of both tracks while packets run.
#[derive(Clone, Default)]
pub(super) struct Stamps([Arc<Mutex<Stamp>>; 2]);

#[derive(Default)]
struct Stamp {
    clock: Option<RtpTime>,
    /// SSRC and sequence number of the last packet.
    last: Option<(u32, u16)>,
    /// Time and arrival of recent time stamps.
    arrivals: VecDeque<(i64, Instant)>,
    /// A report that came before the first packet.
    early: Option<SenderReport>,
    markers: Markers,
    /// Time of the last packet of a picture's own data.
    sliced: Option<i64>,
}

/// What a packet has to tell.
struct Noted {
    time: i64,
    arrived: Instant,
    /// Its time stamp is not that of the packet before.
    new: bool,
    /// [`EARLY`], or 0.
    ahead: i64,
    lost: u16,
    early: Option<SenderReport>,
}

impl Stamps {
    /// Replaces the time stamps on `pad`, and tells of packets, losses and early reports.
    pub(super) fn replace(
        &self,
        pad: &gst::Pad,
        track: Track,
        caps: &gst::Caps,
        telling: &Telling,
    ) {
        let rate = caps
            .structure(0)
            .and_then(|structure| structure.get::<i32>("clock-rate").ok())
            .filter(|rate| *rate > 0)
            .unwrap_or(90_000);
        let stamp = self.of(track).clone();
        lock(&stamp)
            .clock
            .get_or_insert_with(|| RtpTime::new(rate.unsigned_abs()));
        let telling = telling.clone();
        on_packets(pad, move |buffer| {
            let Some(noted) = note(&stamp, track, buffer) else {
                return true;
            };
            if noted.lost > 0 {
                let packets = noted.lost;
                telling.tell(IngestFact::Lost { track, packets });
            }
            if noted.new && track == Track::Audio {
                let Noted { time, arrived, .. } = noted;
                telling.tell(IngestFact::Packet { time, arrived });
            }
            if let Some(report) = noted.early {
                tell_report(&stamp, track, report, &telling);
            }
            buffer.set_pts(gst::ClockTime::from_nseconds(
                (noted.time.saturating_add(HEAD_ROOM) + noted.ahead).unsigned_abs(),
            ));
            buffer.set_dts(gst::ClockTime::NONE);
            true
        });
    }

    /// Passes sender reports on as soon as the jitter buffer has seen them.
    pub(super) fn watch_reports(&self, source: &gst::Element, offer: &Offer, telling: &Telling) {
        let (stamps, offer, telling) = (self.clone(), offer.clone(), telling.clone());
        source.connect("new-manager", false, move |args| {
            let manager = args.get(1)?.get::<gst::Element>().ok()?;
            let (stamps, offer, telling) = (stamps.clone(), offer.clone(), telling.clone());
            manager.connect_pad_added(|_, pad| ignore_byes(pad));
            manager.connect("new-jitterbuffer", false, move |args| {
                let manager = args.first()?.get::<gst::Element>().ok()?;
                let buffer = args.get(1)?.get::<gst::Element>().ok()?;
                // A session of the manager is a stream of the source.
                let session = args.get(2)?.get::<u32>().ok()?;
                let track = offer.track(session);
                believe_order(&manager, session, &buffer, track == Some(Track::Video));
                let track = track?;
                // The packet that it is made for is on its way, before anything is linked to take it.
                telling.chain_begins();
                let (stamp, telling) = (stamps.of(track).clone(), telling.clone());
                buffer.connect("handle-sync", false, move |args| {
                    let structure = args.get(1)?.get::<gst::Structure>().ok()?;
                    let packet = structure.get::<gst::Buffer>("sr-buffer").ok()?;
                    let report = SenderReport::parse(packet.map_readable().ok()?.as_slice())?;
                    tell_report(&stamp, track, report, &telling);
                    None
                });
                None
            });
            None
        });
    }

    /// Time and arrival of the unit in `buffer`, if its time stamp is a packet's.
    pub(super) fn of_unit(&self, track: Track, buffer: &gst::BufferRef) -> (Option<i64>, Instant) {
        let mut stamp = lock(self.of(track));
        let Some(time) = buffer.pts().map(|pts| pts.nseconds() as i64 - HEAD_ROOM) else {
            let arrived = stamp.arrivals.front().map(|(_, arrived)| *arrived);
            return (None, arrived.unwrap_or_else(Instant::now));
        };
        // Units leave in the order in which they came.
        let known = stamp
            .arrivals
            .iter()
            .position(|(packet, _)| packet.abs_diff(time) <= 1_000);
        let Some(known) = known else {
            let arrived = stamp.arrivals.front().map(|(_, arrived)| *arrived);
            return (None, arrived.unwrap_or_else(Instant::now));
        };
        // The picture itself came behind what stands in front of it.
        let early = time - stamp.arrivals[known].0 == EARLY && known + 1 < stamp.arrivals.len();
        stamp.arrivals.drain(..known + usize::from(early));
        let front = stamp.arrivals.front().copied();
        let (time, arrived) = front.unwrap_or_else(|| (time, Instant::now()));
        (Some(time), arrived)
    }

    /// Takes the marker off units behind the depayloader where it does not end pictures.
    pub(super) fn hide_markers(&self, depayloader: &gst::Element) {
        let stamp = self.of(Track::Video).clone();
        let Some(pad) = depayloader.static_pad("src") else {
            return;
        };
        let hide = move |buffer: &mut gst::Buffer| {
            if buffer.flags().contains(gst::BufferFlags::MARKER)
                && !lock(&stamp).markers.end_pictures()
            {
                buffer.make_mut().unset_flags(gst::BufferFlags::MARKER);
            }
        };
        let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
        pad.add_probe(mask, move |_, info| {
            match &mut info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => hide(buffer),
                Some(gst::PadProbeData::BufferList(list)) => {
                    list.make_mut().foreach_mut(|mut buffer, _| {
                        hide(&mut buffer);
                        std::ops::ControlFlow::Continue(Some(buffer))
                    });
                }
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
    }

    fn of(&self, track: Track) -> &Arc<Mutex<Stamp>> {
        match track {
            Track::Video => &self.0[0],
            Track::Audio => &self.0[1],
        }
    }
}

/// Calls `on_packet` with every packet that comes through `pad`; it says whether the packet goes on.
pub(super) fn on_packets(
    pad: &gst::Pad,
    on_packet: impl Fn(&mut gst::BufferRef) -> bool + Send + Sync + 'static,
) {
    let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
    pad.add_probe(mask, move |_, info| {
        let goes_on = match &mut info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => on_packet(buffer.make_mut()),
            Some(gst::PadProbeData::BufferList(list)) => {
                list.make_mut().foreach_mut(|mut buffer, _| {
                    let goes_on = on_packet(buffer.make_mut());
                    std::ops::ControlFlow::Continue(goes_on.then_some(buffer))
                });
                true
            }
            _ => true,
        };
        if goes_on {
            gst::PadProbeReturn::Ok
        } else {
            // `Drop` would let GStreamer drop what is dropped here already.
            gst::PadProbeReturn::Handled
        }
    });
}

/// Lets a jitter buffer take packets as they come over TCP: numbered in their order, from whichever comes
/// first. `RTP-Info` tells which is first, too, but cameras get it wrong, and whatever is numbered lower
/// would be dropped.
fn believe_order(manager: &gst::Element, session: u32, buffer: &gst::Element, h264: bool) {
    let manager = manager.downgrade();
    buffer.connect("request-pt-map", false, move |args| {
        let payload = args.get(1).and_then(|value| value.get::<u32>().ok());
        let asked = manager.upgrade().zip(payload);
        let caps = asked.and_then(|(manager, payload)| {
            manager.emit_by_name::<Option<gst::Caps>>("request-pt-map", &[&session, &payload])
        });
        Some(caps.map(without_first).to_value())
    });
    let Some(pad) = buffer.static_pad("sink") else {
        return;
    };
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |_, info| {
        if let Some(gst::EventView::Caps(event)) = info.event().map(|event| event.view()) {
            let caps = without_first(event.caps_owned());
            info.data = Some(gst::PadProbeData::Event(gst::event::Caps::new(&caps)));
        }
        gst::PadProbeReturn::Ok
    });
    let numbers = Mutex::new(Numbers::default());
    on_packets(&pad, move |buffer| {
        let map = buffer.map_readable().ok();
        let read = map.and_then(|map| {
            let header = RtpHeader::parse(&map)?;
            let part = if h264 {
                h264_part(header.payload_of(&map))
            } else {
                H264Part::Other
            };
            Some((header, part))
        });
        let Some((header, part)) = read else {
            return true;
        };
        let mut numbers = lock(&numbers);
        let nothing = header.payload == 0 || part == H264Part::Private;
        let number = numbers.number(header.sequence, nothing);
        if part == H264Part::Interleaved {
            // There were pictures in it: the gap that it leaves is counted.
            return false;
        }
        if let Some(number) = number.filter(|number| *number != header.sequence)
            && let Ok(mut map) = buffer.map_writable()
        {
            map[2..4].copy_from_slice(&number.to_be_bytes());
        }
        number.is_some()
    });
}

/// Takes RTCP BYE away: to `rtspsrc` it ends a track for good, and the connection with the next packet of it,
/// while cameras say it when their audio is muted. A stream that is over ends with its connection or in silence.
fn ignore_byes(pad: &gst::Pad) {
    if !pad.name().starts_with("recv_rtcp_sink") {
        return;
    }
    pad.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data
            && let Some(at) = buffer.map_readable().ok().and_then(|map| bye_at(&map))
        {
            if at == 0 {
                return gst::PadProbeReturn::Handled;
            }
            buffer.make_mut().set_size(at);
        }
        gst::PadProbeReturn::Ok
    });
}

fn without_first(mut caps: gst::Caps) -> gst::Caps {
    if let Some(structure) = caps.make_mut().structure_mut(0) {
        structure.remove_field("seqnum-base");
    }
    caps
}

/// RTP time of a buffer that was made from others.
pub(super) fn time_of(buffer: &gst::BufferRef) -> Option<i64> {
    buffer.pts().map(|pts| pts.nseconds() as i64 - HEAD_ROOM)
}

fn note(stamp: &Arc<Mutex<Stamp>>, track: Track, buffer: &gst::BufferRef) -> Option<Noted> {
    let packet = buffer.map_readable().ok()?;
    let header = RtpHeader::parse(&packet)?;
    let part = match track {
        Track::Video => h264_part(header.payload_of(&packet)),
        Track::Audio => H264Part::Other,
    };
    let arrived = Instant::now();
    let mut stamp = lock(stamp);
    let time = stamp.clock.as_mut()?.packet(header.timestamp);
    stamp.markers.packet(header.timestamp, header.marker);
    let last = stamp.last.replace((header.ssrc, header.sequence));
    let lost = last
        .filter(|(ssrc, _)| *ssrc == header.ssrc)
        .map_or(0, |(_, last)| {
            header.sequence.wrapping_sub(last).wrapping_sub(1)
        });
    let ahead = match part {
        H264Part::Picture => {
            stamp.sliced = Some(time);
            0
        }
        H264Part::Front if stamp.sliced == Some(time) => EARLY,
        _ => 0,
    };
    let new = stamp.arrivals.back().is_none_or(|(last, _)| *last != time);
    if new {
        if stamp.arrivals.len() == REMEMBERED {
            stamp.arrivals.pop_front();
        }
        stamp.arrivals.push_back((time, arrived));
    }
    Some(Noted {
        time,
        arrived,
        new,
        ahead,
        lost: if lost <= LARGEST_LOSS { lost } else { 0 },
        early: stamp.early.take(),
    })
}

fn tell_report(stamp: &Arc<Mutex<Stamp>>, track: Track, report: SenderReport, telling: &Telling) {
    let time = {
        let mut stamp = lock(stamp);
        // A source that has gone has nothing to say any more.
        if stamp.last.is_some_and(|(ssrc, _)| ssrc != report.ssrc) {
            return;
        }
        let time = stamp
            .clock
            .as_ref()
            .and_then(|clock| clock.other(report.rtp));
        if time.is_none() {
            stamp.early = Some(report);
        }
        time
    };
    if let Some(time) = time {
        telling.tell(IngestFact::Report {
            track,
            time,
            ntp: report.ntp,
            named: report.named,
            arrived: Instant::now(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet of video with this time stamp, in ticks, and NAL unit header.
    fn packet(sequence: u8, ticks: u8, nal: u8) -> gst::Buffer {
        gst::Buffer::from_slice([0x80, 96, 0, sequence, 0, 0, 0, ticks, 0, 0, 0, 7, nal, 1])
    }

    /// Cameras put parameter sets into the time of the picture before them (Reolink RLC-822A).
    #[test]
    fn a_picture_has_its_own_time_not_that_of_what_stands_in_front_of_it() {
        crate::init().unwrap();
        let stamps = Stamps::default();
        let stamp = stamps.of(Track::Video);
        lock(stamp).clock = Some(RtpTime::new(1_000));
        let mut sequence = 0;
        let mut unit = |nals: &[(u8, u8)]| {
            let mut noted = nals.iter().map(|(ticks, nal)| {
                sequence += 1;
                note(stamp, Track::Video, &packet(sequence, *ticks, *nal)).unwrap()
            });
            let first = noted.next().unwrap();
            noted.for_each(drop);
            let mut buffer = gst::Buffer::new();
            let pts = (first.time + HEAD_ROOM + first.ahead).unsigned_abs();
            let at = buffer.get_mut().unwrap();
            at.set_pts(gst::ClockTime::from_nseconds(pts));
            stamps.of_unit(Track::Video, at).0.unwrap() / 1_000_000
        };
        assert_eq!(unit(&[(0, 0x67), (0, 0x68), (0, 0x65)]), 0);
        assert_eq!(unit(&[(40, 0x41)]), 40);
        // Sets, information and a delimiter of the time before; then some that are in time.
        assert_eq!(unit(&[(40, 0x67), (40, 0x68), (80, 0x65), (80, 0x65)]), 80);
        assert_eq!(unit(&[(80, 0x06), (120, 0x41)]), 120);
        assert_eq!(unit(&[(120, 0x09), (120, 0x67), (160, 0x65)]), 160);
        assert_eq!(unit(&[(200, 0x67), (200, 0x65)]), 200);
        assert_eq!(unit(&[(240, 0x41)]), 240);
        // A picture that never came leaves the time as it is.
        assert_eq!(unit(&[(240, 0x67)]), 240);
    }

    #[test]
    fn packets_that_are_missing_are_all_counted() {
        crate::init().unwrap();
        let stamps = Stamps::default();
        let stamp = stamps.of(Track::Video);
        lock(stamp).clock = Some(RtpTime::new(1_000));
        let lost = [1, 5, 6, 8].map(|sequence| {
            note(stamp, Track::Video, &packet(sequence, 0, 0x41)).map(|noted| noted.lost)
        });
        assert_eq!(lost, [0, 3, 0, 1].map(Some));
    }
}
