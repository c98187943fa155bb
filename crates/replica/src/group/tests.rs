//! Groups on loopback and real disks: one node passes what every journal must, several keep copies.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod rebuild;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use wal::{Identity, Journal, Kind, Lsn, RecordKind, conformance};
use world::{
    Clock, Disk, RealClock, RealDisk, RealRandom,
    net::RealNet,
    sim::{self, Call, Fault},
};

use super::{Beginning, Bound, Group, LIMITS, Options, make_record};
use crate::{
    authority::Owner,
    machine::{Config, Limits, Mode, NodeId, Order, Outcome, Policy, Role, Version},
    transport::Authority,
};

const CLUSTER: u128 = 0xC1;
const KIND: RecordKind = RecordKind(7);
/// Longer than anything here takes on a machine that runs at all.
const LONG: Duration = Duration::from_secs(120);

fn limits() -> Limits {
    Limits {
        silence: Duration::from_secs(2),
        heartbeat: Duration::from_millis(100),
        ..LIMITS
    }
}

/// Nodes with directories of their own.
struct Site {
    dir: tempfile::TempDir,
    config: Config,
}

impl Site {
    fn new(members: u128, mode: Mode) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            config: Config {
                version: Version::default(),
                members: (1..=members).map(NodeId).collect(),
                mode,
                policy: Policy::Wait,
                previous: None,
            },
        }
    }

    fn of(&self, node: u128) -> PathBuf {
        self.dir.path().join(node.to_string())
    }

    /// A journal of the same identity on every node.
    fn journal(&self, node: u128) -> wal::Options {
        let mut options = wal::Options::new(
            self.of(node).join("journal"),
            Arc::new(RealDisk),
            Arc::new(RealClock::new()),
            Arc::new(sim::Random::new(7)),
        );
        options.segment_bytes = wal::SEGMENT_BYTES_MIN;
        options
    }

    fn identity(&self) -> Identity {
        let dir = self.of(0);
        let (journal, _) = wal::Local::open(wal::Options {
            dir,
            ..self.journal(0)
        })
        .unwrap();
        journal.identity()
    }

    fn open(&self, node: u128) -> Group {
        if !self.of(node).exists() {
            self.make(node);
        }
        self.try_open(node).unwrap()
    }

    /// A node that has never run.
    fn make(&self, node: u128) {
        std::fs::create_dir_all(self.of(node)).unwrap();
        let identity = self.identity();
        let (log, _) = wal::Local::open(self.journal(node)).unwrap();
        let owner = Owner {
            cluster: CLUSTER,
            node: NodeId(node),
            journal: identity,
        };
        let (path, now) = (self.of(node).join("authority"), RealClock::new().now());
        let first = (&self.config, Beginning::Fresh);
        make_record(&RealDisk, &path, owner, &log, first, now).unwrap();
    }

    fn try_open(&self, node: u128) -> Result<Group, wal::Error> {
        self.open_deriving(node, None)
    }

    fn open_deriving(
        &self,
        node: u128,
        derived: Option<super::Derived>,
    ) -> Result<Group, wal::Error> {
        Group::open(self.options(node, derived))
    }

    fn options(&self, node: u128, derived: Option<super::Derived>) -> Options {
        static AUTHORITY: OnceLock<Authority> = OnceLock::new();
        let authority = AUTHORITY.get_or_init(|| Authority::make(CLUSTER).unwrap());
        let me = NodeId(node);
        Options {
            me,
            cluster: CLUSTER,
            journal: self.journal(node),
            identity: self.identity(),
            authority: self.of(node).join("authority"),
            derived,
            limits: limits(),
            is_leased: false,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            peers: BTreeMap::new(),
            credentials: authority.issue(me).unwrap(),
            net: Arc::new(RealNet),
            clock: Arc::new(RealClock::new()),
            random: Arc::new(RealRandom),
        }
    }

    fn open_all(&self) -> BTreeMap<u128, Group> {
        let nodes: BTreeMap<u128, Group> = self
            .config
            .members
            .iter()
            .map(|member| (member.0, self.open(member.0)))
            .collect();
        for (node, group) in &nodes {
            introduce(*node, group, &nodes, 1);
        }
        nodes
    }
}

