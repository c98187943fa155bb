//! Fixes: a rule that fails is mended, and what does not hold afterwards is undone.
//!
//! ```text
//! plan ── planned ── captured ── applying(0) … applying(n) ── applied ── kept
//!                        └────────────────┴──────────────────────┴───── rolled_back | rollback_failed
//! ```
//!
//! Everything a fix may do is an [`Effect`] on an [`Object`] whose [`State`] was captured before:
//! undoing is setting the captured state, in reverse order, and looking again. Each effect is on
//! record before it is done, so whatever a crash leaves is either not begun, done, or the one effect
//! on record; [`recover`] undoes all of it. A fix is kept only after the rule was judged again on
//! fresh facts and passes.
//!
//! Values never meet a shell as code. Verdicts are not written here: the next scan records them.

mod diff;
mod engine;
mod error;
mod hands;
mod journal;
mod local;
mod object;
mod plan;
mod projection;
mod remote;
#[cfg(test)]
mod tests;
mod timer;

pub use diff::{Shown, shown};
pub use engine::{Ended, Site, TIMER_SECONDS, apply, recover, roll_back};
pub use error::{Fault, FaultKind};
pub use hands::{Account, Disarmed, Hands};
pub use journal::{Fix, Fixes, Intent, Journal, Phase, Progress};
pub use local::{Knock, LocalHands};
pub use object::{Access, Action, Effect, Object, State};
pub use plan::{Plan, collectors, plan};
pub(crate) use projection::project;
pub use remote::{Line, RemoteHands};

/// The tables that fixes keep in a store.
pub fn tables() -> Vec<store::Table> {
    journal::tables()
}
