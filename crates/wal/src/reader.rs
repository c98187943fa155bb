//! Reading records back, from a position up to the safe point as it was when the read began.
//!
//! A reader takes no lock that an append waits for longer than a lookup in memory, and holds a pin,
//! so the segments it has yet to read are not removed under it.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use world::{Disk, disk::Open};

use crate::{
    Cause, Error, Identity, Lsn, Pin, Record,
    batch::{self, Header, Place},
    catalog::{Catalog, Stretch},
    core::Core,
    cut::{self, Cuts},
    hold, segment,
    window::Window,
};

#[derive(Debug)]
pub(crate) struct Reader {
    disk: Arc<dyn Disk>,
    identity: Identity,
    catalog: Arc<Mutex<Catalog>>,
    /// Next position to hand out; above `upper`: finished.
    next: Lsn,
    upper: Lsn,
    /// Last record of the last batch that may be needed: `upper` may lie inside it.
    durable: Lsn,
    cuts: Arc<Cuts>,
    /// Number of the last cut that this reader knows of.
    cuts_seen: u64,
    /// A cut took what lies from here to where `upper` was.
    lost_after: Option<Lsn>,
    at: Option<Cursor>,
    payload: Payload,
    _pin: Pin,
}

/// Where in which segment the next batch begins.
#[derive(Debug)]
pub(crate) struct Cursor {
    pub(crate) path: PathBuf,
    window: Window,
    pub(crate) place: Place,
    pub(crate) offset: u64,
    pub(crate) end: Option<Lsn>,
}

/// A verified batch that is being handed out.
#[derive(Debug)]
struct Payload {
    header: Option<Header>,
    bytes: Vec<u8>,
    at: usize,
    lsn: Lsn,
}

impl Reader {
    pub(crate) fn new(core: &Core, upper: Lsn, pin: Pin) -> Self {
        // Before the end of what is durable: a cut between the two is then noticed.
        let cuts_seen = core.cuts.number();
        Self {
            disk: Arc::clone(&core.disk),
            identity: core.identity,
            catalog: Arc::clone(&core.catalog),
            next: pin.from(),
            upper,
            durable: core.tail.safe_point(),
            cuts: Arc::clone(&core.cuts),
            cuts_seen,
            lost_after: None,
            at: None,
            payload: Payload {
                header: None,
                bytes: Vec::new(),
                at: 0,
                lsn: Lsn::ZERO,
            },
            _pin: pin,
        }
    }

    fn step(&mut self) -> Result<Record, Error> {
        loop {
            self.look_for_cut()?;
            let Some(header) = self.payload.header else {
                self.load()?;
                continue;
            };
            if self.payload.lsn > header.last() {
                self.payload.header = None;
                continue;
            }
            let lsn = self.payload.lsn;
            let found = batch::record(&self.payload.bytes, self.payload.at);
            let Some((kind, bytes, after)) = found else {
                return Err(self.corrupt("records do not fill the batch"));
            };
            self.payload.at = after;
            self.payload.lsn = lsn.next();
            if lsn == self.next {
                self.next = lsn.next();
                return Ok(Record {
                    lsn,
                    epoch: header.epoch,
                    kind,
                    bytes: bytes.to_vec(),
                });
            }
        }
    }

    /// After a cut: what lies below it is as it was, and ends there; what lay above it is not read,
    /// whatever has come in its place.
    fn look_for_cut(&mut self) -> Result<(), Error> {
        if self.cuts.number() == self.cuts_seen {
            return Ok(());
        }
        let (number, keep) = self.cuts.last();
        // Of two or more, the lower one may not be the last.
        if number != self.cuts_seen + 1 || self.next > keep {
            return Err(cut::lost(self.next, keep));
        }
        self.cuts_seen = number;
        if self.upper > keep {
            self.upper = keep;
            self.lost_after = Some(keep);
        }
        self.durable = self.durable.min(keep);
        self.at = None;
        self.payload.header = None;
        Ok(())
    }

