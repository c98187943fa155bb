//! The rules R1 to R4: which frames are committed, and what stops the start.
//!
//! Only frames up to the safe sequence are judged. Whatever lies behind the frame that carries it was
//! never acknowledged, so it is cut, be it whole, torn, gapped or zero: a power cut leaves all of
//! these. The first frame alone is judged always (R1), as the original does.

use super::{
    Cause, Error, Seq,
    frame::sequence_of,
    walk::{Step, Walk},
};

/// What is committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Committed {
    /// Sequence of the last frame, which is also how many there are.
    pub(crate) last: Seq,
    /// Where the last frame ends; everything from here on is cut.
    pub(crate) end: u64,
}

/// Why frames are not looked at. Never sets `Err` apart from a refusal: those are the inner result.
pub(crate) type Judged = Result<Committed, Error>;

/// Judges the frames of `walk` against the safe sequence. The outer error is the disk's.
pub(crate) fn judge(walk: &mut Walk, safe: Seq) -> std::io::Result<Judged> {
    let mut committed = Committed::default();
    // Highest sequence found, one beyond a gap at the safe sequence included.
    let mut highest = Seq(0);
    // Looks at the first frame even when nothing is committed.
    while committed.last < safe || walk.at() == 0 {
        let expected = committed.last.next();
        let is_beyond = expected > safe;
        let seq = match walk.step()? {
            Step::End { .. } | Step::Torn { .. } => break,
            Step::TooLong { .. } if is_beyond => break,
            Step::TooLong { len, .. } => return Ok(Err(too_long(expected, len))),
            Step::Frame { payload, .. } => match sequence_of(payload) {
                Ok(seq) => seq,
                Err(_) if is_beyond => break,
                // At once: what follows from it (R3, R4) would be a wrong diagnosis.
                Err(_) => return Ok(Err(invalid_json(expected))),
            },
        };
        highest = highest.max(seq);
        if committed.last == Seq(0) && seq != Seq(1) {
            return Ok(Err(first_not_one(seq)));
        }
        if is_beyond {
            break;
        }
        if seq != expected {
            if seq > safe {
                break;
            }
            return Ok(Err(gap(committed.last, seq)));
        }
        committed = Committed {
            last: seq,
            end: walk.at(),
        };
    }
    Ok(match after(safe, highest, committed.last == safe) {
        Some(error) => Err(error),
        None => Ok(committed),
    })
}

/// R3, then R4. R3 is asked only when both are non-zero: an empty log below a safe sequence is R4.
pub(crate) fn after(safe: Seq, highest: Seq, is_safe_found: bool) -> Option<Error> {
    if safe > Seq(0) && highest > Seq(0) && safe > highest {
        return Some(Error::refusal(
            Cause::SafeseqGtMaxseq,
            &format!("safe_seq={safe} but maxSeq={highest}"),
        ));
    }
    if safe > Seq(0) && !is_safe_found {
        return Some(Error::refusal(
            Cause::SafeseqNotFound,
            &format!("no frame with Seq={safe}"),
        ));
    }
    None
}

fn first_not_one(seq: Seq) -> Error {
    Error::refusal(
        Cause::FirstSeqNotOne,
        &format!("first frame Seq={seq} (expected 1)"),
    )
}

fn gap(last: Seq, seq: Seq) -> Error {
    Error::refusal(
        Cause::SeqGap,
        &format!(
            "frame Seq={seq} follows Seq={last} (expected {})",
            last.next()
        ),
    )
}

pub(crate) fn invalid_json(seq: Seq) -> Error {
    Error::refusal(
        Cause::WalCorruptInvalidJson,
        &format!("frame at Seq={seq} contains invalid JSON"),
    )
}

fn too_long(seq: Seq, len: u32) -> Error {
    Error::refusal(
        Cause::WalCorruptInvalidJson,
        &format!(
            "frame at Seq={seq} contains invalid JSON: its length {len} is beyond the limit \
             (frame_len_max), nothing of it was read"
        ),
    )
}
