//! A forced promotion: what it may lose, said before it is asked for, and on record before it is done.
//!
//! The tables cannot be written before the takeover, so the order is noted in `node/forced.json` first, with
//! the operator's words, and carried into the audit log by the first commit after it. A crash at any point
//! leaves the note; a note that is in the audit log already is not carried again.

use std::{
    fmt::Write as _,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use replica::{
    group::Group,
    machine::{Order, Outcome, Status, validation::Verdict},
};
use scan::audit::{Audit, Filter, Record};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::Store;
use world::{Clock, Disk, RealClock, RealDisk, Timestamp};

use super::{Settings, cannot, dir, draw, write};
use crate::{exit::Refusal, site::Site};

/// In `node/`.
const FILE: &str = "forced.json";
/// Hundreds of orders; they are made by hand. Beyond it none is taken until the file is moved aside.
const LEN_MAX: u64 = 1 << 20;
/// Stable: people filter by it.
const ACTION: &str = "authority.forced";

/// Held over each change of the file, and over what is done between reading and writing it: orders come on
/// threads of their own, and the one that writes carries meanwhile. A validation or two, no longer.
static CHANGING: Mutex<()> = Mutex::new(());

fn changing() -> MutexGuard<'static, ()> {
    // What is on disk is whole, whoever panicked.
    CHANGING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the operator said.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Statement {
    pub(crate) fenced_by: String,
    pub(crate) actor: String,
    /// Without waiting for copies afterwards.
    pub(crate) alone: bool,
}

/// What may be lost, as far as this node knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Bound {
    node: String,
    /// The end of this node's log.
    own: String,
    /// Said to be acknowledged by the node that writes, and not here.
    missing_records: u64,
    /// Since when nothing was heard of it; none: never since this node was started.
    unheard_seconds: Option<f64>,
    mode: String,
    holder: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Noted {
    id: String,
    at: u64,
    said: Statement,
    /// As the operator saw it.
    bound: Bound,
    /// What the members' answers gave, where it was approved.
    #[serde(default)]
    found: Option<Found>,
    /// None: this node stopped before it was known.
    outcome: Option<String>,
    is_carried: bool,
}

/// How far the one that took over and the others were, as they answered: what is between is lost.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Found {
    own: String,
    highest: String,
    committed: u64,
}

impl Found {
    fn of(group: &Group) -> Option<Self> {
        match group.told().judgement?.verdict {
            Verdict::Approved(proof) => proof.loss.map(|loss| Self {
                own: loss.own.to_string(),
                highest: loss.highest.to_string(),
                committed: loss.committed.get(),
            }),
            Verdict::Denied(_) => None,
        }
    }
}

impl Bound {
    pub(super) fn of(status: &Status, settings: &Settings) -> Self {
        let own = status.flushed;
        let holder = status.record.granted.2;
        Self {
            node: settings.own_name(),
            own: own.to_string(),
            missing_records: status.announced.get().saturating_sub(own.lsn.get()),
            unheard_seconds: status.unheard.map(|unheard| unheard.as_secs_f64()),
            mode: super::shown::mode_text(status.record.config.mode),
            holder: (status.record.granted.0.0 > 0).then(|| settings.name_of(holder)),
        }
    }
}

impl Bound {
    /// Nobody accepted more than was shown.
    fn covers(&self, present: &Self) -> Result<(), String> {
        if present.missing_records <= self.missing_records {
            return Ok(());
        }
        Err(format!(
            "{} records are missing here by now, and {} were accepted: run it again, and look at what may be lost",
            present.missing_records, self.missing_records
        ))
    }
}

/// What is printed before anything is asked.
pub(crate) fn bound_text(bound: &Bound) -> String {
    let holder = bound.holder.as_deref().unwrap_or("the node that wrote");
    let mut text = format!(
        "`{}` has the log to {}. What may be lost by this:\n",
        bound.node, bound.own
    );
    let known = match bound.missing_records {
        0 => "none that this node knows of".to_owned(),
        count => format!("{count} that this node was told of and does not have"),
    };
    writeln!(text, "  acknowledged records: {known}").expect("writing to a string cannot fail");
    match bound.unheard_seconds {
        Some(seconds) => writeln!(
            text,
            "  and whatever `{holder}` acknowledged since it was last heard of, {seconds:.1} s ago: how many records and bytes is unknown"
        ),
        None => writeln!(
            text,
            "  and whatever `{holder}` acknowledged since this node was started, or before: how many records and bytes is unknown, nothing was heard of it"
        ),
    }
    .expect("writing to a string cannot fail");
    writeln!(
        text,
        "  the mode is {}; where `{holder}` still runs it writes on until it hears of this, and that is lost as well",
        bound.mode
    )
    .expect("writing to a string cannot fail");
    text
}

fn read(data: &Path) -> Result<Vec<Noted>, Refusal> {
    let path = dir(data).join(FILE);
    let found = RealDisk
        .stat(&path)
        .map_err(|error| cannot("look for", &path, &error))?;
    if found.is_none() {
        return Ok(Vec::new());
    }
    let bytes = RealDisk
        .read(&path, LEN_MAX)
        .map_err(|error| cannot("read", &path, &error))?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Refusal::new(format!("{} is damaged: {error}", path.display()))
            .next("keep it, and move it aside: it says what was forced here")
    })
}

