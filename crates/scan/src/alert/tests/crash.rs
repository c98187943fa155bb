//! The process dies at every effect that it has on the disk; and two look at once.

use super::*;
use Outcome::{Fail, Pass};

/// Scans and attempts of a morning; what they bring about is known.
fn record(site: &Site) {
    site.add_host("a", &[]);
    site.add_host("b", &[]);
    site.scan("a", &[("critical-1", Pass), ("p", Pass)]);
    site.scan("a", &[("critical-1", Fail), ("p", Pass)]);
    site.scan("b", &[("high-1", Fail), ("p", Pass)]);
    site.scan("a", &[("critical-1", Pass), ("p", Pass)]);
}

/// Looks and sends until nothing is left, as `up` does.
fn work(store: &Store, at: Timestamp, taken: &mut Vec<(String, String)>) -> Result<(), Error> {
    // No two processes draw the same: ids that are the same would hide what is doubled or lost.
    let random: Arc<dyn Random> = Arc::new(sim::Random::new(at.nanos()));
    let receivers = vec![receiver("r")];
    Evaluator::new(store, Arc::clone(&random), receivers)?.look(at, &[])?;
    let outbox = Outbox::new(store.clone(), random)?;
    while let Some(claimed) = outbox.claim("r", "w", at, Duration::ZERO)? {
        let notice = &claimed.delivery.notice;
        // The receiver has it, whatever becomes of us.
        taken.push((notice.id.clone(), line_of(notice)));
        outbox.finish(&claimed, &Tried::Taken, at)?;
    }
    Ok(())
}

/// What the receiver was told, each notice once by its id, whatever the order of hosts.
fn distinct(taken: &[(String, String)]) -> Vec<String> {
    let by_id: std::collections::BTreeMap<&String, &String> =
        taken.iter().map(|(id, line)| (id, line)).collect();
    let mut lines: Vec<String> = by_id.values().map(ToString::to_string).collect();
    lines.sort();
    lines
}

fn copied(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copied(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A journal on a disk, and tables as they are in `dir`.
fn site_on(dir: tempfile::TempDir, disk: &sim::Disk, clock: &sim::Clock) -> Result<Site, String> {
    let store = open(
        dir.path(),
        Path::new("/journal"),
        Arc::new(disk.clone()),
        clock,
        crate::test_store::open_here,
    )?;
    Ok(Site {
        _dir: dir,
        store,
        clock: clock.clone(),
        receivers: vec![receiver("r")],
        random: Arc::new(sim::Random::new(9)),
    })
}

/// Nothing lost, nothing doubled: neither alerts nor notices, by their ids.
/// Proves: LED-12
#[test]
fn a_process_that_dies_at_any_effect_neither_loses_nor_doubles_an_alert() {
    let mut expected_told = [
        "opened drift_improvement -, resolved finding_critical critical-1, resolved drift_major -",
        "opened findings_baseline -",
        "opened finding_critical critical-1, opened drift_major -",
    ];
    expected_told.sort_unstable();
    let (recorded, clock) = (sim::Disk::new(3), sim::Clock::new(START));
    let tables = scratch();
    let first = scratch();
    let site = site_on(first, &recorded, &clock).unwrap();
    record(&site);
    site.store.close().unwrap();
    copied(site._dir.path(), tables.path());
    drop(site);
    let recorded = recorded.process_death();
    let copy = || {
        let dir = scratch();
        copied(tables.path(), dir.path());
        dir
    };

    let whole = recorded.fork();
    let site = site_on(copy(), &whole, &clock).unwrap();
    let mut taken = Vec::new();
    work(&site.store, site.now(), &mut taken).unwrap();
    assert_eq!(distinct(&taken), expected_told);
    let expected_lines = site.lines();
    drop(site);
    let mut crashes = 0;
    for effect in 1..=whole.effects() {
        // In turn, as each open of a store costs: either way of dying meets every kind of effect.
        let is_killed = effect % 2 == 0;
        let (disk, mut taken) = (recorded.fork(), Vec::new());
        disk.crash_at(effect);
        // The tables outlive the process with the journal.
        let dir = copy();
        let left = scratch();
        let ended = site_on(dir, &disk, &clock).and_then(|site| {
            let done = work(&site.store, site.now(), &mut taken);
            copied(site._dir.path(), left.path());
            done.map_err(|error| error.to_string())
        });
        if ended.is_ok() {
            continue;
        }
        if std::fs::read_dir(left.path()).unwrap().next().is_none() {
            copied(tables.path(), left.path());
        }
        crashes += 1;
        let (how, after) = if is_killed {
            ("killed", disk.process_death())
        } else {
            ("power lost", disk.power_loss_total())
        };
        let crash = format!("{how} at effect {effect}");
        let site = site_on(left, &after, &clock).expect(&crash);
        site.wait(MINUTE);
        work(&site.store, site.now(), &mut taken).unwrap();
        assert_eq!(distinct(&taken), expected_told, "{crash}");
        assert_eq!(site.lines(), expected_lines, "{crash}");
        let records = site.audited();
        let opened = records
            .iter()
            .filter(|record| record.action == "alert.opened");
        assert_eq!(opened.count(), expected_lines.len(), "{crash}");
    }
    assert!(crashes > 20, "{crashes} crashes");
}

/// Several processes on one store look at the same time.
/// Proves: LED-12
#[test]
fn several_that_look_at_once_raise_nothing_twice() {
    let site = Site::new();
    for host in 0..20 {
        let host = format!("host-{host}");
        site.scan(&host, &[("critical-1", Pass), ("p", Pass)]);
        site.scan(&host, &[("critical-1", Fail), ("p", Pass)]);
    }
    let at = site.now();
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (store, receivers) = (site.store.clone(), site.receivers.clone());
            scope.spawn(move || {
                let random = Arc::new(sim::Random::new(seed));
                let evaluator = Evaluator::new(&store, random, receivers).unwrap();
                evaluator.look(at, &[]).unwrap();
            });
        }
    });
    site.look();
    assert_eq!(site.all().len(), 40);
    assert!(site.all().iter().all(|alert| alert.count == 1));
    let told = site.told("r");
    assert_eq!(told.len(), 20, "{told:?}");
}
