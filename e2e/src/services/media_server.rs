//! The media server of one environment.
