//! Who sends to whom: streams by path, each with its publisher's tracks and its readers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::mpsc;

use super::{
    sdp::Description,
    timing::{Position, Timing, positions},
};

/// Packets that may wait for one reader. About 20 s of the fixture; a reader that is further behind
/// is disconnected, because leaving packets out would not be verbatim.
pub(super) const READER_QUEUE: usize = 4096;

/// An interleaved frame, ready for the wire.
pub(super) type Frame = Arc<[u8]>;

/// All streams of the relay.
#[derive(Debug, Default)]
pub(super) struct Hub {
    streams: Mutex<BTreeMap<String, Arc<Stream>>>,
}

/// One published path.
#[derive(Debug)]
pub(super) struct Stream {
    pub path: String,
    pub description: Description,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    recording: bool,
    bytes: u64,
    timing: Vec<Timing>,
    readers: BTreeMap<u64, Reader>,
}

#[derive(Debug)]
struct Reader {
    queue: mpsc::Sender<Frame>,
    /// First interleaved channel (RTP; RTCP is the next) per track, if the reader set it up.
    channels: Vec<Option<u8>>,
}

/// Which half of a track's channel pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    Rtp,
    Rtcp,
}

/// What the status API tells of a stream.
#[derive(Debug)]
pub(super) struct Summary {
    pub path: String,
    pub recording: bool,
    pub codecs: Vec<String>,
    pub bytes: u64,
    pub readers: Vec<u64>,
}

impl Hub {
    /// Reserves `path` for a publisher; `None` if it has one.
    pub(super) fn publish(&self, path: &str, description: Description) -> Option<Arc<Stream>> {
        let mut streams = self.streams();
        if streams.contains_key(path) {
            return None;
        }
        let timing = vec![Timing::default(); description.tracks.len()];
        let stream = Arc::new(Stream {
            path: path.to_owned(),
            description,
            state: Mutex::new(State {
                timing,
                ..State::default()
            }),
        });
        streams.insert(path.to_owned(), Arc::clone(&stream));
        Some(stream)
    }

    /// The stream that can be read at `path`: its publisher has said RECORD.
    pub(super) fn readable(&self, path: &str) -> Option<Arc<Stream>> {
        self.streams()
            .get(path)
            .filter(|stream| stream.state().recording)
            .cloned()
    }

    /// Ends a stream: the path is free again, readers get what is queued and are disconnected.
    pub(super) fn end(&self, stream: &Arc<Stream>) {
        let mut streams = self.streams();
        if streams
            .get(&stream.path)
            .is_some_and(|known| Arc::ptr_eq(known, stream))
        {
            streams.remove(&stream.path);
        }
        drop(streams);
        let mut state = stream.state();
        state.recording = false;
        // Dropping the senders is what ends the readers' connections.
        state.readers.clear();
    }

    /// Every stream, for the status API.
    pub(super) fn summaries(&self) -> Vec<Summary> {
        self.streams()
            .values()
            .map(|stream| stream.summary())
            .collect()
    }

