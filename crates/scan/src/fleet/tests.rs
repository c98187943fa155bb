use std::{
    collections::BTreeSet,
    sync::{Barrier, Condvar, Mutex, atomic::AtomicUsize},
};

use store::{Options, Store};
use tempfile::TempDir;
use world::{RealClock, RealDisk, RealRandom};

use super::*;
use crate::{
    backend::Embedded,
    executor::{Ask, Begun, Guard, Sink},
    facts::Facts,
    inventory::{Inventory, Reach},
    ledger::{Ledger, LogSink},
    schedule::QueueKey,
};

/// Longer than anything here takes on a loaded machine: a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

type Collect = dyn Fn(&str, &Ask) -> Result<Facts, Failure> + Send + Sync;

/// A store of its own with hosts in it; every way to a host is `collect`.
struct Bench {
    _dir: TempDir,
    store: Store,
    policy: Policy,
    collect: Arc<Collect>,
    /// Times that the store is not to be had.
    closed: AtomicUsize,
    /// The policy may not be used any more.
    unfit: AtomicBool,
}

/// The store's fleet, with ways of the test's own making.
struct Open<'a> {
    bench: &'a Bench,
    backend: Embedded,
    ledger: Ledger,
    inventory: Inventory,
}

struct Scripted(String, Arc<Collect>);

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Way for Scripted {
    fn ready(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn collect(&self, ask: &Ask) -> Result<Facts, Failure> {
        (self.1)(&self.0, ask)
    }
}

impl Opened for Open<'_> {
    fn backend(&self) -> &dyn Backend {
        &self.backend
    }

    fn policy(&self) -> Result<Arc<Policy>, String> {
        if self.bench.unfit.load(Ordering::SeqCst) {
            return Err("its key is revoked".to_owned());
        }
        Ok(Arc::new(self.bench.policy.clone()))
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn host(&self, name: &str) -> Result<Host, Failure> {
        let host = self.inventory.get(name).unwrap();
        host.ok_or_else(|| Failure::new(Reason::Internal, "no such host"))
    }

    fn way(&self, host: &Host, _: &Arc<dyn Access>) -> Arc<dyn Way> {
        Arc::new(Scripted(host.name.clone(), Arc::clone(&self.bench.collect)))
    }

    fn rules(&self, rules: &Arc<[Rule]>, _: &Host) -> Result<Arc<[Rule]>, Failure> {
        Ok(Arc::clone(rules))
    }

    fn waivers(&self) -> Result<Vec<Waiver>, String> {
        Ok(Vec::new())
    }

    fn secret(&self, _: &Host) -> Result<Secret, Failure> {
        unreachable!("no way here asks for one")
    }

    fn trust(&self, _: &str, _: u16, _: &PublicKey) -> Result<(), Failure> {
        unreachable!("no way here asks for it")
    }
}

impl Access for Bench {
    fn submit(&self, work: Work) {
        let is_closed = |left: usize| left.checked_sub(1);
        let closed = self
            .closed
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, is_closed);
        if closed.is_ok() {
            work(Err("held by another".to_owned()));
        } else {
            work(Ok(&self.open()));
        }
    }
}

impl Bench {
    fn new(
        hosts: usize,
        policy: Policy,
        collect: impl Fn(&str, &Ask) -> Result<Facts, Failure> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let dir = tempfile::tempdir().unwrap();
        let journal = wal::Options::on_this_machine(dir.path().join("journal"));
        let (journal, _) = wal::Local::open(journal).unwrap();
        let options = Options::new(
            dir.path().join("tables"),
            Arc::new(RealDisk),
            Arc::new(RealClock::new()),
            crate::tables(),
        );
        let store = crate::test_store::open(options, Arc::new(journal)).unwrap();
        let bench = Self {
            _dir: dir,
            store,
            policy,
            collect: Arc::new(collect),
            closed: AtomicUsize::new(0),
            unfit: AtomicBool::new(false),
        };
        let open = bench.open();
        let now = RealClock::new().now();
        open.inventory
            .transact(|transaction| {
                (0..hosts).try_for_each(|index| {
                    let mut host = Host::new(format!("host{index:03}"), Reach::Offline, now);
                    host.reach = Reach::Ssh {
                        address: "192.0.2.1".to_owned(),
                        port: 22,
                        user: None,
                    };
                    host.site = format!("site{}", index % 3);
                    open.inventory.add_in(transaction, &host, "test")
                })
            })
            .unwrap();
        drop(open);
        Arc::new(bench)
    }

