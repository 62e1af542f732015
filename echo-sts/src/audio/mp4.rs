//! Reads the edit list of an MP4, which says what part of the decoded sound is meant.
//!
//! symphonia decodes every access unit and ignores edit lists; an AAC fragment
//! starts with a pre-roll frame only its edit list tells apart from content.
//!
//! Not by `re_mp4`, with which the camera reads its clips: it panics at some boxes (an `emsg` of another
//! version) and takes memory by the lengths a file states, and these files come from the network.

/// The part of the media a file presents, in samples of the media's own rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edit {
    /// Samples to drop at the start.
    pub(crate) skip: u64,
    /// Samples to keep after that; everything when the file does not say.
    pub(crate) keep: Option<u64>,
}

/// The first non-empty edit of the first track that has one, in samples at
/// `rate`. `None` if the bytes are no MP4 or have no edit list.
pub(crate) fn edit(file: &[u8], rate: u32) -> Option<Edit> {
    let moov = boxes(file).find(|b| b.kind == *b"moov")?.body;
    let movie_timescale = timescale(boxes(moov).find(|b| b.kind == *b"mvhd")?.body)?;
    boxes(moov).filter(|b| b.kind == *b"trak").find_map(|trak| {
        let mdia = boxes(trak.body).find(|b| b.kind == *b"mdia")?.body;
        let media_timescale = timescale(boxes(mdia).find(|b| b.kind == *b"mdhd")?.body)?;
        let edts = boxes(trak.body).find(|b| b.kind == *b"edts")?.body;
        let elst = boxes(edts).find(|b| b.kind == *b"elst")?.body;
        let (duration, media_time) = entries(elst)?.find(|(_, time)| *time >= 0)?;
        let samples = |time: u64, scale: u64| {
            (scale > 0).then(|| time.saturating_mul(u64::from(rate)) / scale)
        };
        Some(Edit {
            skip: samples(media_time.unsigned_abs(), media_timescale)?,
            // Zero means "to the end" (fragmented files).
            keep: samples(duration, movie_timescale).filter(|samples| *samples > 0),
        })
    })
}

struct Box4<'a> {
    kind: [u8; 4],
    body: &'a [u8],
}

/// The boxes directly inside `data`; stops at the first one that does not fit.
fn boxes(data: &[u8]) -> impl Iterator<Item = Box4<'_>> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let size = u64::from(u32_at(rest, 0)?);
        let kind = rest.get(4..8)?.try_into().ok()?;
        let (header, size) = match size {
            0 => (8, rest.len() as u64),
            1 => (16, u64_at(rest, 8)?),
            size => (8, size),
        };
        let size = usize::try_from(size).ok()?;
        let body = rest.get(header..size)?;
        rest = &rest[size..];
        Some(Box4 { kind, body })
    })
}

/// `timescale` of an `mvhd` or `mdhd`, which share their beginning.
fn timescale(header: &[u8]) -> Option<u64> {
    let at = if *header.first()? == 1 { 20 } else { 12 };
    u32_at(header, at).map(u64::from)
}

/// `(segment_duration, media_time)` of each entry of an `elst`.
fn entries(elst: &[u8]) -> Option<impl Iterator<Item = (u64, i64)>> {
    let long = *elst.first()? == 1;
    let count = u32_at(elst, 4)? as usize;
    let width = if long { 20 } else { 12 };
    Some(
        elst.get(8..)?
            .chunks_exact(width)
            .take(count)
            .filter_map(move |entry| {
                if long {
                    Some((u64_at(entry, 0)?, u64_at(entry, 8)? as i64))
                } else {
                    Some((
                        u64::from(u32_at(entry, 0)?),
                        i64::from(u32_at(entry, 4)? as i32),
                    ))
                }
            }),
    )
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..at + 4)?
        .try_into()
        .ok()
        .map(u32::from_be_bytes)
}

fn u64_at(data: &[u8], at: usize) -> Option<u64> {
    data.get(at..at + 8)?
        .try_into()
        .ok()
        .map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(kind: [u8; 4], body: &[u8]) -> Vec<u8> {
        let mut out = (body.len() as u32 + 8).to_be_bytes().to_vec();
        out.extend(kind);
        out.extend(body);
        out
    }

    fn header(timescale: u32) -> Vec<u8> {
        let mut body = vec![0; 12];
        body.extend(timescale.to_be_bytes());
        body.extend([0; 80]);
        body
    }

    fn file(movie_scale: u32, media_scale: u32, edits: &[(u32, i32)]) -> Vec<u8> {
        let mut elst = vec![0; 4];
        elst.extend((edits.len() as u32).to_be_bytes());
        for (duration, time) in edits {
            elst.extend(duration.to_be_bytes());
            elst.extend(time.to_be_bytes());
            elst.extend([0, 1, 0, 0]);
        }
        let edts = boxed(*b"edts", &boxed(*b"elst", &elst));
        let mdia = boxed(*b"mdia", &boxed(*b"mdhd", &header(media_scale)));
        let trak = boxed(*b"trak", &[edts, mdia].concat());
        let moov = boxed(
            *b"moov",
            &[boxed(*b"mvhd", &header(movie_scale)), trak].concat(),
        );
        [
            boxed(*b"ftyp", b"M4A \0\0\0\0"),
            moov,
            boxed(*b"mdat", &[0; 32]),
        ]
        .concat()
    }

    #[test]
    fn the_first_edit_that_is_not_empty_counts() {
        let bytes = file(1000, 48_000, &[(40, -1), (6_000, 1024), (1, 0)]);
        assert_eq!(
            edit(&bytes, 48_000),
            Some(Edit {
                skip: 1024,
                keep: Some(288_000)
            })
        );
    }

    #[test]
    fn times_are_scaled_to_the_decoders_rate() {
        let bytes = file(22_050, 22_050, &[(22_050, 1024)]);
        assert_eq!(
            edit(&bytes, 44_100),
            Some(Edit {
                skip: 2048,
                keep: Some(44_100)
            })
        );
    }

    #[test]
    fn a_duration_of_zero_keeps_everything() {
        assert_eq!(
            edit(&file(1, 48_000, &[(0, 0)]), 48_000),
            Some(Edit {
                skip: 0,
                keep: None
            })
        );
    }

    #[test]
    fn damaged_and_foreign_bytes_have_no_edit() {
        let bytes = file(1000, 48_000, &[(6_000, 1024)]);
        for end in 0..bytes.len() - 41 {
            assert_eq!(edit(&bytes[..end], 48_000), None, "cut at {end}");
        }
        assert_eq!(edit(b"RIFF....WAVEfmt ", 48_000), None);
        assert_eq!(edit(&[0xff; 64], 48_000), None);
        assert_eq!(edit(&file(0, 0, &[(5, 5)]), 48_000), None);
    }
}
