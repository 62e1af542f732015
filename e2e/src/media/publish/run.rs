//! Publishing in real time: announce, hold, send every packet at its moment, leave.

use std::io::Write;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use super::Media;
use super::address::{PublishError, RtspUrl};
use super::options::Options;
use super::rtsp::Connection;
use super::stream::Stream;
use crate::media::clip::Clip;
use crate::media::{rtcp, sdp};

/// How often the server hears from a publisher that holds its media.
const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// Something that happened while publishing.
#[derive(Debug)]
pub enum Cue {
    /// Start sending.
    Go,
    /// Whoever was to say `go` is gone.
    InputEnded,
    /// The server answered.
    Answer(Box<rtsp_types::Response<Vec<u8>>>),
    /// The server is gone; how, as the end of a sentence about it.
    Closed(String),
}

/// What was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Access units.
    pub video: u64,
    /// Audio frames.
    pub audio: u64,
}

/// Publishes a clip and tells on `output` how it goes, one line each:
/// `announced`, `first_packet <unix ms>`, `done video=<n> audio=<n>`.
///
/// With a `hold`, no media is sent before [`Cue::Go`] arrives on `cues`, and it is an error if it
/// does not arrive in that time. `notes` must feed `cues`. The clip must have passed
/// [`select`](super::select).
pub fn publish(
    clip: &Clip,
    url: &RtspUrl,
    options: &Options,
    hold: Option<Duration>,
    (notes, cues): (Sender<Cue>, Receiver<Cue>),
    output: &mut impl Write,
) -> Result<Summary, PublishError> {
    let tracks = usize::from(clip.video.is_some()) + usize::from(clip.audio.is_some());
    let mut connection = Connection::open(url, notes, cues)?;
    connection.record(&sdp::describe(clip), tracks)?;
    say(output, "announced");
    if let Some(limit) = hold {
        wait_for_go(&mut connection, limit)?;
    }

    let (start, unix_nanos) = (Instant::now(), rtcp::unix_nanos_now());
    let mut stream = Stream::new(clip, options, unix_nanos);
    let mut summary = Summary::default();
    let mut first = true;
    for outgoing in stream.by_ref() {
        pause(&mut connection, start, outgoing.at)?;
        if first {
            say(
                output,
                &format!("first_packet {:.3}", rtcp::unix_nanos_now() as f64 / 1e6),
            );
            first = false;
        }
        connection.send(outgoing.track, outgoing.frames == 0, &outgoing.packets)?;
        match outgoing.media {
            Media::Video => summary.video += outgoing.frames as u64,
            Media::Audio => summary.audio += outgoing.frames as u64,
        }
    }

    match options.stop_at.map(Duration::from_secs_f64) {
        Some(stop) if stop <= stream.end() => {
            pause(&mut connection, start, stop)?;
            drop(connection);
        }
        _ => {
            // What was sent last lasts: a live source leaves when it is over.
            pause(&mut connection, start, stream.end())?;
            if options.drop_at_end {
                drop(connection);
            } else {
                for farewell in stream.farewell() {
                    connection.send(farewell.track, true, &farewell.packets)?;
                }
                connection.tear_down();
            }
        }
    }
    say(
        output,
        &format!("done video={} audio={}", summary.video, summary.audio),
    );
    Ok(summary)
}

/// A reader that is gone is no reason to stop publishing.
fn say(output: &mut impl Write, line: &str) {
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
}

fn wait_for_go(connection: &mut Connection, limit: Duration) -> Result<(), PublishError> {
    let deadline = Instant::now() + limit;
    loop {
        match connection.wait(deadline.min(Instant::now() + KEEP_ALIVE)) {
            Some(Cue::Go) => return Ok(()),
            Some(Cue::InputEnded) => {
                return Err(PublishError::NotStarted(
                    "standard input ended before it said 'go' (--hold 0 starts at once)".into(),
                ));
            }
            Some(Cue::Closed(how)) => {
                return Err(connection.server(format!("{how} before any media was sent")));
            }
            Some(Cue::Answer(_)) => {}
            None if Instant::now() >= deadline => {
                return Err(PublishError::NotStarted(format!(
                    "nobody said 'go' on standard input within {} s",
                    limit.as_secs()
                )));
            }
            None => connection.keep_alive()?,
        }
    }
}

/// Sleeps until a moment of the stream, awake for a server that leaves.
fn pause(connection: &mut Connection, start: Instant, at: Duration) -> Result<(), PublishError> {
    let until = start + at;
    while Instant::now() < until {
        if let Some(Cue::Closed(how)) = connection.wait(until) {
            let sent = start.elapsed().as_secs_f64();
            return Err(connection.server(format!("{how} after {sent:.1} s of media")));
        }
    }
    Ok(())
}
