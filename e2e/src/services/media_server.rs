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

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{Place, http_json};
use crate::{
    process::Process,
    wait::{self, Look},
};

pub use mediamtx::{BIN_ENV as MEDIAMTX_BIN_ENV, MediaMtx, RtspSettings};
pub use nginx::Nginx;

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

#[derive(Debug)]
pub enum MediaServer {
    /// MediaMTX, one process for RTSP and RTMP.
    MediaMtx(MediaMtx),
    /// nginx, RTMP alone.
    Nginx(Nginx),
}

use MediaServer as Server;

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
        Ok(match kind {
            Kind::MediaMtx => Server::MediaMtx(MediaMtx::start(place, rtmp_paths, settings)?),
            Kind::Default => Server::Nginx(Nginx::start(place, rtmp_paths)?),
        })
    }

    pub fn kind(&self) -> Kind {
        match self {
            Server::MediaMtx(_) => Kind::MediaMtx,
            Server::Nginx(_) => Kind::Default,
        }
    }

    /// URL at which MediaMTX publishes `path` over RTSP.
    ///
    /// # Errors
    /// When the media server has no RTSP.
    pub fn rtsp_url(&self, path: &str) -> Result<String> {
        match self {
            Server::MediaMtx(server) => Ok(format!("rtsp://{}/{path}", server.rtsp_addr())),
            Server::Nginx(_) => bail!("nginx has no RTSP"),
        }
    }

    /// URL at which `path` is published and read over RTMP.
    pub fn rtmp_url(&self, path: &str) -> String {
        let address = match self {
            Server::MediaMtx(server) => server.rtmp_addr(),
            Server::Nginx(nginx) => nginx.rtmp_addr(),
        };
        format!("rtmp://{address}/{path}")
    }

    /// Number of readers of an RTSP path of MediaMTX that get what is published from now on; `None` if nobody
    /// publishes it.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn readers(&self, path: &str) -> Result<Option<usize>> {
        let Server::MediaMtx(server) = self else {
            return Ok(None);
        };
        let api = server.api_addr();
        if ready_path(&api, path)?.is_none() {
            return Ok(None);
        }
        // Not the path's own `readers`: MediaMTX lists a reader there from its first SETUP on, and
        // what is published before its PLAY never reaches it.
        let sessions = http_json(&format!("http://{api}/v3/rtspsessions/list"))?;
        let sessions = sessions.context("the media server lists no RTSP sessions")?;
        let items = sessions["items"]
            .as_array()
            .context("RTSP sessions without items")?;
        let reads = |item: &&Value| item["path"] == path && item["state"] == "read";
        Ok(Some(items.iter().filter(reads).count()))
    }

    /// Waits until somebody reads the RTSP path, so that a publisher may send its first packet.
    ///
    /// # Errors
    /// When nobody does within `patience`, or the server died.
    pub fn wait_reader(&self, path: &str, patience: Duration) -> Result<()> {
        wait::until(&format!("a reader of {path}"), patience, || {
            self.alive()?;
            Ok(match self.readers(path)? {
                Some(0) => Look::NotYet("published, no reader".into()),
                Some(_) => Look::Done(()),
                None => Look::NotYet("not published".into()),
            })
        })
    }

    /// Whether somebody publishes the RTMP path now. MediaMTX analyses a new publisher for up to
    /// 2 s of its media before it says so; nginx says it at once.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn is_rtmp_published(&self, path: &str) -> Result<bool> {
        match self {
            Server::MediaMtx(server) => Ok(ready_path(&server.api_addr(), path)?.is_some()),
            Server::Nginx(nginx) => nginx.is_published(path),
        }
    }

    /// Waits until the RTMP path is published.
    ///
    /// # Errors
    /// When it is not within `patience`, or the server died.
    pub fn wait_rtmp_published(&self, path: &str, patience: Duration) -> Result<()> {
        wait::until(&format!("a publisher of {path}"), patience, || {
            self.alive()?;
            let published = self.is_rtmp_published(path)?;
            Ok(if published {
                Look::Done(())
            } else {
                Look::NotYet("not published".into())
            })
        })
    }

    /// Recordings of what was published at the RTMP path so far, oldest first; the last may still
    /// grow. FLV from nginx, MPEG-TS from MediaMTX (its MP4 leaves out the last frame of each track).
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn recordings(&self, path: &str) -> Result<Vec<PathBuf>> {
        match self {
            Server::MediaMtx(server) => server.recordings(path),
            Server::Nginx(nginx) => nginx.recordings(path),
        }
    }

    /// The finished recording of the last publisher of the RTMP path: waits until it has left and
    /// the server has closed the file.
    ///
    /// # Errors
    /// When there is no recording, or it is not finished within `patience`.
    pub fn recording(&self, path: &str, patience: Duration) -> Result<PathBuf> {
        wait::until(
            &format!("the finished recording of {path}"),
            patience,
            || {
                self.process().alive()?;
                if self.is_rtmp_published(path)? {
                    return Ok(Look::NotYet("it is still published".into()));
                }
                let Some(last) = self.recordings(path)?.pop() else {
                    return Ok(Look::NotYet("no recording".into()));
                };
                let closed = match self {
                    Server::MediaMtx(server) => server.is_closed(&last)?,
                    // nginx closes the file before it takes the stream off its list.
                    Server::Nginx(_) => true,
                };
                Ok(if closed {
                    Look::Done(last)
                } else {
                    Look::NotYet("the file is open".into())
                })
            },
        )
    }

    /// Kills the server, as a crash would.
    pub fn kill(&self) {
        self.process().kill();
    }

    /// Starts it again on the same ports, stopping it first if it runs.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&mut self) -> Result<()> {
        match self {
            Server::MediaMtx(server) => server.restart(),
            Server::Nginx(nginx) => nginx.restart(),
        }
    }

    /// Fails if the server is dead.
    ///
    /// # Errors
    /// When it is, with its last lines.
    pub fn alive(&self) -> Result<()> {
        self.process().alive()
    }

    pub fn process(&self) -> &Process {
        match self {
            Server::MediaMtx(server) => server.process(),
            Server::Nginx(nginx) => nginx.process(),
        }
    }

    /// Leased ports on which something still listens: none after everything was stopped.
    pub fn busy_ports(&self) -> Vec<u16> {
        match self {
            Server::MediaMtx(server) => server.busy_ports(),
            Server::Nginx(nginx) => nginx.busy_ports(),
        }
    }
}

/// The path's entry in MediaMTX's API if it is published.
fn ready_path(api: &str, path: &str) -> Result<Option<Value>> {
    let item = http_json(&format!("http://{api}/v3/paths/get/{path}"))?;
    Ok(item.filter(|item| item["ready"] == Value::Bool(true)))
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
