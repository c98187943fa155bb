//! Appenders, readers, pins, releases, upkeep and a ceiling at once, and the power lost in the midst of
//! it, against what was acknowledged.
//!
//! The threads take their turns as they come; what is checked holds for every order of them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use world::{Random as _, RealClock, sim};

use super::{KIND, MODES, SEGMENT_BYTES, open_in, options};
use crate::{
    Ceiling, Journal, Kind, Limits, Local, Lsn, Mode, OnReaching, Options, Record, Retention,
    Upkeep, hold,
};

const APPENDERS: u8 = 3;
/// Of each appender: some hundred segments, all modes together a second or two.
const APPENDS: u32 = 250;

/// What happened to a journal, by everybody.
struct Run {
    /// Below a ceiling; else its owner releases.
    drops: bool,
    disk: sim::Disk,
    journal: Local,
    /// Bodies by position, as appenders were told.
    acknowledged: Mutex<BTreeMap<u64, Vec<u8>>>,
    /// Bodies by position, as readers of the journal or of what a power loss left saw them.
    seen: Mutex<BTreeMap<u64, Vec<u8>>>,
    is_over: AtomicBool,
    reads: AtomicU64,
    losses: AtomicU64,
}

impl Run {
    fn begin(mode: Mode, drops: bool) -> Self {
        let disk = sim::Disk::new(1);
        let bytes = 8 * SEGMENT_BYTES;
        let (retention, ceiling) = if drops {
            let on_reaching = OnReaching::DropOldest;
            let ceiling = Ceiling { bytes, on_reaching };
            (Retention::Policy(Limits::default()), Some(ceiling))
        } else {
            (Retention::Owner, None)
        };
        let (journal, _) = Local::open(Options {
            mode,
            retention,
            ceiling,
            upkeep: Upkeep::Thread,
            clock: Arc::new(RealClock::new()),
            reserve_bytes: 8192,
            ..options(&disk)
        })
        .unwrap();
        Self {
            drops,
            disk,
            journal,
            acknowledged: Mutex::default(),
            seen: Mutex::default(),
            is_over: AtomicBool::new(false),
            reads: AtomicU64::new(0),
            losses: AtomicU64::new(0),
        }
    }

    fn append_all(&self, appender: u8) {
        let random = sim::Random::new(u64::from(appender));
        for number in 0..APPENDS {
            let len = 8 + usize::try_from(random.number().unwrap() % 4000).unwrap();
            let mut body = vec![appender; len];
            body[..4].copy_from_slice(&number.to_le_bytes());
            let records = [(KIND, &body[..]), (KIND, &body[..8])];
            let count = 1 + usize::from(len % 3 == 0);
            let appended = loop {
                match self.journal.append(&records[..count]) {
                    Ok(appended) => break appended,
                    // For a moment pins hold all that is below the ceiling.
                    Err(error) => assert_eq!(error.kind(), Kind::Full, "{error}"),
                }
                std::thread::yield_now();
            };
            if !self.drops && number % 16 == 0 {
                self.release();
            }
            let mut acknowledged = hold(&self.acknowledged);
            for (lsn, (_, bytes)) in (appended.first.get()..).zip(&records[..count]) {
                let twice = acknowledged.insert(lsn, bytes.to_vec());
                assert_eq!(twice, None, "{lsn} was given twice");
            }
        }
    }

    fn release(&self) {
        let keep_from = self.journal.safe_point().get().saturating_sub(12);
        self.journal.release_below(Lsn::new(keep_from)).unwrap();
    }

    fn until_over(&self, step: impl Fn(u64)) {
        for round in 0.. {
            step(round);
            if self.is_over.load(Ordering::Acquire) {
                break;
            }
        }
    }

