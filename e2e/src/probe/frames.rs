//! Is what comes out what went in? Coded frames of input and recording, compared one by one.
//!
//! Of a video access unit only the coded slices count: parameter sets, delimiters and SEI may be
//! repeated or dropped on the way, and length prefixes may become start codes. Of audio the whole
//! coded frame counts (it is the same only where audio is copied).

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use e2e_ffmpeg::Track;
use similar::{Algorithm, DiffOp, capture_diff_slices};

use crate::failure::{Failure, Place as Where};
use crate::probe::ffprobe;

/// How far a step from one frame to the next may be from the input's, milliseconds. FLV counts whole
/// milliseconds, so two roundings add up to one.
pub const STEP_TOLERANCE_MS: f64 = 2.0;

/// Differences of one kind that a message shows.
const SHOWN: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CodedFrame {
    /// Presentation time in milliseconds.
    pub pts_ms: f64,
    /// Decoding can start here.
    pub keyframe: bool,
    /// SHA-256 of what counts of it.
    pub hash: [u8; 32],
}

/// The coded frames of one track in decoding order.
#[derive(Debug, Clone, PartialEq)]
pub struct CodedFrames(pub Vec<CodedFrame>);

impl CodedFrames {
    /// Reads the H.264 track of a file.
    ///
    /// # Errors
    /// When the file cannot be read, has no H.264 track or is damaged.
    pub fn video(path: &Path) -> Result<Self> {
        // Samples without a slice (parameter sets alone) become empty, and are no frames.
        Self::read(path, Track::Pictures)
    }

    /// Reads the AAC track of a file.
    ///
    /// # Errors
    /// When the file cannot be read or has no AAC track.
    pub fn audio(path: &Path) -> Result<Self> {
        Self::read(path, Track::Sound)
    }

    /// ffmpeg tells what counts of each packet by its hash, ffprobe at which packets decoding can
    /// start: the same packets in the same order. (Times may differ by where a TS begins.)
    fn read(path: &Path, track: Track) -> Result<Self> {
        let told = e2e_ffmpeg::hash_track(path, track).run();
        let told = told.with_context(|| path.display().to_string())?;
        let stream = match track {
            Track::Pictures => "v:0",
            Track::Sound => "a:0",
        };
        let packets = ffprobe::packets(path, stream)?;
        let text = String::from_utf8_lossy(&told);
        let base = text.lines().find_map(|line| line.strip_prefix("#tb 0: "));
        let tick_ms = base.and_then(ffprobe::fraction).context("no time base")? * 1e3;
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        ensure!(
            lines.len() == packets.len(),
            "ffmpeg tells of {} packets, ffprobe of {}",
            lines.len(),
            packets.len()
        );
        let frames = lines.iter().zip(&packets).map(|(line, packet)| {
            let fields: Vec<_> = line.split(',').map(str::trim).collect();
            let [_, _, pts, _, size, hash, ..] = fields.as_slice() else {
                bail!("ffmpeg wrote {line:?}");
            };
            let pts_ms = pts.parse::<f64>()? * tick_ms;
            let frame = CodedFrame {
                pts_ms,
                keyframe: packet.is_key(),
                hash: bytes(hash).with_context(|| format!("ffmpeg wrote {line:?}"))?,
            };
            Ok((*size != "0").then_some(frame))
        });
        Ok(Self(
            frames
                .filter_map(Result::transpose)
                .collect::<Result<_>>()?,
        ))
    }
}

fn bytes(hex: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()?;
    }
    Some(hash)
}

/// A frame by its place and time in the file it is in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// Number in decoding order, from 0.
    pub index: usize,
    /// Presentation time in that file, milliseconds.
    pub pts_ms: f64,
}

/// A step from one frame to the next that is not the input's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepError {
    /// The frame in the recording after the step.
    pub at: Place,
    /// The input's step, milliseconds.
    pub expected_ms: f64,
    /// The recording's step, milliseconds.
    pub found_ms: f64,
}

