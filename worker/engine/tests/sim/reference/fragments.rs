//! What the rules say of a fragment that is well: it waits, is sent, answered, checked.

use super::{Reference, Sent, Stage};
use dub_engine::{At, FragmentId, LinkId, OriginalReason, Resolution};

impl Reference {
    pub(super) fn segment(&mut self, at: At, batch: u64, unfit: Option<OriginalReason>) {
        if self.newest.is_some_and(|newest| batch <= newest) {
            return;
        }
        self.newest = Some(batch);
        self.unresolved.push_back(batch);
        if !self.config.enabled {
            self.fall_back(batch, OriginalReason::Passthrough);
        } else if let Some(reason) = unfit {
            self.fall_back(batch, reason);
        } else {
            let waits = match self.stage {
                Stage::Up => true,
                Stage::Idle | Stage::Connecting | Stage::Init => self.hold,
                Stage::Down | Stage::Ending | Stage::Over => false,
            };
            if waits {
                self.waiting.insert(batch, at);
            } else {
                self.fall_back(batch, OriginalReason::Disconnected);
            }
        }
    }

    pub(super) fn sent(&mut self, at: At, link: LinkId, batch: u64, id: FragmentId, sequence: u64) {
        assert_eq!(
            (link, self.stage),
            (self.link, Stage::Up),
            "sends without a session"
        );
        let ready = self
            .waiting
            .remove(&batch)
            .expect("sends a segment that does not wait");
        assert!(
            self.waiting.keys().all(|other| *other > batch),
            "sends out of order"
        );
        assert!(at <= ready + self.config.fragment_timeout, "sends too late");
        assert!(
            self.gate(ready).is_some_and(|gate| gate <= at),
            "ignores backpressure"
        );
        let era = self.breaker.sent(id);
        assert_eq!(sequence, self.sequence, "sequence numbers have no holes");
        self.sequence += 1;
        self.last_sent = at;
        assert!(self.every_id.insert(id), "an id used twice");
        let deadline = at + self.config.fragment_timeout;
        let sent = Sent {
            batch,
            sequence,
            deadline,
            era,
            init: self.inits,
        };
        self.out.insert(id, sent);
        self.sends += 1;
        self.most_out = self.most_out.max(self.out.len());
        assert!(
            self.out.len() <= self.limit,
            "more out than the limit {}",
            self.limit
        );
    }

    pub(super) fn gate(&self, ready: At) -> Option<At> {
        match self.slowed {
            _ if self.paused => None,
            Some((delay, since)) => Some(ready.max(since).max(self.last_sent) + delay),
            None => Some(ready),
        }
    }

    pub(super) fn audio(&mut self, at: At, id: Option<FragmentId>) {
        let Some((id, mut sent)) = id.and_then(|id| self.out.remove_entry(&id)) else {
            return;
        };
        sent.deadline = at + self.config.fragment_timeout;
        self.gaps = 0;
        self.checking.insert(id, sent);
    }

    pub(super) fn checked(&mut self, batch: u64, good: bool) {
        let found = self.checking.iter().find(|(_, sent)| sent.batch == batch);
        let Some(id) = found.map(|(id, _)| *id) else {
            return;
        };
        let Some(sent) = self.checking.remove(&id) else {
            return;
        };
        if !good {
            self.fall_back(batch, OriginalReason::BadAudio);
            return self.breaker.neutral(sent.era);
        }
        self.decided.insert(batch, Resolution::Dubbed { id });
        if sent.init == self.inits && self.stage == Stage::Up {
            self.must_apply.insert(id);
            self.unproven = false;
            self.losses = 0;
        }
        self.worked = true;
        self.breaker.success(sent.era);
    }
}
