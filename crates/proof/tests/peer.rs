//! The proof beside a program of others: a cluster that goes on by itself with an etcd.
//!
//! Runs the `holdfast` that lies beside `proof`, which `cargo test --workspace` has built. Where etcd is missing the
//! test is reported as ignored, and says so; with HOLDFAST_PEERS=required it fails.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "the test starts programs and fails by panicking"
)]

use std::{
    env,
    path::Path,
    process::{Command, ExitCode},
};

use libtest_mimic::{Arguments, Failed, Trial};

/// Each fault once, and kills: about a minute with a debug binary.
const WORDS: [&str; 11] = [
    "cluster",
    "--coordinator",
    "etcd",
    "--seed",
    "1",
    "--kills",
    "2",
    "--faults",
    "kill,coordinator-kill,coordinator-pause,pause,switchover",
    "--nodes",
    "3",
];

/// Proves: AUT-8, AUT-12, REP-15
fn goes_on_by_itself() -> Result<(), Failed> {
    let proof = Path::new(env!("CARGO_BIN_EXE_proof"));
    let ended = Command::new(proof)
        .args(WORDS)
        .arg("--binary")
        .arg(proof.with_file_name("holdfast"))
        .output()?;
    let told = String::from_utf8_lossy(&ended.stdout);
    let takes_over = told
        .lines()
        .filter_map(|line| line.strip_prefix("takeovers without an order"))
        .any(|count| count.trim() != "0");
    if ended.status.success() && takes_over {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&ended.stderr);
    Err(format!("{}: {told}{complaint}", ended.status).into())
}

/// From PATH, as the program takes it.
struct Etcd;

impl Etcd {
    fn test(&self, name: &str, run: fn() -> Result<(), Failed>) -> Trial {
        let path = env::var_os("PATH").unwrap_or_default();
        let is_missing = !env::split_paths(&path).any(|dir| dir.join("etcd").is_file());
        let is_required = env::var("HOLDFAST_PEERS").is_ok_and(|peers| peers == "required");
        if is_missing {
            eprintln!("{name}: etcd is missing: it is not on PATH");
        }
        // With it missing and required, the program says what to install.
        Trial::test(name, run).with_ignored_flag(is_missing && !is_required)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let tests = vec![Etcd.test(
        "nodes_with_an_etcd_go_on_by_themselves_and_lose_nothing",
        goes_on_by_itself,
    )];
    libtest_mimic::run(&arguments, tests).exit_code()
}
