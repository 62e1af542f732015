//! What a link sends: one message at a time, in order, as fast as the peer takes it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::config::StsClientConfig;
use super::frames;
use super::outgoing::LinkOrder;

/// Orders that may wait to be sent, by number and by bytes.
const MAX_WAITING: usize = 256;
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;
/// Audio of this size, unanswered before the peer goes, is named as a possible cause.
const LARGE: usize = 8 * 1024;
const BLAME: Duration = Duration::from_secs(5);

struct Sending {
    what: &'static str,
    bytes: Vec<u8>,
    sent: usize,
    /// Size of the audio message it is.
    audio: Option<usize>,
}

/// What waits to be sent and what is being sent.
pub(super) struct Outbox {
    config: Arc<StsClientConfig>,
    waiting: VecDeque<LinkOrder>,
    waiting_bytes: usize,
    /// Answers to the last pings; older ones are superseded.
    pongs: [Option<Vec<u8>>; 2],
    current: Option<Sending>,
    /// When the peer took something, or was first offered it.
    progress: Instant,
    said_goodbye: bool,
    /// Size of the last audio message, and when it had left; `None` once the peer has answered.
    last: Option<(usize, Option<Instant>)>,
}

impl Outbox {
    pub(super) fn new(config: Arc<StsClientConfig>) -> Self {
        Self {
            config,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            pongs: [None, None],
            current: None,
            progress: Instant::now(),
            said_goodbye: false,
            last: None,
        }
    }

    pub(super) fn push(&mut self, order: LinkOrder) -> Result<(), String> {
        self.waiting_bytes += order.weight();
        self.waiting.push_back(order);
        if self.waiting.len() > MAX_WAITING || self.waiting_bytes > MAX_WAITING_BYTES {
            return Err("more messages than the service takes".to_owned());
        }
        Ok(())
    }

    pub(super) fn pong_packet(&mut self, payload: &str) {
        // Servers ping without a payload; a long one is none.
        let payload = payload.get(..payload.len().min(64)).unwrap_or_default();
        self.pongs[0] = Some(frames::text(&format!("3{payload}")));
    }

    pub(super) fn pong_frame(&mut self, payload: &[u8]) {
        self.pongs[1] = Some(frames::pong(payload));
    }

    /// Starts the next message unless one is on its way; pongs go first. With `closing` the goodbye
    /// comes last. `true` when that is said and nothing is left.
    pub(super) fn start_next(&mut self, closing: bool) -> bool {
        if self.current.is_some() {
            return false;
        }
        let pong = self.pongs.iter_mut().find_map(Option::take);
        let next = pong.map(|bytes| ("pong", bytes, None)).or_else(|| {
            while let Some(order) = self.waiting.pop_front() {
                self.waiting_bytes -= order.weight();
                if let Some(message) = order.into_message(&self.config) {
                    let audio = message.fragment.then_some(message.text.len());
                    return Some((message.event, frames::text(&message.text), audio));
                }
            }
            (closing && !self.said_goodbye).then(|| {
                self.said_goodbye = true;
                let bytes = [frames::text("41"), frames::text("1"), frames::close()].concat();
                ("goodbye", bytes, None)
            })
        });
        let Some((what, bytes, audio)) = next else {
            return closing;
        };
        // It stays in mind behind the small ones that follow it.
        if let Some(len) = audio.filter(|len| *len >= LARGE) {
            self.last = Some((len, None));
        }
        self.progress = Instant::now();
        self.current = Some(Sending {
            what,
            bytes,
            sent: 0,
            audio,
        });
        false
    }

    /// What is to be written now.
    pub(super) fn rest(&self) -> &[u8] {
        self.current
            .as_ref()
            .map_or(&[], |current| &current.bytes[current.sent..])
    }

    /// The peer took `len` bytes of it.
    pub(super) fn written(&mut self, len: usize) {
        self.progress = Instant::now();
        let Some(current) = &mut self.current else {
            return;
        };
        current.sent += len;
        if current.sent == current.bytes.len() {
            if let (Some(_), Some((_, left))) = (current.audio, &mut self.last) {
                *left = Some(self.progress);
            }
            self.current = None;
        }
    }