    fn open(&self) -> Open<'_> {
        let key = QueueKey::from_bytes([7; 32]);
        let backend = Embedded::new(self.store.clone(), key, Arc::new(RealRandom));
        Open {
            bench: self,
            backend: backend.unwrap(),
            ledger: Ledger::new(self.store.clone()).unwrap(),
            inventory: Inventory::new(self.store.clone()).unwrap(),
        }
    }

    fn scans(&self, host: &str) -> u64 {
        let hosts = self.open().ledger.hosts().unwrap();
        hosts
            .iter()
            .find(|row| row.name == host)
            .map_or(0, |row| row.scans)
    }
}

/// Counts what ends, and wakes whoever waits for it.
#[derive(Default)]
struct Count {
    ended: Mutex<(Vec<String>, Vec<String>)>,
    changed: Condvar,
    troubles: AtomicUsize,
}

impl Count {
    fn wait(&self, recorded: usize, failed: usize) {
        let ended = self.ended.lock().unwrap();
        let waited = self.changed.wait_timeout_while(ended, PATIENCE, |ended| {
            ended.0.len() < recorded || ended.1.len() < failed
        });
        let (ended, timeout) = waited.unwrap();
        assert!(!timeout.timed_out(), "only {ended:?}");
    }
}

impl Watcher for Count {
    fn trouble(&self, _: &str) {
        self.troubles.fetch_add(1, Ordering::SeqCst);
    }

    fn recorded(&self, executed: &Executed, _: &Applied) {
        let mut ended = self.ended.lock().unwrap();
        ended.0.push(executed.scan.host.clone());
        self.changed.notify_all();
    }

    fn failed(&self, host: &str, failure: &Failure) {
        let mut ended = self.ended.lock().unwrap();
        ended.1.push(format!("{host} {}", failure.reason));
        self.changed.notify_all();
    }
}

fn fleet(bench: &Arc<Bench>, count: &Arc<Count>, sink: Arc<dyn Sink>) -> Fleet {
    let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
    Fleet {
        access: Arc::clone(bench) as Arc<dyn Access>,
        executor: Executor::new(Guard::new(), sink, Arc::clone(&clock)),
        watcher: Arc::clone(count) as Arc<dyn Watcher>,
        ledger_sink: Arc::new(LogSink),
        clock,
        node: "node".to_owned(),
        worker: "test".to_owned(),
        rules: crate::rule::Pack::embedded().pack.rules[..1].into(),
        collectors: Vec::new(),
        needs: Arc::default(),
        nudged: Arc::new(|| false),
        stop: Arc::default(),
    }
}

