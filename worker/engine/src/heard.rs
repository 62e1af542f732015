//! What viewers have heard of a run: how much of it dubbed, why not all, how often it changed.

use crate::event::Event;
use crate::words::OriginalReason;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Segments between being cut and being heard; far more than any run has.
const MOST_WAITING: usize = 1_000;

/// Counts what is heard. Tell it everything; read it whenever.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    waiting: BTreeMap<u64, Unheard>,
    dubbed: u64,
    original: u64,
    reasons: BTreeMap<&'static str, u64>,
    switches: u64,
    time: Duration,
    last: Option<bool>,
}

#[derive(Clone, Debug, Default)]
struct Unheard {
    duration: Duration,
    reason: Option<OriginalReason>,
}

impl Heard {
    /// A segment was cut.
    pub fn segment(&mut self, batch: u64, duration: Duration) {
        self.waiting.entry(batch).or_default().duration = duration;
        if self.waiting.len() > MOST_WAITING {
            self.waiting.pop_first();
        }
    }

    /// Something happened: the reason for original audio is kept.
    pub fn event(&mut self, event: &Event) {
        if let Event::Fallback { batch, reason } | Event::SegmentOriginal { batch, reason } = event
            && let Some(segment) = self.waiting.get_mut(batch)
        {
            segment.reason = Some(*reason);
        }
    }

    /// A segment begins to be heard.
    pub fn on_air(&mut self, batch: u64, dubbed: bool) {
        let segment = self.waiting.remove(&batch).unwrap_or_default();
        self.time += segment.duration;
        if dubbed {
            self.dubbed += 1;
        } else {
            self.original += 1;
            let reason = segment.reason.map_or("unknown", OriginalReason::label);
            *self.reasons.entry(reason).or_default() += 1;
        }
        self.switches += u64::from(self.last.replace(dubbed).is_some_and(|last| last != dubbed));
    }

    /// Segments heard dubbed.
    pub fn dubbed(&self) -> u64 {
        self.dubbed
    }

    /// Segments heard with their own audio.
    pub fn original(&self) -> u64 {
        self.original
    }

    /// Times the language changed, per minute of media.
    pub fn switches_per_minute(&self) -> f64 {
        if self.time.is_zero() {
            return 0.0;
        }
        self.switches as f64 * 60.0 / self.time.as_secs_f64()
    }
}

/// `5 segments heard dubbed, 25 original (bad_audio 25), 8.0 language switches per minute`
impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} segments heard dubbed, {} original",
            self.dubbed, self.original
        )?;
        for (n, (reason, count)) in self.reasons.iter().enumerate() {
            write!(f, "{}{reason} {count}", if n == 0 { " (" } else { ", " })?;
        }
        f.write_str(if self.reasons.is_empty() { "" } else { ")" })?;
        write!(
            f,
            ", {:.1} language switches per minute",
            self.switches_per_minute()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_was_heard_and_why_and_how_often_it_changed() {
        let mut heard = Heard::default();
        assert_eq!(heard.switches_per_minute(), 0.0);
        for batch in 0..10 {
            heard.segment(batch, Duration::from_secs(6));
            if batch % 5 == 2 {
                let reason = OriginalReason::BadAudio;
                heard.event(&Event::Fallback { batch, reason });
            }
        }
        for batch in 0..9 {
            heard.on_air(batch, batch % 5 != 2);
        }
        heard.event(&Event::SegmentOriginal {
            batch: 9,
            reason: OriginalReason::NotSent,
        });
        heard.on_air(9, false);
        assert_eq!(
            heard.to_string(),
            "7 segments heard dubbed, 3 original (bad_audio 2, not_sent 1), \
             5.0 language switches per minute"
        );
        assert_eq!((heard.dubbed(), heard.original()), (7, 3));
    }

    #[test]
    fn what_is_cut_and_never_heard_does_not_pile_up() {
        let mut heard = Heard::default();
        for batch in 0..100_000 {
            heard.segment(batch, Duration::from_secs(1));
        }
        assert_eq!(heard.waiting.len(), MOST_WAITING);
    }
}
