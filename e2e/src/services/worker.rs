//! The `worker` process under test.
