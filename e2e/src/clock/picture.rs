//! The test card: what frame `number` looks like.

use super::canvas::{Canvas, Colour, distance_to_segment};
use super::font::{Font, advance};
use super::layout::{self, Cell};
use std::f32::consts::TAU;

/// Design units: the card is drawn as if it were 1280 wide.
const CELL: f32 = 1280.0 / layout::CELLS_ACROSS as f32;
const PANEL: [f32; 4] = [128.0, 144.0, 1024.0, 464.0];
const DIAL: (f32, f32) = (320.0, 338.0);
const DIAL_RADIUS: f32 = 150.0;
const RULER: [f32; 4] = [128.0, 632.0, 1024.0, 24.0];

/// Draws frames of one clip.
#[derive(Debug)]
pub(super) struct Card {
    fps: u32,
    /// Everything that never changes, with the panel dark and lit.
    still: [Canvas; 2],
    font: Font,
}

impl Card {
    /// A card of this size (even, 16:9) at this rate, with a caption.
    pub(super) fn new(width: u32, height: u32, fps: u32, caption: &str) -> Self {
        let mut font = Font::default();
        let still = [false, true].map(|lit| still(width, height, lit, caption, &mut font));
        Self { fps, still, font }
    }

    /// Appends frame `number` as raw yuv420p.
    pub(super) fn append(&mut self, number: u32, out: &mut Vec<u8>) {
        let lit = layout::is_flash(number, self.fps);
        let mut canvas = self.still[usize::from(lit)].clone();
        let (second, within) = (number / self.fps, number % self.fps);
        let ink = ink(lit);

        hand(&mut canvas, within as f32 / self.fps as f32, ink);
        let clock = format!("{:02}:{:02}", second / 60 % 100, second % 60);
        self.font
            .text(&mut canvas, (528.0, 212.0), 132.0, ink, &clock);
        let count = format!("{number:05}");
        self.font
            .text(&mut canvas, (788.0, 416.0), 72.0, ink, &count);

        // The minute so far, one block a second.
        let step = RULER[2] / 60.0;
        for block in 0..=second % 60 {
            let x = RULER[0] + block as f32 * step;
            let colour = Colour::rgb(240, 160, 48);
            canvas.rect(x + 2.0, RULER[1] + 2.0, step - 4.0, RULER[3] - 4.0, colour);
        }

        for (at, cell) in layout::encode(number).into_iter().enumerate() {
            let colour = match cell {
                Cell::Panel => continue,
                Cell::Black => Colour::grey(30),
                Cell::White => Colour::grey(205),
            };
            let x = (layout::BAND_COLUMN + at as u32) as f32 * CELL;
            canvas.rect(x, layout::BAND_ROW as f32 * CELL, CELL, CELL, colour);
        }
        canvas.append_to(out);
    }
}

fn ink(lit: bool) -> Colour {
    Colour::grey(if lit { 24 } else { 225 })
}

/// The dial's hand: one turn a second, straight up at the flash.
fn hand(canvas: &mut Canvas, turn: f32, ink: Colour) {
    let (x, y) = DIAL;
    let (sin, cos) = (turn * TAU).sin_cos();
    let tip = (x + sin * 118.0, y - cos * 118.0);
    let reach = 140.0;
    let around = [x - reach, y - reach, x + reach, y + reach];
    canvas.shape(around, Colour::rgb(240, 96, 48), |px, py| {
        distance_to_segment((px, py), DIAL, tip) - 7.0
    });
    canvas.shape([x - 20.0, y - 20.0, x + 20.0, y + 20.0], ink, |px, py| {
        (px - x).hypot(py - y) - 14.0
    });
}

fn still(width: u32, height: u32, lit: bool, caption: &str, font: &mut Font) -> Canvas {
    let mut canvas = Canvas::new(width as usize, height as usize, Colour::rgb(34, 44, 56));
    let line = Colour::rgb(50, 62, 76);
    for step in 0..32 {
        canvas.rect(step as f32 * 40.0, 0.0, 2.0, 720.0, line);
        canvas.rect(0.0, step as f32 * 40.0, 1280.0, 2.0, line);
    }

    // Colour bars at three quarters, as on any test card.
    let bars = [
        (191, 191, 191),
        (191, 191, 0),
        (0, 191, 191),
        (0, 191, 0),
        (191, 0, 191),
        (191, 0, 0),
        (0, 0, 191),
        (16, 16, 16),
    ];
    for (at, (r, g, b)) in bars.into_iter().enumerate() {
        let x = PANEL[0] + at as f32 * 128.0;
        canvas.rect(x, 40.0, 128.0, 80.0, Colour::rgb(r, g, b));
    }

    let panel = Colour::grey(if lit { 235 } else { 26 });
    let [x, y, width, height] = PANEL;
    canvas.rect(x, y, width, height, panel);

    let ink = ink(lit);
    let (x, y) = DIAL;
    let reach = DIAL_RADIUS + 8.0;
    let around = [x - reach, y - reach, x + reach, y + reach];
    canvas.shape(around, ink, |px, py| {
        ((px - x).hypot(py - y) - DIAL_RADIUS).abs() - 4.0
    });
    for tick in 0..12 {
        let (sin, cos) = (tick as f32 / 12.0 * TAU).sin_cos();
        let (inner, thick) = if tick % 3 == 0 {
            (118.0, 4.0)
        } else {
            (130.0, 2.0)
        };
        let from = (x + sin * inner, y - cos * inner);
        let to = (x + sin * 140.0, y - cos * 140.0);
        canvas.shape(around, ink, |px, py| {
            distance_to_segment((px, py), from, to) - thick
        });
    }
    font.text(&mut canvas, (528.0, 438.0), 48.0, ink, "FRAME");

    canvas.rect(RULER[0], RULER[1], RULER[2], RULER[3], Colour::grey(48));
    let pale = Colour::rgb(170, 182, 196);
    let left = 640.0 - caption.len() as f32 * advance(18.0) / 2.0;
    font.text(&mut canvas, (left, 678.0), 18.0, pale, caption);
    canvas
}
