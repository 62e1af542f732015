//! The statistics a session reports in `stream:complete`.

use sts_protocol::{Statistics, StreamComplete};

/// What happened to a session's fragments.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    fragments: u64,
    duration_ms: u64,
    success: u64,
    failed: u64,
    times_ms: Vec<u32>,
}

impl Tally {
    /// Counts a fragment of this length; gives its number, from 1.
    pub(crate) fn taken(&mut self, duration_ms: u64) -> u64 {
        self.duration_ms = self.duration_ms.saturating_add(duration_ms);
        self.fragments += 1;
        self.fragments
    }

    /// Counts an answer that took this long.
    pub(crate) fn answered(&mut self, success: bool, processing_time_ms: u64) {
        *(if success {
            &mut self.success
        } else {
            &mut self.failed
        }) += 1;
        self.times_ms
            .push(u32::try_from(processing_time_ms).unwrap_or(u32::MAX));
    }

    /// The message for the end of stream `stream_id`.
    pub(crate) fn summary(&self, stream_id: &str) -> StreamComplete {
        let mut times = self.times_ms.clone();
        times.sort_unstable();
        let sum: f64 = times.iter().map(|ms| f64::from(*ms)).sum();
        // Nearest rank: the smallest time that at least 95 % do not exceed.
        let rank = (times.len() * 95).div_ceil(100);
        let p95 = rank.checked_sub(1).and_then(|index| times.get(index));
        StreamComplete {
            stream_id: stream_id.to_owned(),
            total_fragments: self.fragments,
            total_duration_ms: self.duration_ms,
            statistics: Statistics {
                success_count: self.success,
                partial_count: 0,
                failed_count: self.failed,
                avg_processing_time_ms: sum / times.len().max(1) as f64,
                p95_processing_time_ms: p95.map_or(0.0, |ms| f64::from(*ms)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_95th_percentile_is_by_nearest_rank() {
        let mut tally = Tally::default();
        assert_eq!(tally.summary("s").statistics, Statistics::default());
        for ms in (1..=20).rev() {
            tally.taken(6_000);
            tally.answered(ms != 3, ms * 10);
        }
        let complete = tally.summary("s");
        assert_eq!(
            (complete.total_fragments, complete.total_duration_ms),
            (20, 120_000)
        );
        assert_eq!(
            complete.statistics,
            Statistics {
                success_count: 19,
                partial_count: 0,
                failed_count: 1,
                avg_processing_time_ms: 105.0,
                p95_processing_time_ms: 190.0,
            }
        );
    }
}
