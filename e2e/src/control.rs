//! Control client of `echo-sts`: asks it to misbehave in a chosen way.
