//! M4A without a pipeline: writing a fragment around copied AAC frames, and
//! preparing somebody else's MP4 so that it decodes sample-exactly.
//!
//! A decoder damages the first AAC frame it is given, because half of it overlaps with a
//! frame it never saw. So a fragment starts with one *pre-roll* frame, the last of the
//! segment before, and an edit list tells players to skip it. `mp4mux` cannot write such
//! an edit list, hence this module.

use super::aac::{AacFormat, FRAME_SAMPLES};

/// Builds an M4A file.
///
/// `preroll` is the frame just before `frames` in the same stream; without it (at the
/// start of a stream) the first frame of `frames` is what decoders make of it. The result
/// presents exactly `frames.len() * 1024` samples.
pub fn write(format: &AacFormat, preroll: Option<&[u8]>, frames: &[&[u8]]) -> Vec<u8> {
    let all: Vec<&[u8]> = preroll.into_iter().chain(frames.iter().copied()).collect();
    let media_duration = all.len() as u32 * FRAME_SAMPLES;
    let presented = frames.len() as u32 * FRAME_SAMPLES;
    let media_time = if preroll.is_some() { FRAME_SAMPLES } else { 0 };

    let ftyp = atom(*b"ftyp", &[b"M4A \0\0\x02\0M4A mp42isom"]);
    // The offset of the media data depends on the size of `moov`, which does not depend
    // on the value of the offset: build it twice.
    let moov = |offset: u32| moov(format, &all, media_duration, presented, media_time, offset);
    let offset = ftyp.len() + moov(0).len() + 8;
    let mut file = ftyp;
    file.extend(moov(offset as u32));
    file.extend(atom(*b"mdat", &all));
    file
}

fn moov(
    format: &AacFormat,
    frames: &[&[u8]],
    media_duration: u32,
    presented: u32,
    media_time: u32,
    data_offset: u32,
) -> Vec<u8> {
    let rate = format.rate;
    // Movie and media share a timescale, so that the edit list is exact. The movie
    // duration is that of the media, not of the edit: qtdemux 1.22 would drop a frame.
    let mvhd = full(
        *b"mvhd",
        0,
        &[
            &be(&[0, 0, rate, media_duration, 0x0001_0000]),
            &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &be(&[0]),
            &IDENTITY,
            &be(&[0, 0, 0, 0, 0, 0, 2]),
        ],
    );
    let tkhd = full(
        *b"tkhd",
        7,
        &[
            &be(&[0, 0, 1, 0, media_duration, 0, 0]),
            &[0, 0, 0, 0, 1, 0, 0, 0],
            &IDENTITY,
            &be(&[0, 0]),
        ],
    );
    let elst = full(
        *b"elst",
        0,
        &[&be(&[1, presented, media_time, 0x0001_0000])],
    );
    let edts = atom(*b"edts", &[&elst]);
    let mdhd = full(
        *b"mdhd",
        0,
        &[&be(&[0, 0, rate, media_duration]), &[0x55, 0xc4, 0, 0]],
    );
    let hdlr = full(
        *b"hdlr",
        0,
        &[&be(&[0]), b"soun", &be(&[0, 0, 0]), b"SoundHandler\0"],
    );
    let smhd = full(*b"smhd", 0, &[&be(&[0])]);
    let dref = full(*b"dref", 0, &[&be(&[1]), &full(*b"url ", 1, &[])]);
    let dinf = atom(*b"dinf", &[&dref]);
    let mp4a = atom(
        *b"mp4a",
        &[
            &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
            &(format.channels as u16).to_be_bytes(),
            &[0, 16, 0, 0, 0, 0],
            &(rate << 16).to_be_bytes(),
            &esds(format),
        ],
    );
    let stsd = full(*b"stsd", 0, &[&be(&[1]), &mp4a]);
    let stts = full(
        *b"stts",
        0,
        &[&be(&[1, frames.len() as u32, FRAME_SAMPLES])],
    );
    let stsc = full(*b"stsc", 0, &[&be(&[1, 1, frames.len() as u32, 1])]);
    let sizes: Vec<u32> = frames.iter().map(|frame| frame.len() as u32).collect();
    let stsz = full(*b"stsz", 0, &[&be(&[0, frames.len() as u32]), &be(&sizes)]);
    let stco = full(*b"stco", 0, &[&be(&[1, data_offset])]);
    let stbl = atom(*b"stbl", &[&stsd, &stts, &stsc, &stsz, &stco]);
    let minf = atom(*b"minf", &[&smhd, &dinf, &stbl]);
    let mdia = atom(*b"mdia", &[&mdhd, &hdlr, &minf]);
    let trak = atom(*b"trak", &[&tkhd, &edts, &mdia]);
    atom(*b"moov", &[&mvhd, &trak])
}

