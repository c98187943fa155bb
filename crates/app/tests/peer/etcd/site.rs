//! Three nodes of one site with a coordinator, each a directory of its own and an `up` that can be killed.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::address;
use crate::{
    holdfast::{Run, Sandbox},
    serving::PATIENCE,
};

/// Of the leases that these tests are about: the shortest that etcd grants.
pub(crate) const LIFE: Duration = Duration::from_secs(2);

const NAMES: [&str; 3] = ["a", "b", "c"];

pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) sandbox: Sandbox,
    pub(crate) coordinator: String,
}

pub(crate) struct Site([Node; 3]);

/// A running `up`, killed when it is dropped.
pub(crate) struct Up {
    child: Child,
    told: Arc<(Mutex<Vec<String>>, Condvar)>,
}

pub(crate) fn in_sync(status: &Value) -> usize {
    let replicas = status["replicas"].as_array().cloned().unwrap_or_default();
    replicas.iter().filter(|it| it["in_sync"] == true).count()
}

fn connected(status: &Value) -> usize {
    let others = status["nodes"].as_array().cloned().unwrap_or_default();
    others
        .iter()
        .filter(|it| it["is_connected"] == true)
        .count()
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

impl Site {
    /// The first one founded it and invited the others; nothing runs yet.
    pub(crate) fn of_three(endpoints: &str) -> Self {
        let site = Self(NAMES.map(|name| Node {
            name,
            sandbox: Sandbox::new(),
            coordinator: format!("etcd://{endpoints}/site?ttl={}s", LIFE.as_secs()),
        }));
        let [first, others @ ..] = &site.0;
        first.founded();
        first.done(&["node", "init", "a", "--listen", &address()]);
        for other in others {
            let file = first.sandbox.path(other.name);
            let file = file.to_str().unwrap();
            let code = first.done(&["node", "invite", other.name, &address(), "--to", file]);
            let code = first.sandbox.file(&format!("{}.code", other.name), code);
            let code = code.to_str().unwrap();
            other.done(&["node", "join", file, "--code-file", code]);
        }
        site
    }

    pub(crate) fn nodes(&self) -> [&Node; 3] {
        self.0.each_ref()
    }

    /// All of them, the first one writing with one copy at least.
    pub(crate) fn up(&self) -> (Up, Up, Up) {
        self.up_with([&[]; 3])
    }

    pub(crate) fn up_with(&self, variables: [&[(&str, &str)]; 3]) -> (Up, Up, Up) {
        let [a, b, c] = self.nodes();
        let first = a.up_with(variables[0]);
        first.says("this node writes");
        let ups = (first, b.up_with(variables[1]), c.up_with(variables[2]));
        for name in &NAMES[1..] {
            a.done(&["group", "add", name]);
        }
        a.until("two copies", |status| in_sync(status) == 2);
        // Only the first one knows both of the others, until it has told them.
        for node in self.nodes() {
            node.until("both others", |status| connected(status) == 2);
        }
        a.done(&["group", "mode", "sync:1"]);
        a.adds("new-first");
        ups
    }

    /// Which of them writes by itself, once one does and has acknowledged something.
    pub(crate) fn writer<'a>(&self, nodes: &[&'a Node]) -> &'a Node {
        let begun = Instant::now();
        loop {
            let written = nodes.iter().find(|node| {
                node.status()["role"] == "primary" && node.add(&format!("new-by-{}", node.name))
            });
            if let Some(node) = written {
                return node;
            }
            let all: Vec<Value> = nodes.iter().map(|node| node.status()).collect();
            assert!(begun.elapsed() < PATIENCE, "nobody writes: {all:#?}");
        }
    }
}

impl Node {
    pub(crate) fn run(&self, args: &[&str]) -> Run {
        self.sandbox.run(args)
    }

    pub(crate) fn done(&self, args: &[&str]) -> String {
        let run = self.run(args);
        assert_eq!(run.code, 0, "{args:?}: {}{}", run.stdout, run.stderr);
        run.stdout
    }

