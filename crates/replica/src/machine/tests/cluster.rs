//! Nodes whose effects are carried out by vectors: what a driver does, as plainly as it can be done.
//! Messages arrive in order unless a link is cut or a test takes one away.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use wal::{Epoch, Generation, Identity, JournalId, Lsn, RecordKind};

use crate::machine::{
    ANNOUNCEMENT, Attachment, BaseFound, Body, Config, Durable, Effect, Entry, EpochId, Event,
    Header, History, Limits, Line, Message, Mode, Node, NodeId, Order, Outcome, Policy, Position,
    Record, ReplicaStatus, Role, SessionId, Time, Version, announced,
};

pub(super) const KIND: RecordKind = RecordKind(7);

/// What is on the disk of a node, and what is only on its way there.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) record: Record,
    pub(super) log: Vec<Entry>,
    pub(super) base: Position,
    pub(super) base_history: History,
    pub(super) committed: Lsn,
    pub(super) quarantine: Vec<Entry>,
    pub(super) is_damaged: bool,
    /// Appends wait until they are let through.
    pub(super) is_slow: bool,
    pub(super) unsynced: Vec<Entry>,
    /// Records are not kept.
    pub(super) is_stuck: bool,
    /// A record that does not verify.
    pub(super) rotten: Option<Lsn>,
}

#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) now: Time,
    pub(super) limits: Limits,
    pub(super) nodes: BTreeMap<u128, Node>,
    pub(super) disks: BTreeMap<u128, Disk>,
    pub(super) wire: VecDeque<(u128, u128, Message)>,
    pub(super) cut: BTreeSet<(u128, u128)>,
    pub(super) answers: BTreeMap<u64, Outcome>,
    pub(super) roles: BTreeMap<u128, Role>,
    pub(super) lines: Vec<(u128, Line)>,
    pub(super) pins: BTreeMap<SessionId, Lsn>,
    pub(super) bases: BTreeMap<SessionId, BaseFound>,
    pub(super) sent: Vec<(u128, u128, Message)>,
    /// Whether a change set can be told, and where a checkpoint lies.
    pub(super) delta: bool,
    pub(super) endpoint: u64,
    pub(super) is_leased: bool,
    /// Answers of storage that are kept back.
    pub(super) hold_parts: bool,
    pub(super) hold_begins: bool,
    /// Of each base.
    pub(super) parts: u32,
    /// Bases are refused; whether before anything was done.
    pub(super) refuses_bases: Option<bool>,
    /// Records are neither kept nor not.
    pub(super) hold_records: bool,
    pub(super) hold_reads: bool,
    held: Vec<(u128, Event)>,
    reads: Vec<(u128, SessionId, Lsn, Lsn, u64)>,
    events: VecDeque<(u128, Event)>,
    is_draining: bool,
    last: u128,
    next: u64,
}

pub(super) fn limits() -> Limits {
    Limits {
        silence: Duration::from_secs(3),
        heartbeat: Duration::from_secs(1),
        window_bytes: 4096,
        window_records: 16,
        entries_bytes: 256,
        catch_up_duration: Duration::from_secs(100),
        catch_up_records: 1000,
        progress: Duration::from_secs(10),
        waiting_writes: 8,
        write_wait: Duration::from_secs(5),
        rebuilds: 1,
        validation: Duration::from_secs(2),
        retained_records: 20,
        lease_margin: Duration::from_secs(1),
        log_lines: 100,
    }
}

pub(super) fn identity() -> Identity {
    Identity {
        journal: JournalId([7; 16]),
        generation: Generation(1),
    }
}

pub(super) fn config(members: impl IntoIterator<Item = u128>, mode: Mode) -> Config {
    Config {
        version: Version::default(),
        members: members.into_iter().map(NodeId).collect(),
        mode,
        policy: Policy::Refuse,
        previous: None,
    }
}

