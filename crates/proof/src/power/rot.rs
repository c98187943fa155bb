//! Rotten bits: a byte or a sector of a settled segment is changed behind the product's back.
//!
//! Everything in it was acknowledged and is at or below the safe point, so that nothing may be taken
//! for the torn end of an interrupted write: the next start, or whoever reads there, refuses with a
//! cause code. What is served is whole.

use std::{io, path::Path};

use serde::Deserialize;
use world::{Disk, RealDisk, disk::Open};

use crate::crash::{
    breach::{Breach, Fault},
    dice::Dice,
    process::Ended,
};

/// Bytes of a segment read at most; those of a run have a few KiB.
const SEGMENT_LEN_MAX: u64 = 1 << 30;

const SECTOR_LEN: usize = 512;

/// Cause codes that damage of a segment can have, as docs/errors names them.
const CAUSES: [&str; 8] = [
    "EPOCH_REGRESSED",
    "FIRST_SEQ_NOT_BASE",
    "FRAME_CORRUPT",
    "IDENTITY_MISMATCH",
    "SAFESEQ_GT_MAXSEQ",
    "SAFESEQ_NOT_FOUND",
    "SEGMENT_HEADER_CORRUPT",
    "SEQ_GAP",
];

/// What `journal verify` says, as far as it matters here.
#[derive(Deserialize)]
struct Verified {
    holds: bool,
    watermark: Option<u64>,
    last: Option<u64>,
}

/// Whether the safe point of a journal is at its end.
pub(super) fn is_settled(verify: &Ended) -> Result<bool, Breach> {
    let promise = "verifies a journal that was closed in order";
    let found: Verified =
        serde_json::from_slice(&verify.stdout).map_err(|_| verify.breach(promise))?;
    if !found.holds {
        return Err(verify.breach(promise));
    }
    Ok(found.last.is_some() && found.watermark == found.last)
}

/// Changes a segment of the journal in `dir`, and says where; `None` when it has none.
pub(super) fn spoil(dir: &Path, dice: &mut Dice) -> io::Result<Option<String>> {
    let mut names: Vec<String> = RealDisk
        .list(dir)?
        .into_iter()
        .map(|entry| entry.name)
        .filter(|name| Path::new(name).extension().is_some_and(|it| it == "seg"))
        .collect();
    names.sort_unstable();
    let Some(name) = dice.pick(&names) else {
        return Ok(None);
    };
    let path = dir.join(name);
    let mut bytes = RealDisk.read(&path, SEGMENT_LEN_MAX)?;
    // What follows was never written.
    let Some(end) = bytes.iter().rposition(|byte| *byte != 0) else {
        return Ok(None);
    };
    let at = usize::try_from(dice.below(end as u64 + 1)).expect("less than a length");
    let words = if dice.one_in(2) {
        let bit = dice.below(8);
        bytes[at] ^= 1 << bit;
        format!("bit {bit} of byte {at}")
    } else {
        let from = at - at % SECTOR_LEN;
        let to = (from + SECTOR_LEN).min(bytes.len());
        bytes[from..to].fill(0);
        format!("the sector at {from}, zeroed")
    };
    RealDisk.open(&path, Open::Write)?.write_all_at(&bytes, 0)?;
    Ok(Some(format!("{}, {words}", path.display())))
}

/// Whether a command refused what it met with a cause code; an error when with none.
pub(super) fn is_refused(ended: &Ended, spoilt: &str) -> Result<bool, Fault> {
    if ended.code() != Some(2) {
        return Ok(false);
    }
    if CAUSES.iter().any(|cause| ended.stderr.contains(cause)) {
        return Ok(true);
    }
    let promise = format!("refuses rotten bits with a cause code ({spoilt})");
    Err(ended.breach(&promise).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_segment_is_changed_within_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(spoil(dir.path(), &mut Dice::new(1)).unwrap(), None);
        let before = [vec![7; 700], vec![0; 400]].concat();
        let path = dir.path().join("00000000000000000001.seg");
        for seed in 1..50 {
            RealDisk.replace(&path, &before).unwrap();
            assert!(spoil(dir.path(), &mut Dice::new(seed)).unwrap().is_some());
            let after = RealDisk.read(&path, SEGMENT_LEN_MAX).unwrap();
            assert_eq!(after.len(), before.len());
            assert_ne!(after[..700], before[..700]);
            assert_eq!(after[700..], before[700..]);
        }
    }
}
