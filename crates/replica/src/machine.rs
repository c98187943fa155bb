//! The state machine of one node for one journal: `step(now, event) -> effects`.
//!
//! No I/O, no clock, no lock, no task, no dice: time and random ids come in with the events, and
//! maps are ordered, so the same events give the same effects, in the product and in a simulation.

mod announcement;
mod budget;
mod candidate;
mod configure;
mod effect;
mod event;
mod feed;
mod hear;
mod keeper;
mod lease;
mod log;
mod message;
mod node;
mod outbox;
mod phase;
mod plan;
mod position;
mod primary;
mod promise;
mod promotion;
mod rebuild;
mod receiver;
mod refusal;
mod sender;
mod session;
mod settings;
pub mod states;
mod status;
mod switchover;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod trail;
pub mod validation;

pub use announcement::{ANNOUNCEMENT, announce, announced};
pub use budget::Violation;
pub use effect::{Effect, Line, Outcome, Record, Refusal, Role};
pub use event::{BaseFound, Durable, Event, Order};
pub use message::{Attach, Attached, Body, Entry, Header, Message, Sealed};
pub use node::Node;
pub use phase::{IllegalMove, Kind, Phase, State};
pub use plan::{Plan, Source, Way};
pub use position::{
    Attachment, EpochId, EpochStart, History, NodeId, Position, STARTS, SessionId, Time,
    next_promotion, next_start,
};
pub use settings::{Config, Limits, MEMBERS_MAX, Mode, Policy, Replaced, Version};
pub use status::{Counts, ReplicaStatus, SessionStatus, Status};