    /// It is a site before there are others, with keys of its own.
    pub(crate) fn founded(&self) {
        let up = Up::of(self.sandbox.command(["up", "--no-walk"]));
        up.says("console at http");
        up.ends_well();
    }

    pub(crate) fn start(&self, args: &[&str]) -> Child {
        self.sandbox.start(args)
    }

    pub(crate) fn up(&self) -> Up {
        self.up_with(&[])
    }

    pub(crate) fn up_with(&self, variables: &[(&str, &str)]) -> Up {
        let args = ["up", "--no-walk", "--coordinator", &self.coordinator];
        let mut command = self.sandbox.command(args);
        command.envs(variables.iter().copied());
        Up::of(command)
    }

    pub(crate) fn status(&self) -> Value {
        self.asked(&["group", "status"])
    }

    /// In the moment of a change of its role a node answers nobody.
    fn asked(&self, args: &[&str]) -> Value {
        let args = [args, &["--output", "json"]].concat();
        let begun = Instant::now();
        loop {
            let run = self.run(&args);
            if run.code == 0 {
                return serde_json::from_str(&run.stdout).unwrap();
            }
            assert!(begun.elapsed() < PATIENCE, "{args:?}: {}", run.stderr);
        }
    }

    pub(crate) fn until(&self, what: &str, is: impl Fn(&Value) -> bool) {
        let begun = Instant::now();
        loop {
            let found = self.status();
            if is(&found) {
                return;
            }
            let waited = begun.elapsed();
            assert!(waited < PATIENCE, "{}: {what}: {found:#}", self.name);
        }
    }

    /// A file with one host that nobody can log in to.
    pub(crate) fn import(&self, name: &str) -> PathBuf {
        let text = format!("name,address\n{name},192.0.2.1\n");
        self.sandbox.file(name, text)
    }

    /// Whether a host more was acknowledged.
    pub(crate) fn add(&self, name: &str) -> bool {
        let file = self.import(name);
        self.run(&["host", "import", file.to_str().unwrap()]).code == 0
    }

    /// Once it writes.
    pub(crate) fn adds(&self, name: &str) {
        let begun = Instant::now();
        while !self.add(name) {
            assert!(begun.elapsed() < PATIENCE, "{name}: {:#}", self.status());
        }
    }

    pub(crate) fn hosts(&self) -> BTreeSet<String> {
        let listed = self.asked(&["host", "list"]);
        let hosts = listed.as_array().or_else(|| listed["hosts"].as_array());
        let names = hosts.into_iter().flatten();
        let names = names.map(|host| host["name"].as_str().unwrap().to_owned());
        names.filter(|name| name.starts_with("new-")).collect()
    }
}

impl Up {
    pub(crate) fn of(mut command: Command) -> Self {
        let mut child = command
            .env("HOLDFAST_EVENTS_ENABLED", "false")
            .env("HOLDFAST_SERVER_LISTEN", "127.0.0.1:0")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let told = Arc::<(Mutex<Vec<String>>, Condvar)>::default();
        let (stderr, lines) = (child.stderr.take().unwrap(), Arc::clone(&told));
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.0.lock().unwrap().push(line);
                lines.1.notify_all();
            }
        });
        Self { child, told }
    }

    pub(crate) fn told(&self) -> String {
        self.told.0.lock().unwrap().join("\n")
    }

    pub(crate) fn says(&self, text: &str) {
        let (told, more) = &*self.told;
        let is_missing = |told: &mut Vec<String>| !told.iter().any(|line| line.contains(text));
        let told = told.lock().unwrap();
        let (told, waited) = more.wait_timeout_while(told, PATIENCE, is_missing).unwrap();
        assert!(!waited.timed_out(), "`{text}` was not said: {told:#?}");
    }

    pub(crate) fn signal(&self, which: Signal) {
        signal(&self.child, which);
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn ends_well(mut self) {
        self.signal(Signal::TERM);
        let ended = self.child.wait().unwrap();
        assert!(ended.success(), "{ended}: {}", self.told());
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
