//! `holdfast up` over several hosts: what it does when it is stopped, killed, or beside commands.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStderr, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{
    holdfast::{Run, Sandbox},
    schema,
};

/// Longer than anything here takes on a loaded machine: a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running `up`, ended with the test.
pub(crate) struct Up {
    child: Child,
    told: mpsc::Receiver<String>,
}

impl Up {
    pub(crate) fn start(sandbox: &Sandbox) -> Self {
        Self::start_with(sandbox, &[])
    }

    pub(crate) fn start_with(sandbox: &Sandbox, more: &[&str]) -> Self {
        Self::start_in(sandbox, more, &[])
    }

    pub(crate) fn start_in(sandbox: &Sandbox, more: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut child = sandbox
            .command(["up", "--no-walk"].iter().chain(more))
            .envs(variables.iter().copied())
            .env("HOLDFAST_EVENTS_LISTEN", "127.0.0.1:0")
            .env("HOLDFAST_SERVER_LISTEN", "127.0.0.1:0")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let (sender, told) = mpsc::channel();
        read(child.stderr.take().unwrap(), sender.clone());
        let stdout = child.stdout.take().unwrap();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                sender.send(line).ok();
            }
        });
        Self { child, told }
    }

    /// Waits for a line that holds `text`.
    pub(crate) fn says(&self, text: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.told.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => seen.push(line),
                Err(error) => panic!("`{text}` was not said ({error}): {seen:#?}"),
            }
        }
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) fn stop(mut self) -> i32 {
        self.signal(rustix::process::Signal::TERM);
        self.child.wait().unwrap().code().unwrap_or(-1)
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn read(stderr: ChildStderr, sender: mpsc::Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            sender.send(line).ok();
        }
    });
}

/// Hosts that nobody can log in to: there is no credential.
fn import(sandbox: &Sandbox, hosts: usize) {
    let mut csv = String::from("name,address\n");
    for index in 0..hosts {
        csv.push_str(&format!("host{index:03},192.0.2.1\n"));
    }
    let file = sandbox.file("hosts.csv", csv);
    let run = sandbox.run(["host".as_ref(), "import".as_ref(), file.as_os_str()]);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
}

fn this_machine(fleet: &Value) -> &Value {
    let hosts = fleet["hosts"].as_array().unwrap();
    hosts.iter().find(|host| host["via"] == "local").unwrap()
}

/// Whoever starts it again is told where the token is, as at first; a token that was taken away is not
/// named.
/// Proves: SVC-1
#[test]
fn each_start_says_where_the_token_is() {
    let sandbox = Sandbox::new();
    let token = sandbox.data_dir().join("keys/admin.token");
    for said in ["its first token was made just now", "its first token is in"] {
        let up = Up::start(&sandbox);
        let line = up.says("HTTP interface and console at");
        assert!(line.contains(said), "{line}");
        assert!(line.contains(token.to_str().unwrap()), "{line}");
        assert_eq!(up.stop(), 0);
    }
    std::fs::remove_file(&token).unwrap();
    let up = Up::start(&sandbox);
    let line = up.says("HTTP interface and console at");
    assert!(line.contains("token add NAME --role ROLE"), "{line}");
}

/// Proves: SVC-12, EXE-10, LED-6
#[test]
fn commands_get_in_beside_a_hundred_hosts_that_end_at_once() {
    let sandbox = Sandbox::new();
    import(&sandbox, 100);
    let up = Up::start(&sandbox);
    up.says("101 hosts");
    for _ in 0..10 {
        let status = sandbox.run(["status", "--all"]);
        assert_ne!(status.code, 2, "{}", status.stderr);
    }
    let line = up.says("not scanned: credential_missing");
    assert!(line.contains("host"), "{line}");
    up.says("First scan of this host");
    assert_eq!(up.stop(), 0);

    let (code, fleet) = sandbox.json(["status", "--all"]);
    schema::check("status-fleet", &fleet);
    assert_ne!(code, 0, "hosts that were never assessed are not clean");
    let hosts = fleet["hosts"].as_array().unwrap();
    assert_eq!(hosts.len(), 101);
    let failed = hosts
        .iter()
        .filter(|host| host["last_attempt_failed"]["reason"] == "credential_missing");
    assert_eq!(failed.count(), 100);
    // Told as events: one failure a host and no beginning, since there was nothing to begin with.
    let events = sandbox.run(["events", "query", "--output", "json", "--limit", "10000"]);
    let count = |name: &str| {
        let event = format!("\"event\":\"{name}\"");
        events.stdout.matches(&event).count()
    };
    assert_eq!(count("scan.failed"), 100, "{}", events.stderr);
    assert_eq!(count("scan.started"), 1);
    assert_eq!(count("scan.completed"), 1);
    // LED-6: one for each change row, and each row of a first scan is one.
    let name = this_machine(&fleet)["host"].as_str().unwrap();
    let (_, status) = sandbox.json(["status", "--host", name]);
    let verdicts = status["verdicts"].as_array().unwrap().len();
    assert_eq!(count("finding.persisted"), verdicts);
}

