//! The fixture's clock read back from pictures.
