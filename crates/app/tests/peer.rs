//! The shipped binary beside programs of others, unchanged.
//!
//! A test whose peer is missing is reported as ignored, and says what is missing; with
//! HOLDFAST_PEERS=required it fails. `.ci/run` installs the peers below target/peers.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stderr,
    dead_code,
    reason = "tests start programs and fail by panicking; not all of what they share is used by each"
)]

#[path = "peer/browser.rs"]
mod browser;
#[path = "../../postgres/tests/peer/server.rs"]
mod cluster;
#[path = "peer/etcd.rs"]
mod etcd;
#[path = "peer/exports.rs"]
mod exports;
#[path = "it/facts.rs"]
mod facts;
#[path = "it/holdfast.rs"]
mod holdfast;
#[path = "it/hostile_fleet.rs"]
mod hostile_fleet;
#[path = "peer/interface.rs"]
mod interface;
#[path = "peer/machine.rs"]
mod machine;
#[path = "peer/nats.rs"]
mod nats;
#[path = "peer/otel.rs"]
mod otel;
#[path = "it/serving.rs"]
mod serving;
#[path = "peer/shared.rs"]
mod shared;
#[path = "peer/ssh.rs"]
mod ssh;

use std::{path::PathBuf, process::ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};

/// A program of others that a test needs.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// Names its place where it is not the usual one.
    variable: &'static str,
    usual: &'static str,
}

impl Peer {
    pub(crate) const fn new(
        name: &'static str,
        variable: &'static str,
        usual: &'static str,
    ) -> Self {
        Self {
            name,
            variable,
            usual,
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        std::env::var_os(self.variable)
            .map_or_else(|| holdfast::repository(self.usual), PathBuf::from)
    }

    /// A test that needs this peer.
    pub(crate) fn test(&'static self, name: &str, run: fn(&Peer)) -> Trial {
        let is_missing = !self.path().exists();
        let is_required = std::env::var("HOLDFAST_PEERS").is_ok_and(|peers| peers == "required");
        if is_missing {
            let place = self.path();
            eprintln!("{name}: {} is missing: no {}", self.name, place.display());
        }
        let trial = Trial::test(name, move || {
            if is_missing {
                return Err(Failed::from(format!("{} is missing", self.name)));
            }
            run(self);
            Ok(())
        });
        trial.with_ignored_flag(is_missing && !is_required)
    }
}

fn main() -> ExitCode {
    // This program again, as one that a test traces.
    if let Ok(place) = std::env::var("HOLDFAST_PEER_LOGIN") {
        ssh::login_for_a_trace(&place);
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::from_args();
    let tests = [
        browser::tests(),
        etcd::tests(),
        exports::tests(),
        interface::tests(),
        nats::tests(),
        otel::tests(),
        shared::tests(),
        ssh::tests(),
    ]
    .into_iter()
    .flatten()
    .collect();
    libtest_mimic::run(&arguments, tests).exit_code()
}
