//! How facts come from a host.

use std::{fmt, sync::Arc};

use world::Clock;

use super::Leash;
use crate::{
    collect::{self, Collector, Needs, Progress},
    facts::Facts,
    failure::{Failure, Reason},
    target::LocalTarget,
};

/// What is asked of a host.
pub struct Ask {
    pub collectors: Vec<&'static Collector>,
    pub needs: Arc<Needs>,
    /// Cut short by it: whatever waits asks it a few times a second.
    pub leash: Arc<Leash>,
    pub clock: Arc<dyn Clock>,
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask")
            .field("leash", &self.leash)
            .finish_non_exhaustive()
    }
}

/// The way to one host.
pub trait Way: Send + Sync + fmt::Debug {
    /// Whether it can be gone at all, found out without a connection and without decrypting anything.
    ///
    /// # Errors
    /// `credential_missing`, or a host that is never dialled.
    fn ready(&self) -> Result<(), Failure>;

    /// Brings the facts.
    ///
    /// # Errors
    /// No facts came; what single collectors could not look at is unknown within the facts.
    fn collect(&self, ask: &Ask) -> Result<Facts, Failure>;
}

/// This machine.
#[derive(Debug)]
pub struct Local;

impl Way for Local {
    fn ready(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn collect(&self, ask: &Ask) -> Result<Facts, Failure> {
        let target = LocalTarget::new("/", Arc::clone(&ask.clock)).map_err(|unknown| {
            let text = format!("this machine cannot be looked at: {unknown}");
            Failure::new(Reason::Internal, text)
        })?;
        Ok(collect::collect_within(
            &ask.collectors,
            Arc::new(target),
            Arc::clone(&ask.needs),
            Arc::clone(&ask.leash) as Arc<dyn Progress>,
            Arc::clone(&ask.clock),
            ask.leash.left(),
        ))
    }
}

/// A host whose facts are brought as a file: never dialled.
#[derive(Debug)]
pub struct Offline;

impl Way for Offline {
    fn ready(&self) -> Result<(), Failure> {
        Err(Failure::new(
            Reason::HostUnreachable,
            "the host is offline by the inventory: run `holdfast collect` there, then `holdfast scan --replay FILE` here",
        ))
    }

    fn collect(&self, _ask: &Ask) -> Result<Facts, Failure> {
        Err(self.ready().expect_err("it is never ready"))
    }
}