/// Tells all others where a node is, and the node where they are.
fn introduce(node: u128, group: &Group, nodes: &BTreeMap<u128, Group>, endpoint: u64) {
    for (peer, other) in nodes.iter().filter(|(peer, _)| **peer != node) {
        other
            .set_peer(NodeId(node), group.address(), endpoint)
            .unwrap();
        group.set_peer(NodeId(*peer), other.address(), 1).unwrap();
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let clock = RealClock::new();
    while !done() {
        assert!(clock.monotonic() < LONG, "{what}");
        clock.sleep(Duration::from_millis(5));
    }
}

fn promote(node: u128, group: &Group, config: Option<Config>) {
    wait_until("promoted", || {
        let order = Order::Promote {
            node: NodeId(node),
            config: config.clone(),
            force: None,
        };
        let outcome = group.order(order).unwrap();
        if outcome != Outcome::Done {
            println!("{outcome:?}");
        }
        outcome == Outcome::Done
    });
    wait_until("primary", || matches!(group.role(), Role::Primary { .. }));
}

fn append(group: &Group, bytes: &[u8]) -> Lsn {
    group.append(&[(KIND, bytes)]).unwrap().last
}

fn bodies(group: &Group) -> Vec<Vec<u8>> {
    let records = group.read(Lsn::FIRST).unwrap();
    records
        .map(|record| record.unwrap())
        .filter(|record| record.kind == KIND)
        .map(|record| record.bytes)
        .collect()
}

#[test]
fn a_group_of_one_is_a_journal_like_any_other() {
    conformance::check(|| {
        let site = Site::new(1, Mode::Async);
        let mut is_new = true;
        Box::new(move || {
            let group = site.open(1);
            if std::mem::take(&mut is_new) {
                promote(1, &group, None);
            }
            wait_until("primary", || matches!(group.role(), Role::Primary { .. }));
            // What was there is committed again under the epoch of this start.
            group.confirm().unwrap();
            Box::new(group)
        })
    });
}

/// Proves: REP-15, REP-16
#[test]
fn what_is_acknowledged_is_on_every_copy_that_the_mode_wants() {
    let site = Site::new(3, Mode::All);
    let nodes = site.open_all();
    promote(1, &nodes[&1], None);
    let mut written = Vec::new();
    for number in 0..200_u32 {
        let body = number.to_le_bytes().repeat(50);
        append(&nodes[&1], &body);
        written.push(body);
    }
    for node in nodes.values() {
        // Not what is shown there yet, but what is durable.
        assert_eq!(
            node.shared.local().durable(),
            nodes[&1].shared.local().durable()
        );
        wait_until("shown", || node.safe_point() == nodes[&1].safe_point());
        assert_eq!(bodies(node), written);
    }
    let refused = nodes[&2].append(&[(KIND, b"here")]).unwrap_err();
    assert_eq!(refused.kind(), Kind::Fenced, "{refused}");
}

/// Whoever writes does what others wait for as well, and one begins with the next where another one has just ended.
#[test]
fn what_many_write_at_once_is_there_once_and_in_the_order_of_each() {
    const WRITERS: u32 = 8;
    const EACH: u32 = 300;
    for mode in [Mode::Async, Mode::Sync(1)] {
        let site = Site::new(2, mode);
        let nodes = site.open_all();
        let primary = &nodes[&1];
        promote(1, primary, None);
        wait_until("a copy", || {
            let status = primary.status();
            status.is_some_and(|status| status.replicas.iter().any(|it| it.is_in_sync))
        });
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                scope.spawn(move || {
                    for number in 0..EACH {
                        append(
                            primary,
                            &[writer.to_le_bytes(), number.to_le_bytes()].concat(),
                        );
                    }
                });
            }
        });
        let end = primary.safe_point();
        wait_until("shown", || nodes[&2].safe_point() == end);
        for node in nodes.values() {
            let written = bodies(node);
            for writer in 0..WRITERS {
                let of_writer = written
                    .iter()
                    .filter(|body| body[..4] == writer.to_le_bytes());
                let numbers: Vec<&[u8]> = of_writer.map(|body| &body[4..]).collect();
                let expected: Vec<[u8; 4]> = (0..EACH).map(u32::to_le_bytes).collect();
                assert_eq!(numbers, expected, "{mode:?}");
            }
            assert_eq!(written.len(), WRITERS as usize * EACH as usize);
        }
    }
}

