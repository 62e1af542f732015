//! The JSON log of the worker.
