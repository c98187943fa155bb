//! Three machines on one PostgreSQL watch a hundred hosts, and each is killed while it scans.
//!
//! All hosts are one sshd, and its logins a machine in which there is next to nothing: a scan of it finds
//! little and costs little. Their shells wait for as long as a file is there, so that whatever is ended is
//! ended amid scans, however fast this machine is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use libtest_mimic::Trial;
use postgres::{Engine, Options};
use rustix::process::Signal;
use scan::{
    audit::Record,
    backend::{Backend, Embedded, JobView},
    ledger::{Host, ScanRow},
    policy::INTERVAL_MIN,
};
use serde_json::Value;
use store::{Keys, Store};
use tempfile::TempDir;
use world::RealRandom;

use super::server::{SERVER, Server};
use crate::{
    Peer, cluster,
    machine::{Machine, Up},
    shared::Cluster,
};

const HOSTS: usize = 100;
/// Hosts that are asked to be scanned once more.
const AGAIN: usize = 30;
const MACHINES: usize = 3;
/// All of it takes about a minute; half of that is the end of leases.
const LIMIT: Duration = Duration::from_secs(240);
/// How long to wait for a word of an `up` before the database is looked at again.
const LOOK: Duration = Duration::from_millis(300);

pub(super) fn tests() -> Vec<Trial> {
    if cluster::programs().is_none() {
        return vec![Cluster.test(NAME, || ())];
    }
    vec![SERVER.test(NAME, watched)]
}

const NAME: &str = "three_up_on_one_postgresql_scan_100_hosts_once_each_while_each_is_killed";

/// The hosts, and a gate that all of their shells stand before.
struct Hosts {
    sshd: Server,
    gate: TempDir,
}

impl Hosts {
    fn start() -> Self {
        let gate = tempfile::tempdir().unwrap();
        furnish(&gate.path().join("machine"));
        let shell = gate.path().join("shell");
        let text = format!(
            "#!/bin/sh\nwhile [ -e {0}/closed ]; do sleep 0.1; done\n\
             exec /usr/sbin/chroot {0}/machine /bin/sh -c \"$SSH_ORIGINAL_COMMAND\"\n",
            gate.path().display()
        );
        fs::write(&shell, text).unwrap();
        fs::set_permissions(&shell, fs::Permissions::from_mode(0o755)).unwrap();
        let sshd = Server::start_with(&format!("ForceCommand {}", shell.display()));
        Self { sshd, gate }
    }

    fn closed(&self) -> PathBuf {
        self.gate.path().join("closed")
    }

    fn close(&self) {
        fs::write(self.closed(), "").unwrap();
    }

    fn open(&self) {
        fs::remove_file(self.closed()).unwrap();
    }

    fn names(&self) -> impl Iterator<Item = String> {
        (0..HOSTS).map(|number| format!("h-{number:03}"))
    }

    /// Makes them known to the site that `machine` is one of, with what logs in to them.
    fn introduce(&self, machine: &Machine) {
        let key = machine.sandbox.file(
            "id",
            self.sshd
                .key_of("root", "fleet", &["-t", "ed25519"])
                .as_bytes(),
        );
        let key = key.to_str().unwrap();
        machine.done(&[
            "credential",
            "add",
            "default",
            "--user",
            "root",
            "--key",
            key,
            "--sudo",
            "never",
        ]);
        let line = self.sshd.host_key("ed25519").to_openssh().unwrap();
        let known = format!("[127.0.0.1]:{} {line}\n", self.sshd.port);
        let file = machine.sandbox.file("known", known);
        machine.done(&["host", "trust", "--known-hosts", file.to_str().unwrap()]);
        // Last: from then on they are scanned.
        let mut rows = "name,via,address,port\n".to_owned();
        for name in self.names() {
            writeln!(rows, "{name},ssh,127.0.0.1,{}", self.sshd.port).unwrap();
        }
        let file = machine.sandbox.file("hosts.csv", rows);
        machine.done(&["host", "import", file.to_str().unwrap()]);
    }
}

/// What a login needs to answer, and the libraries of that.
fn furnish(root: &Path) {
    let mut files = BTreeSet::new();
    for program in ["sh", "env", "id", "head", "cat", "setsid"] {
        let path = format!("/usr/bin/{program}");
        let needs = Command::new("ldd").arg(&path).output().unwrap();
        let needs = String::from_utf8(needs.stdout).unwrap();
        let libraries = needs
            .split_whitespace()
            .filter(|word| word.starts_with('/'));
        files.extend(libraries.map(str::to_owned));
        files.extend([path, format!("/bin/{program}")]);
    }
    files.insert("/etc/os-release".to_owned());
    for file in files {
        let to = root.join(&file[1..]);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&file, to).unwrap();
    }
    fs::create_dir(root.join("dev")).unwrap();
    fs::write(root.join("dev/null"), "").unwrap();
}

