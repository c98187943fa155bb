//! Requests that were refused, on record without letting whoever makes them fill the disk.
//!
//! The first denial of a source and token is recorded at once. More of the same within the minute are
//! counted, and told by one record when the minute is over; so are those of sources beyond
//! [`SOURCES_MAX`], all together. What is counted and not yet told is lost with the process: that
//! somebody was denied is on record then, how often within the last minute is not.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::json;
use store::Store;
use world::Timestamp;

use super::{Audit, Record};

/// Sources with records of their own within a minute. Two records of at most a kilobyte each: an
/// attack from everywhere writes 130 KB a minute, below 200 MB a day. A site whose people mistype
/// more than 64 tokens a minute from as many places has another trouble.
pub(super) const SOURCES_MAX: usize = 64;

/// How long denials of one source are counted before they are told. Short enough to see an attack
/// while it lasts.
pub(super) const PERIOD: Duration = Duration::from_secs(60);

/// Characters of what a client says of itself or asks for: the rest is noise or an attack.
const TEXT_MAX: usize = 200;

const ACTION: &str = "auth.denied";
/// Stands for all sources beyond [`SOURCES_MAX`].
const OTHERS: &str = "other sources";
/// Who showed no token, or none of this site.
const NOBODY: &str = "nobody";

/// A request that was refused. Nothing in it may be a secret: a token is never part of it.
#[derive(Clone, Copy, Debug)]
pub struct Denial<'a> {
    /// Where it came from: an address without the port.
    pub source: &'a str,
    /// Who it was, as far as it is known: the name of a token.
    pub actor: Option<&'a str>,
    /// What was asked for: `GET /api/v1/hosts`.
    pub request: &'a str,
    /// Why it was refused, from a closed list of the server's.
    pub reason: &'a str,
}

/// Where from, and who: one that is known by a token does not hide behind another of the same address.
type Who = (String, String);

#[derive(Debug)]
struct Counted {
    since: Timestamp,
    last: Timestamp,
    /// Beyond the one on record.
    more: u64,
    reasons: BTreeMap<String, u64>,
}

/// The denials of a server.
pub struct Denials {
    audit: Audit,
    is_recorded: bool,
    counted: Mutex<BTreeMap<Who, Counted>>,
}

impl fmt::Debug for Denials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Denials")
    }
}

impl Denials {
    pub fn new(audit: Audit) -> Self {
        Self {
            audit,
            is_recorded: true,
            counted: Mutex::new(BTreeMap::new()),
        }
    }

    /// Where nothing can be recorded, because another machine writes: what would be is told to the log of
    /// this one, and is on no other record.
    pub fn told_only(audit: Audit) -> Self {
        Self {
            is_recorded: false,
            ..Self::new(audit)
        }
    }

    /// Records or counts one. Writes to the store for the first of a source within a [`PERIOD`], and
    /// when periods are over.
    pub fn note(
        &self,
        store: &Store,
        now: Timestamp,
        denial: &Denial<'_>,
    ) -> Result<(), store::Error> {
        let mut records = Vec::new();
        {
            let mut counted = self.lock();
            take_ended(&mut counted, now, &mut records);
            records.extend(count(&mut counted, now, denial));
        }
        self.write(store, &records)
    }

    /// Tells what was counted in periods that are over, and with `all` everything: for a regular step
    /// of the server, and for its end.
    pub fn flush(&self, store: &Store, now: Timestamp, all: bool) -> Result<(), store::Error> {
        let mut records = Vec::new();
        {
            let mut counted = self.lock();
            take_ended(&mut counted, now, &mut records);
            if all {
                let rest = std::mem::take(&mut *counted);
                records.extend(rest.iter().filter_map(|(who, of)| told(who, of)));
            }
        }
        self.write(store, &records)
    }

    fn write(&self, store: &Store, records: &[Record]) -> Result<(), store::Error> {
        if records.is_empty() {
            return Ok(());
        }
        if !self.is_recorded {
            records.iter().for_each(tell_alone);
            return Ok(());
        }
        match self.record(store, records) {
            Ok(()) => {
                records.iter().for_each(Record::tell);
                Ok(())
            }
            Err(error) => {
                // A disk that is full, or a node that writes no more: they are counted as told by now.
                records.iter().for_each(tell_alone);
                Err(error)
            }
        }
    }

    fn record(&self, store: &Store, records: &[Record]) -> Result<(), store::Error> {
        let mut transaction = store.begin()?;
        for record in records {
            self.audit.append(&mut transaction, record)?;
        }
        transaction.commit().map(drop)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Who, Counted>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of a denial that is in no store.
fn tell_alone(record: &Record) {
    tracing::warn!(
        actor = record.actor,
        source = record.object,
        detail = %record.detail,
        "denied, and on record in this log alone"
    );
}

/// The record to be written at once, of a source that had none within the period.
fn count(
    counted: &mut BTreeMap<Who, Counted>,
    now: Timestamp,
    denial: &Denial<'_>,
) -> Option<Record> {
    let mut who = (cut(denial.source), cut(denial.actor.unwrap_or(NOBODY)));
    if !counted.contains_key(&who) && counted.len() >= SOURCES_MAX {
        who = (OTHERS.to_owned(), NOBODY.to_owned());
    }
    if let Some(of) = counted.get_mut(&who) {
        of.more += 1;
        of.last = now;
        *of.reasons.entry(cut(denial.reason)).or_default() += 1;
        return None;
    }
    let detail = json!({ "reason": cut(denial.reason), "request": cut(denial.request) });
    let actor = cut(denial.actor.unwrap_or(NOBODY));
    let record = Record::new(now, &actor, ACTION, &who.0, detail);
    let of = Counted {
        since: now,
        last: now,
        more: 0,
        reasons: BTreeMap::new(),
    };
    counted.insert(who, of);
    Some(record)
}

/// A clock that was set back ends a period too: nothing is counted for ever.
fn take_ended(counted: &mut BTreeMap<Who, Counted>, now: Timestamp, records: &mut Vec<Record>) {
    counted.retain(|who, of| {
        let is_within = now >= of.since && now < of.since.plus(PERIOD);
        if !is_within {
            records.extend(told(who, of));
        }
        is_within
    });
}

fn told((source, actor): &Who, of: &Counted) -> Option<Record> {
    let detail = json!({ "more": of.more, "reasons": of.reasons, "since": of.since.nanos() });
    (of.more > 0).then(|| Record::new(of.last, actor, ACTION, source, detail))
}

/// One line of bounded length, whatever a client sent.
fn cut(text: &str) -> String {
    let plain = |letter: char| {
        if letter.is_control() {
            '\u{fffd}'
        } else {
            letter
        }
    };
    text.chars().take(TEXT_MAX).map(plain).collect()
}
