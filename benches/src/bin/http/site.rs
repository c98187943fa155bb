//! A data directory with a thousand hosts, and `holdfast up` on it.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
};

use scan::{
    inventory::{Host, Inventory, Reach},
    judge::{Outcome, Summary, digest},
    ledger::{Finding, Ledger, LogSink, Scan},
    rule::{Pack, Rule, Variables},
};
use store::Store;
use world::{Clock, RealClock, RealDisk};

pub const HOSTS: usize = 1000;
pub const RULES: usize = 250;
/// Scans of each host: rows of a ledger that has been written to before.
const ROUNDS: usize = 3;

/// Hosts that nothing connects to, so that `up` leaves them alone, with verdicts by rules of the pack.
pub fn fill(dir: &Path) {
    let journal = wal::Options::on_this_machine(dir.join("journal"));
    let (journal, _) = wal::Local::open(journal).expect("a new journal opens");
    let clock = Arc::new(RealClock::new());
    let options = store::Options::new(dir.join("tables"), Arc::new(RealDisk), clock, scan::tables());
    let (store, _) = Store::open(options, Arc::new(journal)).expect("a new store opens");
    let inventory = Inventory::new(store.clone()).expect("the tables are there");
    let ledger = Ledger::new(store.clone()).expect("the tables are there");
    let pack = Pack::embedded().pack;
    let rules = &pack.rules[..RULES];
    for host in 0..HOSTS {
        let mut row = Host::new(name(host), Reach::Offline, RealClock::new().now());
        row.groups = [format!("group-{}", host % 9)].into();
        inventory.add(&row, "bench").expect("the host is added");
    }
    for round in 0..ROUNDS {
        for host in 0..HOSTS {
            let scan = made_up(rules, host, round);
            ledger.apply(&scan, &LogSink).expect("the scan is applied");
        }
    }
    store.close().expect("the store closes");
}

fn name(host: usize) -> String {
    format!("host-{host:04}")
}

fn made_up(rules: &[Rule], host: usize, round: usize) -> Scan {
    let findings: Vec<Finding> = (0..rules.len()).map(|rule| finding(&rules[rule], rule, host, round)).collect();
    let now = RealClock::new().now();
    Scan {
        id: uuid::Uuid::new_v4(),
        host: name(host),
        started: now,
        finished: now,
        summary: Summary::of(findings.iter().map(|finding| finding.verdict)),
        findings,
    }
}

/// One in six fails, one in twenty cannot be assessed, a few are other in each round.
fn finding(rule: &Rule, number: usize, host: usize, round: usize) -> Finding {
    let turned = usize::from((number + host) % 97 == round);
    let verdict = match ((number + host) % 20, (number * 7 + host / 10 + turned) % 6) {
        (19, _) => Outcome::NotAssessed,
        (_, 0) => Outcome::Fail,
        _ => Outcome::Pass,
    };
    let evidence = format!(
        r#"{{"facts":[{{"fact":"os.id","value":"{host} {turned}"}}],"rule":"{}","schema":"holdfast.evidence/1"}}"#,
        rule.id
    )
    .into_bytes();
    Finding {
        rule: rule.id.clone(),
        severity: rule.severity,
        verdict,
        reason: format!("net.ipv4.conf.all.accept_redirects is {turned}, wanted {host}"),
        rule_digest: "0".repeat(64),
        rule_definition: "0".repeat(64),
        variables: Variables::new(),
        evidence_digest: digest(&evidence),
        evidence,
    }
}

/// A running `holdfast up`, ended with this.
pub struct Up {
    child: Child,
    pub address: SocketAddr,
    pub token: String,
}

impl Up {
    pub fn start(binary: &str, dir: &Path) -> Self {
        let mut child = Command::new(binary)
            .args(["up", "--no-walk"])
            .env_clear()
            .env("HOLDFAST_DATA_DIR", dir)
            .env("HOLDFAST_SERVER_LISTEN", "127.0.0.1:0")
            .env("HOME", dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("start {binary}: {error}"));
        let out = child.stdout.take().expect("it is piped");
        thread::spawn(move || BufReader::new(out).lines().map_while(Result::ok).for_each(drop));
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped"));
        let (mut line, mut told) = (String::new(), String::new());
        let address = loop {
            line.clear();
            assert!(lines.read_line(&mut line).expect("text") > 0, "it ended: {told}");
            told.push_str(&line);
            if let Some((_, rest)) = line.split_once("console at http://127.0.0.1:") {
                let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
                break SocketAddr::from(([127, 0, 0, 1], port.parse().expect("a port")));
            }
        };
        thread::spawn(move || lines.lines().map_while(Result::ok).for_each(drop));
        let token = fs::read_to_string(dir.join("keys/admin.token")).expect("the first token");
        Self { child, address, token: token.trim().to_owned() }
    }

    /// The cookie of a session of the console.
    pub fn sign_in(&self) -> String {
        let body = format!("token={}", self.token);
        let request = format!(
            "POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let (head, _) = super::ask(self.address, request.as_bytes());
        let headers: BTreeMap<_, _> = head.lines().filter_map(|line| line.split_once(": ")).collect();
        let cookie = headers.get("set-cookie").unwrap_or_else(|| panic!("not signed in: {head}"));
        cookie.split(';').next().expect("a cookie has a value").to_owned()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Changes a host, so that the store is at another position.
    pub fn commit(&self, number: usize) {
        let body = format!("{{\"via\":\"offline\",\"site\":\"site-{number}\"}}");
        let request = format!(
            "PUT /api/v1/hosts/host-0007 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
             Authorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        let (head, _) = super::ask(self.address, request.as_bytes());
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    }

    fn status(&self, field: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("Linux has it");
        let kib: f64 = line.split_whitespace().next().expect("a number").parse().expect("a number");
        kib * 1024.0 / 1e6
    }

    pub fn resident_mb(&self) -> f64 {
        self.status("VmRSS:")
    }

    pub fn peak_mb(&self) -> f64 {
        self.status("VmHWM:")
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
