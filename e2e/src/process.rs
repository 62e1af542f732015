//! Child processes that are always stopped.
