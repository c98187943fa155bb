//! Rebuilds over loopback and real disks. What is derived from the journal is a table of its records in
//! one file: the least that a base can be made of and taken into.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use wal::{Journal, Lsn};
use world::{Clock, Disk, RealClock, RealDisk};

use super::{KIND, Site, append, promote, wait_until};
use crate::{
    group::{
        Base, Bases, Derived, Group, Receiving, Transfer,
        rebuild::{BaseWork, Rebuilder},
    },
    machine::{Mode, NodeId, Order, Outcome, ReplicaStatus, SessionId, Source},
};

/// Rows in a part.
const PART_ROWS: usize = 8;
/// A row of the tests, and what it weighs at least.
const ROW_BYTES: usize = 4000;

/// Everything up to `holds`, and nothing above.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rows {
    holds: u64,
    rows: BTreeMap<u64, Vec<u8>>,
}

impl Rows {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.holds.to_le_bytes().to_vec();
        for (lsn, row) in &self.rows {
            bytes.extend(lsn.to_le_bytes());
            bytes.extend((row.len() as u64).to_le_bytes());
            bytes.extend(row);
        }
        bytes
    }

    fn decode(mut bytes: &[u8]) -> Self {
        let number = |bytes: &mut &[u8]| {
            let (first, rest) = bytes.split_first_chunk::<8>().unwrap();
            *bytes = rest;
            u64::from_le_bytes(*first)
        };
        let mut rows = Self {
            holds: number(&mut bytes),
            ..Self::default()
        };
        while !bytes.is_empty() {
            let (lsn, len) = (number(&mut bytes), number(&mut bytes));
            let (row, rest) = bytes.split_at(usize::try_from(len).unwrap());
            rows.rows.insert(lsn, row.to_vec());
            bytes = rest;
        }
        rows
    }
}

/// The table of one node.
#[derive(Debug)]
struct Table {
    file: PathBuf,
    /// `None` while a base is on its way here.
    rows: Mutex<Option<Rows>>,
    /// The log of what is in the file was thrown away.
    is_superseded: AtomicBool,
    /// Bases that were made of it.
    opened: AtomicU64,
    /// A base is refused for want of room.
    is_full: AtomicBool,
    /// Parts taken in, over all bases, and after how many of them the next one is waited with.
    parts: AtomicU64,
    waits_after: AtomicU64,
    /// Whoever waits is let go, without its part.
    is_dying: AtomicBool,
}

impl Table {
    fn open(site: &Site, node: u128) -> Arc<Self> {
        if !site.of(node).exists() {
            site.make(node);
        }
        let file = site.of(node).join("table");
        let bytes = RealDisk.read(&file, u64::MAX).ok();
        let rows = bytes.map_or_else(Rows::default, |bytes| Rows::decode(&bytes));
        Arc::new(Self {
            file,
            rows: Mutex::new(Some(rows)),
            is_superseded: AtomicBool::new(file_superseded(site, node).exists()),
            opened: AtomicU64::new(0),
            is_full: AtomicBool::new(false),
            parts: AtomicU64::new(0),
            waits_after: AtomicU64::new(u64::MAX),
            is_dying: AtomicBool::new(false),
        })
    }

    fn rows(&self) -> MutexGuard<'_, Option<Rows>> {
        self.rows.lock().unwrap()
    }

    /// Takes in what the journal lets one read, keeps it, and says so; whether there was a table.
    fn derive(&self, group: &Group) -> bool {
        let mut guard = self.rows();
        let Some(rows) = guard.as_mut() else {
            return false;
        };
        let from = Lsn::new(rows.holds + 1);
        if group.safe_point() < from {
            return true;
        }
        assert!(group.first_retained() <= from, "a hole below the log");
        let mut holds = rows.holds;
        for record in group.read(from).unwrap() {
            // The primary's log may change under a replica.
            let Ok(record) = record else { return true };
            assert_eq!(record.lsn.get(), holds + 1);
            holds = record.lsn.get();
            if record.kind == KIND {
                rows.rows.insert(holds, record.bytes);
            }
        }
        rows.holds = holds;
        RealDisk.replace(&self.file, &rows.encode()).unwrap();
        group.applied(Lsn::new(holds), Lsn::new(holds));
        true
    }
}

fn file_superseded(site: &Site, node: u128) -> PathBuf {
    site.of(node).join("table.superseded")
}

