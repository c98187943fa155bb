//! The rows of alerts, and the only way to move one from state to state.

use std::time::Duration;

use serde_json::json;
use store::{Bytes, History, Keys, Order, Snapshot, Store, Table, TableId, Transaction};
use world::Timestamp;

use super::{ACTOR, Alert, Error, ErrorKind, Event, Key, Severity, Silence, State, Step, What};
use crate::audit::{Audit, Record};

const ALERTS: &str = "alert.alert";
const KEYS: &str = "alert.key";
const OPEN: &str = "alert.open";

/// Within this time after it was over, the same again is the same alert: a day, so that what comes back
/// every night is one thing.
pub(super) const REOPEN_WITHIN: Duration = Duration::from_secs(24 * 3600);
/// Nobody is told again of what came back within this time, and within twice, four times … of it the
/// next times: an hour is what others keep repeated alerts for.
const QUIET: Duration = Duration::from_secs(3600);
/// Longest quiet: what is open is told of once a day at least.
const QUIET_MAX: Duration = Duration::from_secs(24 * 3600);
/// Alerts that are not over, of which one look takes notice: every rule on hundreds of hosts.
pub(super) const OPEN_MAX: usize = 100_000;
/// Characters of a detail: two lines of a terminal.
const DETAIL_CHARS_MAX: usize = 300;

#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    alerts: TableId,
    /// Host, kind and subject: to the id of the newest of that key.
    keys: TableId,
    /// Ids of those that are not over: no value. With history, as the alerts have.
    open: TableId,
    audit: Audit,
}

/// Something is so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Raise {
    pub(super) severity: Severity,
    pub(super) detail: String,
    /// When it was so.
    pub(super) at: Timestamp,
    /// A waiver that covers it: its number and end.
    pub(super) waiver: Option<(u32, u64)>,
}

impl Raise {
    pub(super) fn new(severity: Severity, detail: &str, at: Timestamp) -> Self {
        let plain = detail
            .chars()
            .map(|char| if char.is_control() { ' ' } else { char });
        Self {
            severity,
            detail: plain.take(DETAIL_CHARS_MAX).collect(),
            at,
            waiver: None,
        }
    }
}

impl Rows {
    pub(super) fn tables() -> Vec<Table> {
        vec![
            Table::new(ALERTS, History::Forever),
            Table::new(KEYS, History::Latest),
            Table::new(OPEN, History::Forever),
        ]
    }

    pub(super) fn of(store: &Store) -> Result<Self, store::Error> {
        Ok(Self {
            alerts: store.table(ALERTS)?,
            keys: store.table(KEYS)?,
            open: store.table(OPEN)?,
            audit: Audit::of(store)?,
        })
    }

    pub(super) fn get_in(
        &self,
        transaction: &mut Transaction,
        id: u64,
    ) -> Result<Option<Alert>, Error> {
        let found = transaction.get(self.alerts, &id.to_be_bytes())?;
        found.map(|row| decode(&row)).transpose()
    }

    pub(super) fn get(&self, snapshot: &Snapshot, id: u64) -> Result<Option<Alert>, Error> {
        let found = snapshot.get(self.alerts, &id.to_be_bytes())?;
        found.map(|row| decode(&row)).transpose()
    }

    /// The newest of a key, over or not.
    pub(super) fn newest_in(
        &self,
        transaction: &mut Transaction,
        key: &Key,
    ) -> Result<Option<Alert>, Error> {
        let Some(id) = transaction.get(self.keys, &key.bytes())? else {
            return Ok(None);
        };
        self.get_in(transaction, id_of(&id)?)
    }

    /// Those that are not over, oldest first.
    pub(super) fn open(&self, snapshot: &Snapshot) -> Result<Vec<Alert>, Error> {
        let mut open = Vec::new();
        for item in snapshot.range(self.open, &Keys::all())?.take(OPEN_MAX) {
            open.extend(self.get(snapshot, id_of(&item?.0)?)?);
        }
        Ok(open)
    }

    /// The newest `limit`, newest first.
    pub(super) fn newest(&self, snapshot: &Snapshot, limit: usize) -> Result<Vec<Alert>, Error> {
        let rows = snapshot.range(self.alerts, &Keys::all())?.rev().take(limit);
        rows.map(|item| decode(&item?.1)).collect()
    }

