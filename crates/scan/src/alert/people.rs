//! What people do with alerts.

use std::{collections::BTreeSet, fmt, time::Duration};

use store::{Snapshot, Store, Transaction};
use wal::Lsn;
use world::Timestamp;

use super::{
    Alert, Error, ErrorKind, Kind, Severity, Silence, State,
    rows::{Rows, step},
};

/// Longest silence: what nobody wants to hear of for longer is waived, with somebody who owns it.
pub const SILENCE_MAX: Duration = Duration::from_secs(90 * 86_400);
/// Alerts of one answer.
pub const LIST_MAX: usize = 10_000;
/// Attempts before a conflict is given back.
const ATTEMPTS_MAX: u32 = 8;
/// Characters of a reason; a paragraph.
const WHY_CHARS_MAX: usize = 1000;

/// After a conflict again, on what is there then.
pub(super) fn retried<T>(mut attempt: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let mut attempts = 1;
    loop {
        match attempt() {
            Err(Error {
                kind: ErrorKind::Conflict,
                ..
            }) if attempts < ATTEMPTS_MAX => attempts += 1,
            settled => return settled,
        }
    }
}

/// Which alerts are asked for. Empty sets let everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub states: BTreeSet<State>,
    pub kinds: BTreeSet<Kind>,
    pub host: Option<String>,
    pub minimum: Option<Severity>,
}

impl Wanted {
    fn lets_through(&self, alert: &Alert) -> bool {
        (self.states.is_empty() || self.states.contains(&alert.state))
            && (self.kinds.is_empty() || self.kinds.contains(&alert.key.kind))
            && (self.host.is_none() || self.host == alert.key.host)
            && self.minimum.is_none_or(|minimum| alert.severity >= minimum)
    }

    fn is_of_open(&self) -> bool {
        !self.states.is_empty() && !self.states.contains(&State::Resolved)
    }
}

/// The alerts, on a store that has [`super::tables`] and [`crate::audit::Audit::tables`].
#[derive(Clone)]
pub struct Alerts {
    store: Store,
    rows: Rows,
}

impl fmt::Debug for Alerts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Alerts")
    }
}

impl Alerts {
    pub fn new(store: Store) -> Result<Self, Error> {
        Ok(Self {
            rows: Rows::of(&store)?,
            store,
        })
    }

    /// Newest first, at most [`LIST_MAX`]; as it was at a moment where one is given.
    pub fn list(&self, wanted: &Wanted, at: Option<Timestamp>) -> Result<Vec<Alert>, Error> {
        let Some(snapshot) = self.snapshot(at)? else {
            return Ok(Vec::new());
        };
        let mut found = if wanted.is_of_open() {
            self.rows.open(&snapshot)?
        } else {
            self.rows.newest(&snapshot, LIST_MAX)?
        };
        found.retain(|alert| wanted.lets_through(alert));
        found.sort_by_key(|alert| std::cmp::Reverse(alert.id));
        found.truncate(LIST_MAX);
        Ok(found)
    }

    pub fn get(&self, id: u64, at: Option<Timestamp>) -> Result<Option<Alert>, Error> {
        match self.snapshot(at)? {
            Some(snapshot) => self.rows.get(&snapshot, id),
            None => Ok(None),
        }
    }

    /// Somebody has seen it and sees to it.
    pub fn acknowledge(
        &self,
        id: u64,
        why: &str,
        now: Timestamp,
        by: &str,
    ) -> Result<Alert, Error> {
        self.transact(|transaction| self.acknowledge_in(transaction, id, why, now, by))
    }

    /// As [`Alerts::acknowledge`], in somebody else's transaction, as all of these.
    pub fn acknowledge_in(
        &self,
        transaction: &mut Transaction,
        id: u64,
        why: &str,
        now: Timestamp,
        by: &str,
    ) -> Result<Alert, Error> {
        let step = checked(now, by, why)?;
        let mut alert = self.current_in(transaction, id)?;
        alert.acknowledged = Some(step.clone());
        // Who acknowledges ends the quiet too.
        alert.silenced = None;
        alert.tell_at = None;
        let (state, action) = (State::Acknowledged, "alert.acknowledged");
        self.rows
            .step_in(transaction, &mut alert, state, &step, action)?;
        Ok(alert)
    }

