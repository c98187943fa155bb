//! The replica's side of a session: appends what follows directly, reports what is durable, cuts and
//! takes a base when it is told to.
//!
//! What a peer says is looked at before it is used: whatever does not fit the own log is refused.

use wal::Lsn;

use super::{
    Attached, Attachment, Body, Effect, Entry, History, NodeId, Position, Record, SessionId, Time,
    log::{Log, Pending},
    outbox::Outbox,
};

/// What the primary has to say next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// Appends of before are on their way to the disk: what is here is not known yet.
    Settling,
    Live,
    Cutting {
        keep: Position,
    },
    /// The base is not begun on disk yet.
    Beginning,
}

#[derive(Debug)]
struct Base {
    parts: u32,
    stored: u32,
    /// A part is on its way to disk.
    is_storing: bool,
}

#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) session: SessionId,
    pub(super) endpoint: u64,
    pub(super) attachment: Attachment,
    pub(super) primary: NodeId,
    pub(super) last_heard: Time,
    stage: Stage,
    /// The primary feeds this log: it said where they agree, and nothing is to be cut or begun. Before
    /// that no position is reported but in `Attached`: a late one could be taken for one of after it.
    is_open: bool,
    cut: Option<Position>,
    heartbeat: u64,
    /// Where a hole was reported, so that one loss is not reported for each entry behind it.
    missing: Option<Position>,
    base: Option<Base>,
}

impl Receiver {
    pub(super) fn new(
        (session, endpoint): (SessionId, u64),
        attachment: Attachment,
        primary: NodeId,
        now: Time,
    ) -> Self {
        Self {
            session,
            endpoint,
            attachment,
            primary,
            last_heard: now,
            stage: Stage::Settling,
            is_open: false,
            cut: None,
            heartbeat: 0,
            missing: None,
            base: None,
        }
    }

    /// The primary said in this session what is committed.
    pub(super) fn is_informed(&self) -> bool {
        self.is_open || self.heartbeat > 0
    }

    pub(super) fn is_receiving_base(&self) -> bool {
        self.base
            .as_ref()
            .is_some_and(|base| base.stored < base.parts)
            || self.stage == Stage::Beginning
    }

    fn send(&self, body: Body, out: &mut Outbox) {
        out.send(self.primary, body);
    }

    /// Says what is here, once nothing is on its way to disk any more.
    pub(super) fn answer_attach(&mut self, log: &Log, record: &Record, out: &mut Outbox) {
        if let Some(reason) = &log.failed {
            return self.fail(reason.clone(), out);
        }
        if !log.is_settled() || self.is_open {
            return;
        }
        if self.stage == Stage::Settling {
            self.stage = Stage::Live;
        }
        let attached = Attached {
            session: self.session,
            endpoint: self.endpoint,
            attachment: self.attachment,
            flushed: log.flushed,
            first_retained: log.first_retained,
            history: log.history.clone(),
            committed: log.committed,
            derived: log.derived,
            configured: record.config.version,
            is_amnesiac: record.is_amnesiac,
        };
        self.send(Body::Attached(attached), out);
    }

    pub(super) fn fail(&self, reason: String, out: &mut Outbox) {
        let body = Body::Failed {
            session: self.session,
            endpoint: self.endpoint,
            reason,
        };
        self.send(body, out);
    }

    pub(super) fn entries(
        &mut self,
        previous: Position,
        entries: Vec<Entry>,
        committed: Lsn,
        log: &mut Log,
        out: &mut Outbox,
    ) {
        if self.stage != Stage::Live || log.failed.is_some() {
            return;
        }
        if previous.lsn > log.received.lsn {
            return self.report_missing(log, out);
        }
        if !log.history.has(log.received, previous) {
            return self.fail(format!("its log has no {previous}"), out);
        }
        let mut last = previous;
        let mut taken = Vec::new();
        for entry in entries {
            let is_here = entry.position.lsn <= log.received.lsn;
            let fits = if is_here {
                entry.position.lsn == last.lsn.next()
                    && log.history.has(log.received, entry.position)
            } else {
                Log::fits(last, &entry) && entry.position.epoch <= out.header.epoch
            };
            if !fits {
                return self.fail(format!("{} does not follow {last}", entry.position), out);
            }
            last = entry.position;
            if !is_here {
                taken.push(entry);
            }
        }
        self.is_open = true;
        log.told = log.told.max(committed.min(last.lsn));
        log.announce(self.primary, committed);
        if !taken.is_empty() {
            self.missing = None;
            log.append(&taken);
            let bytes = taken.iter().map(|entry| entry.bytes.len() as u64).sum();
            log.trail.appended(log.received.lsn, bytes, self.last_heard);
            out.push(Effect::Append(taken));
        } else if last.lsn <= log.flushed.lsn {
            // All of it came before: what was said about it then may be lost.
            self.report_flushed(log, out);
        }
        self.commit(log, out);
    }

