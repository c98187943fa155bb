//! Collects the facts of this machine, or of a directory that stands for one, and prints them.
//!
//! `facts [--only NAME,...] [--root DIR]`: the bundle goes to standard output; the time of each
//! collector and the peak memory of the process go to standard error.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal"
)]

use std::{collections::BTreeSet, env, process::ExitCode, sync::Arc};

use scan::{
    collect::{self, Needs, Progress},
    target::{LocalTarget, Target},
};
use world::RealClock;

struct Watch;

impl Progress for Watch {
    fn walked(&self, seen: u64, expected: Option<u64>) {
        eprint!("\rwalk: {seen} of {expected:?} files");
    }
}

fn option(name: &str) -> Option<String> {
    let mut args = env::args().skip_while(|arg| arg != name);
    args.nth(1)
}

fn needs() -> Needs {
    let set =
        |paths: &[&str]| -> BTreeSet<String> { paths.iter().map(|&path| path.into()).collect() };
    Needs {
        files: set(&[
            "/etc/shadow",
            "/etc/passwd",
            "/etc/motd",
            "/none",
            "/root/.bashrc",
        ]),
        globs: set(&["/etc/ssh/ssh_host_*_key", "/etc/cron.*/*", "/var/log/*"]),
        text: set(&["/etc/issue", "/etc/shadow", "/etc/hosts"]),
        hashes: set(&["/usr/bin/su", "/none"]),
    }
}

fn main() -> ExitCode {
    let clock = Arc::new(RealClock::new());
    let root = option("--root").unwrap_or_else(|| "/".to_owned());
    let target: Arc<dyn Target> = match LocalTarget::new(&root, Arc::<RealClock>::clone(&clock)) {
        Ok(target) => Arc::new(target),
        Err(unknown) => {
            eprintln!("{unknown}");
            return ExitCode::from(2);
        }
    };
    let only = option("--only");
    let wanted: Vec<_> = collect::list()
        .iter()
        .copied()
        .filter(|collector| {
            only.as_ref()
                .is_none_or(|only| only.split(',').any(|name| name == collector.name))
        })
        .collect();
    let facts = collect::collect_only(&wanted, target, Arc::new(needs()), Arc::new(Watch), clock);
    println!("{}", facts.to_json());
    eprintln!();
    for (name, millis) in &facts.timings_ms {
        eprintln!("{millis:>8} ms  {name}");
    }
    let peak = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for line in peak.lines().filter(|line| line.starts_with("VmHWM")) {
        eprintln!("{line}");
    }
    ExitCode::SUCCESS
}
