//! The RTSP half of the default media server; see `e2e::rtsp_relay`.
//!
//! Prints one line when it serves: `listening on rtsp://ADDRESS status http://ADDRESS`.

use std::{io::Write as _, net::SocketAddr};

use anyhow::{Context as _, Result};
use clap::Parser;
use e2e::rtsp_relay::Relay;

/// A verbatim RTSP relay: one publisher per path, any number of readers, TCP interleaved.
#[derive(Debug, Parser)]
#[command(name = "rtsp-relay")]
struct Options {
    /// Address for RTSP; port 0 picks a free one.
    #[arg(long, env = "RTSP_RELAY_LISTEN", default_value = "127.0.0.1:8554")]
    listen: SocketAddr,
    /// Address for the status API (`GET /v3/paths/list`); port 0 picks a free one.
    #[arg(long, env = "RTSP_RELAY_STATUS", default_value = "127.0.0.1:0")]
    status: SocketAddr,
}

fn main() -> Result<()> {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let relay = Relay::bind(options.listen, options.status).await?;
        let ready = format!(
            "listening on rtsp://{} status http://{}\n",
            relay.rtsp_addr()?,
            relay.api_addr()?
        );
        std::io::stdout()
            .write_all(ready.as_bytes())
            .context("cannot say that it is ready")?;
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            served = relay.serve() => served,
            _ = terminate.recv() => Ok(()),
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    })
}