    fn report_missing(&mut self, log: &Log, out: &mut Outbox) {
        if self.missing == Some(log.received) {
            return;
        }
        self.missing = Some(log.received);
        let body = Body::Missing {
            session: self.session,
            endpoint: self.endpoint,
            position: log.received,
        };
        self.send(body, out);
    }

    fn report_flushed(&self, log: &Log, out: &mut Outbox) {
        let body = Body::Flushed {
            session: self.session,
            endpoint: self.endpoint,
            position: if self.is_open {
                log.flushed
            } else {
                Position::default()
            },
            applied: log.applied,
            heartbeat: self.heartbeat,
        };
        self.send(body, out);
    }

    /// The own disk is further.
    pub(super) fn flushed(&mut self, log: &mut Log, record: &Record, out: &mut Outbox) {
        match self.stage {
            Stage::Settling => self.answer_attach(log, record, out),
            Stage::Live => {
                self.report_flushed(log, out);
                self.commit(log, out);
            }
            Stage::Cutting { .. } | Stage::Beginning => {}
        }
    }

    /// Readers may go as far as the primary committed and this disk has it, but not while the state
    /// under them is being replaced: that outlasts the session.
    fn commit(&mut self, log: &mut Log, out: &mut Outbox) {
        let to = log.told.min(log.flushed.lsn);
        if to > log.committed && !log.is_half {
            log.committed = to;
            out.push(Effect::Commit(to));
        }
    }

    pub(super) fn heartbeat(
        &mut self,
        ordinal: u64,
        sent: Position,
        committed: Lsn,
        log: &mut Log,
        out: &mut Outbox,
    ) {
        self.heartbeat = self.heartbeat.max(ordinal);
        log.announce(self.primary, committed);
        if self.stage == Stage::Live {
            if sent.lsn > log.received.lsn {
                // The last of what was sent is lost, or is behind this; asking twice does no harm.
                self.missing = None;
                self.report_missing(log, out);
            } else if log.history.has(log.received, sent) {
                // Nothing was sent yet: not where logs agree, also of one that is empty.
                self.is_open |= sent.lsn == log.received.lsn && sent.lsn > Lsn::ZERO;
                log.told = log.told.max(committed.min(sent.lsn));
                self.commit(log, out);
            }
        }
        self.report_flushed(log, out);
    }

    pub(super) fn truncate(&mut self, keep: Position, log: &mut Log, out: &mut Outbox) {
        if self.cut == Some(keep) {
            // Asked again, after it was done: there may be records behind it that count by now.
            return self.report_truncated(keep, out);
        }
        if self.stage != Stage::Live || self.is_open || log.failed.is_some() {
            return;
        }
        if !log.history.has(log.received, keep) {
            return self.fail(format!("its log has no {keep} to cut after"), out);
        }
        if log.derived > keep.lsn {
            let derived = log.derived;
            return self.fail(format!("it derived up to {derived}, beyond {keep}"), out);
        }
        // Nothing is on its way to disk: that was so when it said what it has.
        self.stage = Stage::Cutting { keep };
        log.pending = Some(Pending::Cut);
        out.push(Effect::Truncate { keep });
    }

    fn report_truncated(&self, end: Position, out: &mut Outbox) {
        let body = Body::Truncated {
            session: self.session,
            endpoint: self.endpoint,
            end,
        };
        self.send(body, out);
    }

