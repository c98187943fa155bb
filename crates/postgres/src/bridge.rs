//! Callers block, sessions do not: a small runtime of the engine's own drives these.
//!
//! A caller waits on a channel, not in the runtime, so that any thread may call, those of another
//! runtime included.

use std::{
    fmt,
    sync::{Arc, mpsc},
    time::Duration,
};

use store::{Error, Kind};
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};

use crate::{fault::Fault, pool::Pool};

/// The sessions need a thread for the network and one for whoever prepares a large answer. Arbitrary.
const THREADS: usize = 2;

/// How long some statements one after the other may take where nothing bounds each: the server ends any of
/// them after half a minute, and none of those that are many waits for a lock.
const FEW_MAX: Duration = Duration::from_secs(5 * 60);

/// Held by the engine and all that it gave out, never by a task of the runtime: a runtime that ended in
/// one of its own threads would panic.
pub(crate) struct Running {
    pub(crate) pool: Arc<Pool>,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl Running {
    pub(crate) fn new(pool: Pool) -> Result<Self, Error> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("postgres")
            .enable_all()
            .build()
            .map_err(|error| Error::caused(Kind::Io, "starting threads for PostgreSQL", error))?;
        Ok(Self {
            pool: Arc::new(pool),
            runtime: Some(runtime),
        })
    }

    pub(crate) fn block<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.block_or(Kind::Io, work)
    }

    /// As [`Running::block`]; `kind` is what a caller is told when the server is given up meanwhile.
    pub(crate) fn block_or<T: Send + 'static>(
        &self,
        kind: Kind,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, waiting) = mpsc::sync_channel(1);
        let (pool, mut given_up) = (Arc::clone(&self.pool), self.pool.given_up());
        self.spawn(async move {
            let done = tokio::select! {
                biased;
                done = work => done,
                _ = given_up.wait_for(|is_given_up| *is_given_up) => Err(pool.gone(kind)),
            };
            // Nobody waits any more only if the caller's thread is gone.
            drop(answer.send(done));
        });
        waiting.recv().unwrap_or_else(|_| {
            let message = "a thread of the PostgreSQL engine ended early";
            Err(Error::new(Kind::InDoubt, message))
        })
    }

    /// As [`Running::block`], for a session that does not bound its answers itself.
    pub(crate) fn block_few<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let attempted = format!("working on {}", self.pool.address());
        self.block(async move {
            let silent = || Error::caused(Kind::Io, attempted, Fault::silent(FEW_MAX));
            timeout(FEW_MAX, work)
                .await
                .unwrap_or_else(|_| Err(silent()))
        })
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(task);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Without waiting: whoever drops it may be on a thread that must not block.
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Running").field(&self.pool).finish()
    }
}
