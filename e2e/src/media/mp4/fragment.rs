//! Movie fragments (`moof`), as MediaMTX writes them into its recordings.

use std::collections::BTreeMap;

use super::{Atom, Defaults, RawTrack, atoms, child, required};
use crate::media::bytes::Reader;
use crate::media::clip::{FormatError, Sample};

/// What a fragment's samples are when it does not say so itself.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TrackDefaults {
    duration: u32,
    size: u32,
    flags: u32,
}

/// Bit of sample flags: the sample is not a sync sample.
const NON_SYNC: u32 = 0x0001_0000;

/// Reads the defaults of every track from `mvex`.
pub(super) fn defaults(extends: &[u8]) -> Result<Defaults, FormatError> {
    let mut all = BTreeMap::new();
    for atom in atoms(extends, 0).filter(|atom| atom.kind == *b"trex") {
        let mut reader = Reader::new(atom.payload);
        reader.skip(4)?;
        let id = reader.u32()?;
        reader.skip(4)?;
        let (duration, size, flags) = (reader.u32()?, reader.u32()?, reader.u32()?);
        all.insert(
            id,
            TrackDefaults {
                duration,
                size,
                flags,
            },
        );
    }
    Ok(all)
}

/// Adds the samples of all fragments in the file to their tracks.
pub(super) fn append(
    file: &[u8],
    defaults: &Defaults,
    tracks: &mut [RawTrack<'_>],
) -> Result<(), FormatError> {
    for movie in atoms(file, 0).filter(|atom| atom.kind == *b"moof") {
        for atom in atoms(movie.payload, 0).filter(|atom| atom.kind == *b"traf") {
            track_fragment(atom, movie.begin, defaults, tracks)?;
        }
    }
    Ok(())
}

fn track_fragment(
    fragment: Atom<'_>,
    movie_begin: usize,
    defaults: &Defaults,
    tracks: &mut [RawTrack<'_>],
) -> Result<(), FormatError> {
    let mut header = Reader::new(required(fragment.payload, *b"tfhd")?);
    let flags = header.u32()? & 0x00ff_ffff;
    let id = header.u32()?;
    let mut base = movie_begin;
    let mut default = defaults.get(&id).copied().unwrap_or_default();
    if flags & 0x01 != 0 {
        base = header.u64()? as usize;
    }
    if flags & 0x02 != 0 {
        header.skip(4)?;
    }
    if flags & 0x08 != 0 {
        default.duration = header.u32()?;
    }
    if flags & 0x10 != 0 {
        default.size = header.u32()?;
    }
    if flags & 0x20 != 0 {
        default.flags = header.u32()?;
    }
    let Some(track) = tracks.iter_mut().find(|track| track.id == id) else {
        return Ok(());
    };
    let mut dts = track
        .samples
        .last()
        .map_or(0, |last| last.dts.saturating_add(i64::from(last.duration)));
    if let Some(time) = child(fragment.payload, *b"tfdt") {
        let mut reader = Reader::new(time);
        dts = if reader.u32()? >> 24 == 1 {
            reader.u64()? as i64
        } else {
            i64::from(reader.u32()?)
        };
    }
    let mut at = base;
    for run in atoms(fragment.payload, 0).filter(|atom| atom.kind == *b"trun") {
        (dts, at) = track_run(run.payload, base, at, dts, default, &mut track.samples)?;
    }
    Ok(())
}

/// Reads one `trun`; gives the time and the place where the next one continues.
fn track_run(
    run: &[u8],
    base: usize,
    mut at: usize,
    mut dts: i64,
    default: TrackDefaults,
    samples: &mut Vec<Sample>,
) -> Result<(i64, usize), FormatError> {
    let mut reader = Reader::new(run);
    let flags = reader.u32()? & 0x00ff_ffff;
    let count = reader.u32()?;
    if flags & 0x001 != 0 {
        at = base.saturating_add_signed(reader.i32()? as isize);
    }
    let mut first_flags = if flags & 0x004 != 0 {
        Some(reader.u32()?)
    } else {
        None
    };
    for _ in 0..count {
        let duration = if flags & 0x100 != 0 {
            reader.u32()?
        } else {
            default.duration
        };
        let size = if flags & 0x200 != 0 {
            reader.u32()?
        } else {
            default.size
        };
        let own_flags = if flags & 0x400 != 0 {
            reader.u32()?
        } else {
            default.flags
        };
        let composition = if flags & 0x800 != 0 { reader.i32()? } else { 0 };
        let sample_flags = first_flags.take().unwrap_or(own_flags);
        let end = at.saturating_add(size as usize);
        samples.push(Sample {
            pts: dts.saturating_add(i64::from(composition)),
            dts,
            duration,
            keyframe: sample_flags & NON_SYNC == 0,
            range: at..end,
        });
        at = end;
        dts = dts.saturating_add(i64::from(duration));
    }
    Ok((dts, at))
}
