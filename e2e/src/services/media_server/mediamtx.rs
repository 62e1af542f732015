//! MediaMTX, the reference media server: one process for RTSP, RTMP and the recording.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use serde_json::Value;

use super::{CONFIGURATION, Ports, files_in};
use crate::{
    process::Spawn,
    programs,
    services::{Place, http_json},
};

/// Path of the program where it is not in `PATH`.
pub const BIN_ENV: &str = "MEDIAMTX_BIN";

/// What MediaMTX does on its RTSP side beside taking publishers.
#[derive(Debug, Clone, Default)]
pub struct RtspSettings {
    /// A path, and the RTSP address from which it is pulled.
    pub pull: Option<(String, String)>,
    /// Publishers' sender reports are passed on (`useAbsoluteTimestamp`), not replaced by arrival times.
    pub absolute_timestamps: bool,
    /// More entries of `paths`, as they stand in a configuration file.
    pub paths: String,
    /// Variables for the programs that it starts itself; they are told its RTMP port as `RTMP_PORT`.
    pub env: Vec<(String, String)>,
}

/// The program from `MEDIAMTX_BIN` or `PATH`.
pub(super) fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(BIN_ENV).map(PathBuf::from) {
        if programs::is_executable(&path) {
            return Ok(path);
        }
        bail!(
            "{BIN_ENV} is {}, which is not a program that can be run",
            path.display()
        );
    }
    programs::find("mediamtx").with_context(|| {
        format!(
            "MediaMTX is not installed: `nix develop` brings it, or set {BIN_ENV} to its path, or use the \
             default media server"
        )
    })
}

fn completed(dir: &Path) -> PathBuf {
    dir.join("completed")
}

/// What is started, and the address that answers once all of its ports are open.
pub(super) fn start(
    place: &Place,
    dir: &Path,
    [rtmp, api, _]: Ports,
    settings: &RtspSettings,
) -> Result<(Spawn, String)> {
    let spawn = place
        .spawn("mediamtx", program()?)
        .arg(dir.join(CONFIGURATION))
        // Versions after 1.18 open one more port by default and know this switch; older ones exit on
        // an unknown key of the configuration but ignore an unknown variable.
        .env("MTX_MOQ", "no")
        .env("RTMP_PORT", rtmp.to_string());
    let variables = settings.env.iter();
    let spawn = variables.fold(spawn, |spawn, (name, value)| spawn.env(name, value));
    // The API's listener is opened after those of RTSP and RTMP.
    Ok((spawn, format!("http://127.0.0.1:{api}/v3/paths/list")))
}

pub(super) fn recordings(dir: &Path, path: &str) -> Result<Vec<PathBuf>> {
    files_in(&dir.join("recordings").join(path), "")
}

/// Whether MediaMTX has said that this recording is complete.
pub(super) fn is_closed(dir: &Path, recording: &Path) -> Result<bool> {
    match std::fs::read_to_string(completed(dir)) {
        Ok(list) => Ok(list.lines().any(|line| Path::new(line) == recording)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).context("cannot read the list of complete recordings"),
    }
}

/// The path's entry in the API if it is published.
pub(super) fn ready_path(api: u16, path: &str) -> Result<Option<Value>> {
    let item = http_json(&format!("http://127.0.0.1:{api}/v3/paths/get/{path}"))?;
    Ok(item.filter(|item| item["ready"] == Value::Bool(true)))
}

/// Number of readers of an RTSP path; `None` if nobody publishes it.
pub(super) fn readers(api: u16, path: &str) -> Result<Option<usize>> {
    if ready_path(api, path)?.is_none() {
        return Ok(None);
    }
    // Not the path's own `readers`: a reader is listed there from its first SETUP on, and what is
    // published before its PLAY never reaches it.
    let sessions = http_json(&format!("http://127.0.0.1:{api}/v3/rtspsessions/list"))?;
    let sessions = sessions.context("the media server lists no RTSP sessions")?;
    let items = sessions["items"].as_array();
    let items = items.context("RTSP sessions without items")?;
    let reads = |item: &&Value| item["path"] == path && item["state"] == "read";
    Ok(Some(items.iter().filter(reads).count()))
}

/// Only keys that 1.18 knows: it exits on others.
///
/// `useAbsoluteTimestamp` is off unless asked for: with it MediaMTX holds back what precedes a
/// publisher's first sender report.
pub(super) fn config(
    dir: &Path,
    rtmp_paths: &[String],
    settings: &RtspSettings,
    [rtmp, api, rtsp]: Ports,
) -> String {
    let quoted = |path: &Path| format!("\"{}\"", path.display().to_string().replace('"', "\\\""));
    let recordings = quoted(&dir.join("recordings/%path/%Y-%m-%d_%H-%M-%S-%f"));
    let completed = completed(dir);
    let hook = format!(
        "'sh -c ''echo \"$MTX_SEGMENT_PATH\" >> \"{}\"'''",
        completed.display()
    );
    let mut paths = String::new();
    for path in rtmp_paths {
        let _ = write!(
            paths,
            "  \"{path}\":\n    record: true\n    recordPath: {recordings}\n    \
             recordFormat: mpegts\n    recordSegmentDuration: 24h\n    recordDeleteAfter: 0s\n    \
             runOnRecordSegmentComplete: {hook}\n"
        );
    }
    if let Some((path, from)) = &settings.pull {
        let _ = write!(
            paths,
            "  \"{path}\":\n    source: {from}\n    rtspTransport: tcp\n"
        );
    }
    paths += &settings.paths;
    let absolute = settings.absolute_timestamps;
    format!(
        "logLevel: info\nlogDestinations: [stdout]\nwriteQueueSize: 4096\n\
         api: true\napiAddress: 127.0.0.1:{api}\n\
         rtsp: true\nrtspTransports: [tcp]\nrtspAddress: 127.0.0.1:{rtsp}\n\
         rtmp: true\nrtmpAddress: 127.0.0.1:{rtmp}\n\
         hls: false\nwebrtc: false\nsrt: false\n\
         pathDefaults:\n  overridePublisher: false\n  useAbsoluteTimestamp: {absolute}\n\
         paths:\n{paths}  all_others:\n"
    )
}
