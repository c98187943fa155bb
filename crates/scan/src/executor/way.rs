//! How facts come from a host.

use std::{fmt, sync::Arc};

use world::{Clock, Random};

use super::Leash;
use crate::{
    capture,
    collect::{self, Collector, Limits, Needs, Progress},
    credential::Secret,
    facts::Facts,
    failure::{Failure, Reason},
    ssh::{self, Privilege, Session},
    target::LocalTarget,
};

/// What is asked of a host.
pub struct Ask {
    pub collectors: Vec<&'static Collector>,
    pub needs: Arc<Needs>,
    pub limits: Limits,
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
    /// Whether it can be gone at all, found out without a connection.
    ///
    /// # Errors
    /// `credential_missing`, `credential_decryption_failed`, or a host that is never dialled.
    fn ready(&self) -> Result<(), Failure>;

    /// Brings the facts.
    ///
    /// # Errors
    /// No facts came; what single collectors could not look at is unknown within the facts.
    fn collect(&self, ask: &Ask) -> Result<Facts, Failure>;

    /// Where fixes can go this way too.
    fn ssh(&self) -> Option<&Ssh> {
        None
    }
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
            &Limits {
                deadline: ask.leash.left(),
                ..ask.limits
            },
        ))
    }
}

/// A host with an SSH server.
#[derive(Clone)]
pub struct Ssh {
    pub endpoint: ssh::Endpoint,
    pub trust: ssh::Trust,
    /// Called after the host's key was accepted, and not before.
    pub resolve: Arc<dyn Fn() -> Result<Secret, Failure> + Send + Sync>,
    pub random: Arc<dyn Random>,
}

impl fmt::Debug for Ssh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ssh")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl Ssh {
    /// Logs in and starts the shell that reads scripts.
    ///
    /// # Errors
    /// The host is not to be reached, or the one side does not accept the other.
    pub fn open(&self, patience: &ssh::Patience) -> Result<(Session, Privilege), Failure> {
        let mut nonce = [0; 16];
        self.random.fill(&mut nonce).map_err(|error| {
            Failure::new(Reason::Internal, format!("no random numbers: {error}"))
        })?;
        let limits = ssh::Limits::default();
        let resolve = || (self.resolve)();
        let connection = ssh::connect(&self.endpoint, &self.trust, resolve, limits, patience)?;
        connection.start(&capture::command(), u128::from_le_bytes(nonce))
    }
}

impl Way for Ssh {
    fn ready(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn collect(&self, ask: &Ask) -> Result<Facts, Failure> {
        let progress = Arc::clone(&ask.leash) as Arc<dyn Progress>;
        let clock = Arc::clone(&ask.clock);
        let patience = ssh::Patience::new(clock, ask.leash.left(), Arc::clone(&progress));
        let (mut session, privilege) = self.open(&patience)?;
        tracing::debug!(endpoint = %self.endpoint, ?privilege, "collecting");
        let limits = capture::Limits {
            deadline: ask.leash.left(),
            collector_deadline: ask.limits.collector_deadline,
            collector_bytes_max: ask.limits.collector_bytes_max,
            ..capture::Limits::default()
        };
        let collected = capture::collect(
            &mut session,
            &ask.collectors,
            &ask.needs,
            &progress,
            &ask.clock,
            self.random.as_ref(),
            &limits,
        );
        session.close();
        collected.map(|(facts, _)| facts)
    }

    fn ssh(&self) -> Option<&Ssh> {
        Some(self)
    }
}

/// A way that cannot be gone, and why: known before any connection.
#[derive(Debug)]
pub struct NoWay(pub Failure);

impl NoWay {
    /// A host whose facts are brought as a file: never dialled.
    pub fn offline() -> Self {
        Self(Failure::new(
            Reason::HostUnreachable,
            "the host is offline by the inventory: run `holdfast collect` there, then `holdfast scan --replay FILE` here",
        ))
    }
}

impl NoWay {
    /// A host that is scanned as the machine itself, by another machine.
    pub fn of_another(machine: &str) -> Self {
        Self(Failure::new(
            Reason::HostUnreachable,
            format!(
                "the host is scanned as the machine itself, and this machine is `{machine}`: retire it and add it by its address, and any node can scan it"
            ),
        ))
    }
}

impl Way for NoWay {
    fn ready(&self) -> Result<(), Failure> {
        Err(self.0.clone())
    }

    fn collect(&self, _ask: &Ask) -> Result<Facts, Failure> {
        Err(self.0.clone())
    }
}
