//! The timeline under every kind of clock trouble: a scripted sender whose true times are known.

mod random;
mod rules;
mod sender;
mod waiting;
