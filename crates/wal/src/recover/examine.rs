//! Opening as far as it goes without changing anything: the survey, told instead of carried out.

use std::path::PathBuf;

use super::{check_unfinished, survey};
use crate::{Error, Identity, Lsn, epochs::Past, identity, progress::Meter};

/// What opening would find; nothing was changed to find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    pub identity: Identity,
    pub first_retained: Lsn,
    /// What something durable vouches for.
    pub watermark: Lsn,
    /// Last record that opening keeps.
    pub safe_point: Lsn,
    pub segments: usize,
    pub batches: u64,
    /// Bytes of batches that verify.
    pub bytes: u64,
    /// What opening would cut.
    pub tail: Option<TailFound>,
    /// A slot does not verify, and opening would write both again.
    pub slot_torn: bool,
    /// Segments whose removal was interrupted, and which opening would remove.
    pub leftovers: usize,
}

/// A torn tail that is still in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailFound {
    pub segment: PathBuf,
    pub offset: u64,
    pub len: u64,
}

/// What opening `options.dir` would find or refuse, by the code that opens; `None` when it would make
/// a journal. The caller sees to it that the disk is one that is only looked at.
pub(crate) fn examine(options: &crate::Options) -> Result<Option<Examined>, Error> {
    let (disk, dir) = (&options.disk, &*options.dir);
    let Some(identity) = identity::read(&**disk, dir)? else {
        check_unfinished(&**disk, dir, &options.evidence)?;
        return Ok(None);
    };
    crate::local::require_slots(options)?;
    Past::read(&**disk, dir, identity)?;
    let mut window = None;
    let plan = survey(disk, dir, identity, &mut window, Meter::new(options))?;
    let last = plan.found.last().expect("a chain has a segment");
    Ok(Some(Examined {
        identity,
        first_retained: plan.slots.watermark().first_retained,
        watermark: plan.watermark,
        safe_point: Lsn::new(plan.scan.expected.get() - 1),
        segments: plan.found.len(),
        batches: plan.scan.batches,
        bytes: plan.scan.bytes,
        tail: plan.rest.end.map(|end| TailFound {
            segment: last.segment.path.clone(),
            offset: plan.stop.offset,
            len: end - plan.stop.offset,
        }),
        slot_torn: plan.slots.is_torn(),
        leftovers: plan.leftovers.len(),
    }))
}
