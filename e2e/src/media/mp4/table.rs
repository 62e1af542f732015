//! Sample tables of a plain MP4: times, sizes, offsets, edit list.

use super::{Atom, Edit, RawTrack, atoms, child, required};
use crate::media::bytes::Reader;
use crate::media::clip::{FormatError, Sample, rescale};

/// A table may not claim more samples than this; a day at 100 per second fits.
const MAX_SAMPLES: usize = 10_000_000;

/// Skips version and flags of a full box; gives the version.
fn version(reader: &mut Reader<'_>) -> Result<u8, FormatError> {
    Ok((reader.u32()? >> 24) as u8)
}

/// Ticks per second of the movie header.
pub(super) fn movie_timescale(header: &[u8]) -> Result<u32, FormatError> {
    let mut reader = Reader::new(header);
    let version = version(&mut reader)?;
    reader.skip(if version == 1 { 16 } else { 8 })?;
    positive(reader.u32()?)
}

fn positive(timescale: u32) -> Result<u32, FormatError> {
    if timescale == 0 {
        Err(FormatError("it counts zero ticks per second".into()))
    } else {
        Ok(timescale)
    }
}

/// Reads one `trak`.
pub(super) fn track(payload: &[u8], movie_timescale: u32) -> Result<RawTrack<'_>, FormatError> {
    let id = {
        let mut reader = Reader::new(required(payload, *b"tkhd")?);
        let version = version(&mut reader)?;
        reader.skip(if version == 1 { 16 } else { 8 })?;
        reader.u32()?
    };
    let media = required(payload, *b"mdia")?;
    let timescale = movie_timescale_of(required(media, *b"mdhd")?)?;
    let handler = {
        let mut reader = Reader::new(required(media, *b"hdlr")?);
        reader.skip(8)?;
        let kind = reader.take(4)?;
        [kind[0], kind[1], kind[2], kind[3]]
    };
    let tables = required(required(media, *b"minf")?, *b"stbl")?;
    let descriptions = required(tables, *b"stsd")?;
    let sample_entry = descriptions
        .get(8..)
        .and_then(|entries| atoms(entries, 0).next())
        .unwrap_or(Atom {
            kind: *b"none",
            payload: &[],
            begin: 0,
        });
    let edit = match child(payload, *b"edts").and_then(|edits| child(edits, *b"elst")) {
        Some(list) => edit(list, movie_timescale, timescale)?,
        None => Edit::default(),
    };
    Ok(RawTrack {
        id,
        handler,
        timescale,
        sample_entry,
        edit,
        samples: samples(tables)?,
    })
}

fn movie_timescale_of(header: &[u8]) -> Result<u32, FormatError> {
    // `mdhd` begins as `mvhd` does.
    movie_timescale(header)
}

fn edit(list: &[u8], movie_timescale: u32, timescale: u32) -> Result<Edit, FormatError> {
    let mut reader = Reader::new(list);
    let version = version(&mut reader)?;
    let count = reader.u32()?;
    let (mut wait, mut edit) = (0, None);
    for _ in 0..count {
        let (duration, media_time) = if version == 1 {
            (reader.u64()? as i64, reader.u64()? as i64)
        } else {
            (i64::from(reader.u32()?), i64::from(reader.i32()?))
        };
        reader.skip(4)?;
        if media_time < 0 {
            wait = i64::saturating_add(wait, duration);
        } else if edit.is_some() {
            return Err(FormatError(
                "its edit list has more than one piece, which is not supported".into(),
            ));
        } else {
            let wait = rescale(wait, movie_timescale, timescale);
            // The duration is in coarse ticks: give it one, or the last sample falls to rounding.
            let end = (duration > 0)
                .then(|| wait + rescale(duration.saturating_add(1), movie_timescale, timescale));
            edit = Some(Edit {
                shift: wait.saturating_sub(media_time),
                end,
            });
        }
    }
    Ok(edit.unwrap_or_default())
}

