//! One small tokio runtime per connection attempt.
//!
//! Dropping a `rust_socketio` client does not stop it, and a task of its own stuck in a write
//! cannot be cancelled from outside. A runtime can: everything the library spawned dies with it.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// Owns the runtime; dropping it never blocks.
#[derive(Debug)]
pub(super) struct LinkRuntime {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl LinkRuntime {
    /// One worker thread, and one for name resolution when needed.
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(1)
            .thread_name("sts-link")
            .enable_all()
            .build()?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Tasks that have not ended.
    pub(super) fn live_tasks(&self) -> usize {
        self.handle.metrics().num_alive_tasks()
    }
}

impl Drop for LinkRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A plain drop waits for blocking work and panics inside async code.
            runtime.shutdown_background();
        }
    }
}
