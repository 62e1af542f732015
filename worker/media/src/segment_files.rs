//! Segments on disk, beside the live path: a thread of its own, a bounded queue, and
//! whatever does not fit is counted instead of waited for.

use std::collections::VecDeque;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use gst::prelude::*;

use super::AccessUnit;
use super::element::{Element, cast, make};
use super::error::MediaError;

/// Segments that may wait for the disk: half a minute of stream.
const QUEUE: usize = 16;
/// Directories of other streams that are looked through at a time, and files that are in each: the live
/// stream's next file waits for it.
const AT_ONCE: usize = 8;
const FILES_AT_ONCE: usize = 500;

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

/// What is to be told about files.
#[derive(Debug, PartialEq, Eq)]
pub enum FileFact {
    /// Files could not be written.
    Failed {
        /// The segment of the first of them.
        batch: u64,
        /// How many.
        count: u64,
        /// What the disk said.
        reason: String,
        /// It was well before this.
        first: bool,
    },
    /// The disk takes files again.
    Back {
        /// How many could not be written meanwhile.
        missed: u64,
    },
    /// Another run writes this stream's files, so this one has a directory of its own.
    DirBusy {
        /// That directory.
        dir: String,
    },
}

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("{}: {error}", path.display())]
    Disk {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("{}: belongs to somebody else", .0.display())]
    Foreign(PathBuf),
    #[error("{}: {error}", path.display())]
    Mp4 { path: PathBuf, error: MediaError },
}

impl FileError {
    fn at(path: &Path) -> impl Fn(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |error| Self::Disk {
            path: path.clone(),
            error,
        }
    }
}

/// Where segment files go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Directory of all streams.
    pub root: PathBuf,
    /// The root lies where everybody may write: it has to be this user's alone.
    pub private: bool,
    /// Name of the directory in it.
    pub stream_id: String,
    /// How long files stay.
    pub retention: Duration,
}

/// Writes segment files. Dropping it waits until the queue is written, at most
/// [`SegmentFiles::LAST_WORDS`].
pub struct SegmentFiles {
    queue: Option<SyncSender<SegmentFile>>,
    done: mpsc::Receiver<()>,
    tally: Arc<Mutex<Tally>>,
}

impl SegmentFiles {
    /// How long the end of the worker waits for the disk.
    pub const LAST_WORDS: Duration = Duration::from_secs(2);
    /// The longest that any stream's files may be kept; what other streams have set is not known here.
    pub const LONGEST_RETENTION: Duration = Duration::from_hours(7 * 24);

    /// Starts writing. Files of earlier runs are moved aside and go when they are old.
    pub fn start(place: Place) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::sync_channel::<SegmentFile>(QUEUE);
        let tally = Arc::<Mutex<Tally>>::default();
        let (finished, done) = mpsc::sync_channel(1);
        let shared = Arc::clone(&tally);
        std::thread::Builder::new()
            .name("segment-files".to_owned())
            .spawn(move || {
                let mut writer = FileWriter::new(place);
                for job in jobs {
                    let batch = job.batch();
                    let result =
                        writer.write(job, |dir| lock(&shared).told(FileFact::DirBusy { dir }));
                    match result {
                        Ok(()) => lock(&shared).written(),
                        Err(error) => lock(&shared).failed(batch, error.to_string()),
                    }
                }
                let _ = finished.try_send(());
            })?;
        Ok(Self {
            queue: Some(queue),
            done,
            tally,
        })
    }

    /// Queues a file; never blocks.
    pub fn write(&self, file: SegmentFile) {
        let batch = file.batch();
        let reason = match self.queue.as_ref().map(|queue| queue.try_send(file)) {
            Some(Ok(())) | None => return,
            Some(Err(TrySendError::Full(_))) => "the disk does not keep up",
            Some(Err(TrySendError::Disconnected(_))) => "the writer has stopped",
        };
        lock(&self.tally).failed(batch, reason.to_owned());
    }

    /// Something to tell, if there is any.
    pub fn poll(&self) -> Option<FileFact> {
        lock(&self.tally).facts.pop_front()
    }
}

impl Drop for SegmentFiles {
    fn drop(&mut self) {
        drop(self.queue.take());
        let _ = self.done.recv_timeout(Self::LAST_WORDS);
    }
}

fn lock(tally: &Mutex<Tally>) -> std::sync::MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells a trouble once and counts what follows.
#[derive(Debug, Default)]
struct Tally {
    missed: u64,
    facts: VecDeque<FileFact>,
}

impl Tally {
    fn failed(&mut self, batch: u64, reason: String) {
        self.missed += 1;
        let first = self.missed == 1;
        if !first && let Some(FileFact::Failed { count, .. }) = self.facts.back_mut() {
            *count += 1;
            return;
        }
        self.told(FileFact::Failed {
            batch,
            count: 1,
            reason,
            first,
        });
    }

