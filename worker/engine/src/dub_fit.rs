//! What becomes of an answer that is longer or shorter than its segment.
//!
//! Speech in another language is seldom as long as the original: 15 to 35 % longer is usual. An answer
//! is [measured](Answer) first: silence at its ends is no speech and gives way before anything else
//! does. Then [`judge`](DubFit::judge) says whether it can be heard at all, whatever its neighbours
//! are, and [`place`](DubFit::place), in the order of the segments, where it lies and how fast it is.
//!
//! | speech is | `refuse` | `stretch` |
//! |---|---|---|
//! | within the tolerance (10 %, 3 %) of its slot | end trimmed or padded | the same |
//! | longer | refused | faster up to `max_speed`, starting where it did; then starting earlier; then running on into the next slot; then refused |
//! | shorter | refused | slower down to 0.85; an answer even shorter is padded with silence |
//!
//! Speech that runs on holds up the next dub only as far as that one has no silence to give and no
//! speed to gain; where even that is not enough, what runs on is cut short rather than refusing the
//! next. So no delay is handed on for longer than the speech needs.
//!
//! All lengths are samples per channel.

use crate::time::nanos_of;
use std::fmt;
use std::time::Duration;

/// Deviations that `refuse` trims or pads.
const REFUSE_TOLERANCE: f64 = 0.10;
/// Deviations that `stretch` trims or pads: nobody hears a pause of that length, and untouched
/// samples are better than any stretched ones.
const STRETCH_TOLERANCE: f64 = 0.03;
/// Slower speech than this sounds drunk.
const SLOWEST: f64 = 0.85;
/// Encoders and resamplers round: an answer meant to be 0.85 long is not refused for a frame.
const SLACK: f64 = 0.005;
/// Shorter than this, missing or surplus samples are the rounding of a resampler or codec.
const ROUNDING: u64 = 64;

/// What to do with speech of another length.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum DubFitMode {
    /// Original audio instead.
    Refuse,
    /// Change its speed at constant pitch, within limits.
    Stretch,
}

/// The rules of fitting.
#[derive(Clone, Debug, PartialEq)]
pub struct DubFitConfig {
    /// What to do with speech of another length.
    pub mode: DubFitMode,
    /// Fastest speech, against the answer's own.
    pub max_speed: f64,
    /// How far speech may run on into the next slot.
    pub spill: Duration,
    /// Samples per second.
    pub rate: u32,
}

/// An answer as it was measured.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// Its length.
    pub frames: u64,
    /// Silence at the start.
    pub head: u64,
    /// Silence at the end.
    pub tail: u64,
}

/// What became of an answer.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub enum DubFitHow {
    /// It had its segment's length.
    Exact,
    /// Something was cut off its ends.
    Trimmed,
    /// Silence was put behind it.
    Padded,
    /// Its speed was changed.
    Stretched,
    /// It runs on into the next slot.
    Spilled,
    /// The original is heard instead.
    Refused,
}

impl DubFitHow {
    /// Every one of them.
    pub const ALL: [Self; 6] = [
        Self::Exact,
        Self::Trimmed,
        Self::Padded,
        Self::Stretched,
        Self::Spilled,
        Self::Refused,
    ];

    /// Value of the label `how`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Trimmed => "trimmed",
            Self::Padded => "padded",
            Self::Stretched => "stretched",
            Self::Spilled => "spilled",
            Self::Refused => "refused",
        }
    }
}

/// Where a dub lies in its slot.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct Placement {
    /// What becomes of the answer.
    pub how: DubFitHow,
    /// Position in the slot at which it starts.
    pub at: u64,
    /// First sample of the answer that is used.
    pub from: u64,
    /// Samples of the answer that are used.
    pub take: u64,
    /// Samples to make of them: fewer is faster.
    pub frames: u64,
}

impl Placement {
    /// Speed against the answer's own, in thousandths.
    pub fn speed_permille(&self) -> u32 {
        (self.take * 1000 + self.frames / 2)
            .checked_div(self.frames)
            .map_or(1000, |speed| speed as u32)
    }

    /// Whether the samples go out as they are.
    pub fn is_untouched(&self) -> bool {
        self.take == self.frames
    }
}

/// An answer that cannot be fitted.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct Misfit {
    /// Length of what would have to be heard.
    pub got: Duration,
    /// Length of the slot.
    pub want: Duration,
    /// Which rule it breaks.
    pub rule: MisfitRule,
}

/// Which rule an answer breaks.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum MisfitRule {
    /// There is nothing.
    Empty,
    /// More than 10 % off, and that is refused.
    Tolerance,
    /// Too long even at the highest speed, in thousandths.
    Speed(u32),
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (got, want) = (self.got.as_millis(), self.want.as_millis());
        match self.rule {
            MisfitRule::Empty => f.write_str("the audio is empty"),
            MisfitRule::Tolerance => write!(
                f,
                "the audio lasts {got} ms where {want} ms are needed (±10 %); \
                 --dub-fit stretch fits it by changing its speed"
            ),
            MisfitRule::Speed(most) => write!(
                f,
                "the speech lasts {got} ms, too long for {want} ms even at {}.{:02} times its speed \
                 (--dub-max-speed, --dub-spill)",
                most / 1000,
                most % 1000 / 10
            ),
        }
    }
}

/// Fits answers to their slots. See the [module](self).
#[derive(Clone, Debug)]
pub struct DubFit {
    config: DubFitConfig,
    spill: u64,
    /// Samples of the last dub that run on into the coming slot.
    carry: u64,
}

