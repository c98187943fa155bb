//! A simulated world, driven by a seed.
//!
//! Each part takes its faults from the test that built it and nothing from the machine it runs
//! on, so the same seed gives the same run.

mod clock;
mod dice;
mod disk;
mod net;
mod random;

pub use clock::Clock;
pub use disk::{Call, Disk, Effect, Fault, Op, is_crash};
pub use net::Net;
pub use random::Random;
