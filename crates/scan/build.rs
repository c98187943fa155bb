//! The pack is embedded by a macro that cargo cannot see through: without this line a new or changed
//! rule file would not be compiled in.
#![allow(
    clippy::print_stdout,
    reason = "this is how a build script speaks to cargo"
)]

fn main() {
    println!("cargo::rerun-if-changed=rules");
}
