//! Control client of `echo-sts`: asks it, over Socket.IO, to misbehave in a chosen way.
//!
//! Every call waits for the event's own `<event>:ack` (the protocol uses no Socket.IO acks) under a
//! deadline, so when it returns, what it asked for is in force.

use std::{
    sync::{Mutex, mpsc},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rust_socketio::{
    Event, Payload, TransportType,
    asynchronous::{Client, ClientBuilder},
};
use serde_json::Value;
use sts_protocol::{ControlAck, ControlMessage, ControlStatus, event};
use tokio::{runtime::Runtime, time::timeout};

use crate::threads::lock;
use crate::wait::Deadline;

/// Patience for each step: connecting, sending, the answer. On loopback all take milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connected control client.
pub struct Control {
    /// `None` only while it is being dropped.
    runtime: Option<Runtime>,
    client: Client,
    heard: Mutex<mpsc::Receiver<(String, Value)>>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Control {
    /// Connects to `echo-sts` at `url`.
    ///
    /// # Errors
    /// When it does not accept the connection in time.
    pub fn connect(url: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        let (say, heard) = mpsc::channel();
        let mut builder = ClientBuilder::new(url)
            .transport_type(TransportType::Websocket)
            .reconnect(false)
            .on(Event::Connect, listener("connect".into(), say.clone()));
        for event in event::CONTROL {
            let ack = event::ack_of(event);
            builder = builder.on(ack.as_str(), listener(ack.clone(), say.clone()));
        }
        let client = runtime
            .block_on(async { timeout(PATIENCE, builder.connect()).await })
            .with_context(|| format!("{url} does not answer"))?
            .with_context(|| format!("cannot connect to {url}"))?;
        let control = Self {
            runtime: Some(runtime),
            client,
            heard: Mutex::new(heard),
        };
        // Sending before the namespace is connected makes the server close.
        control.wait_for("connect")?;
        Ok(control)
    }

    /// Sends a control event and waits until it is accepted.
    ///
    /// # Errors
    /// When it is rejected (with the server's reason) or not answered in time.
    pub fn send(&self, message: impl Into<ControlMessage>) -> Result<ControlAck> {
        let message = message.into();
        let name = message.event();
        let payload = message.payload().context("cannot write the payload")?;
        let runtime = self.runtime.as_ref().context("disconnected")?;
        let emit = async { timeout(PATIENCE, self.client.emit(name, payload)).await };
        runtime
            .block_on(emit)
            .with_context(|| format!("cannot send {name} in time"))?
            .with_context(|| format!("cannot send {name}"))?;
        let answer = self.wait_for(&event::ack_of(name))?;
        let ack: ControlAck = serde_json::from_value(answer.clone())
            .with_context(|| format!("the answer to {name} is {answer}"))?;
        match ack.status {
            ControlStatus::Accepted => Ok(ack),
            ControlStatus::Rejected => {
                bail!("{name} was rejected: {}", ack.message.unwrap_or_default())
            }
        }
    }

    fn wait_for(&self, name: &str) -> Result<Value> {
        let heard = lock(&self.heard);
        let deadline = Deadline::within(PATIENCE);
        loop {
            match heard.recv_timeout(deadline.remaining()) {
                Ok((event, value)) if event == name => return Ok(value),
                // An answer to an earlier call that ran out of patience.
                Ok(_) => {}
                Err(_) => bail!(
                    "echo-sts did not say {name} within {} s",
                    PATIENCE.as_secs()
                ),
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Dropping the client alone leaves its tasks alive; the runtime ends them.
            let goodbye = async { timeout(Duration::from_secs(1), self.client.disconnect()).await };
            let _ = runtime.block_on(goodbye);
            runtime.shutdown_background();
        }
    }
}

type Callback = Box<
    dyn FnMut(Payload, Client) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync,
>;

/// Callbacks run in the task that also answers pings: they only pass on what they got.
fn listener(name: String, say: mpsc::Sender<(String, Value)>) -> Callback {
    Box::new(move |payload, _| {
        let value = match payload {
            Payload::Text(values) => values.into_iter().next().unwrap_or_default(),
            _ => Value::Null,
        };
        let _ = say.send((name.clone(), value));
        Box::pin(async {})
    })
}
