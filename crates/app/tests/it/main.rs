//! The shipped binary, run as its users run it.
#![allow(
    clippy::disallowed_methods,
    reason = "tests start the binary, and lay out files for it to find"
)]

mod bad_input;
mod commands;
mod facts;
mod holdfast;
mod machine;
mod schema;
