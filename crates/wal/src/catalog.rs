//! Which segments there are, where to start reading in them, and who holds them.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
};

use world::Timestamp;

use crate::{Error, Kind, Lsn, Pin, hold};

/// Bytes between two marks of a segment: what a read may have to skip over, against 16 bytes of
/// memory per mark.
const MARK_STRIDE: u64 = 256 << 10;
/// Marks of all segments together: 16 MiB of memory, enough for 256 GiB of journal. A larger one
/// has every second mark taken out, as often as needed, and reads skip over more.
pub(crate) const MARKS_MAX: usize = 1 << 20;
/// Characters of a pin's name: a label of a metric, not a document.
pub const PIN_NAME_LEN_MAX: usize = 64;

/// Segments in order; the last one is appended to. Never empty.
#[derive(Debug)]
pub(crate) struct Catalog {
    segments: VecDeque<Segment>,
    /// By position, so that the first is what retention must keep; numbered, so that two pins may
    /// hold the same.
    pins: BTreeMap<(Lsn, u64), Holding>,
    pins_made: u64,
    /// Everything below was released by the owner.
    released: Lsn,
    /// Marks of all segments.
    marks: usize,
    marks_max: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) base: Lsn,
    pub(crate) path: PathBuf,
    /// When it was begun, by a wall clock that may have been stepped.
    pub(crate) created: Timestamp,
    marks: Vec<Mark>,
    stride: u64,
}

/// The batch that begins at `offset` begins with `first`.
#[derive(Clone, Copy, Debug)]
struct Mark {
    first: Lsn,
    offset: u64,
}

/// A pin as the catalog knows it.
#[derive(Debug)]
struct Holding {
    name: Option<Arc<str>>,
    /// Shared with the pin: above which position a cut took what it holds.
    lost_after: Arc<OnceLock<Lsn>>,
}

/// A pin as metrics show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) name: Option<Arc<str>>,
    pub(crate) from: Lsn,
}

impl Segment {
    pub(crate) fn new(base: Lsn, path: PathBuf, created: Timestamp) -> Self {
        Self {
            base,
            path,
            created,
            marks: Vec::new(),
            stride: MARK_STRIDE,
        }
    }

    /// Told of each batch, in order. True when it was worth a mark.
    pub(crate) fn mark(&mut self, first: Lsn, offset: u64) -> bool {
        let due = self
            .marks
            .last()
            .map_or(0, |mark| mark.offset + self.stride);
        if offset >= due {
            self.marks.push(Mark { first, offset });
        }
        offset >= due
    }

    pub(crate) fn marks(&self) -> usize {
        self.marks.len()
    }

    /// Takes every second mark out.
    pub(crate) fn thin(&mut self) {
        let mut keep = false;
        self.marks.retain(|_| {
            keep = !keep;
            keep
        });
        self.marks.shrink_to_fit();
        self.stride = self.stride.saturating_mul(2);
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
        let mut catalog = Self {
            marks: segments.iter().map(Segment::marks).sum(),
            segments,
            pins: BTreeMap::new(),
            pins_made: 0,
            released: Lsn::ZERO,
            marks_max: MARKS_MAX,
        };
        catalog.thin_to_bound();
        catalog
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
        if let Some(active) = self.segments.back_mut()
            && active.mark(first, offset)
        {
            self.marks += 1;
            self.thin_to_bound();
        }
    }

    /// Forgets what lay after `keep`: all from `offset` on of the segment `base`, and the later ones. The
    /// pins on it stay, and learn of it.
    pub(crate) fn cut(&mut self, keep: Lsn, base: Lsn, offset: u64) {
        self.segments.retain(|segment| segment.base <= base);
        if let Some(last) = self.segments.back_mut() {
            last.unmark(offset);
        }
        self.marks = self.segments.iter().map(Segment::marks).sum();
        // What comes there is not what was released.
        self.released = self.released.min(keep.next());
        for (&(from, _), pin) in &self.pins {
            if from > keep.next() {
                // The lowest of several cuts is not needed: one is enough to be told.
                pin.lost_after.get_or_init(|| keep);
            }
        }
    }

    fn thin_to_bound(&mut self) {
        if self.marks <= self.marks_max {
            return;
        }
        self.segments.iter_mut().for_each(Segment::thin);
        self.marks = self.segments.iter().map(Segment::marks).sum();
        self.marks_max = marks_max_after(self.marks);
    }

    /// Segments in order, the active one last.
    pub(crate) fn segments(&self) -> impl ExactSizeIterator<Item = &Segment> {
        self.segments.iter()
    }

