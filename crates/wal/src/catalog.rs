//! Which segments there are, where to start reading in them, and who holds them.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use crate::{Error, Kind, Lsn, Pin, hold};

/// Bytes between two marks of a segment: what a read may have to skip over, against 16 bytes of
/// memory per mark (256 KiB of marks per 4 GiB of journal).
const MARK_STRIDE: u64 = 256 << 10;

/// Segments in order; the last one is appended to. Never empty.
#[derive(Debug)]
pub(crate) struct Catalog {
    segments: VecDeque<Segment>,
    pins: BTreeMap<Lsn, usize>,
}

#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) base: Lsn,
    pub(crate) path: PathBuf,
    marks: Vec<Mark>,
}

/// The batch that begins at `offset` begins with `first`.
#[derive(Clone, Copy, Debug)]
struct Mark {
    first: Lsn,
    offset: u64,
}

impl Segment {
    pub(crate) fn new(base: Lsn, path: PathBuf) -> Self {
        Self {
            base,
            path,
            marks: Vec::new(),
        }
    }

    /// Told of each batch, in order.
    pub(crate) fn mark(&mut self, first: Lsn, offset: u64) {
        let due = self
            .marks
            .last()
            .map_or(0, |mark| mark.offset + MARK_STRIDE);
        if offset >= due {
            self.marks.push(Mark { first, offset });
        }
    }
}

impl Segment {
    /// Told that the batch at `offset` and what follows it are none.
    pub(crate) fn unmark(&mut self, offset: u64) {
        let kept = self.marks.partition_point(|mark| mark.offset < offset);
        self.marks.truncate(kept);
    }
}

/// A segment as a reader needs it.
#[derive(Debug)]
pub(crate) struct Stretch {
    pub(crate) base: Lsn,
    pub(crate) path: PathBuf,
    /// A batch begins here, at or before the position asked for; `None`: start at the first batch.
    pub(crate) offset: Option<u64>,
    /// First position of the next segment.
    pub(crate) end: Option<Lsn>,
}

impl Catalog {
    pub(crate) fn new(segments: VecDeque<Segment>) -> Self {
        Self {
            segments,
            pins: BTreeMap::new(),
        }
    }

    pub(crate) fn first_retained(&self) -> Lsn {
        self.segments.front().map_or(Lsn::FIRST, |first| first.base)
    }

    pub(crate) fn active(&self) -> Lsn {
        self.segments.back().map_or(Lsn::FIRST, |last| last.base)
    }

    pub(crate) fn push(&mut self, segment: Segment) {
        self.segments.push_back(segment);
    }

    pub(crate) fn mark_active(&mut self, first: Lsn, offset: u64) {
        if let Some(active) = self.segments.back_mut() {
            active.mark(first, offset);
        }
    }

    /// The segment that holds `lsn`, and where in it to start. `None` below the retained range.
    pub(crate) fn stretch(&self, lsn: Lsn) -> Option<Stretch> {
        let after = self.segments.partition_point(|segment| segment.base <= lsn);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        let marks = segment.marks.partition_point(|mark| mark.first <= lsn);
        Some(Stretch {
            base: segment.base,
            path: segment.path.clone(),
            offset: marks.checked_sub(1).map(|mark| segment.marks[mark].offset),
            end: self.segments.get(after).map(|next| next.base),
        })
    }

    /// Removes and returns, oldest first, the segments that end below `keep_from` and below every
    /// pin. The last one always stays.
    pub(crate) fn release(&mut self, keep_from: Lsn) -> Vec<Segment> {
        let floor = match self.pins.first_key_value() {
            Some((&pinned, _)) => pinned.min(keep_from),
            None => keep_from,
        };
        let mut released = Vec::new();
        while self.segments.get(1).is_some_and(|next| next.base <= floor) {
            released.extend(self.segments.pop_front());
        }
        released
    }
}

/// Holds `from` and everything after it until the pin is dropped.
pub(crate) fn pin(catalog: &Arc<Mutex<Catalog>>, from: Lsn, safe_point: Lsn) -> Result<Pin, Error> {
    let mut locked = hold(catalog);
    let first = locked.first_retained();
    if from < first {
        return Err(Error::new(
            Kind::OutOfRange,
            format!("position {from} is below the retained range {first} to {safe_point}"),
        )
        .with_lsn(from));
    }
    *locked.pins.entry(from).or_insert(0) += 1;
    drop(locked);
    let catalog = Arc::clone(catalog);
    Ok(Pin::new(from, move || {
        let mut locked = hold(&catalog);
        if let Some(count) = locked.pins.get_mut(&from) {
            *count -= 1;
            if *count == 0 {
                locked.pins.remove(&from);
            }
        }
    }))
}
