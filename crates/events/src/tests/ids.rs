//! The index of producers' ids against a map in memory: through runs, merges, reopening, power loss,
//! retention and a reset; and with its files missing, damaged, or unwritable.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use proptest::prelude::*;
use wal::{Journal, Lsn, Upkeep};
use world::{
    Disk as _, Timestamp,
    disk::Open,
    sim::{self, Call, Fault},
};

use super::{journal, named};
use crate::{
    Log,
    ids::{self, Limits},
    log::{Options, Recovery},
};

const JOURNAL: &str = "/events/journal";
const IDS: &str = "/events/ids";
const SMALL: Limits = Limits {
    table_len_max: 8,
    unwritten_max: 40,
    unwritten_at_close_max: 2,
};

/// A log whose index is small, and what it acknowledged.
struct Site {
    disk: sim::Disk,
    clock: sim::Clock,
    open: Option<(Arc<dyn Journal>, Log)>,
    /// Position of each id that was acknowledged.
    model: HashMap<String, Lsn>,
}

impl Site {
    fn new() -> Self {
        let mut site = Self {
            disk: sim::Disk::new(1),
            clock: sim::Clock::new(Timestamp::from_nanos(1_000)),
            open: None,
            model: HashMap::new(),
        };
        site.reopen();
        site
    }

    fn reopen(&mut self) -> Recovery {
        self.reopen_with(SMALL)
    }

    fn reopen_with(&mut self, limits: Limits) -> Recovery {
        self.open = None;
        let journal = journal(&self.disk, JOURNAL, &self.clock);
        let (log, recovery) = Log::open(Options {
            upkeep: Upkeep::Caller,
            ids_limits: limits,
            ..Options::new(
                Arc::clone(&journal),
                Arc::new(self.disk.clone()),
                Arc::new(self.clock.clone()),
                IDS,
            )
        })
        .unwrap();
        self.open = Some((journal, log));
        recovery
    }

    fn log(&self) -> &Log {
        &self
            .open
            .as_ref()
            .expect("open between the steps of a test")
            .1
    }

    fn lose_power(&mut self, seed: u64) {
        let disk = self.disk.power_loss(seed);
        // Dropped on the disk that is gone: nothing they still do reaches the other one.
        self.open = None;
        self.disk = disk;
    }

    /// Appends a batch and holds its acknowledgements against the model.
    fn append(&mut self, ids: &[String]) {
        let acks = self
            .log()
            .append(ids.iter().map(|id| named(id)).collect())
            .unwrap();
        let retained = self.log().first_retained();
        for (id, ack) in ids.iter().zip(acks) {
            let known = self.model.get(id).copied().filter(|lsn| *lsn >= retained);
            assert_eq!(ack.is_duplicate, known.is_some(), "{id}: {ack:?}");
            if let Some(known) = known {
                assert_eq!(ack.id.lsn, known, "{id}");
            }
            self.model.insert(id.clone(), ack.id.lsn);
        }
    }

    fn release_below(&self, keep_from: u64) {
        let (journal, _) = self
            .open
            .as_ref()
            .expect("open between the steps of a test");
        journal.release_below(Lsn::new(keep_from)).unwrap();
    }

    fn run_files(&self) -> Vec<PathBuf> {
        let entries = self.disk.list(Path::new(IDS)).unwrap();
        entries
            .iter()
            .filter(|entry| entry.name.ends_with(".ids"))
            .map(|entry| Path::new(IDS).join(&entry.name))
            .collect()
    }

