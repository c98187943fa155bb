//! The commit path. One thread at a time leads a group of transactions through it.
//!
//! Order, and what a crash in between leaves:
//! 1. validate each against the commits before it, those of its own group included: nothing;
//! 2. append all records to the journal, which returns once they are durable: the group's commits
//!    stand or fall whole, each by its own record, and recovery applies those that stand;
//! 3. apply to the tables in memory, in order of LSN: recovery does it again from the journal;
//! 4. publish the position: readers see the commits;
//! 5. wake the members: they acknowledge.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use lsm_tree::Slice;
use wal::{Lsn, group::Group};
use world::{Timestamp, invariant};

use crate::{
    Commit, Error, Kind,
    history::CommitTimes,
    horizon::Hold,
    local::Inner,
    once::OnceKeys,
    recent::{KeyHasher, Reads, Recent},
    record,
    writes::Writes,
};

/// Bytes of a group's records: well below what the journal takes in one append, and as much as
/// is copied in a few milliseconds. One larger transaction goes alone.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// How far ahead of the clock a commit may be dated: what rounding up to the milliseconds that
/// people are shown takes. Later commits are dated later still.
const DATE_AHEAD_MAX: Duration = Duration::from_millis(1);

/// How far behind the clock: what making a commit takes at most, the wait for a group included. An
/// older date would say that something was known when it was not.
const DATE_BEHIND_MAX: Duration = Duration::from_secs(1);

/// What became of a transaction with an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Committed(Commit),
    /// The key was used before: nothing was written, this is the first use's commit.
    Replayed(Commit),
}

impl Outcome {
    pub fn commit(self) -> Commit {
        match self {
            Self::Committed(commit) | Self::Replayed(commit) => commit,
        }
    }
}

/// A transaction that wants to commit.
pub(crate) struct Request {
    pub(crate) begun: Hold,
    pub(crate) reads: Reads,
    pub(crate) writes: Arc<Writes>,
    pub(crate) once: Option<Slice>,
    /// The date that the caller would like.
    pub(crate) date: Option<Timestamp>,
}

/// Those who commit, and what only the leader touches.
pub(crate) struct CommitLine {
    group: Group<Request, Result<Outcome, Error>>,
    writer: Mutex<Writer>,
}

pub(crate) struct Writer {
    recent: Recent,
    /// Time of the newest record.
    last_time: Timestamp,
    /// Set for good by an error after which nothing may be committed.
    failed: Option<Error>,
}

/// A transaction of the group that passed validation, at its place in the append.
struct Accepted {
    writes: Arc<Writes>,
    once: Option<Slice>,
    time: Timestamp,
    record: Vec<u8>,
}

enum Decision {
    Refused(Error),
    Replayed(Commit),
    /// Index among the accepted.
    Accepted(usize),
    /// The same idempotency key as an accepted one.
    Same(usize),
}

impl CommitLine {
    pub(crate) fn new(hasher: KeyHasher, visible: Commit) -> Self {
        Self {
            group: Group::new(GROUP_BYTES_MAX),
            writer: Mutex::new(Writer {
                recent: Recent::new(hasher, visible.lsn),
                last_time: visible.time,
                failed: None,
            }),
        }
    }

    /// Held by the leader from validation to publication.
    pub(crate) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer
            .lock()
            .expect("a leader that panicked ended the process")
    }
}

impl Writer {
    /// The error after which nothing may be committed, if there was one.
    pub(crate) fn failed(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// Commits are made from here on, above those that others made up to `visible`.
    pub(crate) fn begin(&mut self, visible: Commit) {
        self.recent.restart(visible.lsn);
        self.last_time = self.last_time.max(visible.time);
    }

    /// Nothing is committed from here on.
    pub(crate) fn fail(&mut self, error: &Error) {
        self.failed.get_or_insert_with(|| error.clone());
    }
}

impl Inner {
    pub(crate) fn commit(&self, request: Request) -> Result<Outcome, Error> {
        let weight = record::encoded_len(&request.writes, request.once.as_deref());
        self.line
            .group
            .join(request, weight, |requests| self.lead(requests))
    }

    fn lead(&self, requests: Vec<Request>) -> Vec<Result<Outcome, Error>> {
        let mut writer = self.line.writer();
        if let Err(error) = self.check_leads().and_then(|()| self.ready(&writer)) {
            return requests.iter().map(|_| Err(error.clone())).collect();
        }
        // Commits can still be collided with by whoever is in flight: this group and those to come.
        let visible = self.horizon.visible().lsn;
        let oldest = self.horizon.oldest_transaction().unwrap_or(visible);
        writer.recent.prune(oldest);

        let mut accepted = Vec::new();
        let decisions: Vec<_> = requests
            .into_iter()
            .map(|request| self.decide(&mut writer, &mut accepted, visible, request))
            .collect();
        let appended = self.append_and_apply(&mut writer, &accepted, visible);
        decisions
            .into_iter()
            .map(|decision| match (decision, &appended) {
                (Decision::Refused(error), _) => Err(error),
                (Decision::Replayed(commit), _) => Ok(Outcome::Replayed(commit)),
                (Decision::Accepted(index), Ok(commits)) => Ok(Outcome::Committed(commits[index])),
                (Decision::Same(index), Ok(commits)) => Ok(Outcome::Replayed(commits[index])),
                (_, Err(error)) => Err(error.clone()),
            })
            .collect()
    }

