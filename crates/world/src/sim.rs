//! A simulated world, driven by a seed.
//!
//! Each part takes its faults from the test that built it and nothing from the machine it runs
//! on, so the same seed gives the same run.

mod dice;
mod disk;

pub use disk::{Call, Disk, Effect, Fault, Op, is_crash};