fn save(data: &Path, notes: &[Noted]) -> Result<(), Refusal> {
    let path = dir(data).join(FILE);
    let text = serde_json::to_vec_pretty(notes)
        .map_err(|error| Refusal::new("a forced promotion cannot be noted").source(error))?;
    if text.len() as u64 > LEN_MAX {
        return Err(Refusal::new(format!("{} is full", path.display()))
            .next("keep it, and move it aside: it says what was forced here"));
    }
    write(&path, &text)
}

/// Notes it, and then orders it. What is answered is the outcome of the order.
pub(super) fn order(
    group: &Group,
    settings: &Settings,
    data: &Path,
    said: &Statement,
    accepted: &Bound,
    config: Option<replica::machine::Config>,
) -> Result<Outcome, String> {
    if said.fenced_by.trim().is_empty() {
        return Err(
            "a forced promotion needs a statement how the other one was stopped".to_owned(),
        );
    }
    let _changing = changing();
    let status = group.status().ok_or("the node has just begun; try again")?;
    accepted.covers(&Bound::of(&status, settings))?;
    let id = draw().map_err(|refusal| refusal.to_string())?;
    let note = Noted {
        id: format!("{id:032x}"),
        at: RealClock::new().now().nanos(),
        said: said.clone(),
        bound: accepted.clone(),
        found: None,
        outcome: None,
        is_carried: false,
    };
    let mut notes = read(data).map_err(|refusal| refusal.to_string())?;
    notes.push(note);
    // On disk before the machine hears of it: an epoch that nobody can account for is not made.
    save(data, &notes).map_err(|refusal| refusal.to_string())?;
    let order = Order::Promote {
        node: settings.node,
        config,
        force: Some(said.fenced_by.clone()),
    };
    let ended = group.order(order).map_err(|error| error.to_string());
    if let Some(note) = notes.last_mut() {
        note.found = Found::of(group).filter(|_| matches!(ended, Ok(Outcome::Done)));
        note.outcome = Some(match &ended {
            Ok(Outcome::Done) => "promoted".to_owned(),
            Ok(Outcome::Refused(refusal) | Outcome::Unknown(refusal)) => refusal.to_string(),
            Ok(other) => format!("{other:?}"),
            Err(error) => error.clone(),
        });
    }
    // That it was ordered stands; only how it ended may be missing.
    if let Err(refusal) = save(data, &notes) {
        tracing::warn!(%refusal, "how a forced promotion ended is not noted");
    }
    ended
}

/// Puts what was forced here into the audit log, once each. For the first moment at which this node writes, and
/// again where that failed.
pub(super) fn carry(data: &Path, settings: &Settings, store: &Store) -> Result<(), Refusal> {
    let _changing = changing();
    let mut notes = read(data)?;
    if notes.iter().all(|note| note.is_carried) {
        return Ok(());
    }
    let audit = Audit::of(store).map_err(Site::store_refused)?;
    for note in notes.iter_mut().filter(|note| !note.is_carried) {
        let filter = Filter {
            action: Some(ACTION.to_owned()),
            object: Some(format!("promotion {}", note.id)),
            ..Filter::default()
        };
        // A crash after the commit and before the file was written.
        let is_there = audit
            .list(store, &filter, 1)
            .map_err(Site::store_refused)?
            .len()
            == 1;
        if !is_there {
            let record = note.record(settings);
            store
                .transact(|transaction| audit.append(transaction, &record))
                .map_err(Site::store_refused)?;
            record.tell();
        }
        note.is_carried = true;
    }
    save(data, &notes)
}

impl Noted {
    fn record(&self, settings: &Settings) -> Record {
        let detail: Value = json!({
            "node": settings.own_name(),
            "fenced_by": self.said.fenced_by,
            "accepted": {
                "missing_records": self.bound.missing_records,
                "unheard_seconds": self.bound.unheard_seconds,
                "own_end": self.bound.own,
                "mode": self.bound.mode,
                "holder": self.bound.holder,
            },
            "found": self.found,
            "alone": self.said.alone,
            "outcome": self.outcome.as_deref().unwrap_or("not known: the node stopped meanwhile"),
        });
        let object = format!("promotion {}", self.id);
        Record::new(
            Timestamp::from_nanos(self.at),
            &self.said.actor,
            ACTION,
            &object,
            detail,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(missing_records: u64) -> Bound {
        Bound {
            node: "b".to_owned(),
            own: "1/7".to_owned(),
            missing_records,
            unheard_seconds: None,
            mode: "async".to_owned(),
            holder: None,
        }
    }

    /// Minutes pass at the prompt, in which the node may be told of more that it does not have.
    #[test]
    fn nobody_loses_more_than_was_shown_and_accepted() {
        for (accepted, present, is_covered) in [(0, 0, true), (5, 3, true), (3, 4, false)] {
            let answer = bound(accepted).covers(&bound(present));
            assert_eq!(answer.is_ok(), is_covered, "{accepted} {present}");
        }
    }
}
