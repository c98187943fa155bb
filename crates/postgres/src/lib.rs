//! The tables of a store in a PostgreSQL database that several machines share.
//!
//! [`Engine`] is a [`store::Engine`]. Positions are numbered by the one row of `holdfast.head`, whose
//! lock orders the commits of all machines and is held until a commit is durable. What a transaction
//! read is checked there, by one function of the database in one round trip; nothing is ever waited for
//! while the lock is held, so that no two of them can wait for each other.
//!
//! Knows nothing of what is in the tables, except that the views for people name some of them. Knows no
//! pooler that moves a session from one connection to another: prepared statements would be lost.

mod address;
mod bounds;
mod bridge;
mod commit;
mod connection;
mod engine;
mod fault;
mod moving;
mod pool;
mod reader;
mod schema;
mod statement;
mod tls;
mod work;

pub use address::Address;
pub use engine::{Engine, Options, administer, prepare_as};
pub use fault::{Cause, Fault};
pub use moving::{Move, Reached, Site};
