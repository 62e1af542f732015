//! The scenarios.

fn main() {}
