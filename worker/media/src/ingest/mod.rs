//! RTSP in: H.264 access units and AAC frames with RTP time and arrival, as facts.
//!
//! `rtspsrc` time stamps by arrival and, once sender reports allow, by its own idea of
//! synchronisation, with jumps in between. So the time stamps are replaced right behind it
//! by the packets' RTP time, and arrivals and sender reports are passed on for
//! [`dub_engine::timeline`] to put both tracks on one line.

mod chain;
mod convert;
mod offer;
mod picture;
mod reason;
mod stamp;
mod telling;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use dub_engine::Track;
use dub_engine::pause::FrameLevel;
use dub_engine::timeline::Picture;
use gst::prelude::*;
use tokio::sync::mpsc;

use self::offer::Offer;
use self::stamp::Stamps;
use self::telling::{Telling, last_word, lock};
use super::aac::AacFormat;
use super::bus::{self, BusFact};
use super::element::{Element, make};
use super::{AacFrame, AccessUnit, MediaError};
use crate::url::MediaUrl;

/// What one RTSP connection tells. Times are nanoseconds of RTP time since the track's
/// first packet.
#[expect(missing_docs, reason = "the fields say what they are")]
#[derive(Debug)]
pub enum IngestFact {
    /// The server accepted PLAY; media may take its time.
    Connected,
    /// The audio's format, before its first frame.
    AudioFormat {
        format: AacFormat,
        /// Length of a frame of the codec on the wire, where packets may hold several.
        bundled: Option<Duration>,
    },
    /// An access unit, in decoding order; `time` is `None` for the second of one time stamp.
    Video {
        time: Option<i64>,
        arrived: Instant,
        picture: Picture,
        unit: AccessUnit,
    },
    /// An audio packet, before the frames in it.
    Packet { time: i64, arrived: Instant },
    /// An AAC frame; `time` is `None` where it is not the first of its packet.
    Audio {
        time: Option<i64>,
        arrived: Instant,
        frame: AacFrame,
        /// How loud it is, if that was asked for and it can be decoded.
        level: Option<FrameLevel>,
    },
    /// A sender report: `time` on the track is `ntp` on the sender's clock.
    Report {
        track: Track,
        time: i64,
        ntp: i64,
        /// It came with a source description.
        named: bool,
        arrived: Instant,
    },
    /// RTP packets are missing, by their sequence numbers.
    Lost { track: Track, packets: u16 },
    /// The server closed the stream. It may have ended, or may come back.
    Ended { reason: String },
    /// The connection failed.
    Failed { error: IngestError },
    /// GStreamer said something odd, for the log.
    Warning { text: String },
}

/// Why a connection failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IngestError {
    /// The server answers, but has no such stream (any more).
    #[error("{0}")]
    NotFound(String),
    /// The server wants other credentials; trying again does not help.
    #[error("{0}; check the user and password in the URL")]
    Denied(String),
    /// Refused, unreachable, silent, or broken on the way.
    #[error("{0}")]
    Broken(String),
    /// The worker did not keep up, so that there was no room for what came in.
    #[error("the worker does not keep up with the input: {dropped} units are lost")]
    Overrun {
        /// What had no room.
        dropped: u64,
    },
    /// A track is missing or cannot be used; trying again does not help.
    #[error("{0}")]
    Unsuitable(String),
    /// This installation of GStreamer cannot take a track.
    #[error("the input's {media} track ({encoding}) cannot be taken: {error}")]
    Installation {
        /// `video` or `audio`.
        media: String,
        /// What it is, in the words of its description.
        encoding: String,
        /// What is missing or does not link.
        error: MediaError,
    },
}

impl IngestError {
    /// Whether another attempt may end differently.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::NotFound(_) | Self::Broken(_) | Self::Overrun { .. }
        )
    }
}

/// How long a request of [`Ingest::keep_alive`] without an answer keeps the next one back.
const ASKING: Duration = Duration::from_secs(10);

/// One RTSP connection. Dropping it stops it.
pub struct Ingest {
    pipeline: gst::Pipeline,
    source: gst::Element,
    /// The last request that keeps the session alive.
    asked: Mutex<Option<(Option<gst::Promise>, Instant)>>,
}

/// How many facts may wait for the driver: over ten seconds of media.
pub const CHANNEL_CAPACITY: usize = 4096;

