//! A node's disk: its log, the record beside it, and the derived state of its owner. What was not
//! synced may be there after a crash, or not, or a part of it.
//!
//! Each of log, record and base is a lane of its own, in which one thing is done after the other:
//! the lanes do not wait for each other, so a crash can find each of them ahead of the others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use replica::machine::{BaseFound, Entry, EpochId, History, Outcome, Position, Record, SessionId};
use wal::{Epoch, Lsn};

use super::{
    agenda::Moment,
    breach::{Breach, Checker, Verdict},
    derived::{Derived, Map, Version},
    log::{Log, id_in},
    payload,
    tally::Tally,
};
use crate::crash::dice::Dice;

/// Keys in one part of a base: few, so that a base has several parts.
const PART_KEYS: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    Log,
    Record,
    Base,
}

/// A change of the log that is under way.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Append(Vec<Entry>),
    Truncate(Position),
    Begin(Begin),
}

#[derive(Clone, Debug)]
pub(crate) struct Begin {
    pub(crate) session: SessionId,
    pub(crate) base: Position,
    pub(crate) history: History,
    pub(crate) since: Option<Lsn>,
    pub(crate) parts: u32,
}

/// What survives a crash.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    pub(crate) log: Log,
    pub(crate) record: Option<Record>,
    pub(crate) derived: Derived,
    /// A base that is not complete, and how many of its parts are here.
    rebuild: Option<(Begin, u32)>,
    /// Something was lost that had been durable, and no rebuild has made up for it.
    pub(crate) is_damaged: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) image: Image,
    pub(crate) log_lane: VecDeque<Change>,
    pub(crate) record_lane: VecDeque<(u64, Record)>,
    pub(crate) base_lane: VecDeque<(SessionId, u32, Vec<u8>)>,
    /// The log took an error; nothing goes into it until the next start.
    pub(crate) is_failed: bool,
    pub(crate) is_full: bool,
    /// It lost something, and it was not seen whole since.
    pub(crate) is_wounded: bool,
    pub(crate) wounded_at: Moment,
    /// How far it went then, and what it had promised: what it told of that may be under way.
    had: Option<(Position, EpochId, Epoch)>,
    /// Nobody can tell that by looking at this disk alone.
    pub(crate) is_wounded_unseen: bool,
    /// An earlier disk was put back, of before a loss that was accepted since: until the others are heard its readers
    /// see what was lost.
    pub(crate) is_before_a_loss: bool,
    /// How many times slower than usual.
    pub(crate) slowness: u64,
    /// Of the log alone, beside that.
    pub(crate) log_slowness: u64,
    pins: BTreeMap<SessionId, Lsn>,
    /// Holds that could not be taken, or moved: their sessions may still let go of them.
    lost_pins: BTreeSet<SessionId>,
    /// Parts of the bases that are held.
    bases: BTreeMap<SessionId, Vec<Vec<u8>>>,
}

impl Image {
    /// A disk with nothing on it but this.
    pub(crate) fn blank(record: Record) -> Self {
        Self {
            record: Some(record),
            is_damaged: true,
            ..Self::default()
        }
    }

    /// Verifies the log as a start does: from the first damaged record on it is gone.
    fn verify(&mut self, tally: &mut Tally) {
        if let Some(lsn) = self.log.damaged() {
            tally.count("starts that found a damaged log");
            self.log.cut(Lsn::new(lsn.get() - 1));
            self.is_damaged = true;
        }
        self.derived.go_back(self.derived.durable());
    }

    pub(crate) fn is_amnesiac(&self) -> bool {
        let record = self.record.as_ref();
        self.is_known_damaged() || record.is_none_or(|it| it.is_amnesiac)
    }

    pub(crate) fn is_known_damaged(&self) -> bool {
        self.is_damaged || self.is_being_rebuilt() || self.record.is_none()
    }

