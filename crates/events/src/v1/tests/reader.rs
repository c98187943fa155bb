//! A second reader of the format, made from `docs/format/telemetry-v1.md` alone: whole files, a JSON
//! library's own values, no line shared with the reader of the product.

use serde_json::Value;

/// What the document says about two files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Refused(&'static str),
    /// Payloads of sequences 1, 2, 3 and the length they have in the file.
    Frames(Vec<Vec<u8>>, usize),
}

pub(super) fn read(log: &[u8], safe_seq: &[u8]) -> Outcome {
    let Ok(safe_seq) = <[u8; 8]>::try_from(safe_seq) else {
        return Outcome::Refused("SAFE_POINT_CORRUPT");
    };
    let safe = u64::from_le_bytes(safe_seq);
    let mut committed = Vec::new();
    let mut committed_len = 0;
    let mut highest = 0;
    let mut rest = log;
    let mut is_first = true;
    while let Some((payload, after)) = whole_frame(rest) {
        let expected = committed.len() as u64 + 1;
        if expected > safe && !is_first {
            break;
        }
        let Some(seq) = sequence(payload) else {
            if expected <= safe {
                return Outcome::Refused("WAL_CORRUPT_INVALID_JSON");
            }
            break;
        };
        if is_first && seq != 1 {
            return Outcome::Refused("FIRST_SEQ_NOT_ONE");
        }
        is_first = false;
        highest = highest.max(seq);
        if seq > safe {
            break;
        }
        if seq != expected {
            return Outcome::Refused("SEQ_GAP");
        }
        committed.push(payload.to_vec());
        rest = after;
        committed_len = log.len() - rest.len();
    }
    if safe != 0 && highest != 0 && safe > highest {
        return Outcome::Refused("SAFESEQ_GT_MAXSEQ");
    }
    if committed.len() as u64 != safe {
        return Outcome::Refused("SAFESEQ_NOT_FOUND");
    }
    Outcome::Frames(committed, committed_len)
}

fn whole_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_be_bytes(*len)).unwrap();
    (rest.len() >= len).then(|| rest.split_at(len))
}

fn sequence(payload: &[u8]) -> Option<u64> {
    let Value::Object(members) = serde_json::from_str(&String::from_utf8_lossy(payload)).ok()?
    else {
        return None;
    };
    let mut sequence = 0;
    for (key, value) in &members {
        if key.eq_ignore_ascii_case("seq") && !value.is_null() {
            sequence = value.as_u64()?;
        }
    }
    Some(sequence)
}
