//! The machine, driven: a few nodes on one clock, with a network in order and disks that answer.

mod amnesia;
mod budgets;
mod changes;
mod cluster;
mod divergence;
mod garbage;
mod groups;
mod identities;
mod leases;
mod outcomes;
mod promises;
mod rebuilds;
mod senders;
mod writes;