/// What the trait is implemented for: a table has no way to itself.
#[derive(Debug)]
struct TableBases(Arc<Table>);

#[derive(Debug)]
struct TableBase {
    rows: Rows,
    since: Option<Lsn>,
}

#[derive(Debug)]
struct Taking {
    table: Arc<Table>,
    rows: Rows,
    before: Option<Rows>,
}

impl Bases for TableBases {
    /// Slower than the heart beats: an empty log that hears a heartbeat meanwhile agrees with nothing.
    fn open(&self, since: Option<Lsn>) -> Result<Box<dyn Base>, String> {
        RealClock::new().sleep(3 * super::limits().heartbeat);
        self.0.opened.fetch_add(1, Ordering::Relaxed);
        let rows = self.0.rows().clone().ok_or("a base is on its way here")?;
        let above = since.map_or(0, Lsn::get);
        let rows = Rows {
            holds: rows.holds,
            rows: rows.rows.into_iter().filter(|row| row.0 > above).collect(),
        };
        Ok(Box::new(TableBase { rows, since }))
    }

    fn receive(&self, parts: u32, since: Option<Lsn>) -> Result<Box<dyn Receiving>, String> {
        if self.0.is_full.load(Ordering::Relaxed) {
            return Err(format!("no room for a base of {parts} parts"));
        }
        let before = self.0.rows().take();
        // What a crash leaves from here on is either the old table or the new one.
        let mut rows = match since {
            None => Rows::default(),
            Some(_) => Rows::decode(&RealDisk.read(&self.0.file, u64::MAX).unwrap()),
        };
        rows.rows
            .retain(|lsn, _| since.is_some_and(|since| *lsn <= since.get()));
        Ok(Box::new(Taking {
            table: Arc::clone(&self.0),
            rows,
            before,
        }))
    }
}

impl Base for TableBase {
    fn lsn(&self) -> Lsn {
        Lsn::new(self.rows.holds)
    }

    fn since(&self) -> Option<Lsn> {
        self.since
    }

    fn made(&self) -> Option<String> {
        None
    }

    fn parts(&self) -> u32 {
        u32::try_from(self.rows.rows.len().div_ceil(PART_ROWS)).unwrap() + 1
    }

    fn bytes(&self) -> u64 {
        self.rows.encode().len() as u64
    }

    fn part(&self, index: u32) -> Result<Vec<u8>, String> {
        let skip = (usize::try_from(index).unwrap().max(1) - 1) * PART_ROWS;
        let rows = self.rows.rows.clone().into_iter().skip(skip);
        let rows = Rows {
            holds: self.rows.holds,
            rows: rows.take(if index == 0 { 0 } else { PART_ROWS }).collect(),
        };
        Ok(rows.encode())
    }
}

impl Taking {
    fn mark(&self) -> PathBuf {
        self.table.file.with_extension("superseded")
    }
}

impl Receiving for Taking {
    fn supersede(&mut self) -> Result<(), String> {
        RealDisk.replace(&self.mark(), &[]).unwrap();
        self.table.is_superseded.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn store(&mut self, _index: u32, part: &[u8]) -> Result<(), String> {
        let done = self.table.parts.fetch_add(1, Ordering::Relaxed);
        while done >= self.table.waits_after.load(Ordering::Relaxed) {
            if self.table.is_dying.load(Ordering::Relaxed) {
                return Err("the process ends here".to_owned());
            }
            RealClock::new().sleep(Duration::from_millis(1));
        }
        let part = Rows::decode(part);
        self.rows.holds = part.holds;
        self.rows.rows.extend(part.rows);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Lsn, String> {
        RealDisk
            .replace(&self.table.file, &self.rows.encode())
            .unwrap();
        RealDisk.remove_file(&self.mark()).unwrap();
        self.table.is_superseded.store(false, Ordering::Relaxed);
        let reaches = Lsn::new(self.rows.holds);
        *self.table.rows() = Some(self.rows.clone());
        Ok(reaches)
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        let mut rows = self.table.rows();
        if rows.is_none() {
            *rows = self.before.take();
        }
    }
}

/// A node with its table, and a thread that derives.
struct Deriving {
    group: Arc<Group>,
    table: Arc<Table>,
    ends: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Deriving {
    fn open(site: &Site, node: u128, table: Arc<Table>) -> Self {
        let holds = Lsn::new(table.rows().as_ref().unwrap().holds);
        let derived = Derived {
            holds,
            reaches: holds,
            is_superseded: table.is_superseded.load(Ordering::Relaxed),
            bases: Arc::new(TableBases(Arc::clone(&table))),
        };
        let group = Arc::new(site.open_deriving(node, Some(derived)).unwrap());
        let ends = Arc::new(AtomicBool::new(false));
        let (deriving, told, ended) = (Arc::clone(&group), Arc::clone(&table), Arc::clone(&ends));
        let thread = thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let seen = deriving.safe_point();
                // Not while the log and the table do not meet: a base is to come.
                let does_meet = told.rows().as_ref().is_some_and(|rows| {
                    deriving.first_retained().get() <= rows.holds + 1 && seen.get() >= rows.holds
                }) && !told.is_superseded.load(Ordering::Relaxed);
                if does_meet {
                    told.derive(&deriving);
                }
                deriving.wait_above(seen, Duration::from_millis(5));
            }
        });
        Self {
            group,
            table,
            ends,
            thread: Some(thread),
        }
    }

