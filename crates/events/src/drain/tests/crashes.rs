//! A crash at every effect on the disk in turn, and what the next start makes of it.
//!
//! The failure looked for: an event that the receiver neither took nor left in the dead letters, and
//! that no later drain sends.

use std::sync::Mutex;

use world::Disk as _;

use super::*;

/// Takes all but every seventh event, which it refuses when it comes alone; else the batch.
fn picky(unfit: Vec<String>, refused: Arc<Mutex<BTreeSet<String>>>) -> Peer {
    Peer::new(move |request| {
        let count = request
            .events
            .iter()
            .filter(|name| unfit.contains(name))
            .count();
        if count == 0 {
            return Answer::Accept;
        }
        if count < request.events.len() {
            return Answer::Status(400, vec![]);
        }
        refused
            .lock()
            .unwrap()
            .extend(request.events.iter().cloned());
        Answer::Refuse(i64::try_from(count).unwrap())
    })
}

/// Whether the crash at the `nth` effect came before the drain was through.
fn check(nth: u64, after: impl Fn(&sim::Disk) -> sim::Disk) -> bool {
    let site = Site::new();
    let ids = site.append(Class::ALL.into_iter().cycle().take(40));
    let all = names(&ids);
    let unfit: Vec<String> = all.iter().step_by(7).cloned().collect();
    let refused = Arc::new(Mutex::new(BTreeSet::new()));
    let peer = picky(unfit.clone(), Arc::clone(&refused));
    site.disk.crash_at(nth);
    // Whatever it says, the machine is gone now.
    drop(site.drain_once(&otlp(&peer)));
    let has_crashed = site.disk.sync_dir("/events".as_ref()).is_err();
    site.disk.crash();
    let disk = after(&site.disk);
    drop(site);
    let site = Site::on(disk).unwrap();
    let summary = site.drain_once(&otlp(&peer)).unwrap();
    assert!(summary.is_complete, "effect {nth}: {summary:?}");
    let taken: BTreeSet<String> = peer.taken().into_iter().collect();
    let dead: BTreeSet<String> = site.dead_names().into_iter().collect();
    assert_eq!(dead.len(), site.dead().len(), "effect {nth}: a letter once");
    for name in &all {
        assert!(
            taken.contains(name) || dead.contains(name),
            "effect {nth}: {name} is lost"
        );
    }
    for name in refused.lock().unwrap().iter() {
        assert!(
            dead.contains(name),
            "effect {nth}: {name} was refused and is not kept"
        );
    }
    let unfit: BTreeSet<String> = unfit.into_iter().collect();
    assert_eq!(dead, unfit, "effect {nth}");
    has_crashed
}

fn sweep(after: impl Fn(&sim::Disk) -> sim::Disk) {
    let mut nth = 1;
    while check(nth, &after) {
        nth += 1;
        assert!(nth < 5_000, "the drain does not end");
    }
    assert!(nth > 20, "only {nth} effects: nothing was shown");
}

/// Proves: EVT-5
#[test]
fn no_kill_at_any_effect_loses_an_event_or_a_refusal() {
    sweep(sim::Disk::process_death);
}

/// Proves: EVT-5
#[test]
fn no_power_loss_at_any_effect_loses_an_event_or_a_refusal() {
    sweep(sim::Disk::power_loss_total);
}

/// A full disk stops the cursor, not the truth: what was answered is recorded once there is room, and
/// is not sent again meanwhile.
#[test]
fn a_full_disk_holds_the_cursor_and_resends_nothing() {
    let site = Site::new();
    // More than the space that the journals have prepared.
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(site.append_event(&NewEvent {
            body: format!("\"{}\"", "long ".repeat(4_000)),
            ..new_event(Class::Error)
        }));
    }
    let peer = Peer::new(|_| Answer::Refuse(8));
    let mut engine = Engine::new(site.options(&otlp(&peer), Mode::Follow)).unwrap();
    site.disk.set_available(0);
    turn_until(&mut engine, |engine| {
        engine.class_status(Class::Error).failures >= 1
    });
    for _ in 0..3 {
        site.clock.advance(Duration::from_secs(120));
        engine.turn();
    }
    assert_eq!(site.cursor(Class::Error), Lsn::ZERO);
    site.disk.set_available(1 << 30);
    site.clock.advance(Duration::from_secs(120));
    turn_until(&mut engine, |engine| {
        engine.class_status(Class::Error).failures == 0
    });
    assert_eq!(site.dead_names(), names(&ids));
    assert_eq!(site.cursor(Class::Error), site.events.safe_point());
    assert_eq!(peer.requests().len(), 1);
}
