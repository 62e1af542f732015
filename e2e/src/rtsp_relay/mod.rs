//! A verbatim RTSP relay: the RTSP half of the default media server.
//!
//! One publisher per path (ANNOUNCE, SETUP, RECORD), any number of readers (DESCRIBE, SETUP, PLAY),
//! TCP interleaved only. RTP and RTCP payloads are forwarded bit by bit, sender reports included, so
//! that what the worker sees is what the publisher sent; only the channel number is the reader's.
//! What a stream does not have yet is answered with 404, a second publisher of a path is refused,
//! and when the publisher ends, each reader gets what is queued for it and is then disconnected, as
//! MediaMTX does.
//!
//! ```text
//! connection (sockets) ─▶ session (what a request means) ─▶ hub (who sends to whom)
//!                                                            ├─ sdp     (tracks of an announcement)
//!                                                            └─ timing  (RTP-Info for late readers)
//! status: GET /v3/paths/… in the shape of MediaMTX's API, so one client asks both servers
//! ```

mod connection;
mod hub;
mod sdp;
mod session;
mod status;
mod timing;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;

use hub::Hub;

/// A relay that is bound but not yet serving.
#[derive(Debug)]
pub struct Relay {
    rtsp: TcpListener,
    api: TcpListener,
    hub: Arc<Hub>,
}

impl Relay {
    /// Binds the RTSP and the status address; port 0 picks a free one.
    ///
    /// # Errors
    /// When an address cannot be bound.
    pub async fn bind(rtsp: SocketAddr, api: SocketAddr) -> Result<Self> {
        let bind = async |what: &str, address: SocketAddr| {
            TcpListener::bind(address)
                .await
                .with_context(|| format!("cannot listen on {address} for {what}"))
        };
        Ok(Self {
            rtsp: bind("RTSP", rtsp).await?,
            api: bind("the status API", api).await?,
            hub: Arc::default(),
        })
    }

    /// Address on which RTSP is served.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn rtsp_addr(&self) -> Result<SocketAddr> {
        self.rtsp
            .local_addr()
            .context("the RTSP listener has no address")
    }

    /// Address on which the status is served.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn api_addr(&self) -> Result<SocketAddr> {
        self.api
            .local_addr()
            .context("the status listener has no address")
    }

    /// Serves until the future is dropped.
    ///
    /// # Errors
    /// When the status server fails; single connections that fail are logged.
    pub async fn serve(self) -> Result<()> {
        let Self { rtsp, api, hub } = self;
        tokio::select! {
            () = accept(rtsp, Arc::clone(&hub)) => Ok(()),
            served = status::serve(api, hub) => served,
        }
    }
}

async fn accept(listener: TcpListener, hub: Arc<Hub>) {
    let ids = AtomicU64::new(1);
    // Dropped together with this future, which ends every connection.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((socket, peer)) => {
                let id = ids.fetch_add(1, Ordering::Relaxed);
                let hub = Arc::clone(&hub);
                connections.spawn(async move {
                    match connection::serve(socket, id, hub).await {
                        Ok(()) => tracing::info!(id, %peer, "connection closed"),
                        Err(error) => tracing::info!(id, %peer, "connection ended: {error:#}"),
                    }
                });
            }
            // Out of file descriptors and the like: others end, then it goes on.
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}