pub(super) fn is_written(outcome: Option<Outcome>) -> bool {
    matches!(outcome, Some(Outcome::Written { .. }))
}

impl Disk {
    fn new(config: Config) -> Self {
        let nobody = (Epoch(0), EpochId(0), NodeId(0));
        Self {
            record: Record {
                promised: nobody,
                granted: nobody,
                holders: BTreeSet::new(),
                start: None,
                previous_end: Position::default(),
                config,
                is_amnesiac: false,
                reason: "a node was made".to_owned(),
            },
            log: Vec::new(),
            base: Position::default(),
            base_history: History::default(),
            committed: Lsn::ZERO,
            quarantine: Vec::new(),
            is_damaged: false,
            is_slow: false,
            unsynced: Vec::new(),
            is_stuck: false,
            rotten: None,
        }
    }

    pub(super) fn end(&self) -> Position {
        self.log.last().map_or(self.base, |entry| entry.position)
    }

    pub(super) fn first_retained(&self) -> Lsn {
        self.base.lsn.next()
    }

    pub(super) fn history(&self) -> History {
        let mut history = self.base_history.clone();
        for entry in self.log.iter().filter(|entry| entry.kind == ANNOUNCEMENT) {
            history.begin(announced(entry.position.lsn, &entry.bytes).unwrap().0);
        }
        history
    }

    /// Removes everything up to `last`, as retention does.
    pub(super) fn recycle(&mut self, last: Lsn) {
        let mut history = self.history();
        let kept = self
            .log
            .iter()
            .find(|entry| entry.position.lsn == last)
            .unwrap();
        self.base = kept.position;
        history.cut(last);
        self.base_history = history;
        self.log.retain(|entry| entry.position.lsn > last);
    }
}

impl Cluster {
    pub(super) fn new(members: u128, mode: Mode) -> Self {
        Self::with(limits(), config(1..=members, mode))
    }

    pub(super) fn with(limits: Limits, config: Config) -> Self {
        let ids: Vec<u128> = config.members.iter().map(|node| node.0).collect();
        let mut cluster = Self {
            now: Time(Duration::from_secs(1000)),
            limits,
            nodes: BTreeMap::new(),
            disks: BTreeMap::new(),
            wire: VecDeque::new(),
            cut: BTreeSet::new(),
            answers: BTreeMap::new(),
            roles: BTreeMap::new(),
            lines: Vec::new(),
            pins: BTreeMap::new(),
            bases: BTreeMap::new(),
            sent: Vec::new(),
            delta: false,
            endpoint: 1,
            is_leased: false,
            hold_parts: false,
            hold_begins: false,
            parts: 3,
            refuses_bases: None,
            hold_records: false,
            hold_reads: false,
            held: Vec::new(),
            reads: Vec::new(),
            events: VecDeque::new(),
            is_draining: false,
            last: 1_000_000,
            next: 0,
        };
        for id in ids {
            cluster.disks.insert(id, Disk::new(config.clone()));
            cluster.start(id);
        }
        cluster
    }

    pub(super) fn fresh(&mut self) -> u128 {
        self.last += 1;
        self.last
    }

    pub(super) fn start(&mut self, id: u128) {
        let fresh = EpochId(self.fresh());
        let disk = &self.disks[&id];
        let durable = Durable {
            record: disk.record.clone(),
            end: disk.end(),
            first_retained: disk.first_retained(),
            history: disk.history(),
            committed: disk.committed,
            derived: disk.committed,
            is_damaged: disk.is_damaged,
            is_leased: self.is_leased,
            fresh,
        };
        let (node, effects) =
            Node::start(self.now, NodeId(id), 99, identity(), durable, self.limits);
        self.nodes.insert(id, node);
        self.carry_out(id, effects);
        let others: Vec<u128> = self
            .nodes
            .keys()
            .copied()
            .filter(|other| *other != id)
            .collect();
        for other in others {
            self.connect(id, other);
            self.connect(other, id);
        }
        self.run();
    }

