//! End-to-end suite: starts everything as native processes and proves the result from outside.