/// (count, value) runs of `stts` and `ctts`, spread out one value per sample.
fn runs(table: &[u8]) -> Result<Vec<u32>, FormatError> {
    let mut reader = Reader::new(table);
    reader.skip(4)?;
    let mut values = Vec::new();
    for _ in 0..reader.u32()? {
        let (count, value) = (reader.u32()? as usize, reader.u32()?);
        if values.len() + count > MAX_SAMPLES {
            return Err(FormatError(
                "its tables claim more samples than any clip has".into(),
            ));
        }
        values.extend(std::iter::repeat_n(value, count));
    }
    Ok(values)
}

fn sizes(table: &[u8]) -> Result<Vec<usize>, FormatError> {
    let mut reader = Reader::new(table);
    reader.skip(4)?;
    let (fixed, count) = (reader.u32()? as usize, reader.u32()? as usize);
    if count > MAX_SAMPLES {
        return Err(FormatError(
            "its tables claim more samples than any clip has".into(),
        ));
    }
    if fixed != 0 {
        return Ok(vec![fixed; count]);
    }
    (0..count).map(|_| Ok(reader.u32()? as usize)).collect()
}

fn chunk_offsets(tables: &[u8]) -> Result<Vec<usize>, FormatError> {
    let wide = child(tables, *b"co64");
    let mut reader = Reader::new(match wide {
        Some(table) => table,
        None => required(tables, *b"stco")?,
    });
    reader.skip(4)?;
    let count = reader.u32()?;
    (0..count)
        .map(|_| {
            Ok(if wide.is_some() {
                reader.u64()? as usize
            } else {
                reader.u32()? as usize
            })
        })
        .collect()
}

/// (first chunk from 1, samples per chunk).
fn chunk_runs(table: &[u8]) -> Result<Vec<(usize, usize)>, FormatError> {
    let mut reader = Reader::new(table);
    reader.skip(4)?;
    let count = reader.u32()?;
    (0..count)
        .map(|_| {
            let run = (reader.u32()? as usize, reader.u32()? as usize);
            reader.skip(4)?;
            Ok(run)
        })
        .collect()
}

fn samples(tables: &[u8]) -> Result<Vec<Sample>, FormatError> {
    let sizes = sizes(required(tables, *b"stsz")?)?;
    let durations = runs(required(tables, *b"stts")?)?;
    let offsets = child(tables, *b"ctts").map(runs).transpose()?;
    let sync: Option<Vec<usize>> = child(tables, *b"stss")
        .map(|table| {
            let mut reader = Reader::new(table);
            reader.skip(4)?;
            let count = reader.u32()?;
            (0..count)
                .map(|_| Ok::<_, FormatError>(reader.u32()? as usize))
                .collect()
        })
        .transpose()?;
    let chunks = chunk_offsets(tables)?;
    let chunk_runs = chunk_runs(required(tables, *b"stsc")?)?;

    let mut samples = Vec::with_capacity(sizes.len());
    let mut dts = 0_i64;
    let mut run = 0;
    for (chunk, &offset) in chunks.iter().enumerate() {
        while chunk_runs
            .get(run + 1)
            .is_some_and(|&(first, _)| first <= chunk + 1)
        {
            run += 1;
        }
        let mut at = offset;
        for _ in 0..chunk_runs.get(run).map_or(0, |&(_, count)| count) {
            let index = samples.len();
            let (Some(&size), Some(&duration)) = (sizes.get(index), durations.get(index)) else {
                break;
            };
            let end = at
                .checked_add(size)
                .ok_or_else(|| FormatError("a sample is beyond all bounds".into()))?;
            // Version 0 of `ctts` is unsigned by the letter, but writers store negative offsets in it too.
            let composition = offsets
                .as_ref()
                .map_or(0, |all| all.get(index).map_or(0, |&value| value as i32));
            samples.push(Sample {
                pts: dts + i64::from(composition),
                dts,
                duration,
                keyframe: sync
                    .as_ref()
                    .is_none_or(|sync| sync.binary_search(&(index + 1)).is_ok()),
                range: at..end,
            });
            at = end;
            dts += i64::from(duration);
        }
    }
    if samples.len() < sizes.len() {
        return Err(FormatError(
            "its sample tables do not agree with each other".into(),
        ));
    }
    Ok(samples)
}