    /// When a peer that takes nothing counts as gone.
    pub(super) fn stuck_at(&self) -> Option<Instant> {
        let current = self.current.as_ref();
        current.map(|_| self.progress + self.config.stuck_timeout)
    }

    /// What to say of it then.
    pub(super) fn stuck(&self) -> String {
        let (what, len) = self.current.as_ref().map_or(("nothing", 0), |current| {
            (current.what, current.bytes.len())
        });
        format!(
            "the service took nothing for {} ms ({what} of {len} bytes)",
            self.config.stuck_timeout.as_millis()
        )
    }

    /// The peer is alive and well after the last audio.
    pub(super) fn answered(&mut self) {
        if self.last.is_some_and(|(_, left)| left.is_some()) {
            self.last = None;
        }
    }

    /// Size of a message that may be why the peer has gone: servers drop a peer over their limit,
    /// most of them without saying why (python-socketio's default is 1 MB).
    pub(super) fn blame(&self, now: Instant) -> Option<usize> {
        let (bytes, left) = self.last?;
        left.is_none_or(|left| now.duration_since(left) < BLAME)
            .then_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OutgoingFragment;

    fn outbox() -> Outbox {
        Outbox::new(Arc::new(StsClientConfig::new("http://h", "s", "w")))
    }

    #[test]
    fn what_was_sent_makes_room() {
        let mut outbox = outbox();
        outbox.push(LinkOrder::Applied("x".to_owned())).unwrap();
        assert!(!outbox.start_next(false));
        assert_eq!(outbox.waiting_bytes, 0);
        outbox.written(outbox.rest().len());
        assert!(outbox.rest().is_empty());
        for n in 0..=MAX_WAITING {
            let pushed = outbox.push(LinkOrder::End(String::new()));
            assert_eq!(pushed.is_ok(), n < MAX_WAITING, "{n}");
        }
    }

    fn fragment(id: &str, bytes: usize) -> LinkOrder {
        LinkOrder::Fragment(OutgoingFragment {
            id: id.to_owned(),
            sequence: 0,
            pts_ns: 0,
            source_pts_ns: 0,
            duration_ms: 6_000,
            sample_rate: 48_000,
            channels: 2,
            m4a: vec![0; bytes].into(),
        })
    }

    #[test]
    fn audio_that_waits_is_bounded_by_its_bytes() {
        let empty = fragment("", 0).weight();
        for (last, fits) in [(0, true), (1, false)] {
            let mut outbox = outbox();
            let quarter = (16 << 20) - empty;
            for _ in 0..3 {
                outbox.push(fragment("", quarter)).unwrap();
            }
            let pushed = outbox.push(fragment("", quarter + last));
            assert_eq!(pushed.is_ok(), fits, "64 MiB and {last}");
        }
    }

    #[test]
    fn audio_of_8_kib_that_left_less_than_5_s_ago_may_be_why_the_peer_has_gone() {
        let text = |order: LinkOrder| order.into_message(&outbox().config).unwrap().text;
        // 7200 in base64, and the id makes up for the rest.
        let padding = 8_191 - text(fragment("", 5_400)).len();
        for (more, blamed) in [(0, None), (1, Some(8_192))] {
            let mut outbox = outbox();
            let id = "x".repeat(padding + more);
            outbox.push(fragment(&id, 5_400)).unwrap();
            outbox.start_next(false);
            assert_eq!(outbox.blame(Instant::now()), blamed, "on its way");
            outbox.written(outbox.rest().len());
            let left = outbox.progress;
            for (ms, blamed) in [(0, blamed), (4_999, blamed), (5_000, None)] {
                let now = left + Duration::from_millis(ms);
                assert_eq!(outbox.blame(now), blamed, "{ms} ms after it has left");
            }
        }
    }
}
