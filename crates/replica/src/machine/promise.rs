//! What a node keeps on disk before anything relies on it, and what happens once it is there.

use std::collections::{BTreeMap, BTreeSet};

use wal::{Epoch, Lsn};

use super::{
    ANNOUNCEMENT, Attach, Attachment, Body, Config, Effect, EpochId, EpochStart, Event, Header,
    History, Message, NodeId, Outcome, Position, Record, Refusal, Role, Sealed, SessionId,
    announce,
    configure::{self, Change},
    log::Pending,
    next_start,
    node::Node,
    position::EPOCH_MAX,
    primary::{Primary, answer},
    receiver::Receiver,
};

/// What a record was kept for.
#[derive(Debug)]
pub(super) enum Then {
    /// Nothing waits for it.
    Stay,
    Attach {
        primary: NodeId,
        attach: Attach,
    },
    Seal {
        candidate: NodeId,
    },
    /// A higher authority was heard of.
    Learn,
    OwnPromise {
        epoch: Epoch,
    },
    Granted,
    /// The holder goes on under the next number.
    Start,
    BeginBase(Box<Begin>),
    Sound {
        session: SessionId,
    },
    Configure {
        number: u64,
        fenced: BTreeSet<NodeId>,
    },
    /// More members of the change that is under way were said to be stopped.
    Stopped {
        number: u64,
        fenced: BTreeSet<NodeId>,
    },
    Configured,
    ChangeSettled,
}

#[derive(Debug)]
pub(super) struct Begin {
    pub(super) session: SessionId,
    pub(super) attachment: Attachment,
    pub(super) base: Position,
    pub(super) history: History,
    pub(super) since: Option<Lsn>,
    pub(super) parts: u32,
    /// The disk is sound until it is begun.
    pub(super) was_sound: bool,
}

impl Node {
    pub(super) fn record(&self) -> &Record {
        self.keeper.record()
    }

    pub(super) fn is_amnesiac(&self) -> bool {
        self.is_damaged || self.record().is_amnesiac
    }

    /// The one way to a record on disk. A loss that is found goes with every record until a rebuild is
    /// over: the record that was to tell of it may not have become durable.
    pub(super) fn keep(&mut self, mut record: Record, then: Then) {
        record.is_amnesiac |= self.is_damaged && !matches!(then, Then::Sound { .. });
        self.keeper.keep(record, then, &mut self.out);
    }

    /// What this life begins with.
    pub(super) fn begin(&mut self) {
        let record = self.record().clone();
        let holder = Some(record.granted.2).filter(|holder| *holder != self.me);
        self.out.push(Effect::Role(Role::Replica { holder }));
        let end = self.log.flushed;
        if let Some(line) = super::states::aborted(self.me, &record, end) {
            self.out
                .log(line.replica, line.session, line.name, line.cause);
        }
        let forgot_promise = end.epoch > record.promised.0;
        let is_holder = record.granted.2 == self.me;
        let lost_records = record
            .start
            .is_some_and(|start| is_holder && start.first > end.lsn.next());
        if (self.is_damaged || forgot_promise || lost_records) && !record.is_amnesiac {
            self.find_loss(if forgot_promise {
                "its log has a higher epoch than it had promised"
            } else {
                "its disk has less than it had"
            });
        }
        self.resume();
    }

    /// This disk has less than it had: it is no copy and no promise any more. On record as soon as that
    /// can be; in this life it holds at once.
    pub(super) fn find_loss(&mut self, reason: &str) {
        self.is_damaged = true;
        self.out.log(None, None, "amnesia", reason.to_owned());
        self.step_down(
            &Refusal::InvalidState("its disk has less than it had"),
            reason,
            None,
        );
        if !self.keeper.is_busy() {
            let record = Record {
                is_amnesiac: true,
                reason: reason.to_owned(),
                ..self.record().clone()
            };
            self.keep(record, Then::Stay);
        }
    }

    /// A holder that starts again goes on under the next number, made by itself: what it sent and had not
    /// on disk may lie on replicas under the old one.
    pub(super) fn resume(&mut self) {
        let record = self.record().clone();
        let is_holder = record.granted.2 == self.me && record.promised == record.granted;
        // A lease that comes again may find records of before on their way to the disk. The next renewal
        // asks again.
        let is_able = self.log.failed.is_none()
            && self.log.is_settled()
            && !self.is_amnesiac()
            && !self.keeper.is_busy();
        let is_free = self.primary.is_none() && self.candidacy.is_none();
        if !is_holder || !is_able || !is_free || !record.config.members.contains(&self.me) {
            return;
        }
        let Some(epoch) = next_start(record.granted.0) else {
            return;
        };
        if !self.lease.covers(epoch, self.now, &self.limits) {
            return;
        }
        let Some(id) = self.fresh.take() else { return };
        let authority = (epoch, id, self.me);
        let record = Record {
            promised: authority,
            granted: authority,
            holders: BTreeSet::from([self.me]),
            start: Some(EpochStart {
                epoch,
                id,
                first: self.log.received.lsn.next(),
            }),
            previous_end: self.log.received,
            reason: "the holder started again".to_owned(),
            ..record
        };
        self.keep(record, Then::Start);
    }

