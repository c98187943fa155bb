//! One node for one journal: what happened goes to whoever it concerns.
//!
//! A node is a replica until a record on its disk says otherwise. It is at most one of primary
//! ([`Primary`]) and fed by one ([`Receiver`]); a candidacy goes on beside the latter.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use wal::{Epoch, Identity, RecordKind};

use super::{
    Attachment, Durable, Effect, EpochId, Event, Header, Limits, Message, NodeId, Order, Outcome,
    Position, Refusal, Role, SessionId, Time,
    keeper::Keeper,
    lease::Lease,
    log::Log,
    outbox::Outbox,
    position::EPOCH_MAX,
    primary::{Office, Primary, answer},
    promise::Then,
    promotion::Candidacy,
    receiver::Receiver,
    sender::{Desk, Sender},
    validation::Judgement,
};

/// Where a peer can be reached, and the session that it may have.
#[derive(Debug)]
pub(super) struct Reach {
    pub(super) endpoint: u64,
    pub(super) fresh: Option<SessionId>,
}

/// A switchover that this node began and that another one has to end.
#[derive(Debug)]
pub(super) struct HandedOver {
    pub(super) number: u64,
    pub(super) to: NodeId,
    pub(super) since: Time,
}

#[derive(Debug)]
pub struct Node {
    pub(super) me: NodeId,
    pub(super) limits: Limits,
    pub(super) now: Time,
    pub(super) out: Outbox,
    pub(super) log: Log,
    pub(super) keeper: Keeper<Then>,
    pub(super) peers: BTreeMap<NodeId, Reach>,
    /// Peers that were there in this life and are not any more.
    pub(super) gone: BTreeSet<NodeId>,
    pub(super) primary: Option<Primary>,
    pub(super) receiver: Option<Receiver>,
    pub(super) next_attachment: Attachment,
    pub(super) candidacy: Option<Candidacy>,
    pub(super) handed_over: Option<HandedOver>,
    pub(super) lease: Lease,
    /// Found at the start, or by the disk; whether or not the record says so yet.
    pub(super) is_damaged: bool,
    /// When something was last heard of whoever feeds this log, in this life of the node.
    pub(super) last_fed: Option<Time>,
    /// What the last promotion of this node was decided on.
    pub(super) judgement: Option<Judgement>,
    /// The record says that a rebuild throws the log away, and that was not begun: to be taken back.
    pub(super) is_unbegun: bool,
    /// For the one time that this node goes on as a holder by itself.
    pub(super) fresh: Option<EpochId>,
}

impl Node {
    pub fn start(
        now: Time,
        me: NodeId,
        cluster: u128,
        journal: Identity,
        durable: Durable,
        limits: Limits,
    ) -> (Self, Vec<Effect>) {
        let record = durable.record;
        let (epoch, epoch_id, _) = record.promised;
        let header = Header {
            cluster,
            journal,
            from: me,
            epoch,
            epoch_id,
        };
        let mut log = Log::new(
            durable.history,
            durable.end,
            durable.first_retained,
            durable.committed,
            durable.derived,
        );
        log.announcer = Some(record.granted.2);
        // What a rebuild left when the process ended. Where nothing is, nothing is half.
        log.is_half = durable.is_damaged && durable.end.lsn > wal::Lsn::ZERO;
        let mut node = Self {
            me,
            limits,
            now,
            out: Outbox::new(header, limits.log_lines, now),
            log,
            keeper: Keeper::new(record),
            peers: BTreeMap::new(),
            gone: BTreeSet::new(),
            primary: None,
            receiver: None,
            next_attachment: Attachment(durable.fresh.0),
            candidacy: None,
            handed_over: None,
            lease: Lease::new(durable.is_leased),
            is_damaged: durable.is_damaged,
            last_fed: None,
            judgement: None,
            is_unbegun: false,
            fresh: Some(durable.fresh),
        };
        node.begin();
        let effects = node.out.take();
        (node, effects)
    }

