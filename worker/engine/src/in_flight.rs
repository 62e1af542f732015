//! Fragments between being sent and being settled, and a memory of those settled lately.
//!
//! A fragment is *out* until the service answers or we give it up; only those count against the
//! in-flight limit. One that came back is *returned* until its audio is checked. Settled ones are
//! remembered for a while, so that a late answer can be told from a repeated one and from one about
//! a fragment that never was.

use crate::breaker::Permit;
use crate::fragment_id::FragmentId;
use crate::machine::Transition;
use crate::time::At;
use crate::words::ProtocolErrorKind;
use std::collections::{BTreeMap, VecDeque};

/// Settled fragments remembered; at 6 s each this is 25 minutes.
pub const REMEMBERED: usize = 256;

/// The life of a fragment.
///
/// ```text
/// Sent ─▶ Queued ─▶ Processing ─┬─▶ Returned ─┬─▶ Dubbed
///   └────────┴──────────────────┤             └─▶ BadAudio
///                               └─▶ Failed | TimedOut | Forgotten
/// ```
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub enum FragmentState {
    /// On its way.
    Sent,
    /// Waiting on the server.
    Queued,
    /// Being worked on.
    Processing,
    /// Audio came back and is being checked.
    Returned,
    /// Settled: its audio is good.
    Dubbed,
    /// Settled: its audio cannot be used.
    BadAudio,
    /// Settled: the service failed on it.
    Failed,
    /// Settled: no answer in time.
    TimedOut,
    /// Settled: its session is gone.
    Forgotten,
}

/// What happens to a fragment.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum FragmentFact {
    /// The server acknowledged it as queued.
    AckQueued,
    /// The server acknowledged it as being processed.
    AckProcessing,
    /// Audio came back.
    Audio,
    /// The service said it failed.
    Failure,
    /// Its time is up.
    Timeout,
    /// Its session is gone.
    SessionGone,
    /// Its audio was checked and is good.
    CheckedGood,
    /// Its audio was checked, or not in time, and is no good.
    CheckedBad,
}

impl FragmentState {
    /// Every state, for tables.
    pub const ALL: [Self; 9] = [
        Self::Sent,
        Self::Queued,
        Self::Processing,
        Self::Returned,
        Self::Dubbed,
        Self::BadAudio,
        Self::Failed,
        Self::TimedOut,
        Self::Forgotten,
    ];

    /// The next state.
    #[expect(
        clippy::match_same_arms,
        reason = "grouped by meaning, each group with its comment"
    )]
    pub fn on(self, fact: FragmentFact) -> Transition<Self> {
        use FragmentFact as Fact;
        use Transition::{Invalid, NoOp, To};
        match (self, fact) {
            (Self::Sent, Fact::AckQueued) => To(Self::Queued),
            (Self::Sent | Self::Queued, Fact::AckProcessing) => To(Self::Processing),
            // Acks may overtake each other or trail behind the answer.
            (_, Fact::AckQueued | Fact::AckProcessing) => NoOp,

            (Self::Sent | Self::Queued | Self::Processing, fact) => match fact {
                Fact::Audio => To(Self::Returned),
                Fact::Failure => To(Self::Failed),
                Fact::Timeout => To(Self::TimedOut),
                Fact::SessionGone => To(Self::Forgotten),
                _ => Invalid,
            },

            (Self::Returned, Fact::CheckedGood) => To(Self::Dubbed),
            (Self::Returned, Fact::CheckedBad) => To(Self::BadAudio),
            // What came back is ours, whatever becomes of the session.
            (Self::Returned, Fact::SessionGone | Fact::Timeout) => NoOp,

            // One failure may be told twice: as `error` and as `fragment:processed`.
            (Self::Failed, Fact::Failure) => NoOp,
            // A check that ended after its deadline.
            (Self::BadAudio, Fact::CheckedGood | Fact::CheckedBad) => NoOp,
            _ => Invalid,
        }
    }

    /// Whether the service still owes an answer.
    pub const fn is_out(self) -> bool {
        matches!(self, Self::Sent | Self::Queued | Self::Processing)
    }

    /// What kind of wrong an answer is that finds the fragment in this state.
    pub const fn misfit(self) -> ProtocolErrorKind {
        match self {
            Self::TimedOut | Self::Forgotten => ProtocolErrorKind::Late,
            _ => ProtocolErrorKind::Duplicate,
        }
    }
}

