//! The journal against the machine's own limit and against its peers.
//!
//! `cargo run --release --bin journal -- [append|rolls|recovery|start] [--rounds N] [--millis N] [--solo N] [--dir DIR]`

use std::process::ExitCode;

use benches::machine;

mod contest;
mod logs;
mod recovery;

fn main() -> ExitCode {
    println!("{}", machine());
    let part = std::env::args().nth(1).unwrap_or_default();
    let all = part.is_empty() || part.starts_with("--");
    let is_asked = |name: &str| all || part == name;
    let mut holds = true;
    if is_asked("append") {
        holds &= contest::append();
    }
    if is_asked("rolls") {
        holds &= contest::rolls();
    }
    if is_asked("recovery") {
        holds &= recovery::recovery();
    }
    if is_asked("start") {
        recovery::start();
    }
    println!("\n{}", machine());
    if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
