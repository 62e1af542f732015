//! Typed redactions with fixed placeholders for snapshots.
