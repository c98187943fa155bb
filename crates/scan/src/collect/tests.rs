//! The run of all collectors, on hosts and with collectors made to break it.

use std::sync::{Mutex, atomic::AtomicUsize, atomic::Ordering};

use super::{fixture::Fixture, *};
use crate::target::{Command, Entry, Found, Links, LocalTarget, Ran, Stat, Walk, Walked};
use world::RealClock;

fn only(collect: fn(&Context<'_>) -> Result<Value, Unknown>) -> Collector {
    Collector {
        name: "trial",
        collect,
        ..Collector::DEFAULT
    }
}

fn reason_of(collector: &'static Collector) -> Reason {
    let fact = Fixture::new(&[("/long", "0123456789")]).collect(collector);
    Unknown::from_value(&fact).unwrap().reason
}

#[test]
fn a_collector_that_panics_costs_its_own_fact() {
    static BROKEN: LazyCollector = LazyCollector::new(|| only(|_| panic!("on purpose")));
    static SOUND: LazyCollector = LazyCollector::new(|| only(|_| Ok(Value::Bool(true))));
    assert_eq!(reason_of(&BROKEN), Reason::Unsupported);
    assert_eq!(Fixture::new(&[]).collect(&SOUND), Value::Bool(true));
}

type LazyCollector = std::sync::LazyLock<Collector>;

/// Proves: EXE-6, EXE-7
#[test]
fn a_collector_over_its_bytes_or_its_time_is_refused_at_the_next_step() {
    static HUNGRY: LazyCollector = LazyCollector::new(|| Collector {
        input_bytes_max: 15,
        ..only(|context| {
            context.text("/long").known()?;
            context.text("/long").known()?;
            Ok(Value::Bool(true))
        })
    });
    static LATE: LazyCollector = LazyCollector::new(|| Collector {
        deadline: Duration::from_nanos(1),
        ..only(|context| context.text("/long").known().map(|_| Value::Bool(true)))
    });
    assert_eq!(reason_of(&HUNGRY), Reason::Truncated);
    assert_eq!(reason_of(&LATE), Reason::Timeout);
}

/// A read from a dead network filesystem never returns.
///
/// Proves: EXE-6
#[test]
fn a_collector_that_never_comes_back_is_left_behind() {
    static STUCK: LazyCollector = LazyCollector::new(|| Collector {
        deadline: Duration::from_millis(1),
        ..only(|_| {
            loop {
                thread::park();
            }
        })
    });
    assert_eq!(reason_of(&STUCK), Reason::Timeout);
}

struct Counting {
    started: AtomicUsize,
    finished: AtomicUsize,
}

impl Progress for Counting {
    fn started(&self, _collector: &'static str) {
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    fn finished(&self, _collector: &'static str, _took: Duration, _unknown: Option<&Unknown>) {
        self.finished.fetch_add(1, Ordering::Relaxed);
    }

    fn cancelled(&self) -> bool {
        self.finished.load(Ordering::Relaxed) >= 2
    }
}

#[test]
fn after_a_cancellation_what_is_left_is_unknown_and_named() {
    let watch = Arc::new(Counting {
        started: AtomicUsize::new(0),
        finished: AtomicUsize::new(0),
    });
    let host = Fixture::new(&[("/proc/cmdline", "quiet")]);
    let progress: Arc<dyn Progress> = Arc::<Counting>::clone(&watch);
    let needs = Arc::new(Needs::default());
    let facts = collect(
        Arc::new(host.target()),
        needs,
        progress,
        Arc::new(RealClock::new()),
    );
    assert_eq!(facts.facts.len(), list().len());
    assert_eq!(watch.started.load(Ordering::Relaxed), list().len());
    let last = Unknown::from_value(&facts.facts["walk"]).unwrap();
    assert_eq!(last.reason, Reason::Timeout);
}

/// Every question a collector asks of this machine, as it was asked.
#[derive(Debug)]
struct Recorder {
    target: LocalTarget,
    read: Mutex<BTreeSet<String>>,
    run: Mutex<BTreeSet<String>>,
}

impl Recorder {
    fn new() -> Self {
        Self {
            target: LocalTarget::new("/", Arc::new(RealClock::new())).unwrap(),
            read: Mutex::default(),
            run: Mutex::default(),
        }
    }

    fn saw(&self, path: &str) {
        self.read.lock().unwrap().insert(path.to_owned());
    }
}

impl Target for Recorder {
    fn stream(&self, path: &str, cap: usize, sink: &mut dyn FnMut(&[u8])) -> Found<()> {
        self.saw(path);
        self.target.stream(path, cap, sink)
    }

    fn list(&self, dir: &str) -> Found<Vec<Entry>> {
        self.target.list(dir)
    }

    fn stat(&self, path: &str, links: Links) -> Found<Stat> {
        self.target.stat(path, links)
    }

    fn read_link(&self, path: &str) -> Found<String> {
        self.target.read_link(path)
    }

    fn run(&self, command: &Command<'_>) -> Result<Ran, Unknown> {
        let line = [&command.programs[..1], command.args].concat().join(" ");
        self.run.lock().unwrap().insert(line);
        self.target.run(command)
    }

    fn walk(&self, _walk: &Walk<'_>, _progress: &dyn Progress) -> Result<Walked, Unknown> {
        Ok(Walked::default())
    }
}

fn everything_asked(collector: &'static Collector) -> (Arc<Recorder>, Value) {
    let recorder = Arc::new(Recorder::new());
    let target: Arc<dyn Target> = Arc::<Recorder>::clone(&recorder);
    let clock = Arc::new(RealClock::new());
    let needs = Arc::new(Needs::default());
    let facts = collect_only(&[collector], target, needs, Arc::new(()), clock);
    (recorder, facts.facts[collector.name].clone())
}

/// A declaration as a pattern: `**` for anything below, `{a,b}` for either, `...` for the rest.
fn declares(declared: &str, asked: &str) -> bool {
    let pattern = regex::escape(declared)
        .replace("\\*\\*", ".*")
        .replace("\\*", "[^/]*")
        .replace("\\.\\.\\.", ".*")
        .replace("\\{", "(")
        .replace("\\}", ")")
        .replace(',', "|");
    regex::Regex::new(&format!("^{pattern}$"))
        .unwrap()
        .is_match(asked)
}

/// The identity of the host, and the tables of names that show who owns a file.
const SHARED: [&str; 5] = [
    "/proc/sys/kernel/hostname",
    "/etc/hostname",
    "/etc/machine-id",
    "/etc/passwd",
    "/etc/group",
];

/// Proves: EXE-12
#[test]
fn collectors_read_and_run_what_they_declare_and_nothing_else() {
    let mut problems = Vec::new();
    for collector in list() {
        let (recorder, _) = everything_asked(collector);
        for path in recorder.read.lock().unwrap().iter() {
            let declared = collector.reads.iter().any(|reads| declares(reads, path));
            if !declared && !SHARED.contains(&path.as_str()) {
                problems.push(format!("{} reads {path}", collector.name));
            }
        }
        for line in recorder.run.lock().unwrap().iter() {
            let declared = collector.runs.iter().any(|runs| declares(runs, line));
            if !declared || !line.starts_with('/') {
                problems.push(format!("{} runs {line}", collector.name));
            }
        }
    }
    assert!(problems.is_empty(), "not declared: {problems:#?}");
}

/// Every leaf of the facts of this machine, written as the catalog writes it.
fn check_shapes(path: &str, value: &Value, problems: &mut BTreeSet<String>) {
    if Unknown::from_value(value).is_some() {
        return;
    }
    let pattern = catalog().find(|pattern| pattern.path == path);
    let fits = pattern.is_some_and(|pattern| match (pattern.shape, value) {
        (Shape::Text, Value::String(_))
        | (Shape::Int, Value::Number(_))
        | (Shape::Bool, Value::Bool(_))
        | (Shape::Scalar, Value::String(_) | Value::Bool(_) | Value::Number(_))
        | (Shape::List, Value::Array(_))
        | (Shape::Map, Value::Object(_)) => true,
        // Elements of a list of maps are named by their fields alone.
        _ => false,
    });
    let is_element = path.ends_with("[]");
    if !fits && !is_element {
        problems.insert(format!("{path}: {pattern:?}"));
    }
    match value {
        Value::Array(items) => {
            for item in items {
                check_shapes(&format!("{path}[]"), item, problems);
            }
        }
        Value::Object(fields) => {
            let has_keys = catalog().any(|known| known.path == format!("{path}[*]"));
            for (key, field) in fields {
                let below = if has_keys {
                    format!("{path}[*]")
                } else {
                    format!("{path}.{key}")
                };
                check_shapes(&below, field, problems);
            }
        }
        _ => {}
    }
}

#[test]
fn every_fact_of_this_machine_stands_in_the_catalog_with_its_shape() {
    let mut problems = BTreeSet::new();
    for collector in list() {
        let (_, fact) = everything_asked(collector);
        check_shapes(collector.name, &fact, &mut problems);
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn every_pattern_of_the_catalog_is_unique_and_begins_with_its_collector() {
    let mut seen = BTreeSet::new();
    for collector in list() {
        for pattern in collector.patterns {
            assert!(seen.insert(pattern.path), "{} twice", pattern.path);
            let root = pattern.path.split(['.', '[']).next();
            assert_eq!(root, Some(collector.name), "{}", pattern.path);
        }
        assert!(seen.contains(collector.name), "{}: no root", collector.name);
    }
}

/// Proves: RUL-2
#[test]
fn there_is_a_collector_for_every_subject_of_the_contract() {
    const SUBJECTS: [&str; 37] = [
        "os",
        "packages",
        "services",
        "sysctl",
        "modules",
        "mounts",
        "users",
        "shadow",
        "pam",
        "login_defs",
        "security_conf",
        "sshd",
        "sudoers",
        "files",
        "globs",
        "text",
        "hashes",
        "walk",
        "audit",
        "sockets",
        "firewall",
        "cron",
        "crypto_policy",
        "dnf",
        "ubuntu_pro",
        "cmdline",
        "grub",
        "apparmor",
        "selinux",
        "certificates",
        "time_sync",
        "journald",
        "rsyslog",
        "logrotate",
        "updates",
        "coredump",
        "environment",
    ];
    let names: BTreeSet<&str> = list().iter().map(|one| one.name).collect();
    assert_eq!(names, SUBJECTS.into_iter().collect());
}