    /// Where segments begin above `from`, and how many bytes lie between; less than a stride for each of
    /// them is not counted. The last one is the end, before `next`.
    pub(crate) fn milestones(&self, from: Lsn, next: Lsn) -> Vec<(Lsn, u64)> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        for segment in &self.segments {
            if segment.base > from {
                found.push((segment.base, bytes));
            }
            if segment.base >= from {
                bytes += segment.marks.last().map_or(0, |mark| mark.offset);
            }
        }
        found.push((next.max(from), bytes));
        found
    }

    /// What the owner released so far.
    pub(crate) fn released(&self) -> Lsn {
        self.released
    }

    /// Notes what the owner released.
    pub(crate) fn note_released(&mut self, keep_from: Lsn) {
        self.released = self.released.max(keep_from);
    }

    /// The pin that holds most, if there is one.
    pub(crate) fn lowest_pin(&self) -> Option<Held> {
        self.held().next()
    }

    /// All pins, the one that holds most first.
    pub(crate) fn held(&self) -> impl Iterator<Item = Held> {
        self.pins.iter().map(|(&(from, _), pin)| Held {
            name: pin.name.clone(),
            from,
        })
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

    /// Removes and returns the oldest segment, unless a pin holds it, it is the last one, or readers did
    /// not see all of it.
    pub(crate) fn release_oldest(&mut self, visible: Lsn) -> Vec<Segment> {
        match self.segments.get(1).map(|next| next.base) {
            Some(next) if next <= visible.next() => self.release(next),
            _ => Vec::new(),
        }
    }

    /// Removes and returns, oldest first, the segments that end below `keep_from` and below every
    /// pin. The last one always stays.
    pub(crate) fn release(&mut self, keep_from: Lsn) -> Vec<Segment> {
        let floor = match self.pins.first_key_value() {
            Some((&(pinned, _), _)) => pinned.min(keep_from),
            None => keep_from,
        };
        let mut released = Vec::new();
        while self.segments.get(1).is_some_and(|next| next.base <= floor) {
            released.extend(self.segments.pop_front());
        }
        self.marks -= released.iter().map(Segment::marks).sum::<usize>();
        released
    }
}

/// Where to thin again after thinning left `marks`. Every segment keeps one: with very many of them
/// there is little to take out, and trying at each mark would be slow.
pub(crate) fn marks_max_after(marks: usize) -> usize {
    if marks <= MARKS_MAX / 4 * 3 {
        MARKS_MAX
    } else {
        marks.saturating_mul(2)
    }
}

/// Holds `from` and everything after it until the pin is dropped. The name is for metrics and for
/// the error of whoever wants the space.
pub(crate) fn pin(
    catalog: &Arc<Mutex<Catalog>>,
    name: Option<&str>,
    from: Lsn,
    safe_point: Lsn,
) -> Result<Pin, Error> {
    if let Some(name) = name
        && (name.is_empty() || name.chars().count() > PIN_NAME_LEN_MAX)
    {
        let message = format!(
            "pin name of {} bytes; 1 to {PIN_NAME_LEN_MAX} characters",
            name.len()
        );
        return Err(Error::new(Kind::Invalid, message));
    }
    let mut locked = hold(catalog);
    let first = locked.first_retained();
    if from < first {
        return Err(Error::new(
            Kind::OutOfRange,
            format!("position {from} is below the retained range {first} to {safe_point}"),
        )
        .with_lsn(from));
    }
    let key = (from, locked.pins_made);
    locked.pins_made += 1;
    let lost_after = Arc::default();
    let holding = Holding {
        name: name.map(Arc::from),
        lost_after: Arc::clone(&lost_after),
    };
    locked.pins.insert(key, holding);
    drop(locked);
    let catalog = Arc::clone(catalog);
    let release = move || {
        hold(&catalog).pins.remove(&key);
    };
    Ok(Pin::new(from, release).told_of_cuts(lost_after))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A journal far longer than marks are kept for: the marks stay within their bound, and every
    /// position is still found, from a batch at or before it.
    ///
    /// Proves: JRN-17
    #[test]
    fn marks_are_bounded_whatever_the_length_and_still_lead_to_every_position() {
        let segments = 48;
        let batches_each = MARKS_MAX as u64 / 16;
        let segment = |number: u64| {
            let base = Lsn::new(1 + number * batches_each);
            Segment::new(base, PathBuf::new(), Timestamp::default())
        };
        let mut catalog = Catalog::new([segment(0)].into());
        for number in 0..segments {
            if number > 0 {
                catalog.push(segment(number));
            }
            for batch in 0..batches_each {
                let first = Lsn::new(1 + number * batches_each + batch);
                catalog.mark_active(first, batch * MARK_STRIDE);
                assert!(catalog.marks <= MARKS_MAX);
            }
        }
        let held: usize = catalog.segments.iter().map(|it| it.marks.capacity()).sum();
        assert!(
            held * size_of::<Mark>() <= 48 << 20,
            "{held} marks have room"
        );
        for lsn in (1..=segments * batches_each).step_by(4999) {
            let stretch = catalog.stretch(Lsn::new(lsn)).unwrap();
            let batch = (lsn - 1) % batches_each;
            let offset = stretch.offset.unwrap();
            assert_eq!(stretch.base.get(), lsn - batch);
            assert!(offset <= batch * MARK_STRIDE, "{lsn} is behind {offset}");
            let skipped = batch - offset / MARK_STRIDE;
            assert!(skipped < 16, "{lsn}: {skipped} marks were taken out");
        }
    }
}
