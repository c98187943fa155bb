//! Which hosts are left alone.

use std::collections::HashSet;

use serde_json::json;
use store::{History, Keys, Order, Snapshot, Store, Table, TableId, Transaction};
use world::Timestamp;

use super::{Error, Kind, Maintenance, Scope};
use crate::{
    audit::{Audit, Record},
    schedule::Row,
};

const TABLE: &str = "schedule.maintenance";

/// Most that may be set: a tick reads them all. Whole sites and groups need one each.
pub(super) const MAINTENANCES_MAX: usize = 10_000;
/// Bytes of a reason, a line or two. Arbitrary.
const REASON_LEN_MAX: usize = 500;

#[derive(Clone, Copy, Debug)]
pub(super) struct Maintenances {
    table: TableId,
    audit: Audit,
}

/// Those that hold at one moment.
#[derive(Debug, Default)]
pub(super) struct Blocked(HashSet<Scope>);

impl Blocked {
    pub(super) fn blocks(&self, row: &Row) -> bool {
        !self.0.is_empty()
            && (self.0.contains(&Scope::Host(row.host.clone()))
                || self.0.contains(&Scope::Site(row.site.clone()))
                || row
                    .groups
                    .iter()
                    .any(|group| self.0.contains(&Scope::Group(group.clone()))))
    }
}

impl Maintenances {
    pub(super) fn tables() -> Vec<Table> {
        vec![Table::new(TABLE, History::Latest)]
    }

    pub(super) fn of(store: &Store) -> Result<Self, store::Error> {
        Ok(Self {
            table: store.table(TABLE)?,
            audit: Audit::of(store)?,
        })
    }

    pub(super) fn list(&self, snapshot: &Snapshot) -> Result<Vec<Maintenance>, Error> {
        snapshot
            .range(self.table, &Keys::all())?
            .map(|item| decode(&item?.1))
            .collect()
    }

    pub(super) fn set_in(
        &self,
        transaction: &mut Transaction,
        maintenance: &Maintenance,
        now: Timestamp,
        actor: &str,
    ) -> Result<(), Error> {
        if maintenance.ended(now) {
            return Err(Error::new(
                Kind::Invalid,
                "maintenance that has ended already",
            ));
        }
        if maintenance.reason.len() > REASON_LEN_MAX {
            let message = format!("a reason of more than {REASON_LEN_MAX} bytes");
            return Err(Error::new(Kind::Invalid, message));
        }
        let before = self.get_in(transaction, &maintenance.scope)?;
        if before.is_none() && self.all_in(transaction)?.len() >= MAINTENANCES_MAX {
            let message = format!("{MAINTENANCES_MAX} maintenances are set, clear some first");
            return Err(Error::new(Kind::Invalid, message));
        }
        let value = serde_json::to_vec(maintenance).expect("a plain struct with string keys");
        transaction.put(self.table, &key(&maintenance.scope)?, &value)?;
        let after = Some(maintenance);
        self.record(transaction, before.as_ref(), after, now, actor)
    }

    pub(super) fn clear_in(
        &self,
        transaction: &mut Transaction,
        scope: &Scope,
        now: Timestamp,
        actor: &str,
    ) -> Result<bool, Error> {
        let Some(before) = self.get_in(transaction, scope)? else {
            return Ok(false);
        };
        transaction.delete(self.table, &key(scope)?)?;
        self.record(transaction, Some(&before), None, now, actor)?;
        Ok(true)
    }

    /// Those that hold at `now`; those that have ended are cleared.
    pub(super) fn in_force_in(
        &self,
        transaction: &mut Transaction,
        now: Timestamp,
    ) -> Result<Blocked, Error> {
        let mut blocked = Blocked::default();
        for maintenance in self.all_in(transaction)? {
            if maintenance.ended(now) {
                self.clear_in(transaction, &maintenance.scope, now, super::SCHEDULER)?;
            } else {
                blocked.0.insert(maintenance.scope);
            }
        }
        Ok(blocked)
    }

    fn all_in(&self, transaction: &mut Transaction) -> Result<Vec<Maintenance>, Error> {
        let order = Order::Ascending;
        transaction
            .range(self.table, &Keys::all(), order, MAINTENANCES_MAX)?
            .iter()
            .map(|(_, value)| decode(value))
            .collect()
    }

    fn get_in(
        &self,
        transaction: &mut Transaction,
        scope: &Scope,
    ) -> Result<Option<Maintenance>, Error> {
        let found = transaction.get(self.table, &key(scope)?)?;
        found.map(|value| decode(&value)).transpose()
    }

    fn record(
        &self,
        transaction: &mut Transaction,
        before: Option<&Maintenance>,
        after: Option<&Maintenance>,
        at: Timestamp,
        actor: &str,
    ) -> Result<(), Error> {
        let (action, kind) = match after {
            Some(_) => ("maintenance.set", "maintenance_set"),
            None => ("maintenance.cleared", "maintenance_cleared"),
        };
        let object = before
            .or(after)
            .map_or_else(String::new, |it| it.scope.to_string());
        let detail = json!({ "kind": kind, "before": before, "after": after });
        let record = Record::new(at, actor, action, &object, detail);
        Ok(self.audit.append(transaction, &record)?)
    }
}

fn key(scope: &Scope) -> Result<Vec<u8>, Error> {
    let (kind, name) = scope.parts();
    crate::schedule::check_name(kind, name)?;
    Ok([kind.as_bytes(), name.as_bytes()].join(&0))
}

fn decode(value: &[u8]) -> Result<Maintenance, Error> {
    serde_json::from_slice(value).map_err(|error| {
        Error::new(Kind::Storage, "a maintenance does not decode").with_source(error)
    })
}
