//! Every decision of the dubbing worker, pure: facts in with a time, orders out.
