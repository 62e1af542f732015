//! Where the machine-readable part of the picture sits, and its block code.
//!
//! The picture is divided into square cells, forty to a row. One row of
//! thirty-two cells (the *band*) carries everything a reader needs:
//!
//! ```text
//! cell   0 1   2 3        4 … 27             28 29   30 31
//!       flash  W B   16 number + 8 check bits  B W   flash
//! ```
//!
//! `W` and `B` are reference cells: the reader compares every bit with them, so
//! brightness, contrast and range changes do not matter. The flash cells are
//! just the panel's background: bright during a flash, dark otherwise.

/// Cells across the whole picture; a cell is this fraction of the width.
pub const CELLS_ACROSS: u32 = 40;
/// Cells in the band that is read.
pub const BAND_CELLS: usize = 32;
/// First column of the band, in cells from the left edge.
pub const BAND_COLUMN: u32 = 4;
/// Top of the band, in cells from the top edge.
pub const BAND_ROW: u32 = 17;
/// A flash lasts this many frames, the first of which is the second's first.
pub const FLASH_FRAMES: u32 = 3;
/// Numbers repeat after this many frames (36 minutes at 30 frames a second).
pub const NUMBERS: u32 = 1 << NUMBER_BITS;

const NUMBER_BITS: usize = 16;
const CHECK_BITS: usize = 8;
const FLASH_CELLS: [usize; 4] = [0, 1, 30, 31];
const WHITE_CELLS: [usize; 2] = [2, 29];
const BLACK_CELLS: [usize; 2] = [3, 28];
const FIRST_BIT: usize = 4;

/// What the reference cells must differ by, in luma steps, to be believed.
const LEAST_CONTRAST: f32 = 48.0;
/// How far towards the threshold, of half the contrast, a bit may stray.
const LEAST_MARGIN: f32 = 0.25;

/// What one cell of the band shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// The panel's background, which the flash lights up.
    Panel,
    /// A dark block.
    Black,
    /// A bright block.
    White,
}

/// What was read from one picture's band.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Frame number, if the code is there and its check bits agree.
    pub number: Option<u32>,
    /// Whether the panel is lit. Meaningless without a number.
    pub lit: bool,
}

/// The band's cells for frame `number` (taken modulo [`NUMBERS`]).
pub fn encode(number: u32) -> [Cell; BAND_CELLS] {
    let mut cells = [Cell::Panel; BAND_CELLS];
    for at in WHITE_CELLS {
        cells[at] = Cell::White;
    }
    for at in BLACK_CELLS {
        cells[at] = Cell::Black;
    }
    let number = number % NUMBERS;
    let word = number << CHECK_BITS | u32::from(check(number));
    for bit in 0..NUMBER_BITS + CHECK_BITS {
        let set = word >> (NUMBER_BITS + CHECK_BITS - 1 - bit) & 1 == 1;
        cells[FIRST_BIT + bit] = if set { Cell::White } else { Cell::Black };
    }
    cells
}

/// Reads a band back from the mean luma of its cells.
///
/// A picture without the code, or with one damaged beyond its check bits, gives
/// no number: nothing is guessed.
pub fn decode(luma: &[u8; BAND_CELLS]) -> Reading {
    let mean = |cells: &[usize]| {
        cells.iter().map(|&at| f32::from(luma[at])).sum::<f32>() / cells.len() as f32
    };
    let (black, white) = (mean(&BLACK_CELLS), mean(&WHITE_CELLS));
    let middle = f32::midpoint(black, white);
    let half = (white - black) / 2.0;
    let lit = mean(&FLASH_CELLS) > middle;
    let unreadable = Reading { number: None, lit };
    if half * 2.0 < LEAST_CONTRAST {
        return unreadable;
    }
    let mut word = 0;
    for &value in &luma[FIRST_BIT..FIRST_BIT + NUMBER_BITS + CHECK_BITS] {
        let offset = (f32::from(value) - middle) / half;
        if offset.abs() < LEAST_MARGIN {
            return unreadable;
        }
        word = word << 1 | u32::from(offset > 0.0);
    }
    let number = word >> CHECK_BITS;
    if word & 0xff != u32::from(check(number)) {
        return unreadable;
    }
    Reading {
        number: Some(number),
        lit,
    }
}

/// Whether frame `number` is part of a flash.
pub fn is_flash(number: u32, fps: u32) -> bool {
    number % fps < FLASH_FRAMES
}

/// CRC-8 (polynomial 0x2f, which detects every error of up to three bits at
/// this length) over the number's two bytes. It starts at 0xff so that an
/// all-dark code is never valid.
fn check(number: u32) -> u8 {
    let mut crc = 0xff_u8;
    for byte in [(number >> 8) as u8, number as u8] {
        crc ^= byte;
        for _ in 0..8 {
            crc = if crc & 0x80 == 0 {
                crc << 1
            } else {
                crc << 1 ^ 0x2f
            };
        }
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    fn luma(number: u32, lit: bool) -> [u8; BAND_CELLS] {
        encode(number).map(|cell| match cell {
            Cell::Panel if lit => 235,
            Cell::Panel => 24,
            Cell::Black => 30,
            Cell::White => 210,
        })
    }

    #[test]
    fn every_number_reads_back() {
        for number in 0..NUMBERS {
            let reading = decode(&luma(number, number % 2 == 0));
            assert_eq!(reading.number, Some(number));
            assert_eq!(reading.lit, number % 2 == 0);
        }
    }

    #[test]
    fn up_to_three_wrong_bits_are_never_a_number() {
        let flip = |cells: &mut [u8; BAND_CELLS], at: usize| {
            cells[FIRST_BIT + at] = if cells[FIRST_BIT + at] > 100 { 30 } else { 210 };
        };
        for number in [0, 1, 899, 1799, 40_000] {
            for a in 0..24 {
                for b in a..24 {
                    for c in b..24 {
                        let mut cells = luma(number, false);
                        flip(&mut cells, a);
                        if b != a {
                            flip(&mut cells, b);
                        }
                        if c != b {
                            flip(&mut cells, c);
                        }
                        assert_eq!(decode(&cells).number, None, "{number}: {a} {b} {c}");
                    }
                }
            }
        }
    }

    #[test]
    fn plain_pictures_have_no_number() {
        for value in [0, 16, 128, 235, 255] {
            assert_eq!(decode(&[value; BAND_CELLS]).number, None);
        }
    }

    #[test]
    fn contrast_and_range_do_not_matter() {
        for (black, gain) in [(0.0, 1.0), (60.0, 0.35), (16.0, 0.8)] {
            let cells = luma(1234, true).map(|value| (black + f32::from(value) * gain) as u8);
            let reading = decode(&cells);
            assert_eq!((reading.number, reading.lit), (Some(1234), true));
        }
    }
}