    /// A primary wants to feed this log, under the highest epoch that is promised or a higher one.
    pub(super) fn attach(&mut self, header: Header, attach: Attach) {
        if self.keeper.is_busy() {
            let body = Body::Attach(attach);
            return self.keeper.defer(Event::Received(Message { header, body }));
        }
        if !attach.config.is_of_a_size() {
            return;
        }
        let primary = header.from;
        let record = self.record();
        let authority = (header.epoch, header.epoch_id, primary);
        let mut kept = self.authority_of(authority);
        if attach.config.version > record.config.version {
            kept.config = attach.config.clone();
        }
        if kept == *record {
            return self.begin_receiving(primary, &attach);
        }
        self.keep(kept, Then::Attach { primary, attach });
    }

    /// The record with an authority that was granted elsewhere.
    fn authority_of(&self, authority: (Epoch, EpochId, NodeId)) -> Record {
        let record = self.record();
        if record.granted == authority && record.promised == authority {
            return record.clone();
        }
        Record {
            promised: authority,
            granted: authority,
            holders: BTreeSet::from([authority.2]),
            start: None,
            reason: "another node is primary".to_owned(),
            ..record.clone()
        }
    }

    fn begin_receiving(&mut self, primary: NodeId, attach: &Attach) {
        let (session, endpoint) = (attach.session, attach.endpoint);
        let known = self.receiver.as_ref().map(|receiver| receiver.session);
        if known != Some(session) {
            self.end_receiving("the primary began another");
            self.out.log(
                Some(primary),
                Some(session),
                "attached",
                format!("endpoint {endpoint}"),
            );
            let attachment = self.next_attachment;
            self.next_attachment.0 = attachment.0.wrapping_add(1);
            let session = (session, endpoint);
            self.receiver = Some(Receiver::new(session, attachment, primary, self.now));
        }
        let record = Record {
            is_amnesiac: self.is_amnesiac(),
            ..self.record().clone()
        };
        if let Some(receiver) = &mut self.receiver {
            receiver.last_heard = self.now;
            receiver.answer_attach(&self.log, &record, &mut self.out);
        }
    }

    /// A candidate wants a promise.
    pub(super) fn seal(&mut self, header: Header) {
        if self.keeper.is_busy() {
            let body = Body::Seal {
                candidate: header.from,
            };
            return self.keeper.defer(Event::Received(Message { header, body }));
        }
        let candidate = header.from;
        let promised = self.record().promised;
        let wanted = (header.epoch, header.epoch_id, candidate);
        if wanted == promised || self.is_amnesiac() {
            let sealed = self.sealed();
            return self.out.send(candidate, Body::Sealed(sealed));
        }
        if wanted.0 <= promised.0 {
            return self.refuse(candidate);
        }
        if let Some(record) = self.promise_to(wanted) {
            self.keep(record, Then::Seal { candidate });
        }
    }

    /// The record with a promise more. `None`: there is no room for another node, and there are never so
    /// many members.
    pub(super) fn promise_to(&self, wanted: (Epoch, EpochId, NodeId)) -> Option<Record> {
        let mut record = self.record().clone();
        record.promised = wanted;
        record.holders.insert(wanted.2);
        record.reason = "an epoch was promised".to_owned();
        (record.holders.len() <= super::MEMBERS_MAX).then_some(record)
    }

    pub(super) fn refuse(&mut self, to: NodeId) {
        let (highest, id, asker) = self.record().promised;
        self.out.send(to, Body::Refused { highest, id, asker });
    }

    /// What this node has, for a candidate.
    pub(super) fn sealed(&self) -> Sealed {
        let record = self.record();
        Sealed {
            flushed: self.log.flushed,
            flushed_id: self.log.history.at(self.log.flushed.lsn).id,
            committed: self.log.committed.max(self.log.told),
            config: record.config.clone(),
            holders: record.holders.clone(),
            is_amnesiac: self.is_amnesiac(),
        }
    }

