//! The ledger on a real PostgreSQL: what an apply costs there, and many at a time.
//!
//! Without a server on this machine its tests are reported as ignored; with HOLDFAST_PEERS=required they fail.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    dead_code,
    reason = "tests start programs and fail by panicking"
)]

#[path = "database/counter.rs"]
mod counter;
#[path = "../../postgres/tests/peer/server.rs"]
mod server;

use std::{
    process::ExitCode,
    sync::{Arc, Barrier},
    thread,
};

use counter::Counter;
use libtest_mimic::{Arguments, Failed, Trial};
use postgres::{Address, Engine, Options};
use scan::{
    judge::{Outcome, Summary, digest},
    ledger::{Class, Finding, Ledger, LogSink, Scan},
    rule::{Severity, Variables},
};
use server::Server;
use store::Store;
use world::{Clock, RealClock};

const ROUND_TRIPS_MAX: u64 = 6;
const AT_A_TIME: usize = 50;

fn ledger(url: &str) -> Ledger {
    let address = Address::parse(url, None).unwrap();
    let engine = Engine::open(Options::new(address, scan::tables())).unwrap();
    Ledger::new(Store::on(Arc::new(engine))).unwrap()
}

/// `flipped` of the rules fail, the others pass.
fn scan(host: &str, rules: usize, flipped: usize) -> Scan {
    let finding = |number: usize| {
        let (rule, fails) = (format!("rule-{number}"), number < flipped);
        let evidence = format!(
            r#"{{"facts":[{{"fact":"os.id","value":"{fails}"}}],"rule":"{rule}","schema":"holdfast.evidence/1"}}"#
        )
        .into_bytes();
        Finding {
            rule,
            severity: Severity::Medium,
            verdict: if fails { Outcome::Fail } else { Outcome::Pass },
            reason: format!("os.id is {fails}"),
            rule_digest: "0".repeat(64),
            rule_definition: "0".repeat(64),
            variables: Variables::new(),
            evidence_digest: digest(&evidence),
            evidence,
        }
    };
    let findings: Vec<Finding> = (0..rules).map(finding).collect();
    let now = RealClock::new().now();
    Scan {
        id: uuid::Uuid::new_v4(),
        host: host.to_owned(),
        started: now,
        finished: now,
        summary: Summary::of(findings.iter().map(|finding| finding.verdict)),
        findings,
    }
}

/// Proves: LED-9
fn round_trips() {
    const RULES: usize = 1000;
    let server = Server::start();
    let database = server.database();
    let counter = Counter::to(server.path());
    for (case, flipped) in [
        ("first seen", 0),
        ("nothing changed", 0),
        ("one flip", 1),
        ("every rule flips", RULES),
    ] {
        let ledger = ledger(&counter.url(&database));
        // Statements are prepared when a session is first asked them.
        ledger.apply(&scan("other", 2, 0), &LogSink).unwrap();
        ledger
            .apply(&scan("other", 2, flipped.min(2)), &LogSink)
            .unwrap();
        let scan = scan("host", RULES, flipped);
        let before = counter.asked();
        ledger.apply(&scan, &LogSink).unwrap();
        let asked = counter.asked() - before;
        assert!(
            (3..=ROUND_TRIPS_MAX).contains(&asked),
            "{case}: {asked} round trips"
        );
    }
    let ledger = ledger(&counter.url(&database));
    let status = ledger.status("host", None).unwrap().unwrap();
    assert_eq!(status.states.len(), RULES);
    assert!(
        status
            .states
            .iter()
            .all(|state| state.verdict == Outcome::Fail)
    );
}

/// All at once, by two processes as the server sees it.
fn at_once<T: Send>(url: &str, work: impl Fn(&Ledger, usize) -> T + Sync) -> Vec<T> {
    let ledgers = [ledger(url), ledger(url)];
    let begin = Barrier::new(AT_A_TIME);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_A_TIME)
            .map(|number| {
                let (begin, ledger, work) = (&begin, &ledgers[number % 2], &work);
                scope.spawn(move || {
                    begin.wait();
                    work(ledger, number)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

fn deadlocks(server: &Server, database: &str) -> String {
    // Counts of sessions that are over are told a moment later than the sessions end.
    server.sql(database, "select pg_stat_force_next_flush()");
    let asked = "select sum(deadlocks) from pg_stat_database";
    server.sql(database, asked)
}

/// Proves: LED-9
fn many_hosts() {
    const RULES: usize = 100;
    let server = Server::start();
    let database = server.database();
    let url = server.url(&database);
    for round in 0..3 {
        let all = at_once(&url, |ledger, number| {
            let scan = scan(&format!("host-{number}"), RULES, round * number);
            ledger.apply(&scan, &LogSink)
        });
        for applied in all {
            assert!(!applied.unwrap().replayed);
        }
    }
    let fleet = ledger(&url).fleet(None).unwrap();
    assert_eq!(fleet.hosts.len(), AT_A_TIME);
    for standing in &fleet.hosts {
        let number: usize = standing.host.name[5..].parse().unwrap();
        let failed = standing.assessed.as_ref().unwrap().summary.fail;
        assert_eq!(usize::try_from(failed).unwrap(), (2 * number).min(RULES));
        assert_eq!(standing.host.scans, 3);
    }
    assert_eq!(deadlocks(&server, &database), "0");
}

/// Those that would go round in a circle are told to try again; what was acknowledged is there, once.
///
/// Proves: LED-9
fn one_host() {
    let server = Server::start();
    let database = server.database();
    let url = server.url(&database);
    let all = at_once(&url, |ledger, number| {
        ledger.apply(&scan("host", 20, number % 20), &LogSink)
    });
    let mut acknowledged = 0;
    for applied in all {
        match applied {
            Ok(_) => acknowledged += 1,
            Err(error) => assert_eq!(error.class(), Class::Conflict, "{error}"),
        }
    }
    assert!(acknowledged > 0);
    let hosts = ledger(&url).hosts().unwrap();
    assert_eq!(hosts[0].scans, acknowledged);
    assert_eq!(deadlocks(&server, &database), "0");
}

/// The programs of a server on this machine.
struct Programs {
    are_missing: bool,
    are_required: bool,
}

impl Programs {
    fn test(&self, name: &str, run: fn()) -> Trial {
        let are_missing = self.are_missing;
        let trial = Trial::test(name, move || {
            if are_missing {
                return Err(Failed::from(
                    "PostgreSQL is missing: no /usr/lib/postgresql/*/bin",
                ));
            }
            run();
            Ok(())
        });
        trial.with_ignored_flag(are_missing && !self.are_required)
    }
}

fn main() -> ExitCode {
    let postgres = Programs {
        are_missing: server::programs().is_none(),
        are_required: std::env::var("HOLDFAST_PEERS").is_ok_and(|peers| peers == "required"),
    };
    let trials = vec![
        postgres.test(
            "a thousand rules are applied in six round trips at most",
            round_trips,
        ),
        postgres.test(
            "fifty applies at once for fifty hosts succeed without a deadlock",
            many_hosts,
        ),
        postgres.test(
            "fifty applies at once for one host are recorded once each or refused",
            one_host,
        ),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
