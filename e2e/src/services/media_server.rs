//! The media server of one environment: RTMP in, a recording of what was published; RTSP too if it can.
//!
//! Two kinds behind one handle. [`Kind::MediaMtx`] is the reference. [`Kind::Default`] is what a
//! package manager can give: nginx with its rtmp module, beside which the worker reads the camera itself.

mod mediamtx;
mod nginx;

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use super::{Place, STOP_GRACE, wait_answer};
use crate::{
    ports::{Lease, with_leases},
    process::Process,
    wait::{self, Look},
};
use anyhow::{Context as _, Result, bail, ensure};

pub use mediamtx::{BIN_ENV as MEDIAMTX_BIN_ENV, RtspSettings};

const CONFIGURATION: &str = "configuration";

/// RTMP, HTTP for questions, and RTSP, which nginx does not open.
type Ports = [u16; 3];

/// Which media server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// MediaMTX, one process for both halves.
    MediaMtx,
    /// nginx with its rtmp module.
    Default,
}

impl Kind {
    /// The kind that was asked for, else the reference if it is installed, else the default.
    ///
    /// # Errors
    /// When the kind that was asked for is not installed here; the message says how to get it.
    pub fn choose(asked: Option<Self>) -> Result<Self> {
        match asked {
            Some(Self::MediaMtx) => mediamtx::program().map(|_| Self::MediaMtx),
            Some(Self::Default) => nginx::program().map(|_| Self::Default),
            None if mediamtx::program().is_ok() => Ok(Self::MediaMtx),
            None => nginx::program().map(|_| Self::Default).with_context(|| {
                format!("no media server: neither MediaMTX ({MEDIAMTX_BIN_ENV}, PATH) nor nginx can be used")
            }),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MediaMtx => "mediamtx",
            Self::Default => "default",
        })
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "mediamtx" => Ok(Self::MediaMtx),
            "default" => Ok(Self::Default),
            other => bail!("media server {other:?} is not known, allowed: mediamtx, default"),
        }
    }
}

/// A running media server.
#[derive(Debug)]
pub struct MediaServer {
    kind: Kind,
    place: Place,
    process: Process,
    dir: PathBuf,
    leases: [Lease; 3],
    settings: RtspSettings,
}