    fn streams(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Stream>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// The publisher has said RECORD: readers may come.
    pub(super) fn start(&self) {
        self.state().recording = true;
    }

    /// Adds a reader. What it gets next and the positions returned belong to the same instant;
    /// `None` if the publisher ended meanwhile.
    pub(super) fn attach(
        &self,
        id: u64,
        channels: Vec<Option<u8>>,
    ) -> Option<(mpsc::Receiver<Frame>, Vec<Option<Position>>)> {
        let mut state = self.state();
        if !state.recording {
            return None;
        }
        let (queue, frames) = mpsc::channel(READER_QUEUE);
        state.readers.insert(id, Reader { queue, channels });
        let rates = self.description.tracks.iter().map(|track| track.clock_rate);
        let tracks: Vec<_> = state.timing.iter().copied().zip(rates).collect();
        Some((frames, positions(&tracks)))
    }

    /// Removes a reader.
    pub(super) fn detach(&self, id: u64) {
        self.state().readers.remove(&id);
    }

    /// Forwards one packet of the publisher to every reader of its track.
    pub(super) fn forward(&self, track: usize, half: Half, payload: &[u8]) {
        let mut state = self.state();
        if !state.recording {
            return;
        }
        state.bytes += payload.len() as u64;
        if let Some(timing) = state.timing.get_mut(track) {
            match half {
                Half::Rtp => timing.on_rtp(payload),
                Half::Rtcp => timing.on_rtcp(payload),
            }
        }
        state.readers.retain(|id, reader| {
            let Some(Some(first)) = reader.channels.get(track) else {
                return true;
            };
            let channel = first.wrapping_add(u8::from(half == Half::Rtcp));
            let fits = reader.queue.try_send(frame(channel, payload)).is_ok();
            if !fits && !reader.queue.is_closed() {
                tracing::warn!(id, path = self.path, "reader is too slow, disconnecting it");
            }
            fits
        });
    }

    fn summary(&self) -> Summary {
        let state = self.state();
        Summary {
            path: self.path.clone(),
            recording: state.recording,
            codecs: self
                .description
                .tracks
                .iter()
                .map(|track| track.codec.clone())
                .collect(),
            bytes: state.bytes,
            readers: state.readers.keys().copied().collect(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An interleaved frame: `$`, channel, length, payload. The payload came out of such a frame, so its
/// length fits.
fn frame(channel: u8, payload: &[u8]) -> Frame {
    let mut bytes = Vec::with_capacity(4 + payload.len());
    bytes.extend([b'$', channel]);
    bytes.extend((payload.len() as u16).to_be_bytes());
    bytes.extend(payload);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description() -> Description {
        let sdp =
            b"v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\nm=audio 0 RTP/AVP 97\r\n";
        Description::parse(sdp).unwrap()
    }

    #[test]
    fn a_path_has_one_publisher_and_is_free_after_it() {
        let hub = Hub::default();
        let first = hub.publish("live/x", description()).unwrap();
        assert!(hub.publish("live/x", description()).is_none());
        assert!(hub.readable("live/x").is_none(), "announced only");
        first.start();
        assert!(hub.readable("live/x").is_some());
        hub.end(&first);
        assert!(hub.readable("live/x").is_none());
        let second = hub.publish("live/x", description()).unwrap();
        second.start();
        hub.end(&first);
        assert!(
            hub.readable("live/x").is_some(),
            "an old publisher's end must not end the new one"
        );
    }

    #[test]
    fn packets_are_verbatim_on_the_readers_channels() {
        let hub = Hub::default();
        let stream = hub.publish("x", description()).unwrap();
        stream.start();
        let (mut both, _) = stream.attach(1, vec![Some(4), Some(0)]).unwrap();
        let (mut audio_only, _) = stream.attach(2, vec![None, Some(0)]).unwrap();
        stream.forward(0, Half::Rtp, b"video");
        stream.forward(1, Half::Rtcp, b"report");
        assert_eq!(&*both.try_recv().unwrap(), b"$\x04\0\x05video");
        assert_eq!(&*both.try_recv().unwrap(), b"$\x01\0\x06report");
        assert_eq!(&*audio_only.try_recv().unwrap(), b"$\x01\0\x06report");
        assert!(audio_only.try_recv().is_err());
    }

    #[test]
    fn the_end_leaves_what_is_queued_and_then_closes() {
        let hub = Hub::default();
        let stream = hub.publish("x", description()).unwrap();
        stream.start();
        let (mut frames, _) = stream.attach(1, vec![Some(0), None]).unwrap();
        stream.forward(0, Half::Rtp, b"last");
        hub.end(&stream);
        assert!(frames.try_recv().is_ok());
        assert_eq!(
            frames.try_recv(),
            Err(mpsc::error::TryRecvError::Disconnected)
        );
        assert!(stream.attach(2, vec![Some(0), None]).is_none());
    }

    #[test]
    fn a_reader_that_does_not_read_is_cut_off_and_the_others_are_not() {
        let hub = Hub::default();
        let stream = hub.publish("x", description()).unwrap();
        stream.start();
        let (mut stuck, _) = stream.attach(1, vec![Some(0), None]).unwrap();
        let (mut quick, _) = stream.attach(2, vec![Some(0), None]).unwrap();
        for _ in 0..=READER_QUEUE {
            stream.forward(0, Half::Rtp, b"p");
            assert!(quick.try_recv().is_ok());
        }
        assert_eq!(hub.summaries()[0].readers, [2]);
        let queued = std::iter::from_fn(|| stuck.try_recv().ok()).count();
        assert_eq!(queued, READER_QUEUE);
    }
}
