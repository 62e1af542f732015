//! How audio lies to video: sender reports weighed against arrival.
//!
//! Reports are claims. A clock that is set shows in one track's reports before the other's, so a
//! mapping that jumps voids the other track's older report until a newer one comes. What would move the
//! audio by seconds is refused. And some servers replace reports by the time at which packets arrived
//! there: then they say no more than arrival does, and less, because bundled audio and reordered
//! pictures are late by what is known here.

use super::evidence::{Estimate, Evidence};
use super::{Note, Track};
use crate::time::At;

const MS: i64 = 1_000_000;
/// A mapping that moves by more between two reports of one track is a clock that was set. Drift makes
/// some milliseconds, arrival jitter some ten.
const SET: i64 = 100 * MS;
/// GStreamer's own limit (`max-ts-offset` of rtpbin).
const BELIEVED: i64 = 3_000 * MS;
/// Reports this near to what arrival would say are arrival.
const ALIKE: i64 = 10 * MS;
/// Steps of both tracks within this time and this difference are one step of the sender's clock.
const TOGETHER: std::time::Duration = std::time::Duration::from_secs(3);
const SAME_STEP: i64 = 300 * MS;
/// Alignment by arrival is looked at this often, and left alone within this.
const LOOK: std::time::Duration = std::time::Duration::from_secs(1);
const WANDERS: i64 = 40 * MS;
/// After a step of one track, arrival is the better judge beyond this, once it shows this much.
const REFINED: i64 = 8 * MS;
const REFINING: i64 = 1_500 * MS;

/// How the tracks were brought together; for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlignedBy {
    /// By RTCP sender reports: exact.
    Reports,
    /// By arrival: a few milliseconds off.
    Arrival,
}

/// What came of looking at the evidence.
#[derive(Debug, Default)]
pub(super) struct Finding {
    /// By how much the audio moves.
    pub(super) moved: i64,
    pub(super) notes: [Option<Note>; 2],
}

/// What kind of reports a sender makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReportKind {
    Honest,
    ByArrival,
}

/// The alignment in force.
#[derive(Debug)]
pub(super) struct Alignment {
    /// Audio line + this = video line.
    offset: Option<i64>,
    by: Option<AlignedBy>,
    /// Sender's clock minus line, by the last report of each track, and whether that still counts.
    mappings: [Option<i64>; 2],
    valid: [bool; 2],
    jumps: [i64; 2],
    /// How far ahead of the packets the last report was, and whether one was ignored for that.
    ahead: [Option<i64>; 2],
    early: [bool; 2],
    kind: Option<ReportKind>,
    /// The last report came with a source description.
    named: bool,
    /// Audio against what arrival says, from when both were known: what the sender's coding takes.
    bias: i64,
    /// A track stepped, and neither arrival nor a report has confirmed where it lies since.
    suspect: bool,
    steps: [Option<(At, i64)>; 2],
    look_at: At,
    wandered: Option<i64>,
    /// What reports would have moved the audio by when that was last told to be refused.
    refused: Option<i64>,
    /// How long video waits for audio: audio that lies further behind could never go out with it.
    patience: i64,
}

impl Alignment {
    pub(super) fn new(patience: i64) -> Self {
        Self {
            offset: None,
            by: None,
            mappings: [None; 2],
            valid: [false; 2],
            jumps: [0; 2],
            ahead: [None; 2],
            early: [false; 2],
            kind: None,
            named: false,
            bias: 0,
            suspect: false,
            steps: [None; 2],
            look_at: At::ZERO,
            wandered: None,
            refused: None,
            patience,
        }
    }

    pub(super) fn offset(&self) -> Option<i64> {
        self.offset
    }

    /// A report says that `time` on the track's line, which is `ahead` of the packets that come with it,
    /// is `ntp` on the sender's clock.
    pub(super) fn report(
        &mut self,
        track: Track,
        time: i64,
        ahead: i64,
        (ntp, named): (i64, bool),
        evidence: &Evidence,
    ) -> Finding {
        let (own, other) = match track {
            Track::Video => (0, 1),
            Track::Audio => (1, 0),
        };
        self.named = named;
        let mapping = ntp.saturating_sub(time);
        let mut verdict = Finding::default();
        // RTP time moved in the report and not in the packets: they may be about to follow.
        let early =
            self.ahead[own].is_some_and(|last| ahead.saturating_sub(last).saturating_abs() > SET);
        if early && !std::mem::replace(&mut self.early[own], true) {
            return verdict;
        }
        self.early[own] = false;
        self.ahead[own] = Some(ahead);
        if let Some(last) = self.mappings[own].replace(mapping) {
            let jump = mapping.saturating_sub(last);
            let set = jump.saturating_abs() > SET;
            self.jumps[own] = if set { jump } else { 0 };
            // Unless it is what the other one's has just done.
            if set && self.jumps[other].saturating_sub(jump).saturating_abs() > SET {
                self.valid[other] = false;
                verdict.notes[0] = Some(Note::ClockSet { track, by: jump });
            }
        }
        self.valid[own] = true;
        if let Some(claim) = self.claim() {
            self.judge(claim, evidence, &mut verdict);
        }
        verdict
    }