impl MediaServer {
    /// Starts a media server that takes RTMP publishers at `rtmp_paths` (such as `live/test/out`);
    /// returns when it answers. MediaMTX also takes RTSP publishers anywhere, and brings what
    /// `settings` says.
    ///
    /// # Errors
    /// When it is not installed, does not start, or a path has no slash.
    pub fn start(
        kind: Kind,
        place: &Place,
        rtmp_paths: &[String],
        settings: &RtspSettings,
    ) -> Result<Self> {
        let dir = place.scratch.join(kind.to_string());
        std::fs::create_dir_all(&dir).context("cannot create the media server's directory")?;
        for path in rtmp_paths {
            app_and_stream(path)?;
        }
        let (leases, process) = with_leases(|ports| {
            let config = match kind {
                Kind::MediaMtx => mediamtx::config(&dir, rtmp_paths, settings, ports),
                Kind::Default => nginx::config(&dir, rtmp_paths, ports)?,
            };
            std::fs::write(dir.join(CONFIGURATION), config).context("cannot write a file")?;
            launch(kind, place, &dir, ports, settings)
        })?;
        Ok(Self {
            kind,
            place: place.clone(),
            process,
            dir,
            leases,
            settings: settings.clone(),
        })
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    fn ports(&self) -> Ports {
        self.leases.each_ref().map(Lease::port)
    }

    /// URL at which MediaMTX publishes `path` over RTSP.
    ///
    /// # Errors
    /// When the media server has no RTSP.
    pub fn rtsp_url(&self, path: &str) -> Result<String> {
        ensure!(self.kind == Kind::MediaMtx, "nginx has no RTSP");
        let [_, _, rtsp] = self.ports();
        Ok(format!("rtsp://127.0.0.1:{rtsp}/{path}"))
    }

    /// URL at which `path` is published and read over RTMP.
    pub fn rtmp_url(&self, path: &str) -> String {
        let [rtmp, ..] = self.ports();
        format!("rtmp://127.0.0.1:{rtmp}/{path}")
    }

    /// Number of readers of an RTSP path of MediaMTX that get what is published from now on; `None` if nobody
    /// publishes it.
    pub fn readers(&self, path: &str) -> Result<Option<usize>> {
        let [_, api, _] = self.ports();
        match self.kind {
            Kind::MediaMtx => mediamtx::readers(api, path),
            Kind::Default => Ok(None),
        }
    }

    /// Waits until somebody reads the RTSP path, so that a publisher may send its first packet.
    ///
    /// # Errors
    /// When nobody does within `patience`, or the server died.
    pub fn wait_reader(&self, path: &str, patience: Duration) -> Result<()> {
        wait::until(&format!("a reader of {path}"), patience, || {
            self.process.alive()?;
            Ok(match self.readers(path)? {
                Some(0) => Look::NotYet("published, no reader".into()),
                Some(_) => Look::Done(()),
                None => Look::NotYet("not published".into()),
            })
        })
    }

    /// Whether somebody publishes the RTMP path now. MediaMTX analyses a new publisher for up to
    /// 2 s of its media before it says so; nginx says it at once.
    pub fn is_rtmp_published(&self, path: &str) -> Result<bool> {
        let [_, http, _] = self.ports();
        match self.kind {
            Kind::MediaMtx => Ok(mediamtx::ready_path(http, path)?.is_some()),
            Kind::Default => nginx::is_published(http, path),
        }
    }

    /// Waits until the RTMP path is published.
    ///
    /// # Errors
    /// When it is not within `patience`, or the server died.
    pub fn wait_rtmp_published(&self, path: &str, patience: Duration) -> Result<()> {
        wait::until(&format!("a publisher of {path}"), patience, || {
            self.process.alive()?;
            Ok(Look::when(self.is_rtmp_published(path)?, "not published"))
        })
    }

    /// Recordings of what was published at the RTMP path so far, oldest first; the last may still
    /// grow. FLV from nginx, MPEG-TS from MediaMTX (its MP4 leaves out the last frame of each track).
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn recordings(&self, path: &str) -> Result<Vec<PathBuf>> {
        match self.kind {
            Kind::MediaMtx => mediamtx::recordings(&self.dir, path),
            Kind::Default => nginx::recordings(&self.dir, path),
        }
    }

    /// The finished recording of the last publisher of the RTMP path: waits until it has left and
    /// the server has closed the file.
    ///
    /// # Errors
    /// When there is no recording, or it is not finished within `patience`.
    pub fn recording(&self, path: &str, patience: Duration) -> Result<PathBuf> {
        let what = format!("the finished recording of {path}");
        wait::until(&what, patience, || {
            self.process.alive()?;
            if self.is_rtmp_published(path)? {
                return Ok(Look::NotYet("it is still published".into()));
            }
            let Some(last) = self.recordings(path)?.pop() else {
                return Ok(Look::NotYet("no recording".into()));
            };
            // nginx closes the file before it takes the stream off its list.
            let closed = self.kind == Kind::Default || mediamtx::is_closed(&self.dir, &last)?;
            Ok(if closed {
                Look::Done(last)
            } else {
                Look::NotYet("the file is open".into())
            })
        })
    }

    /// Kills the server, as a crash would.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Starts it again on the same ports, stopping it first if it runs.
    pub fn restart(&mut self) -> Result<()> {
        self.process.stop(STOP_GRACE);
        let (ports, settings) = (self.ports(), &self.settings);
        self.process = launch(self.kind, &self.place, &self.dir, ports, settings)?;
        Ok(())
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Leased ports on which something still listens: none after everything was stopped.
    pub fn busy_ports(&self) -> Vec<u16> {
        let busy = self.leases.iter().filter(|lease| !lease.is_free());
        busy.map(Lease::port).collect()
    }
}

fn launch(
    kind: Kind,
    place: &Place,
    dir: &Path,
    ports: Ports,
    settings: &RtspSettings,
) -> Result<Process> {
    let (spawn, answers) = match kind {
        Kind::MediaMtx => mediamtx::start(place, dir, ports, settings)?,
        Kind::Default => nginx::start(place, dir, ports)?,
    };
    let process = place.group.spawn(&spawn)?;
    wait_answer(&process, &answers, &[200])?;
    Ok(process)
}

/// Splits `live/test/out` into application and stream, as ffmpeg and `rtmp2sink` do.
fn app_and_stream(path: &str) -> Result<(&str, &str)> {
    path.rsplit_once('/')
        .filter(|(app, stream)| !app.is_empty() && !stream.is_empty())
        .with_context(|| format!("RTMP path {path:?} has no application"))
}

/// Files in `dir` whose name starts with `prefix`, oldest first; none if there is no such directory.
fn files_in(dir: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", dir.display())),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            files.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_names() {
        for kind in [Kind::MediaMtx, Kind::Default] {
            assert_eq!(kind.to_string().parse::<Kind>().unwrap(), kind);
        }
        let error = "vlc".parse::<Kind>().unwrap_err().to_string();
        assert_eq!(
            error,
            "media server \"vlc\" is not known, allowed: mediamtx, default"
        );
    }

    #[test]
    fn the_stream_is_what_follows_the_last_slash() {
        assert_eq!(
            app_and_stream("live/test/out").unwrap(),
            ("live/test", "out")
        );
        assert!(app_and_stream("out").is_err());
        assert!(app_and_stream("live/").is_err());
    }
}