    /// Power is lost: what was not on disk is gone, and so is every connection and hold.
    pub(super) fn stop(&mut self, id: u128) {
        self.nodes.remove(&id);
        self.disks.get_mut(&id).unwrap().unsynced.clear();
        self.wire.retain(|(from, to, _)| *from != id && *to != id);
        let others: Vec<u128> = self.nodes.keys().copied().collect();
        for other in others {
            self.step(other, Event::Disconnected { peer: NodeId(id) });
        }
        self.run();
    }

    pub(super) fn is_cut(&self, from: u128, to: u128) -> bool {
        self.cut.contains(&(from, to))
    }

    pub(super) fn connect(&mut self, id: u128, peer: u128) {
        let alive = self.nodes.contains_key(&id) && self.nodes.contains_key(&peer);
        if alive && !self.is_cut(id, peer) && !self.is_cut(peer, id) {
            let session = SessionId(self.fresh());
            let endpoint = self.endpoint;
            self.step(
                id,
                Event::Connected {
                    peer: NodeId(peer),
                    endpoint,
                    session,
                },
            );
        }
    }

    /// Nothing goes between two nodes any more; neither is told.
    pub(super) fn part(&mut self, one: u128, other: u128) {
        self.cut.extend([(one, other), (other, one)]);
    }

    pub(super) fn heal(&mut self, one: u128, other: u128) {
        self.cut.remove(&(one, other));
        self.cut.remove(&(other, one));
        self.connect(one, other);
        self.connect(other, one);
        self.run();
    }

    pub(super) fn step(&mut self, id: u128, event: Event) {
        self.events.push_back((id, event));
        self.drain();
    }

    /// Answers of a disk come after all effects of the step that asked.
    fn drain(&mut self) {
        if std::mem::replace(&mut self.is_draining, true) {
            return;
        }
        while let Some((id, event)) = self.events.pop_front() {
            if let Some(node) = self.nodes.get_mut(&id) {
                let effects = node.step(self.now, event);
                self.carry_out(id, effects);
            }
        }
        self.is_draining = false;
    }

    /// Delivers everything that is on its way.
    pub(super) fn run(&mut self) {
        while let Some((from, to, message)) = self.wire.pop_front() {
            if !self.is_cut(from, to) {
                self.step(to, Event::Received(message));
            }
        }
    }

