use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::json;
use world::{RealClock, RealDisk, sim};

use super::*;
use crate::{
    collect::fixture::{GREEDY, greedy},
    facts::{self, Host},
    judge::Summary,
};

type Collect = dyn Fn(&Ask) -> Result<Facts, Failure> + Send + Sync;

/// A way of the test's own making, and how often it was asked and gone.
struct Scripted {
    ready: Result<(), Failure>,
    collect: Box<Collect>,
    asked: AtomicUsize,
    gone: AtomicUsize,
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

impl Way for Scripted {
    fn ready(&self) -> Result<(), Failure> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.ready.clone()
    }

    fn collect(&self, ask: &Ask) -> Result<Facts, Failure> {
        self.gone.fetch_add(1, Ordering::SeqCst);
        (self.collect)(ask)
    }
}

fn way(collect: impl Fn(&Ask) -> Result<Facts, Failure> + Send + Sync + 'static) -> Arc<Scripted> {
    Arc::new(Scripted {
        ready: Ok(()),
        collect: Box::new(collect),
        asked: AtomicUsize::new(0),
        gone: AtomicUsize::new(0),
    })
}

/// What was told, in order: the event, its scan and its reason.
#[derive(Default)]
struct Told(Mutex<Vec<(String, Uuid, String)>>);

impl Told {
    fn push(&self, event: &str, begun: &Begun) {
        let row = (event.to_owned(), begun.scan, begun.policy_version.clone());
        self.0.lock().unwrap().push(row);
    }

    fn names(&self) -> Vec<String> {
        let told = self.0.lock().unwrap();
        told.iter().map(|(name, ..)| name.clone()).collect()
    }
}

impl Sink for Told {
    fn started(&self, begun: &Begun) {
        self.push("started", begun);
    }

    fn completed(&self, begun: &Begun, counts: &Summary) {
        self.push(&format!("completed {}", counts.pass), begun);
    }

    fn failed(&self, begun: &Begun, failure: &Failure) {
        self.push(&format!("failed {}", failure.reason), begun);
    }
}

fn rule() -> Rule {
    let pack = crate::rule::Pack::embedded().pack;
    pack.rules.into_iter().next().expect("the pack has rules")
}

fn order(host: &str, way: Arc<Scripted>) -> Order {
    Order {
        scan: Uuid::new_v4(),
        host: host.to_owned(),
        way,
        policy_version: "1.2.3".to_owned(),
        limits: Limits::default(),
        rules: [rule()].into(),
        collectors: Vec::new(),
        needs: Arc::default(),
        progress: Arc::new(()),
        cancel: Cancel::default(),
        on_facts: None,
    }
}

fn executor(told: &Arc<Told>) -> Executor {
    let sink = Arc::clone(told) as Arc<dyn Sink>;
    Executor::new(Guard::new(), sink, Arc::new(RealClock::new()))
}

fn facts() -> Facts {
    Facts {
        host: Host {
            hostname: "what the host says".to_owned(),
            machine_id: None,
        },
        collected_at: jiff::Timestamp::UNIX_EPOCH,
        collector: String::new(),
        facts: json!({"os": {"pretty_name": "A System"}})
            .as_object()
            .unwrap()
            .clone(),
        timings_ms: std::collections::BTreeMap::new(),
    }
}