/// Elementary stream descriptor with the AudioSpecificConfig (ISO 14496-1, 7.2.6).
fn esds(format: &AacFormat) -> Vec<u8> {
    fn descriptor(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![tag, body.len() as u8];
        out.extend(body);
        out
    }
    let specific = descriptor(5, &format.config);
    // Object type 0x40 = AAC, stream type 5 = audio; buffer size and rates are unknown.
    let decoder = [&[0x40, 0x15, 0, 0, 0][..], &be(&[0, 0]), &specific].concat();
    let decoder = descriptor(4, &decoder);
    let sl = descriptor(6, &[2]);
    let es = descriptor(3, &[&[0, 1, 0][..], &decoder, &sl].concat());
    full(*b"esds", 0, &[&es])
}

const IDENTITY: [u8; 36] = {
    let mut matrix = [0; 36];
    matrix[1] = 1; // 1.0 in 16.16
    matrix[17] = 1;
    matrix[32] = 0x40; // 1.0 in 2.30
    matrix
};

fn be(values: &[u32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_be_bytes())
        .collect()
}

fn atom(kind: [u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    let size = 8 + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut out = Vec::with_capacity(size);
    out.extend((size as u32).to_be_bytes());
    out.extend(kind);
    for part in parts {
        out.extend(*part);
    }
    out
}

fn full(kind: [u8; 4], flags: u32, parts: &[&[u8]]) -> Vec<u8> {
    let flags = flags.to_be_bytes();
    let parts: Vec<&[u8]> = std::iter::once(&flags[..])
        .chain(parts.iter().copied())
        .collect();
    atom(kind, &parts)
}

/// What an MP4 says of the start of its audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skip {
    /// Ticks to skip, in units of `timescale`; `None` without an edit list.
    pub media_time: Option<u64>,
    /// Ticks per second of the audio track.
    pub timescale: u32,
}

/// Whether `data` looks like an MP4 file.
pub fn is_mp4(data: &[u8]) -> bool {
    data.get(4..8)
        .is_some_and(|kind| matches!(kind, b"ftyp" | b"styp" | b"moov"))
}

/// Takes the edit list of the first track out of an MP4, in place, and says what it
/// would have skipped; `None` if there is no track.
///
/// Demuxers disagree about edit lists (`qtdemux` 1.22 loses the last frame, others round),
/// so nobody gets to see one: `edts` becomes `free`, durations become "unknown", and the
/// caller skips the samples itself.
pub fn strip_edit_list(data: &mut [u8]) -> Option<Skip> {
    let moov = find(data, 0, data.len(), *b"moov")?;
    if let Some(mvhd) = find(data, moov.body, moov.end, *b"mvhd") {
        clear_duration(data, mvhd, 12, 20);
    }
    let trak = find(data, moov.body, moov.end, *b"trak")?;
    if let Some(tkhd) = find(data, trak.body, trak.end, *b"tkhd") {
        clear_duration(data, tkhd, 16, 24);
    }
    let mdia = find(data, trak.body, trak.end, *b"mdia")?;
    let mdhd = find(data, mdia.body, mdia.end, *b"mdhd")?;
    let at = mdhd.body
        + if data.get(mdhd.body) == Some(&1) {
            20
        } else {
            12
        };
    let timescale = u32_at(data, at).filter(|timescale| *timescale > 0)?;
    let edts = find(data, trak.body, trak.end, *b"edts");
    let media_time = edts.and_then(|edts| {
        let elst = find(data, edts.body, edts.end, *b"elst")?;
        let media_time = first_media_time(data, elst)?;
        data[edts.start + 4..edts.start + 8].copy_from_slice(b"free");
        Some(media_time)
    });
    Some(Skip {
        media_time,
        timescale,
    })
}