/// Texts of `rtspsrc` 1.22 to 1.28 that are told apart; `tests/connection.rs` and the test below provoke
/// them on the installed version.
pub mod texts {
    /// Nobody answers; why is left open.
    pub const NO_CONNECTION: &str = "Failed to connect";
    /// The server does not have the stream.
    pub const NOT_FOUND: &str = "(404)";
    /// The server has forgotten the session.
    pub const NO_SESSION: &str = "(454)";
    /// The credentials are wrong or missing.
    pub const UNAUTHORIZED: &str = "(401)";
    /// The server has closed the connection, or something else is odd: a warning of a healthy life, or an error.
    pub const CLOSED: &str = "Could not read from resource";
    /// Of those warnings the one that says that it has.
    pub const HUNG_UP: &str = "The server closed the connection";
    /// It has, and did not wait for a request of ours.
    pub const UNHEARD: &str = "Could not write to resource";
    /// No element takes what comes.
    pub const NOT_NEGOTIATED: &str = "not-negotiated";
    /// No decoder is installed for it.
    pub const NO_DECODER: &str = "missing a plug-in";
}

impl Ingest {
    /// Connects to `url`. Everything that follows, failures included, comes through
    /// `sender`, tagged with `connection`. `listen`: audio frames come with their level.
    pub fn start(
        url: &MediaUrl,
        latency: Duration,
        listen: bool,
        connection: u32,
        sender: mpsc::Sender<(u32, IngestFact)>,
    ) -> Result<Self, MediaError> {
        let telling = Telling::new(sender, connection);
        let pipeline = gst::Pipeline::new();
        let source = make(Element::Rtspsrc)?;
        source.set_property("location", url.secret());
        source.set_property_from_str("protocols", "tcp");
        source.set_property("latency", latency.as_millis() as u32);
        // Time stamps must step as RTP time does, not as packets arrive.
        source.set_property_from_str("buffer-mode", "none");
        // Sources that are started on demand answer late; the engine's patience with a handshake is 15 s.
        source.set_property("tcp-timeout", 14_000_000_u64);
        source.set_property("teardown-timeout", 100_000_000_u64);
        source.set_property(
            "user-agent",
            concat!("dub-worker/", env!("CARGO_PKG_VERSION")),
        );
        pipeline
            .add(&source)
            .map_err(MediaError::at("RTSP input"))?;

        let offer = Offer::watch(&source, &telling);
        let stamps = Stamps::default();
        stamps.watch_reports(&source, &offer, &telling);
        chain::watch_pads(&source, &pipeline, &stamps, &telling, listen);
        watch_bus(&pipeline, url, &offer, &telling);

        // Failures also come over the bus, with a better text.
        let _ = pipeline.set_state(gst::State::Playing);
        Ok(Self {
            pipeline,
            source,
            asked: Mutex::default(),
        })
    }

    /// Sends a request, so that the server does not take the session for dead: while media flows over
    /// TCP, `rtspsrc` sends none by itself. None as long as the last one has no answer: `rtspsrc` 1.22 aborts
    /// the process when one is asked for just as it begins with the one before.
    pub fn keep_alive(&self) {
        let mut asked = lock(&self.asked);
        if let Some((promise, since)) = &mut *asked {
            let answered = promise.take().is_some_and(|promise| {
                // Makes a promise that is not kept yet a broken one, which `wait` tells at once.
                promise.interrupt();
                promise.wait() != gst::PromiseResult::Interrupted
            });
            if !answered && since.elapsed() < ASKING {
                return;
            }
        }
        let (nothing, promise) = (None::<&str>, gst::Promise::new());
        *asked = Some((Some(promise.clone()), Instant::now()));
        self.source
            .emit_by_name::<bool>("get-parameter", &[&"position", &nothing, &promise]);
    }

    /// Stops the connection. Blocks for up to a second; not for async code.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if let Some(bus) = self.pipeline.bus() {
            bus.unset_sync_handler();
        }
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

fn watch_bus(pipeline: &gst::Pipeline, url: &MediaUrl, offer: &Offer, telling: &Telling) {
    let (offer, telling) = (offer.clone(), telling.clone());
    let secret = url.secret().to_owned();
    bus::watch(pipeline, url, move |fact| {
        hear(fact, &secret, &offer, &telling);
    });
}

fn hear(fact: BusFact, secret: &str, offer: &Offer, telling: &Telling) {
    let failed = |error| IngestFact::Failed { error };
    match fact {
        // `rtspsrc` says of every loss that its streaming has stopped, too.
        BusFact::Error { .. } if telling.is_ending() => {}
        BusFact::Error { text, .. } if text.contains(texts::NO_CONNECTION) => {
            let telling = telling.clone();
            reason::find(secret, text, move |reason| {
                telling.end(failed(IngestError::Broken(reason)));
            });
        }
        // The connection is gone, what came over it is not.
        BusFact::Error { text, .. }
            if text.contains(texts::CLOSED) || text.contains(texts::UNHEARD) =>
        {
            telling.end_after_units(Some(classify(text)));
        }
        BusFact::Error { text, .. } => {
            // Where nothing is taken `rtspsrc` only says that there is nothing to set up.
            let error = offer.refused().map(IngestError::Unsuitable);
            telling.end(failed(error.unwrap_or_else(|| classify(text))));
        }
        // The end comes through the chains, if there are any.
        BusFact::Warning { text } if text.contains(texts::HUNG_UP) => {
            if !telling.has_chains() {
                telling.end(last_word(None));
            }
        }
        BusFact::Warning { text }
            if text.contains(texts::CLOSED) || text.contains(texts::UNHEARD) => {}
        BusFact::Warning { text } => telling.tell(IngestFact::Warning { text }),
        // Through every chain that is linked by now, that is.
        BusFact::Eos => telling.end_after_units(None),
        BusFact::Progress { code } if code == "open" => {
            if let Some(reason) = offer.lacks() {
                telling.end(failed(IngestError::Unsuitable(reason)));
            }
        }
        BusFact::Progress { code } if code == "request" => telling.tell(IngestFact::Connected),
        BusFact::Progress { .. } => {}
    }
}

