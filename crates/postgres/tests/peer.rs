//! The engine on a real server.
//!
//! Without one on this machine its tests are reported as ignored; with HOLDFAST_PEERS=required they fail.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    dead_code,
    reason = "tests start programs and fail by panicking"
)]

mod server;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use postgres::{Engine, Options};
use server::Server;
use store::{Store, conformance};
use world::{Clock, RealClock, Timestamp};

struct Place<'a> {
    server: &'a Server,
    database: String,
}

impl conformance::Subject for Place<'_> {
    fn open(&mut self) -> Store {
        open(self.server, &self.database)
    }

    fn now(&self) -> Timestamp {
        RealClock::new().now()
    }
}

fn open(server: &Server, database: &str) -> Store {
    let options = Options::new(server.address(database), conformance::tables());
    Store::on(std::sync::Arc::new(Engine::open(options).unwrap()))
}

fn conforms() {
    let server = Server::start();
    for case in conformance::CASES {
        (case.run)(&mut Place {
            server: &server,
            database: server.database(),
        });
    }
}

const TESTS: [(&str, fn()); 1] = [("the engine conforms", conforms)];

fn main() -> ExitCode {
    let is_missing = server::programs().is_none();
    let is_required = std::env::var("HOLDFAST_PEERS").is_ok_and(|peers| peers == "required");
    let trial = |(name, run): (&str, fn())| {
        let trial = Trial::test(name, move || {
            if is_missing {
                return Err(Failed::from(
                    "PostgreSQL is missing: no /usr/lib/postgresql/*/bin",
                ));
            }
            run();
            Ok(())
        });
        trial.with_ignored_flag(is_missing && !is_required)
    };
    libtest_mimic::run(&Arguments::from_args(), TESTS.map(trial).into()).exit_code()
}