#[derive(Clone, Copy)]
struct Found {
    start: usize,
    body: usize,
    end: usize,
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(
        data.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
}

fn find(data: &[u8], from: usize, to: usize, kind: [u8; 4]) -> Option<Found> {
    let mut at = from;
    while at + 8 <= to {
        let size = u32_at(data, at)? as usize;
        let (header, size) = match size {
            0 => (8, to - at),
            1 => {
                let large = data.get(at + 8..at + 16)?;
                (
                    16,
                    usize::try_from(u64::from_be_bytes(large.try_into().ok()?)).ok()?,
                )
            }
            _ => (8, size),
        };
        let end = at.checked_add(size)?;
        if size < header || end > to {
            return None;
        }
        if data[at + 4..at + 8] == kind[..] {
            return Some(Found {
                start: at,
                body: at + header,
                end,
            });
        }
        at = end;
    }
    None
}

fn clear_duration(data: &mut [u8], atom: Found, at_v0: usize, at_v1: usize) {
    let (at, len) = if data.get(atom.body) == Some(&1) {
        (at_v1 + 4, 8)
    } else {
        (at_v0 + 4, 4)
    };
    // `at_*` count from the body's version/flags; 4 skips those.
    let at = atom.body + at;
    if at + len <= atom.end {
        data[at..at + len].fill(0);
    }
}

fn first_media_time(data: &[u8], elst: Found) -> Option<u64> {
    let version = *data.get(elst.body)?;
    let count = u32_at(data, elst.body + 4)? as usize;
    let entry = if version == 1 { 20 } else { 12 };
    for i in 0..count.min(16) {
        let at = elst.body + 8 + i * entry;
        if at + entry > elst.end {
            return None;
        }
        let media_time = if version == 1 {
            i64::from_be_bytes(data.get(at + 8..at + 16)?.try_into().ok()?)
        } else {
            i64::from(u32_at(data, at + 4)? as i32)
        };
        // Negative is an empty edit: a delay, not a position.
        if let Ok(media_time) = u64::try_from(media_time) {
            return Some(media_time);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format() -> AacFormat {
        AacFormat::lc(48_000, 2)
    }

    #[test]
    fn a_fragment_presents_its_own_frames_and_skips_the_preroll() {
        let mut file = write(&format(), Some(b"before"), &[b"one", b"two"]);
        assert!(is_mp4(&file));
        let skip = strip_edit_list(&mut file).unwrap();
        assert_eq!(
            skip,
            Skip {
                media_time: Some(1024),
                timescale: 48_000
            }
        );
        assert!(file.ends_with(b"beforeonetwo"));
        let again = strip_edit_list(&mut file).unwrap();
        assert_eq!(again.media_time, None, "the edit list is gone");
    }

    #[test]
    fn the_chunk_offset_points_at_the_first_frame() {
        let file = write(&format(), None, &[b"first"]);
        let stco = file.windows(4).position(|w| w == b"stco").unwrap();
        let offset = u32_at(&file, stco + 12).unwrap() as usize;
        assert_eq!(&file[offset..], b"first");
    }

    #[test]
    fn garbage_is_never_a_panic() {
        let file = write(&format(), Some(b"before"), &[b"one", b"two"]);
        for cut in 0..file.len() {
            strip_edit_list(&mut file[..cut].to_vec());
        }
        for at in 0..file.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut broken = file.clone();
                broken[at] = value;
                strip_edit_list(&mut broken);
            }
        }
    }
}
