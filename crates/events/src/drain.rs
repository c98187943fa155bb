//! Events handed on, at least once, in order of priority.
//!
//! A drain reads the journal from a durable cursor a class, sends, and moves a cursor only after the
//! receiver has answered for every event up to it: taken, or refused and kept as a dead letter. Order
//! of effects for a batch: sent, accepted, dead letters durable, cursor durable. A crash between any
//! two sends the batch again and loses nothing.
//!
//! Which class goes next is decided in `schedule`, without I/O. Each class has a thread for its sends,
//! so one that stalls holds up no other; everything else is done by the drain's own thread.

mod batch;
pub(crate) mod dead_letter;
mod engine;
mod handle;
mod lane;
mod receiver;
mod retry;
mod schedule;
mod status;
mod worker;

#[cfg(test)]
mod tests;

pub use dead_letter::{Attempt, DeadLetters, Entry, Letter};
pub use handle::{Handle, Mode, Options, Summary};
pub use receiver::{
    Accepted, Forward, Forwarded, Header, Receiver, Receivers, Refused, SEND_TIMEOUT, SendError,
    Target,
};
pub use retry::{Retried, retry};
pub use status::{ClassStatus, Status};
