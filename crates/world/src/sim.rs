//! A simulated world, driven by a seed.
