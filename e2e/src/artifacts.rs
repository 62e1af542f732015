//! Where a scenario leaves its logs, metrics, journal and recording.
