//! The machine, driven: a few nodes on one clock, with a network in order and disks that answer.

mod cluster;
mod groups;
