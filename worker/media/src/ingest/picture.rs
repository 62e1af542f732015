//! What kind of picture an access unit holds, by its slices (ITU-T H.264, 7.3.3).

use std::time::Instant;

use dub_engine::input::NO_BEGINNING;
use dub_engine::timeline::Picture;

const SLICE: u8 = 1;
const SLICE_OF_IDR: u8 = 5;
const SEI: u8 = 6;
/// Slice types P, B, I, SP, SI; five more say that all slices of the picture are alike.
const B: u32 = 1;
const INTRA: [u32; 2] = [2, 4];
/// Payload type of the SEI that says that decoding can start here, or will be right soon.
const RECOVERY_POINT: u32 = 6;

/// The kinds of one connection's pictures.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    first: Option<Instant>,
    /// There was one with which decoding can start.
    begun: bool,
}

impl Kinds {
    /// The kind of an AVC-formatted unit with lengths of four bytes that came `now`. The parser takes any
    /// slice that refers to nothing for a keyframe. Encoders that refresh slice by slice have one in every
    /// picture; where there is nothing else to begin with for long, it must do.
    pub(super) fn kind(&mut self, unit: &[u8], keyframe: bool, now: Instant) -> Picture {
        let first = *self.first.get_or_insert(now);
        let kind = kind_of(unit);
        self.begun |= kind == Picture::Key;
        if keyframe && !self.begun && now.duration_since(first) >= NO_BEGINNING {
            return Picture::Key;
        }
        kind
    }
}

/// The unit with the flag that says what it was found to be: players and servers start where it is not set.
pub(super) fn marked(mut buffer: gst::Buffer, picture: Picture) -> gst::Buffer {
    let delta = gst::BufferFlags::DELTA_UNIT;
    let is_key = picture == Picture::Key;
    if buffer.flags().contains(delta) == is_key {
        let buffer = buffer.make_mut();
        if is_key {
            buffer.unset_flags(delta);
        } else {
            buffer.set_flags(delta);
        }
    }
    buffer
}

fn kind_of(unit: &[u8]) -> Picture {
    let (mut bidirectional, mut predicted, mut slices) = (false, false, false);
    let mut rest = unit;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let Some((nal, after)) = after.split_at_checked(length) else {
            break;
        };
        rest = after;
        let Some((header, data)) = nal.split_first() else {
            continue;
        };
        match header & 0x1f {
            SLICE_OF_IDR => return Picture::Key,
            SEI if is_recovery_point(data) => return Picture::Key,
            SLICE => {
                let mut bits = Bits { bytes: data, at: 0 };
                let _first_macroblock = bits.exp_golomb();
                let kind = bits.exp_golomb().map(|kind| kind % 5);
                slices = true;
                bidirectional |= kind == Some(B);
                predicted |= kind.is_none_or(|kind| !INTRA.contains(&kind));
            }
            _ => {}
        }
    }
    if bidirectional {
        Picture::Bidirectional
    } else if predicted || !slices {
        Picture::Predicted
    } else {
        Picture::Key
    }
}

/// Whether one of the messages is that (7.3.2.3.1).
fn is_recovery_point(sei: &[u8]) -> bool {
    let mut bytes = without_emulation(sei).peekable();
    // Sizes and types of 255 and more go on in the next byte; what follows the messages is 0x80.
    while bytes.peek().is_some_and(|next| *next != 0x80) {
        let mut number = || {
            let mut number = 0;
            loop {
                let byte = bytes.next()?;
                number += u32::from(byte);
                if byte != 0xff {
                    return Some(number);
                }
            }
        };
        let Some((kind, size)) = number().zip(number()) else {
            return false;
        };
        if kind == RECOVERY_POINT {
            return true;
        }
        if size > 0 {
            bytes.nth(size as usize - 1);
        }
    }
    false
}

/// The bytes of a NAL unit without those that keep start codes out of it (7.4.1).
fn without_emulation(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let mut zeros = 0;
    bytes.iter().copied().filter(move |byte| {
        let emulation = zeros >= 2 && *byte == 3;
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        !emulation
    })
}

