//! Through every segment, past whatever does not verify.
//!
//! A batch verifies only in its own place, so a batch found behind a break by searching for it is
//! one: neither stale bytes nor a copy inside a record passes.

use std::{fmt::Write as _, io, ops::ControlFlow, path::Path, sync::Arc};

use world::{Disk, disk::Open};

use super::{
    Batch, DAMAGES_KEPT_MAX, Damage, Opening, Record, Seen, Segment, State, Survey,
    unread::{Patched, Unread, is_lost},
};
use crate::{
    Cause, Epoch, Error, Identity, Lsn,
    batch::{self, Header, Place},
    recover,
    scan::{last_used, torn_end},
    segment,
    window::{WINDOW_LEN, Window},
};

/// Windows of a search overlap by a header, so that none is missed between two.
const SEARCH_STEP: usize = WINDOW_LEN - batch::HEADER_LEN.next_multiple_of(batch::ALIGNMENT);

/// The caller has seen enough.
struct Enough;

type Walked<T> = Result<Result<T, Enough>, Error>;

pub(super) struct Walk<'a, 's> {
    disk: &'a dyn Disk,
    survey: &'s mut Survey,
    seen: &'s mut dyn FnMut(Seen<'_>) -> ControlFlow<()>,
    window: Option<Window>,
    /// What `window` reads.
    file: Option<Arc<Patched>>,
    payload: Vec<u8>,
    epoch: Epoch,
    /// Highest position that something verified vouches for.
    proven: Lsn,
    is_live: bool,
}

/// A segment that is being read.
struct At {
    segment: Segment,
    place: Place,
    /// First position of the next segment; `None`: this is the last one.
    end: Option<Lsn>,
    len: u64,
    offset: u64,
    expected: Lsn,
}

/// What lies behind a break.
enum Beyond {
    /// A batch that verifies.
    Batch(u64, Header),
    /// None does; where what the writer of this segment left ends.
    Nothing(u64),
}