    /// Whether anything may be committed at all; waits for memory while flushes are behind.
    fn ready(&self, writer: &Writer) -> Result<(), Error> {
        if let Some(failed) = &writer.failed {
            return Err(match failed.kind() {
                Kind::Fenced | Kind::Closed => failed.clone(),
                _ => Error::poisoned_by(failed),
            });
        }
        self.upkeep.wait_for_room()
    }

    fn decide(
        &self,
        writer: &mut Writer,
        accepted: &mut Vec<Accepted>,
        visible: Lsn,
        request: Request,
    ) -> Decision {
        if let Some(once) = &request.once {
            // Before validation: the first outcome stands whatever was read this time.
            let same = |accepted: &Accepted| accepted.once.as_ref() == Some(once);
            if let Some(index) = accepted.iter().position(same) {
                return Decision::Same(index);
            }
            match self.once.outcome(once, self.horizon.visible()) {
                Ok(Some(commit)) => return Decision::Replayed(commit),
                Ok(None) => {}
                Err(error) => return Decision::Refused(error),
            }
        }
        if let Err(error) = writer.recent.validate(request.begun.lsn(), &request.reads) {
            self.counters.conflict();
            return Decision::Refused(error);
        }
        let index = accepted.len();
        // Other owners of the journal may append first, so the LSN can come out higher. Nobody can
        // begin in between: positions are taken from what is visible.
        let place = Lsn::new(visible.get() + 1 + index as u64);
        writer.recent.push(place, Arc::clone(&request.writes));
        let time = self.next_time(writer, request.date);
        let record = record::encode(&request.writes, time, request.once.as_deref());
        accepted.push(Accepted {
            writes: request.writes,
            once: request.once,
            time,
            record,
        });
        Decision::Accepted(index)
    }

    /// Above the previous commit's, and above every time that a reader has asked for; otherwise
    /// what was wished for, or now.
    fn next_time(&self, writer: &mut Writer, wished: Option<Timestamp>) -> Timestamp {
        let least = writer.last_time.max(self.horizon.asked()).nanos();
        let now = self.clock.now();
        let time = wished
            .filter(|wished| *wished >= now.minus(DATE_BEHIND_MAX))
            .map_or(now, |wished| wished.min(now.plus(DATE_AHEAD_MAX)))
            .max(Timestamp::from_nanos(least.saturating_add(1)));
        writer.last_time = time;
        time
    }

    fn append_and_apply(
        &self,
        writer: &mut Writer,
        accepted: &[Accepted],
        visible: Lsn,
    ) -> Result<Vec<Commit>, Error> {
        if accepted.is_empty() {
            return Ok(Vec::new());
        }
        let records: Vec<_> = accepted
            .iter()
            .map(|accepted| (record::COMMIT, accepted.record.as_slice()))
            .collect();
        let appended = match self.journal.append(&records) {
            Ok(appended) => appended,
            Err(error) => {
                writer.recent.take_back(visible.next());
                let error = Error::journal("committing", error);
                if matches!(error.kind(), Kind::Poisoned | Kind::Fenced | Kind::Closed) {
                    writer.fail(&error);
                }
                return Err(error);
            }
        };
        let first = appended.first.get();
        invariant!(
            first > visible.get() && appended.last.get() - first + 1 == accepted.len() as u64,
            "journal gave lsn {first} to {} for {} records above lsn {visible}",
            appended.last,
            accepted.len()
        );
        let commits: Vec<_> = (first..)
            .zip(accepted)
            .map(|(lsn, accepted)| Commit {
                lsn: Lsn::new(lsn),
                time: accepted.time,
            })
            .collect();
        let bytes = records.iter().map(|(_, record)| record.len() as u64).sum();
        self.apply(&commits, accepted);
        self.counters.committed(commits.len(), bytes);
        self.upkeep.appended(bytes);
        Ok(commits)
    }

    /// Writes the group to the tables and publishes it.
    fn apply(&self, commits: &[Commit], accepted: &[Accepted]) {
        // Held until the position is published: a checkpoint that ends the memories takes the
        // published position as what they hold.
        let applying = self.applying();
        let times = self.times.0.memory();
        // Found once for the group: finding one touches what every reader touches.
        let mut memories = BTreeMap::new();
        for (commit, accepted) in commits.iter().zip(accepted) {
            for (table, keys) in accepted.writes.tables() {
                let memory = memories.entry(table).or_insert_with(|| {
                    let tree = self.tree(table).expect("checked when it was written");
                    tree.memory()
                });
                for (key, value) in keys {
                    memory.set(key, value.as_deref(), commit.lsn);
                }
            }
            CommitTimes::record(&times, *commit);
            if let Some(once) = &accepted.once {
                OnceKeys::record(&self.once.tree().memory(), once, *commit);
            }
        }
        if let Some(last) = commits.last() {
            self.horizon.publish(*last);
        }
        self.upkeep.rotate_full(self, &memories);
        drop(applying);
    }
}