    /// Reads and verifies the next batch. Not while a cut changes bytes: a batch that it shortens
    /// would not verify.
    fn load(&mut self) -> Result<(), Error> {
        let cuts = Arc::clone(&self.cuts);
        let _unchanged = cuts.reading();
        if cuts.number() != self.cuts_seen {
            return Ok(());
        }
        if self
            .at
            .as_ref()
            .is_none_or(|at| at.end.is_some_and(|end| self.next >= end))
        {
            self.turn_to_segment()?;
        }
        let Some(cursor) = &mut self.at else {
            return Err(self.corrupt("no segment holds the position"));
        };
        match cursor.load(&mut self.payload.bytes) {
            Ok(Some(header)) if header.last() <= self.durable => {
                cursor.offset += header.batch_len();
                self.payload.at = 0;
                self.payload.lsn = header.first;
                // Batches before the position asked for are verified and skipped.
                self.payload.header = (header.last() >= self.next).then_some(header);
                Ok(())
            }
            Ok(_) => Err(self.corrupt("a batch below the safe point does not verify")),
            Err(source) => Err(Error::io("read a batch", &cursor.path, source)
                .with_offset(cursor.offset)
                .with_lsn(self.next)),
        }
    }

    fn turn_to_segment(&mut self) -> Result<(), Error> {
        let stretch = hold(&self.catalog).stretch(self.next);
        let Some(stretch) = stretch else {
            return Err(self.corrupt("no segment holds the position"));
        };
        let window = self.at.take().map(|cursor| cursor.window);
        self.at = Some(Cursor::open(&*self.disk, self.identity, stretch, window)?);
        Ok(())
    }

    fn corrupt(&self, why: &str) -> Error {
        let error = Error::recovery(Cause::FrameCorrupt, why).with_lsn(self.next);
        match &self.at {
            Some(cursor) => error.with_path(&cursor.path).with_offset(cursor.offset),
            None => error,
        }
    }
}

impl Cursor {
    pub(crate) fn open(
        disk: &dyn Disk,
        identity: Identity,
        stretch: Stretch,
        window: Option<Window>,
    ) -> Result<Self, Error> {
        let file = disk
            .open(&stretch.path, Open::Read)
            .map_err(|source| Error::io("open a segment", &stretch.path, source))?;
        let window = match window {
            Some(mut window) => {
                window.turn_to(file);
                window
            }
            None => Window::new(file),
        };
        Ok(Self {
            path: stretch.path,
            window,
            place: Place::new(identity, stretch.base),
            offset: stretch.offset.unwrap_or(segment::HEADER_LEN as u64),
            end: stretch.end,
        })
    }

    /// The batch at the cursor, its payload in `payload`; `None` when it does not verify.
    pub(crate) fn load(&mut self, payload: &mut Vec<u8>) -> std::io::Result<Option<Header>> {
        let head = self.window.bytes(self.offset, batch::HEADER_LEN)?;
        let Some(header) = Header::decode(head, self.place, self.offset) else {
            return Ok(None);
        };
        let started = Header::start(head, self.place, self.offset);
        // At most `batch::payload_len_max`: decoding checked it, before this allocates.
        let len = header.length as usize;
        let offset = self.offset + batch::HEADER_LEN as u64;
        payload.clear();
        while payload.len() < len {
            let left = (len - payload.len()) as u64;
            let bytes = self.window.some(offset + payload.len() as u64, left)?;
            if bytes.is_empty() {
                return Ok(None);
            }
            payload.extend_from_slice(bytes);
        }
        let checksum = crc32c::crc32c_append(started, payload);
        Ok(header.verifies(checksum).then_some(header))
    }
}

impl Iterator for Reader {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next > self.upper {
            return self
                .lost_after
                .take()
                .map(|keep| Err(cut::lost(self.next, keep)));
        }
        let step = self.step();
        if step.is_err() {
            // One error, then the end: what follows a broken batch has no known place.
            self.upper = Lsn::ZERO;
            self.lost_after = None;
        }
        Some(step)
    }
}
