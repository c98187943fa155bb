//! What the schedule's row of a host says of it: a state and no history, so that looking twice at it
//! is looking once.

use world::Timestamp;

use super::{Kind, memory::Memory, rows::Raise};
use crate::{
    drift::{UNREACHABLE_AFTER, is_silence},
    failure::Reason,
    schedule::{Backoff, Probe, Row},
};

/// Failures in a row of a host that answers, from which on somebody has to mend something.
const FAILING_AFTER: u32 = 2;

/// The kinds that are told by this.
pub(super) const KINDS: [Kind; 3] = [
    Kind::HostUnreachable,
    Kind::HostKeyChanged,
    Kind::ScanFailing,
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Holds(Raise),
    Over(&'static str),
    /// Nothing that was learnt since tells: what was so before is so still.
    Unknown,
}

/// `memory` is of the scans that were concluded from.
pub(super) fn look(kind: Kind, row: &Row, memory: &Memory, last: Option<u64>) -> Found {
    // A failure that a scan came after is history, also where the scan went past the schedule.
    let failing = row
        .backoff
        .get(&Probe::Scan)
        .filter(|backoff| backoff.last_failed > memory.last_finished);
    if let Some(raise) = failing.and_then(|backoff| holds(kind, backoff)) {
        return Found::Holds(raise);
    }
    if last.is_some_and(|last| memory.last_finished > last) {
        return Found::Over("it was scanned");
    }
    match failing {
        Some(backoff) if kind == Kind::HostUnreachable && !is_silence(backoff.reason) => {
            Found::Over("it answers")
        }
        // Somebody made it due at once, which forgets failures and mends nothing.
        _ => Found::Unknown,
    }
}

fn holds(kind: Kind, backoff: &Backoff) -> Option<Raise> {
    let at = Timestamp::from_nanos(backoff.last_failed);
    let raise = |detail: String| Some(Raise::new(kind.severity(), &detail, at));
    let (reason, failures) = (backoff.reason, backoff.failures);
    let is_silent = is_silence(reason);
    match kind {
        Kind::HostUnreachable if is_silent && backoff.silent >= UNREACHABLE_AFTER => {
            raise(format!(
                "no answer to {} attempts in a row: {reason}",
                backoff.silent
            ))
        }
        Kind::HostKeyChanged if reason == Reason::HostKeyChanged => raise(
            "it shows another key than the one that is known: it was installed anew, or somebody \
             is in between"
                .to_owned(),
        ),
        Kind::ScanFailing
            if !is_silent && reason != Reason::HostKeyChanged && failures >= FAILING_AFTER =>
        {
            raise(format!(
                "{failures} attempts in a row came to nothing: {reason}"
            ))
        }
        _ => None,
    }
}
