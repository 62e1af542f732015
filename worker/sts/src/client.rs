//! The handle the driver holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dub_engine::LinkId;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::config::{InitParams, OutgoingFragment, StsClientConfig, StsConfigError};
use super::fact::StsFact;
use super::link::Link;
use super::outgoing::LinkOrder;

/// Facts that may wait for the driver. One may hold 7.5 MiB of audio, so few.
const MAX_FACTS: usize = 16;
/// Orders that may wait for a link's task.
const MAX_ORDERS: usize = 256;

/// Connections to one STS service, one at a time. No order blocks or fails: whatever comes of it
/// is a fact. Orders for another link than the current one are stale and do nothing.
#[derive(Debug)]
pub struct StsClient {
    config: Arc<StsClientConfig>,
    init: InitParams,
    facts: mpsc::Sender<StsFact>,
    mute: watch::Sender<bool>,
    current: Option<CurrentLink>,
    links: JoinSet<()>,
}

#[derive(Debug)]
struct CurrentLink {
    link: LinkId,
    orders: mpsc::Sender<LinkOrder>,
    overrun: Arc<AtomicBool>,
}

impl StsClient {
    /// A client that is not connected yet, and the facts it will tell. Orders must be given
    /// inside a tokio runtime.
    ///
    /// # Errors
    /// When the URL or an id cannot be used.
    pub fn new(config: StsClientConfig) -> Result<(Self, mpsc::Receiver<StsFact>), StsConfigError> {
        config.check()?;
        let (facts, receiver) = mpsc::channel(MAX_FACTS);
        let client = Self {
            init: config.init.clone(),
            config: Arc::new(config),
            facts,
            mute: watch::Sender::new(false),
            current: None,
            links: JoinSet::new(),
        };
        Ok((client, receiver))
    }

    /// Changes what later `init`s ask for, once the input is known.
    pub fn set_init(&mut self, init: InitParams) {
        self.init = init;
    }

    /// What later `init`s ask for.
    pub fn asks(&self) -> &InitParams {
        &self.init
    }

    /// Starts attempt `link`. One that is still there is ended first.
    pub fn connect(&mut self, link: LinkId) {
        // Reap what has ended.
        while self.links.try_join_next().is_some() {}
        let (orders, receiver) = mpsc::channel(MAX_ORDERS);
        let overrun = Arc::new(AtomicBool::new(false));
        let task = Link {
            id: link,
            config: Arc::clone(&self.config),
            orders: receiver,
            facts: self.facts.clone(),
            muted: self.mute.subscribe(),
            overrun: Arc::clone(&overrun),
        };
        self.current = Some(CurrentLink {
            link,
            orders,
            overrun,
        });
        self.links.spawn(task.run());
    }

    /// Sends `stream:init`.
    pub fn init(&mut self, link: LinkId) {
        let init = self.init.clone();
        self.order(link, LinkOrder::Init(init));
    }

    /// Sends `fragment:data`.
    pub fn send(&mut self, link: LinkId, fragment: OutgoingFragment) {
        self.order(link, LinkOrder::Fragment(fragment));
    }

    /// Sends `fragment:ack` with status `applied`.
    pub fn applied(&mut self, link: LinkId, id: impl Into<String>) {
        self.order(link, LinkOrder::Applied(id.into()));
    }

    /// Sends `stream:end`; an empty reason is left out.
    pub fn end(&mut self, link: LinkId, reason: impl Into<String>) {
        self.order(link, LinkOrder::End(reason.into()));
    }

    /// Ends the link: what was ordered before is sent first, within the close timeout.
    pub fn disconnect(&mut self, link: LinkId) {
        self.order(link, LinkOrder::Disconnect);
    }

    /// Ends everything and waits, bounded, until it is gone. Facts may be left unread.
    pub async fn close(mut self) {
        self.mute.send_replace(true);
        self.current = None;
        // Once for what is queued, once for the goodbye, and some for the scheduler.
        let limit = self.config.close_timeout * 3;
        let _ = timeout(limit, async {
            while self.links.join_next().await.is_some() {}
        })
        .await;
    }

    fn order(&mut self, link: LinkId, order: LinkOrder) {
        let Some(current) = self.current.as_ref().filter(|current| current.link == link) else {
            return;
        };
        match current.orders.try_send(order) {
            // Closed: the link has ended and its last fact says so.
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => {
                // A lost order would leave both sides with different ideas of the stream.
                current.overrun.store(true, Ordering::Relaxed);
                self.current = None;
            }
        }
    }
}