    pub(super) fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now.0 += Duration::from_secs(1);
            let ids: Vec<u128> = self.nodes.keys().copied().collect();
            for id in ids {
                self.step(id, Event::Tick);
                self.run();
            }
        }
    }

    pub(super) fn order(&mut self, id: u128, order: Order) -> u64 {
        self.next += 1;
        let number = self.next;
        let epoch_id = EpochId(self.fresh());
        self.step(
            id,
            Event::Ordered {
                number,
                order,
                epoch_id,
            },
        );
        self.run();
        number
    }

    pub(super) fn promote(&mut self, id: u128) -> Option<Outcome> {
        let order = Order::Promote {
            node: NodeId(id),
            config: None,
            force: None,
        };
        let number = self.order(id, order);
        self.pass(4);
        self.answers.get(&number).cloned()
    }

    pub(super) fn write(&mut self, id: u128, text: &str) -> Option<Outcome> {
        self.write_under(id, text, None)
    }

    pub(super) fn write_under(
        &mut self,
        id: u128,
        text: &str,
        under: Option<Epoch>,
    ) -> Option<Outcome> {
        self.next += 1;
        let number = self.next;
        let records = vec![(KIND, text.as_bytes().into())];
        let write = Event::Write {
            number,
            records,
            under,
        };
        self.step(id, write);
        self.run();
        self.answers.get(&number).cloned()
    }

    /// As [`Self::order`], with everything that is said still on its way.
    pub(super) fn order_without_network(&mut self, id: u128, order: Order) {
        self.next += 1;
        let number = self.next;
        let epoch_id = EpochId(self.fresh());
        self.step(
            id,
            Event::Ordered {
                number,
                order,
                epoch_id,
            },
        );
    }

    pub(super) fn deliver_one(&mut self) {
        if let Some((_, to, message)) = self.wire.pop_front() {
            self.step(to, Event::Received(message));
        }
    }

    /// A node that is no member yet.
    pub(super) fn add(&mut self, id: u128, config: Config) {
        self.disks.insert(id, Disk::new(config));
        self.start(id);
    }

    pub(super) fn lease(&mut self, id: u128, seconds: u64) {
        let epoch = self.disks[&id].record.granted.0;
        let until = Time(self.now.0 + Duration::from_secs(seconds));
        let fresh = EpochId(self.fresh());
        let leased = Event::Leased {
            epoch,
            until,
            fresh,
        };
        self.step(id, leased);
    }

    /// A write that is not expected to be answered at once.
    pub(super) fn write_later(&mut self, id: u128, text: &str) -> u64 {
        assert_eq!(self.write(id, text), None);
        self.next
    }

    /// A promotion that takes what may be lost upon itself.
    pub(super) fn force(&mut self, id: u128) {
        let force = Some("the other one was switched off".to_owned());
        let order = Order::Promote {
            node: NodeId(id),
            config: None,
            force,
        };
        let number = self.order(id, order);
        self.pass(6);
        assert_eq!(self.answers.get(&number), Some(&Outcome::Done));
    }

    /// Its coordinator, if it had one, says that it is over.
    pub(super) fn demote(&mut self, id: u128) {
        self.step(id, Event::LeaseLost);
        self.run();
    }

    /// A message out of nowhere, under the epoch that its sender has on disk.
    pub(super) fn say(&mut self, from: u128, to: u128, body: Body) {
        let (epoch, epoch_id, _) = self.disks[&from].record.promised;
        let header = Header {
            cluster: 99,
            journal: identity(),
            from: NodeId(from),
            epoch,
            epoch_id,
        };
        self.wire.push_back((from, to, Message { header, body }));
        self.run();
    }

    /// A candidate wants a promise.
    pub(super) fn seal(&mut self, from: u128, to: u128, epoch: u64, id: u128) {
        let candidate = NodeId(from);
        let header = Header {
            cluster: 99,
            journal: identity(),
            from: candidate,
            epoch: Epoch(epoch),
            epoch_id: EpochId(id),
        };
        let body = Body::Seal { candidate };
        self.wire.push_back((from, to, Message { header, body }));
        self.run();
    }

    pub(super) fn replica(&self, id: u128, replica: u128) -> ReplicaStatus {
        let replicas = self.nodes[&id].status().replicas;
        replicas
            .into_iter()
            .find(|status| status.replica == NodeId(replica))
            .unwrap()
    }

    /// By what the replica knows the session that it is in.
    pub(super) fn attachment(&self, replica: u128) -> Attachment {
        let receiver = self.nodes[&replica].receiver.as_ref();
        receiver.unwrap().attachment
    }

    pub(super) fn is_in_sync(&self, id: u128, replica: u128) -> bool {
        self.replica(id, replica).is_in_sync
    }

    /// Retention removes what a node has up to `last`, unless it is held.
    pub(super) fn recycle(&mut self, id: u128, last: u64) {
        let disk = self.disks.get_mut(&id).unwrap();
        disk.recycle(Lsn::new(last));
        let first = disk.first_retained();
        self.step(
            id,
            Event::Retained {
                first,
                wants: first,
            },
        );
    }

    pub(super) fn release_parts(&mut self) {
        (self.hold_parts, self.hold_begins) = (false, false);
        self.release_held_parts();
    }

    /// Those that are held; the next ones are held again.
    pub(super) fn release_held_parts(&mut self) {
        for (id, event) in std::mem::take(&mut self.held) {
            self.step(id, event);
        }
        self.run();
    }

    pub(super) fn release_reads(&mut self) {
        self.hold_reads = false;
        for (id, session, from, to, bytes) in std::mem::take(&mut self.reads) {
            self.read(id, session, from, to, bytes);
        }
        self.run();
    }

    pub(super) fn confirm(&mut self, id: u128) -> u64 {
        self.next += 1;
        let number = self.next;
        self.step(id, Event::Confirm { number });
        self.run();
        number
    }

    pub(super) fn answer(&self, number: u64) -> Option<&Outcome> {
        self.answers.get(&number)
    }

    pub(super) fn texts(&self, id: u128) -> Vec<String> {
        let log = self.disks[&id]
            .log
            .iter()
            .filter(|entry| entry.kind == KIND);
        log.map(|entry| String::from_utf8(entry.bytes.to_vec()).unwrap())
            .collect()
    }

    pub(super) fn names(&self, id: u128) -> Vec<&'static str> {
        self.lines
            .iter()
            .filter(|(node, _)| *node == id)
            .map(|(_, line)| line.name)
            .collect()
    }

    pub(super) fn causes(&self, id: u128, name: &str) -> Vec<String> {
        let lines = self
            .lines
            .iter()
            .filter(|(node, line)| *node == id && line.name == name);
        lines.map(|(_, line)| line.cause.clone()).collect()
    }

    /// Lets the disk of a node write what waited.
    pub(super) fn flush(&mut self, id: u128) {
        let disk = self.disks.get_mut(&id).unwrap();
        disk.is_slow = false;
        let entries = std::mem::take(&mut disk.unsynced);
        self.append(id, entries);
        self.run();
    }

    fn append(&mut self, id: u128, entries: Vec<Entry>) {
        let disk = self.disks.get_mut(&id).unwrap();
        if disk.is_slow {
            disk.unsynced.extend(entries);
            return;
        }
        for entry in entries {
            assert_eq!(entry.position.lsn, disk.end().lsn.next());
            disk.log.push(entry);
        }
        let end = disk.end();
        self.step(id, Event::Flushed(end));
    }

    fn carry_out(&mut self, id: u128, effects: Vec<Effect>) {
        for effect in effects {
            self.effect(id, effect);
        }
    }

    fn effect(&mut self, id: u128, effect: Effect) {
        match effect {
            Effect::Send { to, message } => {
                let record = &self.disks[&id].record;
                let epoch = message.header.epoch;
                assert!(
                    record.promised.0 >= epoch,
                    "a message relies on {}",
                    epoch.0
                );
                self.sent.push((id, to.0, message.clone()));
                self.wire.push_back((id, to.0, message));
            }
            Effect::Append(entries) => self.append(id, entries),
            Effect::Truncate { keep } => self.truncate(id, keep),
            Effect::Keep { number, record } => {
                let disk = self.disks.get_mut(&id).unwrap();
                let is_durable = !disk.is_stuck;
                if is_durable {
                    disk.record = record;
                }
                if !self.hold_records {
                    self.step(id, Event::Kept { number, is_durable });
                }
            }
            Effect::Read {
                session,
                from,
                to,
                bytes,
            } => self.read(id, session, from, to, bytes),
            Effect::Pin { session, from } => {
                self.pins.insert(session, from);
            }
            Effect::Unpin { session } => {
                assert!(self.pins.remove(&session).is_some(), "released twice");
            }
            Effect::Commit(lsn) => self.disks.get_mut(&id).unwrap().committed = lsn,
            Effect::Answer { number, outcome } => {
                let again = self.answers.insert(number, outcome);
                assert_eq!(again, None, "{number} was answered twice");
            }
            Effect::Role(role) => {
                self.roles.insert(id, role);
            }
            Effect::Log(line) => self.lines.push((id, line)),
            Effect::Reconnect { peer } => self.connect(id, peer.0),
            base => self.base(id, base),
        }
    }

    fn base(&mut self, id: u128, effect: Effect) {
        match effect {
            Effect::OpenBase { session, since } => self.open_base(id, session, since),
            Effect::ReadBase { session, index } => {
                let bytes = Some(vec![u8::try_from(index).unwrap()]);
                self.step(
                    id,
                    Event::BaseRead {
                        session,
                        index,
                        bytes,
                    },
                );
            }
            Effect::CloseBase { session } => {
                assert!(self.bases.remove(&session).is_some(), "closed twice");
            }
            Effect::BeginBase {
                session,
                base,
                history,
                since: _,
                parts: _,
            } => {
                let disk = self.disks.get_mut(&id).unwrap();
                assert!(
                    disk.record.is_amnesiac,
                    "a rebuild is on record before it begins"
                );
                if let Some(is_untouched) = self.refuses_bases {
                    let failed = Event::BaseFailed {
                        session,
                        reason: "no room".to_owned(),
                        is_untouched,
                    };
                    return self.step(id, failed);
                }
                disk.log.clear();
                disk.base = base;
                disk.base_history = history;
                disk.committed = base.lsn;
                let begun = Event::BaseStored { session, parts: 0 };
                match self.hold_begins {
                    true => self.held.push((id, begun)),
                    false => self.step(id, begun),
                }
            }
            Effect::StoreBase { session, index, .. } => {
                let parts = index + 1;
                let stored = Event::BaseStored { session, parts };
                if self.hold_parts {
                    self.held.push((id, stored));
                } else {
                    self.step(id, stored);
                }
            }
            other => panic!("{other:?} has nothing to do with a base"),
        }
    }

    fn truncate(&mut self, id: u128, keep: Position) {
        let disk = self.disks.get_mut(&id).unwrap();
        let log = std::mem::take(&mut disk.log);
        let (kept, cut) = log
            .into_iter()
            .partition(|entry| entry.position.lsn <= keep.lsn);
        disk.log = kept;
        disk.quarantine.extend::<Vec<Entry>>(cut);
        let end = disk.end();
        self.step(id, Event::Truncated { end });
    }

    fn read(&mut self, id: u128, session: SessionId, from: Lsn, to: Lsn, bytes: u64) {
        if self.hold_reads {
            return self.reads.push((id, session, from, to, bytes));
        }
        let disk = &self.disks[&id];
        let mut left = usize::try_from(bytes).unwrap();
        let mut entries = Vec::new();
        for entry in disk
            .log
            .iter()
            .filter(|entry| (from..=to).contains(&entry.position.lsn))
        {
            let is_rotten = disk.rotten == Some(entry.position.lsn);
            if is_rotten || (!entries.is_empty() && entry.bytes.len() > left) {
                break;
            }
            left = left.saturating_sub(entry.bytes.len());
            entries.push(entry.clone());
        }
        let entries = if from < disk.first_retained() {
            Err(Outcome::Recycled {
                first: disk.first_retained(),
            })
        } else if disk.rotten == Some(from) {
            Err(Outcome::Corrupt { lsn: from })
        } else {
            Ok(entries)
        };
        self.step(id, Event::ReadBack { session, entries });
    }

    fn open_base(&mut self, id: u128, session: SessionId, since: Option<Lsn>) {
        let disk = &self.disks[&id];
        let lsn = disk.committed;
        let epoch = if lsn == Lsn::ZERO {
            Epoch(0)
        } else {
            disk.history().at(lsn).epoch
        };
        let since = since.filter(|_| self.delta);
        let made = (since.is_none()).then(|| "no checkpoint".to_owned());
        let found = BaseFound {
            base: Position { epoch, lsn },
            parts: self.parts,
            since,
            made,
        };
        self.bases.insert(session, found.clone());
        self.step(
            id,
            Event::BaseOpened {
                session,
                base: Some(found),
            },
        );
    }
}