    fn written(&mut self) {
        let missed = std::mem::take(&mut self.missed);
        if missed > 0 {
            self.told(FileFact::Back { missed });
        }
    }

    /// A few per second at most, and polled every second.
    fn told(&mut self, fact: FileFact) {
        self.facts.push_back(fact);
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

struct FileWriter {
    place: Place,
    /// Where files go, once that is known; the directory stays locked as long as it is open.
    dir: Option<(PathBuf, fs::File)>,
    written: VecDeque<(Instant, PathBuf)>,
    /// When directories of earlier runs were last looked through.
    swept: Option<Instant>,
    /// Directories of other streams that are still to be looked through.
    others: Vec<PathBuf>,
}

impl FileWriter {
    fn new(place: Place) -> Self {
        Self {
            place,
            dir: None,
            written: VecDeque::new(),
            swept: None,
            others: Vec::new(),
        }
    }

    fn write(&mut self, file: SegmentFile, busy: impl FnOnce(String)) -> Result<(), FileError> {
        let dir = match &self.dir {
            Some((dir, _)) if dir.is_dir() => dir.clone(),
            _ => {
                let (dir, lock, alone) = open(&self.place)?;
                if !alone {
                    busy(dir.display().to_string());
                }
                self.dir = Some((dir.clone(), lock));
                dir
            }
        };
        self.expire();
        let path = dir.join(file.name());
        let temporary = path.with_extension("tmp");
        let result = match file {
            SegmentFile::Video { units, .. } => {
                write_mp4(&temporary, &units).map_err(|error| FileError::Mp4 {
                    path: path.clone(),
                    error,
                })
            }
            SegmentFile::Audio { m4a, .. } | SegmentFile::Dubbed { m4a, .. } => {
                fs::write(&temporary, m4a).map_err(FileError::at(&path))
            }
        };
        let result =
            result.and_then(|()| fs::rename(&temporary, &path).map_err(FileError::at(&path)));
        if result.is_err() {
            let _ = fs::remove_file(&temporary);
        } else {
            self.written.push_back((Instant::now(), path.clone()));
        }
        result
    }

    fn expire(&mut self) {
        let retention = self.place.retention;
        while let Some((_, path)) = self
            .written
            .pop_front_if(|(at, _)| at.elapsed() > retention)
        {
            let _ = fs::remove_file(path);
        }
        let pause = (retention / 10).clamp(Duration::from_secs(1), Duration::from_mins(1));
        if self.swept.is_none_or(|at| at.elapsed() > pause) {
            self.swept = Some(Instant::now());
            let own = self.dir.as_ref().map(|(dir, _)| dir.as_path());
            let dir = self.place.root.join(&self.place.stream_id);
            sweep(&dir, own, retention, usize::MAX);
            self.sweep_others();
        }
    }

    /// Streams that never come back have nobody else to tidy up after them.
    fn sweep_others(&mut self) {
        if self.others.is_empty() {
            let entries = fs::read_dir(&self.place.root).into_iter().flatten();
            let others = entries.flatten().filter(|entry| {
                let ours = entry.file_name() == *self.place.stream_id;
                !ours && entry.file_type().is_ok_and(|kind| kind.is_dir())
            });
            self.others = others.map(|entry| entry.path()).collect();
        }
        let left = self.others.len().saturating_sub(AT_ONCE);
        for other in self.others.drain(left..) {
            sweep_abandoned(&other);
        }
    }
}

/// The directory to write to, locked, and whether it is the stream's own one.
fn open(place: &Place) -> Result<(PathBuf, fs::File, bool), FileError> {
    let dir = place.root.join(&place.stream_id);
    let context = FileError::at(&dir);
    if place.private {
        private(&place.root)?;
    }
    fs::create_dir_all(&dir).map_err(&context)?;
    let lock = fs::File::open(&dir).map_err(&context)?;
    if matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock)) {
        // A predecessor that drains, or a second worker for the same stream.
        let own = dir.join(format!("run-{}-{}", now(), std::process::id()));
        fs::create_dir_all(&own).map_err(&context)?;
        let lock = fs::File::open(&own).map_err(&context)?;
        return Ok((own, lock, false));
    }
    set_aside(&dir).map_err(&context)?;
    Ok((dir, lock, true))
}

/// Makes `root` a directory of this user that nobody else can look into.
fn private(root: &Path) -> Result<(), FileError> {
    let context = FileError::at(root);
    match fs::DirBuilder::new().mode(0o700).create(root) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(context(error)),
        _ => {}
    }
    let found = fs::symlink_metadata(root).map_err(&context)?;
    if !found.is_dir() || found.uid() != nix::unistd::getuid().as_raw() {
        return Err(FileError::Foreign(root.to_owned()));
    }
    fs::set_permissions(root, fs::Permissions::from_mode(0o700)).map_err(&context)
}