    /// A base of nothing lacks nothing.
    pub(crate) fn is_being_rebuilt(&self) -> bool {
        let rebuild = self.rebuild.as_ref();
        rebuild.is_some_and(|(begin, _)| begin.base.lsn > Lsn::ZERO)
    }

    pub(crate) fn promised(&self) -> Epoch {
        self.record.as_ref().map_or(Epoch(0), |it| it.promised.0)
    }

    /// A part of the base that is under way; the base, if this was its last.
    fn store(&mut self, bytes: &[u8]) -> Option<Begin> {
        self.derived.store(bytes);
        let (begin, stored) = self.rebuild.as_mut()?;
        *stored += 1;
        let whole = (*stored == begin.parts).then(|| begin.clone());
        if whole.is_some() {
            self.rebuild = None;
        }
        whole
    }

    /// `false`: its owner cannot go back to where the base wants to begin, and all is as it was.
    fn begin(&mut self, begin: &Begin) -> bool {
        let kept = match begin.since {
            None => Map::new(),
            Some(since) => {
                let (base, applied) = (self.derived.base(), self.derived.applied());
                if since < base || since > applied || self.rebuild.is_some() {
                    return false;
                }
                self.derived.at(since)
            }
        };
        self.log.begin(begin.base, begin.history.clone());
        self.derived.begin(begin.base.lsn, kept);
        self.rebuild = Some((begin.clone(), 0));
        true
    }

    /// A record replaced; a sound one says that what was lost is made up for.
    fn keep(&mut self, record: Record) {
        self.is_damaged &= record.is_amnesiac;
        self.record = Some(record);
    }
}

/// What the end of a change means.
#[derive(Debug)]
pub(crate) enum Changed {
    Flushed(Vec<Entry>),
    Truncated { keep: Position, cut: usize },
    Begun(Begin),
    NotBegun(SessionId),
}

impl Disk {
    /// Where the log will end when all that is under way is done, and whether any of it is a cut.
    fn coming(&self) -> (Position, bool) {
        let mut end = self.image.log.end();
        let mut is_cut = false;
        for change in &self.log_lane {
            match change {
                Change::Append(entries) => end = entries.last().map_or(end, |it| it.position),
                Change::Truncate(keep) => (end, is_cut) = (*keep, true),
                Change::Begin(begin) => (end, is_cut) = (begin.base, true),
            }
        }
        (end, is_cut)
    }

    pub(crate) fn append(&mut self, entries: Vec<Entry>) -> Verdict {
        if self.is_failed {
            let words = "appends to a log that failed";
            return Err(Breach::new(Checker::Log, words));
        }
        let (mut end, _) = self.coming();
        for entry in &entries {
            let next = entry.position;
            let announced = payload::announced(entry);
            let is_first = announced.is_some_and(|start| start.epoch == next.epoch);
            if next.lsn != end.lsn.next()
                || next.epoch < end.epoch
                || (next.epoch != end.epoch) != is_first
            {
                let words = format!("appends {next} behind {end}, announced: {announced:?}");
                return Err(Breach::new(Checker::Log, words));
            }
            end = next;
        }
        self.log_lane.push_back(Change::Append(entries));
        Ok(())
    }

    pub(crate) fn truncate(&mut self, keep: Position) -> Verdict {
        let (end, is_cut) = self.coming();
        let known = self.image.log.position(keep.lsn);
        if keep.lsn > end.lsn || (!is_cut && known.is_some_and(|known| known != keep)) {
            let words = format!("keeps {keep} of a log that ends at {end}, {known:?} there");
            return Err(Breach::new(Checker::Log, words));
        }
        self.log_lane.push_back(Change::Truncate(keep));
        Ok(())
    }

    /// Before something is taken from it.
    pub(crate) fn wound(&mut self, now: Moment) {
        let end = self.image.log.end();
        let end = (end, self.id_of(end.epoch), self.image.promised());
        self.is_wounded = true;
        self.wounded_at = now;
        self.had = self.had.max(Some(end));
    }