/// What became of the input's frames in a recording.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Comparison {
    /// Frames of the input.
    pub input: usize,
    /// Frames of the recording.
    pub recorded: usize,
    /// Frames that are there in order and bit-identical.
    pub matched: usize,
    /// Frames of the input that are not in the recording.
    pub missing: Vec<Place>,
    /// Frames of the recording that stand where one of the input's should, but differ from it.
    pub altered: Vec<Place>,
    /// Frames of the recording that are there once more.
    pub doubled: Vec<Place>,
    /// Frames of the recording that stand in the wrong order.
    pub reordered: Vec<Place>,
    /// Where those stand in the input, and where in the recording.
    pub moved: Vec<(usize, usize)>,
    /// Frames of the recording that the input does not have.
    pub foreign: Vec<Place>,
    /// Keyframes that are there but not marked as such: nobody can start to play at them.
    pub unmarked: Vec<Place>,
    /// Steps in time that are off by more than [`STEP_TOLERANCE_MS`].
    pub steps: Vec<StepError>,
    /// The largest difference between a step of the recording and the input's, milliseconds.
    pub worst_step_ms: f64,
    /// Smallest and largest difference of presentation times, recording minus input, milliseconds.
    pub offset_ms: Option<(f64, f64)>,
}

impl Comparison {
    /// Every frame of the input is there once, in order and bit-identical, and nothing else.
    pub fn is_bit_exact(&self) -> bool {
        self.matched == self.input && self.matched == self.recorded
    }

    /// Bit-exact, keyframes are marked, and the steps in time are the input's.
    pub fn is_exact(&self) -> bool {
        self.is_bit_exact() && self.steps.is_empty() && self.unmarked.is_empty()
    }

    /// Neighbours that changed places are swapped; further away, it is a wrong order.
    fn disorder(&self) -> &'static str {
        let neighbours = self.moved.iter().all(|(from, to)| from.abs_diff(*to) == 1);
        if neighbours {
            "swapped with the next"
        } else {
            "in the wrong order"
        }
    }

    /// Nothing when the recording is exact, else an error that lists the first differences.
    ///
    /// # Errors
    /// When a frame is missing, altered, doubled, reordered or foreign, or a step in time is off.
    pub fn require_exact(&self) -> Result<()> {
        if self.is_exact() {
            return Ok(());
        }
        let lists = [
            &self.missing,
            &self.altered,
            &self.doubled,
            &self.reordered,
            &self.foreign,
        ];
        let places = lists
            .into_iter()
            .flatten()
            .chain(self.steps.iter().map(|step| &step.at));
        let first = places
            .map(|place| place.pts_ms / 1e3)
            .min_by(f64::total_cmp);
        let failure = Failure::new("the coded frames of the recording are not those of the input");
        let expected = format!("{} frames, bit for bit, in order and in time", self.input);
        Err(failure
            .expected(expected)
            .actual(self)
            .at(first.map(Where::Media))
            .into())
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} frames of the input are there, in order and bit-identical",
            self.matched, self.input
        )?;
        write!(
            f,
            "; steps in time differ by at most {:.2} ms",
            self.worst_step_ms
        )?;
        if let Some((least, most)) = self.offset_ms {
            write!(f, "; {least:.2} to {most:.2} ms later than in the input")?;
        }
        for (kind, places) in [
            ("missing", &self.missing),
            ("altered", &self.altered),
            ("doubled", &self.doubled),
            (self.disorder(), &self.reordered),
            ("not from the input", &self.foreign),
            ("without their keyframe flag", &self.unmarked),
        ] {
            list(f, kind, places)?;
        }
        list(f, "wrong steps in time", &self.steps)
    }
}

/// A line with the number of differences of one kind and the first of them, if there are any.
fn list(f: &mut fmt::Formatter<'_>, kind: &str, all: &[impl fmt::Display]) -> fmt::Result {
    if all.is_empty() {
        return Ok(());
    }
    let first: Vec<_> = all.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = if all.len() > SHOWN { ", …" } else { "" };
    write!(f, "\n  {} {kind}: {}{more}", all.len(), first.join(", "))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} at {:.1} ms", self.index, self.pts_ms)
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (found, expected) = (self.found_ms, self.expected_ms);
        write!(
            f,
            "{found:.1} ms instead of {expected:.1} ms before {}",
            self.at
        )
    }
}

