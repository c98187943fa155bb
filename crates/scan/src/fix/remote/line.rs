//! The way of a fix to its host: logins with the rights of root, and fresh facts.

use std::{fmt, sync::Arc, time::Duration};

use world::Clock;

use crate::{
    capture::{self, Exchange},
    collect::{Needs, Progress},
    executor::Ssh,
    facts::Facts,
    failure::{Failure, Reason},
    fix::{Fault, FaultKind, collectors},
    rule::Rule,
    ssh::{Patience, Privilege},
};

/// For one session: waiting for a timed rollback takes a minute and a half of it, a service that does
/// not stop as long.
const SESSION_DEADLINE: Duration = Duration::from_secs(600);

/// A host, how it is reached, and who stops us.
pub struct Line {
    host: String,
    ssh: Ssh,
    clock: Arc<dyn Clock>,
    progress: Arc<dyn Progress>,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Line({})", self.host)
    }
}

impl Line {
    pub fn new(host: &str, ssh: Ssh, clock: Arc<dyn Clock>, progress: Arc<dyn Progress>) -> Self {
        Self {
            host: host.to_owned(),
            ssh,
            clock,
            progress,
        }
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Logs in to see that a fix could be done; nothing is asked.
    ///
    /// # Errors
    /// Not reached, not let in; or, within, the words why there are no rights of root.
    pub fn try_out(&self) -> Result<Result<(), String>, Failure> {
        Ok(match self.login()?.1 {
            Privilege::None { why } => Err(why),
            _ => Ok(()),
        })
    }

    fn login(&self) -> Result<(Box<dyn Exchange>, Privilege), Failure> {
        let clock = Arc::clone(&self.clock);
        let patience = Patience::new(clock, SESSION_DEADLINE, Arc::clone(&self.progress));
        let (session, privilege) = self.ssh.open(&patience)?;
        Ok((Box::new(session), privilege))
    }

    pub(super) fn open(&self) -> Result<Box<dyn Exchange>, Fault> {
        match self.login() {
            Ok((_, Privilege::None { why })) => {
                let why = format!("no rights of root: {why}");
                Err(Fault::refused(&self.host, why))
            }
            Ok((session, _)) => Ok(session),
            Err(failure) => Err(self.fault(&failure)),
        }
    }

    pub(super) fn ask(
        &self,
        session: &mut dyn Exchange,
        script: &str,
    ) -> Result<Vec<(u8, Vec<u8>)>, Fault> {
        let limits = limits();
        capture::ask(
            session,
            script,
            self.clock.as_ref(),
            self.ssh.random.as_ref(),
            &limits,
        )
        .map_err(|failure| self.fault(&failure))
    }

    /// What `rule` and its fix ask about, by a session of its own.
    ///
    /// # Errors
    /// No facts came.
    pub fn facts(&self, rule: &Rule) -> Result<Facts, Fault> {
        let collected = self.login().and_then(|(mut session, _)| {
            capture::collect(
                session.as_mut(),
                &collectors(rule),
                &Arc::new(Needs::of([rule])),
                &self.progress,
                &self.clock,
                self.ssh.random.as_ref(),
                &limits(),
            )
        });
        collected
            .map(|(facts, _)| facts)
            .map_err(|failure| Fault::new(FaultKind::Check, self.fault(&failure).what))
    }

    fn fault(&self, failure: &Failure) -> Fault {
        let Failure { reason, detail } = failure;
        let what = match reason {
            Reason::Internal => detail.clone(),
            reason => format!("{reason}: {detail}"),
        };
        Fault::refused(&self.host, what)
    }
}

fn limits() -> capture::Limits {
    capture::Limits {
        deadline: SESSION_DEADLINE,
        ..capture::Limits::default()
    }
}
