//! The RTSP half of the default media server, as a process.

use anyhow::{Context as _, Result};

use crate::{
    process::Process,
    programs,
    services::{Place, READY_PATIENCE, STOP_GRACE},
};

#[derive(Debug)]
pub(super) struct RtspRelay {
    place: Place,
    process: Process,
    rtsp: String,
    api: String,
}

impl RtspRelay {
    pub(super) fn start(place: &Place) -> Result<Self> {
        let (process, rtsp, api) = spawn(place, "127.0.0.1:0", "127.0.0.1:0")?;
        Ok(Self {
            place: place.clone(),
            process,
            rtsp,
            api,
        })
    }

    pub(super) fn restart(&mut self) -> Result<()> {
        self.process.stop(STOP_GRACE);
        (self.process, _, _) = spawn(&self.place, &self.rtsp, &self.api)?;
        Ok(())
    }

    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    pub(super) fn rtsp_addr(&self) -> String {
        self.rtsp.clone()
    }

    pub(super) fn api_addr(&self) -> String {
        self.api.clone()
    }
}

fn spawn(place: &Place, rtsp: &str, api: &str) -> Result<(Process, String, String)> {
    let spawn = place
        .spawn("rtsp-relay", programs::own("rtsp-relay")?)
        .args(["--listen", rtsp, "--status", api]);
    let process = place.group.spawn(&spawn)?;
    let (rtsp, api) = process
        .wait_line("its ready line", READY_PATIENCE, |line| {
            let rest = line.text.strip_prefix("listening on rtsp://")?;
            let (rtsp, api) = rest.split_once(" status http://")?;
            Some((rtsp.to_owned(), api.to_owned()))
        })
        .context("the RTSP relay does not start")?;
    Ok((process, rtsp, api))
}
