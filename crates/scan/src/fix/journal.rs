//! The record of fixes: what each was to do, what it found before, and how far it came.
//!
//! A fix has one row that never changes (its effects with the captured states), and one small row
//! that says how far it is, rewritten before each effect. While it is neither kept nor undone its
//! host has a row that admits no second fix.

use std::{collections::VecDeque, fmt};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use store::{History, Keys, Snapshot, Store, Table, TableId};

use world::Timestamp;

use super::{Effect, Fault, FaultKind, State};
use crate::{
    audit::{Audit, Record},
    rule::Rule,
};

const PLANS: &str = "fix.plan";
const PHASES: &str = "fix.phase";
const OPEN: &str = "fix.open";

/// Fixes that one answer lists, the latest. A site that fixes ten hosts a day gets here in a year.
const LISTED_MAX: usize = 4096;

pub(super) fn tables() -> Vec<Table> {
    [
        (PLANS, History::Latest),
        (PHASES, History::Latest),
        (OPEN, History::Latest),
    ]
    .into_iter()
    .map(|(name, history)| Table::new(name, history))
    .collect()
}

/// How far a fix is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// On record, nothing touched.
    Planned,
    /// Every object was found as planned; nothing touched but the timed rollback.
    Captured,
    /// This effect is begun or done, later ones are not.
    Applying(usize),
    /// Every effect is done, the rule is not judged yet.
    Applied,
    Kept,
    RolledBack,
    /// Something could not be put back: the note names it.
    RollbackFailed,
    /// Undone after an interruption.
    Recovered,
}

impl Phase {
    /// Nothing is left to do.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Kept | Self::RolledBack | Self::Recovered)
    }

    pub fn name(self) -> String {
        match self {
            Self::Planned => "planned".to_owned(),
            Self::Captured => "captured".to_owned(),
            Self::Applying(step) => format!("applying({})", step + 1),
            Self::Applied => "applied".to_owned(),
            Self::Kept => "kept".to_owned(),
            Self::RolledBack => "rolled_back".to_owned(),
            Self::RollbackFailed => "rollback_failed".to_owned(),
            Self::Recovered => "recovered".to_owned(),
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name())
    }
}

/// One fix of one rule on one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fix {
    pub intent: Intent,
    pub progress: Progress,
}

/// What does not change after the fix was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    pub id: String,
    pub rule: String,
    pub rule_digest: String,
    pub host: String,
    /// A directory that stands for the host, where it is not the host itself.
    pub root: String,
    pub effects: Vec<Effect>,
    /// Seconds after which the host puts everything back by itself; `None` where none is needed.
    pub timer_seconds: Option<u64>,
    /// Nanoseconds since the epoch, as everywhere.
    pub begun: u64,
    pub by: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub phase: Phase,
    /// Why it was not kept, or what could not be put back.
    pub note: String,
    pub changed: u64,
    /// How each object of the effects was left, for a kept fix: what a later rollback expects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<Option<State>>,
}

impl Fix {
    /// A fix of `rule` that is about to begin. The id begins with the time, so that ids sort by it,
    /// and ends with a random `tail`.
    pub fn begin(rule: &Rule, host: &str, root: &str, by: &str, now: Timestamp, tail: u32) -> Self {
        let seconds = now.nanos() / 1_000_000_000;
        Self {
            intent: Intent {
                id: format!("{seconds:08x}{tail:08x}"),
                rule: rule.id.clone(),
                rule_digest: rule.digest.clone(),
                host: host.to_owned(),
                root: root.to_owned(),
                effects: Vec::new(),
                timer_seconds: None,
                begun: now.nanos(),
                by: by.to_owned(),
            },
            progress: Progress {
                phase: Phase::Planned,
                note: String::new(),
                changed: now.nanos(),
                left: Vec::new(),
            },
        }
    }

    pub fn id(&self) -> &str {
        &self.intent.id
    }
}

/// Where a fix is written down. Every call returns after the record is durable.
pub trait Journal {
    /// The first record of a fix. Refused while the host has another that is not final.
    fn begin(&mut self, fix: &Fix) -> Result<(), Fault>;
    /// How far the fix is now.
    fn record(&mut self, fix: &Fix) -> Result<(), Fault>;
}

/// The record in a store.
#[derive(Clone)]
pub struct Fixes {
    store: Store,
    plans: TableId,
    phases: TableId,
    open: TableId,
    audit: Audit,
}

impl fmt::Debug for Fixes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fixes")
    }
}

