//! Segments between the cut and the last unit that leaves, whole and in order.

use std::collections::VecDeque;

use dub_engine::{At, AudioFrame, Pts, Segment, VideoUnit};
use dub_media::AacFrame;
use dub_media::audio::Pcm;
use dub_media::mixer::MixJob;

/// A segment with what is known about it so far.
pub(super) struct Travelling<V> {
    /// The segment. Its audio goes to the mixer when it is decided, its video leaves unit by unit.
    pub segment: Segment<V, AacFrame>,
    /// When its first unit arrived.
    pub captured: At,
    /// Decoding times of the video that has not left.
    dts: VecDeque<Pts>,
    /// The frame before its audio, if it continues another segment's.
    preroll: Option<AacFrame>,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Cut,
    /// What it sounds like is decided.
    Decided {
        at: At,
        dubbed: bool,
    },
    /// Its audio lies in the output.
    Mixed {
        dubbed: bool,
        delta: i64,
    },
    /// Its first unit has left.
    Begun,
}

/// Told when a segment's first unit leaves.
pub(super) struct Begun {
    pub batch: u64,
    /// Audio minus video, in nanoseconds.
    pub delta: i64,
    pub dubbed: bool,
}

/// All of them.
pub(super) struct OnAir<V>(VecDeque<Travelling<V>>);

impl<V> OnAir<V> {
    /// None yet.
    pub(super) const fn new() -> Self {
        Self(VecDeque::new())
    }

    /// A segment has been cut.
    pub(super) fn cut(
        &mut self,
        segment: Segment<V, AacFrame>,
        captured: At,
        dts: Vec<Pts>,
        preroll: Option<AacFrame>,
    ) {
        self.0.push_back(Travelling {
            segment,
            captured,
            dts: dts.into(),
            preroll,
            stage: Stage::Cut,
        });
    }

    /// Where a segment lies.
    pub(super) fn span(&self, batch: u64) -> Option<(Pts, Pts)> {
        let one = self.0.iter().find(|one| one.segment.batch == batch);
        one.map(|one| (one.segment.start, one.segment.end))
    }

    /// Whether every segment has left.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a segment is not decided yet.
    pub(super) fn has_undecided(&self) -> bool {
        self.0.iter().any(|one| one.stage == Stage::Cut)
    }

    fn find(&mut self, batch: u64) -> Option<&mut Travelling<V>> {
        self.0.iter_mut().find(|one| one.segment.batch == batch)
    }

    /// What a segment sounds like is decided: its audio for the mixer. `keep`: a file of the dub is
    /// wanted.
    pub(super) fn decided(
        &mut self,
        at: At,
        batch: u64,
        dubbed: Option<Pcm>,
        keep: bool,
    ) -> Option<MixJob> {
        let one = self.find(batch)?;
        one.stage = Stage::Decided {
            at,
            dubbed: dubbed.is_some(),
        };
        let audio_step = one.segment.audio_step();
        let audio = std::mem::take(&mut one.segment.audio);
        Some(MixJob {
            batch,
            start: one.segment.start,
            end: one.segment.end,
            audio_start: audio.first().map(|frame| frame.pts),
            audio_step,
            frames: audio.into_iter().map(|frame| frame.payload).collect(),
            preroll: one.preroll.take(),
            dubbed,
            keep,
        })
    }

    /// The audio of a segment that is copied, not mixed.
    pub(super) fn copied(&mut self, at: At, batch: u64) -> Option<Vec<AudioFrame<AacFrame>>> {
        let one = self.find(batch)?;
        one.stage = Stage::Decided { at, dubbed: false };
        Some(std::mem::take(&mut one.segment.audio))
    }

    /// A segment's audio lies in the output, this much behind its video, a dub really dubbed or not: the
    /// segment, and when it was decided.
    pub(super) fn mixed(
        &mut self,
        batch: u64,
        (delta, heard): (i64, bool),
    ) -> Option<(&Travelling<V>, At)> {
        let one = self.find(batch)?;
        let Stage::Decided { at, dubbed } = one.stage else {
            return None;
        };
        let dubbed = dubbed && heard;
        one.stage = Stage::Mixed { dubbed, delta };
        Some((one, at))
    }

    /// Media time at which something leaves next; `None` while that segment is not mixed.
    pub(super) fn next(&self) -> Option<Pts> {
        let one = self.0.front()?;
        match one.stage {
            Stage::Cut | Stage::Decided { .. } => None,
            Stage::Mixed { .. } | Stage::Begun => {
                Some(one.dts.front().copied().unwrap_or(one.segment.start))
            }
        }
    }

