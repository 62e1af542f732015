//! What a small state machine answers to a fact.

/// The answer of a state machine to one fact.
///
/// `NoOp` and `Invalid` both leave the state alone. The difference is for the caller and for the
/// transition tables in the tests: a `NoOp` is a normal race (an ack after the answer), an
/// `Invalid` fact has no place in this state and is counted.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Transition<S> {
    /// The machine moves to this state.
    To(S),
    /// Expected here, changes nothing.
    NoOp,
    /// Has no place here; ignored and worth counting.
    Invalid,
}