impl Fixes {
    /// On a store that has [`super::tables`] and those of the audit log.
    pub fn new(store: Store) -> Result<Self, Fault> {
        let table = |name| store.table(name).map_err(|error| in_store(&error));
        Ok(Self {
            plans: table(PLANS)?,
            phases: table(PHASES)?,
            open: table(OPEN)?,
            audit: Audit::of(&store).map_err(|error| in_store(&error))?,
            store,
        })
    }

    /// The latest fixes on record, the latest first. Ids begin with the time.
    pub fn list(&self) -> Result<Vec<Fix>, Fault> {
        let snapshot = self.store.snapshot().map_err(|error| in_store(&error))?;
        let rows = snapshot
            .range(self.plans, &Keys::all())
            .map_err(|error| in_store(&error))?;
        let mut latest = VecDeque::new();
        for row in rows {
            if latest.len() == LISTED_MAX {
                latest.pop_front();
            }
            latest.push_back(row.map_err(|error| in_store(&error))?.0);
        }
        let fixes = latest.iter().rev().map(|key| self.read(&snapshot, key));
        fixes.collect()
    }

    /// Fixes that were interrupted, or could not be undone: at most one a host.
    pub fn unfinished(&self) -> Result<Vec<Fix>, Fault> {
        let snapshot = self.store.snapshot().map_err(|error| in_store(&error))?;
        let open = snapshot
            .range(self.open, &Keys::all())
            .map_err(|error| in_store(&error))?;
        open.map(|row| {
            let (_, id) = row.map_err(|error| in_store(&error))?;
            self.read(&snapshot, &id)
        })
        .collect()
    }

    fn read(&self, snapshot: &Snapshot, id: &[u8]) -> Result<Fix, Fault> {
        let get = |table| {
            let row = snapshot.get(table, id).map_err(|error| in_store(&error))?;
            row.ok_or_else(|| {
                let id = String::from_utf8_lossy(id);
                Fault::new(FaultKind::Record, format!("fix {id}: a row is missing"))
            })
        };
        Ok(Fix {
            intent: decode(&get(self.plans)?)?,
            progress: decode(&get(self.phases)?)?,
        })
    }
}

impl Journal for Fixes {
    fn begin(&mut self, fix: &Fix) -> Result<(), Fault> {
        let id = fix.id().as_bytes();
        let host = fix.intent.host.as_bytes();
        self.store.transact(|transaction| {
            let other = transaction.get(self.open, host)?;
            if let Some(other) = other.filter(|other| other[..] != *id) {
                let other = String::from_utf8_lossy(&other).into_owned();
                let what = format!("host {}: fix {other} is not finished", fix.intent.host);
                return Err(Fault::new(FaultKind::Busy, what));
            }
            transaction.put(self.open, host, id)?;
            transaction.put(self.plans, id, &encode(&fix.intent))?;
            transaction.put(self.phases, id, &encode(&fix.progress))?;
            Ok(self.audit.append(transaction, &told(fix, "fix.begun"))?)
        })
    }

    fn record(&mut self, fix: &Fix) -> Result<(), Fault> {
        let id = fix.id().as_bytes();
        let phase = fix.progress.phase;
        self.store.transact(|transaction| {
            if phase.is_final() {
                transaction.delete(self.open, fix.intent.host.as_bytes())?;
            }
            if phase.is_final() || phase == Phase::RollbackFailed {
                let action = format!("fix.{}", phase.name());
                self.audit.append(transaction, &told(fix, &action))?;
            }
            Ok(transaction.put(self.phases, id, &encode(&fix.progress))?)
        })
    }
}

fn told(fix: &Fix, action: &str) -> Record {
    let detail = serde_json::json!({
        "id": fix.id(),
        "rule": fix.intent.rule,
        "rule_digest": fix.intent.rule_digest,
        "note": fix.progress.note,
    });
    Record {
        at: fix.progress.changed,
        actor: fix.intent.by.clone(),
        action: action.to_owned(),
        object: fix.intent.host.clone(),
        detail,
    }
}

impl From<store::Error> for Fault {
    fn from(error: store::Error) -> Self {
        in_store(&error)
    }
}

fn in_store(error: &store::Error) -> Fault {
    Fault::new(FaultKind::Record, format!("the record of fixes: {error}"))
}

fn encode<T: Serialize>(row: &T) -> Vec<u8> {
    serde_json::to_vec(row).expect("rows are plain structs with string keys")
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(bytes)
        .map_err(|error| Fault::new(FaultKind::Record, format!("a row of a fix: {error}")))
}
