//! Decode timestamps for access units that come in decode order with presentation times only.

use crate::time::Pts;

/// Gives each access unit a decode timestamp.
///
/// In decode order, the n-th unit is decoded when the n-th smallest presentation time comes up,
/// earlier by a constant: the reorder depth. Without B-frames the depth is 0 and DTS equals PTS. The
/// depth is learnt from the stream and only ever grows.
///
/// DTS is strictly increasing across all calls. It never exceeds its PTS as long as no unit presents
/// before one that an earlier call already passed; if a broken stream does that, increasing wins,
/// because muxers refuse a DTS that goes back.
#[derive(Clone, Debug, Default)]
pub struct DtsAssigner {
    /// Reorder depth in nanoseconds.
    shift: i64,
    last: Option<i64>,
}

impl DtsAssigner {
    /// An assigner that has seen no reordering yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Decode timestamps of `pts`, the units of one segment in decode order.
    pub fn assign(&mut self, pts: &[Pts]) -> Vec<Pts> {
        let mut sorted = pts.to_vec();
        sorted.sort_unstable();
        let depth = sorted
            .iter()
            .zip(pts)
            .map(|(s, p)| s.offset_from(*p))
            .max()
            .unwrap_or(0);
        self.shift = self.shift.max(depth);
        sorted
            .iter()
            .map(|slot| {
                let wanted = slot.shifted(-self.shift).nanos();
                let dts = self
                    .last
                    .map_or(wanted, |last| wanted.max(last.saturating_add(1)));
                self.last = Some(dts);
                Pts::from_nanos(dts)
            })
            .collect()
    }
}