    /// Whether it has what it had when it lost something, or nobody who still acknowledges (`writers`:
    /// their epochs) can have been told of that.
    pub(crate) fn has_what_it_had(&self, writers: &[Epoch]) -> bool {
        let log = &self.image.log;
        self.had.is_none_or(|(end, id, promised)| {
            let has = end.lsn < log.first()
                || log
                    .at(end.lsn)
                    .is_some_and(|it| (it.entry.position, it.id) == (end, id));
            has || writers.iter().all(|writer| *writer > promised)
        })
    }

    /// Neither full nor slow.
    pub(crate) fn is_as_usual(&self) -> bool {
        !self.is_full && self.slowness == 1 && self.log_slowness == 1
    }

    pub(crate) fn heal(&mut self) {
        self.is_wounded = false;
        self.is_wounded_unseen = false;
        self.is_before_a_loss = false;
        self.had = None;
    }

    /// Carries out the oldest change of the log.
    pub(crate) fn change(&mut self) -> Option<Changed> {
        let change = self.log_lane.pop_front()?;
        Some(self.carry_out(change))
    }

    fn carry_out(&mut self, change: Change) -> Changed {
        let under = self.image.promised();
        match change {
            Change::Append(entries) => {
                for entry in &entries {
                    self.image.log.append(entry.clone(), under);
                }
                Changed::Flushed(entries)
            }
            Change::Truncate(keep) => {
                let cut = self.image.log.cut(keep.lsn);
                let derived = &mut self.image.derived;
                if derived.durable() <= keep.lsn && derived.applied() > keep.lsn {
                    derived.go_back(keep.lsn);
                }
                Changed::Truncated { keep, cut }
            }
            Change::Begin(begin) if self.image.begin(&begin) => Changed::Begun(begin),
            Change::Begin(begin) => Changed::NotBegun(begin.session),
        }
    }

    /// The oldest record that waits becomes durable.
    pub(crate) fn keep(&mut self) -> Option<u64> {
        let (number, record) = self.record_lane.pop_front()?;
        self.image.keep(record);
        Some(number)
    }

    /// The oldest part that waits becomes durable: how many there are, and the base if it is whole.
    /// `None`: it is of no base that is under way.
    pub(crate) fn store(&mut self) -> Option<(SessionId, u32, Option<Begin>)> {
        let (session, index, bytes) = self.base_lane.pop_front()?;
        let (begin, stored) = self.image.rebuild.as_ref()?;
        if begin.session != session || *stored != index {
            return None;
        }
        let whole = self.image.store(&bytes);
        Some((session, index + 1, whole))
    }

    /// The process is gone, and perhaps the power with it.
    pub(crate) fn crash(&mut self, dice: &mut Dice, tally: &mut Tally) {
        while let Some(change) = self.log_lane.pop_front() {
            match (dice.below(3), change) {
                (0, _) => {
                    tally.count("un-synced changes lost");
                    break;
                }
                (1, Change::Append(mut entries)) => {
                    tally.count("un-synced batches torn");
                    let kept = dice.below(entries.len() as u64);
                    entries.truncate(usize::try_from(kept).expect("less than a length"));
                    self.carry_out(Change::Append(entries));
                    break;
                }
                (_, change) => {
                    tally.count("un-synced changes kept");
                    self.carry_out(change);
                }
            }
        }
        while !self.record_lane.is_empty() && dice.coin() {
            tally.count("un-synced records kept");
            self.keep();
        }
        while !self.base_lane.is_empty() && dice.coin() {
            self.store();
        }
        self.log_lane.clear();
        self.record_lane.clear();
        self.base_lane.clear();
        self.pins.clear();
        self.lost_pins.clear();
        self.bases.clear();
        self.is_failed = false;
    }

    pub(crate) fn start(&mut self, now: Moment, tally: &mut Tally) {
        // Damaged since long, and lost only where it is read: until then the node told of it.
        if self.image.log.damaged().is_some() {
            self.wound(now);
        }
        self.image.verify(tally);
    }

