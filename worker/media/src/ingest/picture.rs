//! What kind of picture an access unit holds, by its first slice (ITU-T H.264, 7.3.3).

use dub_engine::timeline::Picture;

const SLICE: u8 = 1;
const SLICE_OF_IDR: u8 = 5;
/// Slice types P, B, I, SP, SI; five more say that all slices of the picture are alike.
const B: u32 = 1;

/// The kind of an AVC-formatted unit with lengths of four bytes; `keyframe` as the parser says.
pub(super) fn kind_of(unit: &[u8], keyframe: bool) -> Picture {
    if keyframe {
        return Picture::Key;
    }
    let mut rest = unit;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let Some((nal, after)) = after.split_at_checked(length) else {
            break;
        };
        if let Some((header, slice)) = nal.split_first()
            && matches!(header & 0x1f, SLICE | SLICE_OF_IDR)
        {
            let mut bits = Bits {
                bytes: slice,
                at: 0,
            };
            let _first_macroblock = bits.exp_golomb();
            return match bits.exp_golomb() {
                Some(kind) if kind % 5 == B => Picture::Bidirectional,
                _ => Picture::Predicted,
            };
        }
        rest = after;
    }
    Picture::Predicted
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

    #[test]
    fn the_first_slice_tells() {
        // first_mb_in_slice 0 ("1"), slice_type 6 ("00111") and 5 ("00110"); 1 ("010") and 0 ("1").
        let sei: &[u8] = &[0x06, 0x05, 0x01];
        assert_eq!(
            kind_of(&unit(&[sei, &[0x01, 0b1001_1100]]), false),
            Picture::Bidirectional
        );
        assert_eq!(
            kind_of(&unit(&[&[0x41, 0b1001_1000]]), false),
            Picture::Predicted
        );
        assert_eq!(
            kind_of(&unit(&[&[0x01, 0b1010_0000]]), false),
            Picture::Bidirectional
        );
        assert_eq!(
            kind_of(&unit(&[&[0x41, 0b1100_0000]]), false),
            Picture::Predicted
        );
        assert_eq!(kind_of(&unit(&[&[0x65, 0x88]]), true), Picture::Key);
        for broken in [
            &[][..],
            &[0, 0, 0, 9, 1],
            &[0, 0, 0, 1, 1],
            &[0, 0, 0, 2, 1, 0],
        ] {
            assert_eq!(kind_of(broken, false), Picture::Predicted);
        }
    }
}
