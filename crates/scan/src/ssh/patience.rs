//! How long to wait for a host: until a moment, unless somebody cancels.

use std::{fmt, future::Future, pin::pin, sync::Arc, time::Duration};

use world::Clock;

use crate::{
    collect::Progress,
    failure::{Failure, Reason},
};

/// How often a waiting scan looks whether it is cancelled. Short for a person, long for a processor.
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Clone)]
pub struct Patience {
    clock: Arc<dyn Clock>,
    /// Of the clock's monotonic time.
    until: Duration,
    progress: Arc<dyn Progress>,
}

impl fmt::Debug for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patience")
            .field("until", &self.until)
            .finish_non_exhaustive()
    }
}

impl Patience {
    /// `limit` from now on, unless `progress` is cancelled.
    pub fn new(clock: Arc<dyn Clock>, limit: Duration, progress: Arc<dyn Progress>) -> Self {
        Self {
            until: clock.monotonic() + limit,
            clock,
            progress,
        }
    }

    /// Monotonic.
    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    pub(super) fn is_over(&self) -> bool {
        self.now() >= self.until
    }

    /// `what` completes "it was not done in time:".
    pub fn check(&self, what: &str) -> Result<(), Failure> {
        // First the deadline: a progress may call a scan cancelled that is out of time.
        if self.is_over() {
            let detail = format!("{what}: no time is left of the scan's deadline");
            return Err(Failure::new(Reason::Timeout, detail));
        }
        if self.progress.cancelled() {
            return Err(Failure::new(
                Reason::Cancelled,
                format!("{what}: cancelled"),
            ));
        }
        Ok(())
    }

    /// Waits for `work`, at most `limit` where there is one, and never beyond the deadline.
    pub(super) async fn within<T>(
        &self,
        limit: Option<Duration>,
        what: &str,
        work: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        let end = limit.map(|limit| self.now() + limit);
        let mut work = pin!(work);
        loop {
            self.check(what)?;
            let now = self.now();
            let left = end.map_or(Duration::MAX, |end| end.saturating_sub(now));
            if left.is_zero() {
                let limit = limit.unwrap_or_default();
                let detail = format!("{what}: no answer within {limit:.0?}");
                return Err(Failure::new(Reason::Timeout, detail));
            }
            let slice = left.min(self.until.saturating_sub(now)).min(LOOK_EVERY);
            if let Ok(done) = tokio::time::timeout(slice, work.as_mut()).await {
                return Ok(done);
            }
        }
    }
}
