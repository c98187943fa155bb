//! Rounds of `up` over a small fleet: it is killed amid what is due, and the next start must leave
//! each host scanned once, or failed once, and nothing in the queue.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    time::Duration,
};

use serde_json::Value;
use world::{Clock, Disk, RealDisk};

use super::{
    breach::{Breach, Fault},
    dice::Dice,
    process::{Ended, Product},
    scans::now,
    site,
    tally::{Phase, Tally},
};

/// This machine, and hosts whose scans fail: nobody listens there. A host that is offline is in the
/// inventory beside them, and never in the schedule.
const LOCAL: &str = "here";
const OTHERS: [&str; 2] = ["gone1", "gone2"];

/// Rounds in one directory. The first sees its making.
const ROUNDS_MAX: u64 = 8;

/// Kills before a start that may go on: less than the attempts after which a job is given up.
const KILLS_MAX: u64 = 2;

/// How long the last start may take until nothing is due any more. Arbitrary: a debug binary needs
/// some seconds on a machine that is busy with other things.
const SETTLE_WAIT_MAX: Duration = Duration::from_secs(90);

/// How often the schedule is asked for meanwhile.
const SETTLE_POLL: Duration = Duration::from_millis(200);

/// A data directory with a few hosts.
#[derive(Debug)]
pub(super) struct FleetSite {
    dir: PathBuf,
    rounds: u64,
    /// From the start of the last `up` that was left alone until nothing was due.
    took: Duration,
}

/// What the audit log says of one host.
#[derive(Debug, Default)]
struct Told {
    row: Value,
    scans: u64,
}

impl FleetSite {
    pub(super) fn new(product: &Product, number: u64) -> Self {
        Self {
            dir: product.sandbox.join(format!("fleet-{number}")),
            rounds: 0,
            took: Duration::from_secs(3),
        }
    }

    pub(super) fn is_worn(&self) -> bool {
        self.rounds >= ROUNDS_MAX
    }

    /// Makes every host due, kills `up` once or twice, and lets it go on from there.
    pub(super) fn round(
        &mut self,
        product: &Product,
        dice: &mut Dice,
        tally: &mut Tally,
    ) -> Result<(), Fault> {
        if self.rounds == 0 {
            self.make(product)?;
        }
        self.rounds += 1;
        let since = now(product);
        self.hasten(product)?;
        for _ in 0..=dice.below(KILLS_MAX) {
            self.disturb(product, dice, tally)?;
        }
        self.settle(product, &since)?;
        self.check(product, tally)
    }

    fn make(&self, product: &Product) -> Result<(), Fault> {
        // A port that was free this moment: a connection to it is refused.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = free.local_addr()?.port();
        drop(free);
        let csv = format!(
            "name,via,address,port\ngone1,ssh,127.0.0.1,{port}\ngone2,ssh,127.0.0.1,{port}\n"
        );
        let (hosts, secret) = ("fleet.csv", "fleet.password");
        RealDisk.replace(&product.sandbox.join(hosts), csv.as_bytes())?;
        RealDisk.replace(&product.sandbox.join(secret), b"unused\n")?;
        let credential = ["credential", "add", "default", "--user", "nobody"];
        let credential = [&credential[..], &["--password-file", secret]].concat();
        for words in [
            &["host", "add", LOCAL, "--local"][..],
            &["host", "add", "paper", "--offline"],
            &["host", "import", hosts],
            &credential,
        ] {
            succeeds(product.run(&self.dir, words)?)?;
        }
        Ok(())
    }

    fn hasten(&self, product: &Product) -> Result<(), Fault> {
        let mut words = vec!["schedule", "--now", LOCAL];
        words.extend(OTHERS);
        succeeds(product.run(&self.dir, &words)?).map(drop)
    }

    /// Every third time it is asked to stop, and has to.
    fn disturb(&self, product: &Product, dice: &mut Dice, tally: &mut Tally) -> Result<(), Fault> {
        let up = product.start(&self.dir, &["up", "--no-walk"])?;
        let moment = dice.between(Duration::ZERO, self.took * 11 / 10);
        if dice.one_in(3) {
            up.stop_after(moment)?.has_stopped()?;
            tally.stops += 1;
            return Ok(());
        }
        let ended = up.kill_after(moment)?;
        if !ended.was_killed() {
            return Err(ended.breach("watches until it is stopped").into());
        }
        tally.kill(Phase::Up);
        Ok(())
    }

    /// A start that is left alone does what is left to do.
    fn settle(&mut self, product: &Product, since: &str) -> Result<(), Fault> {
        let begun = product.clock.monotonic();
        let up = product.start(&self.dir, &["up", "--no-walk"])?;
        let waiting = loop {
            let waiting = self.waiting(product, since)?;
            let passed = product.clock.monotonic().saturating_sub(begun);
            if waiting.is_empty() {
                self.took = passed;
                break waiting;
            }
            if passed > SETTLE_WAIT_MAX {
                break waiting;
            }
            product.clock.sleep(SETTLE_POLL);
        };
        let ended = up.stop_after(Duration::ZERO)?;
        ended.has_stopped()?;
        if waiting.is_empty() {
            return Ok(());
        }
        Err(Breach::new(
            "after a kill, the next start scans every host that is due, or says why not",
            format!("due since {since}"),
            format!("waiting: {waiting:?}; it said: {}", ended.stderr.trim()),
        )
        .into())
    }