/// Proves: AUT-10
#[test]
fn after_a_failover_nothing_acknowledged_is_lost_and_the_old_primary_follows() {
    let site = Site::new(3, Mode::Sync(1));
    let mut nodes = site.open_all();
    promote(1, &nodes[&1], None);
    let mut written: Vec<Vec<u8>> = Vec::new();
    let mut write = |group: &Group, count: u8| {
        for number in 0..count {
            let body = vec![number; 1000];
            append(group, &body);
            written.push(body);
        }
        written.clone()
    };
    write(&nodes[&1], 100);
    drop(nodes.remove(&1));
    // Whoever has all of it; the order is refused to the other one.
    let candidate = [2, 3]
        .into_iter()
        .max_by_key(|node| nodes[node].shared.local().durable());
    let candidate = candidate.unwrap();
    promote(candidate, &nodes[&candidate], None);
    let all = write(&nodes[&candidate], 100);
    assert_eq!(bodies(&nodes[&candidate]), all);
    let back = site.open(1);
    introduce(1, &back, &nodes, 2);
    nodes.insert(1, back);
    wait_until("the old primary follows", || {
        nodes[&1].safe_point() == nodes[&candidate].safe_point()
    });
    assert_eq!(bodies(&nodes[&1]), all);
    assert!(matches!(nodes[&1].role(), Role::Replica { .. }));
    let all = write(&nodes[&candidate], 10);
    wait_until("every copy", || {
        nodes.values().all(|node| bodies(node) == all)
    });
}

/// An owner of derived state led, and did not hear that another node did in between: what it appended next
/// lay on top of what it had never applied, and was acknowledged.
#[test]
fn an_owner_that_led_under_an_earlier_epoch_of_the_same_node_appends_nothing() {
    let site = Site::new(2, Mode::Sync(1));
    let nodes = site
        .open_all()
        .into_iter()
        .map(|(node, group)| (node, Arc::new(group)));
    let nodes: BTreeMap<u128, Arc<Group>> = nodes.collect();
    let journal = Bound::new(Arc::clone(&nodes[&1]));
    let refused = |journal: &Bound| journal.append(&[(KIND, b"none")]).unwrap_err().kind();
    promote(1, &nodes[&1], None);
    assert_eq!(refused(&journal), Kind::Fenced, "it is bound to no epoch");
    let bind = |journal: &Bound| match nodes[&1].role() {
        Role::Primary { epoch } => journal.bind(epoch),
        role => panic!("{role:?}"),
    };
    bind(&journal);
    journal.append(&[(KIND, b"led")]).unwrap();
    for (from, to) in [(1, 2), (2, 1)] {
        let writes = |node: u128| matches!(nodes[&node].role(), Role::Primary { .. });
        wait_until("switched over", || {
            if writes(from) {
                let order = Order::Switchover { to: NodeId(to) };
                println!("{:?}", nodes[&from].order(order).unwrap());
            }
            writes(to)
        });
        append(&nodes[&to], b"meanwhile");
    }
    assert_eq!(refused(&journal), Kind::Fenced, "others wrote in between");
    let anew = Bound::new(Arc::clone(&nodes[&1]));
    bind(&anew);
    anew.append(&[(KIND, b"leads")]).unwrap();
    let written: [&[u8]; 4] = [b"led", b"meanwhile", b"meanwhile", b"leads"];
    assert_eq!(bodies(&nodes[&1]), written);
}

/// What it promised is not in its log: a node that has promised and never written is the one that would
/// be taken for one that just began.
#[test]
fn a_node_that_lost_its_record_does_not_begin_anew() {
    for has_written in [true, false] {
        let site = Site::new(1, Mode::Async);
        let group = site.open(1);
        if has_written {
            promote(1, &group, None);
            append(&group, b"one");
        }
        drop(group);
        std::fs::remove_file(path(&site, "1/authority")).unwrap();
        let refused = site.try_open(1).unwrap_err();
        assert!(refused.to_string().contains("is lost"), "{refused}");
        assert!(!path(&site, "1/authority").exists());
    }
}