    /// Every id in the retained range is known, and no other.
    fn check_all(&mut self) {
        let mut ids: Vec<String> = self.model.keys().cloned().collect();
        ids.sort();
        for batch in ids.chunks(7) {
            self.append(batch);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Ids by number; small numbers come again and again.
    Append(Vec<u16>),
    AppendWithoutIds(u8),
    Reopen,
    PowerLoss(u64),
    /// Releases this share of the retained range, in 256ths.
    Release(u8),
    /// Removes one file of the index while the log is closed.
    RemoveRun(u8),
    /// Flips a byte of one file of the index while the log is closed.
    DamageRun(u8, u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => prop::collection::vec(prop_oneof![0..40_u16, any::<u16>()], 1..12).prop_map(Step::Append),
        2 => (1..30_u8).prop_map(Step::AppendWithoutIds),
        2 => Just(Step::Reopen),
        2 => any::<u64>().prop_map(Step::PowerLoss),
        1 => any::<u8>().prop_map(Step::Release),
        1 => any::<u8>().prop_map(Step::RemoveRun),
        1 => (any::<u8>(), any::<u16>()).prop_map(|(run, at)| Step::DamageRun(run, at)),
    ]
}

fn run(steps: &[Step]) {
    let mut site = Site::new();
    for step in steps {
        match step {
            Step::Append(numbers) => {
                let ids: Vec<String> = numbers.iter().map(ToString::to_string).collect();
                site.append(&ids);
            }
            Step::AppendWithoutIds(count) => {
                let events = (0..*count).map(|_| super::event("2")).collect();
                let acks = site.log().append(events).unwrap();
                assert!(acks.iter().all(|ack| !ack.is_duplicate));
            }
            Step::Reopen => {
                site.reopen();
            }
            Step::PowerLoss(seed) => {
                site.lose_power(*seed);
                site.reopen();
            }
            Step::Release(share) => {
                let (first, last) = (site.log().first_retained(), site.log().safe_point());
                let len = last.get() + 1 - first.get();
                site.release_below(first.get() + len * u64::from(*share) / 256);
            }
            Step::RemoveRun(which) => {
                site.open = None;
                let runs = site.run_files();
                if !runs.is_empty() {
                    let run = &runs[usize::from(*which) % runs.len()];
                    site.disk.remove_file(run).unwrap();
                }
                site.reopen();
            }
            Step::DamageRun(which, at) => {
                site.open = None;
                let runs = site.run_files();
                if !runs.is_empty() {
                    flip(
                        &site.disk,
                        &runs[usize::from(*which) % runs.len()],
                        u64::from(*at),
                    );
                }
                site.reopen();
            }
        }
    }
    site.check_all();
    site.reopen();
    site.check_all();
}

fn flip(disk: &sim::Disk, path: &Path, at: u64) {
    let file = disk.open(path, Open::Write).unwrap();
    let at = at % file.len().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
    file.sync_all().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Proves: EVT-3
    #[test]
    fn an_id_is_known_exactly_while_its_event_is_retained(steps in prop::collection::vec(step(), 1..60)) {
        run(&steps);
    }
}

fn numbered(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| format!("id-{number}")).collect()
}

fn fill(site: &mut Site, count: u32) {
    for batch in numbered(0..count).chunks(5) {
        site.append(batch);
    }
}

#[test]
fn an_open_reads_only_what_lies_above_the_newest_run() {
    let mut site = Site::new();
    fill(&mut site, 300);
    let recovery = site.reopen();
    assert!(recovery.replayed <= 8, "{recovery:?}");
    site.lose_power(1);
    let recovery = site.reopen();
    assert!(recovery.replayed <= 16, "{recovery:?}");
    assert_eq!(recovery.discarded, 0);
    site.check_all();
}

#[test]
fn runs_are_merged_so_that_there_are_few() {
    let mut site = Site::new();
    fill(&mut site, 2_000);
    let runs = site.run_files().len();
    // Of 160 ids each, and the few that have not come so far.
    assert!((12..=18).contains(&runs), "{runs}");
}

#[test]
fn runs_go_with_the_events_they_tell_of() {
    let mut site = Site::new();
    fill(&mut site, 1_000);
    let before = site.run_files().len();
    site.release_below(900);
    let first = site.log().first_retained().get();
    assert!(first > 800, "{first}");
    for batch in numbered(2_000..2_040).chunks(5) {
        site.append(batch);
    }
    let left = site.run_files();
    assert!(left.len() < before, "{left:?}");
    for path in &left {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let last: u64 = stem.split_once('-').unwrap().1.parse().unwrap();
        assert!(last >= first, "{path:?} tells of nothing that is retained");
    }
    site.check_all();
}

/// After a reset a copy of the old index lies beside the new journal, which is as long as the old one
/// was. Were it believed, the ids of the new generation would be unknown.
#[test]
fn an_index_of_another_generation_is_thrown_away() {
    let mut site = Site::new();
    fill(&mut site, 200);
    site.open = None;
    let old = site.run_files();
    assert!(old.len() > 1);
    let options = super::journal_options(&site.disk, JOURNAL, &site.clock);
    wal::reset(&options, "a test").unwrap();
    site.model.clear();
    {
        let journal = journal(&site.disk, JOURNAL, &site.clock);
        let disk = Arc::new(site.disk.clone());
        let clock = Arc::new(site.clock.clone());
        let (log, _) = Log::open(Options::new(journal, disk, clock, "/events/others")).unwrap();
        for id in numbered(1_000..1_300) {
            let acks = log.append(vec![named(&id)]).unwrap();
            assert_eq!(acks[0].id.generation, wal::Generation(2));
            site.model.insert(id, acks[0].id.lsn);
        }
    }
    let recovery = site.reopen();
    assert_eq!(recovery.discarded, old.len() as u64);
    site.check_all();
    let again = site.log().append(vec![named("id-0")]).unwrap();
    assert!(!again[0].is_duplicate, "of an earlier life");
}

#[test]
fn a_run_that_rots_while_it_is_open_is_made_again_from_the_journal() {
    let mut site = Site::new();
    fill(&mut site, 200);
    for path in site.run_files() {
        // In the first block, behind the header.
        flip(&site.disk, &path, 4096 + 3);
    }
    site.check_all();
    assert_eq!(site.reopen().discarded, 0, "what was made again verifies");
    site.check_all();
}

#[test]
fn while_the_index_cannot_be_written_events_without_ids_are_kept_and_memory_is_bounded() {
    let mut site = Site::new();
    for _ in 0..200 {
        site.disk
            .inject(Call::Create, 1, Fault::Fail(io::ErrorKind::StorageFull));
    }
    let mut kept = 0;
    let refused = loop {
        if kept == SMALL.table_len_max + 1 {
            // The first ids are neither in a run nor in the table that fills.
            let again = site.log().append(vec![named("id-0")]).unwrap();
            assert!(again[0].is_duplicate);
        }
        match site.log().append(vec![named(&format!("id-{kept}"))]) {
            Ok(acks) => {
                assert!(!acks[0].is_duplicate);
                kept += 1;
            }
            Err(error) => break error,
        }
        assert!(
            kept <= 2 * SMALL.table_len_max,
            "memory grows without bound"
        );
    };
    assert_eq!(refused.kind(), crate::Kind::Full, "{refused}");
    assert!(
        kept > SMALL.table_len_max,
        "a full table is on its way to the disk"
    );
    site.log().append(vec![super::event("3")]).unwrap();
    // Space is back.
    site.open = None;
    site.disk = site.disk.process_death();
    site.reopen();
    let again = site.log().append(vec![named("id-0")]).unwrap();
    assert!(again[0].is_duplicate);
}

#[test]
fn a_collision_of_hashes_costs_a_read_and_no_event() {
    // A source that ends where the id of the other begins: the same bytes, and so the same key.
    let mut one = named("y");
    one.source = "a\0x".to_owned();
    let mut other = named("x\0y");
    other.source = "a".to_owned();
    let mut site = Site::new();
    let keys = ids::Keys::new(site.log().identity());
    assert_eq!(keys.key("a\0x", "y"), keys.key("a", "x\0y"));
    for round in 0..2 {
        let acks = site
            .log()
            .append(vec![one.clone(), other.clone(), one.clone()])
            .unwrap();
        assert_eq!(acks[0].is_duplicate, round == 1);
        assert_eq!(acks[1].is_duplicate, round == 1);
        assert_ne!(acks[0].id, acks[1].id);
        assert_eq!(acks[2].id, acks[0].id);
        // Both again from a run.
        site.reopen();
    }
    fill(&mut site, 60);
    for (event, lsn) in [(one, 1), (other, 2)] {
        let acks = site.log().append(vec![event]).unwrap();
        assert!(acks[0].is_duplicate);
        assert_eq!(acks[0].id.lsn, Lsn::new(lsn));
    }
}

#[test]
fn an_index_written_by_a_thread_of_its_own_knows_the_same_ids() {
    let disk = sim::Disk::new(1);
    let clock = sim::Clock::new(Timestamp::from_nanos(1_000));
    let journal = journal(&disk, JOURNAL, &clock);
    let options = Options {
        ids_limits: Limits {
            table_len_max: 64,
            ..SMALL
        },
        ..Options::new(journal, Arc::new(disk), Arc::new(clock), IDS)
    };
    let (log, _) = Log::open(options).unwrap();
    let append = |number: u32| loop {
        match log.append(vec![named(&number.to_string())]) {
            Ok(acks) => break acks[0],
            Err(error) => assert_eq!(error.kind(), crate::Kind::Overloaded, "{error}"),
        }
        std::thread::yield_now();
    };
    let first: Vec<_> = (0..2_000).map(&append).collect();
    for (number, first) in (0..2_000).zip(&first) {
        let again = append(number);
        assert!(again.is_duplicate && !first.is_duplicate);
        assert_eq!(again.id, first.id);
    }
    log.close().unwrap();
}