fn classify(text: String) -> IngestError {
    let says = |known: &str| text.contains(known);
    if says(texts::NOT_FOUND) || says(texts::NO_SESSION) {
        IngestError::NotFound(text)
    } else if says(texts::UNAUTHORIZED) {
        IngestError::Denied(text)
    } else if says(texts::NOT_NEGOTIATED) || says(texts::NO_DECODER) {
        IngestError::Unsuitable(format!("the input's media cannot be used: {text}"))
    } else {
        IngestError::Broken(text)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Whatever happens first: GStreamer's threads decide that.
    #[test]
    fn a_connection_that_is_gone_ends_behind_what_it_brought() {
        let error = |text: &str| BusFact::Error {
            kind: "resource",
            text: text.to_owned(),
        };
        let warning = |text: &str| BusFact::Warning {
            text: text.to_owned(),
        };
        let read = "Could not read from resource. (Could not receive message. (End-of-file))";
        let write = "Could not write to resource. (Could not send message. (Broken pipe))";
        let closed = "Could not read from resource. (The server closed the connection.)";
        let short = "Could not read from resource. (Short message received, ignoring.)";
        let stopped = "Internal data stream error: streaming stopped, reason error (-5)";
        for (facts, chains, failed) in [
            (vec![error(read), error(stopped)], 2, true),
            (vec![error(write)], 2, true),
            // One was linked when the end came, the other was not.
            (vec![BusFact::Eos], 1, false),
            (vec![warning(closed)], 0, false),
            (vec![warning(closed), BusFact::Eos], 2, false),
            (vec![warning(short), error(write)], 2, true),
        ] {
            let (sender, mut told) = tokio::sync::mpsc::channel(8);
            let telling = Telling::new(sender, 1);
            let about = format!("{facts:?}");
            for _ in 0..chains {
                telling.chain_begins();
            }
            let hear = |fact| hear(fact, "", &Offer::default(), &telling);
            facts.into_iter().for_each(hear);
            if chains > 0 {
                telling.tell(IngestFact::Connected);
            }
            for _ in 0..chains {
                telling.chain_ended();
            }
            drop(telling);
            let heard: Vec<_> = std::iter::from_fn(|| told.blocking_recv()).collect();
            assert_eq!(heard.len(), 1 + usize::from(chains > 0), "{about}");
            let (_, last) = heard.last().unwrap();
            let as_expected = match last {
                IngestFact::Failed { .. } => failed,
                IngestFact::Ended { .. } => !failed,
                _ => false,
            };
            assert!(as_expected, "{about}: {last:?}");
        }
    }

    /// What an input is taken for that has such media, for such elements.
    fn refused(caps: &str, elements: &str) -> IngestError {
        gst::init().unwrap();
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let source = format!("multifilesrc location={file} num-buffers=2 caps={caps}");
        let pipeline = gst::parse::launch(&format!("{source} ! {elements} ! fakesink")).unwrap();
        let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
        let (told, facts) = mpsc::channel();
        bus::watch(&pipeline, &MediaUrl::new("rtsp://h/cam"), move |fact| {
            let _ = told.send(fact);
        });
        // It may fail at once or later; the bus tells in either case.
        let _ = pipeline.set_state(gst::State::Playing);
        let end = Instant::now() + Duration::from_secs(10);
        let error = loop {
            let left = end.saturating_duration_since(Instant::now());
            let fact = facts.recv_timeout(left).expect("an error within 10 s");
            if let BusFact::Error { text, .. } = fact {
                break classify(text);
            }
        };
        pipeline.set_state(gst::State::Null).unwrap();
        error
    }

    #[test]
    fn media_that_nothing_here_can_use_is_told_from_a_broken_connection() {
        for (caps, elements, text) in [
            (
                "audio/x-raw",
                "input-selector ! h264parse",
                texts::NOT_NEGOTIATED,
            ),
            ("audio/x-of-nobody", "decodebin", texts::NO_DECODER),
        ] {
            let error = refused(caps, elements);
            assert!(matches!(&error, IngestError::Unsuitable(_)), "{error:?}");
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
