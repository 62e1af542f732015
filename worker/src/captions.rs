//! Captions of the dub: kept for a while for `GET /captions`, and written to `{dir}/{stream_id}.vtt`.
//!
//! The file is appended to as segments go out, so players may follow it; when half of it is older than
//! the retention it is written anew without that. A thread of its own writes: a slow or full disk holds
//! nothing up.

use std::collections::VecDeque;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dub_engine::captions::{Cue, VTT_HEADER, cues, vtt};

use crate::config::Config;
use crate::error::WorkerError;
use crate::observe::{Fact, Observer};

/// Cues that are kept, whatever the retention is.
const MOST_CUES: usize = 10_000;
/// Captions are no use without a few of them.
const LEAST_RETENTION: Duration = Duration::from_mins(1);
/// Segments whose captions may wait for the disk.
const QUEUE: usize = 64;

/// What a segment's answer said.
#[derive(Debug, Clone, Default)]
pub struct Words {
    /// In the language of the input.
    pub transcript: String,
    /// In the language of the dub.
    pub translated: String,
}

/// The captions of one stream; a handle, cheap to clone.
#[derive(Debug, Clone)]
pub struct Captions {
    state: Arc<Mutex<CaptionState>>,
    stream_id: Arc<str>,
}

#[derive(Debug)]
struct CaptionState {
    cues: VecDeque<Cue>,
    /// Of segments that are being mixed.
    promised: VecDeque<(u64, Vec<Cue>)>,
    retention: Duration,
    /// End of the first cue in the file.
    oldest_written: Option<Duration>,
    /// Something is missing in the file: the writer did not take it, or the disk.
    lost: Arc<AtomicBool>,
    writer: Option<CaptionWriter>,
}

#[derive(Debug)]
struct CaptionWriter {
    orders: SyncSender<Write>,
    done: mpsc::Receiver<()>,
}

enum Write {
    Append(String),
    Anew(String),
}

impl Captions {
    /// Captions that are written where `config` says, if it does. A disk that is full or read-only for now
    /// is told, and tried again with every segment.
    ///
    /// # Errors
    /// When the directory is one that only a person can put right.
    pub fn new(config: &Config, observer: &Observer) -> Result<Self, WorkerError> {
        let lost = Arc::new(AtomicBool::new(false));
        let writer = match &config.captions_dir {
            None => None,
            Some(dir) => {
                let path = dir.join(format!("{}.vtt", config.stream_id));
                if let Err(error) = replace(&path, VTT_HEADER) {
                    if is_for_a_person(error.kind()) {
                        return Err(WorkerError::Usage(format!(
                            "--captions {}: {error}; allowed: a directory that can be written",
                            path.display()
                        )));
                    }
                    lost.store(true, Ordering::Relaxed);
                    tell(observer, &path, &error);
                }
                let writer = CaptionWriter::start(path, observer.clone(), Arc::clone(&lost));
                let writer = writer.map_err(|error| {
                    WorkerError::Unexpected(format!("no thread for captions: {error}"))
                })?;
                Some(writer)
            }
        };
        let state = CaptionState {
            cues: VecDeque::new(),
            promised: VecDeque::new(),
            retention: config.segment_retention.max(LEAST_RETENTION),
            oldest_written: None,
            lost,
            writer,
        };
        Ok(Self {
            state: Arc::new(Mutex::new(state)),
            stream_id: config.stream_id.as_str().into(),
        })
    }

    /// A segment is going to be dubbed, to be heard from `start` to `end` of the output.
    pub fn promise(&self, batch: u64, start: Duration, end: Duration, words: &Words) {
        let new = cues(batch, start, end, &words.translated, &words.transcript);
        if !new.is_empty() {
            self.state().promised.push_back((batch, new));
        }
    }

    /// A segment lies in the output, with its dub or, after all, without.
    pub fn mixed(&self, batch: u64, dubbed: bool) {
        let mut state = self.state();
        while let Some((promised, cues)) = state.promised.pop_front_if(|(p, _)| *p <= batch) {
            if promised == batch && dubbed {
                state.add(cues);
            }
        }
    }

    /// The last cues as JSON.
    pub fn json(&self) -> String {
        let state = self.state();
        let cues: Vec<_> = state
            .cues
            .iter()
            .map(|cue| {
                serde_json::json!({
                    "batch": cue.batch,
                    "start": cue.start.as_secs_f64(),
                    "end": cue.end.as_secs_f64(),
                    "text": cue.text,
                    "transcript": cue.transcript,
                })
            })
            .collect();
        serde_json::json!({ "stream_id": &*self.stream_id, "cues": cues }).to_string()
    }

    /// The last cues as WebVTT.
    pub fn vtt(&self) -> String {
        self.state().document()
    }

