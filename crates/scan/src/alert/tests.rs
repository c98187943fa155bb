//! Alerts against their clause, on a real store over a real journal.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use store::{Options, Store};
use uuid::Uuid;
use world::{Disk, Random, RealDisk, Timestamp, sim};

use super::*;
use crate::{
    audit::{Audit, Filter, Record},
    backend::{Backend, Embedded},
    failure::{Failure, Reason},
    inventory::{Host, Inventory, Reach},
    judge::{Outcome, Summary, digest},
    ledger::{Finding, Ledger, LogSink, Scan},
    policy::Policy,
    rule::{self, Variables},
    schedule::QueueKey,
    waiver::{Request, Target, Waivers},
};

mod crash;
mod hosts;
mod moves;
mod queue;
mod scans;

const START: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// A site with a clock that only the test moves.
struct Site {
    _dir: tempfile::TempDir,
    store: Store,
    clock: sim::Clock,
    receivers: Vec<Receiver>,
    random: Arc<dyn Random>,
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn open(
    dir: &Path,
    journal: &Path,
    disk: Arc<dyn Disk>,
    clock: &sim::Clock,
    opened: fn(Options, Arc<dyn wal::Journal>) -> Result<Store, store::Error>,
) -> Result<Store, String> {
    let mut journal = wal::Options::on_this_machine(journal.to_owned());
    journal.disk = disk;
    journal.segment_bytes = wal::SEGMENT_BYTES_MIN;
    // In the order of the calls, so that the same effect is the same one in each run.
    journal.upkeep = wal::Upkeep::Caller;
    let (journal, _) = wal::Local::open(journal).map_err(|error| error.to_string())?;
    let options = Options::new(
        dir.join("tables"),
        Arc::new(RealDisk),
        Arc::new(clock.clone()),
        crate::tables(),
    );
    opened(options, Arc::new(journal)).map_err(|error| error.to_string())
}

fn receiver(name: &str) -> Receiver {
    Receiver {
        name: name.to_owned(),
        minimum: Severity::Info,
        kinds: BTreeSet::new(),
        hosts: BTreeSet::new(),
        groups: BTreeSet::new(),
        resolved: true,
    }
}

/// The severity of a rule is told by its name: `critical-1`, `high-2`, anything else is medium.
fn finding(rule: &str, verdict: Outcome, definition: &str) -> Finding {
    let severity = match rule.split('-').next() {
        Some("critical") => rule::Severity::Critical,
        Some("high") => rule::Severity::High,
        _ => rule::Severity::Medium,
    };
    let evidence = format!(
        r#"{{"facts":[{{"fact":"os.id","value":"{verdict}"}}],"rule":"{rule}","schema":"holdfast.evidence/1"}}"#
    )
    .into_bytes();
    Finding {
        rule: rule.to_owned(),
        severity,
        verdict,
        reason: "as the test wants it".to_owned(),
        rule_digest: digest(definition.as_bytes()),
        rule_definition: digest(definition.as_bytes()),
        variables: Variables::default(),
        evidence_digest: digest(&evidence),
        evidence,
    }
}

fn scan_at(host: &str, at: Timestamp, verdicts: &[(&str, Outcome)], definition: &str) -> Scan {
    Scan {
        id: Uuid::new_v4(),
        host: host.to_owned(),
        started: at,
        finished: at,
        summary: Summary::of(verdicts.iter().map(|(_, verdict)| *verdict)),
        findings: verdicts
            .iter()
            .map(|(rule, verdict)| finding(rule, *verdict, definition))
            .collect(),
    }
}

impl Site {
    fn new() -> Self {
        let (dir, clock) = (scratch(), sim::Clock::new(START));
        let store = open(
            dir.path(),
            &dir.path().join("journal"),
            Arc::new(RealDisk),
            &clock,
            crate::test_store::open,
        )
        .unwrap();
        Self {
            _dir: dir,
            store,
            clock,
            receivers: vec![receiver("r")],
            random: Arc::new(sim::Random::new(7)),
        }
    }

    fn now(&self) -> Timestamp {
        use world::Clock as _;
        self.clock.now()
    }

    fn wait(&self, span: Duration) {
        use world::Clock as _;
        self.clock.sleep(span);
    }

    fn evaluator(&self) -> Evaluator {
        let random = Arc::clone(&self.random);
        Evaluator::new(&self.store, random, self.receivers.clone()).unwrap()
    }

    fn look(&self) -> Evaluated {
        self.evaluator().look(self.now(), &[]).unwrap()
    }

    fn alerts(&self) -> Alerts {
        Alerts::new(self.store.clone()).unwrap()
    }

