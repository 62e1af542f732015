//! A small stroke font: enough letters to caption a test card.
//!
//! Each glyph is a list of strokes on a grid five wide and seven high; a stroke
//! is a chain of points, each point two digits (column 0 to 4, row 0 to 6 from
//! the top).

use super::canvas::{Canvas, Colour, Mask, distance_to_segment};
use std::collections::HashMap;

fn strokes(letter: char) -> &'static [&'static str] {
    match letter {
        '0' => &["10 30 41 45 36 16 05 01 10", "32 14"],
        '1' => &["02 20 26", "06 46"],
        '2' => &["01 10 30 41 42 06 46"],
        '3' => &["00 40 22 32 43 45 36 16 05"],
        '4' => &["36 30 04 44"],
        '5' => &["40 00 03 32 43 45 36 16 05"],
        '6' => &["40 20 03 05 16 36 45 44 33 03"],
        '7' => &["00 40 41 16"],
        '8' => &["10 30 41 42 33 13 02 01 10", "13 04 05 16 36 45 44 33"],
        '9' => &["06 26 43 41 30 10 01 02 13 43"],
        'A' => &["06 02 20 42 46", "04 44"],
        'B' => &["00 30 41 42 33 03", "33 44 45 36 06 00"],
        'C' => &["41 30 10 01 05 16 36 45"],
        'D' => &["00 30 41 45 36 06 00"],
        'E' => &["40 00 06 46", "03 33"],
        'F' => &["40 00 06", "03 33"],
        'H' => &["00 06", "40 46", "03 43"],
        'I' => &["10 30", "20 26", "16 36"],
        'K' => &["00 06", "40 03 46"],
        'L' => &["00 06 46"],
        'M' => &["06 00 23 40 46"],
        'N' => &["06 00 46 40"],
        'O' => &["10 30 41 45 36 16 05 01 10"],
        'P' => &["06 00 30 41 42 33 03"],
        'R' => &["06 00 30 41 42 33 03", "13 46"],
        'S' => &["41 30 10 01 02 13 33 44 45 36 16 05"],
        'T' => &["00 40", "20 26"],
        'U' => &["00 05 16 36 45 40"],
        'V' => &["00 26 40"],
        'X' => &["00 46", "40 06"],
        'Y' => &["00 23 40", "23 26"],
        'Z' => &["00 40 06 46"],
        '.' => &["26 26"],
        ':' => &["22 22", "25 25"],
        '-' => &["13 33"],
        '/' => &["40 06"],
        _ => &[],
    }
}

/// Draws text, keeping each glyph's mask for the next time.
#[derive(Debug, Default)]
pub(super) struct Font {
    masks: HashMap<(char, u32), Mask>,
}

impl Font {
    /// Text with its top left corner at a point; `height` is that of a capital,
    /// all in design units.
    pub(super) fn text(
        &mut self,
        canvas: &mut Canvas,
        (x, y): (f32, f32),
        height: f32,
        colour: Colour,
        text: &str,
    ) {
        let scale = canvas.scale();
        for (index, letter) in text.chars().enumerate() {
            if letter == ' ' {
                continue;
            }
            let mask = self
                .masks
                .entry((letter, (height * 8.0) as u32))
                .or_insert_with(|| glyph(letter, height * scale));
            let pad = pad(height * scale);
            let left = (x + index as f32 * advance(height)) * scale - pad;
            let top = y * scale - pad;
            debug_assert!(mask.width() > 0);
            canvas.stamp(
                mask,
                left.max(0.0).round() as usize,
                top.max(0.0).round() as usize,
                colour,
            );
        }
    }
}

/// How far apart letters of this height stand.
pub(super) fn advance(height: f32) -> f32 {
    height * 0.9
}

/// Room around the grid for the strokes' thickness, in pixels.
fn pad(height: f32) -> f32 {
    (height * 0.1).ceil()
}

fn glyph(letter: char, height: f32) -> Mask {
    let unit = height / 6.0;
    let pad = pad(height);
    let thick = (height * 0.075).max(0.6);
    let point = |pair: &str| {
        let mut digits = pair.bytes().map(|digit| f32::from(digit - b'0'));
        let column = digits.next().unwrap_or_default();
        let row = digits.next().unwrap_or_default();
        (pad + column * unit, pad + row * unit)
    };
    let segments: Vec<_> = strokes(letter)
        .iter()
        .flat_map(|stroke| {
            let points: Vec<_> = stroke.split(' ').map(point).collect();
            points
                .windows(2)
                .map(|pair| (pair[0], pair[1]))
                .collect::<Vec<_>>()
        })
        .collect();
    let side = |units: f32| (units * unit + 2.0 * pad).ceil() as usize;
    Mask::draw(side(4.0), side(6.0), |x, y| {
        let nearest = segments
            .iter()
            .map(|&(a, b)| distance_to_segment((x, y), a, b))
            .fold(f32::INFINITY, f32::min);
        0.5 + thick - nearest
    })
}
