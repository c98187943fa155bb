//! What a journal tells about itself while it runs and while it opens.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use world::{Clock, Timestamp, sim};

use super::{SEGMENT_BYTES, append, fresh, open, options};
use crate::{
    BATCH_BYTES, BATCH_RECORDS, Histogram, Journal, Local, Lsn, Options, PROGRESS_PAUSE, Progress,
    SYNC_MICROS,
};

fn observed(histogram: &Histogram) -> u64 {
    assert_eq!(histogram.counts.len(), histogram.bounds.len() + 1);
    histogram.counts.iter().sum()
}

/// Proves: JRN-22
#[test]
fn every_group_is_in_each_histogram_once() {
    let (_disk, journal) = fresh();
    for len in [0, 10, 100, 1000, 9000] {
        append(&journal, &vec![1; len]).unwrap();
    }
    let metrics = journal.metrics();
    assert_eq!(metrics.counts, journal.counts());
    for (histogram, bounds) in [
        (&metrics.sync_micros, SYNC_MICROS),
        (&metrics.batch_records, BATCH_RECORDS),
        (&metrics.batch_bytes, BATCH_BYTES),
    ] {
        assert_eq!(histogram.bounds, bounds);
        assert!(bounds.is_sorted_by(|a, b| a < b));
        assert_eq!(observed(histogram), 5);
    }
    assert_eq!(metrics.batch_records.sum, 5);
    assert_eq!(metrics.batch_records.counts[0], 5);
    assert_eq!(metrics.batch_bytes.sum, metrics.counts.bytes);
    // 64, 72, 168, 1064 and 9064 bytes, by inclusive upper bounds.
    assert_eq!(metrics.batch_bytes.counts[..6], [2, 1, 0, 0, 1, 1]);
}

/// Proves: JRN-22
#[test]
fn a_named_pin_shows_how_far_its_reader_is_behind() {
    let (disk, journal) = fresh();
    for number in 0..10 {
        append(&journal, &[number; 3000]).unwrap();
    }
    let _far = journal.pin_named("drain errors", Lsn::new(4)).unwrap();
    let _near = journal.pin_named("drain errors", Lsn::new(9)).unwrap();
    let _done = journal.pin_named("bridge", Lsn::new(11)).unwrap();
    let reading = journal.read(Lsn::new(7)).unwrap();
    let told = |journal: &Local| {
        let metrics = journal.metrics();
        let readers = metrics.readers.iter();
        let readers: Vec<_> = readers
            .map(|it| format!("{} {} {}", it.name, it.from, it.records))
            .collect();
        (readers, metrics.pins_unnamed)
    };
    let expected = ["bridge 11 0", "drain errors 4 7"].map(str::to_owned);
    assert_eq!(told(&journal), (expected.to_vec(), 1));
    drop(reading);
    drop(_far);
    let expected = ["bridge 11 0", "drain errors 9 2"].map(str::to_owned);
    assert_eq!(told(&journal), (expected.to_vec(), 0));
    journal.release_below(Lsn::new(5)).unwrap();
    let metrics = journal.metrics();
    assert_eq!(
        (metrics.first_retained.get(), metrics.safe_point.get()),
        (5, 10)
    );
    assert_eq!(metrics.segments, 3);
    assert_eq!(metrics.retained_bytes, Some(3 * SEGMENT_BYTES));
    assert!(metrics.used_bytes > metrics.retained_bytes);
    assert!(!metrics.is_poisoned);
    disk.inject(
        sim::Call::SyncData,
        1,
        sim::Fault::Fail(std::io::ErrorKind::Other),
    );
    append(&journal, b"lost").unwrap_err();
    assert!(journal.metrics().is_poisoned);
    assert_eq!(journal.metrics().counts.poisonings, 1);
}

/// Every look at it takes a millisecond.
#[derive(Debug)]
struct Ticking(sim::Clock);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        self.0.now()
    }
    fn monotonic(&self) -> Duration {
        self.0.advance(Duration::from_millis(1));
        self.0.monotonic()
    }
    fn sleep(&self, duration: Duration) {
        self.0.sleep(duration);
    }
}

