//! The state machine of one node for one journal: `step(now, event) -> effects`.
//!
//! No I/O, no clock, no lock, no task, no dice: time and random ids come in with the events, and
//! maps are ordered, so the same events give the same effects, in the product and in a simulation.

mod announcement;
mod effect;
mod event;
mod message;
mod position;
mod settings;
pub mod states;
#[cfg(test)]
pub(crate) mod testing;
pub mod validation;

pub use announcement::{ANNOUNCEMENT, announce, announced};
pub use effect::{Effect, Line, Outcome, Record, Refusal, Role};
pub use event::{BaseFound, Durable, Event, Order};
pub use message::{Attach, Attached, Body, Entry, Header, Message, Sealed};
pub use position::{
    EpochId, EpochStart, History, NodeId, Position, STARTS, SessionId, Time, next_promotion,
    next_start,
};
pub use settings::{Config, Limits, MEMBERS_MAX, Mode, Policy, Replaced, Version};