    fn holds(&self) -> u64 {
        self.table.rows().as_ref().map_or(0, |rows| rows.holds)
    }

    /// Removes from the log what the table has.
    fn release(&self) {
        self.group
            .release_below(Lsn::new(self.holds() + 1))
            .unwrap();
    }

    fn is_amnesiac(&self) -> bool {
        self.group.status().is_some_and(|status| status.is_amnesiac)
    }
}

impl Drop for Deriving {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

struct Nodes {
    site: Site,
    nodes: BTreeMap<u128, Deriving>,
    endpoint: u64,
}

impl Nodes {
    fn new(members: u128, mode: Mode) -> Self {
        let site = Site::new(members, mode);
        let mut nodes = Self {
            site,
            nodes: BTreeMap::new(),
            endpoint: 0,
        };
        for node in 1..=members {
            nodes.start(node);
        }
        nodes
    }

    fn start(&mut self, node: u128) {
        let table = Table::open(&self.site, node);
        self.start_with(node, table);
    }

    fn start_with(&mut self, node: u128, table: Arc<Table>) {
        let deriving = Deriving::open(&self.site, node, table);
        self.endpoint += 1;
        let groups = self.nodes.iter();
        for (peer, other) in groups {
            let (here, there) = (&deriving.group, &other.group);
            there
                .set_peer(NodeId(node), here.address(), self.endpoint)
                .unwrap();
            here.set_peer(NodeId(*peer), there.address(), 1).unwrap();
        }
        self.nodes.insert(node, deriving);
    }

    fn stop(&mut self, node: u128) {
        drop(self.nodes.remove(&node));
    }

    fn of(&self, node: u128) -> &Deriving {
        &self.nodes[&node]
    }

    /// Rows at the primary, until `count` more segments' worth of them are there, and out of its log.
    fn write(&self, count: u8) {
        for number in 0..count {
            append(&self.of(1).group, &[number; ROW_BYTES]);
        }
    }

    /// So much that the log begins far above `from`.
    fn write_beyond(&self, from: Lsn) {
        wait_until("recycled", || {
            self.write(20);
            wait_until("derived", || {
                self.of(1).holds() == self.of(1).group.safe_point().get()
            });
            self.of(1).release();
            self.of(1).group.first_retained() > Lsn::new(from.get() + 40)
        });
    }

    fn wait_in_sync(&self, of: u128, replica: u128) {
        wait_until("in sync", || {
            let status = self.of(of).group.status();
            let replicas = status.into_iter().flat_map(|status| status.replicas);
            let mut found = replicas.filter(|it| it.replica == NodeId(replica));
            found.any(|it| it.is_in_sync)
        });
    }

