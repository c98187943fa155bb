//! Lints and tests every rule below a directory: `cargo run -p scan --example rulecheck -- DIR`.
#![allow(clippy::print_stdout, reason = "a command for rule authors")]

use std::{env, path::PathBuf, process::ExitCode};

use scan::rule::{Pack, lint, test_rules};

fn main() -> ExitCode {
    let dir = env::args_os()
        .nth(1)
        .map_or_else(|| PathBuf::from("crates/scan/rules"), PathBuf::from);
    let loaded = match Pack::load(&world::RealDisk, &dir) {
        Ok(loaded) => loaded,
        Err(error) => {
            println!("list {}: {error}", dir.display());
            return ExitCode::from(2);
        }
    };
    let mut findings = loaded.faults;
    findings.extend(lint(&loaded.pack.rules));
    findings.iter().for_each(|fault| println!("{fault}"));
    let report = test_rules(&loaded.pack.rules);
    for failure in &report.failures {
        let actual = failure
            .actual
            .map_or("no verdict", |outcome| outcome.name());
        println!(
            "{}:{}: test `{}`: expected {}, got {actual}: {}",
            failure.file, failure.line, failure.test, failure.expected, failure.reason
        );
    }
    println!(
        "{} rules, {} tests: {} findings, {} failed",
        report.rules,
        report.tests,
        findings.len(),
        report.failures.len()
    );
    if findings.is_empty() && report.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    }
}
