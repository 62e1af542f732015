//! The journal: one JSON line per event in either direction, never the audio.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sts_protocol::{
    ControlAck, Direction, JournalEntry, StsMessage, WorkerMessage, event as names,
};
use tokio::sync::watch;

/// How many entries are kept in memory for [`Journal::entries`]; a file keeps all.
const KEPT: usize = 100_000;

/// What was seen, in memory and, if asked for, in a file.
#[derive(Clone, Debug)]
pub struct Journal(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    started: Duration,
    inner: Mutex<Inner>,
    written: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    entries: VecDeque<JournalEntry>,
    file: Option<File>,
}

impl Journal {
    /// A journal that starts now and also goes to `file`, which is emptied first.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(file: Option<&Path>) -> io::Result<Self> {
        let file = file.map(File::create).transpose()?;
        let started = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Ok(Self(Arc::new(Shared {
            started,
            inner: Mutex::new(Inner {
                entries: VecDeque::new(),
                file,
            }),
            written: watch::Sender::new(0),
        })))
    }

    /// Adds one line; its `time_ms` is set from its `at_ms`.
    pub(crate) fn write(&self, mut entry: JournalEntry) {
        entry.time_ms = self.0.started.as_secs_f64() * 1_000.0 + entry.at_ms;
        let mut inner = self.lock();
        if let Some(file) = &mut inner.file
            && let Err(error) = write_line(file, &entry)
        {
            tracing::error!(event = "journal_failed", %error, "the journal file is given up");
            inner.file = None;
        }
        if inner.entries.len() == KEPT {
            inner.entries.pop_front();
        }
        inner.entries.push_back(entry);
        drop(inner);
        self.0.written.send_modify(|count| *count += 1);
    }

    /// Everything so far, oldest first; at most the last 100,000.
    pub fn entries(&self) -> Vec<JournalEntry> {
        self.lock().entries.iter().cloned().collect()
    }

    /// Waits until `found` says yes to the entries so far.
    ///
    /// # Errors
    /// With the entries there are when `within` has passed.
    pub async fn wait_for(
        &self,
        within: Duration,
        mut found: impl FnMut(&[JournalEntry]) -> bool,
    ) -> Result<Vec<JournalEntry>, Vec<JournalEntry>> {
        let mut written = self.0.written.subscribe();
        let search = async {
            loop {
                written.borrow_and_update();
                let entries = self.entries();
                if found(&entries) {
                    return entries;
                }
                if written.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(within, search)
            .await
            .map_err(|_| self.entries())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_line(file: &mut File, entry: &JournalEntry) -> io::Result<()> {
    let mut line = serde_json::to_vec(entry)?;
    line.push(b'\n');
    // One write per line: a reader never sees half of one.
    file.write_all(&line)
}

/// The entry of a message a worker sent.
pub(crate) fn received(message: &WorkerMessage) -> JournalEntry {
    let mut entry = JournalEntry {
        direction: Direction::In,
        event: message.event().to_owned(),
        ..JournalEntry::default()
    };
    match message {
        WorkerMessage::Init(init) => {
            entry.stream_id = Some(init.stream_id.clone());
            entry.duration_ms = Some(u64::from(init.config.chunk_duration_ms));
            entry.detail = Some(format!(
                "worker {}, max_inflight {}, timeout {} ms",
                init.worker_id, init.max_inflight, init.timeout_ms
            ));
        }
        WorkerMessage::Data(data) => {
            entry.stream_id = Some(data.stream_id.clone());
            entry.sequence = Some(data.sequence_number);
            entry.fragment_id = Some(data.fragment_id.clone());
            entry.bytes = Some(data.audio.data_base64.len() as u64);
            entry.duration_ms = Some(data.audio.duration_ms);
            entry.detail = Some(data.audio.format.clone());
        }
        WorkerMessage::Ack(ack) => {
            entry.fragment_id = Some(ack.fragment_id.clone());
            entry.status = text(&ack.status);
        }
        WorkerMessage::Pause(signal)
        | WorkerMessage::Resume(signal)
        | WorkerMessage::End(signal) => {
            entry.stream_id = Some(signal.stream_id.clone());
            entry.detail.clone_from(&signal.reason);
        }
    }
    entry
}

/// The entry of a message sent to a worker.
pub(crate) fn sent(message: &StsMessage) -> JournalEntry {
    let mut entry = JournalEntry {
        direction: Direction::Out,
        event: message.event().to_owned(),
        ..JournalEntry::default()
    };
    match message {
        StsMessage::Ready(ready) => {
            entry.stream_id = Some(ready.stream_id.clone());
            entry.detail = Some(format!("max_inflight {}", ready.max_inflight));
        }
        StsMessage::Ack(ack) => {
            entry.fragment_id = Some(ack.fragment_id.clone());
            entry.status = text(&ack.status);
        }
        StsMessage::Processed(processed) => {
            entry.stream_id = Some(processed.stream_id.clone());
            entry.sequence = Some(processed.sequence_number);
            entry.fragment_id = Some(processed.fragment_id.clone());
            entry.status = text(&processed.status);
            entry.detail = Some(format!("after {} ms", processed.processing_time_ms));
            if let Some(error) = &processed.error {
                entry.code = Some(error.code.to_string());
                entry.detail = Some(error.message.clone());
            }
            if let Some(audio) = &processed.dubbed_audio {
                entry.bytes = Some(audio.data_base64.len() as u64);
                entry.duration_ms = Some(audio.duration_ms);
            }
        }
        StsMessage::Complete(complete) => {
            let s = &complete.statistics;
            entry.stream_id = Some(complete.stream_id.clone());
            entry.duration_ms = Some(complete.total_duration_ms);
            entry.detail = Some(format!(
                "{} fragments, {} success, {} failed",
                complete.total_fragments, s.success_count, s.failed_count
            ));
        }
        StsMessage::Backpressure(load) => {
            entry.stream_id = Some(load.stream_id.clone());
            entry.action = text(&load.action);
            entry.detail = Some(format!("{} in flight", load.current_inflight));
        }
        StsMessage::Error(error) => {
            entry.stream_id.clone_from(&error.stream_id);
            entry.fragment_id.clone_from(&error.fragment_id);
            entry.code = Some(error.code.to_string());
            entry.detail = Some(error.message.clone());
        }
    }
    entry
}

pub(crate) fn answered(event: &str, ack: &ControlAck) -> JournalEntry {
    JournalEntry {
        direction: Direction::Out,
        event: names::ack_of(event),
        status: text(&ack.status),
        detail: ack.message.clone(),
        ..JournalEntry::default()
    }
}

/// The name an enum value has on the wire.
fn text(value: &impl serde::Serialize) -> Option<String> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use sts_protocol::{Audio, FragmentData};

    use super::*;

    #[test]
    fn a_line_has_what_is_known_and_never_the_audio() {
        let message = WorkerMessage::Data(Box::new(FragmentData {
            fragment_id: "the-id".to_owned(),
            stream_id: "s".to_owned(),
            sequence_number: 4,
            timestamp: 1,
            audio: Audio {
                format: "m4a".to_owned(),
                sample_rate_hz: 48_000,
                channels: 2,
                duration_ms: 6_016,
                data_base64: "SECRETSOUND".to_owned(),
            },
            metadata: None,
        }));
        let line = serde_json::to_string(&received(&message)).unwrap();
        assert_eq!(
            line,
            r#"{"time_ms":0.0,"at_ms":0.0,"direction":"in","event":"fragment:data","stream_id":"s","sequence":4,"fragment_id":"the-id","bytes":11,"duration_ms":6016,"detail":"m4a"}"#
        );
    }

    #[tokio::test]
    async fn the_file_has_every_line_as_soon_as_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let journal = Journal::create(Some(&path)).unwrap();
        for n in 0..3 {
            journal.write(JournalEntry {
                at_ms: f64::from(n),
                event: "connect".to_owned(),
                ..JournalEntry::default()
            });
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<JournalEntry> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines, journal.entries());
        let steps: Vec<f64> = lines
            .iter()
            .map(|line| line.time_ms - lines[0].time_ms)
            .collect();
        assert_eq!(steps.len(), 3);
        assert!(
            (steps[2] - 2.0).abs() < 0.001,
            "wall time follows at_ms: {steps:?}"
        );
    }

    #[test]
    fn a_time_is_read_as_it_was_written() {
        // The shortest digits of a wall time that a fast reader takes for the one below.
        let written = 1_795_704_396_533.455_3_f64;
        let text = serde_json::to_string(&written).unwrap();
        assert_eq!(serde_json::from_str::<f64>(&text).unwrap(), written);
    }

    #[tokio::test]
    async fn waiting_ends_when_it_is_found_or_when_time_is_up() {
        let journal = Journal::create(None).unwrap();
        let wait = |within| journal.wait_for(within, |entries| !entries.is_empty());
        assert_eq!(wait(Duration::from_millis(10)).await, Err(Vec::new()));
        let (found, ()) = tokio::join!(wait(Duration::from_secs(10)), async {
            journal.write(JournalEntry::default());
        });
        assert_eq!(found.unwrap().len(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_created_is_an_error() {
        assert!(Journal::create(Some(Path::new("/nowhere/journal.jsonl"))).is_err());
    }
}