    /// Records from the disk, and what is on its way there.
    pub(crate) fn read(&self, from: Lsn, to: Lsn, bytes: u64) -> Result<Vec<Entry>, Outcome> {
        let log = &self.image.log;
        if from < log.first() {
            let first = log.first();
            return Err(Outcome::Recycled { first });
        }
        let (_, is_cut) = self.coming();
        let waiting = self.log_lane.iter().filter(|_| !is_cut);
        let waiting = waiting.flat_map(|change| match change {
            Change::Append(entries) => entries.as_slice(),
            _ => &[],
        });
        let durable = log.from(from).map(|it| (&it.entry, it.is_damaged));
        let (mut found, mut size) = (Vec::new(), 0);
        for (entry, is_damaged) in durable.chain(waiting.map(|it| (it, false))) {
            let lsn = entry.position.lsn;
            if lsn < from {
                continue;
            }
            if lsn > to || (size >= bytes && !found.is_empty()) {
                break;
            }
            if is_damaged {
                if found.is_empty() {
                    return Err(Outcome::Corrupt { lsn });
                }
                break;
            }
            size += entry.bytes.len() as u64;
            found.push(entry.clone());
        }
        Ok(found)
    }

    pub(crate) fn id_of(&self, epoch: Epoch) -> EpochId {
        id_in(self.image.log.history(), epoch)
    }

    /// Whether there is anything left to hold.
    pub(crate) fn pin(&mut self, session: SessionId, from: Lsn) -> bool {
        if from < self.image.log.first() {
            self.pins.remove(&session);
            self.lost_pins.insert(session);
            return false;
        }
        self.pins.insert(session, from);
        true
    }

    pub(crate) fn unpin(&mut self, session: SessionId) -> Verdict {
        if self.pins.remove(&session).is_some() || self.lost_pins.remove(&session) {
            return Ok(());
        }
        let words = format!("lets go of the log for {session:?}, which holds none of it");
        Err(Breach::new(Checker::Pins, words))
    }

    pub(crate) fn close_base(&mut self, session: SessionId) -> bool {
        self.bases.remove(&session).is_some()
    }

    pub(crate) fn held(&self) -> usize {
        self.pins.len() + self.bases.len()
    }

    /// What retention may remove below, and what it would.
    pub(crate) fn retention(&self, retained: u64) -> (Lsn, Lsn) {
        let log = &self.image.log;
        let by_count = log.end().lsn.get().saturating_sub(retained);
        let wants = Lsn::new(by_count.min(self.image.derived.durable().get())).next();
        let wants = wants.max(log.first());
        let held = self.pins.values().min().copied();
        (held.map_or(wants, |held| held.min(wants)), wants)
    }

    /// A base at what is durable of derived state, held for a session.
    pub(crate) fn open_base(
        &mut self,
        session: SessionId,
        since: Option<Lsn>,
        made: Option<String>,
        can_be_made: bool,
    ) -> Option<BaseFound> {
        // Held, whether or not there is one: it was asked for, and is let go of once.
        self.bases.insert(session, Vec::new());
        let derived = &self.image.derived;
        let base = self.image.log.position(derived.durable())?;
        if self.image.is_known_damaged() || !can_be_made {
            return None;
        }
        let since = since.filter(|since| *since >= derived.base() && *since <= base.lsn);
        let changed: Vec<(u8, Version)> = derived.changed(since).into_iter().collect();
        let mut parts: Vec<Vec<u8>> = changed.chunks(PART_KEYS).map(payload::part).collect();
        // One is there always: it says what the others are.
        parts.resize(parts.len().max(1), Vec::new());
        let count = u32::try_from(parts.len()).expect("few keys");
        self.bases.insert(session, parts);
        Some(BaseFound {
            base,
            parts: count,
            since,
            made,
        })
    }

    pub(crate) fn read_base(&self, session: SessionId, index: u32) -> Option<Vec<u8>> {
        let index = usize::try_from(index).ok()?;
        self.bases.get(&session)?.get(index).cloned()
    }
}
