//! One scan of a thousand rules into the ledger on PostgreSQL, beside a bare upsert of as many rows there, and into the
//! embedded store.
//!
//! ```sh
//! cd benches && cargo run --release --bin apply [-- --dir DIR] [--rounds N]
//! ```
//!
//! The server is one of its own, of /usr/lib/postgresql, with its settings as they come: every commit is durable. The
//! bare upsert is one prepared statement of arrays (`insert … select unnest … on conflict do update`), each row of as
//! many bytes as a row of a verdict, all of them other than before: what [`CASES`]' last changes, without
//! evidence, history or chain.

#![allow(dead_code)]

#[path = "../../../crates/postgres/tests/peer/server.rs"]
mod server;

use std::{sync::Arc, time::Instant};

use benches::{Series, machine, number, print_table, quantile, scratch};
use postgres::{Address, Engine, Options};
use scan::{
    judge::{Outcome, Summary, digest},
    ledger::{Finding, Ledger, LogSink, Scan},
    rule::{Severity, Variables},
};
use server::Server;
use store::Store;
use tokio_postgres::NoTls;
use world::{Clock, RealClock, RealDisk};

const RULES: usize = 1000;
/// Milliseconds that a thousand rules may take on PostgreSQL.
const GOAL: f64 = 60.0;
const CASES: [&str; 4] = ["first seen", "nothing changed", "one flip", "every rule flips"];

/// `turn` is in every evidence below `flipped`, and decides the verdict.
fn scan(host: &str, turn: usize, flipped: usize) -> Scan {
    let finding = |number: usize| {
        let turn = if number < flipped { turn } else { 0 };
        let rule = format!("rule-{number:04}");
        let evidence = format!(
            r#"{{"facts":[{{"fact":"os.id","value":"{host} {turn}"}}],"rule":"{rule}","schema":"holdfast.evidence/1"}}"#
        )
        .into_bytes();
        Finding {
            rule,
            severity: Severity::Medium,
            verdict: if turn.is_multiple_of(2) { Outcome::Pass } else { Outcome::Fail },
            reason: format!("os.id is {host} {turn}"),
            rule_digest: "0".repeat(64),
            rule_definition: "0".repeat(64),
            variables: Variables::new(),
            evidence_digest: digest(&evidence),
            evidence,
        }
    };
    let findings: Vec<Finding> = (0..RULES).map(finding).collect();
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

fn took(work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    begin.elapsed().as_secs_f64() * 1000.0
}

/// The four cases of one round, on hosts of the round's own.
fn cases(ledger: &Ledger, round: usize) -> [f64; 4] {
    let host = format!("host-{round}");
    let scans = [(0, 0), (0, 0), (1, 1), (1, RULES)];
    scans.map(|(turn, flipped)| {
        let scan = scan(&host, turn, flipped);
        took(|| drop(ledger.apply(&scan, &LogSink).expect("the scan is applied")))
    })
}

struct Bare {
    runtime: tokio::runtime::Runtime,
    client: tokio_postgres::Client,
    statement: tokio_postgres::Statement,
    keys: Vec<Vec<u8>>,
}

impl Bare {
    fn on(url: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (client, statement) = runtime.block_on(async {
            let (client, driver) = tokio_postgres::connect(url, NoTls).await.expect("it answers");
            tokio::spawn(driver);
            let make = "create table bare (k bytea primary key, v bytea not null)";
            client.batch_execute(make).await.expect("an empty database");
            let upsert = "insert into bare select * from unnest($1::bytea[], $2::bytea[])
                on conflict (k) do update set v = excluded.v";
            let statement = client.prepare(upsert).await.expect("it is one");
            (client, statement)
        });
        let keys = (0..RULES).map(|rule| format!("host-0001\0rule-{rule:04}").into_bytes()).collect();
        Self { runtime, client, statement, keys }
    }

    fn upsert(&self, round: usize) -> f64 {
        let values: Vec<Vec<u8>> = (0..RULES).map(|rule| format!("{round:08}{rule:08}").repeat(32).into_bytes()).collect();
        took(|| {
            let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&self.keys, &values];
            let rows = self.client.execute(&self.statement, &parameters);
            assert_eq!(self.runtime.block_on(rows).expect("it is done"), RULES as u64);
        })
    }
}

fn main() {
    let rounds = number("--rounds", 25);
    // After the settings that tests have: as a server comes.
    let server = Server::start_with("fsync = on\nshared_buffers = 128MB");
    let url = server.url(&server.database());
    let address = Address::parse(&url, None).expect("a URL");
    let engine = Arc::new(Engine::open(Options::new(address, scan::tables())).expect("the database opens"));
    let of_database = Ledger::new(Store::on(Arc::clone(&engine) as _)).expect("the tables are there");
    let dir = scratch();
    let journal = wal::Options::on_this_machine(dir.path().join("journal"));
    let (journal, _) = wal::Local::open(journal).expect("a new journal opens");
    let clock = Arc::new(RealClock::new());
    let options = store::Options::new(dir.path().join("tables"), Arc::new(RealDisk), clock, scan::tables());
    let (store, _) = Store::open(options, Arc::new(journal)).expect("a new store opens");
    let embedded = Ledger::new(store).expect("the tables are there");
    let bare = Bare::on(&server.url(&server.database()));
    println!("{}", machine());

    // Statements are prepared and files made before anything counts.
    bare.upsert(0);
    cases(&of_database, 0);
    cases(&embedded, 0);
    let mut series: Vec<Series> = Vec::new();
    let names = CASES.iter().map(|case| format!("PostgreSQL, {case}"));
    series.extend(names.map(Series::new));
    series.extend(CASES.iter().map(|case| Series::new(format!("embedded, {case}"))));
    series.push(Series::new("bare upsert of 1,000 rows"));
    let mut trips = Vec::new();
    for round in 1..=rounds {
        let before = engine.round_trips();
        let on_database = cases(&of_database, round);
        trips.push((engine.round_trips() - before) as f64 / CASES.len() as f64);
        let figures = on_database.into_iter().chain(cases(&embedded, round)).chain([bare.upsert(round)]);
        for (series, figure) in series.iter_mut().zip(figures) {
            series.figures.push(figure);
        }
    }
    for one in &mut series {
        // Tables have one decimal less than this is worth.
        one.figures.iter_mut().for_each(|figure| *figure *= 1000.0);
    }
    print_table(&format!("{RULES} rules applied, {rounds} rounds"), "us", &series);
    println!("\n| | p99 ms |\n|---|---:|");
    for one in &series {
        println!("| {} | {:.1} |", one.name, quantile(&one.figures, 0.99) / 1000.0);
    }
    println!("\nround trips of an apply, mean of the four: {:.1}", quantile(&trips, 0.5));
    for one in series.iter().take(CASES.len()) {
        let median = one.median() / 1000.0;
        let verdict = if median <= GOAL { "ok  " } else { "MISS" };
        println!("{verdict} {}: {median:.1} ms (bound {GOAL})", one.name);
    }
}
