//! A look at a node: copies, taken at once. Nothing here changes anything.

use std::{collections::BTreeSet, time::Duration};

use wal::{Epoch, Lsn};

use super::{
    Config, History, Kind, Line, Node, NodeId, Phase, Plan, Position, Record, SessionId, State,
    Time, receiver::Receiver, sender::Sender, states, validation::Judgement,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub me: NodeId,
    /// The epoch that this node writes under.
    pub primary: Option<Epoch>,
    /// What is on disk beside the log.
    pub record: Record,
    pub end: Position,
    pub flushed: Position,
    pub history: History,
    pub first_retained: Lsn,
    pub committed: Lsn,
    pub applied: Lsn,
    pub derived: Lsn,
    pub is_amnesiac: bool,
    pub log_failed: Option<String>,
    pub promotion: states::State,
    /// Writes without an answer.
    pub waiting: usize,
    /// Members and mode are being changed.
    pub is_changing: bool,
    /// Who does not have that change yet and has to: empty once it is in force.
    pub awaits: BTreeSet<NodeId>,
    /// Of a primary, in order of their ids.
    pub replicas: Vec<ReplicaStatus>,
    /// Of a replica: who feeds it, and since when nothing was heard.
    pub fed_by: Option<(NodeId, SessionId, Duration)>,
    /// Whoever feeds this log has said, in its session, what is committed.
    pub is_informed: bool,
    /// Since when nothing was heard of whoever fed this log; `None`: never since this node was started.
    pub unheard: Option<Duration>,
    /// What was said to be committed, whether or not it is here.
    pub announced: Lsn,
    /// What was received and is not applied here, in bytes, and since when the oldest of it waits.
    pub unapplied: (u64, Duration),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    pub replica: NodeId,
    pub state: State,
    pub is_in_sync: bool,
    /// Why a log alone will not do.
    pub rebuild: Option<String>,
    pub session: Option<SessionStatus>,
    pub lag_records: u64,
    pub lag_bytes: u64,
    pub lag_time: Duration,
    pub applied: Lsn,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionStatus {
    pub id: SessionId,
    pub kind: Kind,
    pub phase: Phase,
    pub endpoint: u64,
    /// Why it ended.
    pub cause: Option<String>,
    pub plan: Option<Plan>,
    pub sent: Position,
    pub flushed: Position,
    pub parts: u32,
}

/// How many replicas are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub total: usize,
    pub in_sync: usize,
    pub recovering: usize,
    pub degraded: usize,
    pub rebuilding: usize,
}

impl Node {
    pub fn status(&self) -> Status {
        let primary = self.primary.as_ref();
        let senders = primary
            .into_iter()
            .flat_map(|primary| primary.senders.values());
        Status {
            me: self.me,
            primary: primary.map(|primary| primary.start.epoch),
            record: self.record().clone(),
            end: self.log.received,
            flushed: self.log.flushed,
            history: self.log.history.clone(),
            first_retained: self.log.first_retained,
            committed: self.log.committed,
            applied: self.log.applied,
            derived: self.log.derived,
            is_amnesiac: self.is_amnesiac(),
            log_failed: self.log.failed.clone(),
            promotion: self
                .candidacy
                .as_ref()
                .map_or(states::State::Steady, |candidacy| candidacy.state()),
            waiting: primary.map_or(0, |primary| primary.waiting()),
            is_changing: primary.is_some_and(|primary| primary.change.is_some()),
            awaits: primary.map_or_else(BTreeSet::new, |primary| {
                primary.awaits(&self.record().config, self.me)
            }),
            replicas: senders.map(|sender| self.replica_status(sender)).collect(),
            is_informed: self.receiver.as_ref().is_some_and(Receiver::is_informed),
            unheard: self.last_fed.map(|last| self.now.since(last)),
            announced: self.log.announced.max(self.log.committed),
            fed_by: self.receiver.as_ref().map(|receiver| {
                let quiet = self.now.since(receiver.last_heard);
                (receiver.primary, receiver.session, quiet)
            }),
            unapplied: {
                let (bytes, since) = self.log.trail.behind(self.log.applied);
                let waits = since.map_or(Duration::ZERO, |since| self.now.since(since));
                (bytes, waits)
            },
        }
    }

    /// The last lines of the recovery log, oldest first.
    pub fn lines(&self) -> impl Iterator<Item = &(Time, Line)> {
        self.out.lines()
    }

    /// What the last promotion of this node was decided on, rule by rule.
    pub fn judgement(&self) -> Option<&Judgement> {
        self.judgement.as_ref()
    }

    /// A lease that is wanted is over at `now`: what was decided to be acknowledged is not.
    pub fn is_lease_over(&self, now: Time) -> bool {
        self.lease.is_over(now)
    }

    pub fn config(&self) -> &Config {
        &self.record().config
    }

    fn replica_status(&self, sender: &Sender) -> ReplicaStatus {
        let session = sender.session.as_ref();
        let flushed = session.map_or(Lsn::ZERO, |session| session.log_lane.flushed.lsn);
        let (lag_bytes, since) = self.log.trail.behind(flushed);
        ReplicaStatus {
            replica: sender.replica,
            state: sender.state,
            is_in_sync: sender.is_in_sync(),
            rebuild: sender.rebuild.clone(),
            lag_records: self.log.received.lsn.get().saturating_sub(flushed.get()),
            lag_bytes,
            lag_time: since.map_or(Duration::ZERO, |since| self.now.since(since)),
            applied: session.map_or(Lsn::ZERO, |session| session.log_lane.applied),
            session: session.map(|session| SessionStatus {
                id: session.id,
                kind: session.kind,
                phase: session.phase,
                endpoint: session.endpoint,
                cause: session.cause.clone(),
                plan: session.plan.clone(),
                sent: session.log_lane.sent,
                flushed: session.log_lane.flushed,
                parts: session.base_lane.as_ref().map_or(0, |lane| lane.stored),
            }),
        }
    }
}

impl Status {
    pub fn counts(&self) -> Counts {
        let mut counts = Counts {
            total: self.replicas.len(),
            ..Counts::default()
        };
        for replica in &self.replicas {
            match replica.state {
                State::InSync => counts.in_sync += 1,
                State::Connecting | State::CatchingUp => counts.recovering += 1,
                State::Degraded => counts.degraded += 1,
                State::NeedsRebuild | State::Rebuilding => counts.rebuilding += 1,
                State::Disconnected => {}
            }
        }
        counts
    }
}
