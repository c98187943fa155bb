//! Scans that were recorded and not looked at yet by whoever raises alerts.
//!
//! One row a scan, written in the transaction of the apply and deleted in the transaction that draws
//! its conclusions: the rows that are there are the cursor. They lie by host, in the order in which
//! its scans were recorded, which time does not tell: a result may be handed over late.

use serde::{Deserialize, Serialize};
use store::{Keys, Snapshot, Transaction};

use super::{
    Cause, Error, Scan, decode, encode,
    row::{Change, ChangeKind, Tables},
};
use crate::{
    judge::{Outcome, Summary},
    rule::Severity,
};

/// Rows of one host that are kept where nobody looks, as on a machine that only ever runs
/// `holdfast scan`: two days of a scan an hour, and some. The oldest go first.
pub const RECENT_MAX: u64 = 64;

/// What one rule's verdict did in a scan: a change row without what it does not take to judge it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    pub rule: String,
    pub kind: ChangeKind,
    pub from: Option<Outcome>,
    pub to: Outcome,
    pub severity: Severity,
    pub severity_before: Option<Severity>,
    pub because: Vec<Cause>,
}

impl Turn {
    fn of(change: &Change) -> Self {
        Self {
            rule: change.rule.clone(),
            kind: change.kind,
            from: change.from,
            to: change.to,
            severity: change.severity,
            severity_before: change.severity_before,
            because: change.because.clone(),
        }
    }
}

/// One scan of one host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recent {
    pub host: String,
    /// Which scan of the host it is, from 1.
    pub number: u64,
    pub scan_id: String,
    /// Nanoseconds since the epoch.
    pub finished: u64,
    pub summary: Summary,
    /// Every turn; of a host's first scan only what fails, since all of it is seen for the first time.
    pub turns: Vec<Turn>,
    /// Rules that were judged the scan before and are not any more.
    pub gone: Vec<String>,
}

/// Which scan: the key of its row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RecentKey(Vec<u8>);

impl RecentKey {
    fn new(host: &str, number: u64) -> Self {
        let mut key = host.as_bytes().to_vec();
        key.push(0);
        key.extend_from_slice(&number.to_be_bytes());
        Self(key)
    }
}

/// Leaves `changes` of the scan that was recorded as the host's `number`th for whoever looks.
pub(super) fn leave(
    transaction: &mut Transaction,
    tables: &Tables,
    scan: &Scan,
    number: u64,
    changes: &[Change],
    gone: Vec<String>,
) -> Result<(), Error> {
    let is_wanted = |change: &&Change| number > 1 || change.to == Outcome::Fail;
    let recent = Recent {
        host: scan.host.clone(),
        number,
        scan_id: scan.id.to_string(),
        finished: scan.finished.nanos(),
        summary: scan.summary.clone(),
        turns: changes.iter().filter(is_wanted).map(Turn::of).collect(),
        gone,
    };
    let key = RecentKey::new(&scan.host, number);
    transaction.put(tables.recent, &key.0, &encode(&recent))?;
    if let Some(old) = number.checked_sub(RECENT_MAX).filter(|old| *old > 0) {
        transaction.delete(tables.recent, &RecentKey::new(&scan.host, old).0)?;
    }
    Ok(())
}

/// At most `limit` scans that wait, each host's in their order.
pub(crate) fn waiting(
    snapshot: &Snapshot,
    tables: &Tables,
    limit: usize,
) -> Result<Vec<RecentKey>, Error> {
    let keys = snapshot.range(tables.recent, &Keys::all())?.take(limit);
    keys.map(|item| Ok(RecentKey(item?.0.to_vec()))).collect()
}

/// Takes a scan that waits, to be looked at in this transaction. `None`: another has taken it.
pub(crate) fn take_in(
    transaction: &mut Transaction,
    tables: &Tables,
    key: &RecentKey,
) -> Result<Option<Recent>, Error> {
    let found = transaction.get(tables.recent, &key.0)?;
    if found.is_some() {
        transaction.delete(tables.recent, &key.0)?;
    }
    found.map(|value| decode(&value)).transpose()
}
