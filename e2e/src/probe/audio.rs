//! The fixture's clock read back from sound.
