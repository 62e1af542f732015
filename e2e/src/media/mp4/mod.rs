//! Reads MP4 and MOV files (ISO/IEC 14496-12), plain or fragmented, into exact sample tables.

mod entry;
mod fragment;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::bytes::{Reader, Short};
use super::clip::{AudioFormat, FormatError, Sample, Track, VideoFormat};

/// The tracks of an MP4 file; sample ranges are byte offsets into it.
#[derive(Debug)]
pub struct Mp4 {
    /// The first video track with samples.
    pub video: Option<Track<VideoFormat>>,
    /// The first audio track with samples.
    pub audio: Option<Track<AudioFormat>>,
    /// The file ends before its last sample does.
    pub truncated: bool,
}

/// Whether this looks like an MP4 or MOV file.
pub fn recognises(bytes: &[u8]) -> bool {
    bytes.get(4..8).is_some_and(|kind| {
        [
            *b"ftyp", *b"moov", *b"styp", *b"wide", *b"free", *b"skip", *b"mdat",
        ]
        .iter()
        .any(|known| kind == known)
    })
}

/// One box: its kind and where its payload is in the file.
#[derive(Debug, Clone, Copy)]
struct Atom<'a> {
    kind: [u8; 4],
    payload: &'a [u8],
    /// Where the box, header included, begins in the file.
    begin: usize,
}

/// The boxes in `data`, which begins at `offset` in the file. A last box that is cut off is left out.
fn atoms(data: &[u8], offset: usize) -> impl Iterator<Item = Atom<'_>> {
    let mut reader = Reader::new(data);
    std::iter::from_fn(move || {
        let begin = reader.position();
        let parsed = (|| -> Result<Atom<'_>, Short> {
            let size = reader.u32()?;
            let kind: [u8; 4] = reader.take(4)?.try_into().map_err(|_| Short)?;
            let payload = match size {
                0 => reader.left(),
                1 => usize::try_from(reader.u64()?)
                    .ok()
                    .and_then(|size| size.checked_sub(16))
                    .ok_or(Short)?,
                _ => (size as usize).checked_sub(8).ok_or(Short)?,
            };
            Ok(Atom {
                kind,
                payload: reader.take(payload)?,
                begin: offset + begin,
            })
        })();
        parsed.ok()
    })
}

/// The first box of a kind directly inside a payload.
fn child(payload: &[u8], kind: [u8; 4]) -> Option<&[u8]> {
    atoms(payload, 0)
        .find(|atom| atom.kind == kind)
        .map(|atom| atom.payload)
}

fn required(payload: &[u8], kind: [u8; 4]) -> Result<&[u8], FormatError> {
    child(payload, kind).ok_or_else(|| {
        FormatError(format!(
            "it has no '{}' box where one must be",
            String::from_utf8_lossy(&kind)
        ))
    })
}

/// A track before its samples are placed on the presentation's time line.
#[derive(Debug)]
struct RawTrack<'a> {
    id: u32,
    handler: [u8; 4],
    timescale: u32,
    sample_entry: Atom<'a>,
    edit: Edit,
    samples: Vec<Sample>,
}

/// What the edit list says, in ticks of the track.
#[derive(Debug, Clone, Copy, Default)]
struct Edit {
    /// Added to every media time.
    shift: i64,
    /// Where the presentation of this track ends, if that is said.
    end: Option<i64>,
}

/// Reads the tables of a whole file.
pub fn read(file: &[u8]) -> Result<Mp4, FormatError> {
    let movie = child(file, *b"moov").ok_or_else(|| {
        FormatError(
            "it has no movie header ('moov'), so it was never finished or is cut off".into(),
        )
    })?;
    let movie_timescale = table::movie_timescale(required(movie, *b"mvhd")?)?;
    let mut tracks = Vec::new();
    for atom in atoms(movie, 0).filter(|atom| atom.kind == *b"trak") {
        tracks.push(table::track(atom.payload, movie_timescale)?);
    }
    if let Some(extends) = child(movie, *b"mvex") {
        let defaults = fragment::defaults(extends)?;
        fragment::append(file, &defaults, &mut tracks)?;
    }
    let mut truncated = false;
    let (mut video, mut audio) = (None, None);
    for mut track in tracks {
        let before = track.samples.len();
        track
            .samples
            .retain(|sample| sample.range.end <= file.len());
        truncated |= track.samples.len() < before;
        let is_video = track.handler == *b"vide";
        place(&mut track, is_video);
        if track.samples.is_empty() {
            continue;
        }
        let Atom { kind, payload, .. } = track.sample_entry;
        match &track.handler {
            b"vide" if video.is_none() => {
                let format = entry::video(kind, payload)?;
                video = Some(Track {
                    format,
                    timescale: track.timescale,
                    samples: track.samples,
                });
            }
            b"soun" if audio.is_none() => {
                let format = entry::audio(kind, payload)?;
                audio = Some(Track {
                    format,
                    timescale: track.timescale,
                    samples: track.samples,
                });
            }
            _ => {}
        }
    }
    if video.is_none() && audio.is_none() {
        return Err(FormatError(
            "it has neither a video nor an audio track with samples".into(),
        ));
    }
    Ok(Mp4 {
        video,
        audio,
        truncated,
    })
}

/// Moves samples onto the presentation's time line and drops those that are never presented.
///
/// Audio that ends before 0 is encoder priming. Video before 0 stays from the last keyframe on,
/// because what is shown first may refer to it.
fn place(track: &mut RawTrack<'_>, is_video: bool) {
    for sample in &mut track.samples {
        sample.pts = sample.pts.saturating_add(track.edit.shift);
        sample.dts = sample.dts.saturating_add(track.edit.shift);
    }
    if let Some(end) = track.edit.end {
        track.samples.retain(|sample| sample.pts < end);
    }
    let presented = |sample: &Sample| sample.pts + i64::from(sample.duration) > 0;
    let first = track
        .samples
        .iter()
        .position(presented)
        .unwrap_or(track.samples.len());
    let begin = if is_video {
        track.samples[..first]
            .iter()
            .rposition(|sample| sample.keyframe)
            .filter(|_| {
                track
                    .samples
                    .get(first)
                    .is_some_and(|sample| !sample.keyframe)
            })
    } else {
        None
    };
    track.samples.drain(..begin.unwrap_or(first));
}

/// Defaults of a track's fragments (`trex`), by track.
type Defaults = BTreeMap<u32, fragment::TrackDefaults>;
