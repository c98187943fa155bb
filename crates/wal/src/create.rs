//! Making the files of a log that begins.

use std::path::Path;

use crate::{
    Birth, Epoch, Error, Identity, Lsn, Options, Recovery, catalog,
    core::first_extent,
    epochs::{self, Epochs},
    identity, recover,
    recover::Recovered,
    segment,
    slots::{self, Slots, Watermark},
    spare::Spare,
};

/// Where a log begins, and as what.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) identity: Identity,
    pub(crate) birth: Birth,
    /// Everything up to it is elsewhere; the first record comes behind it.
    pub(crate) base: Lsn,
    /// Of the base, or the lowest that may write.
    pub(crate) epoch: Epoch,
    /// Kept beside the log, when there is anything to keep.
    pub(crate) past: Option<epochs::Past>,
}

impl Beginning {
    /// From the first position on.
    pub(crate) fn new(identity: Identity, epoch: Epoch, birth: Birth) -> Self {
        Self {
            identity,
            birth,
            base: Lsn::ZERO,
            epoch,
            past: None,
        }
    }
}

/// Makes a journal. Order: safe-point file, history of epochs, first segment, identity; each durable
/// before the next. A crash before the last leaves a directory without identity and without records,
/// over which this is done again.
pub(crate) fn create(options: &Options, beginning: &Beginning) -> Result<Recovered, Error> {
    let disk = &*options.disk;
    let dir = &options.dir;
    let identity = beginning.identity;
    remove_unfinished(options, dir)?;
    let epoch = match (options.epoch, &beginning.past) {
        // Not below what a reset carries over: the opening that follows then fences this one, too.
        (Some(own), None) => own.max(beginning.epoch),
        // What follows a base may be as old as it.
        _ => beginning.epoch,
    };
    let first = beginning.base.next();
    let watermark = Watermark {
        safe_point: beginning.base,
        first_retained: first,
        active: first,
        // Of a record, so none of an empty log; below a base there were some.
        epoch: if beginning.base == Lsn::ZERO {
            Epoch(0)
        } else {
            beginning.epoch
        },
    };
    let slots_path = dir.join(slots::NAME);
    disk.replace(&slots_path, &Slots::beginning(identity, &watermark))
        .map_err(|source| Error::io("make the safe-point file", &slots_path, source))?;
    if let Some(past) = &beginning.past {
        past.write(disk, dir, identity)?;
    }
    let header = segment::Header {
        identity,
        base: first,
        previous: Lsn::ZERO,
        epoch,
        settled: Lsn::ZERO,
        created: options.clock.now(),
        stale: Lsn::ZERO,
    };
    let extent = first_extent(options.segment_bytes, segment::HEADER_LEN as u64);
    let active = Spare::at_once(disk, dir, extent)?.place(disk, dir, &header)?;
    let identity_path = dir.join(identity::NAME);
    disk.replace(
        &identity_path,
        &identity::encode(identity, Some(beginning.birth)),
    )
    .map_err(|source| Error::io("make the identity file", &identity_path, source))?;
    let segment = catalog::Segment::new(first, active.path.clone(), header.created);
    Ok(Recovered {
        identity,
        birth: Some(beginning.birth),
        slots: Slots::open(disk, slots_path, identity)?.known_durable(),
        segments: [segment].into(),
        active,
        position: segment::HEADER_LEN as u64,
        epoch,
        epochs: Epochs::new(beginning.past.clone().unwrap_or_default(), Vec::new()),
        report: Recovery {
            identity,
            is_new: true,
            first_retained: first,
            watermark: beginning.base,
            safe_point: beginning.base,
            segments: 1,
            batches: 0,
            bytes: 0,
            cut: None,
            slot_mended: false,
            segments_removed: 0,
        },
    })
}

/// Removes what an interrupted creation left: nothing in it was ever appended to.
fn remove_unfinished(options: &Options, dir: &Path) -> Result<(), Error> {
    for base in recover::bases(&*options.disk, dir)? {
        let path = segment::path(dir, base);
        options
            .disk
            .remove_file(&path)
            .map_err(|source| Error::io("remove an unused segment", &path, source))?;
    }
    Ok(())
}
