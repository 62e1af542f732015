//! Just enough SVG: shapes on a time axis, each with words for who points at it.

use std::fmt::Write as _;

use super::text::Text;

/// Maps seconds to x.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// Seconds at the left edge.
    pub(super) begin: f64,
    /// Seconds at the right edge; after `begin`.
    pub(super) end: f64,
    /// Left edge.
    pub(super) left: f64,
    /// Right edge.
    pub(super) right: f64,
}

impl Scale {
    /// Where a moment is; moments outside are at the edge.
    pub(super) fn x(&self, seconds: f64) -> f64 {
        let part = (seconds - self.begin) / (self.end - self.begin);
        self.left + part.clamp(0.0, 1.0) * (self.right - self.left)
    }

    /// Round moments, few enough to be labelled.
    pub(super) fn ticks(&self) -> Vec<f64> {
        const STEPS: [f64; 16] = [
            0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0,
            3600.0, 7200.0,
        ];
        let length = self.end - self.begin;
        let step = STEPS
            .into_iter()
            .find(|step| length / step <= 16.0)
            .unwrap_or(14_400.0);
        let first = (self.begin / step).ceil() as i64;
        let last = (self.end / step).floor() as i64;
        (first..=last).map(|n| n as f64 * step).collect()
    }
}

/// A drawing in the making.
#[derive(Debug, Default)]
pub(super) struct Svg {
    out: String,
}

/// Where text is anchored.
#[derive(Clone, Copy, Debug)]
pub(super) enum Anchor {
    /// It begins here.
    Start,
    /// It is centred here.
    Middle,
    /// It ends here.
    End,
}

impl Svg {
    /// The elements so far.
    pub(super) fn into_inner(self) -> String {
        self.out
    }

    /// A rectangle.
    pub(super) fn rect(
        &mut self,
        (x, y): (f64, f64),
        (width, height): (f64, f64),
        class: &str,
        tip: &str,
    ) {
        let width = width.max(0.0);
        let _ = write!(
            self.out,
            "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" height=\"{height:.2}\" class=\"{class}\""
        );
        self.close("rect", tip);
    }

    /// A straight line.
    pub(super) fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), class: &str) {
        let _ = write!(
            self.out,
            "<line x1=\"{x1:.2}\" y1=\"{y1:.2}\" x2=\"{x2:.2}\" y2=\"{y2:.2}\" class=\"{class}\"/>"
        );
    }

    /// A circle.
    pub(super) fn circle(&mut self, (x, y): (f64, f64), radius: f64, class: &str, tip: &str) {
        let _ = write!(
            self.out,
            "<circle cx=\"{x:.2}\" cy=\"{y:.2}\" r=\"{radius}\" class=\"{class}\""
        );
        self.close("circle", tip);
    }

    /// A path through points.
    pub(super) fn polyline(&mut self, points: &[(f64, f64)], class: &str) {
        if points.is_empty() {
            return;
        }
        self.out.push_str("<polyline points=\"");
        for (x, y) in points {
            let _ = write!(self.out, "{x:.2},{y:.2} ");
        }
        let _ = write!(self.out, "\" class=\"{class}\"/>");
    }

    /// A cross.
    pub(super) fn cross(&mut self, (x, y): (f64, f64), arm: f64, class: &str, tip: &str) {
        let (left, right, top, low) = (x - arm, x + arm, y - arm, y + arm);
        let _ = write!(
            self.out,
            "<path d=\"M{left:.2} {top:.2}L{right:.2} {low:.2}M{left:.2} {low:.2}L{right:.2} {top:.2}\" class=\"{class}\""
        );
        self.close("path", tip);
    }

    /// A diamond.
    pub(super) fn diamond(&mut self, (x, y): (f64, f64), arm: f64, class: &str, tip: &str) {
        let (left, right, top, low) = (x - arm, x + arm, y - arm, y + arm);
        let _ = write!(
            self.out,
            "<path d=\"M{left:.2} {y:.2}L{x:.2} {top:.2}L{right:.2} {y:.2}L{x:.2} {low:.2}Z\" class=\"{class}\""
        );
        self.close("path", tip);
    }

    /// Words. `y` is the middle of the line.
    pub(super) fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let _ = write!(
            self.out,
            "<text x=\"{x:.2}\" y=\"{:.2}\" text-anchor=\"{anchor}\" class=\"{class}\">{}</text>",
            y + 4.0,
            Text(text)
        );
    }

    /// What `draw` adds becomes a link to an element of the page, with words for the whole of it.
    pub(super) fn link(&mut self, id: &str, tip: &str, draw: impl FnOnce(&mut Self)) {
        let _ = write!(
            self.out,
            "<a href=\"#{}\"><title>{}</title>",
            Text(id),
            Text(tip)
        );
        draw(self);
        self.out.push_str("</a>");
    }

    fn close(&mut self, element: &str, tip: &str) {
        if tip.is_empty() {
            self.out.push_str("/>");
        } else {
            let _ = write!(self.out, "><title>{}</title></{element}>", Text(tip));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCALE: Scale = Scale {
        begin: -2.0,
        end: 8.0,
        left: 100.0,
        right: 200.0,
    };

    #[test]
    fn moments_are_in_place_and_never_outside() {
        assert!((SCALE.x(0.0) - 120.0).abs() < 1e-9);
        assert!((SCALE.x(-99.0) - 100.0).abs() < 1e-9);
        assert!((SCALE.x(99.0) - 200.0).abs() < 1e-9);
    }

    #[test]
    fn ticks_are_round_few_and_hit_zero() {
        for (begin, end) in [(-2.0, 8.0), (-0.7, 0.3), (-31.0, 95.0), (-1.0, 20_000.0)] {
            let ticks = Scale {
                begin,
                end,
                ..SCALE
            }
            .ticks();
            assert!(
                (3..=17).contains(&ticks.len()),
                "{begin} to {end}: {ticks:?}"
            );
            assert!(ticks.contains(&0.0), "{begin} to {end}: {ticks:?}");
            assert!(ticks.iter().all(|tick| (begin..=end).contains(tick)));
        }
    }

    #[test]
    fn words_of_others_stay_words() {
        let mut svg = Svg::default();
        svg.rect((0.0, 0.0), (1.0, 1.0), "a", "</title><script>");
        svg.text((0.0, 0.0), Anchor::End, "b", "<b>");
        svg.link("x\"><script>", "&", |_| ());
        let out = svg.into_inner();
        assert!(!out.contains("<script>") && !out.contains("<b>"), "{out}");
        roxmltree::Document::parse(&format!("<svg>{out}</svg>")).unwrap();
    }
}