impl DubFit {
    /// Nothing runs on yet.
    pub fn new(config: DubFitConfig) -> Self {
        let spill = match config.mode {
            DubFitMode::Refuse => 0,
            DubFitMode::Stretch => samples(config.spill, config.rate),
        };
        Self {
            config,
            spill,
            carry: 0,
        }
    }

    /// Whether `answer` can be heard in a slot of `want` samples.
    pub fn judge(&self, answer: Answer, want: u64) -> Result<(), Misfit> {
        self.fit(answer, want, 0).map(|_| ())
    }

    /// Places the dub of the next segment, in a slot of `want` samples of sound and `slot` in all
    /// (longer where the input has a hole). What still runs on from the dub before is heard up to
    /// [`Placement::at`].
    pub fn place(&mut self, answer: Answer, want: u64, slot: u64) -> Result<Placement, Misfit> {
        let placed = self.fit(answer, want, self.carry);
        match placed {
            Ok(placed) => self.carry = (placed.at + placed.frames).saturating_sub(slot),
            Err(_) => self.pass(slot),
        }
        placed
    }

    /// The next segment keeps its own audio: what runs on is heard first.
    pub fn pass(&mut self, slot: u64) {
        self.carry = self.carry.saturating_sub(slot);
    }

    fn fit(&self, answer: Answer, want: u64, carry: u64) -> Result<Placement, Misfit> {
        let stretch = self.config.mode == DubFitMode::Stretch;
        let (tolerance, most) = match self.config.mode {
            DubFitMode::Refuse => (REFUSE_TOLERANCE, 1.0),
            DubFitMode::Stretch => (STRETCH_TOLERANCE, self.config.max_speed.max(1.0)),
        };
        let frames = answer.frames;
        if frames == 0 {
            return Err(self.misfit(0, want, MisfitRule::Empty));
        }
        let tail = answer.tail.min(frames);
        let head = answer.head.min(frames - tail);
        let speech = frames - head - tail;
        // Nothing but silence starts nowhere.
        let head = if speech == 0 { 0 } else { head };
        // Sound may begin where what runs on ends: silence at the start gives way to it.
        let begin = head.max(carry);
        let lead = head.min(carry);
        let rest = begin + speech;
        let allowed = (want as f64 * tolerance) as u64;

        if rest <= want + allowed {
            let whole = carry + frames - lead;
            if whole + allowed >= want || !stretch {
                if whole + allowed < want {
                    return Err(self.misfit(frames, want, MisfitRule::Tolerance));
                }
                if rest > want && begin > carry {
                    // Speech would be cut off behind while silence is kept in front.
                    let take = speech.min(want.saturating_sub(carry));
                    return Ok(Placement {
                        how: DubFitHow::Trimmed,
                        at: (want - take).max(carry),
                        from: head,
                        take,
                        frames: take,
                    });
                }
                let take = (frames - lead).min(want.saturating_sub(carry));
                return Ok(untouched(carry, lead, take, frames - lead, want));
            }
            // Shorter: as much slower as it is too short, from where it started.
            let speed = whole as f64 / want.max(1) as f64;
            if speed + SLACK < SLOWEST || speech == 0 {
                return Ok(untouched(carry, lead, frames - lead, frames - lead, want));
            }
            let longer = (speech as f64 / speed.max(SLOWEST)) as u64;
            return Ok(Placement {
                how: DubFitHow::Stretched,
                at: begin,
                from: head,
                take: speech,
                frames: longer.min(want.saturating_sub(begin)),
            });
        }
        // Longer. First at higher speed from where it started, then starting earlier, then running on.
        let shortest = (speech as f64 / most).ceil() as u64;
        if !stretch {
            return if speech <= want + allowed {
                let take = speech.min(want);
                Ok(Placement {
                    how: DubFitHow::Trimmed,
                    at: want - take,
                    from: head,
                    take,
                    frames: take,
                })
            } else {
                Err(self.misfit(speech, want, MisfitRule::Tolerance))
            };
        }
        let stretched = |at: u64, frames: u64, how| Placement {
            how,
            at,
            from: head,
            take: speech,
            frames,
        };
        if begin + shortest <= want {
            return Ok(stretched(begin, want - begin, DubFitHow::Stretched));
        }
        if carry + shortest <= want {
            return Ok(stretched(want - shortest, shortest, DubFitHow::Stretched));
        }
        let end = want + self.spill;
        if shortest > end {
            let most = (most * 1000.0).round() as u32;
            return Err(self.misfit(speech, want, MisfitRule::Speed(most)));
        }
        let at = carry.min(end - shortest);
        Ok(stretched(at, shortest, DubFitHow::Spilled))
    }

    fn misfit(&self, got: u64, want: u64, rule: MisfitRule) -> Misfit {
        let time = |samples: u64| {
            let nanos = u128::from(samples) * 1_000_000_000 / u128::from(self.config.rate.max(1));
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
        };
        Misfit {
            got: time(got),
            want: time(want),
            rule,
        }
    }
}

/// `take` samples as they are, of an answer of which `there` are left.
fn untouched(at: u64, from: u64, take: u64, there: u64, want: u64) -> Placement {
    let how = if there.abs_diff(want - at.min(want)) <= ROUNDING {
        DubFitHow::Exact
    } else if take < there {
        DubFitHow::Trimmed
    } else {
        DubFitHow::Padded
    };
    Placement {
        how,
        at,
        from,
        take,
        frames: take,
    }
}

fn samples(duration: Duration, rate: u32) -> u64 {
    (i128::from(nanos_of(duration)) * i128::from(rate) / 1_000_000_000) as u64
}
