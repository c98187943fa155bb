//! Two nodes in this process: one writes, the other one follows with a store of its own.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use replica::{
    authority::Owner,
    group::{Beginning, Group, LIMITS, Options, make_record},
    machine::{Config, Mode, NodeId, Order, Outcome, Policy, Version},
    transport::Authority,
};
use store::{History, Store, Table};
use wal::{Identity, Journal, Local};
use world::{Clock, RealClock, RealDisk, RealRandom, net::RealNet, sim};

pub const TABLE: &str = "table";
const CLUSTER: u128 = 0xBE;
const POLL: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(60);

/// Both nodes, while they run.
pub struct Pair {
    pub store: Store,
    pub writes: Arc<Group>,
    follower: Follower,
}

/// What the second node does beside keeping its log: it applies what is committed.
pub struct Follower {
    pub group: Arc<Group>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

fn store_options(dir: &Path) -> store::Options {
    store::Options::new(
        dir.join("store"),
        Arc::new(RealDisk),
        Arc::new(RealClock::new()),
        vec![Table::new(TABLE, History::Latest)],
    )
}

/// Of the same identity wherever it is made: the number that it draws is always the same.
fn journal(dir: PathBuf) -> wal::Options {
    let random = Arc::new(sim::Random::new(7));
    wal::Options::new(dir, Arc::new(RealDisk), Arc::new(RealClock::new()), random)
}

/// A store over its own log.
pub fn alone(dir: &Path) -> Store {
    std::fs::create_dir_all(dir).expect("a scratch directory");
    let options = wal::Options::on_this_machine(dir.join("journal"));
    let (journal, _) = Local::open(options).expect("a new journal");
    let (store, _) = Store::open(store_options(dir), Arc::new(journal)).expect("a new store");
    store
}

/// What two nodes share before they run.
pub struct Site {
    authority: Authority,
    identity: Identity,
    mode: Mode,
}

impl Site {
    pub fn new(dir: &Path, mode: Mode) -> Self {
        let origin = dir.join("origin");
        std::fs::create_dir_all(&origin).expect("a scratch directory");
        let (journal, _) = Local::open(journal(origin)).expect("a new journal");
        Self {
            authority: Authority::make(CLUSTER).expect("certificates"),
            identity: journal.identity(),
            mode,
        }
    }

    fn make(&self, dir: &Path, me: NodeId) {
        let (log, _) = Local::open(journal(dir.join("journal"))).expect("a new log");
        let owner = Owner {
            cluster: CLUSTER,
            node: me,
            journal: self.identity,
        };
        let config = Config {
            version: Version::default(),
            members: [NodeId(1), NodeId(2)].into(),
            mode: self.mode,
            policy: Policy::Wait,
            previous: None,
        };
        let (path, now) = (dir.join("authority"), RealClock::new().now());
        make_record(
            &RealDisk,
            &path,
            owner,
            &log,
            (&config, Beginning::Fresh),
            now,
        )
        .expect("a sound disk");
    }

    pub fn open(&self, dir: &Path, node: u128) -> Arc<Group> {
        let me = NodeId(node);
        let dir = dir.join(node.to_string());
        std::fs::create_dir_all(&dir).expect("a scratch directory");
        if !dir.join("authority").exists() {
            self.make(&dir, me);
        }
        let group = Group::open(Options {
            me,
            cluster: CLUSTER,
            journal: journal(dir.join("journal")),
            identity: self.identity,
            authority: dir.join("authority"),
            derived: None,
            limits: LIMITS,
            is_leased: false,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            peers: BTreeMap::new(),
            credentials: self.authority.issue(me).expect("a certificate"),
            net: Arc::new(RealNet),
            clock: Arc::new(RealClock::new()),
            random: Arc::new(RealRandom),
        });
        Arc::new(group.expect("a new group"))
    }
}

pub fn introduce(one: &Group, other: &Group, endpoint: u64) {
    one.set_peer(NodeId(2), other.address(), endpoint)
        .expect("a thread");
    other
        .set_peer(NodeId(1), one.address(), endpoint)
        .expect("a thread");
}

pub fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        thread::sleep(POLL);
    }
}

pub fn promote(group: &Group) {
    wait_until("it is promoted", || {
        let order = Order::Promote {
            node: NodeId(1),
            config: None,
            force: None,
        };
        matches!(group.order(order), Ok(Outcome::Done))
    });
}

pub fn in_sync(group: &Group) -> bool {
    let status = group.status();
    status.is_some_and(|status| status.replicas.iter().any(|replica| replica.is_in_sync))
}

impl Pair {
    pub fn open(dir: &Path, mode: Mode) -> Self {
        let site = Site::new(dir, mode);
        let writes = site.open(dir, 1);
        let follows = site.open(dir, 2);
        introduce(&writes, &follows, 1);
        promote(&writes);
        wait_until("the other one is in sync", || in_sync(&writes));
        let journal = Arc::clone(&writes) as Arc<dyn Journal>;
        let options = store_options(&dir.join("1"));
        let (store, _) = Store::open_following(options, journal).expect("a new store");
        store.lead().expect("it was promoted");
        let follower = Follower::start(&dir.join("2"), follows);
        Self {
            store,
            writes,
            follower,
        }
    }
}

impl Follower {
    pub fn start(dir: &Path, group: Arc<Group>) -> Self {
        let journal = Arc::clone(&group) as Arc<dyn Journal>;
        let (store, _) = Store::open_following(store_options(dir), journal).expect("a new store");
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, told) = (Arc::clone(&stop), Arc::clone(&group));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let (Some(applied), Ok(derived)) = (store.applied(), store.derived()) {
                    told.applied(applied, derived.reaches);
                }
                thread::sleep(POLL * 10);
            }
        });
        Self {
            group,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it does not panic");
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // Both ends of what was written agree, or a figure was of something else.
        let end = self.writes.safe_point();
        wait_until("the other one has everything", || {
            self.follower.group.safe_point() >= end
        });
    }
}