/// A fragment that is out or returned.
#[derive(Clone, Debug)]
pub struct Fragment {
    /// Which segment.
    pub batch: u64,
    /// Number since the last init.
    pub sequence: u64,
    /// Which init, counted since the start of the worker.
    pub session: u64,
    /// Size of the message it went out in.
    pub bytes: usize,
    /// When it was sent.
    pub sent_at: At,
    /// When its answer, or the check of its audio, is overdue.
    pub deadline: At,
    /// Where it stands.
    pub state: FragmentState,
    /// What the breaker admitted it under.
    pub permit: Permit,
}

/// A fragment that was settled.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct Settled {
    /// Which fragment.
    pub id: FragmentId,
    /// Which segment.
    pub batch: u64,
    /// How it ended.
    pub state: FragmentState,
}

/// All fragments of a worker that are out, returned, or settled lately.
#[derive(Clone, Debug, Default)]
pub struct InFlight {
    live: BTreeMap<FragmentId, Fragment>,
    settled: VecDeque<Settled>,
}

impl InFlight {
    /// Adds a fragment that was just sent.
    pub fn sent(&mut self, id: FragmentId, fragment: Fragment) {
        self.live.insert(id, fragment);
    }

    /// Fragments the service still owes an answer for.
    pub fn out(&self) -> usize {
        self.live
            .values()
            .filter(|fragment| fragment.state.is_out())
            .count()
    }

    /// Fragments out or being checked.
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// Fragments remembered after being settled.
    pub fn remembered(&self) -> usize {
        self.settled.len()
    }

    /// A fragment that is out or returned.
    pub fn get(&self, id: FragmentId) -> Option<&Fragment> {
        self.live.get(&id)
    }

    /// How a fragment ended, if that is still remembered.
    pub fn settled(&self, id: FragmentId) -> Option<Settled> {
        self.settled
            .iter()
            .rev()
            .find(|settled| settled.id == id)
            .copied()
    }

    /// Ids of the fragments that are out, oldest first.
    pub fn ids_out(&self) -> Vec<FragmentId> {
        self.ids(|fragment| fragment.state.is_out())
    }

    /// Ids of the fragments, out or returned, whose deadline has come, oldest first.
    pub fn overdue(&self, at: At) -> Vec<FragmentId> {
        self.ids(|fragment| fragment.deadline <= at)
    }

    /// The fragment of a segment whose audio is being checked.
    pub fn returned(&self, batch: u64) -> Option<FragmentId> {
        let of_batch = |f: &Fragment| f.batch == batch && f.state == FragmentState::Returned;
        self.live
            .iter()
            .find(|(_, fragment)| of_batch(fragment))
            .map(|(id, _)| *id)
    }

    /// The earliest deadline.
    pub fn next_deadline(&self) -> Option<At> {
        self.live.values().map(|fragment| fragment.deadline).min()
    }

    /// Records an ack or a return; the fragment stays live. `deadline` replaces the one it had.
    pub fn advance(&mut self, id: FragmentId, fact: FragmentFact, deadline: Option<At>) -> bool {
        let Some(fragment) = self.live.get_mut(&id) else {
            return false;
        };
        let Transition::To(next) = fragment.state.on(fact) else {
            return false;
        };
        fragment.state = next;
        fragment.deadline = deadline.unwrap_or(fragment.deadline);
        true
    }

    /// Settles a fragment if `fact` does so from where it stands.
    pub fn settle(&mut self, id: FragmentId, fact: FragmentFact) -> Option<Fragment> {
        let Transition::To(next) = self.live.get(&id)?.state.on(fact) else {
            return None;
        };
        let mut fragment = self.live.remove(&id)?;
        fragment.state = next;
        if self.settled.len() == REMEMBERED {
            self.settled.pop_front();
        }
        self.settled.push_back(Settled {
            id,
            batch: fragment.batch,
            state: next,
        });
        Some(fragment)
    }

    fn ids(&self, wanted: impl Fn(&Fragment) -> bool) -> Vec<FragmentId> {
        let mut found: Vec<(u64, FragmentId)> = self
            .live
            .iter()
            .filter(|(_, fragment)| wanted(fragment))
            .map(|(id, fragment)| (fragment.batch, *id))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, id)| id).collect()
    }
}
