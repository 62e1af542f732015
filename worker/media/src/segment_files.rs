//! Segments on disk, beside the live path: a thread of its own, a bounded queue, and
//! whatever does not fit is counted instead of waited for.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::time::{Duration, Instant, SystemTime};

use gst::prelude::*;

use super::{AccessUnit, make};

/// Segments that may wait for the disk: half a minute of stream.
const QUEUE: usize = 16;

/// One file to write.
#[expect(missing_docs, reason = "the fields say what they are")]
pub enum SegmentFile {
    /// `{batch}_video.mp4`: access units with PTS and DTS in nanoseconds.
    Video {
        batch: u64,
        units: Vec<(AccessUnit, i64, i64)>,
    },
    /// `{batch}_audio.m4a`, complete.
    Audio { batch: u64, m4a: Vec<u8> },
    /// `{batch}_audio_dubbed.m4a`, complete.
    Dubbed { batch: u64, m4a: Vec<u8> },
}

/// What became of a file.
#[derive(Debug)]
pub struct SegmentFileFailed {
    /// Which segment's file is missing.
    pub batch: u64,
    /// What the disk said.
    pub reason: String,
}

/// Writes segment files. Dropping it waits until the queue is written, at most
/// [`SegmentFiles::LAST_WORDS`].
pub struct SegmentFiles {
    queue: Option<SyncSender<SegmentFile>>,
    done: mpsc::Receiver<()>,
    failures: mpsc::Receiver<SegmentFileFailed>,
}

impl SegmentFiles {
    /// How long the end of the worker waits for the disk.
    pub const LAST_WORDS: Duration = Duration::from_secs(2);

    /// Starts writing into `dir`, which is created; files older than `retention` go,
    /// including those of an earlier run.
    pub fn start(dir: PathBuf, retention: Duration) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::sync_channel::<SegmentFile>(QUEUE);
        let (failed, failures) = mpsc::sync_channel(QUEUE);
        let (finished, done) = mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name("segment-files".to_owned())
            .spawn(move || {
                let mut writer = Writer {
                    dir,
                    retention,
                    written: VecDeque::new(),
                };
                let started = writer.prepare();
                for job in jobs {
                    let batch = job.batch();
                    let result = match &started {
                        Ok(()) => writer.write(job),
                        Err(reason) => Err(reason.clone()),
                    };
                    if let Err(reason) = result {
                        // Full: the first failures say it all.
                        let _ = failed.try_send(SegmentFileFailed { batch, reason });
                    }
                    writer.expire();
                }
                let _ = finished.try_send(());
            })?;
        Ok(Self {
            queue: Some(queue),
            done,
            failures,
        })
    }

    /// Queues a file; never blocks.
    pub fn write(&self, file: SegmentFile) -> Result<(), SegmentFileFailed> {
        let batch = file.batch();
        let failed = |reason: &str| {
            Err(SegmentFileFailed {
                batch,
                reason: reason.to_owned(),
            })
        };
        match self.queue.as_ref().map(|queue| queue.try_send(file)) {
            Some(Ok(())) | None => Ok(()),
            Some(Err(TrySendError::Full(_))) => failed("the disk does not keep up"),
            Some(Err(TrySendError::Disconnected(_))) => failed("the writer has stopped"),
        }
    }

    /// A file that could not be written, if there is one.
    pub fn poll_failure(&self) -> Option<SegmentFileFailed> {
        self.failures.try_recv().ok()
    }
}

impl Drop for SegmentFiles {
    fn drop(&mut self) {
        drop(self.queue.take());
        let _ = self.done.recv_timeout(Self::LAST_WORDS);
    }
}

impl SegmentFile {
    fn batch(&self) -> u64 {
        match self {
            Self::Video { batch, .. } | Self::Audio { batch, .. } | Self::Dubbed { batch, .. } => {
                *batch
            }
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Video { batch, .. } => format!("{batch:06}_video.mp4"),
            Self::Audio { batch, .. } => format!("{batch:06}_audio.m4a"),
            Self::Dubbed { batch, .. } => format!("{batch:06}_audio_dubbed.m4a"),
        }
    }
}

struct Writer {
    dir: PathBuf,
    retention: Duration,
    written: VecDeque<(Instant, PathBuf)>,
}