    /// Waits a moment for the disk; nothing is written any more.
    pub fn close(&self) {
        let writer = self.state().writer.take();
        if let Some(CaptionWriter { orders, done }) = writer {
            drop(orders);
            // Ends when the writer has ended, or it is left behind.
            let _ = done.recv_timeout(Duration::from_secs(2));
        }
    }

    /// A panic elsewhere leaves it whole.
    fn state(&self) -> MutexGuard<'_, CaptionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CaptionState {
    fn add(&mut self, new: Vec<Cue>) {
        let now = new.last().map_or(Duration::ZERO, |cue| cue.end);
        let old = now.saturating_sub(self.retention);
        let text: String = new.iter().map(vtt).collect();
        let first = new.first().map(|cue| cue.end);
        self.cues.extend(new);
        while self.cues.len() > MOST_CUES || self.cues.front().is_some_and(|cue| cue.end < old) {
            self.cues.pop_front();
        }
        let outdated = now.saturating_sub(self.retention * 2);
        let lost = self.lost.swap(false, Ordering::Relaxed);
        let write = if lost || self.oldest_written.is_some_and(|oldest| oldest < outdated) {
            self.oldest_written = self.cues.front().map(|cue| cue.end);
            Write::Anew(self.document())
        } else {
            self.oldest_written = self.oldest_written.or(first);
            Write::Append(text)
        };
        if let Some(writer) = &self.writer {
            // If the disk does not keep up, the next that it takes is all there is.
            if writer.orders.try_send(write).is_err() {
                self.lost.store(true, Ordering::Relaxed);
            }
        }
    }

    fn document(&self) -> String {
        VTT_HEADER.to_owned() + &self.cues.iter().map(vtt).collect::<String>()
    }
}

impl CaptionWriter {
    fn start(path: PathBuf, observer: Observer, lost: Arc<AtomicBool>) -> std::io::Result<Self> {
        let (orders, queue) = mpsc::sync_channel::<Write>(QUEUE);
        let (finished, done) = mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name("captions".to_owned())
            .spawn(move || {
                let mut failed = lost.load(Ordering::Relaxed);
                for write in queue {
                    let result = match write {
                        Write::Append(text) => append(&path, &text),
                        Write::Anew(text) => replace(&path, &text),
                    };
                    let Err(error) = result else {
                        failed = false;
                        continue;
                    };
                    // The file was moved away, the disk is full: once is said, and all is tried again.
                    lost.store(true, Ordering::Relaxed);
                    if !std::mem::replace(&mut failed, true) {
                        tell(&observer, &path, &error);
                    }
                }
                let _ = finished.send(());
            })?;
        Ok(Self { orders, done })
    }
}

fn tell(observer: &Observer, path: &Path, error: &std::io::Error) {
    let error = &error.to_string();
    observer.fact(&Fact::CaptionsFailed { path, error });
}

/// What no disk gets over by itself.
fn is_for_a_person(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::AlreadyExists
            | ErrorKind::InvalidFilename
            | ErrorKind::InvalidInput
            | ErrorKind::IsADirectory
            | ErrorKind::NotADirectory
            | ErrorKind::NotFound
            | ErrorKind::PermissionDenied
    )
}

fn append(path: &Path, text: &str) -> std::io::Result<()> {
    fs::OpenOptions::new()
        .append(true)
        .open(path)?
        .write_all(text.as_bytes())
}

