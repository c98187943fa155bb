//! What the schedule counted, kept beside it so that another process can show it.
//!
//! One row for each that counts: those who tick do not get into the way of those who claim.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use store::{History, Snapshot, Store, Table, TableId, Transaction};
use world::Timestamp;

use super::{Counters, Error, Kind, Tick};

const TABLE: &str = "schedule.counter";

/// The counters in an open store.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    table: TableId,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Ticks {
    ticks: u64,
    last_tick: Option<u64>,
    last: Tick,
    total: Tick,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Refusals {
    refused: u64,
    hmac_rejected: u64,
}

const TICKS: &[u8] = b"ticks";
const REFUSALS: &[u8] = b"refusals";
const CLAMPED: &[u8] = b"clamped";
const REAPED: &[u8] = b"reaped";

impl Counts {
    pub fn tables() -> Vec<Table> {
        vec![Table::new(TABLE, History::Latest)]
    }

    pub fn of(store: &Store) -> Result<Self, store::Error> {
        Ok(Self {
            table: store.table(TABLE)?,
        })
    }

    /// Counts intervals that were out of bounds, for whoever puts a policy into force.
    pub fn clamped_in(
        &self,
        transaction: &mut Transaction,
        count: u64,
    ) -> Result<(), store::Error> {
        self.add_in::<u64>(transaction, CLAMPED, |clamped| *clamped += count)
    }

    pub(super) fn ticked_in(
        &self,
        transaction: &mut Transaction,
        now: Timestamp,
        tick: Tick,
    ) -> Result<(), store::Error> {
        self.add_in::<Ticks>(transaction, TICKS, |ticks| {
            ticks.ticks += 1;
            ticks.last_tick = Some(now.nanos());
            ticks.last = tick;
            ticks.total = ticks.total.plus(tick);
        })
    }

    pub(super) fn refused_in(
        &self,
        transaction: &mut Transaction,
        refused: u64,
        hmac_rejected: u64,
    ) -> Result<(), store::Error> {
        self.add_in::<Refusals>(transaction, REFUSALS, |refusals| {
            refusals.refused += refused;
            refusals.hmac_rejected += hmac_rejected;
        })
    }

    pub(super) fn reaped_in(
        &self,
        transaction: &mut Transaction,
        count: u64,
    ) -> Result<(), store::Error> {
        self.add_in::<u64>(transaction, REAPED, |reaped| *reaped += count)
    }

    pub(super) fn read(&self, snapshot: &Snapshot) -> Result<Counters, Error> {
        let ticks: Ticks = self.row(snapshot, TICKS)?;
        let refusals: Refusals = self.row(snapshot, REFUSALS)?;
        Ok(Counters {
            ticks: ticks.ticks,
            last_tick: ticks.last_tick,
            last: ticks.last,
            total: ticks.total,
            refused: refusals.refused,
            hmac_rejected: refusals.hmac_rejected,
            clamped: self.row(snapshot, CLAMPED)?,
            reaped: self.row(snapshot, REAPED)?,
        })
    }

    fn row<T: DeserializeOwned + Default>(
        &self,
        snapshot: &Snapshot,
        key: &[u8],
    ) -> Result<T, Error> {
        let found = snapshot.get(self.table, key)?;
        found.map_or_else(|| Ok(T::default()), |value| decode(&value))
    }

    fn add_in<T: Serialize + DeserializeOwned + Default>(
        &self,
        transaction: &mut Transaction,
        key: &[u8],
        add: impl FnOnce(&mut T),
    ) -> Result<(), store::Error> {
        let found = transaction.get(self.table, key)?;
        // One that does not decode begins again: a counter is no reason to stop a tick.
        let mut row: T = found.map_or_else(T::default, |value| decode(&value).unwrap_or_default());
        add(&mut row);
        let value = serde_json::to_vec(&row).expect("plain numbers");
        transaction.put(self.table, key, &value)
    }
}

impl Tick {
    #[must_use]
    fn plus(self, more: Self) -> Self {
        Self {
            due: self.due + more.due,
            dispatched: self.dispatched + more.dispatched,
            skipped_maintenance: self.skipped_maintenance + more.skipped_maintenance,
            skipped_backoff: self.skipped_backoff + more.skipped_backoff,
            skipped_unfinished: self.skipped_unfinished + more.skipped_unfinished,
            left: self.left + more.left,
        }
    }
}

fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(value).map_err(|error| {
        Error::new(Kind::Storage, "a counter of the schedule does not decode").with_source(error)
    })
}
