//! A TCP listener whose connections can be closed from outside.
//!
//! Disconnecting a Socket.IO client leaves its transport open, and so leaves a
//! client that only watches the transport in the dark. Every accepted connection
//! therefore keeps a second handle on its socket.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpStream as Handle},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::net::{TcpListener, TcpStream};

use super::gate::{Gate, Gated};

/// A second handle on one accepted connection. The connection is only closed for
/// the peer once every clone is gone or [`Transport::close`] was called.
#[derive(Clone, Debug)]
pub(crate) struct Transport(Arc<Handle>, Gate);

impl Transport {
    /// Sends what is written, then ends the connection in both directions.
    pub(crate) fn close(&self) {
        // Fails only if the peer was faster.
        let _ = self.0.shutdown(Shutdown::Both);
        // What waits for the end must see it.
        self.open();
    }

    /// Lets in what the client sent behind its CONNECT packet.
    pub(crate) fn open(&self) {
        self.1.open();
    }
}

/// Every connection that is still open.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transports(Arc<Mutex<Vec<Weak<Handle>>>>);

impl Transports {
    fn add(&self, handle: &Arc<Handle>) {
        let mut handles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        handles.retain(|handle| handle.strong_count() > 0);
        handles.push(Arc::downgrade(handle));
    }

    /// Ends all of them.
    pub(crate) fn close_all(&self) {
        let handles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for handle in handles.iter().filter_map(Weak::upgrade) {
            // Fails only if the peer was faster.
            let _ = handle.shutdown(Shutdown::Both);
        }
    }
}

/// Accepts connections and keeps their second handles.
#[derive(Debug)]
pub(crate) struct ClosableListener {
    inner: TcpListener,
    transports: Transports,
}

impl ClosableListener {
    pub(crate) async fn bind(addr: SocketAddr, transports: Transports) -> io::Result<Self> {
        Ok(Self {
            inner: TcpListener::bind(addr).await?,
            transports,
        })
    }

    pub(crate) fn addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    async fn next(&self) -> io::Result<(Gated, Transport)> {
        let (stream, _) = self.inner.accept().await?;
        stream.set_nodelay(true)?;
        let stream = stream.into_std()?;
        let handle = Arc::new(stream.try_clone()?);
        self.transports.add(&handle);
        let gate = Gate::default();
        let stream = Gated::new(TcpStream::from_std(stream)?, gate.clone());
        Ok((stream, Transport(handle, gate)))
    }
}

impl Listener for ClosableListener {
    type Io = Gated;
    type Addr = Transport;

    async fn accept(&mut self) -> (Gated, Transport) {
        loop {
            match self.next().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    // Out of file descriptors, or a peer that gave up: try again, but not in a spin.
                    tracing::warn!(event = "accept_failed", %error);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Transport> {
        Err(io::Error::other("a listening socket is no connection"))
    }
}

impl Connected<IncomingStream<'_, ClosableListener>> for Transport {
    fn connect_info(stream: IncomingStream<'_, ClosableListener>) -> Self {
        stream.remote_addr().clone()
    }
}