/// The shortest lease that a policy can have, and few scans at once: work for a minute.
fn set_policy(machine: &Machine) {
    machine.done(&["policy", "keygen", "--trust"]);
    let shown = machine.done(&["policy", "show"]);
    let set = [
        ("tick", "1s"),
        ("lease", "30s"),
        ("scan_deadline", "28s"),
        ("collector_deadline", "28s"),
        ("concurrency", "5"),
    ];
    let lines = shown.lines().map(|line| {
        let name = line.trim_start().split(':').next().unwrap_or_default();
        match set.iter().find(|(key, _)| *key == name) {
            Some((key, value)) => {
                let indent = &line[..line.len() - line.trim_start().len()];
                format!("{indent}{key}: {value}\n")
            }
            None => format!("{line}\n"),
        }
    });
    let file = machine
        .sandbox
        .file("policy.yaml", lines.collect::<String>());
    machine.done(&["policy", "sign", file.to_str().unwrap()]);
    machine.done(&["policy", "reload", file.to_str().unwrap()]);
}

/// What the database says, past all of the machines.
struct Seen {
    store: Store,
    backend: Embedded,
    end: Instant,
}

impl Seen {
    fn jobs(&self) -> Vec<JobView> {
        self.backend.jobs(2 * HOSTS).unwrap()
    }

    /// Hosts that the worker behind `up` is scanning.
    fn scanning(&self, up: &Up) -> BTreeSet<String> {
        let own = format!("/{}", up.id());
        let is_own = |job: &JobView| {
            job.worker
                .as_ref()
                .is_some_and(|(name, _)| name.ends_with(&own))
        };
        let jobs = self.jobs();
        jobs.iter()
            .filter(|job| is_own(job))
            .map(|job| job.host.clone())
            .collect()
    }

    fn rows<T: serde::de::DeserializeOwned>(&self, table: &str) -> Vec<T> {
        let table = self.store.table(table).unwrap();
        let snapshot = self.store.snapshot().unwrap();
        let rows = snapshot.range(table, &Keys::all()).unwrap();
        rows.map(|row| serde_json::from_slice(&row.unwrap().1).unwrap())
            .collect()
    }

    fn scans(&self) -> usize {
        self.rows::<ScanRow>("ledger.scan").len()
    }

    fn until(&self, what: &str, ups: &[&Up], holds: impl Fn() -> bool) {
        while !holds() {
            let told: Vec<String> = ups.iter().map(|up| up.told()).collect();
            let jobs = self.rows::<Value>("queue.job");
            let is_failed = |job: &Value| !job["status"]["failed"].is_null();
            assert!(
                Instant::now() < self.end && !jobs.iter().any(is_failed),
                "{what}: {} scans, {:#?}\n{}",
                self.scans(),
                self.jobs(),
                told.join("\n---\n")
            );
            ups[0].listen(LOOK);
        }
    }

    fn until_each_scans(&self, ups: &[&Up]) {
        self.until("each scans", ups, || {
            ups.iter().all(|up| !self.scanning(up).is_empty())
        });
    }
}

/// Proves: SCH-2, SCH-4, LED-9
#[allow(clippy::too_many_lines, reason = "one story, in its order")]
fn watched(_: &Peer) {
    let server = cluster::Server::start();
    let database = server.database();
    let url = server.url(&database);
    let hosts = Hosts::start();
    hosts.close();
    let machines = [(); MACHINES].map(|()| Machine::on(&url));
    let [one, two, three] = &machines;
    set_policy(one);
    let mut a = one.up();
    a.serves();
    two.take_keys_of(one);
    three.take_keys_of(one);
    let (mut b, mut c) = (two.up(), three.up());
    b.serves();
    c.serves();
    hosts.introduce(one);
    let options = Options::new(server.address(&database), scan::tables());
    let store = Store::on(Arc::new(Engine::open(options).unwrap()));
    let seen = Seen {
        backend: Embedded::without_key(store.clone(), Arc::new(RealRandom)).unwrap(),
        store,
        end: Instant::now() + LIMIT,
    };
    let mut workers = vec![a.id(), b.id(), c.id()];

    // The first is killed, and is back at once: it takes back what it had.
    seen.until_each_scans(&[&a, &b, &c]);
    a.kill();
    let mut a = one.up();
    a.serves();
    workers.push(a.id());
    hosts.open();
    seen.until("a quarter", &[&a, &b, &c], || seen.scans() >= HOSTS / 4);

    // The second is killed and stays away, the third is held in mid-air: others take over what they had
    // when their leases end, and what the third hands over after that comes too late.
    hosts.close();
    seen.until_each_scans(&[&a, &b, &c]);
    let (left, held) = (seen.scanning(&b), seen.scanning(&c));
    let (left_by, held_by) = (b.id(), c.id());
    b.kill();
    c.signal(Signal::STOP);
    hosts.open();
    seen.until("every host", &[&a], || seen.scans() >= HOSTS);
    c.signal(Signal::CONT);
    let mut b = two.up();
    b.serves();
    workers.push(b.id());

    // The third is killed amid a second round of some.
    hosts.close();
    let again: Vec<String> = hosts.names().take(AGAIN).collect();
    let mut words = vec!["schedule", "--now"];
    words.extend(again.iter().map(String::as_str));
    one.done(&words);
    seen.until_each_scans(&[&a, &b, &c]);
    c.kill();
    let mut c = three.up();
    c.serves();
    workers.push(c.id());
    hosts.open();
    let ups = [&a, &b, &c];
    seen.until("the second round", &ups, || {
        seen.scans() >= HOSTS + AGAIN && seen.jobs().is_empty()
    });
    for up in [&mut a, &mut b, &mut c] {
        up.signal(Signal::TERM);
    }
    for up in [&mut a, &mut b, &mut c] {
        assert_eq!(up.ends(), 0, "{}", up.told());
    }

    let finished = finished(&seen, &again);
    // Whoever was stopped may have put a scan on record just before; nobody else's is lost by it.
    for (hosts, worker) in [(&left, left_by), (&held, held_by)] {
        for host in hosts {
            let has_ended = finished.by_host.contains(&(host.clone(), worker));
            assert!(
                has_ended || finished.reaped.contains(host),
                "{host} was not given to another"
            );
        }
    }
    assert!(!finished.reaped.is_empty(), "no lease ended");
    let shares = finished.by_worker;
    let late = shares.keys().filter(|worker| !workers.contains(worker));
    assert_eq!(late.count(), 0, "{shares:?}");
    let last: Vec<u32> = [&a, &b, &c].iter().map(|up| up.id()).collect();
    for worker in last {
        assert!(
            shares.contains_key(&worker),
            "{worker} did nothing: {shares:?}"
        );
    }
    for what in ["ledger", "audit"] {
        let said = two.done(&[what, "verify"]);
        assert!(said.starts_with("sound: "), "{said}");
    }
}

