//! How many streams run at once.
//!
//! Every [`Environment`](crate::environment::Environment) is a stream in real time: a camera, a worker, a
//! service, a server. It has a turn while its programs run, which is over before its recording is
//! examined. Whoever has waited with the smallest [`rank`] is next, so that the longest begin first.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::services::media_server::Kind;
use crate::threads::{Rank, Turn, Turns, cores};

/// Streams for each core, unless `--test-threads` says otherwise: one takes a tenth of a core, several
/// times that while it starts, and what it does must happen on time. With seven a pair was late by 300 ms in
/// each of six suites on a day on which the machine was slow.
const PER_CORE: usize = 5;
/// The same with MediaMTX for each: two streams pass through it, and it looks at both.
const PER_CORE_WITH_MEDIAMTX: usize = 4;
/// From one start to the next, on one core: five programs load their libraries then. No part of a second, or
/// all segments, which are whole seconds long, would be cut at once.
const APART: Duration = Duration::from_millis(1_100);

thread_local! {
    static RANK: Cell<Rank> = const { Cell::new((usize::MAX, 0)) };
}

/// The turns of this run, and how many at once.
static ALL: Turns = Turns::new();
static LIMIT: AtomicUsize = AtomicUsize::new(PER_CORE);

/// What this thread starts is that part of that scenario.
pub fn rank(rank: Rank) {
    RANK.set(rank);
}

/// This many at once, or as many as the machine's cores can do with this server.
pub fn limit(count: Option<usize>, server: Kind) {
    let per_core = match server {
        Kind::MediaMtx => PER_CORE_WITH_MEDIAMTX,
        Kind::Default => PER_CORE,
    };
    LIMIT.store(count.unwrap_or(per_core * cores()), Ordering::Relaxed);
}

/// Waits for a turn. Those who have one have deadlines, so it comes.
pub(crate) fn take() -> Turn<'static> {
    let apart = APART / u32::try_from(cores()).unwrap_or(u32::MAX);
    ALL.take(RANK.get(), LIMIT.load(Ordering::Relaxed), apart)
}
