//! What threads share.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail};

/// Locks, also after a panic of whoever held it: what is kept here is whole at every moment.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs an examination with low priority and one at a time: scenarios beside it run in real time.
pub fn quietly<T: Send + 'static>(
    examine: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = lock(&TURN);
    let result = std::thread::Builder::new()
        .name("examination".to_owned())
        .spawn(move || {
            // Linux keeps priorities per thread; processes started from here inherit it. Beside other
            // work of the machine it still gets a fair part: with 15, two busy loops a core left 2 %.
            let _ = rustix::process::nice(5);
            examine()
        })
        .context("cannot start a thread")?
        .join();
    drop(turn);
    result.unwrap_or_else(|_| bail!("the examination panicked"))
}
