//! The STS session in a world with virtual time: minutes of stream in milliseconds.
//!
//! [`world`] moves time and carries facts and orders between the session and a peer; [`sts`] is a
//! scripted peer, [`chaos`] one that does anything it likes. Every run, scripted or random, is
//! watched by [`reference`], a second and much simpler telling of the same rules.

mod chaos;
mod hostile;
mod random;
mod reference;
mod stories;
mod sts;
mod world;
