//! The fixture's own clock: frame numbers, flashes and beeps.
