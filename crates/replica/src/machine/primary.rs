//! A node that may write: writes, what they wait for, and reads that must see all of them.
//!
//! A write is acknowledged in one place, [`Primary::commit`], and answered otherwise in one place,
//! [`Primary::give_up`].

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use wal::{Lsn, RecordKind};

use super::{
    Config, Effect, Entry, EpochStart, Limits, NodeId, Outcome, Position, Refusal, Replaced, Time,
    configure::{Begun, Change},
    log::Log,
    outbox::Outbox,
    sender::{Desk, Sender},
    switchover::Drain,
};

/// Appended, and not yet as durable as the mode wants it.
#[derive(Debug)]
struct Waiting {
    number: u64,
    first: Lsn,
    last: Lsn,
    since: Time,
}

/// Not appended: there are too few replicas, and the policy is to wait for them.
#[derive(Debug)]
struct Held {
    number: u64,
    records: Vec<(RecordKind, Arc<[u8]>)>,
    since: Time,
}

#[derive(Debug)]
struct Confirm {
    number: u64,
    since: Time,
    /// The last heartbeat that was sent before the question.
    after: u64,
    /// What was committed then; `None` until anything of this epoch is.
    committed: Option<Lsn>,
}

#[derive(Debug)]
pub(super) struct Primary {
    pub(super) start: EpochStart,
    pub(super) senders: BTreeMap<NodeId, Sender>,
    pub(super) change: Option<Change>,
    /// The same, as it was when senders were last made to fit it.
    pub(super) begun: Option<Begun>,
    pub(super) drain: Option<Drain>,
    waiting: VecDeque<Waiting>,
    held: VecDeque<Held>,
    confirms: VecDeque<Confirm>,
}

/// What the steps of a primary need beside it.
#[derive(Debug)]
pub(super) struct Office<'a> {
    pub(super) me: NodeId,
    pub(super) now: Time,
    pub(super) log: &'a mut Log,
    pub(super) limits: &'a Limits,
    pub(super) config: &'a Config,
    /// A lease that is wanted is held.
    pub(super) may_acknowledge: bool,
    pub(super) out: &'a mut Outbox,
}

impl Primary {
    pub(super) fn new(start: EpochStart) -> Self {
        Self {
            start,
            senders: BTreeMap::new(),
            change: None,
            begun: None,
            drain: None,
            waiting: VecDeque::new(),
            held: VecDeque::new(),
            confirms: VecDeque::new(),
        }
    }

