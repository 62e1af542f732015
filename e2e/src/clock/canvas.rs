//! A planar 4:2:0 picture and the few shapes the test card is made of.
//!
//! Shapes are given in design units (a picture 1280 wide) and drawn with soft
//! edges at whatever size the canvas has.

/// A colour in BT.709, limited range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Colour {
    y: f32,
    u: f32,
    v: f32,
}

impl Colour {
    /// From red, green and blue, each 0 to 255.
    pub(super) fn rgb(red: u8, green: u8, blue: u8) -> Self {
        let [r, g, b] = [red, green, blue].map(|value| f32::from(value) / 255.0);
        let luma = 0.2126 * r + 0.7152 * g + 0.0722 * b;
        Self {
            y: 16.0 + 219.0 * luma,
            u: 128.0 + 224.0 * (b - luma) / 1.8556,
            v: 128.0 + 224.0 * (r - luma) / 1.5748,
        }
    }

    /// A grey of exactly this luma.
    pub(super) fn grey(luma: u8) -> Self {
        Self {
            y: f32::from(luma),
            u: 128.0,
            v: 128.0,
        }
    }
}

/// How much of each pixel a shape covers, drawn once and stamped often.
#[derive(Clone, Debug)]
pub(super) struct Mask {
    width: usize,
    height: usize,
    cover: Vec<u8>,
}

impl Mask {
    /// A mask from a function of the pixel's centre, 0 to 1.
    pub(super) fn draw(width: usize, height: usize, cover: impl Fn(f32, f32) -> f32) -> Self {
        let mut mask = Self {
            width,
            height,
            cover: Vec::with_capacity(width * height),
        };
        for y in 0..height {
            for x in 0..width {
                let share = cover(x as f32 + 0.5, y as f32 + 0.5).clamp(0.0, 1.0);
                mask.cover.push((share * 255.0).round() as u8);
            }
        }
        mask
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    fn at(&self, x: usize, y: usize) -> f32 {
        if x < self.width && y < self.height {
            f32::from(self.cover[y * self.width + x]) / 255.0
        } else {
            0.0
        }
    }
}

/// One picture: a full luma plane and two chroma planes of half the size.
#[derive(Clone, Debug)]
pub(super) struct Canvas {
    width: usize,
    height: usize,
    scale: f32,
    planes: [Vec<u8>; 3],
}

impl Canvas {
    /// A picture of one colour. Width and height are even.
    pub(super) fn new(width: usize, height: usize, colour: Colour) -> Self {
        let quarter = width / 2 * (height / 2);
        Self {
            width,
            height,
            scale: width as f32 / 1280.0,
            planes: [
                vec![colour.y.round() as u8; width * height],
                vec![colour.u.round() as u8; quarter],
                vec![colour.v.round() as u8; quarter],
            ],
        }
    }

    /// Pixels for one design unit.
    pub(super) fn scale(&self) -> f32 {
        self.scale
    }

    /// The planes as a raw yuv420p frame, appended to `out`.
    pub(super) fn append_to(&self, out: &mut Vec<u8>) {
        for plane in &self.planes {
            out.extend_from_slice(plane);
        }
    }

    /// A rectangle with whole-pixel edges, in design units.
    pub(super) fn rect(&mut self, x: f32, y: f32, width: f32, height: f32, colour: Colour) {
        let pixel = |value: f32, limit: usize| ((value * self.scale).round() as usize).min(limit);
        let (left, right) = (pixel(x, self.width), pixel(x + width, self.width));
        let (top, bottom) = (pixel(y, self.height), pixel(y + height, self.height));
        for row in top..bottom {
            self.planes[0][row * self.width + left..row * self.width + right]
                .fill(colour.y.round() as u8);
        }
        let half = self.width / 2;
        for row in top.div_ceil(2)..bottom / 2 {
            for (plane, value) in [(1, colour.u), (2, colour.v)] {
                let (from, to) = (left.div_ceil(2), (right / 2).max(left.div_ceil(2)));
                self.planes[plane][row * half + from..row * half + to].fill(value.round() as u8);
            }
        }
    }

    /// A shape with soft edges inside a box: `cover` gets design units and
    /// answers how much of that point is covered, as a signed distance in
    /// design units (negative is inside).
    pub(super) fn shape(
        &mut self,
        [left, top, right, bottom]: [f32; 4],
        colour: Colour,
        distance: impl Fn(f32, f32) -> f32,
    ) {
        let scale = self.scale;
        let clip = |value: f32, limit: usize| (value * scale).clamp(0.0, limit as f32);
        let x0 = clip(left, self.width).floor() as usize;
        let y0 = clip(top, self.height).floor() as usize;
        let x1 = clip(right, self.width).ceil() as usize;
        let y1 = clip(bottom, self.height).ceil() as usize;
        let mask = Mask::draw(x1 - x0, y1 - y0, |x, y| {
            let distance = distance((x + x0 as f32) / scale, (y + y0 as f32) / scale);
            0.5 - distance * scale
        });
        self.stamp(&mask, x0, y0, colour);
    }

    /// A mask in one colour, its corner at a pixel.
    pub(super) fn stamp(&mut self, mask: &Mask, x: usize, y: usize, colour: Colour) {
        let blend = |old: &mut u8, new: f32, share: f32| {
            if share > 0.0 {
                *old = (f32::from(*old) * (1.0 - share) + new * share).round() as u8;
            }
        };
        for row in 0..mask.height.min(self.height.saturating_sub(y)) {
            for column in 0..mask.width.min(self.width.saturating_sub(x)) {
                let at = (y + row) * self.width + x + column;
                blend(&mut self.planes[0][at], colour.y, mask.at(column, row));
            }
        }
        let half = self.width / 2;
        let (bottom, right) = (y + mask.height, x + mask.width);
        for row in y / 2..(bottom / 2).min(self.height / 2) {
            for column in x / 2..(right / 2).min(half) {
                let share = mask.at((column * 2).saturating_sub(x), (row * 2).saturating_sub(y));
                let at = row * half + column;
                blend(&mut self.planes[1][at], colour.u, share);
                blend(&mut self.planes[2][at], colour.v, share);
            }
        }
    }
}

/// Distance from a point to the stretch between two others.
pub(super) fn distance_to_segment(
    (x, y): (f32, f32),
    (ax, ay): (f32, f32),
    (bx, by): (f32, f32),
) -> f32 {
    let (dx, dy) = (bx - ax, by - ay);
    let length = dx * dx + dy * dy;
    let along = if length > 0.0 {
        (((x - ax) * dx + (y - ay) * dy) / length).clamp(0.0, 1.0)
    } else {
        0.0
    };
    (x - ax - along * dx).hypot(y - ay - along * dy)
}