    /// All tables hold the same, and all of it.
    fn agree(&self, of: u128) {
        wait_until("the same tables", || {
            let end = self.of(of).group.safe_point().get();
            self.nodes.values().all(|node| node.holds() == end)
        });
        let expected = self.of(of).table.rows().clone();
        for (node, deriving) in &self.nodes {
            assert_eq!(*deriving.table.rows(), expected, "node {node}");
        }
    }
}

fn wipe(nodes: &Nodes, node: u128) {
    std::fs::remove_dir_all(nodes.site.of(node).join("journal")).unwrap();
    std::fs::remove_file(nodes.site.of(node).join("table")).unwrap();
}

/// What the primary knows of a replica.
fn seen(nodes: &Nodes, of: u128, replica: u128) -> Option<ReplicaStatus> {
    let status = nodes.of(of).group.status()?;
    let mut replicas = status.replicas.into_iter();
    replicas.find(|it| it.replica == NodeId(replica))
}

fn source(nodes: &Nodes, of: u128, replica: u128) -> Option<Source> {
    seen(nodes, of, replica)?.session?.plan?.source
}

fn outgoing(nodes: &Nodes, of: u128) -> Vec<Transfer> {
    let transfers = nodes.of(of).group.transfers().into_values();
    transfers.filter(|it| !it.is_incoming).collect()
}

fn order(nodes: &Nodes, node: u128, force: Option<&str>) -> Outcome {
    let order = Order::Promote {
        node: NodeId(node),
        config: None,
        force: force.map(str::to_owned),
    };
    nodes.of(node).group.order(order).unwrap()
}

/// Proves: REP-9
#[test]
fn a_wiped_disk_is_filled_again_while_writes_go_on() {
    let mut nodes = Nodes::new(3, Mode::Sync(1));
    promote(1, &nodes.of(1).group, None);
    nodes.write_beyond(Lsn::ZERO);
    nodes.wait_in_sync(1, 3);
    nodes.agree(1);
    nodes.stop(3);
    wipe(&nodes, 3);
    let ends = AtomicBool::new(false);
    let primary = Arc::clone(&nodes.of(1).group);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                append(&primary, &[7; ROW_BYTES]);
            }
        });
        nodes.start(3);
        nodes.wait_in_sync(1, 3);
        ends.store(true, Ordering::Relaxed);
    });
    drop(primary);
    wait_until("known to be sound", || !nodes.of(3).is_amnesiac());
    nodes.agree(1);
    let kind = source(&nodes, 1, 3);
    assert!(
        matches!(kind, Some(Source::SnapshotTail { .. })),
        "{kind:?}"
    );
    assert!(outgoing(&nodes, 1).iter().all(Transfer::is_whole));
}

/// A disk that was lost is no copy and no promise, until it was rebuilt: with the writer gone the third
/// node alone is no majority. The writer that comes back goes on, and the rebuild begins anew.
#[test]
fn the_sender_of_a_base_dies_and_whoever_waits_for_it_counts_for_nothing() {
    let mut nodes = Nodes::new(3, Mode::Sync(1));
    promote(1, &nodes.of(1).group, None);
    nodes.write_beyond(Lsn::ZERO);
    nodes.wait_in_sync(1, 2);
    nodes.stop(3);
    wipe(&nodes, 3);
    nodes.start(3);
    let wiped = Arc::clone(&nodes.of(3).table);
    wiped.waits_after.store(2, Ordering::Relaxed);
    wait_until("in the middle of a base", || {
        wiped.parts.load(Ordering::Relaxed) > 2
    });
    nodes.stop(1);
    wiped.waits_after.store(u64::MAX, Ordering::Relaxed);
    assert!(nodes.of(3).is_amnesiac());
    for node in [2, 3] {
        let outcome = order(&nodes, node, None);
        assert!(
            matches!(outcome, Outcome::Refused(_)),
            "{node}: {outcome:?}"
        );
    }
    nodes.start(1);
    nodes.wait_in_sync(1, 3);
    nodes.write(10);
    nodes.agree(1);
    wait_until("known to be sound", || !nodes.of(3).is_amnesiac());
}

#[test]
fn a_receiver_that_dies_in_the_middle_of_a_base_begins_it_anew() {
    let mut nodes = Nodes::new(2, Mode::Async);
    promote(1, &nodes.of(1).group, None);
    nodes.write_beyond(Lsn::ZERO);
    nodes.stop(2);
    wipe(&nodes, 2);
    for part in [0, 1, 3] {
        nodes.start(2);
        let wiped = Arc::clone(&nodes.of(2).table);
        wiped.waits_after.store(part, Ordering::Relaxed);
        wait_until("in the middle of a base", || {
            wiped.parts.load(Ordering::Relaxed) > part
        });
        nodes.write(5);
        wiped.is_dying.store(true, Ordering::Relaxed);
        nodes.stop(2);
    }
    nodes.start(2);
    nodes.wait_in_sync(1, 2);
    nodes.agree(1);
}