    /// The offset that the reports claim.
    fn claim(&self) -> Option<i64> {
        let [video, audio] = self.mappings;
        (self.valid == [true; 2]).then_some(())?;
        Some(audio?.saturating_sub(video?))
    }

    /// A claim against an alignment in force.
    fn judge(&mut self, claim: i64, evidence: &Evidence, verdict: &mut Finding) {
        let Some(offset) = self.offset else { return };
        let estimate = evidence.estimate().filter(|_| !self.suspect);
        if self.kind != Some(ReportKind::ByArrival) {
            // What kind of reports these are must be known before they move anything.
            if self.kind.is_none() && estimate.is_none() {
                return;
            }
            let kind = estimate.as_ref().and_then(|it| self.kind_of(claim, it));
            self.kind = kind.or(self.kind);
            if let (Some(ReportKind::ByArrival), Some(estimate)) = (kind, &estimate) {
                let late = claim - estimate.offset;
                verdict.notes[1] = Some(Note::ReportsByArrival { late });
                if self.by.replace(AlignedBy::Arrival) == Some(AlignedBy::Reports) {
                    self.bias = 0;
                    self.move_to(estimate.offset, verdict);
                }
            }
        }
        if self.kind == Some(ReportKind::ByArrival) {
            return;
        }
        let by = claim.saturating_sub(offset);
        if by.saturating_abs() > BELIEVED {
            self.refuse(by, verdict);
            return;
        }
        if let Some(estimate) = estimate {
            self.bias = claim - estimate.offset;
        }
        self.by = Some(AlignedBy::Reports);
        self.suspect = false;
        self.move_to(claim, verdict);
    }

    /// Told once for all reports that are off alike: some senders make two a second.
    fn refuse(&mut self, by: i64, verdict: &mut Finding) {
        let alike = |last: i64| by.saturating_sub(last).saturating_abs() <= SET;
        if !self.refused.is_some_and(alike) {
            self.refused = Some(by);
            verdict.notes[1] = Some(Note::ReportRefused { by });
        }
    }

    /// Whether a claim is what arrival says when it is taken for the time of capture; `None` while that
    /// makes no difference, because packets are single frames in their order.
    ///
    /// A live encoder that reorders sends a picture as late after its decoding time as a server's clock
    /// would make it: then only the manners of the report tell. Encoders and their libraries add the
    /// source description that the RFC demands, gortsplib (MediaMTX), whose reports are arrival, does not.
    fn kind_of(&self, claim: i64, estimate: &Estimate) -> Option<ReportKind> {
        let late = claim.saturating_sub(estimate.offset);
        let mut telling = estimate
            .taken_literally
            .iter()
            .filter(|(length, lead)| length + lead > ALIKE)
            .peekable();
        telling.peek()?;
        let literal = telling.any(|(length, lead)| {
            (*length > 0 || !self.named) && (late - (length + lead)).saturating_abs() <= ALIKE
        });
        if late.saturating_abs() > BELIEVED {
            return None;
        }
        Some(if literal {
            ReportKind::ByArrival
        } else {
            ReportKind::Honest
        })
    }

    fn move_to(&mut self, offset: i64, verdict: &mut Finding) {
        let by = offset - self.offset.replace(offset).unwrap_or(offset);
        verdict.moved += by;
        if by.abs() > WANDERS {
            verdict.notes[0] = verdict.notes[0].or(Some(Note::Realigned { by }));
        }
    }

    /// Looks at the evidence; `pressed` if it cannot wait for more.
    pub(super) fn weigh(&mut self, at: At, pressed: bool, evidence: &Evidence) -> Finding {
        let mut verdict = Finding::default();
        if self.offset.is_some() {
            if at >= self.look_at {
                self.look_at = at + LOOK;
                self.follow(evidence, &mut verdict);
            }
        } else if pressed || self.claim().is_some() {
            // Reports do not hurry: the first segment is not complete, and a second of arrivals tells
            // what they are worth.
            if let Some(estimate) = evidence.estimate() {
                self.begin(&estimate, pressed, &mut verdict);
            } else if pressed {
                return self.force(evidence);
            }
        }
        verdict
    }