    /// A message of ours was refused: somebody has promised a higher epoch.
    pub(super) fn refused(&mut self, header: Header, highest: Epoch, id: EpochId, asker: NodeId) {
        if highest >= EPOCH_MAX {
            return;
        }
        self.candidacy_refused(highest, id);
        let own = self.record().promised;
        if self.primary.is_none() || highest < own.0 || (highest, id) == (own.0, own.1) {
            return;
        }
        if highest == own.0 {
            // The same number, minted twice: there is nothing higher to promise.
            let peer = header.from;
            self.with_primary(|primary, office| {
                primary.with(peer, office, |sender, desk| {
                    let cause = format!("it promised {} to another node", highest.0);
                    sender.end(
                        "session_invalidated",
                        cause,
                        super::State::Degraded,
                        desk.out,
                    );
                });
            });
            return;
        }
        if self.keeper.is_busy() {
            let body = Body::Refused { highest, id, asker };
            return self.keeper.defer(Event::Received(Message { header, body }));
        }
        if let Some(record) = self.promise_to((highest, id, asker)) {
            self.keep(record, Then::Learn);
        }
    }

    /// A node says that it was promoted.
    pub(super) fn promoted(&mut self, header: Header, start: EpochStart, holder: NodeId) {
        let promised = self.record().promised;
        let authority = (start.epoch, start.id, holder);
        let is_its_own =
            holder == header.from && (start.epoch, start.id) == (header.epoch, header.epoch_id);
        if !is_its_own || (start.epoch <= promised.0 && authority != promised) {
            return;
        }
        if self.keeper.is_busy() {
            let body = Body::Promoted { start, holder };
            return self.keeper.defer(Event::Received(Message { header, body }));
        }
        let record = self.authority_of(authority);
        if record != *self.record() {
            self.keep(record, Then::Learn);
        }
    }

    pub(super) fn configure(
        &mut self,
        number: u64,
        config: Config,
        fenced: BTreeMap<NodeId, String>,
    ) -> Option<()> {
        let epoch = self.primary.as_ref()?.start.epoch;
        if !fenced.is_empty() && self.is_under_way(&config) {
            self.say_stopped(number, fenced);
            return Some(());
        }
        let own = &self.record().config;
        match configure::replace(own, config, self.me, epoch, &fenced) {
            Ok(Some(config)) => {
                let record = Record {
                    config,
                    reason: configure::reason(&fenced),
                    ..self.record().clone()
                };
                let fenced = fenced.into_keys().collect();
                self.keep(record, Then::Configure { number, fenced });
            }
            Ok(None) => answer(number, Outcome::Done, &mut self.out),
            Err(refusal) => answer(number, Outcome::Refused(refusal), &mut self.out),
        }
        Some(())
    }

    /// A rebuild that was not begun threw nothing away: this disk is the copy and the promise that it was.
    pub(super) fn settle_unbegun(&mut self) {
        if !self.is_unbegun || self.keeper.is_busy() {
            return;
        }
        self.is_unbegun = false;
        let record = self.record();
        let is_begun = self.log.is_half || matches!(self.log.pending, Some(Pending::Base { .. }));
        if self.is_damaged || is_begun || !record.is_amnesiac {
            return;
        }
        let record = Record {
            is_amnesiac: false,
            reason: "a rebuild was refused before it began".to_owned(),
            ..record.clone()
        };
        self.keep(record, Then::Stay);
    }

    /// A change of the configuration that is done names no more what it replaced.
    pub(super) fn settle_change(&mut self) {
        if self.keeper.is_busy() {
            return;
        }
        let is_settled = self.with_primary(Primary::has_settled);
        let epoch = self.out.header.epoch;
        if is_settled == Some(true) {
            let config = configure::settle(&self.record().config, epoch);
            let record = Record {
                config,
                ..self.record().clone()
            };
            self.keep(record, Then::ChangeSettled);
        }
    }

    pub(super) fn kept(&mut self, number: u64, is_durable: bool) {
        let Some((then, is_durable)) = self.keeper.kept(number, is_durable) else {
            return;
        };
        let (epoch, id, _) = self.record().promised;
        self.out.header.epoch = epoch;
        self.out.header.epoch_id = id;
        if is_durable {
            self.then(then);
        } else {
            self.not_kept(then);
        }
    }

    fn then(&mut self, then: Then) {
        match then {
            Then::Stay => {}
            Then::Attach { primary, attach } => {
                self.yield_to_promise();
                self.begin_receiving(primary, &attach);
            }
            Then::Seal { candidate } => {
                self.yield_to_promise();
                let sealed = self.sealed();
                self.out.send(candidate, Body::Sealed(sealed));
            }
            Then::Learn => self.yield_to_promise(),
            Then::OwnPromise { epoch } => {
                self.end_receiving("a higher epoch is promised");
                self.promised_itself(epoch);
            }
            Then::Granted => self.granted(),
            Then::Start => self.become_primary(),
            Then::BeginBase(begin) => self.begin_base(*begin),
            Then::Sound { session } => {
                self.is_damaged = false;
                self.log.is_half = false;
                let receiver = self.receiver.as_ref();
                if let Some(receiver) = receiver.filter(|receiver| receiver.session == session) {
                    receiver.report_sound(&mut self.out);
                }
            }
            Then::Configure { number, fenced } => self.configured(number, fenced),
            Then::Stopped { number, fenced } => self.stopped(number, fenced),
            Then::Configured => self.report_configured(),
            Then::ChangeSettled => self.change_settled(),
        }
    }