    /// Runs `act` on the sender of a replica, with what it works on.
    pub(super) fn with<R>(
        &mut self,
        replica: NodeId,
        office: &mut Office<'_>,
        act: impl FnOnce(&mut Sender, &mut Desk<'_>) -> R,
    ) -> Option<R> {
        let heard = self.heard(office);
        let stopped = self.stopped();
        let rebuilds = self
            .senders
            .values()
            .filter(|sender| sender.is_rebuilding())
            .count();
        let sender = self.senders.get_mut(&replica)?;
        let mut desk = Desk {
            now: office.now,
            log: office.log,
            limits: office.limits,
            config: office.config,
            rebuilds,
            heard: &heard,
            stopped: &stopped,
            out: office.out,
        };
        Some(act(sender, &mut desk))
    }

    pub(super) fn each(
        &mut self,
        office: &mut Office<'_>,
        mut act: impl FnMut(&mut Sender, &mut Desk<'_>),
    ) {
        let replicas: Vec<NodeId> = self.senders.keys().copied().collect();
        for replica in replicas {
            self.with(replica, office, &mut act);
        }
    }

    fn heard(&self, office: &Office<'_>) -> BTreeMap<NodeId, u64> {
        let mut heard = BTreeMap::from([(office.me, u64::MAX)]);
        for (replica, sender) in &self.senders {
            if let Some(session) = sender.session.as_ref().filter(|session| session.is_alive()) {
                heard.insert(*replica, session.heard);
            }
        }
        heard
    }

    pub(super) fn in_sync(&self, members: &BTreeSet<NodeId>) -> usize {
        let senders = self.senders.iter();
        senders
            .filter(|(node, sender)| members.contains(node) && sender.is_in_sync())
            .count()
    }

    /// Members, and the copies of theirs besides this node's that an acknowledgement needs. What a
    /// configuration replaces counts until the change is in force, and beside it where that is not known to have
    /// been in force.
    fn quorums<'a>(
        &self,
        config: &'a Config,
    ) -> impl Iterator<Item = (&'a BTreeSet<NodeId>, usize)> + use<'a> {
        let open = self.change.as_ref().filter(|change| !change.is_in_force());
        let replaced = config.previous.as_ref().filter(|_| open.is_some());
        let is_wanted = replaced.is_none() || open.is_some_and(Change::replaces_open);
        let own = is_wanted.then_some((&config.members, config.mode));
        let replaced = replaced.map(|Replaced { members, mode }| (members, *mode));
        let quorums = replaced.into_iter().chain(own);
        quorums.map(|(members, mode)| (members, mode.copies(members.len())))
    }

    /// Too few replicas are in sync.
    fn lacks(&self, config: &Config) -> Option<Refusal> {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        self.quorums(config).find_map(|(members, copies)| {
            let in_sync = self.in_sync(members);
            (in_sync < copies).then(|| Refusal::TooFewReplicas {
                in_sync: number(in_sync),
                wanted: number(copies),
            })
        })
    }

    pub(super) fn write(
        &mut self,
        number: u64,
        records: Vec<(RecordKind, Arc<[u8]>)>,
        office: &mut Office<'_>,
    ) {
        match self.judge(&records, office) {
            Some(Refusal::TooFewReplicas { .. }) if self.may_hold(office) => {
                self.held.push_back(Held {
                    number,
                    records,
                    since: office.now,
                });
            }
            Some(refusal) => answer(number, Outcome::Refused(refusal), office.out),
            None => self.append(number, records, office),
        }
    }

    fn may_hold(&self, office: &Office<'_>) -> bool {
        office.config.policy == super::Policy::Wait && self.drain.is_none()
    }

    /// Why a write is not taken.
    fn judge(&self, records: &[(RecordKind, Arc<[u8]>)], office: &Office<'_>) -> Option<Refusal> {
        let is_own_kind = |(kind, _): &(RecordKind, Arc<[u8]>)| *kind == super::ANNOUNCEMENT;
        if records.is_empty() || records.iter().any(is_own_kind) {
            let what = "a write is of at least one record, of a kind that is not the journal's own";
            return Some(Refusal::InvalidRequest(what.to_owned()));
        }
        if office.log.failed.is_some() {
            return Some(Refusal::LogFailed);
        }
        if let Some(drain) = &self.drain {
            return Some(Refusal::NotPrimary {
                holder: Some(drain.to),
            });
        }
        if !office.may_acknowledge {
            return Some(Refusal::LeaseEnded);
        }
        // Those whose time is over wait no more, but a disk that stands still may have them yet.
        let unflushed = office.log.received.lsn.get() - office.log.flushed.lsn.get();
        let is_full = unflushed > office.limits.window_records && self.waiting.is_empty();
        if is_full || self.waiting.len() + self.held.len() >= office.limits.waiting_writes {
            return Some(Refusal::TooManyWaiting);
        }
        self.lacks(office.config)
    }

    fn append(
        &mut self,
        number: u64,
        records: Vec<(RecordKind, Arc<[u8]>)>,
        office: &mut Office<'_>,
    ) {
        let first = office.log.received.lsn.next();
        self.append_records(records, office);
        let last = office.log.received.lsn;
        self.waiting.push_back(Waiting {
            number,
            first,
            last,
            since: office.now,
        });
        self.each(office, Sender::go_on);
    }

    /// To the own disk and into memory; senders are told by the caller.
    pub(super) fn append_records(
        &mut self,
        records: Vec<(RecordKind, Arc<[u8]>)>,
        office: &mut Office<'_>,
    ) {
        let mut lsn = office.log.received.lsn;
        let entries: Vec<Entry> = records
            .into_iter()
            .map(|(kind, bytes)| {
                lsn = lsn.next();
                let position = Position {
                    epoch: self.start.epoch,
                    lsn,
                };
                Entry {
                    position,
                    kind,
                    bytes,
                }
            })
            .collect();
        office.log.append(&entries);
        office.out.push(Effect::Append(entries.clone()));
        let (bytes, records) = (office.limits.window_bytes, office.limits.window_records);
        office.log.remember(entries, office.now, bytes, records);
    }

    /// Everything that follows from a disk, here or there, that is further.
    pub(super) fn commit(&mut self, office: &mut Office<'_>) {
        if let Some(committed) = self.commit_point(office)
            && committed > office.log.committed
        {
            office.log.committed = committed;
            office.out.push(Effect::Commit(committed));
            while let Some(write) = self.waiting.pop_front_if(|write| write.last <= committed) {
                let Waiting {
                    number,
                    first,
                    last,
                    ..
                } = write;
                answer(number, Outcome::Written { first, last }, office.out);
            }
            self.each(office, Sender::tell_committed);
        }
        self.confirm_what_is_due(office);
    }

    /// How far everything is on the own disk and on so many replicas in sync as an acknowledgement
    /// needs. `None`: on too few, or not up to this epoch's first record, before which nothing counts.
    pub(super) fn commit_point(&self, office: &Office<'_>) -> Option<Lsn> {
        if !office.may_acknowledge || office.log.failed.is_some() {
            return None;
        }
        let mut committed = office.log.flushed.lsn;
        for (members, copies) in self.quorums(office.config) {
            if copies == 0 {
                continue;
            }
            let senders = self
                .senders
                .iter()
                .filter(|(node, _)| members.contains(node));
            let mut ends: Vec<Lsn> = senders.filter_map(|(_, sender)| sender.counted()).collect();
            ends.sort_unstable_by(|one, other| other.cmp(one));
            committed = committed.min(*ends.get(copies - 1)?);
        }
        (committed >= self.start.first).then_some(committed)
    }

    /// A read that must see every write that was acknowledged before it.
    pub(super) fn confirm(&mut self, number: u64, office: &mut Office<'_>) {
        if self.confirms.len() >= office.limits.waiting_writes {
            return answer(
                number,
                Outcome::Refused(Refusal::TooManyWaiting),
                office.out,
            );
        }
        let after = office.out.beats;
        let committed = self.committed_here(office);
        let since = office.now;
        self.confirms.push_back(Confirm {
            number,
            since,
            after,
            committed,
        });
        self.each(office, Sender::beat);
        self.confirm_what_is_due(office);
    }

    /// Before a record of this epoch is committed nobody knows how far those before it are.
    fn committed_here(&self, office: &Office<'_>) -> Option<Lsn> {
        (office.log.committed >= self.start.first).then_some(office.log.committed)
    }

    fn confirm_what_is_due(&mut self, office: &mut Office<'_>) {
        let Some(here) = self
            .committed_here(office)
            .filter(|_| office.may_acknowledge)
        else {
            return;
        };
        let quorums: Vec<_> = self.quorums(office.config).collect();
        let senders = &self.senders;
        self.confirms.retain_mut(|confirm| {
            let committed = *confirm.committed.get_or_insert(here);
            let is_due = quorums.iter().all(|(members, copies)| {
                let answered = senders.iter().filter(|(node, sender)| {
                    members.contains(node)
                        && sender.is_in_sync()
                        && sender.heard_after(confirm.after)
                });
                answered.count() >= *copies
            });
            if is_due {
                let outcome = Outcome::Confirmed { applied: committed };
                answer(confirm.number, outcome, office.out);
            }
            !is_due
        });
    }

    /// More replicas may be in sync: what was held for that is written.
    pub(super) fn write_held(&mut self, office: &mut Office<'_>) {
        while !self.held.is_empty() && self.lacks(office.config).is_none() {
            let Some(Held {
                number, records, ..
            }) = self.held.pop_front()
            else {
                return;
            };
            self.append(number, records, office);
        }
    }

    /// What waited for too long is answered: what is appended may yet be committed.
    pub(super) fn expire(&mut self, office: &mut Office<'_>) {
        let (now, wait) = (office.now, office.limits.write_wait);
        let refusal = self.lacks(office.config).unwrap_or(Refusal::TookTooLong);
        while let Some(held) = self.held.pop_front_if(|held| now.since(held.since) > wait) {
            answer(held.number, Outcome::Refused(refusal.clone()), office.out);
        }
        while let Some(write) = self
            .waiting
            .pop_front_if(|write| now.since(write.since) > wait)
        {
            answer(write.number, Outcome::Unknown(refusal.clone()), office.out);
        }
        while let Some(read) = self
            .confirms
            .pop_front_if(|read| now.since(read.since) > wait)
        {
            answer(read.number, Outcome::Refused(refusal.clone()), office.out);
        }
    }

    /// This node may write no more: everybody who waits is told so, and everything held is released.
    pub(super) fn give_up(mut self, refusal: &Refusal, cause: &str, out: &mut Outbox) {
        for write in self.waiting.drain(..) {
            answer(write.number, Outcome::Unknown(refusal.clone()), out);
        }
        let held = self.held.drain(..).map(|held| held.number);
        let reads = self.confirms.drain(..).map(|confirm| confirm.number);
        for number in held.chain(reads) {
            answer(number, Outcome::Refused(refusal.clone()), out);
        }
        if let Some(number) = self.change.and_then(|change| change.number) {
            answer(number, Outcome::Unknown(refusal.clone()), out);
        }
        for sender in self.senders.values_mut() {
            let state = super::State::Disconnected;
            sender.end("session_invalidated", cause.to_owned(), state, out);
            out.log(
                Some(sender.replica),
                None,
                "sender_removed",
                cause.to_owned(),
            );
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len() + self.held.len()
    }

    /// Everything that was taken is committed.
    pub(super) fn is_drained(&self, log: &Log) -> bool {
        self.waiting.is_empty() && self.held.is_empty() && log.committed == log.received.lsn
    }
}

pub(super) fn answer(number: u64, outcome: Outcome, out: &mut Outbox) {
    out.push(Effect::Answer { number, outcome });
}