    /// Makes do with what is known, however little.
    pub(super) fn force(&mut self, evidence: &Evidence) -> Finding {
        let mut verdict = Finding::default();
        if self.offset.is_some() {
            return verdict;
        }
        match (evidence.guess(), self.claim()) {
            (Some(estimate), _) => self.begin(&estimate, true, &mut verdict),
            (None, Some(claim)) => self.start(claim, AlignedBy::Reports, &mut verdict),
            (None, None) => {}
        }
        verdict
    }

    /// Reports are believed as soon as they agree with arrival; arrival itself gets better by waiting.
    fn begin(&mut self, estimate: &Estimate, pressed: bool, verdict: &mut Finding) {
        let claim = self.claim();
        let by = claim.map_or(0, |claim| claim.saturating_sub(estimate.offset));
        let plausible = by.saturating_abs() <= self.patience;
        let kind = claim.and_then(|claim| self.kind_of(claim, estimate));
        let literal = kind == Some(ReportKind::ByArrival);
        if let Some(claim) = claim.filter(|_| plausible && !literal) {
            self.bias = by;
            self.kind = kind;
            self.start(claim, AlignedBy::Reports, verdict);
            return;
        }
        if !pressed {
            return;
        }
        if literal {
            self.kind = kind;
            verdict.notes[1] = Some(Note::ReportsByArrival { late: by });
        } else if !plausible {
            self.refuse(by, verdict);
        }
        self.start(estimate.offset, AlignedBy::Arrival, verdict);
    }

    fn start(&mut self, offset: i64, by: AlignedBy, verdict: &mut Finding) {
        self.offset = Some(offset);
        self.by = Some(by);
        verdict.notes[0] = Some(Note::Aligned(by));
    }

    /// A track's time went on at the wrong pace until now: it lies anywhere, and its reports say nothing
    /// until the next one.
    pub(super) fn doubt(&mut self, track: Track) {
        let own = usize::from(track == Track::Audio);
        self.mappings[own] = None;
        self.valid[own] = false;
        self.ahead[own] = None;
        self.steps = [None; 2];
        self.kind = None;
        self.by = self.by.map(|_| AlignedBy::Arrival);
        (self.wandered, self.bias, self.suspect) = (None, 0, true);
    }

    /// A track's line has been moved by `by` against its RTP time.
    pub(super) fn stepped(&mut self, at: At, track: Track, by: i64) {
        let (own, other) = match track {
            Track::Video => (0, 1),
            Track::Audio => (1, 0),
        };
        // A report made just before may already speak of the new clock.
        self.valid[own] = false;
        self.ahead[own] = None;
        self.wandered = None;
        // It was a visit: all is as before.
        if self.steps[own].is_some_and(|(_, last)| last.saturating_add(by) == 0) {
            self.steps[own] = None;
            self.suspect = self.steps[other].is_some() && self.suspect;
            return;
        }
        self.suspect = true;
        self.steps[own] = Some((at, by));
        let Some((before, others)) = self.steps[other] else {
            return;
        };
        if at.since(before) > TOGETHER || (by - others).saturating_abs() > SAME_STEP {
            return;
        }
        // The sender's clock stepped under both: their relation is what it was.
        let (video, audio) = match track {
            Track::Video => (by, others),
            Track::Audio => (others, by),
        };
        self.offset = self.offset.map(|offset| offset + video - audio);
        self.suspect = false;
        self.steps = [None; 2];
    }

    /// Compares the alignment in force with what arrival says.
    fn follow(&mut self, evidence: &Evidence, verdict: &mut Finding) {
        let trusted = self.by == Some(AlignedBy::Reports) && !self.suspect;
        let (Some(offset), false) = (self.offset, trusted) else {
            return;
        };
        if self.suspect && evidence.span() < REFINING {
            return;
        }
        let Some(estimate) = evidence.estimate() else {
            return;
        };
        let by = estimate.offset + self.bias - offset;
        if self.suspect {
            self.suspect = false;
            if by.abs() > REFINED {
                self.move_to(offset + by, verdict);
            }
            return;
        }
        let before = self.wandered.take();
        if by.abs() > WANDERS {
            if before.is_some_and(|before| (before - by).abs() < WANDERS / 2) {
                self.move_to(offset + by, verdict);
            } else {
                self.wandered = Some(by);
            }
        }
    }
}

#[cfg(test)]
mod tests;
