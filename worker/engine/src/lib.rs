//! Every decision of the dubbing worker, pure: facts in with a time, orders out.
//!
//! Nothing here reads a clock, sleeps, allocates a socket or knows GStreamer. The driver tells the
//! engine what happened and when ([`At`]); the engine answers with what to do and when it wants to
//! be woken. So minutes of stream run in milliseconds of test, and every race can be replayed.
//!
//! | part | decides |
//! |---|---|
//! | [`input`] | the input's life: connecting, retrying, silence, the end |
//! | [`timeline`] | where every unit of both tracks lies in media time |
//! | [`segment`] | where the cuts fall and which media belongs to which segment |
//! | [`pause`] | where speakers breathe |
//! | [`dts`] | decode timestamps for access units that arrive with PTS only |
//! | [`session`] | one STS stream: connect, init, send, hold, give up, fall back, reconnect, end |
//! | [`breaker`], [`backoff`], [`backpressure`], [`in_flight`] | the small machines the session is made of |
//! | [`message_limit`] | how large a message the service takes |
//! | [`playout`] | when each pair leaves, what a stall is, how lost latency is won back |
//! | [`output`] | the output's life: connect, accept, lose, connect again, linger, close |
//! | [`av_sync`] | how audio is fitted to one continuous sample grid without drifting from video |
//! | [`words`] | nothing; the words that more than one part or crate speaks |
//! | [`dub_fit`] | what becomes of an answer that is longer or shorter than its segment |
//! | [`loudness`] | how loud a dub may be beside its original |
//! | [`captions`] | where an answer's sentences are shown |
//! | [`heard`] | nothing; it counts what viewers have heard |
//! | [`health`] | whether the worker is alive, and whether the stream flows |
//! | [`copy_grid`] | where copied audio frames lie in the output |
//! | [`applied`] | when the service is told that its dub is on its way out |
//! | [`redact`] | nothing; it keeps secrets out of texts of others |
//! | [`event`] | every fact worth a log line, a count or a line in a snapshot |
//!
//! The parts share one way of speaking: `handle_*` takes facts in the past tense, `poll_*` gives
//! orders and events until `None`. Poll until `None` before the next fact.
#![warn(missing_docs)]

pub mod applied;
pub mod av_sync;
pub mod backoff;
pub mod backpressure;
pub mod breaker;
pub mod captions;
pub mod copy_grid;
pub mod drain;
pub mod dts;
pub mod dub_fit;
pub mod event;
pub mod fragment_id;
pub mod health;
pub mod heard;
pub mod in_flight;
pub mod input;
pub mod loudness;
pub mod machine;
pub mod message_limit;
pub mod output;
pub mod pause;
pub mod playout;
pub mod redact;
pub mod segment;
pub mod session;
pub mod time;
pub mod timeline;
pub mod words;

pub use applied::{AppliedAcks, Saying};
pub use av_sync::{AudioPlan, AvSync, AvSyncConfig};
pub use breaker::BreakerState;
pub use copy_grid::CopyGrid;
pub use drain::Drain;
pub use dts::DtsAssigner;
pub use dub_fit::{Answer, DubFit, DubFitConfig, DubFitHow, DubFitMode, Misfit, Placement};
pub use event::{Event, Level};
pub use fragment_id::FragmentId;
pub use heard::Heard;
pub use loudness::{Correction, DubLoudness, Loudness, LoudnessChange, LoudnessGuard};
pub use output::{Admission, HandedOver, Leaving, OutputLife, OutputOrder};
pub use playout::{Pair, Playout, PlayoutConfig};
pub use segment::{
    AudioFrame, CutAt, DroppedBeforeStart, Segment, SegmentCut, SegmentKind, Segmenter,
    SegmenterConfig, VideoUnit,
};
pub use session::{End, Gone, Resolution, Session, SessionConfig, SessionFact, SessionOrder};
pub use time::{At, Pts};
pub use timeline::{Placed, Timeline, TimelineConfig, Track};
pub use words::{
    AckStatus, BackpressureAction, BadAudio, Fatal, LinkId, OriginalReason, Outcome,
    ProtocolErrorKind,
};