    /// Hosts that were neither scanned nor failed since then, or have a job.
    fn waiting(&self, product: &Product, since: &str) -> Result<Vec<String>, Fault> {
        let is_since = |time: &Value| {
            time.as_str()
                .is_some_and(|time| moment(time) >= moment(since))
        };
        let rows = self.rows(product)?;
        let waits = rows.iter().filter(|row| {
            let backoff = row["backoff"].as_array();
            let failed = backoff.is_some_and(|of| of.iter().any(|it| is_since(&it["last_failed"])));
            !row["job"].is_null() || !(failed || is_since(&row["last_finished"]))
        });
        Ok(waits.map(|row| row.to_string()).collect())
    }

    fn rows(&self, product: &Product) -> Result<Vec<Value>, Fault> {
        let ended = self.asked(product, &["schedule"])?;
        let rows = ended.1["hosts"].as_array().cloned();
        rows.filter(|rows| rows.len() == OTHERS.len() + 1)
            .ok_or_else(|| ended.0.breach("lists every host").into())
    }

    fn asked(&self, product: &Product, words: &[&str]) -> Result<(Ended, Value), Fault> {
        let ended = product.run(&self.dir, &[words, &["--output", "json"]].concat())?;
        match serde_json::from_slice(&ended.stdout) {
            Ok(document) => Ok((ended, document)),
            Err(_) => Err(ended.breach("answers").into()),
        }
    }

    /// Nothing is queued; rows are what the audit log says, step by step; each host was scanned or
    /// failed once a round, under an id of its own, and each rule counted as often.
    fn check(&self, product: &Product, tally: &mut Tally) -> Result<(), Fault> {
        let (ended, jobs) = self.asked(product, &["schedule", "--jobs"])?;
        if jobs["jobs"] != Value::Array(Vec::new()) {
            return Err(ended
                .breach("has nothing queued when nothing is due")
                .into());
        }
        let told = self.told(product)?;
        for row in self.rows(product)? {
            let host = row["host"].as_str().unwrap_or_default();
            let found = told.get(host).map_or(&Value::Null, |told| &told.row);
            let differs = |field: &&str| row[*field] != found[*field];
            let fields = ["last_scan", "state", "job", "score"];
            if let Some(field) = fields.into_iter().find(differs) {
                let promise = format!("the last audit record of `{host}` gives its row ({field})");
                return Err(Breach::new(promise, found.to_string(), row.to_string()).into());
            }
            let failures = &row["backoff"][0]["failures"];
            if host != LOCAL && *failures != 1 {
                let promise = format!("`{host}` failed once since it was made due");
                return Err(Breach::new(promise, "1", failures.to_string()).into());
            }
        }
        let scans = told.get(LOCAL).map_or(0, |told| told.scans);
        if scans != self.rounds {
            let promise = "a host that was due is scanned once, whatever was killed";
            return Err(Breach::new(promise, self.rounds.to_string(), scans.to_string()).into());
        }
        let (ended, status) = self.asked(product, &["status", "--host", LOCAL])?;
        let last = &told[LOCAL].row["last_scan"];
        let rule = status["verdicts"][0]["rule"].as_str();
        let Some(rule) = rule.filter(|_| status["scan_id"] == *last) else {
            return Err(ended
                .breach("shows the scan that the schedule names")
                .into());
        };
        let (_, shown) = self.asked(product, &["status", "--host", LOCAL, "--rule", rule])?;
        if shown["checks"] != scans {
            let promise = format!("`{rule}` was checked once for each recorded scan");
            return Err(
                Breach::new(promise, scans.to_string(), shown["checks"].to_string()).into(),
            );
        }
        tally.past_checked += 1;
        Ok(())
    }

    fn told(&self, product: &Product) -> Result<BTreeMap<String, Told>, Fault> {
        let words = ["audit", "--action", "schedule", "--lines", "100000"];
        let (ended, log) = self.asked(product, &words)?;
        let mut hosts: BTreeMap<String, Told> = BTreeMap::new();
        let mut ids = BTreeSet::new();
        let records = log["records"].as_array().cloned().unwrap_or_default();
        // Whichever way they are listed, time orders them; those of one moment keep their order.
        for record in &records {
            let host = record["object"].as_str().unwrap_or_default();
            let (before, after) = (&record["detail"]["before"], &record["detail"]["after"]);
            let told = hosts.entry(host.to_owned()).or_default();
            if told.row != *before {
                let promise = format!("each audit record of `{host}` follows the one before");
                return Err(Breach::new(promise, told.row.to_string(), record.to_string()).into());
            }
            if after["last_scan"] != before["last_scan"] {
                told.scans += 1;
                if !ids.insert(after["last_scan"].to_string()) {
                    return Err(ended.breach("names no scan twice").into());
                }
            }
            told.row = after.clone();
        }
        Ok(hosts)
    }

    /// Removes the directory.
    pub(super) fn close(self, tally: &mut Tally) -> Result<(), Fault> {
        site::give_up(&self.dir, tally)
    }
}

fn moment(text: &str) -> jiff::Timestamp {
    text.parse().unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

fn succeeds(ended: Ended) -> Result<Ended, Fault> {
    if ended.code() == Some(0) {
        return Ok(ended);
    }
    Err(ended.breach("succeeds").into())
}