pub fn compare(input: &CodedFrames, recording: &CodedFrames) -> Comparison {
    let (input, recording) = (&input.0, &recording.0);
    // Hashes as small numbers, the same for the same content in both: cheap to compare.
    let mut known: HashMap<[u8; 32], u32> = HashMap::new();
    let mut number = |frame: &CodedFrame| {
        let next = known.len() as u32;
        *known.entry(frame.hash).or_insert(next)
    };
    let old: Vec<_> = input.iter().map(&mut number).collect();
    let new: Vec<_> = recording.iter().map(&mut number).collect();
    let operations = capture_diff_slices(Algorithm::Myers, &old, &new);

    let place = |frames: &[CodedFrame], index: usize| Place {
        index,
        pts_ms: frames[index].pts_ms,
    };
    let mut comparison = Comparison {
        input: input.len(),
        recorded: recording.len(),
        ..Comparison::default()
    };
    let mut pairs = Vec::new();
    // Frames of the input that are not matched, and how often each content occurs among them.
    let mut unmatched = vec![false; input.len()];
    let mut content: HashMap<u32, Vec<usize>> = HashMap::new();
    for operation in &operations {
        if let DiffOp::Equal {
            old_index,
            new_index,
            len,
        } = *operation
        {
            pairs.extend((0..len).map(|offset| (old_index + offset, new_index + offset)));
        } else {
            for index in operation.old_range() {
                unmatched[index] = true;
                content.entry(old[index]).or_default().push(index);
            }
        }
    }
    comparison.matched = pairs.len();

    // What is unmatched in the recording: the same content elsewhere, once more, or something else.
    let mut unknown = vec![false; recording.len()];
    for operation in operations
        .iter()
        .filter(|operation| !matches!(operation, DiffOp::Equal { .. }))
    {
        for index in operation.new_range() {
            if let Some(original) = content.get_mut(&new[index]).and_then(Vec::pop) {
                unmatched[original] = false;
                comparison.moved.push((original, index));
                comparison.reordered.push(place(recording, index));
            } else if old.contains(&new[index]) {
                comparison.doubled.push(place(recording, index));
            } else {
                unknown[index] = true;
            }
        }
    }
    // What stands in the place of something missing is that something, altered.
    for operation in &operations {
        let mut missing = operation
            .old_range()
            .filter(|&index| unmatched[index])
            .collect::<Vec<_>>()
            .into_iter();
        for index in operation.new_range().filter(|&index| unknown[index]) {
            let list = if missing.next().is_some() {
                &mut comparison.altered
            } else {
                &mut comparison.foreign
            };
            list.push(place(recording, index));
        }
        comparison
            .missing
            .extend(missing.map(|index| place(input, index)));
    }

    for &(from, to) in &pairs {
        let offset = recording[to].pts_ms - input[from].pts_ms;
        let (least, most) = comparison.offset_ms.unwrap_or((offset, offset));
        comparison.offset_ms = Some((least.min(offset), most.max(offset)));
        if input[from].keyframe && !recording[to].keyframe {
            comparison.unmarked.push(place(recording, to));
        }
    }
    for pair in pairs.windows(2) {
        let [(from, to), (next_from, next_to)] = *pair else {
            continue;
        };
        let expected_ms = input[next_from].pts_ms - input[from].pts_ms;
        let found_ms = recording[next_to].pts_ms - recording[to].pts_ms;
        let off = (found_ms - expected_ms).abs();
        comparison.worst_step_ms = comparison.worst_step_ms.max(off);
        if off > STEP_TOLERANCE_MS {
            comparison.steps.push(StepError {
                at: place(recording, next_to),
                expected_ms,
                found_ms,
            });
        }
    }
    comparison
}

#[cfg(test)]
mod tests;