/// A replica that comes and goes asked for a base with each session; all of them were made, one after the
/// other, for sessions that were over, and the one that was there waited behind them until its time was over.
///
/// Proves: REP-13
#[test]
fn a_base_that_nobody_waits_for_any_more_is_not_made() {
    let site = Site::new(1, Mode::Async);
    let table = Table::open(&site, 1);
    let bases = Arc::new(TableBases(Arc::clone(&table)));
    let group = site.open(1);
    let bases: Arc<dyn Bases> = bases;
    let rebuilder = Rebuilder::new(&group.shared, &bases, &site.journal(1));
    let (sender, work) = mpsc::channel();
    let session = |number: u128| SessionId(number);
    for number in 0..20 {
        let since = None;
        let session = session(number);
        sender.send(BaseWork::Open { session, since }).unwrap();
        sender.send(BaseWork::Close { session }).unwrap();
    }
    let (session, since) = (session(20), None);
    sender.send(BaseWork::Open { session, since }).unwrap();
    drop(sender);
    rebuilder.run(&work);
    assert_eq!(table.opened.load(Ordering::Relaxed), 1);
}

/// Proves: REP-12
#[test]
fn whoever_was_away_for_long_gets_what_changed_and_little_more() {
    let mut nodes = Nodes::new(3, Mode::Sync(1));
    promote(1, &nodes.of(1).group, None);
    nodes.write_beyond(Lsn::ZERO);
    nodes.wait_in_sync(1, 3);
    nodes.agree(1);
    let since = nodes.of(3).holds();
    nodes.stop(3);
    nodes.write_beyond(Lsn::new(since));
    nodes.agree(1);
    nodes.wait_in_sync(1, 2);
    let rows = nodes.of(1).table.rows().clone().unwrap().rows;
    let changed: usize = rows.range(since + 1..).map(|(_, row)| row.len()).sum();
    let all: usize = rows.values().map(Vec::len).sum();
    assert!(all * 10 > changed * 12, "{changed} of {all} bytes changed");
    nodes.start(3);
    nodes.wait_in_sync(1, 3);
    nodes.agree(1);
    // Not what went over the wire: hearts beat for as long as the machine takes for it.
    let moved: u64 = outgoing(&nodes, 1).iter().map(|it| it.bytes_done).sum();
    assert!(
        moved > 0 && moved * 10 < changed as u64 * 12,
        "{moved} bytes moved, {changed} changed"
    );
    let kind = source(&nodes, 1, 3);
    let Some(Source::Delta { since: told, .. }) = kind else {
        panic!("{kind:?}")
    };
    assert_eq!(told.get(), since);
    nodes.write(10);
    nodes.agree(1);
}

/// Proves: REP-6
#[test]
fn what_was_derived_from_a_log_that_parted_is_taken_back() {
    let mut nodes = Nodes::new(3, Mode::Async);
    promote(1, &nodes.of(1).group, None);
    nodes.write_beyond(Lsn::ZERO);
    nodes.agree(1);
    nodes.stop(2);
    nodes.stop(3);
    // Acknowledged by one node alone, as `async` allows, and read there.
    nodes.write(5);
    nodes.agree(1);
    let alone = nodes.of(1).holds();
    nodes.stop(1);
    nodes.start(2);
    nodes.start(3);
    let forced = order(&nodes, 2, Some("node 1 is switched off"));
    assert_eq!(forced, Outcome::Done);
    wait_until("written", || {
        let primary = &nodes.of(2).group;
        let written = primary.append(&[(KIND, &[9; ROW_BYTES])]);
        let written = written.inspect_err(|error| println!("{error}"));
        written.is_ok() && primary.safe_point().get() > alone + 5
    });
    nodes.start(1);
    nodes.wait_in_sync(2, 1);
    nodes.agree(2);
    let kind = source(&nodes, 2, 1);
    assert!(matches!(kind, Some(Source::Delta { .. })), "{kind:?}");
    let kept = wal::cut_files(&RealDisk, &nodes.site.of(1).join("journal")).unwrap();
    assert_eq!(kept.len(), 1, "what was cut is in quarantine: {kept:?}");
}