    fn all(&self) -> Vec<Alert> {
        let mut all = self.alerts().list(&Wanted::default(), None).unwrap();
        all.reverse();
        all
    }

    /// Every alert as `kind subject state count`, oldest first.
    fn lines(&self) -> Vec<String> {
        let line = |alert: &Alert| {
            let subject = alert.key.subject.as_deref().unwrap_or("-");
            format!(
                "{} {subject} {} {}",
                alert.key.kind, alert.state, alert.count
            )
        };
        self.all().iter().map(line).collect()
    }

    fn outbox(&self) -> Outbox {
        Outbox::new(self.store.clone(), Arc::clone(&self.random)).unwrap()
    }

    /// Every notice that `receiver` was told, as `event kind subject, …`, taken from its queue.
    fn told(&self, receiver: &str) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(claimed) = self
            .outbox()
            .claim(receiver, "w", self.now(), MINUTE)
            .unwrap()
        {
            told.push(line_of(&claimed.delivery.notice));
            self.outbox()
                .finish(&claimed, &Tried::Taken, self.now())
                .unwrap();
        }
        told
    }

    fn scan(&self, host: &str, verdicts: &[(&str, Outcome)]) {
        self.scan_by(host, verdicts, "as written");
    }

    fn scan_by(&self, host: &str, verdicts: &[(&str, Outcome)], definition: &str) {
        self.wait(MINUTE);
        let scan = scan_at(host, self.now(), verdicts, definition);
        let ledger = Ledger::new(self.store.clone()).unwrap();
        ledger.apply(&scan, &LogSink).unwrap();
    }

    /// As [`Site::scan`], of `pass` and `fail` rules of medium severity.
    fn score(&self, host: &str, pass: usize, fail: usize) {
        let names: Vec<String> = (0..pass + fail)
            .map(|number| format!("rule-{number}"))
            .collect();
        let verdicts: Vec<(&str, Outcome)> = names
            .iter()
            .enumerate()
            .map(|(number, name)| {
                let verdict = if number < pass {
                    Outcome::Pass
                } else {
                    Outcome::Fail
                };
                (name.as_str(), verdict)
            })
            .collect();
        self.scan(host, &verdicts);
    }

    fn add_host(&self, name: &str, groups: &[&str]) {
        let reach = Reach::Ssh {
            address: "192.0.2.1".to_owned(),
            port: 22,
            user: None,
        };
        let mut host = Host::new(name, reach, self.now());
        host.groups = groups.iter().map(ToString::to_string).collect();
        let inventory = Inventory::new(self.store.clone()).unwrap();
        inventory.add(&host, "user test").unwrap();
    }

    fn backend(&self) -> Embedded {
        let random = Arc::clone(&self.random);
        Embedded::new(self.store.clone(), QueueKey::from_bytes([7; 32]), random).unwrap()
    }

    /// One attempt of the schedule, whenever it comes: a failure, or a scan.
    fn attempt(&self, host: &str, ends: Result<&[(&str, Outcome)], Reason>) {
        let (backend, policy) = (self.backend(), Policy::default());
        let next = backend.row(host).unwrap().unwrap();
        let due = next.next.max(
            next.backoff
                .values()
                .filter_map(|it| it.until)
                .max()
                .unwrap_or(0),
        );
        let ahead = due.saturating_sub(self.now().nanos());
        self.wait(Duration::from_nanos(ahead) + MINUTE);
        let now = self.now();
        assert_eq!(backend.dispatch(now, &policy).unwrap().jobs.len(), 1);
        let claimed = backend.claim("w", 1, now, &policy).unwrap().remove(0);
        match ends {
            Err(reason) => {
                let failure = Failure::new(reason, "as the test wants it");
                backend.fail(&claimed, &failure, now, &policy).unwrap();
            }
            Ok(verdicts) => {
                let mut scan = scan_at(host, now, verdicts, "as written");
                scan.id = claimed.scan;
                backend
                    .complete(&claimed, &scan, now, &policy, &LogSink)
                    .unwrap();
            }
        }
    }

    fn audited(&self) -> Vec<Record> {
        let audit = Audit::of(&self.store).unwrap();
        let filter = Filter {
            action: Some("alert".to_owned()),
            ..Filter::default()
        };
        let mut records = audit.list(&self.store, &filter, 10_000).unwrap();
        records.reverse();
        records
    }
}

fn line_of(notice: &Notice) -> String {
    if let Some(left_out) = &notice.left_out {
        return format!("{} left out", left_out.events);
    }
    let events: Vec<String> = notice
        .events
        .iter()
        .map(|event| {
            let subject = event.subject.as_deref().unwrap_or("-");
            format!("{} {} {subject}", event.event.name(), event.kind)
        })
        .collect();
    events.join(", ")
}