/// Kills `up` at many moments of its first scan; then each start goes on, and the host is scanned
/// once: not lost with the killed worker, and not twice.
/// Proves: SCH-4
#[test]
fn a_worker_killed_at_any_moment_leaves_its_host_to_the_next_start() {
    let sandbox = Sandbox::new();
    for wait in ["policy", "due now", "events are taken"] {
        let up = Up::start(&sandbox);
        up.says(wait);
        up.kill();
    }
    let up = Up::start(&sandbox);
    up.says("First scan of this host");
    assert_eq!(up.stop(), 0);
    let (_, fleet) = sandbox.json(["status", "--all"]);
    let host = this_machine(&fleet);
    assert!(host["assessed"].is_string(), "{fleet}");
    assert!(host["last_attempt_failed"].is_null(), "{fleet}");
    let rule = sandbox.json(["status"]).1["verdicts"][0]["rule"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(sandbox.json(["status", "--rule", &rule]).1["checks"], 1);

    // It is not due again, and a start does not scan what is not due.
    let up = Up::start(&sandbox);
    up.says("0 due now");
    up.says("Watching");
    assert_eq!(up.stop(), 0);
    assert_eq!(sandbox.json(["status", "--rule", &rule]).1["checks"], 1);
}

/// Whoever collected facts here and judged them here too had a machine that facts are brought from: `up` said
/// that it watches it, and never scanned it.
#[test]
fn the_machine_itself_is_watched_though_its_facts_were_brought_first() {
    let sandbox = Sandbox::new();
    let facts = sandbox.path("facts.json");
    let out = [
        "scan".as_ref(),
        "--no-walk".as_ref(),
        "--facts-out".as_ref(),
    ];
    sandbox.run(out.into_iter().chain([facts.as_os_str()]));
    let replay = ["scan".as_ref(), "--replay".as_ref(), facts.as_os_str()];
    assert_ne!(sandbox.run(replay).code, 2);
    let (_, listed) = sandbox.json(["host", "list"]);
    let listed = listed.as_array().or(listed["hosts"].as_array()).unwrap();
    assert_eq!(listed[0]["reach"]["via"], "local", "{listed:?}");
    let up = Up::start(&sandbox);
    up.says("1 host, this machine");
    assert_eq!(up.stop(), 0);
    let (_, scheduled) = sandbox.json(["schedule"]);
    let name = listed[0]["name"].as_str().unwrap();
    assert!(scheduled.to_string().contains(name), "{scheduled}");
}

/// Proves: SCH-9
#[test]
fn a_manual_scan_of_a_host_leaves_the_schedule_as_it_is() {
    let sandbox = Sandbox::new();
    let up = Up::start(&sandbox);
    up.says("First scan of this host");
    assert_eq!(up.stop(), 0);
    let (_, before) = sandbox.json(["status", "--all"]);
    let name = this_machine(&before)["host"].as_str().unwrap().to_owned();
    let scanned = sandbox.run(["scan", "--no-walk", "--host", &name]);
    assert_ne!(scanned.code, 2, "{}", scanned.stderr);
    let (_, after) = sandbox.json(["status", "--all"]);
    let (before, after) = (this_machine(&before), this_machine(&after));
    assert_eq!(after["next"], before["next"]);
    assert_ne!(after["assessed"], before["assessed"], "it was scanned");
}

/// Proves: RUL-5
#[test]
fn a_host_that_cannot_be_reached_makes_a_manual_scan_incomplete() {
    let sandbox = Sandbox::new();
    import(&sandbox, 2);
    let scan: Run = sandbox.run(["scan", "--host", "host000", "host001"]);
    assert_eq!(scan.code, 3, "{}", scan.stderr);
    assert_eq!(scan.stderr.matches("credential_missing").count(), 2);
    scan.tells_next_step();
    let unknown = sandbox.run(["scan", "--host", "nobody"]);
    unknown.is_refused_naming("nobody");
    unknown.tells_next_step();
}

/// Proves: SCH-11, SCH-12
#[test]
fn nothing_is_watched_by_a_policy_that_may_not_be_used() {
    let sandbox = Sandbox::new();
    let good = |args: &[&str]| {
        let run = sandbox.run(args);
        assert_eq!(run.code, 0, "{args:?}: {}", run.stderr);
        run.stdout
    };
    let refused = |reason: &str| {
        let up = sandbox.run(["up", "--no-walk"]);
        up.is_refused_naming(reason);
        up.tells_next_step();
    };
    // A key that no first start made: somebody decided who signs, and nothing is signed.
    let first = sandbox.path("first.key");
    let first = first.to_str().unwrap();
    good(&["policy", "keygen", "--trust", "--out", first]);
    refused("policy_missing");
    let file = sandbox.file("p.yaml", good(&["policy", "show"]));
    let file = file.to_str().unwrap();
    good(&["policy", "sign", file, "--key", first]);
    good(&["policy", "reload", file]);
    let other = sandbox.path("other.key");
    let other = other.to_str().unwrap();
    let (_, keys) = sandbox.json(["policy", "trust"]);
    let key = keys[0]["key_id"].as_str().unwrap().to_owned();
    good(&["policy", "keygen", "--trust", "--out", other]);
    good(&["policy", "revoke", &key, "--reason", "lost", "--key", other]);
    refused("revoked_key");
    let (_, hosts) = sandbox.json(["host", "list"]);
    assert_eq!(hosts.to_string().matches("local").count(), 0, "{hosts}");
}

/// Proves: SCH-11
#[test]
fn a_bad_reload_beside_a_watch_changes_nothing_and_is_audited() {
    let sandbox = Sandbox::new();
    let up = Up::start(&sandbox);
    up.says("First scan of this host");
    let shown = sandbox.run(["policy", "show"]);
    let unsigned = sandbox.file("p.yaml", &shown.stdout);
    let reload = sandbox.run(["policy", "reload", unsigned.to_str().unwrap()]);
    reload.is_refused_naming("signature_invalid");
    assert_eq!(sandbox.run(["policy", "show"]).stdout, shown.stdout);
    let (_, log) = sandbox.json(["audit", "--action", "policy"]);
    assert!(log.to_string().contains("signature_invalid"), "{log}");
    let (_, fleet) = sandbox.json(["status", "--all"]);
    let name = this_machine(&fleet)["host"].as_str().unwrap().to_owned();
    assert_eq!(sandbox.run(["schedule", "--now", &name]).code, 0);
    up.says("nothing changed");
    assert_eq!(up.stop(), 0);
}

#[test]
fn what_changes_the_fleet_is_told_to_a_watch_beside() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.run(["policy", "keygen", "--trust"]).code, 0);
    let shown = sandbox.run(["policy", "show"]);
    let file = sandbox.file("p.yaml", shown.stdout);
    let file = file.to_str().unwrap();
    assert_eq!(sandbox.run(["policy", "sign", file]).code, 0);
    import(&sandbox, 1);
    let changed = || std::fs::read(sandbox.data_dir().join("changed")).ok();
    let (_, rules) = sandbox.json(["rules", "list"]);
    let rule = rules[0]["id"].as_str().unwrap().to_owned();
    for args in [
        &["schedule", "host000", "--now"][..],
        &["policy", "reload", file],
        &["maintenance", "set", "--host", "host000", "--for", "1h"],
        &["maintenance", "clear", "--host", "host000"],
        &[
            "waiver", "add", &rule, "--host", "host000", "--owner", "anna", "--reason", "soon",
            "--until", "3d",
        ],
        &["waiver", "approve", "1", "--by", "bert"],
        &["waiver", "revoke", "1", "--reason", "mended"],
        &["host", "retire", "host000"],
    ] {
        let before = changed();
        let run = sandbox.run(args);
        assert_eq!(run.code, 0, "{args:?}: {}", run.stderr);
        assert_ne!(changed(), before, "{args:?}");
        let before = changed();
        sandbox.run([args[0], "list"]);
        assert_eq!(changed(), before, "a question tells nobody: {args:?}");
    }
}