struct Finished {
    /// Scans that each process put on record.
    by_worker: BTreeMap<u32, usize>,
    /// Each host with the processes that put scans of it on record.
    by_host: BTreeSet<(String, u32)>,
    /// Hosts whose job was given to another because its lease had ended.
    reaped: BTreeSet<String>,
}

/// Every job was finished by one scan, every scan is of one job, and each host's are one chain.
fn finished(seen: &Seen, again: &[String]) -> Finished {
    let mut of_jobs = BTreeMap::<String, BTreeSet<String>>::new();
    for job in seen.rows::<Value>("queue.job") {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let scan = text(&job["status"]["done"]["scan"]);
        assert!(!scan.is_empty(), "not done: {job}");
        let of_host = of_jobs.entry(text(&job["payload"]["host"])).or_default();
        assert!(of_host.insert(scan), "two jobs, one scan: {job}");
    }
    let mut of_ledger = BTreeMap::<String, BTreeMap<u64, String>>::new();
    for row in seen.rows::<ScanRow>("ledger.scan") {
        let of_host = of_ledger.entry(row.host.clone()).or_default();
        let before = of_host.insert(row.number, row.scan_id);
        assert_eq!(
            before, None,
            "two scans of number {} of {}",
            row.number, row.host
        );
    }
    assert_eq!(of_jobs.len(), HOSTS);
    for (host, scans) in &of_ledger {
        let rounds = if again.contains(host) { 2 } else { 1 };
        assert!(scans.keys().copied().eq(1..=rounds), "{host}: {scans:?}");
        let ids: BTreeSet<String> = scans.values().cloned().collect();
        assert_eq!(Some(&ids), of_jobs.get(host), "{host}");
    }
    for host in seen.rows::<Host>("ledger.host") {
        let scans = of_ledger.get(&host.name).map(|scans| scans.len() as u64);
        assert_eq!(Some(host.scans), scans, "{}", host.name);
        assert_eq!(host.chain.map(|chain| chain.scans), scans, "{}", host.name);
    }
    for row in seen.backend.schedule().unwrap() {
        let (next, last) = (row.next, row.last_finished.unwrap());
        assert_eq!(row.job, None, "{}", row.host);
        let least = u64::try_from(INTERVAL_MIN.as_nanos()).unwrap() / 2;
        assert!(next >= last + least, "{} is due too early", row.host);
    }
    let mut finished = Finished {
        by_worker: BTreeMap::new(),
        by_host: BTreeSet::new(),
        reaped: BTreeSet::new(),
    };
    let mut recorded = BTreeSet::new();
    for record in seen.rows::<Record>("audit.record") {
        match record.action.as_str() {
            "job.lease_ended" => {
                finished.reaped.insert(record.object);
            }
            "schedule.updated" if record.detail["kind"] == "post_scan_update" => {
                let scan = record.detail["after"]["last_scan"].to_string();
                assert!(recorded.insert(scan), "recorded twice: {record:?}");
                let process = record.actor.rsplit('/').next().unwrap();
                let process = process.parse().unwrap();
                *finished.by_worker.entry(process).or_default() += 1;
                finished.by_host.insert((record.object, process));
            }
            _ => {}
        }
    }
    assert_eq!(recorded.len(), HOSTS + AGAIN);
    finished
}