    /// Makes, counts up or reopens the alert of `key`. Gives what receivers are told, if anything.
    pub(super) fn raise_in(
        &self,
        transaction: &mut Transaction,
        key: &Key,
        raise: &Raise,
        now: Timestamp,
    ) -> Result<Option<Event>, Error> {
        match self.newest_in(transaction, key)? {
            Some(mut alert) if alert.state != State::Resolved => {
                again(&mut alert, raise);
                self.put_in(transaction, &alert)?;
                Ok(None)
            }
            Some(alert) if is_recent(&alert, now) => self.reopen_in(transaction, alert, raise, now),
            _ => self.open_in(transaction, key, raise, now),
        }
    }

    fn open_in(
        &self,
        transaction: &mut Transaction,
        key: &Key,
        raise: &Raise,
        now: Timestamp,
    ) -> Result<Option<Event>, Error> {
        let last = transaction.range(self.alerts, &Keys::all(), Order::Descending, 1)?;
        let last = last.first().map(|(id, _)| id_of(id)).transpose()?;
        let mut alert = Alert {
            id: last.unwrap_or(0) + 1,
            key: key.clone(),
            severity: raise.severity,
            state: State::Open,
            detail: raise.detail.clone(),
            first: raise.at.nanos(),
            last: raise.at.nanos(),
            count: 1,
            reopened: 0,
            acknowledged: None,
            silenced: None,
            resolved: None,
            told: None,
            tellings: 0,
            tell_at: None,
        };
        transaction.put(self.keys, &key.bytes(), &alert.id.to_be_bytes())?;
        if key.kind.is_announcement() {
            alert.state = State::Resolved;
            alert.resolved = Some(step(now, ACTOR, "an announcement"));
        } else if let Some((waiver, until)) = raise.waiver {
            alert.state = State::Silenced;
            alert.silenced = Some(by_waiver(waiver, until, now));
        }
        let is_told = alert.state != State::Silenced;
        if is_told {
            tell(&mut alert, now);
        }
        self.put_in(transaction, &alert)?;
        self.audit_in(
            transaction,
            "alert.opened",
            &alert,
            None,
            &step(now, ACTOR, ""),
        )?;
        Ok(is_told.then(|| Event::of(What::Opened, &alert)))
    }

    /// The same again. Told of at once where nobody was told of it for long enough, and otherwise
    /// then, should it be open still.
    fn reopen_in(
        &self,
        transaction: &mut Transaction,
        mut alert: Alert,
        raise: &Raise,
        now: Timestamp,
    ) -> Result<Option<Event>, Error> {
        again(&mut alert, raise);
        alert.reopened = alert.reopened.saturating_add(1);
        let tell_at = alert.told.map_or(now, |told| {
            Timestamp::from_nanos(told).plus(quiet(alert.tellings))
        });
        let is_told = tell_at <= now;
        if alert.key.kind.is_announcement() {
            if is_told {
                tell(&mut alert, now);
            }
            self.put_in(transaction, &alert)?;
            return Ok(is_told.then(|| Event::of(What::Opened, &alert)));
        }
        if let Some((waiver, until)) = raise.waiver {
            alert.silenced = Some(by_waiver(waiver, until, now));
        }
        let silence = alert.silenced.as_ref();
        if silence.is_some_and(|silence| silence.until > now.nanos()) {
            let by = step(now, ACTOR, "it is so again");
            self.step_in(
                transaction,
                &mut alert,
                State::Silenced,
                &by,
                "alert.reopened",
            )?;
            return Ok(None);
        }
        if is_told {
            tell(&mut alert, now);
        } else {
            alert.tell_at = Some(tell_at.nanos());
        }
        let by = step(now, ACTOR, "it is so again");
        self.step_in(transaction, &mut alert, State::Open, &by, "alert.reopened")?;
        Ok(is_told.then(|| Event::of(What::Reopened, &alert)))
    }

    /// Ends the alert of `key`, if there is one that is not over.
    pub(super) fn end_in(
        &self,
        transaction: &mut Transaction,
        key: &Key,
        why: &str,
        now: Timestamp,
    ) -> Result<Option<Event>, Error> {
        match self.newest_in(transaction, key)? {
            Some(alert) if alert.state != State::Resolved => {
                self.resolve_in(transaction, alert, &step(now, ACTOR, why))
            }
            _ => Ok(None),
        }
    }

    /// Whoever was told that it is open, and that alone, is told that it is over.
    pub(super) fn resolve_in(
        &self,
        transaction: &mut Transaction,
        mut alert: Alert,
        by: &Step,
    ) -> Result<Option<Event>, Error> {
        let is_told =
            alert.told.is_some() && alert.tell_at.is_none() && alert.state != State::Silenced;
        alert.tell_at = None;
        alert.resolved = Some(by.clone());
        self.step_in(
            transaction,
            &mut alert,
            State::Resolved,
            by,
            "alert.resolved",
        )?;
        Ok(is_told.then(|| Event::of(What::Resolved, &alert)))
    }