    /// What leaves next: a unit with its decoding time (none if the segment has no video), and the
    /// segment if it begins with it.
    pub(super) fn pop(&mut self) -> (Option<(VideoUnit<V>, Pts)>, Option<Begun>) {
        let Some(one) = self.0.front_mut() else {
            return (None, None);
        };
        let begun = match std::mem::replace(&mut one.stage, Stage::Begun) {
            Stage::Mixed { dubbed, delta } => Some(Begun {
                batch: one.segment.batch,
                delta,
                dubbed,
            }),
            _ => None,
        };
        let unit = one.segment.video.pop_front().zip(one.dts.pop_front());
        if one.segment.video.is_empty() {
            self.0.pop_front();
        }
        (unit, begun)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dub_engine::{CutAt, SegmentKind};

    use super::*;

    const FRAME: Duration = Duration::from_millis(20);

    /// `units` access units of 40 ms from `start` ms on, named by their time.
    fn segment(batch: u64, start: i64, units: i64) -> Segment<i64, AacFrame> {
        let unit = |n: i64| VideoUnit {
            pts: Pts::from_millis(start + n * 40),
            keyframe: n == 0,
            payload: start + n * 40,
        };
        let frame = |n: i64| AudioFrame {
            pts: Pts::from_millis(start + n * 20),
            duration: FRAME,
            level: None,
            payload: AacFrame::from([batch as u8]),
        };
        Segment {
            batch,
            start: Pts::from_millis(start),
            end: Pts::from_millis(start + 200),
            cut: CutAt::Grid,
            kind: SegmentKind::Full,
            video: (0..units).map(unit).collect(),
            audio: (0..10).map(frame).collect(),
        }
    }

    fn cut(on_air: &mut OnAir<i64>, segment: Segment<i64, AacFrame>) {
        let dts = segment.video.iter().map(|unit| unit.pts).collect();
        let captured = At::from_millis(segment.start.nanos() as u64 / 1_000_000);
        on_air.cut(segment, captured, dts, Some(AacFrame::from([9])));
    }

    #[test]
    fn a_segment_travels_whole_and_in_order() {
        let mut on_air = OnAir::new();
        // The second one has no video.
        for (batch, units) in [(0, 5), (1, 0), (2, 3)] {
            cut(&mut on_air, segment(batch, batch as i64 * 200, units));
        }
        assert!(on_air.has_undecided());
        assert_eq!(on_air.next(), None, "not decided");
        let pcm = Pcm::silence(1, 1);
        for (batch, dub) in [(0, Some(pcm)), (1, None), (2, None)] {
            let (at, dubbed) = (At::from_millis(700 + batch), dub.is_some());
            let job = on_air.decided(at, batch, dub, false).unwrap();
            assert_eq!((job.batch, job.frames.len()), (batch, 10));
            assert_eq!(job.audio_start, Some(Pts::from_millis(batch as i64 * 200)));
            assert_eq!(job.dubbed.is_some(), dubbed);
            assert!(job.preroll.is_some());
        }
        assert!(!on_air.has_undecided());
        assert_eq!(on_air.next(), None, "not mixed");
        for batch in [0, 1, 2] {
            let (one, decided) = on_air.mixed(batch, (batch as i64, true)).unwrap();
            assert_eq!(decided, At::from_millis(700 + batch));
            assert_eq!(one.captured, At::from_millis(batch * 200));
            assert!(on_air.mixed(batch, (0, true)).is_none(), "twice");
        }
        let (mut units, mut begun) = (Vec::new(), Vec::new());
        while let Some(next) = on_air.next() {
            let (unit, began) = on_air.pop();
            if let Some((unit, dts)) = &unit {
                assert_eq!((*dts, unit.payload), (next, next.nanos() / 1_000_000));
            }
            units.extend(unit.map(|(unit, _)| unit.payload));
            begun.extend(began.map(|b| (b.batch, b.delta, b.dubbed, units.len())));
        }
        assert_eq!(units, [0, 40, 80, 120, 160, 400, 440, 480]);
        let expected = [(0, 0, true, 1), (1, 1, false, 5), (2, 2, false, 6)];
        assert_eq!(begun, expected);
        assert!(on_air.is_empty());
    }

    #[test]
    fn a_dub_that_cannot_be_heard_after_all_is_none() {
        let mut on_air = OnAir::new();
        for heard in [true, false] {
            cut(&mut on_air, segment(0, 0, 1));
            on_air.decided(At::ZERO, 0, Some(Pcm::silence(1, 1)), false);
            on_air.mixed(0, (0, heard)).unwrap();
            let (_, begun) = on_air.pop();
            assert_eq!(begun.map(|begun| begun.dubbed), Some(heard));
        }
    }

    #[test]
    fn copied_audio_is_handed_out_once() {
        let mut on_air = OnAir::new();
        cut(&mut on_air, segment(4, 0, 1));
        assert_eq!(
            on_air.copied(At::ZERO, 4).map(|audio| audio.len()),
            Some(10)
        );
        assert_eq!(on_air.copied(At::ZERO, 5).map(|audio| audio.len()), None);
        assert!(on_air.decided(At::ZERO, 3, None, false).is_none());
    }
}
