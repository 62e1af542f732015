//! Prometheus text, parsed for real.