    fn not_kept(&mut self, then: Then) {
        let cause = "the record beside the log could not be made durable".to_owned();
        self.out.log(None, None, "not_kept", cause.clone());
        match then {
            Then::OwnPromise { .. } | Then::Granted => {
                self.deny(&Refusal::EvidenceMissing(cause.clone()), &cause);
            }
            Then::Configure { number, .. } | Then::Stopped { number, .. } => {
                let refusal = Refusal::EvidenceMissing(cause);
                answer(number, Outcome::Unknown(refusal), &mut self.out);
            }
            _ => {}
        }
    }

    /// A promise or an authority of another node is on disk: whatever was done under a lower one ends.
    fn yield_to_promise(&mut self) {
        let record = self.record();
        let (epoch, _, asker) = record.promised;
        let holder = (record.granted == record.promised).then_some(asker);
        let refusal = Refusal::Fenced { highest: epoch };
        let cause = format!("epoch {} is promised to another node", epoch.0);
        if self.primary.is_some() {
            self.step_down(&refusal, &cause, holder);
        } else if holder.is_some() {
            self.out.push(Effect::Role(Role::Replica { holder }));
        }
        if let Some(handed) = self.handed_over.take_if(|handed| holder == Some(handed.to)) {
            answer(handed.number, Outcome::Done, &mut self.out);
        }
        self.end_receiving("a higher epoch is promised");
        if let Some(holder) = holder {
            // It has everything that was committed before, or was forced: what an earlier one said counts
            // no more.
            self.log.told = self.log.committed;
            self.log.follow(holder);
        }
        self.overtaken(epoch, holder.is_some());
    }

    pub(super) fn end_receiving(&mut self, cause: &str) {
        if let Some(receiver) = self.receiver.take() {
            let (primary, session) = (receiver.primary, receiver.session);
            self.out
                .log(Some(primary), Some(session), "session_ended", cause.into());
        }
    }

    /// The record that makes this node the holder is on disk.
    pub(super) fn become_primary(&mut self) {
        let record = self.record().clone();
        world::invariant!(
            self.log.is_settled() && record.granted.2 == self.me,
            "a holder begins at {} of {}",
            self.log.flushed,
            self.log.received
        );
        let (epoch, id, _) = record.granted;
        let start = EpochStart {
            epoch,
            id,
            first: self.log.received.lsn.next(),
        };
        let mut primary = Primary::new(start);
        if record.config.previous.is_some() {
            primary.change = Some(Change::new(None, BTreeSet::new()));
        }
        self.primary = Some(primary);
        self.out.log(
            None,
            None,
            "primary",
            format!("{}, from {}", record.reason, start.first),
        );
        self.out.push(Effect::Role(Role::Primary { epoch }));
        let me = self.me;
        self.with_primary(|primary, office| {
            primary.reconcile(office);
            let bytes = announce(epoch, id, me).into();
            primary.append_records(vec![(ANNOUNCEMENT, bytes)], office);
        });
        let others: Vec<NodeId> = record
            .config
            .members
            .iter()
            .copied()
            .filter(|node| *node != me)
            .collect();
        for node in &others {
            self.out.send(*node, Body::Promoted { start, holder: me });
        }
        self.connect_all();
    }

    fn connect_all(&mut self) {
        let primary = self.primary.iter();
        let idle = primary.flat_map(|primary| primary.senders.iter());
        let idle = idle.filter(|(_, sender)| sender.session.is_none());
        let idle: Vec<NodeId> = idle.map(|(node, _)| *node).collect();
        for node in idle {
            self.connect(node);
        }
    }

    fn configured(&mut self, number: u64, fenced: BTreeSet<NodeId>) {
        let has_quorum_changed = self.record().config.previous.is_some();
        self.with_primary(|primary, office| {
            if has_quorum_changed {
                primary.change = Some(Change::new(Some(number), fenced));
            } else {
                answer(number, Outcome::Done, office.out);
            }
            primary.reconcile(office);
            primary.tell_config(office);
        });
        self.connect_all();
    }

    fn change_settled(&mut self) {
        self.with_primary(|primary, office| {
            if let Some(number) = primary.change.take().and_then(|change| change.number) {
                answer(number, Outcome::Done, office.out);
            }
            primary.reconcile(office);
            primary.tell_config(office);
        });
    }
}
