//! States that last until the next one begins.

/// How a state or a mark is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::report) enum Tone {
    /// Nothing to see.
    Quiet,
    /// As it should be.
    Good,
    /// Under way.
    Busy,
    /// Degraded.
    Warn,
    /// Broken.
    Bad,
}

/// A state from one moment to another.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::report) struct Band {
    pub(in crate::report) from: f64,
    pub(in crate::report) to: f64,
    pub(in crate::report) label: &'static str,
    pub(in crate::report) tone: Tone,
    /// What led to it.
    pub(in crate::report) detail: String,
}

/// One for each kind of state.
#[derive(Default)]
pub(super) struct Tracks {
    pub(super) input: Track,
    pub(super) link: Track,
    pub(super) breaker: Track,
    pub(super) pace: Track,
    pub(super) catch_up: Track,
}

/// Bands in the making: each lasts until the next one begins.
#[derive(Default)]
pub(super) struct Track {
    bands: Vec<Band>,
}

impl Track {
    /// A state begins and the one before ends.
    pub(super) fn to(&mut self, at: f64, label: &'static str, tone: Tone, detail: &str) {
        // Threads log side by side: a line may be stamped a little before the one above it.
        let from = self.bands.last().map_or(at, |last| at.max(last.from));
        if let Some(last) = self.bands.last_mut() {
            last.to = from;
        }
        self.bands.push(Band {
            from,
            to: from,
            label,
            tone,
            detail: detail.to_owned(),
        });
    }

    /// Like [`to`](Self::to), but only if there is no state yet.
    pub(super) fn start(&mut self, at: f64, label: &'static str, tone: Tone, detail: &str) {
        if self.bands.is_empty() {
            self.to(at, label, tone, detail);
        }
    }

    /// Like [`to`](Self::to), but only if there is another state to end.
    pub(super) fn end(&mut self, at: f64, label: &'static str, tone: Tone, detail: &str) {
        if self.bands.last().is_some_and(|last| last.label != label) {
            self.to(at, label, tone, detail);
        }
    }

    pub(super) fn finish(mut self, end: f64) -> Vec<Band> {
        if let Some(last) = self.bands.last_mut() {
            last.to = end.max(last.from);
        }
        self.bands
    }

    /// With a state that is in force before anything is said.
    pub(super) fn finish_from(
        self,
        begin: f64,
        end: f64,
        label: &'static str,
        tone: Tone,
    ) -> Vec<Band> {
        let mut bands = self.finish(end);
        let to = bands.first().map_or(end, |band| band.from.max(begin));
        bands.insert(
            0,
            Band {
                from: begin,
                to,
                label,
                tone,
                detail: "from the start".to_owned(),
            },
        );
        bands
    }
}