/// Proves: EXE-10
#[test]
fn every_way_a_scan_can_end_tells_one_beginning_and_one_end() {
    let told = Arc::new(Told::default());
    let executor = executor(&told);
    let check = |way: Arc<Scripted>, tells: &[&str]| {
        told.0.lock().unwrap().clear();
        let order = order("web1", way);
        let outcome = executor.run(&order);
        assert_eq!(told.names(), tells);
        for (_, scan, policy) in told.0.lock().unwrap().iter() {
            assert_eq!((scan, policy.as_str()), (&order.scan, "1.2.3"));
        }
        outcome
    };
    check(way(|_| Ok(facts())), &["started", "completed 0"]).unwrap();
    for reason in Reason::ALL {
        let refused = way(move |_| Err(Failure::new(reason, "as the test wants")));
        check(refused, &["started", &format!("failed {reason}")]).unwrap_err();
    }
    check(way(|_| panic!("planted")), &["started", "failed internal"]).unwrap_err();
    for reason in [Reason::CredentialMissing, Reason::HostUnreachable] {
        let unready = Arc::new(Scripted {
            ready: Err(Failure::new(reason, "known before")),
            ..Arc::into_inner(way(|_| Ok(facts()))).unwrap()
        });
        check(Arc::clone(&unready), &[&format!("failed {reason}")]).unwrap_err();
        assert_eq!(unready.gone.load(Ordering::SeqCst), 0);
    }
    // The host is free after each of them.
    check(way(|_| Ok(facts())), &["started", "completed 0"]).unwrap();
}

#[test]
fn what_is_recorded_bears_the_name_of_the_inventory_and_the_id_of_the_order() {
    let order = order("web1", way(|_| Ok(facts())));
    let executed = executor(&Arc::default()).run(&order).unwrap();
    assert_eq!(executed.scan.host, "web1");
    assert_eq!(executed.scan.id, order.scan);
    assert_eq!(executed.system.as_deref(), Some("A System"));
    assert_eq!(executed.scan.findings.len(), 1);
    assert_eq!(executed.scan.findings[0].rule_digest, rule().digest);
    assert_eq!(executed.scan.finished.nanos() % 1_000_000, 0);
}

/// Proves: EXE-5
#[test]
fn a_second_scan_of_a_host_is_refused_at_once_and_touches_nothing() {
    let told = Arc::new(Told::default());
    let executor = executor(&told);
    let (entered, is_in) = mpsc::sync_channel(1);
    let (leave, may_leave) = mpsc::sync_channel::<()>(1);
    let may_leave = Mutex::new(may_leave);
    let first = way(move |_| {
        entered.send(()).unwrap();
        may_leave.lock().unwrap().recv().unwrap();
        Ok(facts())
    });
    let running = {
        let (executor, order) = (executor.clone(), order("web1", first));
        thread::spawn(move || executor.run(&order))
    };
    is_in.recv().unwrap();
    let second = way(|_| Ok(facts()));
    let refused = executor.run(&order("web1", Arc::clone(&second)));
    assert_eq!(refused.unwrap_err().reason, Reason::HostBusy);
    assert_eq!(
        second.asked.load(Ordering::SeqCst),
        0,
        "no credential asked"
    );
    assert_eq!(second.gone.load(Ordering::SeqCst), 0, "no connection");
    assert_eq!(told.names(), ["started", "failed host_busy"]);
    executor.run(&order("web2", way(|_| Ok(facts())))).unwrap();

    leave.send(()).unwrap();
    running.join().unwrap().unwrap();
    executor.run(&order("web1", second)).unwrap();
}

/// Proves: EXE-5
#[test]
fn a_scan_of_another_process_makes_the_host_busy_too() {
    let dir = tempfile::tempdir().unwrap();
    let guard = |holder: &str| {
        Guard::across_processes(Arc::new(RealDisk), dir.path().to_owned(), holder.to_owned())
    };
    // A host name may be anything but a path.
    let held = guard("pid 1").take("../web1").unwrap();
    let refused = guard("pid 2").take("../web1").unwrap_err();
    assert_eq!(refused.reason, Reason::HostBusy);
    assert!(refused.detail.contains("pid 1"), "{refused}");
    guard("pid 2").take("web2").unwrap();
    drop(held);
    guard("pid 2").take("../web1").unwrap();
}