/// Whoever reads sees the old file or the new one.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    let part = path.with_extension("vtt.part");
    fs::write(&part, text)?;
    fs::rename(part, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use crate::observe::Status;
    use clap::Parser as _;
    use std::time::Instant;

    fn captions(dir: &Path) -> Captions {
        let args = [
            "worker",
            "--captions",
            dir.to_str().unwrap(),
            "--segment-retention",
            "1m",
        ];
        open(&args).unwrap()
    }

    fn open(args: &[&str]) -> Result<Captions, WorkerError> {
        let config = Config::from(&Cli::try_parse_from(args).unwrap());
        Captions::new(&config, &Observer::new(Status::default(), None))
    }

    fn say(captions: &Captions, batch: u64) {
        let words = Words {
            transcript: format!("said {batch}"),
            translated: format!("dicho {batch} & <b>."),
        };
        let at = Duration::from_secs(batch * 6);
        captions.promise(batch, at, at + Duration::from_secs(6), &words);
        captions.mixed(batch, true);
    }

    #[test]
    fn what_is_not_heard_is_not_shown() {
        let captions = open(&["worker"]).unwrap();
        let words = Words {
            translated: "dicho".to_owned(),
            ..Words::default()
        };
        let second = Duration::from_secs(1);
        for batch in 0..4 {
            captions.promise(
                batch,
                second * batch as u32,
                second * (batch as u32 + 1),
                &words,
            );
        }
        captions.mixed(0, true);
        assert_eq!(captions.vtt().matches("dicho").count(), 1, "only promised");
        captions.mixed(1, false);
        captions.mixed(3, true);
        let shown: Vec<_> = captions.state().cues.iter().map(|cue| cue.batch).collect();
        assert_eq!(shown, [0, 3]);
        assert!(captions.state().promised.is_empty());
    }

    #[test]
    fn what_a_slow_disk_did_not_take_is_written_with_the_next() {
        let captions = open(&["worker"]).unwrap();
        let (orders, queue) = mpsc::sync_channel(1);
        let (_done, done) = mpsc::channel();
        captions.state().writer = Some(CaptionWriter { orders, done });
        say(&captions, 0);
        say(&captions, 1);
        assert!(matches!(queue.try_recv(), Ok(Write::Append(_))));
        say(&captions, 2);
        let Ok(Write::Anew(text)) = queue.try_recv() else {
            panic!("what was lost stays lost");
        };
        assert_eq!(text.matches("dicho").count(), 3, "{text}");
        say(&captions, 3);
        assert!(matches!(queue.try_recv(), Ok(Write::Append(_))));
    }

    /// Waits until so many cues are in the file.
    fn written(file: &Path, cues: usize) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let found = || fs::read_to_string(file).map_or(0, |text| text.matches(" --> ").count());
        while found() != cues {
            assert!(Instant::now() < deadline, "{} instead of {cues}", found());
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_disk_that_is_full_at_the_start_is_no_reason_not_to_start() {
        let dir = tempfile::tempdir().unwrap();
        // Every write to it says that no space is left.
        let part = dir.path().join("stream.vtt.part");
        std::os::unix::fs::symlink("/dev/full", &part).unwrap();
        let captions = captions(dir.path());
        fs::remove_file(part).unwrap();
        say(&captions, 0);
        written(&dir.path().join("stream.vtt"), 1);
        for kind in [
            ErrorKind::QuotaExceeded,
            ErrorKind::ReadOnlyFilesystem,
            ErrorKind::StorageFull,
            ErrorKind::Other,
        ] {
            assert!(!is_for_a_person(kind), "{kind}");
        }
    }

    #[test]
    fn a_file_that_was_moved_away_or_not_written_is_whole_again_with_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("stream.vtt");
        let captions = captions(dir.path());
        let written = |cues| written(&file, cues);
        say(&captions, 0);
        written(1);
        fs::rename(&file, dir.path().join("rotated")).unwrap();
        say(&captions, 1);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !captions.state().lost.load(Ordering::Relaxed) {
            assert!(Instant::now() < deadline, "nobody noticed");
            std::thread::yield_now();
        }
        say(&captions, 2);
        written(3);
        say(&captions, 3);
        written(4);
    }

    #[test]
    fn cues_are_kept_as_long_as_segments_and_no_more_than_so_many() {
        // Ten minutes of 6 s.
        let captions = open(&["worker"]).unwrap();
        (0..120).for_each(|batch| say(&captions, batch));
        let kept = captions.state().cues.len();
        assert!((100..=102).contains(&kept), "{kept}");

        let captions = open(&["worker", "--segment-retention", "7d"]).unwrap();
        let most = MOST_CUES as u64;
        (0..most + 10).for_each(|batch| say(&captions, batch));
        assert_eq!(captions.state().cues.len(), MOST_CUES);
    }

    #[test]
    fn the_file_grows_with_the_stream_and_forgets_what_is_old() {
        let dir = tempfile::tempdir().unwrap();
        let captions = captions(dir.path());
        for batch in 0..60 {
            say(&captions, batch);
        }
        captions.close();
        let file = fs::read_to_string(dir.path().join("stream.vtt")).unwrap();
        assert!(file.starts_with("WEBVTT\n\n00:"), "{file}");
        let cues = file.matches(" --> ").count();
        assert!(
            (10..=22).contains(&cues),
            "1 to 2 minutes of cues, not {cues}"
        );
        assert!(file.ends_with("00:05:54.000 --> 00:06:00.000\ndicho 59 &amp; &lt;b&gt;.\n\n"));
        let json: serde_json::Value = serde_json::from_str(&captions.json()).unwrap();
        let last = json["cues"].as_array().unwrap().last().unwrap();
        assert_eq!(last["text"], "dicho 59 & <b>.");
        assert_eq!(
            (&last["start"], &last["transcript"]),
            (&354.0.into(), &"said 59".into())
        );
        assert!(captions.vtt().matches(" --> ").count() <= 12);
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_said_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let refused = open(&["worker", "--captions", file.to_str().unwrap()]);
        let refused = refused.unwrap_err();
        assert_eq!(refused.exit_code(), crate::exit::USAGE, "{refused}");
        assert!(refused.to_string().contains("file/stream.vtt"), "{refused}");
    }
}