    /// Receivers are told again of an alert that is open.
    pub(super) fn tell_in(
        &self,
        transaction: &mut Transaction,
        mut alert: Alert,
        what: What,
        now: Timestamp,
    ) -> Result<Event, Error> {
        tell(&mut alert, now);
        self.put_in(transaction, &alert)?;
        Ok(Event::of(what, &alert))
    }

    /// The one place where a state changes: a move that is not in the table is refused.
    pub(super) fn step_in(
        &self,
        transaction: &mut Transaction,
        alert: &mut Alert,
        next: State,
        by: &Step,
        action: &str,
    ) -> Result<(), Error> {
        let before = alert.state;
        if !before.may_become(next) {
            return Err(Error::new(
                ErrorKind::Refused,
                format!("alert {} is {before} and cannot become {next}", alert.id),
                format!("`holdfast alert show {}` tells what became of it", alert.id),
            ));
        }
        alert.state = next;
        if next != State::Resolved {
            alert.resolved = None;
        }
        if next == State::Open {
            alert.acknowledged = None;
        }
        self.put_in(transaction, alert)?;
        self.audit_in(transaction, action, alert, Some(before), by)
    }

    fn put_in(&self, transaction: &mut Transaction, alert: &Alert) -> Result<(), Error> {
        let row = serde_json::to_vec(alert).expect("rows are plain structs with string keys");
        let id = alert.id.to_be_bytes();
        transaction.put(self.alerts, &id, &row)?;
        if alert.state == State::Resolved {
            transaction.delete(self.open, &id)?;
        } else {
            transaction.put(self.open, &id, &[])?;
        }
        Ok(())
    }

    fn audit_in(
        &self,
        transaction: &mut Transaction,
        action: &str,
        alert: &Alert,
        before: Option<State>,
        by: &Step,
    ) -> Result<(), Error> {
        let detail = json!({
            "kind": alert.key.kind,
            "host": alert.key.host,
            "subject": alert.key.subject,
            "severity": alert.severity,
            "before": before,
            "after": alert.state,
            "until": (alert.state == State::Silenced)
                .then(|| alert.silenced.as_ref().map(|silence| silence.until)),
            "reason": by.why,
        });
        let at = Timestamp::from_nanos(by.at);
        let object = format!("alert {}", alert.id);
        let record = Record::new(at, &by.by, action, &object, detail);
        Ok(self.audit.append(transaction, &record)?)
    }
}

fn by_waiver(waiver: u32, until: u64, now: Timestamp) -> Silence {
    Silence {
        until,
        step: step(now, ACTOR, &format!("waiver {waiver} holds")),
        waiver: Some(waiver),
    }
}

fn again(alert: &mut Alert, raise: &Raise) {
    alert.count = alert.count.saturating_add(1);
    alert.last = alert.last.max(raise.at.nanos());
    alert.severity = raise.severity;
    alert.detail.clone_from(&raise.detail);
}

fn is_recent(alert: &Alert, now: Timestamp) -> bool {
    let resolved = alert.resolved.as_ref().map_or(0, |step| step.at);
    Timestamp::from_nanos(resolved).plus(REOPEN_WITHIN) > now
}

fn tell(alert: &mut Alert, now: Timestamp) {
    alert.told = Some(now.nanos());
    alert.tellings = alert.tellings.saturating_add(1);
    alert.tell_at = None;
}

/// Doubles with each time that receivers were told, and not with each time that it came back: what
/// comes and goes by the minute and then stays is told of within the hour.
fn quiet(tellings: u32) -> Duration {
    let factor = 2_u32.saturating_pow(tellings.saturating_sub(1));
    QUIET.saturating_mul(factor).min(QUIET_MAX)
}

pub(super) fn step(at: Timestamp, by: &str, why: &str) -> Step {
    Step {
        at: at.nanos(),
        by: by.to_owned(),
        why: why.to_owned(),
    }
}

fn id_of(bytes: &Bytes) -> Result<u64, Error> {
    let bytes: [u8; 8] = bytes[..]
        .try_into()
        .map_err(|_| Error::storage("the id of an alert has another length"))?;
    Ok(u64::from_be_bytes(bytes))
}

fn decode(row: &[u8]) -> Result<Alert, Error> {
    serde_json::from_slice(row).map_err(|_| Error::storage("an alert does not decode"))
}
