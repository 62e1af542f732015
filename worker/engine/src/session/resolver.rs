//! Gives results in batch order, however they come about.

use crate::session::facts::Resolution;
use std::collections::BTreeMap;

/// Segments told and not yet resolved towards the driver.
#[derive(Clone, Debug, Default)]
pub(super) struct Resolver {
    open: BTreeMap<u64, Option<Resolution>>,
    newest: Option<u64>,
}

impl Resolver {
    /// Takes a new segment; `false` for one that is not newer than the last.
    pub(super) fn open(&mut self, batch: u64) -> bool {
        if self.newest.is_some_and(|newest| batch <= newest) {
            return false;
        }
        self.newest = Some(batch);
        self.open.insert(batch, None);
        true
    }

    /// Decides a segment; `false` if it is decided already.
    pub(super) fn decide(&mut self, batch: u64, with: Resolution) -> bool {
        match self.open.get_mut(&batch) {
            Some(slot @ None) => {
                *slot = Some(with);
                true
            }
            _ => false,
        }
    }

    /// The next segment whose turn it is, if it is decided.
    pub(super) fn next(&mut self) -> Option<(u64, Resolution)> {
        let entry = self.open.first_entry()?;
        let decided = (*entry.get())?;
        let batch = *entry.key();
        entry.remove();
        Some((batch, decided))
    }

    /// Whether a segment is still to be resolved.
    pub(super) fn is_open(&self, batch: u64) -> bool {
        self.open.contains_key(&batch)
    }

    /// Segments still to be resolved.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}
