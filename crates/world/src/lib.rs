//! The seams between this program and everything outside it.
//!
//! Owns disk, clock, randomness and network, each real or simulated, how threads share memory, and
//! what happens when an invariant breaks. Knows none of our formats, and nothing else belongs here.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this crate is the seam"
)]

pub mod clock;
pub mod disk;
mod invariant;
mod memory;
pub mod net;
pub mod random;
pub mod sim;
mod spine;

pub use clock::{Clock, RealClock, Timestamp};
pub use disk::{Disk, File, RealDisk};
#[doc(hidden)]
pub use invariant::broken;
pub use memory::share_memory;
pub use net::{Net, RealNet};
pub use random::{Random, RealRandom};
pub use spine::{as_spine, install_panic_hook, spawn_spine};