/// Reads bits. The two fields that are read are far too short for emulation prevention to matter.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn bit(&mut self) -> Option<u32> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(u32::from(bit))
    }

    fn exp_golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.bit()? == 0 {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        let mut value = 1_u32;
        for _ in 0..zeros {
            value = value << 1 | self.bit()?;
        }
        Some(value - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(nals: &[&[u8]]) -> Vec<u8> {
        nals.iter()
            .flat_map(|nal| {
                (nal.len() as u32)
                    .to_be_bytes()
                    .into_iter()
                    .chain(nal.iter().copied())
            })
            .collect()
    }

    // first_mb_in_slice 0 ("1"), then slice_type 5 ("00110"), 6 ("00111") and 7 ("0001000"), by which all
    // are alike; 0 ("1"), 1 ("010") and 2 ("011").
    const ALL_P: &[u8] = &[0x41, 0b1001_1000];
    const ALL_B: &[u8] = &[0x01, 0b1001_1100];
    const ALL_I: &[u8] = &[0x41, 0b1000_1000];
    const P: &[u8] = &[0x41, 0b1100_0000];
    const B: &[u8] = &[0x01, 0b1010_0000];
    const I: &[u8] = &[0x41, 0b1011_0000];
    const IDR: &[u8] = &[0x65, 0x88];
    const SETS: [&[u8]; 2] = [&[0x67, 0x42], &[0x68, 0xce]];
    const TEXT: &[u8] = &[0x06, 0x05, 0x01, 0x06, 0x80];
    const RECOVERY: &[u8] = &[0x06, 0x06, 0x01, 0xc4, 0x80];
    /// Behind another message, with a byte that is none of it.
    const HIDDEN: &[u8] = &[0x06, 0x05, 0x03, 0, 0, 3, 1, 0x06, 0x01, 0xc4, 0x80];

    #[test]
    fn all_slices_tell() {
        use Picture::{Bidirectional, Key, Predicted};
        for (nals, expected) in [
            (vec![TEXT, ALL_B], Bidirectional),
            (vec![ALL_P], Predicted),
            (vec![B], Bidirectional),
            (vec![P], Predicted),
            (vec![IDR], Key),
            // Cameras that send nothing else to begin with.
            (vec![ALL_I], Key),
            (vec![I, I, I], Key),
            // Refreshed slice by slice.
            (vec![I, P, P], Predicted),
            (vec![P, I, P], Predicted),
            (vec![TEXT, I, B], Bidirectional),
            (vec![RECOVERY, P, I], Key),
            (vec![HIDDEN, P], Key),
            (vec![SETS[0], SETS[1]], Predicted),
        ] {
            assert_eq!(kind_of(&unit(&nals)), expected, "{nals:?}");
        }
        for broken in [
            &[][..],
            &[0, 0, 0, 9, 1],
            &[0, 0, 0, 1, 1],
            &[0, 0, 0, 2, 1, 0],
            &[0, 0, 0, 2, 6, 0xff],
            &[0, 0, 0, 3, 6, 5, 0xff],
        ] {
            assert_eq!(kind_of(broken), Picture::Predicted);
        }
    }

    #[test]
    fn what_goes_out_is_marked_as_what_it_was_found_to_be() {
        gst::init().unwrap();
        let delta = gst::BufferFlags::DELTA_UNIT;
        for said in [delta, gst::BufferFlags::empty()] {
            for (picture, is_delta) in [(Picture::Key, false), (Picture::Predicted, true)] {
                let mut buffer = gst::Buffer::from_slice([1_u8]);
                buffer.get_mut().unwrap().set_flags(said);
                let shared = buffer.clone();
                let marked = marked(buffer, picture);
                assert_eq!(marked.flags().contains(delta), is_delta);
                assert_eq!(shared.flags(), said);
            }
        }
    }

    #[test]
    fn a_slice_that_refers_to_nothing_must_do_where_nothing_else_comes() {
        let start = Instant::now();
        let mut kinds = Kinds::default();
        let mut kind = |at, nals: &[&[u8]], keyframe| {
            kinds.kind(&unit(nals), keyframe, start + NO_BEGINNING * at / 10)
        };
        assert_eq!(kind(0, &[I, P], true), Picture::Predicted);
        assert_eq!(kind(9, &[I, P], true), Picture::Predicted);
        assert_eq!(kind(10, &[P, P], false), Picture::Predicted);
        assert_eq!(kind(10, &[I, P], true), Picture::Key);
        assert_eq!(kind(11, &[I, P], true), Picture::Key);
        assert_eq!(kind(12, &[IDR], true), Picture::Key);
        assert_eq!(kind(13, &[I, P], true), Picture::Predicted);
    }
}