/// Moves an earlier run's files into a directory of their own, so that no run's files are ever
/// among another's.
fn set_aside(dir: &Path) -> std::io::Result<()> {
    let earlier = dir.join(format!("earlier-{}", now()));
    for path in files_of(dir) {
        if has_extension(&path, "tmp") {
            fs::remove_file(path)?;
        } else if let Some(name) = path.file_name() {
            fs::create_dir_all(&earlier)?;
            fs::rename(&path, earlier.join(name))?;
        }
    }
    Ok(())
}

/// Removes what other runs have left in `dir` and is older than `retention`; looks at so many runs, and files
/// of each.
fn sweep(dir: &Path, own: Option<&Path>, retention: Duration, most: usize) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let runs = entries.map(|entry| entry.path());
    let runs = runs.filter(|path| is_run(path) && own != Some(path));
    for run in runs.take(most) {
        let was_old = is_older(&run, retention);
        remove_old(&run, retention, most);
        if was_old {
            // Fails where something is left.
            let _ = fs::remove_dir(&run);
        }
    }
}

/// Removes what no setting of another stream's can want any more from its directory, if nobody writes there.
fn sweep_abandoned(dir: &Path) {
    let retention = SegmentFiles::LONGEST_RETENTION;
    let mut files = files_of(dir).take(FILES_AT_ONCE);
    // A lock sends a worker that starts just then elsewhere, so it is taken for a reason only.
    if !is_older(dir, retention) && !files.any(|path| is_older(&path, retention)) {
        return;
    }
    let Ok(lock) = fs::File::open(dir) else {
        return;
    };
    if lock.try_lock().is_err() {
        return;
    }
    sweep(dir, None, retention, FILES_AT_ONCE);
    if remove_old(dir, retention, FILES_AT_ONCE) {
        let _ = fs::remove_dir(dir);
    }
}

/// Removes those of our files in a directory that are older, of so many; whether there were any.
fn remove_old(dir: &Path, age: Duration, most: usize) -> bool {
    let files = files_of(dir).take(most);
    let removed = files.filter(|path| is_older(path, age) && fs::remove_file(path).is_ok());
    removed.count() > 0
}

fn is_older(path: &Path, age: Duration) -> bool {
    let modified = fs::symlink_metadata(path).and_then(|found| found.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|it| it > age))
}

fn files_of(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| is_ours(path))
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

/// A directory of a run, as [`set_aside`] and [`open`] name them.
fn is_run(path: &Path) -> bool {
    let name = name(path);
    name.strip_prefix("earlier-").is_some_and(is_number)
        || name
            .strip_prefix("run-")
            .and_then(|rest| rest.split_once('-'))
            .is_some_and(|(at, process)| is_number(at) && is_number(process))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn name(path: &Path) -> &str {
    let name = path.file_name().and_then(|name| name.to_str());
    name.unwrap_or_default()
}

fn is_ours(path: &Path) -> bool {
    let (batch, rest) = name(path).split_once('_').unwrap_or_default();
    let kind = rest.split_once('.').unwrap_or_default();
    batch.len() >= 6
        && is_number(batch)
        && matches!(
            kind,
            ("video", "mp4" | "tmp") | ("audio" | "audio_dubbed", "m4a" | "tmp")
        )
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|e| e == extension)
}

fn write_mp4(path: &Path, units: &[(AccessUnit, i64, i64)]) -> Result<(), MediaError> {
    const PLACE: &str = "MP4 writer";
    const PATIENCE: Duration = Duration::from_secs(10);
    let failed = || MediaError::at::<gst::glib::BoolError>(PLACE);
    let Some((first, _, _)) = units.first() else {
        return Err(MediaError::at(PLACE)("no video in this segment"));
    };
    let pipeline = gst::Pipeline::new();
    let source = make(Element::Appsrc)?;
    source.set_property("caps", &first.caps);
    source.set_property_from_str("format", "time");
    source.set_property("max-bytes", 0_u64);
    let (mux, sink) = (make(Element::Mp4mux)?, make(Element::Filesink)?);
    sink.set_property("location", path.to_string_lossy().as_ref());
    pipeline
        .add_many([&source, &mux, &sink])
        .map_err(failed())?;
    source
        .link_pads(Some("src"), &mux, Some("video_%u"))
        .map_err(failed())?;
    mux.link(&sink).map_err(failed())?;
    let source: gst_app::AppSrc = cast(source)?;
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
    let awaited = [gst::MessageType::Eos, gst::MessageType::Error];
    let patience = gst::ClockTime::from_seconds(PATIENCE.as_secs());
    let message = pipeline
        .bus()
        .and_then(|bus| bus.timed_pop_filtered(patience, &awaited));
    let _ = pipeline.set_state(gst::State::Null);
    match message.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Eos(_)) => Ok(()),
        Some(gst::MessageView::Error(error)) => Err(MediaError::at(PLACE)(error.error())),
        _ => Err(MediaError::Silent {
            place: PLACE,
            patience: PATIENCE,
        }),
    }
}

#[cfg(test)]
mod tests;
