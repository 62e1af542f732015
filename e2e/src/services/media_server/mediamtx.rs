//! MediaMTX, the reference media server: one process for RTSP, RTMP and the recording.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::files_in;
use crate::{
    ports::{Lease, with_leases},
    process::Process,
    programs,
    services::{Place, READY_PATIENCE, STOP_GRACE, http_get},
    wait::{self, Look},
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

/// A running MediaMTX.
#[derive(Debug)]
pub struct MediaMtx {
    place: Place,
    process: Process,
    dir: PathBuf,
    leases: [Lease; 3],
    env: Vec<(String, String)>,
}

impl MediaMtx {
    pub(super) fn start(
        place: &Place,
        rtmp_paths: &[String],
        settings: &RtspSettings,
    ) -> Result<Self> {
        let dir = place.scratch.join("mediamtx");
        std::fs::create_dir_all(&dir).context("cannot create MediaMTX's directory")?;
        for path in rtmp_paths {
            super::app_and_stream(path)?;
        }
        let (leases, process) = with_leases(|ports: [u16; 3]| {
            let config = config(&dir, rtmp_paths, settings, ports);
            std::fs::write(dir.join("mediamtx.yml"), config)
                .context("cannot write mediamtx.yml")?;
            spawn(place, &dir, ports, &settings.env)
        })?;
        Ok(Self {
            place: place.clone(),
            process,
            dir,
            leases,
            env: settings.env.clone(),
        })
    }

    pub(super) fn restart(&mut self) -> Result<()> {
        self.process.stop(STOP_GRACE);
        let ports = self.leases.each_ref().map(Lease::port);
        self.process = spawn(&self.place, &self.dir, ports, &self.env)?;
        Ok(())
    }

    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    pub(super) fn rtsp_addr(&self) -> String {
        self.address(0)
    }

    pub(super) fn rtmp_addr(&self) -> String {
        self.address(1)
    }

    pub(super) fn api_addr(&self) -> String {
        self.address(2)
    }

    fn address(&self, lease: usize) -> String {
        format!("127.0.0.1:{}", self.leases[lease].port())
    }

    pub(super) fn busy_ports(&self) -> Vec<u16> {
        self.leases
            .iter()
            .filter(|lease| !lease.is_free())
            .map(Lease::port)
            .collect()
    }

    pub(super) fn recordings(&self, path: &str) -> Result<Vec<PathBuf>> {
        files_in(&self.dir.join("recordings").join(path), "")
    }

    /// Whether MediaMTX has said that this recording is complete.
    pub(super) fn is_closed(&self, recording: &Path) -> Result<bool> {
        match std::fs::read_to_string(completed(&self.dir)) {
            Ok(list) => Ok(list.lines().any(|line| Path::new(line) == recording)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).context("cannot read the list of complete recordings"),
        }
    }
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

fn spawn(
    place: &Place,
    dir: &Path,
    [_, rtmp, api]: [u16; 3],
    env: &[(String, String)],
) -> Result<Process> {
    let mut spawn = place
        .spawn("mediamtx", program()?)
        .arg(dir.join("mediamtx.yml"))
        // Versions after 1.18 open one more port by default and know this switch; older ones exit on
        // an unknown key of the configuration but ignore an unknown variable.
        .env("MTX_MOQ", "no")
        .env("RTMP_PORT", rtmp.to_string());
    for (name, value) in env {
        spawn = spawn.env(name, value);
    }
    let process = place.group.spawn(&spawn)?;
    let url = format!("http://127.0.0.1:{api}/v3/paths/list");
    // The API's listener is opened after those of RTSP and RTMP.
    let ready = wait::until("MediaMTX to answer", READY_PATIENCE, || {
        process.alive()?;
        Ok(match http_get(&url) {
            Ok((200, _)) => Look::Done(()),
            Ok((status, body)) => Look::NotYet(format!("status {status}: {body}")),
            Err(error) => Look::NotYet(format!("{error:#}")),
        })
    });
    if let Err(error) = ready {
        process.kill();
        return Err(error);
    }
    Ok(process)
}

/// Only keys that 1.18 knows: it exits on others.
///
/// `useAbsoluteTimestamp` is off unless asked for: with it MediaMTX holds back what precedes a
/// publisher's first sender report.
fn config(
    dir: &Path,
    rtmp_paths: &[String],
    settings: &RtspSettings,
    [rtsp, rtmp, api]: [u16; 3],
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