    /// The records of `journal` from `from` on, without a hole, no fewer than were safe before.
    fn read(&self, journal: &Local, from: Lsn) -> bool {
        let safe_point = journal.safe_point();
        let records = match journal.read(from) {
            Ok(records) => records,
            Err(error) => {
                assert_eq!(error.kind(), Kind::OutOfRange, "{error}");
                return false;
            }
        };
        let mut next = from;
        for record in records {
            let Record { lsn, bytes, .. } = record.unwrap();
            assert_eq!(lsn, next);
            next = lsn.next();
            let mut seen = hold(&self.seen);
            let before = seen.entry(lsn.get()).or_insert_with(|| bytes.clone());
            assert!(*before == bytes, "{lsn} was read as two records");
        }
        assert!(next > safe_point, "{from} to {next}, {safe_point} was safe");
        self.reads.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Readers that begin with the first position would let nothing ever go.
    fn near_the_end(&self, round: u64) -> Lsn {
        let back = self
            .journal
            .safe_point()
            .get()
            .saturating_sub(round * 7 % 16);
        self.journal.first_retained().max(Lsn::new(back))
    }

    /// A position that is pinned stays readable, whatever is released meanwhile.
    fn read_pinned(&self, round: u64) {
        let Ok(pin) = self.journal.pin(self.near_the_end(round)) else {
            return;
        };
        for _ in 0..3 {
            assert!(
                self.read(&self.journal, pin.from()),
                "a pinned segment went"
            );
            assert!(self.journal.first_retained() <= pin.from());
        }
    }

    fn lose_power(&self, round: u64) {
        let told = hold(&self.acknowledged)
            .last_key_value()
            .map_or(0, |last| *last.0);
        let now = self.disk.fork();
        let after = match round % 3 {
            0 => now.process_death(),
            1 => now.power_loss_total(),
            _ => now.power_loss(round),
        };
        self.disk.clear_log();
        let first = self.journal.first_retained();
        let (found, report) = open_in(&after, MODES[usize::from(round.is_multiple_of(2))]).unwrap();
        assert!(report.safe_point.get() >= told, "{told} lost: {report:?}");
        assert!(report.first_retained <= first, "{first}: {report:?}");
        assert!(self.read(&found, report.first_retained));
        self.losses.fetch_add(1, Ordering::Relaxed);
    }

    fn all_together(&self) {
        std::thread::scope(|scope| {
            let appenders: Vec<_> = (0..APPENDERS)
                .map(|appender| scope.spawn(move || self.append_all(appender)))
                .collect();
            scope.spawn(|| {
                self.until_over(|round| {
                    self.read(&self.journal, self.near_the_end(round));
                });
            });
            scope.spawn(|| self.until_over(|round| self.read_pinned(round)));
            scope.spawn(|| self.until_over(|round| self.lose_power(round)));
            scope.spawn(|| {
                self.until_over(|round| {
                    if !self.drops || round % 64 == 0 {
                        self.release();
                    }
                    self.journal.apply_retention().unwrap();
                    self.journal.tend().unwrap();
                    std::thread::yield_now();
                });
            });
            let ends: Vec<_> = appenders.into_iter().map(|it| it.join()).collect();
            self.is_over.store(true, Ordering::Release);
            assert!(ends.iter().all(Result::is_ok), "an appender failed");
        });
    }

    /// Everything acknowledged is there, once, and nothing else was ever read.
    fn compare(self, mode: Mode) {
        let counts = self.journal.counts();
        assert_eq!(counts.poisonings, 0);
        assert!(self.drops || counts.recycled > 0, "{counts:?}");
        assert!(counts.rolls > 20, "{counts:?}");
        self.lose_power(0);
        let found = self.disk.process_death();
        drop(self.journal);
        let acknowledged = self.acknowledged.into_inner().unwrap();
        let last = acknowledged.len() as u64;
        assert!(acknowledged.keys().copied().eq(1..=last), "a hole");
        for (lsn, bytes) in self.seen.into_inner().unwrap() {
            assert!(acknowledged.get(&lsn) == Some(&bytes), "{lsn} is another");
        }
        let (journal, report) = open_in(&found, mode).unwrap();
        assert_eq!((report.safe_point.get(), report.cut), (last, None));
        let first = journal.first_retained().get();
        for (lsn, record) in (first..).zip(journal.read(Lsn::new(first)).unwrap()) {
            assert!(record.unwrap().bytes == acknowledged[&lsn], "{lsn}");
        }
        assert!(self.reads.into_inner() > 3 && self.losses.into_inner() > 1);
    }
}

/// Proves: JRN-4, JRN-5, JRN-18, JRN-19
#[test]
fn nothing_acknowledged_is_lost_while_everybody_works_at_once() {
    for mode in MODES {
        for drops in [false, true] {
            let run = Run::begin(mode, drops);
            run.all_together();
            run.compare(mode);
        }
    }
}