/// Proves: JRN-22
#[test]
fn the_time_of_a_sync_is_in_the_bucket_of_its_bound() {
    let disk = sim::Disk::new(1);
    let clock = Ticking(sim::Clock::new(Timestamp::from_nanos(1)));
    let (journal, _) = Local::open(Options {
        clock: Arc::new(clock),
        ..options(&disk)
    })
    .unwrap();
    for _ in 0..3 {
        append(&journal, b"one").unwrap();
    }
    let histogram = journal.metrics().sync_micros;
    let bucket = histogram
        .bounds
        .iter()
        .position(|&bound| bound == 1024)
        .unwrap();
    assert_eq!((histogram.counts[bucket], histogram.sum), (3, 3000));
}

/// Proves: JRN-17
#[test]
fn opening_tells_how_far_it_is_from_nothing_to_all_at_a_bounded_rate() {
    let disk = sim::Disk::new(1);
    let large = |clock: Arc<dyn Clock>, progress: Option<crate::OnProgress>| Options {
        segment_bytes: 4 << 20,
        clock,
        progress,
        ..options(&disk)
    };
    let still: Arc<dyn Clock> = Arc::new(sim::Clock::new(Timestamp::from_nanos(1)));
    let (journal, _) = Local::open(large(Arc::clone(&still), None)).unwrap();
    for number in 0..12 {
        append(&journal, &vec![number; 1 << 20]).unwrap();
    }
    let total = journal.metrics().retained_bytes.unwrap();
    drop(journal);

    // A clock that stands still, and one by which a MiB takes a second: 12 of them and both ends.
    let slow = Slow(sim::Clock::new(Timestamp::from_nanos(1)));
    for (clock, tellings) in [(still, 2..=2), (Arc::new(slow), 10..=18)] {
        let told: Arc<Mutex<Vec<Progress>>> = Arc::default();
        let sink = Arc::clone(&told);
        let on_progress = move |progress| sink.lock().unwrap().push(progress);
        drop(Local::open(large(clock, Some(Arc::new(on_progress)))).unwrap());
        let told = told.lock().unwrap();
        assert!(tellings.contains(&told.len()), "{} tellings", told.len());
        assert_eq!(told[0], Progress { done: 0, total });
        assert_eq!(told[told.len() - 1], Progress { done: total, total });
        assert!(told.is_sorted_by_key(|progress| progress.done), "{told:?}");
    }
}

/// Every look at it takes longer than the pause between two tellings.
#[derive(Debug)]
struct Slow(sim::Clock);

impl Clock for Slow {
    fn now(&self) -> Timestamp {
        self.0.now()
    }
    fn monotonic(&self) -> Duration {
        self.0.advance(PROGRESS_PAUSE * 2);
        self.0.monotonic()
    }
    fn sleep(&self, duration: Duration) {
        self.0.sleep(duration);
    }
}

/// What lies below a checkpoint is released and gone: opening reads what is above it, and one
/// segment more at most, however much was ever appended.
///
/// Proves: JRN-17
#[test]
fn opening_reads_what_is_above_the_last_checkpoint_however_old_the_journal_is() {
    let mut scanned = Vec::new();
    for rounds in [1_u64, 10, 60] {
        let (disk, journal) = fresh();
        for _ in 0..rounds {
            for number in 0..6 {
                append(&journal, &[number; 3000]).unwrap();
            }
            journal
                .release_below(Lsn::new(journal.safe_point().get() - 3))
                .unwrap();
        }
        drop(journal);
        let (_, report) = open(&disk).unwrap();
        assert!(report.segments <= 3, "{report:?}");
        scanned.push(report.bytes);
    }
    assert!(
        scanned.iter().all(|&bytes| bytes <= 6 * 3064),
        "{scanned:?}"
    );
}