    pub fn step(&mut self, now: Time, event: Event) -> Vec<Effect> {
        // A clock that went back would give time for a second time.
        self.now = self.now.max(now);
        self.out.begin(self.now);
        self.end_lease();
        self.handle(event);
        while let Some(event) = self.keeper.next_deferred() {
            self.handle(event);
        }
        self.go_on();
        if let Some(receiver) = &self.receiver {
            self.last_fed = Some(receiver.last_heard);
        }
        self.out.take()
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Write {
                number,
                records,
                under,
            } => self.write(number, records, under),
            Event::Confirm { number } => {
                let refusal = self.not_primary();
                let asked = self.with_primary(|primary, office| primary.confirm(number, office));
                self.answer_unless(asked, number, refusal);
            }
            Event::Received(message) => self.received(message),
            Event::Connected {
                peer,
                endpoint,
                session,
            } => self.connected(peer, endpoint, session),
            Event::Disconnected { peer } => self.disconnected(peer),
            Event::Flushed(position) => self.flushed(position),
            Event::LogFailed { reason } => self.log_failed(reason),
            Event::Kept { number, is_durable } => self.kept(number, is_durable),
            Event::Truncated { end } => self.truncated(end),
            Event::Applied { applied, derived } => {
                self.log.applied = applied.min(self.log.received.lsn);
                self.log.derived = derived;
            }
            Event::Leased {
                epoch,
                until,
                fresh,
            } => {
                self.lease.grant(epoch, until);
                self.fresh.get_or_insert(fresh);
                self.resume();
            }
            Event::LeaseLost => {
                self.lease.lose();
                self.step_down(&Refusal::LeaseEnded, "the lease is lost", None);
            }
            Event::Ordered {
                number,
                order,
                epoch_id,
            } => self.ordered(number, order, epoch_id),
            Event::Tick => self.tick(),
            lanes => self.lanes(lanes),
        }
    }

    /// What storage says about a session, on either side.
    fn lanes(&mut self, event: Event) {
        match event {
            Event::ReadBack { session, entries } => {
                if let Err(Outcome::Recycled { first }) = &entries {
                    self.log.first_retained = self.log.first_retained.max(*first);
                }
                self.with_session(session, |sender, desk| sender.read_back(entries, desk));
            }
            Event::BaseOpened { session, base } => {
                self.with_session(session, |sender, desk| sender.base_opened(base, desk));
            }
            Event::BaseRead {
                session,
                index,
                bytes,
            } => {
                self.with_session(session, |sender, desk| sender.base_read(index, bytes, desk));
            }
            Event::PinLost { session, reason } => {
                self.with_session(session, |sender, desk| {
                    let cause = format!("a hold was not to be had: {reason}");
                    sender.renew(cause, super::State::Disconnected, desk.out);
                });
            }
            Event::Retained { first, wants } => {
                self.log.first_retained = self.log.first_retained.max(first);
                self.with_primary(|primary, office| {
                    primary.each(office, |sender, desk| sender.retained(wants, desk));
                });
            }
            Event::BaseStored { session, parts } => self.base_stored(session, parts),
            Event::BaseFailed {
                session,
                reason,
                is_untouched,
            } => self.base_failed(session, reason, is_untouched),
            _ => {}
        }
    }

    fn write(&mut self, number: u64, records: Vec<(RecordKind, Arc<[u8]>)>, under: Option<Epoch>) {
        let held = self.primary.as_ref().map(|primary| primary.start.epoch);
        // Others may have written in between, whoever holds what comes after.
        if let Some(highest) = held.filter(|held| under.is_some_and(|under| under != *held)) {
            let refusal = Refusal::Fenced { highest };
            return answer(number, Outcome::Refused(refusal), &mut self.out);
        }
        let refusal = self.not_primary();
        let written = self.with_primary(|primary, office| primary.write(number, records, office));
        self.answer_unless(written, number, refusal);
    }

    fn answer_unless(&mut self, done: Option<()>, number: u64, refusal: Refusal) {
        if done.is_none() {
            answer(number, Outcome::Refused(refusal), &mut self.out);
        }
    }

    pub(super) fn not_primary(&self) -> Refusal {
        let holder = self.keeper.record().granted.2;
        let is_known =
            holder != self.me && self.keeper.record().granted.1 == self.out.header.epoch_id;
        Refusal::NotPrimary {
            holder: is_known.then_some(holder),
        }
    }

    pub(super) fn with_primary<R>(
        &mut self,
        act: impl FnOnce(&mut Primary, &mut Office<'_>) -> R,
    ) -> Option<R> {
        let primary = self.primary.as_mut()?;
        let may_acknowledge = self
            .lease
            .covers(primary.start.epoch, self.now, &self.limits);
        let mut office = Office {
            me: self.me,
            now: self.now,
            log: &mut self.log,
            limits: &self.limits,
            config: &self.keeper.record().config,
            may_acknowledge,
            out: &mut self.out,
        };
        Some(act(primary, &mut office))
    }

    fn with_session(&mut self, id: SessionId, act: impl FnOnce(&mut Sender, &mut Desk<'_>)) {
        self.with_primary(|primary, office| {
            let found = primary.senders.iter().find(|(_, sender)| {
                let session = sender.session.as_ref();
                session.is_some_and(|session| session.id == id && session.is_alive())
            });
            if let Some(replica) = found.map(|(replica, _)| *replica) {
                primary.with(replica, office, act);
            }
        });
    }

    fn connected(&mut self, peer: NodeId, endpoint: u64, session: SessionId) {
        let fresh = Some(session);
        self.peers.insert(peer, Reach { endpoint, fresh });
        self.gone.remove(&peer);
        self.connect(peer);
    }

    /// Begins a session with a replica, if it can be reached and there is an id for one.
    pub(super) fn connect(&mut self, peer: NodeId) {
        let is_replica = self
            .primary
            .as_ref()
            .is_some_and(|primary| primary.senders.contains_key(&peer));
        let Some(reach) = self.peers.get_mut(&peer).filter(|_| is_replica) else {
            return;
        };
        let endpoint = reach.endpoint;
        match reach.fresh.take() {
            Some(id) => {
                self.with_primary(|primary, office| {
                    primary.with(peer, office, |sender, desk| {
                        sender.connect(endpoint, id, desk)
                    });
                });
            }
            None => self.out.push(Effect::Reconnect { peer }),
        }
    }

    fn disconnected(&mut self, peer: NodeId) {
        if self.peers.remove(&peer).is_some() {
            self.gone.insert(peer);
        }
        self.with_primary(|primary, office| {
            primary.with(peer, office, |sender, desk| {
                let state = super::State::Disconnected;
                sender.end(
                    "session_invalidated",
                    "disconnected".to_owned(),
                    state,
                    desk.out,
                );
            });
        });
    }

    fn flushed(&mut self, position: Position) {
        if self.log.failed.is_some() {
            return;
        }
        self.log.flush(position);
        if let Some(receiver) = &mut self.receiver {
            receiver.flushed(&mut self.log, self.keeper.record(), &mut self.out);
        }
        self.with_primary(|primary, office| primary.each(office, Sender::go_on));
    }

    fn log_failed(&mut self, reason: String) {
        self.out.log(None, None, "log_failed", reason.clone());
        self.log.failed = Some(reason.clone());
        if let Some(receiver) = &self.receiver {
            receiver.fail(reason, &mut self.out);
        }
        self.step_down(&Refusal::LogFailed, "the log takes nothing more", None);
        self.deny(&Refusal::LogFailed, "the log takes nothing more");
    }

    fn truncated(&mut self, end: Position) {
        self.log.cut(end);
        if let Some(receiver) = &mut self.receiver {
            receiver.truncated(&self.log, self.keeper.record(), &mut self.out);
        }
    }

    fn base_stored(&mut self, session: SessionId, parts: u32) {
        let has_begun = self.log.begin_after(session);
        let Some(receiver) = &mut self.receiver else {
            return;
        };
        if receiver.session == session {
            receiver.base_stored(parts, &mut self.log, &mut self.out);
        } else if has_begun {
            // Begun for a session that is over; the one that is here waited to know where the log is.
            receiver.flushed(&mut self.log, self.keeper.record(), &mut self.out);
        }
    }

    fn base_failed(&mut self, session: SessionId, reason: String, is_untouched: bool) {
        let was_sound = self.log.give_up_base(session);
        self.is_unbegun |= was_sound && is_untouched;
        if let Some(receiver) = &mut self.receiver {
            let record = self.keeper.record();
            if receiver.session == session {
                receiver.base_failed(reason, &mut self.out);
            } else {
                receiver.flushed(&mut self.log, record, &mut self.out);
            }
        }
    }

    fn ordered(&mut self, number: u64, order: Order, epoch_id: EpochId) {
        if self.keeper.is_busy() {
            if !self.keeper.has_room() {
                // Nobody asks again for whoever waits for the end of this one.
                let refusal = Refusal::TooManyWaiting;
                return answer(number, Outcome::Refused(refusal), &mut self.out);
            }
            return self.keeper.defer(Event::Ordered {
                number,
                order,
                epoch_id,
            });
        }
        let refusal = self.not_primary();
        let done = match order {
            Order::Promote {
                node,
                config,
                force,
            } => {
                self.promote(Some(number), node, config, force, epoch_id);
                Some(())
            }
            Order::Succeed { node, above, lease } => {
                self.succeed(number, node, above, lease, epoch_id);
                Some(())
            }
            Order::Switchover { to } => self.with_primary(|primary, office| {
                primary.switch_over(number, to, epoch_id, office);
            }),
            Order::Configure { config, fenced } => self.configure(number, config, fenced),
            Order::Reattach { replica } => self.with_primary(|primary, office| {
                let known = primary.with(replica, office, |sender, desk| sender.reattach(desk.out));
                let outcome = match known {
                    Some(()) => Outcome::Done,
                    None => Outcome::Refused(Refusal::NotAReplica),
                };
                answer(number, outcome, office.out);
            }),
        };
        self.answer_unless(done, number, refusal);
    }

    fn tick(&mut self) {
        self.with_primary(|primary, office| {
            primary.each(office, Sender::tick);
            primary.tell_config(office);
            primary.expire_drain(office);
            primary.expire(office);
        });
        let heard = self.receiver.as_ref().map(|receiver| receiver.last_heard);
        if heard.is_some_and(|heard| self.now.since(heard) > self.limits.silence) {
            self.end_receiving("nothing was heard of the primary");
        }
        self.tick_candidacy();
        if self.is_damaged && !self.keeper.is_busy() && !self.record().is_amnesiac {
            self.find_loss("its disk has less than it had");
        }
        let patience = 2 * self.limits.validation;
        if let Some(handed) = self
            .handed_over
            .take_if(|handed| self.now.since(handed.since) > patience)
        {
            let refusal = Refusal::Fenced {
                highest: self.out.header.epoch,
            };
            answer(handed.number, Outcome::Unknown(refusal), &mut self.out);
        }
    }

    /// What follows from anything that happened: more may be committed, wanted or allowed.
    fn go_on(&mut self) {
        let mut senders = self
            .primary
            .iter()
            .flat_map(|primary| primary.senders.values());
        if senders.any(|sender| sender.has_found_loss) {
            self.find_loss("a replica has what was committed here, and this disk has not");
        }
        self.with_primary(|primary, office| {
            primary.write_held(office);
            primary.commit(office);
            primary.hand_over(office);
        });
        self.settle_unbegun();
        self.settle_change();
        self.judge_candidacy(false);
    }

    fn end_lease(&mut self) {
        let ended = self.primary.as_ref().is_some_and(|primary| {
            self.lease
                .has_ended(primary.start.epoch, self.now, &self.limits)
        });
        if ended {
            self.step_down(&Refusal::LeaseEnded, "the lease is at its end", None);
        }
    }

    /// Ends being primary, whatever the reason. What this node has on disk says the rest.
    pub(super) fn step_down(&mut self, refusal: &Refusal, cause: &str, holder: Option<NodeId>) {
        let Some(primary) = self.primary.take() else {
            return;
        };
        if let Some(drain) = &primary.drain {
            let (number, to, since) = (drain.number, drain.to, self.now);
            self.handed_over = Some(HandedOver { number, to, since });
        }
        primary.give_up(refusal, cause, &mut self.out);
        self.log.forget_tail();
        self.out.log(None, None, "stepped_down", cause.to_owned());
        self.out.push(Effect::Role(Role::Replica { holder }));
    }

    pub(super) fn is_ours(&self, message: &Message) -> bool {
        let (header, own) = (&message.header, &self.out.header);
        header.cluster == own.cluster
            && header.journal == own.journal
            && header.from != own.from
            && header.epoch < EPOCH_MAX
    }
}
