//! When each host is looked at next.
//!
//! Owns the rules of time: the state that a scan leaves a host in, the interval that follows from it,
//! the back-off of a host that fails, what a job in the queue says and how it proves that we said it.
//! All of it is computed from its arguments; nothing here reads a clock or dice. [`Rows`] keeps one row
//! a host and is the only way to write one, so that no row changes without its audit record. Who
//! dispatches, claims and completes is [`crate::backend`].

pub mod backoff;
mod due;
mod error;
mod job;
mod row;
mod rows;

pub use due::{next_after, state_after, state_of};
pub use error::{Error, Kind};
pub use job::{JobFault, Payload, QueueKey};
pub use row::{Backoff, Change, Place, Probe, Row};
pub(crate) use rows::{Act, check_name};
pub use rows::{Rows, UPDATED};
