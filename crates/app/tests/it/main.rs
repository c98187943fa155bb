//! The shipped binary, run as its users run it.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests start the binary, lay out files for it to find, and fail by panicking"
)]

mod alerts;
mod bad_input;
mod commands;
mod drain;
mod events;
mod exports;
mod facts;
mod fix;
mod fleet;
mod holdfast;
mod hostile_fleet;
mod imports;
mod intake;
mod journal;
mod ledger;
mod machine;
mod nodes;
mod own_rules;
mod policy;
mod reference;
mod remote;
mod schedule;
mod schema;
mod serving;
mod several_hosts;
mod surroundings;
mod telemetry_v1;
mod user_files;
mod waivers;
mod watching;