/// Proves: EXE-6
#[test]
fn a_scan_past_its_deadline_is_a_timeout_whatever_it_brought() {
    let clock = sim::Clock::new(Timestamp::from_nanos(1));
    let passes = clock.clone();
    let slow = way(move |ask| {
        assert!(!ask.leash.cancelled());
        passes.advance(Duration::from_secs(601));
        assert!(ask.leash.cancelled(), "whoever collects is told");
        Ok(facts())
    });
    let executor = Executor::new(Guard::new(), Arc::new(()), Arc::new(clock));
    let failed = executor.run(&order("web1", slow)).unwrap_err();
    assert_eq!(failed.reason, Reason::Timeout);
}

/// Proves: EXE-6
#[test]
fn a_way_that_never_comes_back_ends_the_scan_and_leaves_its_host_busy() {
    let (leave, may_leave) = mpsc::sync_channel::<()>(1);
    let may_leave = Mutex::new(may_leave);
    let executor = executor(&Arc::default());
    let stuck = Order {
        // Real time passes here: the deadline is over at once, the grace is waited for.
        limits: Limits {
            deadline: Duration::ZERO,
            ..Limits::default()
        },
        ..order(
            "web1",
            way(move |_| {
                may_leave.lock().unwrap().recv().ok();
                Ok(facts())
            }),
        )
    };
    assert_eq!(executor.run(&stuck).unwrap_err().reason, Reason::Timeout);
    let again = executor.run(&order("web1", way(|_| Ok(facts()))));
    assert_eq!(again.unwrap_err().reason, Reason::HostBusy);
    leave.send(()).unwrap();
}

/// Proves: EXE-6
#[test]
fn a_cancelled_scan_brings_no_verdicts() {
    let all = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let cancel = Cancel::with(Arc::clone(&all));
    let during = way(move |ask| {
        all.store(true, Ordering::SeqCst);
        assert!(ask.leash.cancelled());
        Ok(facts())
    });
    let told = Arc::new(Told::default());
    let executor = executor(&told);
    let order = Order {
        cancel: cancel.clone(),
        ..order("web1", during)
    };
    assert_eq!(executor.run(&order).unwrap_err().reason, Reason::Cancelled);
    let before = executor.run(&order).unwrap_err();
    assert_eq!(before.reason, Reason::Cancelled);
    assert_eq!(
        told.names(),
        ["started", "failed cancelled", "failed cancelled"]
    );
}

/// Proves: EXE-1
#[test]
fn an_offline_host_is_never_dialled() {
    let told = Arc::new(Told::default());
    let order = Order {
        way: Arc::new(NoWay::offline()),
        ..order("bundle", way(|_| Ok(facts())))
    };
    let refused = executor(&told).run(&order).unwrap_err();
    assert!(refused.detail.contains("offline"), "{refused}");
    assert_eq!(told.names(), ["failed host_unreachable"]);
}

/// Proves: EXE-6, EXE-7
#[test]
fn the_policy_says_what_a_collector_may_take_of_this_machine() {
    let check = |policy: &Policy| {
        let brought = Arc::new(Mutex::new(None));
        let keeps = Arc::clone(&brought);
        let order = Order {
            way: Arc::new(Local),
            collectors: vec![&GREEDY],
            limits: limits(policy),
            on_facts: Some(Arc::new(move |facts: &Facts| {
                *keeps.lock().unwrap() = Some(greedy(facts));
            })),
            ..order("this", way(|_| Ok(facts())))
        };
        executor(&Arc::default()).run(&order).unwrap();
        let brought = brought.lock().unwrap().take();
        brought.expect("the facts were shown")
    };
    let policy = Policy::default();
    assert!(check(&policy).unwrap() > 7);
    let short = Policy {
        collector_deadline: Duration::from_secs(7),
        ..policy.clone()
    };
    assert!(check(&short).unwrap() <= 7);
    let small = Policy {
        collector_bytes_max: 8,
        ..policy
    };
    assert_eq!(check(&small), Err(facts::Reason::Truncated));
}