/// What it has reaches into the log that was begun behind the base, and is of another history: positions
/// say that the two meet. It was opened, and read, and what came next was derived on top of it.
///
/// Proves: REP-17
#[test]
fn a_state_of_another_history_is_not_read_after_a_death_amid_its_base() {
    let mut nodes = Nodes::new(3, Mode::Async);
    promote(1, &nodes.of(1).group, None);
    nodes.write_beyond(Lsn::ZERO);
    nodes.agree(1);
    nodes.stop(2);
    nodes.stop(3);
    nodes.write(60);
    nodes.agree(1);
    let alone = nodes.of(1).holds();
    nodes.stop(1);
    nodes.start(2);
    nodes.start(3);
    let forced = order(&nodes, 2, Some("node 1 is switched off"));
    assert_eq!(forced, Outcome::Done);
    let row = |body: u8| nodes.of(2).group.append(&[(KIND, &[body; ROW_BYTES])]);
    wait_until("written", || {
        let written = row(9).inspect_err(|error| println!("{error}"));
        written.is_ok()
    });
    wait_until("derived", || {
        nodes.of(2).holds() == nodes.of(2).group.safe_point().get()
    });
    let base = nodes.of(2).holds();
    assert!(base < alone, "{base} {alone}");
    let table = Table::open(&nodes.site, 1);
    table.waits_after.store(1, Ordering::Relaxed);
    nodes.start_with(1, table);
    let old = Arc::clone(&nodes.of(1).table);
    wait_until("in the middle of a base", || {
        old.parts.load(Ordering::Relaxed) > 1
    });
    // Until it heard of the other one it may have gone on by itself, with the word that it writes again.
    let alone = Rows::decode(&RealDisk.read(&old.file, u64::MAX).unwrap()).holds;
    // The log goes on behind the base, beyond what is derived here.
    while nodes.of(2).group.safe_point().get() < alone + 10 {
        nodes
            .of(2)
            .group
            .append(&[(KIND, &[9; ROW_BYTES])])
            .unwrap();
    }
    wait_until("behind the base", || {
        nodes.of(1).group.shared.local().durable().get() > alone
    });
    // It hears nothing more, or it would ask for another base before it is gone.
    nodes.of(1).group.shared.inbox.close();
    old.is_dying.store(true, Ordering::Relaxed);
    nodes.stop(1);
    nodes.stop(2);
    nodes.start(1);
    wait_until("known", || nodes.of(1).group.status().is_some());
    assert!(nodes.of(1).is_amnesiac());
    let status = nodes.of(1).group.status().unwrap();
    assert!(status.committed.get() <= base, "{}", status.committed);
    let stale = nodes.of(1).table.rows().clone().unwrap().holds;
    assert_eq!(stale, alone, "the state is as it was");
    nodes.start(2);
    nodes.wait_in_sync(2, 1);
    nodes.agree(2);
}

#[test]
fn a_state_that_is_lost_beside_a_sound_log_is_rebuilt() {
    let mut nodes = Nodes::new(2, Mode::Async);
    promote(1, &nodes.of(1).group, None);
    nodes.write_beyond(Lsn::ZERO);
    nodes.wait_in_sync(1, 2);
    nodes.agree(1);
    nodes.of(2).release();
    assert!(nodes.of(2).group.first_retained() > Lsn::FIRST);
    nodes.stop(2);
    std::fs::remove_file(nodes.site.of(2).join("table")).unwrap();
    nodes.start(2);
    nodes.wait_in_sync(1, 2);
    nodes.agree(1);
}

#[test]
fn a_base_that_there_is_no_room_for_is_refused_and_comes_once_there_is() {
    let mut nodes = Nodes::new(2, Mode::Async);
    promote(1, &nodes.of(1).group, None);
    nodes.write_beyond(Lsn::ZERO);
    nodes.stop(2);
    wipe(&nodes, 2);
    nodes.start(2);
    nodes.of(2).table.is_full.store(true, Ordering::Relaxed);
    wait_until("refused with its reason", || {
        let session = seen(&nodes, 1, 2).and_then(|it| it.session);
        let cause = session.and_then(|session| session.cause);
        cause.is_some_and(|cause| cause.contains("no room"))
    });
    // It is offered again and again.
    wait_until("given up", || outgoing(&nodes, 1).is_empty());
    nodes.write(10);
    nodes.of(2).table.is_full.store(false, Ordering::Relaxed);
    nodes.wait_in_sync(1, 2);
    nodes.agree(1);
}
