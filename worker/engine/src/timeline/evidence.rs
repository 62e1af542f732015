//! What arrival times say about how the two lines lie to each other.
//!
//! A picture is sent when it is decoded, not when it is shown: its decoding time is the presentation
//! time of its rank. A packet of several audio frames is sent when the last of them is over. With that
//! taken into account both tracks are late by the same network, and the quickest units say by how much.

use std::collections::VecDeque;

use super::Track;
use crate::time::{At, nanos_of};

const MS: i64 = 1_000_000;
/// How long arrivals count, the fewest that are kept all the same, and the most.
const FRESH: i64 = 6_000 * MS;
const FEWEST: usize = 8;
const REMEMBERED: usize = 512;
/// Arrivals of a track that span less say nothing: the first units come through a cold pipeline.
const TELLING: i64 = 1_000 * MS;
/// The quickest twentieth is quick enough; the very quickest may be a stray timestamp.
const QUICKEST: usize = 20;
/// A picture's place in decoding order is known once so many have come after it.
const DEPTH: usize = 17;
/// Packets this alike in length hold as many frames.
const ALIKE: i64 = 5 * MS;
/// A packet's length that can be told from its timestamps.
const LONGEST_PACKET: i64 = 500 * MS;

/// Arrivals of both tracks.
#[derive(Debug)]
pub(super) struct Evidence {
    /// Arrival, place on the line and whether it is a keyframe.
    pictures: VecDeque<(i64, (i64, bool))>,
    /// Arrival and place of packets.
    packets: VecDeque<(i64, i64)>,
    /// Length of the codec's frame, where a packet may hold several.
    frame: Option<i64>,
}

/// What arrivals say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Estimate {
    /// Audio line + this = video line.
    pub(super) offset: i64,
    /// How much later audio would lie if arrival was taken for the time of capture, for the ways in
    /// which a server can do that: by a packet's length, and by how far pictures are ahead.
    pub(super) taken_literally: Vec<(i64, i64)>,
}

impl Evidence {
    pub(super) fn new(frame: Option<i64>) -> Self {
        Self {
            pictures: VecDeque::new(),
            packets: VecDeque::new(),
            frame,
        }
    }

    pub(super) fn picture(&mut self, at: At, time: i64, keyframe: bool) {
        remember(&mut self.pictures, at, (time, keyframe));
    }

    pub(super) fn packet(&mut self, at: At, time: i64) {
        remember(&mut self.packets, at, time);
    }

    /// A track stepped: what came before lies elsewhere.
    pub(super) fn forget(&mut self, track: Track) {
        match track {
            Track::Video => self.pictures.clear(),
            Track::Audio => self.packets.clear(),
        }
    }

    /// Nanoseconds of arrivals that both tracks have shown.
    pub(super) fn span(&self) -> i64 {
        let pictures = self.pictures.front().zip(self.pictures.back());
        let packets = self.packets.front().zip(self.packets.back());
        match (pictures, packets) {
            (Some((first, last)), Some((begin, end))) => (last.0 - first.0).min(end.0 - begin.0),
            _ => 0,
        }
    }

    /// What arrivals say, once they have shown enough.
    pub(super) fn estimate(&self) -> Option<Estimate> {
        (self.span() >= TELLING).then(|| self.guess()).flatten()
    }

    /// What arrivals say, however few there are.
    pub(super) fn guess(&self) -> Option<Estimate> {
        let (video, leads) = self.video()?;
        let (audio, lengths) = self.audio()?;
        let taken_literally = lengths
            .iter()
            .flat_map(|length| leads.iter().map(move |lead| (*length, *lead)))
            .collect();
        Some(Estimate {
            offset: audio - video,
            taken_literally,
        })
    }

    /// Transit of pictures by decoding time, and by how much presentation times run ahead of that: at
    /// most, and at the last keyframe.
    fn video(&self) -> Option<(i64, [i64; 2])> {
        let mut sorted: Vec<i64> = self.pictures.iter().map(|(_, (time, _))| *time).collect();
        sorted.sort_unstable();
        // The rank of the last ones changes while pictures before them are still to come.
        let unsure = if self
            .pictures
            .iter()
            .is_sorted_by_key(|(_, (time, _))| *time)
        {
            0
        } else {
            DEPTH.min(sorted.len() / 2)
        };
        let known = || {
            let ranked = self.pictures.iter().zip(&sorted);
            ranked.take(sorted.len() - unsure)
        };
        let depth = usual_most(known().map(|((_, (time, _)), rank)| rank - time).collect())?;
        let transits = known().map(|((at, _), rank)| at - (rank - depth));
        let leads = || known().map(|((_, (time, key)), rank)| (time - (rank - depth), *key));
        let most = usual_most(leads().map(|(lead, _)| lead).collect())?;
        let key = leads().rfind(|(_, key)| *key);
        Some((
            quickest(transits.collect())?,
            [most, key.map_or(most, |(lead, _)| lead)],
        ))
    }

    /// Transit of packets, and how long those that were seen are, shortest first; 0 where a packet is
    /// one frame.
    fn audio(&self) -> Option<(i64, Vec<i64>)> {
        let pairs = self.packets.iter().zip(self.packets.iter().skip(1));
        let mut lengths: Vec<(i64, i64)> = pairs
            .map(|((at, time), (_, next))| (at - time, next - time))
            .filter(|(_, length)| (1..=LONGEST_PACKET).contains(length))
            .collect();
        lengths.sort_unstable_by_key(|(_, length)| *length);
        let usual = lengths.get(lengths.len() / 2).map(|(_, length)| *length);
        let bundled = self
            .frame
            .zip(usual)
            .is_some_and(|(frame, usual)| 2 * usual >= 3 * frame);
        let Some(usual) = usual.filter(|_| bundled) else {
            let transits = self.packets.iter().map(|(at, time)| at - time);
            return Some((quickest(transits.collect())?, vec![0]));
        };
        // What seems longer has lost its successor.
        lengths.retain(|(_, length)| 2 * length <= 3 * usual);
        let transits = lengths.iter().map(|(transit, length)| transit - length);
        let transit = quickest(transits.collect())?;
        let mut lengths: Vec<i64> = lengths.into_iter().map(|(_, length)| length).collect();
        lengths.dedup_by(|next, length| *next - *length < ALIKE);
        Some((transit, lengths))
    }
}

fn remember<T>(arrivals: &mut VecDeque<(i64, T)>, at: At, unit: T) {
    let at = nanos_of(at.as_duration());
    let old = |(arrived, _): &mut (i64, T)| at - *arrived > FRESH;
    while arrivals.len() > FEWEST && arrivals.pop_front_if(old).is_some() {}
    if arrivals.len() == REMEMBERED {
        arrivals.pop_front();
    }
    arrivals.push_back((at, unit));
}

/// The most that is usual: around a hole single ranks are off by its length.
fn usual_most(mut values: Vec<i64>) -> Option<i64> {
    values.sort_unstable();
    let rare = values.len() / 16;
    values.get(values.len().checked_sub(1 + rare)?).copied()
}

fn quickest(mut transits: Vec<i64>) -> Option<i64> {
    transits.sort_unstable();
    transits.get(transits.len() / QUICKEST).copied()
}

#[cfg(test)]
mod tests;