    /// Nobody is told of it until then; also where it is over and comes back before.
    pub fn silence(
        &self,
        id: u64,
        until: Timestamp,
        why: &str,
        now: Timestamp,
        by: &str,
    ) -> Result<Alert, Error> {
        self.transact(|transaction| self.silence_in(transaction, id, until, why, now, by))
    }

    pub fn silence_in(
        &self,
        transaction: &mut Transaction,
        id: u64,
        until: Timestamp,
        why: &str,
        now: Timestamp,
        by: &str,
    ) -> Result<Alert, Error> {
        let refuse = |detail: &str, next: &str| Err(Error::new(ErrorKind::Refused, detail, next));
        if until <= now {
            return refuse("the silence ends before it begins", "give a later moment");
        }
        if until > now.plus(SILENCE_MAX) {
            return refuse(
                "the silence lasts for more than 90 days",
                "give an earlier end, or have the failure waived: `holdfast waiver add`",
            );
        }
        let step = checked(now, by, why)?;
        let mut alert = self.current_in(transaction, id)?;
        alert.silenced = Some(Silence {
            until: until.nanos(),
            step: step.clone(),
            waiver: None,
        });
        alert.tell_at = None;
        let (state, action) = (State::Silenced, "alert.silenced");
        self.rows
            .step_in(transaction, &mut alert, state, &step, action)?;
        Ok(alert)
    }

    /// It is over because somebody says so. What is so still comes back with its next occurrence.
    pub fn resolve(&self, id: u64, why: &str, now: Timestamp, by: &str) -> Result<Alert, Error> {
        self.transact(|transaction| self.resolve_in(transaction, id, why, now, by))
    }

    pub fn resolve_in(
        &self,
        transaction: &mut Transaction,
        id: u64,
        why: &str,
        now: Timestamp,
        by: &str,
    ) -> Result<Alert, Error> {
        let step = checked(now, by, why)?;
        let mut alert = self.current_in(transaction, id)?;
        alert.resolved = Some(step.clone());
        alert.tell_at = None;
        alert.silenced = None;
        let (state, action) = (State::Resolved, "alert.resolved");
        self.rows
            .step_in(transaction, &mut alert, state, &step, action)?;
        Ok(alert)
    }

    /// One that is not over: the same again opens that, and nobody else.
    fn current_in(&self, transaction: &mut Transaction, id: u64) -> Result<Alert, Error> {
        let alert = self.rows.get_in(transaction, id)?.ok_or_else(|| {
            let next = "`holdfast alert list --all` names those there are";
            Error::new(ErrorKind::Missing, format!("no alert {id}"), next)
        })?;
        if alert.state == State::Resolved {
            return Err(Error::new(
                ErrorKind::Refused,
                format!("alert {id} is over"),
                format!("`holdfast alert show {id}` tells what became of it"),
            ));
        }
        Ok(alert)
    }

    fn transact(
        &self,
        mut change: impl FnMut(&mut Transaction) -> Result<Alert, Error>,
    ) -> Result<Alert, Error> {
        retried(|| {
            let mut transaction = self.store.begin()?;
            let alert = change(&mut transaction)?;
            transaction.commit()?;
            Ok(alert)
        })
    }

    /// `None` for a moment before anything was recorded, which is an answer and not an error.
    fn snapshot(&self, at: Option<Timestamp>) -> Result<Option<Snapshot>, Error> {
        let Some(at) = at else {
            return Ok(Some(self.store.snapshot()?));
        };
        let from = self.store.retained()?.from;
        if from.lsn == Lsn::ZERO && at < from.time {
            return Ok(None);
        }
        Ok(Some(self.store.snapshot_at_time(at)?))
    }
}

fn checked(now: Timestamp, by: &str, why: &str) -> Result<super::Step, Error> {
    let is_text =
        |text: &str| text.chars().count() <= WHY_CHARS_MAX && !text.chars().any(char::is_control);
    if !is_text(why) || !is_text(by) || by.trim().is_empty() {
        return Err(Error::new(
            ErrorKind::Refused,
            format!("a reason or a name is not at most {WHY_CHARS_MAX} characters on one line"),
            "give one that tells somebody else something",
        ));
    }
    Ok(step(now, by.trim(), why.trim()))
}