impl<'a, 's> Walk<'a, 's> {
    pub(super) fn new(
        disk: &'a dyn Disk,
        survey: &'s mut Survey,
        seen: &'s mut dyn FnMut(Seen<'_>) -> ControlFlow<()>,
    ) -> Self {
        let of_slots = survey
            .slots
            .iter()
            .filter_map(|slot| slot.held.as_ref().ok())
            .filter(|held| Some(held.identity) == survey.identity)
            .map(|held| held.safe_point)
            .max();
        let watermark = match &survey.opening {
            Ok(Opening::Opens(found)) => found.watermark,
            _ => Lsn::ZERO,
        };
        Self {
            disk,
            is_live: survey.holder.is_some(),
            proven: of_slots.unwrap_or(Lsn::ZERO).max(watermark),
            survey,
            seen,
            window: None,
            file: None,
            payload: Vec::new(),
            epoch: Epoch(0),
        }
    }

    pub(super) fn run(mut self) -> Result<(), Error> {
        if let Err(Enough) = self.segments()? {
            self.survey.is_cut_short = true;
        }
        Ok(())
    }

    fn segments(&mut self) -> Walked<()> {
        let bases = recover::bases(self.disk, &self.survey.dir)?;
        let slot = self.newest_slot();
        let mut before: Option<Lsn> = None;
        for (index, &base) in bases.iter().enumerate() {
            let header = self.header(base)?;
            let is_leftover = slot.is_some_and(|slot| base < slot.0);
            let end = self.end_of(base, bases.get(index + 1).copied(), slot)?;
            if !is_leftover && let Ok(Some(header)) = &header {
                let wanted = match before {
                    Some(before) => (header.previous > before).then_some(header.previous),
                    None => slot.map(|slot| slot.0).filter(|first| *first < base),
                };
                if let Some(missing) = wanted
                    && let Err(enough) = self.missing(missing, Some(base))?
                {
                    return Ok(Err(enough));
                }
            }
            if let Err(enough) = self.segment(base, end, header, is_leftover)? {
                return Ok(Err(enough));
            }
            if !is_leftover {
                before = Some(base);
            }
        }
        match slot {
            Some((first, active)) if before.is_none_or(|last| last < active) => {
                self.missing(if before.is_none() { first } else { active }, None)
            }
            _ => Ok(Ok(())),
        }
    }

    /// Where the segment of `base` ends: with the one that follows it, there or not. Without the
    /// latter, a missing segment would be told a second time, as a gap behind the one before it.
    fn end_of(
        &mut self,
        base: Lsn,
        next: Option<Lsn>,
        slot: Option<(Lsn, Lsn)>,
    ) -> Result<Option<Lsn>, Error> {
        let Some(next) = next else {
            return Ok(slot.map(|slot| slot.1).filter(|active| *active > base));
        };
        Ok(match self.header(next)? {
            Ok(Some(header)) if header.previous > base && header.previous < next => {
                Some(header.previous)
            }
            _ => Some(next),
        })
    }

    /// First retained and active base as the newest slot says.
    fn newest_slot(&self) -> Option<(Lsn, Lsn)> {
        self.survey
            .slots
            .iter()
            .filter_map(|slot| slot.held.as_ref().ok())
            .filter(|held| Some(held.identity) == self.survey.identity)
            .max_by_key(|held| held.sequence)
            .map(|held| (held.first_retained, held.active))
    }

    /// The header of a segment; `None` when the segment is gone.
    #[allow(clippy::type_complexity, reason = "three ways to end, each used once")]
    fn header(&self, base: Lsn) -> Result<Result<Option<segment::Header>, Error>, Error> {
        let path = segment::path(&self.survey.dir, base);
        let file = match self.disk.open(&path, Open::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(None)),
            Err(error) if is_lost(&error) => {
                let message = format!("the segment cannot be opened: {error}");
                let error = Error::recovery(Cause::SegmentHeaderCorrupt, message);
                return Ok(Err(error.with_path(path).with_lsn(base)));
            }
            Err(error) => return Err(Error::io("open a segment", path, error)),
            Ok(file) => file,
        };
        let Some(identity) = self.survey.identity else {
            return Ok(Ok(None));
        };
        match segment::Header::read(&*file, &path, base, identity) {
            Ok(header) => Ok(Ok(Some(header))),
            Err(error) if error.cause().is_some() => Ok(Err(error)),
            Err(error) => {
                let message = format!("segment header cannot be read: {error}");
                let error = Error::recovery(Cause::SegmentHeaderCorrupt, message);
                Ok(Err(error.with_path(path).with_lsn(base).with_offset(0)))
            }
        }
    }

    fn segment(
        &mut self,
        base: Lsn,
        end: Option<Lsn>,
        header: Result<Option<segment::Header>, Error>,
        is_leftover: bool,
    ) -> Walked<()> {
        let path = segment::path(&self.survey.dir, base);
        let Some(len) = self.turn_to(&path)? else {
            return Ok(Ok(()));
        };
        let mut segment = Segment {
            path,
            base,
            file_bytes: len,
            state: match end {
                _ if is_leftover => State::Leftover,
                Some(_) => State::Sealed,
                None => State::Active,
            },
            created: None,
            is_recycled: false,
            header_fault: None,
            epoch: None,
            first: None,
            last: None,
            batches: 0,
            records: 0,
            batch_bytes: 0,
            damages: 0,
        };
        let mut fault = None;
        match header {
            Ok(Some(header)) => {
                segment.created = Some(header.created);
                segment.is_recycled = header.is_recycled();
                segment.epoch = Some(header.epoch);
                if !is_leftover && header.epoch >= self.epoch {
                    self.epoch = header.epoch;
                }
            }
            Ok(None) => segment.state = State::Foreign,
            Err(error) => {
                if error.cause() != Some(Cause::SegmentHeaderCorrupt) {
                    segment.state = State::Foreign;
                }
                segment.header_fault = Some(error.to_string());
                fault = Some(error);
            }
        }
        if let Err(enough) = self.tell(Seen::Segment(&segment)) {
            return Ok(Err(enough));
        }
        let walked = self.body(&mut segment, len, end, fault)?;
        self.survey.segments.push(segment);
        Ok(walked)
    }

    fn body(
        &mut self,
        segment: &mut Segment,
        len: u64,
        end: Option<Lsn>,
        fault: Option<Error>,
    ) -> Walked<()> {
        if let Some(error) = fault {
            let damage = Damage {
                cause: error.cause().unwrap_or(Cause::SegmentHeaderCorrupt),
                path: segment.path.clone(),
                from: 0,
                to: (segment::HEADER_LEN as u64).min(len),
                expected: segment.base,
                resumes: None,
                what: error.what().to_owned(),
            };
            if let Err(enough) = self.damage(segment, damage) {
                return Ok(Err(enough));
            }
        }
        if self.survey.identity.is_none() && self.survey.opening.is_err() {
            let damage = Damage {
                cause: Cause::IdentityMismatch,
                path: segment.path.clone(),
                from: 0,
                to: len,
                expected: segment.base,
                resumes: None,
                what: "no file tells which journal this segment belongs to".to_owned(),
            };
            return Ok(self.damage(segment, damage));
        }
        let identity = match self.survey.identity {
            Some(identity) if !matches!(segment.state, State::Foreign | State::Leftover) => {
                identity
            }
            _ => return Ok(Ok(())),
        };
        self.proven = self.proven.max(Lsn::new(segment.base.get() - 1));
        let mut at = At {
            place: Place::new(identity, segment.base),
            end,
            len,
            offset: segment::HEADER_LEN as u64,
            expected: segment.base,
            segment: segment.clone(),
        };
        let walked = self.batches(&mut at, identity);
        *segment = at.segment;
        walked
    }

    fn batches(&mut self, at: &mut At, identity: Identity) -> Walked<()> {
        while at.end.is_none_or(|end| at.expected < end) {
            let found = self.load(at, at.offset)?;
            let step = match found {
                Some(header) if header.first == at.expected => self.batch(at, &header),
                _ => match self.broken(at, found, identity)? {
                    Ok(true) => continue,
                    Ok(false) => return Ok(Ok(())),
                    Err(enough) => Err(enough),
                },
            };
            if let Err(enough) = step {
                return Ok(Err(enough));
            }
        }
        Ok(Ok(()))
    }

    /// Hands out the batch that `payload` holds, and its records.
    fn batch(&mut self, at: &mut At, header: &Header) -> Result<(), Enough> {
        if header.epoch < self.epoch {
            let damage = Damage {
                cause: Cause::EpochRegressed,
                path: at.segment.path.clone(),
                from: at.offset,
                to: at.offset + header.batch_len(),
                expected: at.expected,
                resumes: Some(header.first),
                what: format!("epoch {} follows epoch {}", header.epoch.0, self.epoch.0),
            };
            self.damage(&mut at.segment, damage)?;
        }
        self.epoch = self.epoch.max(header.epoch);
        self.proven = self.proven.max(header.safe_point);
        let is_above = header.last() > self.survey.kept_to;
        let batch = Batch {
            base: at.segment.base,
            offset: at.offset,
            bytes: header.batch_len(),
            first: header.first,
            last: header.last(),
            epoch: header.epoch,
            safe_point: header.safe_point,
            is_above,
        };
        self.tell(Seen::Batch(&batch))?;
        let told = self.records(at, header, is_above);
        at.segment.first.get_or_insert(header.first);
        at.segment.last = Some(header.last());
        at.segment.batches += 1;
        at.segment.records += u64::from(header.count);
        at.segment.batch_bytes += header.batch_len();
        self.survey.batches += 1;
        self.survey.records += u64::from(header.count);
        at.offset += header.batch_len();
        at.expected = header.last().next();
        told
    }

    fn records(&mut self, at: &mut At, header: &Header, is_above: bool) -> Result<(), Enough> {
        let mut from = 0;
        for index in 0..u64::from(header.count) {
            let lsn = Lsn::new(header.first.get() + index);
            let Some((kind, bytes, after)) = batch::record(&self.payload, from) else {
                let damage = Damage {
                    cause: Cause::FrameCorrupt,
                    path: at.segment.path.clone(),
                    from: at.offset,
                    to: at.offset + header.batch_len(),
                    expected: lsn,
                    resumes: Some(header.last().next()),
                    what: "a batch verifies, and its records do not fill it".to_owned(),
                };
                return self.damage(&mut at.segment, damage);
            };
            let record = Record {
                lsn,
                epoch: header.epoch,
                kind,
                bytes,
                is_above,
            };
            self.survey.record_bytes += bytes.len() as u64;
            if (self.seen)(Seen::Record(&record)).is_break() {
                return Err(Enough);
            }
            from = after;
        }
        Ok(())
    }

    /// No batch follows. True when the walk goes on in this segment.
    fn broken(&mut self, at: &mut At, found: Option<Header>, identity: Identity) -> Walked<bool> {
        if self.is_live && self.moved_on(at, identity)? {
            return Ok(Ok(at.segment.state != State::Released));
        }
        let (beyond, cause) = match found {
            Some(header) => {
                let first = at.offset == segment::HEADER_LEN as u64;
                let cause = if first {
                    Cause::FirstSeqNotBase
                } else {
                    Cause::SeqGap
                };
                (Beyond::Batch(at.offset, header), cause)
            }
            None => (self.search(at)?, Cause::FrameCorrupt),
        };
        let mut damage = Damage {
            cause,
            path: at.segment.path.clone(),
            from: at.offset,
            to: at.offset,
            expected: at.expected,
            resumes: None,
            what: "a batch does not verify".to_owned(),
        };
        match beyond {
            // A duplicate of what was handed out: passed over.
            Beyond::Batch(offset, header) if header.first < at.expected => {
                damage.to = offset + header.batch_len();
                damage.cause = Cause::SeqGap;
                damage.what = format!(
                    "a batch begins with {}, expected {}",
                    header.first, at.expected
                );
                at.offset = damage.to;
                Ok(self.damage(&mut at.segment, damage).map(|()| true))
            }
            Beyond::Batch(offset, header) => {
                // What nobody could read may have been durable.
                let is_durable = self.is_durable(at)
                    || header.safe_point >= at.expected
                    || self.unread(at.offset, offset).is_some();
                damage.to = offset;
                damage.resumes = Some(header.first);
                damage.what = format!(
                    "records {} to {} do not verify",
                    at.expected,
                    header.first.get() - 1
                );
                if !is_durable {
                    damage.to = self.used_end(at)?;
                    self.survey.tail = Some(damage);
                    return Ok(Ok(false));
                }
                at.offset = offset;
                at.expected = header.first;
                Ok(self.damage(&mut at.segment, damage).map(|()| true))
            }
            Beyond::Nothing(end) => self.ends_early(at, damage, end),
        }
    }

    /// Nothing verifies from here to the end of the segment.
    fn ends_early(&mut self, at: &mut At, mut damage: Damage, end: u64) -> Walked<bool> {
        damage.to = end.max(at.offset);
        let has_bytes = end > at.offset;
        let unread = self.unread(at.offset, at.len);
        if let Some(unread) = &unread {
            damage.to = damage.to.max(unread.to);
        }
        if !self.is_durable(at) {
            if unread.is_some() {
                damage.what = format!("nothing tells whether there was a record {}", at.expected);
                return Ok(self.damage(&mut at.segment, damage).map(|()| false));
            }
            if has_bytes {
                self.survey.tail = Some(damage);
            }
            return Ok(Ok(false));
        }
        damage.cause = match at.end {
            _ if has_bytes || unread.is_some() => Cause::FrameCorrupt,
            Some(_) => Cause::SeqGap,
            None if at.segment.batches == 0 && at.segment.base == Lsn::FIRST => {
                Cause::SafeseqNotFound
            }
            None => Cause::SafeseqGtMaxseq,
        };
        let last = at.end.map_or(self.proven, |end| Lsn::new(end.get() - 1));
        damage.what = format!("records {} to {last} are not there", at.expected);
        Ok(self.damage(&mut at.segment, damage).map(|()| false))
    }

    /// Something durable vouches for the record that is missing.
    fn is_durable(&self, at: &At) -> bool {
        at.end.is_some() || at.expected <= self.proven
    }

    /// A second look at a journal in use. True when the break was the writer at work: the batch
    /// verifies by now, or the segment has another place.
    fn moved_on(&mut self, at: &mut At, identity: Identity) -> Result<bool, Error> {
        let path = at.segment.path.clone();
        let Some(len) = self.turn_to(&path)? else {
            at.segment.state = State::Released;
            return Ok(true);
        };
        let file = self.window().file();
        let header = segment::Header::read(file, &path, at.segment.base, identity);
        at.len = len;
        if header.is_err() && at.segment.header_fault.is_none() {
            at.segment.state = State::Released;
            return Ok(true);
        }
        let again = self.load(at, at.offset)?;
        Ok(again.is_some_and(|header| header.first == at.expected))
    }

    fn missing(&mut self, base: Lsn, resumes: Option<Lsn>) -> Walked<()> {
        let path = segment::path(&self.survey.dir, base);
        let is_gone = self.is_live
            && self
                .disk
                .stat(&path)
                .map_err(|source| Error::io("look for a segment", &path, source))?
                .is_none();
        if is_gone && self.survey.opening.is_ok() {
            // Released between the slots and the list.
            return Ok(Ok(()));
        }
        let damage = Damage {
            cause: Cause::SegmentMissing,
            what: format!("the segment of {base} is missing"),
            path,
            from: 0,
            to: 0,
            expected: base,
            resumes,
        };
        Ok(self.note(damage))
    }

    fn damage(&mut self, segment: &mut Segment, mut damage: Damage) -> Result<(), Enough> {
        if damage.from >= segment::HEADER_LEN as u64 {
            let written = match self.file.as_ref().and_then(|file| file.why_closed()) {
                Some(why) => write!(damage.what, ": the segment cannot be opened: {why}"),
                None => match self.unread(damage.from, damage.to) {
                    Some(unread) => write!(damage.what, ": {unread}"),
                    None => Ok(()),
                },
            };
            written.expect("writing to a string cannot fail");
        }
        segment.damages += 1;
        self.note(damage)
    }

    fn note(&mut self, damage: Damage) -> Result<(), Enough> {
        let told = self.tell(Seen::Damage(&damage));
        self.survey.damage_count += 1;
        if self.survey.damages.len() < DAMAGES_KEPT_MAX {
            self.survey.damages.push(damage);
        }
        told
    }

    fn tell(&mut self, seen: Seen<'_>) -> Result<(), Enough> {
        match (self.seen)(seen) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Enough),
        }
    }

    /// Turns the window to another file, and tells its length; `None` when the file is gone. One that
    /// cannot be opened has no bytes.
    fn turn_to(&mut self, path: &Path) -> Result<Option<u64>, Error> {
        let file = match self.disk.open(path, Open::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if is_lost(&error) => Patched::closed(&error),
            Err(error) => return Err(Error::io("open a segment", path, error)),
            Ok(file) => {
                Patched::new(file).map_err(|source| Error::io("measure a segment", path, source))?
            }
        };
        let len = file.held();
        let file = Arc::new(file);
        self.file = Some(Arc::clone(&file));
        match &mut self.window {
            Some(window) => window.turn_to(file),
            None => self.window = Some(Window::new(file)),
        }
        Ok(Some(len))
    }

    /// What could not be read of a stretch of the segment at hand.
    fn unread(&self, from: u64, to: u64) -> Option<Unread> {
        self.file.as_ref().and_then(|file| file.unread(from, to))
    }

    fn window(&mut self) -> &mut Window {
        self.window.as_mut().expect("a segment was turned to")
    }

    /// The batch at `offset`, its payload in `payload`, when all of it verifies.
    fn load(&mut self, at: &At, offset: u64) -> Result<Option<Header>, Error> {
        let mut payload = std::mem::take(&mut self.payload);
        let loaded = load(self.window(), at.place, offset, &mut payload);
        self.payload = payload;
        loaded.map_err(|source| {
            Error::io("read a segment", &at.segment.path, source).with_offset(offset)
        })
    }

    /// Searches behind the break for a batch that verifies.
    fn search(&mut self, at: &At) -> Result<Beyond, Error> {
        let mut from = at.offset;
        let mut used = at.offset;
        // End of the last batch whose header verifies and whose payload does not. None begins before
        // it: a header that verifies says how long its batch is. So no byte is read for two of them,
        // whatever somebody made the headers claim.
        let mut claimed = at.offset;
        if at.segment.is_recycled {
            used = self.used_end(at)?;
        }
        while from < at.len {
            let place = at.place;
            let chunk = self.window().bytes(from, WINDOW_LEN).map_err(|source| {
                Error::io("read a segment", &at.segment.path, source).with_offset(from)
            })?;
            if chunk.is_empty() {
                break;
            }
            let Some(last) = last_used(chunk) else {
                from += SEARCH_STEP as u64;
                continue;
            };
            if !at.segment.is_recycled {
                used = from + last as u64 + 1;
            }
            let starts = (0..(last + 1).min(SEARCH_STEP)).step_by(batch::ALIGNMENT);
            let candidates: Vec<(u64, Header)> = starts
                .filter_map(|start| {
                    let offset = from + start as u64;
                    Header::decode(&chunk[start..], place, offset).map(|header| (offset, header))
                })
                .collect();
            for (offset, header) in candidates {
                // It was written after what it vouches for was durable, whatever became of its
                // payload.
                self.proven = self.proven.max(header.safe_point);
                if at.segment.is_recycled {
                    used = used.max((offset + header.batch_len()).min(at.len));
                }
                if offset < claimed {
                    continue;
                }
                if offset > at.offset
                    && let Some(header) = self.load(at, offset)?
                {
                    return Ok(Beyond::Batch(offset, header));
                }
                claimed = offset + header.batch_len();
            }
            from += SEARCH_STEP as u64;
        }
        Ok(Beyond::Nothing(used))
    }

    /// Offset after the last byte of the segment that is not zero; in a recycled file, where stale bytes
    /// follow, after the batch that something was written of.
    fn used_end(&mut self, at: &At) -> Result<u64, Error> {
        if at.segment.is_recycled {
            let head = self
                .window()
                .bytes(at.offset, batch::HEADER_LEN)
                .map_err(|source| {
                    Error::io("read a segment", &at.segment.path, source).with_offset(at.offset)
                })?;
            let end = torn_end(head, at.place, at.offset);
            return Ok(end.map_or(at.offset, |end| end.min(at.len)));
        }
        let mut from = at.offset;
        let mut used = at.offset;
        while from < at.len {
            let chunk = self.window().bytes(from, WINDOW_LEN).map_err(|source| {
                Error::io("read a segment", &at.segment.path, source).with_offset(from)
            })?;
            if chunk.is_empty() {
                break;
            }
            if let Some(last) = last_used(chunk) {
                used = from + last as u64 + 1;
            }
            from += chunk.len() as u64;
        }
        Ok(used)
    }
}

fn load(
    window: &mut Window,
    place: Place,
    offset: u64,
    payload: &mut Vec<u8>,
) -> io::Result<Option<Header>> {
    let head = window.bytes(offset, batch::HEADER_LEN)?;
    let Some(header) = Header::decode(head, place, offset) else {
        return Ok(None);
    };
    let started = Header::start(head, place, offset);
    // At most `batch::payload_len_max`: decoding checked it, before this allocates.
    let len = usize::try_from(header.length).unwrap_or(batch::payload_len_max());
    let from = offset + batch::HEADER_LEN as u64;
    payload.clear();
    while payload.len() < len {
        let bytes = window.some(from + payload.len() as u64, (len - payload.len()) as u64)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        payload.extend_from_slice(bytes);
    }
    let checksum = crc32c::crc32c_append(started, payload);
    Ok(header.verifies(checksum).then_some(header))
}
