//! Replication: one journal on several nodes, and who may write to it.
//!
//! [`machine`] decides: authority, sessions, catch-up, rebuild, promotion, as pure steps without
//! clocks, files or sockets. What carries its effects out lives beside it: [`authority`] keeps what a
//! node has promised.
//! The rules and why they are safe: docs/protocol/replication.md and docs/protocol/promotion.md.

pub mod authority;
mod error;
#[cfg(feature = "transport")]
pub mod group;
pub mod machine;
#[cfg(feature = "transport")]
pub mod transport;

pub use error::{Error, Kind};
