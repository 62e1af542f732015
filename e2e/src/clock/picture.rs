//! The test card: what frame `number` looks like.
//!
//! It is drawn small, and ffmpeg enlarges it, pixel by pixel, to the size of the clip.

use std::f32::consts::TAU;

use sha2::{Digest as _, Sha256};

use super::layout::{self, Cell};

pub(super) const WIDTH: usize = 160;
pub(super) const HEIGHT: usize = 90;
const PIXELS: usize = WIDTH * HEIGHT;
const CELL: usize = WIDTH / layout::CELLS_ACROSS as usize;

/// Luma and chroma in BT.709, limited range.
type Colour = [u8; 3];

const BACKGROUND: Colour = [52, 133, 124];
const ORANGE: Colour = [159, 73, 174];
/// Colour bars at three quarters, as on any test card.
const BARS: [Colour; 8] = [
    [180, 128, 128],
    [168, 44, 136],
    [145, 147, 44],
    [133, 63, 52],
    [63, 193, 204],
    [51, 109, 212],
    [28, 212, 120],
    [16, 128, 128],
];
/// Digits and the colon: five rows of three pixels, an octal digit each.
const GLYPHS: [u16; 11] = [
    0o75557, 0o26227, 0o71747, 0o71717, 0o55711, 0o74717, 0o74757, 0o71111, 0o75757, 0o75717,
    0o02020,
];

/// A raw yuv420p frame.
pub(super) fn frame(number: u32, fps: u32) -> Vec<u8> {
    let (second, within) = (number / fps, number % fps);
    let (panel, ink) = if layout::is_flash(number, fps) {
        (grey(235), grey(24))
    } else {
        (grey(26), grey(225))
    };
    let mut frame = vec![0; PIXELS * 3 / 2];
    let mut fill = |area, colour| fill(&mut frame, area, colour);
    fill([0, 0, WIDTH, HEIGHT], BACKGROUND);
    for (at, colour) in BARS.into_iter().enumerate() {
        fill([16 + at * 16, 4, 16, 10], colour);
    }
    fill([16, 18, 128, 58], panel);

    // A dial with a hand that is straight up at the flash.
    let mut dot = |turn: f32, colour| {
        let (sin, cos) = (turn * TAU).sin_cos();
        let [x, y] = [40.0 + 18.0 * sin, 42.0 - 18.0 * cos].map(|at: f32| (at / 2.0).round());
        fill([x as usize * 2 - 2, y as usize * 2 - 2, 4, 4], colour);
    };
    (0..12).for_each(|tick| dot(tick as f32 / 12.0, ink));
    dot(within as f32 / fps as f32, ORANGE);

    let mut text = |[x, y]: [usize; 2], size: usize, text: &str| {
        for (at, letter) in text.bytes().enumerate() {
            let glyph = GLYPHS[usize::from(letter - b'0')];
            for bit in (0..15).filter(|bit| glyph >> (14 - bit) & 1 == 1) {
                let (column, row) = (at * 4 + bit % 3, bit / 3);
                fill([x + column * size, y + row * size, size, size], ink);
            }
        }
    };
    text(
        [64, 24],
        4,
        &format!("{:02}:{:02}", second / 60 % 100, second % 60),
    );
    text([102, 52], 2, &format!("{number:05}"));

    // The minute so far, one block a second.
    for block in 0..=second as usize % 60 {
        fill(
            [20 + block * 2, 80, 2, if block % 5 == 0 { 6 } else { 4 }],
            ORANGE,
        );
    }
    // Greys that differ from picture to picture, so that no two are coded alike: each is known by its bytes.
    let greys = Sha256::digest(number.to_le_bytes());
    for (at, byte) in greys.into_iter().take(16).enumerate() {
        fill([16 + at * 8, 0, 8, 2], grey(16 + byte / 2));
    }
    for (at, cell) in layout::encode(number).into_iter().enumerate() {
        let colour = match cell {
            Cell::Panel => continue,
            Cell::Black => grey(30),
            Cell::White => grey(205),
        };
        let column = layout::BAND_COLUMN as usize + at;
        fill(
            [column * CELL, layout::BAND_ROW as usize * CELL, CELL, CELL],
            colour,
        );
    }
    frame
}

fn grey(luma: u8) -> Colour {
    [luma, 128, 128]
}

/// A rectangle; all of its numbers are even.
fn fill(frame: &mut [u8], [x, y, width, height]: [usize; 4], [luma, blue, red]: Colour) {
    let mut plane = |first: usize, part: usize, value: u8| {
        for row in y / part..(y + height) / part {
            let from = first + row * (WIDTH / part) + x / part;
            frame[from..from + width / part].fill(value);
        }
    };
    plane(0, 1, luma);
    plane(PIXELS, 2, blue);
    plane(PIXELS * 5 / 4, 2, red);
}