/// Nothing could be put on record any more, and nothing said so: it wrote on, promised nothing, and began no
/// session, until somebody started it again for another reason.
#[test]
fn a_node_whose_record_could_not_be_kept_steps_down_and_says_why() {
    let (site, disk) = (Site::new(1, Mode::Async), sim::Disk::new(3));
    let mut options = site.options(1, None);
    options.journal.dir = "/node/journal".into();
    options.journal.disk = Arc::new(disk.clone());
    options.authority = "/node/authority".into();
    disk.create_dir_all_synced(Path::new("/node")).unwrap();
    let (log, _) = wal::Local::open(options.journal.clone()).unwrap();
    let owner = Owner {
        cluster: CLUSTER,
        node: NodeId(1),
        journal: options.identity,
    };
    let (first, now) = ((&site.config, Beginning::Fresh), RealClock::new().now());
    make_record(&disk, &options.authority, owner, &log, first, now).unwrap();
    drop(log);
    let group = Group::open(options).unwrap();
    promote(1, &group, None);
    append(&group, b"one");
    disk.inject(Call::Write, 1, Fault::Fail(std::io::ErrorKind::Other));
    let mut config = site.config.clone();
    config.policy = Policy::Refuse;
    let order = Order::Configure {
        config,
        fenced: BTreeMap::new(),
    };
    let outcome = group.order(order).unwrap();
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
    wait_until("said", || {
        let status = group.status().unwrap();
        let failed = status.log_failed.unwrap_or_default();
        status.primary.is_none() && failed.contains("authority record")
    });
    assert!(matches!(group.role(), Role::Replica { .. }));
    assert!(group.append(&[(KIND, b"two")]).is_err());
}

#[test]
fn a_node_that_could_not_write_is_promoted_by_force_only() {
    let site = Site::new(1, Mode::Async);
    let group = site.open(1);
    let promote = |force: Option<&str>| {
        group.order(Order::Promote {
            node: NodeId(1),
            config: None,
            force: force.map(str::to_owned),
        })
    };
    group.set_unfit(Some("it lacks a key".to_owned()));
    let refused = promote(None).unwrap_err();
    assert!(refused.to_string().contains("it lacks a key"), "{refused}");
    assert!(matches!(group.role(), Role::Replica { .. }));
    assert_eq!(promote(Some("there is no other")).unwrap(), Outcome::Done);
}

#[test]
fn a_record_is_made_once() {
    let site = Site::new(1, Mode::Async);
    site.make(1);
    let made = std::fs::read(path(&site, "1/authority")).unwrap();
    let (log, _) = wal::Local::open(site.journal(1)).unwrap();
    let owner = Owner {
        cluster: CLUSTER,
        node: NodeId(1),
        journal: site.identity(),
    };
    let file = path(&site, "1/authority");
    let now = RealClock::new().now();
    let first = (&site.config, Beginning::Fresh);
    let refused = make_record(&RealDisk, &file, owner, &log, first, now).unwrap_err();
    assert!(refused.to_string().contains("there already"), "{refused}");
    assert_eq!(std::fs::read(&file).unwrap(), made);
}

/// A new cluster over the log of an earlier one, whose authority is in the wrong hands: the log had higher epochs
/// than the record, and the node took itself for one that lost its disk, for ever.
#[test]
fn a_log_of_an_earlier_cluster_begins_another_one() {
    let site = Site::new(1, Mode::Async);
    let group = site.open(1);
    promote(1, &group, None);
    append(&group, b"before");
    drop(group);
    std::fs::remove_file(path(&site, "1/authority")).unwrap();
    site.make(1);
    let group = site.open(1);
    promote(1, &group, None);
    append(&group, b"after");
    assert_eq!(bodies(&group), [b"before".to_vec(), b"after".to_vec()]);
}

#[test]
fn a_log_of_another_journal_is_refused() {
    let site = Site::new(1, Mode::Async);
    drop(site.open(1));
    let mut options = site.journal(1);
    options.random = Arc::new(sim::Random::new(8));
    std::fs::remove_dir_all(path(&site, "1/journal")).unwrap();
    drop(wal::Local::open(options).unwrap());
    let refused = site.try_open(1).unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
}

fn path(site: &Site, below: &str) -> PathBuf {
    Path::new(site.dir.path()).join(below)
}
