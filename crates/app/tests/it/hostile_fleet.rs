//! A record with every verdict in it, of hosts and rules whose names and words are made to break
//! whatever writes them down. Made with the library, because no facts lead to some of them.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use scan::{
    inventory::{Host, Inventory, Reach},
    judge::{Outcome, Summary, digest},
    ledger::{Finding, Ledger, LogSink, Scan},
    rule::{Severity, Variables},
    waiver::{Request, Target, Waivers},
};
use store::{Options, Store};
use uuid::Uuid;
use world::{Clock, RealClock, RealDisk, Timestamp, sim};

/// Words that are a formula, a tag, an entity, an end of a CDATA section, a string of JSON, a turn of
/// direction, a colour of a terminal, and characters that XML cannot hold.
pub(crate) const WORDS: &str = "=cmd|' /C calc'!A0 <script>alert(1)</script> &amp; &xxe; ]]> \"}],{\" \u{202e}gnp \u{1b}[31m \u{0}\u{b}\u{ffff} -- --> \r\n,;x";

/// A rule of the pack that is waived on the first host.
pub(crate) const WAIVED: &str = "sysctl-kptr-restrict";

pub(crate) const PLAIN: &str = "press-3";
pub(crate) const NEVER_SCANNED: &str = "never-scanned";

/// As [`WORDS`] without what names or XML cannot have, and as long as a name may be.
pub(crate) fn hostile_name() -> String {
    let mut name: String = WORDS
        .chars()
        .filter(|&c| !c.is_control() && c != '\u{ffff}')
        .collect();
    while name.len() < 255 {
        name.push('x');
    }
    name
}

pub(crate) struct Moments {
    /// After the first scans and before the second.
    pub(crate) between: Timestamp,
}

/// Two scans of two hosts, a host that was never scanned, a waiver.
pub(crate) fn make(dir: &Path) -> Moments {
    let (store, clock) = open(dir, 11);
    let ledger = Ledger::new(store.clone()).unwrap();
    let now = RealClock::new().now().nanos();
    let ago = |days: u64| Timestamp::from_nanos(now - days * 86_400_000_000_000);
    let hostile = hostile_name();
    for (days, flipped) in [(10, false), (5, true)] {
        for host in [PLAIN, &hostile] {
            // The commit is dated by the scan, unless the clock is behind it.
            clock.set_now(ago(days));
            ledger
                .apply(&scan(host, ago(days), flipped), &LogSink)
                .unwrap();
        }
    }
    clock.set_now(ago(0));
    let inventory = Inventory::new(store.clone()).unwrap();
    for (name, group) in [(PLAIN, "web"), (NEVER_SCANNED, "new")] {
        let mut host = Host::new(name, Reach::Offline, ago(0));
        host.site = "north".to_owned();
        host.groups = BTreeSet::from([group.to_owned()]);
        inventory.add(&host, "a test").unwrap();
    }
    let waivers = Waivers::new(store.clone()).unwrap();
    let request = Request {
        rule: WAIVED.to_owned(),
        target: Target::Host(PLAIN.to_owned()),
        owner: "anna".to_owned(),
        reason: "replaced in <March> & later".to_owned(),
        expires: ago(0).plus(Duration::from_secs(30 * 86_400)),
    };
    let asked = waivers.request(&request, ago(0), "user anna").unwrap();
    waivers.approve(asked.id, ago(0), "bert").unwrap();
    store.close().unwrap();
    Moments { between: ago(7) }
}

/// An open record without a host.
pub(crate) fn make_empty(dir: &Path) {
    open(dir, 0).0.close().unwrap();
}

/// With a clock that stands so many days ago: a commit is never dated before the one before it.
fn open(dir: &Path, days_ago: u64) -> (Store, sim::Clock) {
    let now = RealClock::new().now().nanos();
    let clock = sim::Clock::new(Timestamp::from_nanos(now - days_ago * 86_400_000_000_000));
    std::fs::create_dir_all(dir).unwrap();
    let options = wal::Options::on_this_machine(dir.join("journal"));
    let (journal, _) = wal::Local::open(options).unwrap();
    let options = Options::new(
        dir.join("tables"),
        Arc::new(RealDisk),
        Arc::new(clock.clone()),
        scan::tables(),
    );
    let (store, _) = Store::open(options, Arc::new(journal)).unwrap();
    (store, clock)
}

/// Every verdict with every severity that it can have; `flipped` mends one and breaks another.
fn scan(host: &str, finished: Timestamp, flipped: bool) -> Scan {
    let (one, other) = match flipped {
        false => (Outcome::Fail, Outcome::Pass),
        true => (Outcome::Pass, Outcome::Fail),
    };
    let verdicts = [
        (WAIVED, Outcome::Fail, Severity::Critical),
        ("ssh-root-login-off", one, Severity::High),
        ("root-only-uid-zero", other, Severity::Medium),
        (
            "password-history-length",
            Outcome::NotAssessed,
            Severity::Low,
        ),
        (
            "account-files-well-formed",
            Outcome::NotApplicable,
            Severity::Low,
        ),
        ("adduser-home-mode", Outcome::Error, Severity::High),
        (
            "our own rule <b>&amp;\"'=1+1",
            Outcome::NotAssessed,
            Severity::Medium,
        ),
        ("pass_of=no.pack", Outcome::Pass, Severity::Low),
    ];
    let findings: Vec<Finding> = verdicts
        .iter()
        .map(|&(rule, verdict, severity)| finding(rule, verdict, severity))
        .collect();
    Scan {
        id: Uuid::new_v4(),
        host: host.to_owned(),
        started: Timestamp::from_nanos(finished.nanos() - 1_000_000_000),
        finished,
        summary: Summary::of(findings.iter().map(|finding| finding.verdict)),
        findings,
    }
}

fn finding(rule: &str, verdict: Outcome, severity: Severity) -> Finding {
    let document = serde_json::json!({
        "facts": [{"fact": "os.id", "value": WORDS}],
        "rule": rule,
        "schema": "holdfast.evidence/1",
    });
    let evidence = document.to_string().into_bytes();
    Finding {
        rule: rule.to_owned(),
        severity,
        verdict,
        reason: format!("{} {WORDS}", verdict.name()),
        rule_digest: "0".repeat(64),
        rule_definition: "0".repeat(64),
        variables: Variables::new(),
        evidence_digest: digest(&evidence),
        evidence,
    }
}