impl Writer {
    fn prepare(&self) -> Result<(), String> {
        let context = |error: std::io::Error| format!("{}: {error}", self.dir.display());
        fs::create_dir_all(&self.dir).map_err(context)?;
        let now = SystemTime::now();
        for entry in fs::read_dir(&self.dir).map_err(context)?.flatten() {
            let path = entry.path();
            if !is_ours(&path) {
                continue;
            }
            let age = entry
                .metadata()
                .and_then(|m| m.modified())
                .ok()
                .and_then(|t| now.duration_since(t).ok());
            if has_extension(&path, "tmp") || age.is_some_and(|age| age > self.retention) {
                let _ = fs::remove_file(path);
            }
        }
        Ok(())
    }

    fn write(&mut self, file: SegmentFile) -> Result<(), String> {
        let path = self.dir.join(file.name());
        let temporary = path.with_extension("tmp");
        let result = match file {
            SegmentFile::Video { units, .. } => write_mp4(&temporary, &units),
            SegmentFile::Audio { m4a, .. } | SegmentFile::Dubbed { m4a, .. } => {
                fs::write(&temporary, m4a).map_err(|error| error.to_string())
            }
        };
        let result =
            result.and_then(|()| fs::rename(&temporary, &path).map_err(|error| error.to_string()));
        if result.is_err() {
            let _ = fs::remove_file(&temporary);
        } else {
            self.written.push_back((Instant::now(), path.clone()));
        }
        result.map_err(|reason| format!("{}: {reason}", path.display()))
    }

    fn expire(&mut self) {
        while self
            .written
            .front()
            .is_some_and(|(at, _)| at.elapsed() > self.retention)
        {
            if let Some((_, path)) = self.written.pop_front() {
                let _ = fs::remove_file(path);
            }
        }
    }
}

fn is_ours(path: &Path) -> bool {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let (batch, rest) = name.split_once('_').unwrap_or_default();
    batch.len() >= 6
        && batch.bytes().all(|b| b.is_ascii_digit())
        && (rest.starts_with("video.") || rest.starts_with("audio"))
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|e| e == extension)
}

fn write_mp4(path: &Path, units: &[(AccessUnit, i64, i64)]) -> Result<(), String> {
    let text = |error: gst::glib::BoolError| error.to_string();
    let Some((first, _, _)) = units.first() else {
        return Err("no video in this segment".to_owned());
    };
    let pipeline = gst::Pipeline::new();
    let source = make("appsrc")?;
    source.set_property("caps", &first.caps);
    source.set_property_from_str("format", "time");
    source.set_property("max-bytes", 0_u64);
    let (mux, sink) = (make("mp4mux")?, make("filesink")?);
    sink.set_property("location", path.to_string_lossy().as_ref());
    pipeline.add_many([&source, &mux, &sink]).map_err(text)?;
    source
        .link_pads(Some("src"), &mux, Some("video_%u"))
        .map_err(text)?;
    mux.link(&sink).map_err(text)?;
    let source: gst_app::AppSrc = source.downcast().map_err(|_| "appsrc is no AppSrc")?;
    // mp4mux wants increasing times from zero on.
    let origin = units.iter().map(|(_, _, dts)| *dts).min().unwrap_or(0);
    let last = units.len().saturating_sub(1);
    let frame = units.get(1).map_or(0, |(_, _, dts)| dts - units[0].2);
    for (i, (unit, pts, dts)) in units.iter().enumerate() {
        let mut buffer = unit.buffer.clone();
        let writable = buffer.make_mut();
        writable.set_pts(gst::ClockTime::from_nseconds((pts - origin).max(0) as u64));
        writable.set_dts(gst::ClockTime::from_nseconds((dts - origin).max(0) as u64));
        let duration = if i == last {
            frame
        } else {
            units[i + 1].2 - dts
        };
        writable.set_duration(gst::ClockTime::from_nseconds(duration.max(0) as u64));
        let _ = source.push_buffer(buffer);
    }
    let _ = source.end_of_stream();
    let _ = pipeline.set_state(gst::State::Playing);
    let bus = pipeline.bus().ok_or("no bus")?;
    let message = bus.timed_pop_filtered(
        gst::ClockTime::from_seconds(10),
        &[gst::MessageType::Eos, gst::MessageType::Error],
    );
    let _ = pipeline.set_state(gst::State::Null);
    match message.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Eos(_)) => Ok(()),
        Some(gst::MessageView::Error(error)) => Err(error.error().message().to_owned()),
        _ => Err("the disk did not finish within 10 s".to_owned()),
    }
}