    /// The log was cut; not necessarily for this session.
    pub(super) fn truncated(&mut self, log: &Log, record: &Record, out: &mut Outbox) {
        match self.stage {
            Stage::Cutting { keep } => {
                self.stage = Stage::Live;
                self.is_open = log.received == keep;
                self.cut = Some(log.received);
                self.report_truncated(log.received, out);
            }
            Stage::Settling => self.answer_attach(log, record, out),
            Stage::Live | Stage::Beginning => {}
        }
    }

    /// Whether a base that the primary names can be begun. An answer is sent if it was begun before.
    pub(super) fn may_begin_base(
        &mut self,
        base: Position,
        parts: u32,
        history: &History,
        log: &Log,
        out: &mut Outbox,
    ) -> bool {
        if self.base.is_some() && self.stage == Stage::Live {
            self.report_stored(out);
            return false;
        }
        if self.stage != Stage::Live || self.is_open || log.failed.is_some() || !log.is_settled() {
            return false;
        }
        // The first part says what the others are: a base of none would be whole with nothing in it.
        if parts == 0 {
            self.fail(format!("base {base} has no parts"), out);
            return false;
        }
        if !history.is_sound(base) {
            self.fail(format!("the history of base {base} does not fit it"), out);
            return false;
        }
        true
    }

    /// That this disk is not sound until the rebuild is done is on it.
    pub(super) fn begin_base(
        &mut self,
        base: Position,
        history: History,
        since: Option<Lsn>,
        parts: u32,
        out: &mut Outbox,
    ) {
        self.stage = Stage::Beginning;
        self.base = Some(Base {
            parts,
            stored: 0,
            is_storing: false,
        });
        out.push(Effect::BeginBase {
            session: self.session,
            base,
            history,
            since,
            parts,
        });
    }

    fn report_stored(&self, out: &mut Outbox) {
        if let Some(base) = &self.base {
            let body = Body::BaseStored {
                session: self.session,
                endpoint: self.endpoint,
                parts: base.stored,
            };
            self.send(body, out);
        }
    }

    pub(super) fn base_part(&mut self, index: u32, bytes: Vec<u8>, out: &mut Outbox) {
        let session = self.session;
        if self.stage != Stage::Live {
            return;
        }
        // A part is sent once the one before is stored. Otherwise this session began here a second time, by a
        // late `Attach`, and what was stored before is of no use: nothing but another session helps.
        let has_begun = self.base.as_ref().is_some_and(|base| index <= base.stored);
        let Some(base) = self.base.as_mut().filter(|_| has_begun) else {
            let reason = format!("part {index} of a base that this session did not begin");
            return self.fail(reason, out);
        };
        if index == base.stored && index < base.parts && !base.is_storing {
            base.is_storing = true;
            out.push(Effect::StoreBase {
                session,
                index,
                bytes,
            });
        } else if index < base.stored {
            self.report_stored(out);
        }
    }

    /// The base is begun, or so many of its parts are stored.
    pub(super) fn base_stored(&mut self, parts: u32, log: &mut Log, out: &mut Outbox) {
        let Some(base) = &mut self.base else { return };
        if self.stage == Stage::Beginning {
            self.stage = Stage::Live;
            self.is_open = true;
        }
        if parts > base.stored && parts <= base.parts {
            base.stored = parts;
            base.is_storing = false;
        }
        let is_done = base.stored == base.parts;
        self.report_stored(out);
        if is_done {
            log.is_half = false;
            out.push(Effect::Commit(log.committed));
            self.commit(log, out);
        }
    }

    pub(super) fn base_failed(&mut self, reason: String, out: &mut Outbox) {
        self.base = None;
        self.fail(reason, out);
    }

    /// This disk is sound again, and says so itself.
    pub(super) fn report_sound(&self, out: &mut Outbox) {
        let body = Body::Sound {
            session: self.session,
            endpoint: self.endpoint,
        };
        self.send(body, out);
    }

    /// Whether all that a rebuild consists of is here, as far as this side can tell.
    pub(super) fn is_whole(&self) -> bool {
        self.stage == Stage::Live && self.is_open && !self.is_receiving_base()
    }
}