/// Runs the fleet while `during` does, then stops it.
fn run(fleet: &Fleet, during: impl FnOnce()) {
    thread::scope(|scope| {
        let running = scope.spawn(|| fleet.run());
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(during));
        fleet.stop.store(true, Ordering::SeqCst);
        running.join().unwrap();
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

fn facts() -> Facts {
    Facts {
        host: crate::facts::Host::default(),
        collected_at: jiff::Timestamp::UNIX_EPOCH,
        collector: String::new(),
        facts: serde_json::Map::new(),
        timings_ms: BTreeMap::new(),
    }
}

/// Proves: EXE-11, SCH-4
#[test]
fn a_hundred_hosts_are_scanned_at_once_and_each_exactly_once() {
    // Nobody goes on before all hundred are in.
    let all_in = Barrier::new(100);
    let bench = Bench::new(100, Policy::default(), move |_, _| {
        all_in.wait();
        Ok(facts())
    });
    let count = Arc::new(Count::default());
    run(&fleet(&bench, &count, Arc::new(())), || count.wait(100, 0));
    let names: BTreeSet<String> = count.ended.lock().unwrap().0.iter().cloned().collect();
    assert_eq!(names.len(), 100);
    for name in names {
        assert_eq!(bench.scans(&name), 1, "{name}");
    }
    assert_eq!(bench.open().backend.jobs(1000).unwrap(), []);
}

/// Proves: EXE-11
#[test]
fn no_more_are_scanned_at_once_than_the_policy_allows() {
    let running = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let seen = Arc::clone(&running);
    let policy = Policy {
        concurrency: 4,
        ..Policy::default()
    };
    let bench = Bench::new(30, policy, move |_, _| {
        let now = seen.0.fetch_add(1, Ordering::SeqCst) + 1;
        seen.1.fetch_max(now, Ordering::SeqCst);
        thread::yield_now();
        seen.0.fetch_sub(1, Ordering::SeqCst);
        Ok(facts())
    });
    let count = Arc::new(Count::default());
    run(&fleet(&bench, &count, Arc::new(())), || count.wait(30, 0));
    assert!(running.1.load(Ordering::SeqCst) <= 4);
}

#[test]
fn a_failing_host_costs_one_failure_and_no_other_host_anything() {
    let bench = Bench::new(5, Policy::default(), |host, _| match host {
        "host001" => Err(Failure::new(Reason::HostUnreachable, "no route")),
        "host002" => panic!("planted"),
        _ => Ok(facts()),
    });
    let count = Arc::new(Count::default());
    run(&fleet(&bench, &count, Arc::new(())), || count.wait(3, 2));
    let mut ended = count.ended.lock().unwrap();
    ended.1.sort();
    assert_eq!(ended.1, ["host001 host_unreachable", "host002 internal"]);
    assert_eq!(bench.scans("host001"), 0);
    let row = bench.open().backend.row("host001").unwrap().unwrap();
    assert_eq!(row.job, None);
    let failed = row.backoff.values().next().unwrap();
    assert_eq!(
        (failed.failures, failed.reason),
        (1, Reason::HostUnreachable)
    );
}

/// What is scanned when the fleet stops is given back, and the next fleet scans it.
/// Proves: SCH-4
#[test]
fn a_stop_cancels_what_runs_and_the_next_start_goes_on_there() {
    let entered = Arc::new((Mutex::new(0), Condvar::new()));
    let seen = Arc::clone(&entered);
    let is_second = Arc::new(AtomicBool::new(false));
    let may_end = Arc::clone(&is_second);
    let bench = Bench::new(3, Policy::default(), move |_, ask| {
        *seen.0.lock().unwrap() += 1;
        seen.1.notify_all();
        while !may_end.load(Ordering::SeqCst) && !ask.leash.cancelled() {
            thread::yield_now();
        }
        Ok(facts())
    });
    let count = Arc::new(Count::default());
    run(&fleet(&bench, &count, Arc::new(())), || {
        let inside = entered.0.lock().unwrap();
        let inside = entered
            .1
            .wait_timeout_while(inside, PATIENCE, |inside| *inside < 3);
        assert!(!inside.unwrap().1.timed_out());
    });
    assert_eq!(*count.ended.lock().unwrap(), (vec![], vec![]));
    let jobs = bench.open().backend.jobs(10).unwrap();
    assert_eq!(jobs.len(), 3);
    assert!(jobs.iter().all(|job| job.worker.is_none()), "{jobs:?}");

    is_second.store(true, Ordering::SeqCst);
    run(&fleet(&bench, &count, Arc::new(())), || count.wait(3, 0));
    for host in ["host000", "host001", "host002"] {
        assert_eq!(bench.scans(host), 1);
    }
}

#[test]
fn a_result_waits_for_a_store_that_is_held_by_another() {
    let bench = Bench::new(1, Policy::default(), |_, _| Ok(facts()));
    // The first tick, and whatever comes after it, does not get in.
    bench.closed.store(2, Ordering::SeqCst);
    let count = Arc::new(Count::default());
    let held = Arc::clone(&bench);
    let sink = Arc::new(CloseAtStart(held));
    run(&fleet(&bench, &count, sink), || count.wait(1, 0));
    assert_eq!(bench.scans("host000"), 1);
}

/// Takes the store away when a scan has begun.
struct CloseAtStart(Arc<Bench>);

impl Sink for CloseAtStart {
    fn started(&self, _: &Begun) {
        self.0.closed.store(2, Ordering::SeqCst);
    }
}

/// A worker is killed with a job in its hands: the next one of its node need not wait for the lease, and
/// what another node has stays there.
/// Proves: SCH-4
#[test]
fn the_jobs_of_a_killed_worker_are_taken_back_by_the_next_start_of_its_node() {
    let bench = Bench::new(2, Policy::default(), |_, _| Ok(facts()));
    let now = RealClock::new().now();
    let open = bench.open();
    open.backend.dispatch(now, &bench.policy).unwrap();
    for worker in ["node/4711", "node2/1"] {
        let claimed = open.backend.claim(worker, 1, now, &bench.policy).unwrap();
        assert_eq!(claimed.len(), 1);
    }
    drop(open);
    let count = Arc::new(Count::default());
    run(&fleet(&bench, &count, Arc::new(())), || count.wait(1, 0));
    let jobs = bench.open().backend.jobs(10).unwrap();
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    assert_eq!(jobs[0].worker.as_ref().unwrap().0, "node2/1");
}

/// Counts what did not work.
#[derive(Default)]
struct Troubles(Mutex<usize>, Condvar);

impl Watcher for Troubles {
    fn trouble(&self, _: &str) {
        *self.0.lock().unwrap() += 1;
        self.1.notify_all();
    }
}

/// Proves: SCH-4
#[test]
fn nothing_is_claimed_before_the_first_tick_went_well() {
    let bench = Bench::new(1, Policy::default(), |_, ask| {
        while !ask.leash.cancelled() {
            thread::yield_now();
        }
        Err(Failure::new(Reason::Cancelled, "stopped"))
    });
    let now = RealClock::new().now();
    let open = bench.open();
    open.backend.dispatch(now, &Policy::default()).unwrap();
    // Every tick takes back what a dead worker had, and then comes to nothing.
    let table = bench.store.table("schedule.maintenance").unwrap();
    let mut transaction = bench.store.begin().unwrap();
    transaction.put(table, b"host\0x", b"?").unwrap();
    transaction.commit().unwrap();
    let troubles = Arc::new(Troubles::default());
    let mut fleet = fleet(&bench, &Arc::default(), Arc::new(()));
    fleet.watcher = Arc::clone(&troubles) as Arc<dyn Watcher>;
    run(&fleet, || {
        let seen = troubles.0.lock().unwrap();
        let waited = troubles
            .1
            .wait_timeout_while(seen, PATIENCE, |seen| *seen < 3);
        assert!(!waited.unwrap().1.timed_out());
        let jobs = open.backend.jobs(9).unwrap();
        assert_eq!((jobs[0].attempt, &jobs[0].worker), (0, &None));
    });
}

/// Proves: SCH-11
#[test]
fn a_policy_that_may_not_be_used_dispatches_nothing() {
    let bench = Bench::new(2, Policy::default(), |_, _| Ok(facts()));
    let count = Arc::new(Count::default());
    let nudged = Fleet {
        nudged: Arc::new(|| true),
        ..fleet(&bench, &count, Arc::new(()))
    };
    bench.unfit.store(true, Ordering::SeqCst);
    run(&nudged, || {
        let asked = count.troubles.load(Ordering::SeqCst);
        while count.troubles.load(Ordering::SeqCst) == asked {
            thread::yield_now();
        }
    });
    assert_eq!(bench.open().backend.jobs(10).unwrap(), []);
}
