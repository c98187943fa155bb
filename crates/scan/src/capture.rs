//! Facts of a host that is asked through one shell session.
//!
//! The host runs one small POSIX shell loop ([`command`]). It reads scripts, one a line, on its
//! standard input and answers in frames on its standard output. A round asks everything that is
//! known to be wanted at once; the collectors then run at home, unchanged, against what was brought
//! (`Captured`), and what they missed is asked in the next round. The number of rounds is
//! bounded however many rules there are.
//!
//! Nothing here knows a network: whoever has a connection gives an [`Exchange`]. Whatever the host
//! sends is bounded before it is kept, and can be a lie, but neither a panic nor a wait without end:
//! [`Exchange::receive`] has a deadline of its owner's.

mod answer;
mod captured;
mod declared;
mod frame;
mod printed;
mod question;
mod rounds;
mod shell;
#[cfg(test)]
mod tests;
mod walk;

use std::{sync::Arc, time::Duration};

use world::{Clock, Random};

use crate::{
    collect::{Collector, Needs, Progress},
    facts::Facts,
    failure::{Failure, Reason},
};

pub(crate) use shell::quote;

pub use printed::{is_capture, printed_script, replay};
pub use shell::{RUNS, command};

/// Bytes of one session, both ways. A usual Debian needs three MiB; what is beyond this is a host
/// that does not stop.
pub const SESSION_BYTES_MAX: u64 = 96 << 20;

/// Answers awaited one after the other. A usual host takes five.
pub const ROUNDS_MAX: u32 = 12;

/// Both directions of a running [`command`].
pub trait Exchange {
    /// Hands all of `bytes` over.
    ///
    /// # Errors
    /// The other side is gone, the deadline has passed, or the scan was cancelled.
    fn send(&mut self, bytes: &[u8]) -> Result<(), Failure>;

    /// What has arrived, at least one byte; waits for it. `None` when the other side closed.
    ///
    /// # Errors
    /// As [`Self::send`].
    fn receive(&mut self) -> Result<Option<Vec<u8>>, Failure>;
}

/// How much of the other side, and for how long.
#[derive(Clone, Debug)]
pub struct Limits {
    pub session_bytes_max: u64,
    pub rounds_max: u32,
    /// For the whole session.
    pub deadline: Duration,
    /// For each collector, on the host as at home.
    pub collector_deadline: Duration,
    pub collector_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            session_bytes_max: SESSION_BYTES_MAX,
            rounds_max: ROUNDS_MAX,
            deadline: crate::collect::SCAN_DEADLINE,
            collector_deadline: Duration::MAX,
            collector_bytes_max: usize::MAX,
        }
    }
}

/// What a session cost, and who answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rounds {
    /// Times that an answer was waited for.
    pub round_trips: u32,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// Who asked on the host; 0 when it was root. `None` when the host did not tell.
    pub uid: Option<u32>,
}

/// Runs `collectors` against the host behind `exchange`.
///
/// # Errors
/// The exchange failed or was cancelled, the host closed it, sent what is no answer, or more than
/// `limits` allow.
pub fn collect(
    exchange: &mut dyn Exchange,
    collectors: &[&'static Collector],
    needs: &Arc<Needs>,
    progress: &Arc<dyn Progress>,
    clock: &Arc<dyn Clock>,
    random: &dyn Random,
    limits: &Limits,
) -> Result<(Facts, Rounds), Failure> {
    let session = frame::Session::new(exchange, clock.as_ref(), limits, mark(random)?);
    rounds::Collection::new(session, collectors, needs, progress, clock, limits).run()
}

/// What `script`, one line of shell, prints on the host behind `exchange`: by the sections that it
/// begins with `P NAME`, in order.
///
/// # Errors
/// As [`collect`].
pub(crate) fn ask(
    exchange: &mut dyn Exchange,
    script: &str,
    clock: &dyn Clock,
    random: &dyn Random,
    limits: &Limits,
) -> Result<Vec<(u8, Vec<u8>)>, Failure> {
    let mut session = frame::Session::new(exchange, clock, limits, mark(random)?);
    let script = shell::script(&session.mark, 1, &format!("i=1;{script}"));
    session.send(&script)?;
    let body = session.answer(1)?;
    let mut sections = frame::sections(&session.mark, &body);
    let parts = sections.remove(&b"1"[..]).unwrap_or_default();
    let owned = |(name, content): (u8, &[u8])| (name, content.to_vec());
    Ok(parts.into_iter().map(owned).collect())
}

/// 128 bits that no content of the host can hold by chance.
fn mark(random: &dyn Random) -> Result<String, Failure> {
    let mut bytes = [0; 16];
    random
        .fill(&mut bytes)
        .map_err(|error| Failure::new(Reason::Internal, format!("draw a random mark: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
